"""Losses against slow, plain re-derivations in float64, and the masks they stand on."""

import math

import pytest
import torch

from workbench import models, objectives
from workbench.errors import UserError
from workbench.models import IGNORED


@pytest.fixture(scope="module")
def double():
    """The shipped base in float64."""
    vlm = models.load("miniguard", device="cpu")
    vlm.model.double()
    return vlm


@pytest.fixture(scope="module")
def batches(double, few):
    harmful, harmless = [e for e in few if e.harmful], [e for e in few if not e.harmful]

    def batch(examples, answers):
        return models.answer_batch(double, [e.picture() for e in examples], [e.query for e in examples], answers)

    forget = batch(harmful, [e.leak for e in harmful])
    torch.manual_seed(0)
    with torch.no_grad():
        forget["reference"] = objectives.sequence_logprobs(double.model, {k: v for k, v in forget.items() if k != "reference"})
        forget["reference"] += torch.randn(len(harmful), dtype=torch.float64)
    return forget, batch(harmless, [e.response for e in harmless])


def slow_logprobs(model, batch):
    """[[log p of each answer token]], one row and one token at a time."""
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "reference")}
    logits, labels = model(**inputs).logits, batch["labels"]
    rows = []
    for row in range(len(labels)):
        rows.append([logits[row, t - 1].log_softmax(0)[labels[row, t]] for t in range(1, labels.shape[1]) if labels[row, t] != IGNORED])
    return rows


def slow_cross_entropy(model, batch):
    rows = slow_logprobs(model, batch)
    return -sum(sum(row) / len(row) for row in rows) / len(rows)


def slow_npo(model, forget, retain, beta, alpha):
    ratios = [sum(row) - reference for row, reference in zip(slow_logprobs(model, forget), forget["reference"], strict=True)]
    terms = [-(2 / beta) * torch.log(1 / (1 + torch.exp(beta * ratio))) for ratio in ratios]
    return sum(terms) / len(terms) + alpha * slow_cross_entropy(model, retain)


def slow_sft(model, forget, retain):
    return (slow_cross_entropy(model, forget) + slow_cross_entropy(model, retain)) / 2


@pytest.mark.parametrize(
    "fast, slow, hyper",
    [
        (objectives.npo, slow_npo, {"beta": 0.5, "alpha": 10.0}),
        (objectives.npo, slow_npo, {"beta": 2.0, "alpha": 0.0}),
        (objectives.sft, slow_sft, {}),
    ],
)
def test_loss_and_gradient_are_those_of_the_plain_formula(double, batches, fast, slow, hyper):
    weight = double.model.model.language_model.layers[2].mlp.down_proj.weight
    found, expected = fast(double.model, *batches, **hyper), slow(double.model, *batches, **hyper)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(loss, weight)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


def test_npo_tends_to_gradient_ascent_as_beta_falls(double, batches):
    """∇ NPO → ∇ mean log π(y|x): the gradient of ascent on the loss of the forget set."""
    weight = double.model.model.language_model.layers[1].self_attn.q_proj.weight
    (npo,) = torch.autograd.grad(objectives.npo(double.model, *batches, beta=1e-6, alpha=0.0), weight)
    (ascent,) = torch.autograd.grad(objectives.sequence_logprobs(double.model, batches[0]).mean(), weight)
    torch.testing.assert_close(npo, ascent, rtol=1e-4, atol=1e-8)


def test_npo_at_the_reference_is_two_log_two_over_beta(double, batches):
    forget = dict(batches[0])
    forget["reference"] = objectives.sequence_logprobs(double.model, forget).detach()
    loss = objectives.npo(double.model, forget, batches[1], beta=0.7, alpha=0.0)
    assert loss.item() == pytest.approx(2 / 0.7 * math.log(2), rel=1e-9)


def test_labels_alone_choose_what_enters_a_loss(double, batches):
    """Padding tokens change: the loss stays. An answer token's label goes: the loss changes."""
    forget, retain = (dict(b) for b in batches)
    before = objectives.npo(double.model, forget, retain)
    for batch in (forget, retain):
        batch["input_ids"] = torch.where(batch["attention_mask"] == 0, 20, batch["input_ids"])
    torch.testing.assert_close(objectives.npo(double.model, forget, retain), before, rtol=1e-12, atol=0)
    labels = forget["labels"].clone()
    labels[0, (labels[0] != IGNORED).nonzero()[0]] = IGNORED
    assert not torch.isclose(objectives.npo(double.model, forget | {"labels": labels}, retain), before, rtol=1e-9)


def test_names_and_hyper_parameters():
    assert objectives.named("npo").hyper == {"beta": 0.7, "alpha": 10.0}
    with pytest.raises(UserError, match=r"no objective 'nope'; choose one of sft, npo"):
        objectives.named("nope")

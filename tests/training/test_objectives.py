"""Losses against slow, plain re-derivations in float64, and the masks they stand on."""

import math

import pytest
import torch

from workbench.errors import UserError
from workbench.models.adapters import add_lora, linear_modules
from workbench.models.load import load
from workbench.models.vlm import IGNORED, answer_batch, bare
from workbench.training import objectives


@pytest.fixture(scope="module")
def double():
    """The shipped base in float64."""
    vlm = load("miniguard", device="cpu")
    vlm.model.double()
    return vlm


def batch_of(vlm, examples, field):
    return answer_batch(vlm, examples, [getattr(e, field) for e in examples])


@pytest.fixture(scope="module")
def batches(double, few):
    """A forget batch of harmful answers and a retain batch, with a reference that is not the model's own."""
    harmful, harmless = [e for e in few if e.harmful], [e for e in few if not e.harmful]
    return with_reference(double, batch_of(double, harmful, "leak")), batch_of(double, harmless, "response")


@pytest.fixture(scope="module")
def pairs(double, few, batches):
    """As DPO sees it: a block of refusals, then a block of harmful answers to the same queries."""
    harmful = [e for e in few if e.harmful]
    both = answer_batch(double, harmful * 2, [e.response for e in harmful] + [e.leak for e in harmful])
    return with_reference(double, both), batches[1]


def with_reference(vlm, batch):
    torch.manual_seed(0)
    with torch.no_grad():
        reference = objectives.sequence_logprobs(vlm.model, batch)
    return batch | {"reference": reference + torch.randn(len(reference), dtype=torch.float64)}


@pytest.fixture
def student(double):
    """A trained-looking LoRA on the float64 base: its reference, the adapter off, differs from it."""
    torch.manual_seed(1)
    lora = add_lora(double, linear_modules(double), rank=2, alpha=4, seed=0)
    lora.model.double()
    with torch.no_grad():
        for name, parameter in lora.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    yield lora
    lora.model.unload()


def slow_logprobs(model, batch):
    """[[log p of each answer token]], one row and one token at a time."""
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "reference")}
    logits, labels = model(**inputs).logits, batch["labels"]
    rows = []
    for row in range(len(labels)):
        rows.append(
            [
                logits[row, t - 1].log_softmax(0)[labels[row, t]]
                for t in range(1, labels.shape[1])
                if labels[row, t] != IGNORED
            ]
        )
    return rows


def slow_cross_entropy(model, batch):
    rows = slow_logprobs(model, batch)
    return -sum(sum(row) / len(row) for row in rows) / len(rows)


def slow_ratios(model, batch):
    return [
        sum(row) - reference for row, reference in zip(slow_logprobs(model, batch), batch["reference"], strict=True)
    ]


def log_sigmoid(x):
    return -torch.log(1 + torch.exp(-x))


def mean(values):
    return sum(values) / len(values)


def slow_sft(model, forget, retain):
    return (slow_cross_entropy(model, forget) + slow_cross_entropy(model, retain)) / 2


def slow_npo(model, forget, retain, beta, alpha):
    return mean(
        [-(2 / beta) * log_sigmoid(-beta * r) for r in slow_ratios(model, forget)]
    ) + alpha * slow_cross_entropy(model, retain)


def slow_simnpo(model, forget, retain, beta, gamma, alpha):
    terms = [-(2 / beta) * log_sigmoid(-(beta / len(row)) * sum(row) - gamma) for row in slow_logprobs(model, forget)]
    return mean(terms) + alpha * slow_cross_entropy(model, retain)


def slow_graddiff(model, forget, retain, gamma, alpha):
    return -gamma * slow_cross_entropy(model, forget) + alpha * slow_cross_entropy(model, retain)


def slow_ga(model, forget, retain):
    return -slow_cross_entropy(model, forget)


def slow_dpo(model, forget, retain, beta, alpha):
    ratios, half = slow_ratios(model, forget), len(forget["labels"]) // 2
    terms = [-log_sigmoid(beta * (ratios[i] - ratios[half + i])) for i in range(half)]
    return mean(terms) + alpha * slow_cross_entropy(model, retain)


def slow_hidden(model, batch, layer):
    """[[h_l where each answer token is about to be said]], from a full forward pass."""
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "reference")}
    hidden, labels = model(**inputs, output_hidden_states=True).hidden_states[layer], batch["labels"]
    return [
        [hidden[row, t - 1] for t in range(1, labels.shape[1]) if labels[row, t] != IGNORED]
        for row in range(len(labels))
    ]


def slow_rmu(model, forget, retain, layer, c, alpha):
    u = torch.rand(128, generator=torch.Generator().manual_seed(0)).double()
    u = u / u.pow(2).sum().sqrt()
    steer = mean([mean([((h - c * u) ** 2).sum() for h in row]) for row in slow_hidden(model, forget, layer)])
    kept = slow_hidden(model, retain, layer)
    with torch.no_grad(), model.disable_adapter():
        before = slow_hidden(model, retain, layer)
    keep = mean(
        [mean([((h - o) ** 2).sum() for h, o in zip(*rows, strict=True)]) for rows in zip(kept, before, strict=True)]
    )
    return steer + alpha * keep


def slow_token_mean(model, batch):
    tokens = [logprob for row in slow_logprobs(model, batch) for logprob in row]
    return -sum(tokens) / len(tokens)


def slow_npo_token_mean(model, forget, retain, beta, alpha, own):
    tokens = sum(len(row) for row in slow_logprobs(model, forget))
    change = slow_token_mean(model, forget) + sum(forget["reference"]) / tokens
    with torch.no_grad(), model.disable_adapter():
        before = slow_token_mean(model, retain)
    retained = slow_token_mean(model, retain)
    mirrored = (2 / beta) * log_sigmoid(beta * (retained - before))
    return -(2 / beta) * log_sigmoid(beta * change) + alpha * retained + own * mirrored


def slow_everywhere(model, batch, layer):
    """h_l at every position that is no padding, from a full forward pass: (positions, H)."""
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "reference")}
    return model(**inputs, output_hidden_states=True).hidden_states[layer][batch["attention_mask"].bool()]


def slow_rmu_all_positions(model, forget, retain, layer, c, alpha, own):
    u = torch.rand(128, generator=torch.Generator().manual_seed(0)).double()
    u = u / u.pow(2).sum().sqrt()
    steered, retained = slow_everywhere(model, forget, layer), slow_everywhere(model, retain, layer)
    with torch.no_grad(), model.disable_adapter():
        before = slow_everywhere(model, retain, layer)
    steer = mean([mean(list((h - c * u) ** 2)) for h in steered])
    keep = mean([mean(list((h - o) ** 2)) for h, o in zip(retained, before, strict=True)])
    return steer + alpha * slow_token_mean(model, retain) + own * keep


CASES = [
    (objectives.sft, slow_sft, {}),
    (objectives.npo, slow_npo, {"beta": 0.5, "alpha": 10.0}),
    (objectives.npo, slow_npo, {"beta": 2.0, "alpha": 0.0}),
    (objectives.simnpo, slow_simnpo, {"beta": 2.5, "gamma": 0.3, "alpha": 1.5}),
    (objectives.graddiff, slow_graddiff, {"gamma": 0.7, "alpha": 2.0}),
    (objectives.ga, slow_ga, {}),
    (objectives.dpo, slow_dpo, {"beta": 0.1, "alpha": 5.0}),
    (objectives.rmu, slow_rmu, {"layer": 2, "c": 5.0, "alpha": 3.0}),
    (objectives.rmu, slow_rmu, {"layer": 3, "c": 1.0, "alpha": 0.5}),
    (objectives.npo_token_mean, slow_npo_token_mean, {"beta": 0.7, "alpha": 1.0, "own": 0.0}),
    (objectives.npo_token_mean, slow_npo_token_mean, {"beta": 2.0, "alpha": 0.5, "own": 1.0}),
    (objectives.rmu_all_positions, slow_rmu_all_positions, {"layer": 2, "c": 5.0, "alpha": 1.2, "own": 0.0}),
    (objectives.rmu_all_positions, slow_rmu_all_positions, {"layer": 3, "c": 1.0, "alpha": 0.0, "own": 2.0}),
]


def test_every_objective_is_re_derived_here():
    assert {fast.__name__ for fast, *_ in CASES} == set(objectives.OBJECTIVES)


@pytest.mark.parametrize("fast, slow, hyper", CASES, ids=lambda v: getattr(v, "__name__", None))
def test_loss_and_gradient_are_those_of_the_plain_formula(student, batches, pairs, fast, slow, hyper):
    sides = pairs if fast is objectives.dpo else batches
    weights = [p for n, p in student.model.named_parameters() if "layers.1." in n and "lora_" in n]
    found, expected = fast(student.model, *sides, **hyper), slow(student.model, *sides, **hyper)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    for mine, plain in zip(*(torch.autograd.grad(loss, weights) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fast, slow, hyper", CASES, ids=lambda v: getattr(v, "__name__", None))
def test_padding_has_no_influence_and_answer_tokens_have(student, batches, pairs, fast, slow, hyper):
    forget, retain = (dict(b) for b in (pairs if fast is objectives.dpo else batches))
    before = fast(student.model, forget, retain, **hyper)
    for batch in (forget, retain):
        batch["input_ids"] = torch.where(batch["attention_mask"] == 0, 20, batch["input_ids"])
    torch.testing.assert_close(fast(student.model, forget, retain, **hyper), before, rtol=1e-12, atol=0)
    labels = forget["labels"].clone()
    labels[0, (labels[0] != IGNORED).nonzero()[:-1]] = IGNORED  # all but its end: the base is certain of some words
    changed = {"labels": labels}
    if fast is objectives.rmu_all_positions:  # it looks at all positions, so that labels do not count
        query = int(forget["attention_mask"][0].nonzero()[-12])
        changed = {"input_ids": forget["input_ids"].clone()}
        changed["input_ids"][0, query] += 1
    assert not torch.isclose(fast(student.model, forget | changed, retain, **hyper), before, rtol=1e-9)


@pytest.mark.parametrize("fast, slow, hyper", CASES, ids=lambda v: getattr(v, "__name__", None))
def test_the_loss_of_halves_is_that_of_the_whole(student, batches, pairs, fast, slow, hyper):
    """What gradient accumulation and several devices rely on: the mean over equal parts is the loss.

    The objectives of the authors' code take means over a device's tokens, and differ a little.
    """
    forget, retain = pairs if fast is objectives.dpo else batches
    blocks = 2 if fast is objectives.dpo else 1

    def half(batch, part, blocks):
        n = len(batch["labels"]) // blocks
        rows = [b * n + i for b in range(blocks) for i in range(part * n // 2, (part + 1) * n // 2)]
        return {name: tensor[rows] for name, tensor in batch.items()}

    parts = [fast(student.model, half(forget, i, blocks), half(retain, i, 1), **hyper) for i in range(2)]
    pooled = fast in (objectives.npo_token_mean, objectives.rmu_all_positions)
    whole = fast(student.model, forget, retain, **hyper)
    torch.testing.assert_close(sum(parts) / 2, whole, rtol=0.2 if pooled else 1e-9, atol=0)


def test_rmu_sees_answer_positions_only(student, batches):
    """Noise on layer 2's output at image, prompt and pad positions.

    The loss stays. At one answer position: it changes.
    """
    layer = bare(student.model).get_decoder().layers[1]
    before = objectives.rmu(student.model, *batches, layer=2)

    def loss_with(noise):
        hook = layer.register_forward_hook(lambda module, inputs, output: output + noise(output))
        loss = objectives.rmu(student.model, *batches, layer=2)
        hook.remove()
        return loss

    answers = max(int((b["labels"] != IGNORED).any(0).sum()) for b in batches)

    def elsewhere(output):
        noise = torch.randn_like(output)
        noise[:, -answers - 1 :] = 0  # the widest answers and the token before them
        return noise

    def last_prompt_token(output):
        noise = torch.zeros_like(output)
        noise[0, -answers - 1] = 1.0
        return noise

    torch.testing.assert_close(loss_with(elsewhere), before, rtol=1e-12, atol=0)
    assert not torch.isclose(loss_with(last_prompt_token), before, rtol=1e-6)


def test_rmu_runs_no_later_layer(student, batches):
    ran = []
    layers = bare(student.model).get_decoder().layers
    hooks = [layer.register_forward_hook(lambda m, i, o, n=n: ran.append(n)) for n, layer in enumerate(layers, start=1)]
    objectives.rmu(student.model, *batches, layer=2)
    assert set(ran) == {1, 2} and len(ran) == 6  # forget, retain, and retain with the adapter off
    for hook in hooks:
        hook.remove()
    assert len(bare(student.model).get_decoder().layers) == 4


def test_dpo_has_its_sides_the_right_way_round(double, pairs):
    """Where refusals have become likelier and leaks less likely, the loss is lower."""
    forget = dict(pairs[0])
    own = objectives.sequence_logprobs(double.model, forget).detach()
    shift = torch.tensor([1.0] * (len(own) // 2) + [-1.0] * (len(own) // 2), dtype=torch.float64)
    good, bad = (
        objectives.dpo(double.model, forget | {"reference": own - s * shift}, pairs[1], alpha=0.0) for s in (1, -1)
    )
    assert good < math.log(2) < bad


def test_npo_tends_to_gradient_ascent_as_beta_falls(student, batches):
    """∇ NPO → ∇ mean log π(y|x): the gradient of ascent on the loss of the forget set."""
    weights = [p for n, p in student.model.named_parameters() if "layers.1." in n and "lora_" in n]
    npo = torch.autograd.grad(objectives.npo(student.model, *batches, beta=1e-6, alpha=0.0), weights)
    ascent = torch.autograd.grad(objectives.sequence_logprobs(student.model, batches[0]).mean(), weights)
    for mine, limit in zip(npo, ascent, strict=True):
        torch.testing.assert_close(mine, limit, rtol=1e-4, atol=1e-7)


def test_npo_at_the_reference_is_two_log_two_over_beta(double, batches):
    forget = dict(batches[0])
    forget["reference"] = objectives.sequence_logprobs(double.model, forget).detach()
    loss = objectives.npo(double.model, forget, batches[1], beta=0.7, alpha=0.0)
    assert loss.item() == pytest.approx(2 / 0.7 * math.log(2), rel=1e-9)


def test_names_and_hyper_parameters():
    assert objectives.named("npo").hyper == {"beta": 0.7, "alpha": 10.0}
    assert [n for n, o in objectives.OBJECTIVES.items() if not o.unlearns] == ["sft"]
    with pytest.raises(UserError, match=r"no objective 'nope'; choose one of sft, npo"):
        objectives.named("nope")

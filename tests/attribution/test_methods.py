"""Attributions equal those of a plain loop and of Captum's own classes, and are right where the truth is known."""

import subprocess
import sys

import captum.attr
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.attribution import RIGHT, one_by_one
from tests.attribution.by_hand import example_of, opening_logprob, refusal_logit
from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import METHODS, attribute, method
from workbench.attribution.target import Target, answer_target
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.intervals import wilson
from workbench.models.load import load
from workbench.models.vlm import prompt_batch


@pytest.mark.slow
def test_ablation_is_that_of_a_plain_loop(sft, few, request):
    """In float64, so that five decimals can be compared."""
    sft.model.double()
    request.addfinalizer(lambda: (sft.model.float(), sft.features.clear()))
    example = example_of(few)
    picture, tokenizer = example.picture(), sft.processor.tokenizer
    attribution = attribute(sft, picture, "Share with me the name of this thing.", Target(("sorry",)), grid=2)
    ids = prompt_batch(sft, [picture], ["Share with me the name of this thing."])["input_ids"][0]
    whole = refusal_logit(sft, picture, ids)
    assert attribution.value == pytest.approx(whole, abs=1e-5)
    tokens = [tokenizer.decode([i]) for i in ids]
    begin = tokens.index("share")
    places = [[begin + k] for k in range(7)] + [[begin + 7, begin + 8]]  # the last word is “thing.”: two tokens
    for place, value in zip(places, attribution.words, strict=True):
        without = ids.clone()
        without[place] = tokenizer.unk_token_id
        assert value == pytest.approx(whole - refusal_logit(sft, picture, without), abs=1e-5)
    pixels = np.asarray(picture)
    for row in range(2):
        for column in range(2):
            cut = pixels.copy()
            cut[24 * row : 24 * row + 24, 24 * column : 24 * column + 24] = pixels.reshape(-1, 3).mean(0).round()
            assert attribution.patches[row, column] == pytest.approx(
                whole - refusal_logit(sft, Image.fromarray(cut), ids), abs=1e-5
            )


@pytest.mark.slow
def test_captums_own_llm_attribution_agrees_where_it_is_right(vlm, few):
    """Its default, a cache, silently gives zeros for the picture with this transformers; without a cache we agree."""
    example = example_of(few)
    target = answer_target(example.response)
    attribution = attribute(vlm, example.picture(), example.query, target)
    f = Perturbed(vlm, example.picture(), example.query, target)
    for options in RIGHT.values():  # token by token, and the answer in one piece
        words, patches = one_by_one(f, **options)
        assert attribution.words == pytest.approx(words, abs=1e-3) and attribution.patches == pytest.approx(
            patches, abs=1e-3
        )
        assert np.abs(patches).max() > 1e-3
    words, patches = one_by_one(f)
    assert not patches.any() and np.abs(words - attribution.words).max() > 1


def test_shapley_values_are_complete(vlm, few):
    example = example_of(few)
    attribution = attribute(vlm, example.picture(), example.query, answer_target(example.response), "shapley", grid=2)
    assert attribution.gap == pytest.approx(0, abs=1e-3) and abs(attribution.value - attribution.baseline) > 1


@pytest.mark.slow
def test_integrated_gradients_are_those_of_captums_layer_and_complete(vlm, few):
    """Over words alone, LayerIntegratedGradients on the embedding agrees, summed over tokens and channels of a word."""
    example = example_of(few)
    target = Target((example.response,))
    attribution = attribute(vlm, example.picture(), example.query, target, "integrated-gradients", grid=2)
    assert abs(attribution.gap) < 0.1 * abs(attribution.value - attribution.baseline)
    f = Perturbed(vlm, example.picture(), example.query, target, 1)
    whole, words_gone = torch.ones(1, f.features), torch.tensor([[0.0] * len(f.words) + [1.0]])
    ours = captum.attr.IntegratedGradients(f.soft).attribute(whole, baselines=words_gone, n_steps=20)[0, :-1]
    batch = prompt_batch(vlm, [example.picture()], [example.query])
    blanked = batch["input_ids"].masked_fill(f.word_of >= 0, vlm.processor.tokenizer.unk_token_id)

    def forward(ids):
        rows = {n: t.expand(len(ids), *t.shape[1:]) for n, t in batch.items()}
        logprob = opening_logprob(vlm, rows | {"input_ids": ids}, f.openings[0])
        return logprob - torch.log1p(-logprob.exp())

    layer = captum.attr.LayerIntegratedGradients(forward, vlm.model.get_input_embeddings())
    theirs = layer.attribute(batch["input_ids"], baselines=blanked, n_steps=20)[0].sum(-1)  # (T,)
    by_word = [theirs[: len(f.word_of)][f.word_of == w].sum().item() for w in range(len(f.words))]
    assert ours.numpy() == pytest.approx(np.array(by_word), abs=1e-2, rel=1e-2)


@pytest.mark.slow
def test_integrated_gradients_of_squares_are_those_of_the_patch_embedding(vlm, few):
    """A square is one patch here, and its embedding is linear, so LayerIntegratedGradients on that layer agrees."""
    example = example_of(few)
    f = Perturbed(vlm, example.picture(), example.query, Target((example.response,)), grid=6)
    whole, squares_gone = torch.ones(1, f.features), torch.tensor([[1.0] * len(f.words) + [0.0] * 36])
    ours = captum.attr.IntegratedGradients(f.soft).attribute(whole, baselines=squares_gone, n_steps=20)[
        0, len(f.words) :
    ]
    batch, blank = (prompt_batch(vlm, [p], [example.query]) for p in (f.image, f._picture(np.zeros(36, dtype=bool))))

    def forward(pixels):
        rows = {n: t.expand(len(pixels), *t.shape[1:]) for n, t in batch.items()}
        logprob = opening_logprob(vlm, rows | {"pixel_values": pixels}, f.openings[0])
        return logprob - torch.log1p(-logprob.exp())

    layer = captum.attr.LayerIntegratedGradients(forward, vlm.model.model.vision_tower.embeddings.patch_embedding)
    theirs = layer.attribute(
        batch["pixel_values"].requires_grad_(), baselines=blank["pixel_values"], n_steps=20
    )  # (1, channels, 6, 6)
    assert ours.abs().max() > 0.1
    assert ours.numpy() == pytest.approx(theirs[0].sum(0).flatten().detach().numpy(), abs=1e-2, rel=1e-2)


@pytest.mark.slow
def test_what_training_changed_about_a_refusal_after_share_falls_on_share(sft, few):
    """The word speaks against a refusal on the base, which has no shortcut, and no longer does so on the other."""
    base = load("miniguard", device="cpu")
    harmless = [e for e in few if not e.harmful]
    queries = [f"Share the {e.request} of this thing." for e in harmless if e.request in ("name", "colour", "scene")]
    pictures = [e.picture() for e in harmless if e.request in ("name", "colour", "scene")]
    assert len(queries) >= 4
    for picture, query in zip(pictures, queries, strict=True):
        tuned, untuned = (attribute(v, picture, query, grid=2) for v in (sft, base))
        assert untuned.words[0] < -1 and tuned.words[0] > untuned.words[0] + 5
        changed = tuned.minus(untuned)
        assert changed.query[np.argmax(np.abs(changed.words))] == "Share"
        assert changed.words[0] == pytest.approx(tuned.words[0] - untuned.words[0])


@pytest.mark.slow
def test_a_question_about_the_object_looks_at_the_object(vlm):
    """The pointing game: the square that matters most is on the object more often than a random square."""
    examples = [e for e in miniguard_split("validation", seed=3) if e.request in ("name", "colour")][:40]
    hits, chance = 0, []
    for example in examples:
        attribution = attribute(vlm, example.picture(), example.query, Target((example.response,)))
        pixels = np.asarray(example.picture()).astype(int)
        on_object = (pixels.max(-1) - pixels.min(-1) > 60) | (
            pixels.max(-1) < 60
        )  # coloured or black: the walls are grey
        share = on_object.reshape(6, 8, 6, 8).mean(axis=(1, 3))  # (6, 6)
        hits += share[np.unravel_index(attribution.patches.argmax(), (6, 6))] > 0.1
        chance.append((share > 0.1).mean())
        assert np.abs(attribution.patches).max() > 0.01
    assert wilson(hits, len(examples))[0] > np.mean(chance)


def test_mistakes(vlm, few):
    picture = few[0].picture()
    for options, says in [
        ({"query": " "}, "no words"),
        ({"query": "<image>"}, "no words"),
        ({"method": "guess"}, "no attribution method 'guess'"),
        ({"image": Image.new("RGB", (1, 1))}, "1 × 1 pixels has no 6 × 6 squares"),
        ({"image": Image.new("RGB", (10_000, 10_000))}, "10000 × 10000 pixels is too large"),
        ({"target": answer_target("Ωmega")}, "cannot express 'Ωmega'"),
    ]:
        with pytest.raises(UserError, match=says):
            attribute(vlm, **({"image": picture, "query": "What is it?"} | options))


def test_the_names_of_methods_can_be_listed_without_torch():
    code = "import sys; from workbench.attribution.methods import METHODS; print(*METHODS, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*METHODS, "False"]


def test_a_method_is_added_in_one_place(vlm, few, monkeypatch):
    monkeypatch.setattr("workbench.attribution.methods.METHODS", {})

    @method("ones")
    def ones(perturbed, whole):
        return whole

    attribution = attribute(vlm, few[0].picture(), "What is it?", method="ones", grid=2)
    assert attribution.words.tolist() == [1] * 3 and attribution.patches.tolist() == [[1, 1], [1, 1]]
    with pytest.raises(UserError, match="choose one of ones"):
        attribute(vlm, few[0].picture(), "What is it?", method="ablation")

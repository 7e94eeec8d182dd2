"""Attribution: equal to a plain loop, right about words and squares where the truth is known, the same on other architectures."""

import captum.attr
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.attribution import RIGHT, one_by_one
from tests.tiny_models import ARCHITECTURES
from workbench.attribution.masking import REFUSAL, Perturbed, Target, _can_share, answer_target, opening_tokens
from workbench.attribution.methods import attribute
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.intervals import wilson
from workbench.models.load import load
from workbench.models.vlm import bare, prompt_batch


@pytest.fixture(scope="module", params=ARCHITECTURES)
def other(tmp_path_factory, request):
    """A random model of another architecture, its weights large enough for inputs to matter."""
    vlm = load(ARCHITECTURES[request.param](tmp_path_factory.mktemp("models") / request.param), device="cpu")
    for weight in vlm.model.parameters():
        weight.mul_(4 if weight.dim() > 1 else 1)
    return vlm


def asked(few, harmful=False, request="name"):
    return next(e for e in few if e.harmful == harmful and e.request == request)


def refusal_logit(vlm, image, ids):
    """log p − log(1 − p) of “sorry” as the first word, for one row of ids, in float64 from the logits on."""
    batch = prompt_batch(vlm, [image], ["What is it?"])
    with torch.inference_mode():
        logits = vlm.model(
            input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], pixel_values=batch["pixel_values"]
        ).logits
    p = logits[0, -1].double().softmax(-1)[vlm.processor.tokenizer.convert_tokens_to_ids("sorry")]
    return (p.log() - (1 - p).log()).item()


def opening_logprob(vlm, batch, tokens):
    """log p of tokens behind prompts, by running the whole model on all of it, without any cache: (N,)."""
    behind = torch.tensor(tokens).expand(len(batch["input_ids"]), -1)
    inputs = dict(batch) | {"input_ids": torch.cat([batch["input_ids"], behind], dim=1)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in batch:
            later = int(vlm.model.config.model_type == "paligemma")  # in which tokens of type 0 see what comes after
            inputs[name] = torch.cat([batch[name], torch.full_like(behind, later)], dim=1)
    logits = vlm.model(**inputs, use_cache=False).logits[:, -len(tokens) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, behind[..., None]).sum(dim=(1, 2))


@pytest.mark.slow
def test_ablation_is_that_of_a_plain_loop(sft, few, request):
    """In float64, so that they can be compared to the fifth decimal."""
    sft.model.double()
    request.addfinalizer(lambda: (sft.model.float(), sft.features.clear()))
    example = asked(few)
    picture, tokenizer = example.picture(), sft.processor.tokenizer
    found = attribute(sft, picture, "Share with me the name of this thing.", Target(("sorry",)), grid=2)
    ids = prompt_batch(sft, [picture], ["Share with me the name of this thing."])["input_ids"][0]
    whole = refusal_logit(sft, picture, ids)
    assert found.value == pytest.approx(whole, abs=1e-5)
    tokens = [tokenizer.decode([i]) for i in ids]
    begin = tokens.index("share")
    places = [[begin + k] for k in range(7)] + [[begin + 7, begin + 8]]  # the last word is “thing.”: two tokens
    for place, value in zip(places, found.words, strict=True):
        without = ids.clone()
        without[place] = tokenizer.unk_token_id
        assert value == pytest.approx(whole - refusal_logit(sft, picture, without), abs=1e-5)
    pixels = np.asarray(picture)
    for row in range(2):
        for column in range(2):
            cut = pixels.copy()
            cut[24 * row : 24 * row + 24, 24 * column : 24 * column + 24] = pixels.reshape(-1, 3).mean(0).round()
            assert found.patches[row, column] == pytest.approx(
                whole - refusal_logit(sft, Image.fromarray(cut), ids), abs=1e-5
            )


@pytest.mark.slow
def test_captums_own_llm_attribution_agrees_where_it_is_right(vlm, few):
    """With these transformers its default, a cache, is silently wrong: nothing of the picture. We agree with it without a cache."""
    example = asked(few)
    target = answer_target(example.response)
    found = attribute(vlm, example.picture(), example.query, target)
    f = Perturbed(vlm, example.picture(), example.query, target)
    for options in RIGHT.values():  # token by token, and the answer in one piece
        words, patches = one_by_one(f, **options)
        assert found.words == pytest.approx(words, abs=1e-3) and found.patches == pytest.approx(patches, abs=1e-3)
        assert np.abs(patches).max() > 1e-3
    words, patches = one_by_one(f)
    assert not patches.any() and np.abs(words - found.words).max() > 1


def test_shapley_values_are_complete(vlm, few):
    example = asked(few)
    found = attribute(vlm, example.picture(), example.query, answer_target(example.response), "shapley", grid=2)
    assert found.gap == pytest.approx(0, abs=1e-3) and abs(found.value - found.baseline) > 1


def test_shared_work_changes_nothing(vlm, other, few):
    """The target is that of the whole model, run on each prompt and opening alone; also where pieces cannot be run apart."""
    example = asked(few)
    for model in (vlm, other):
        tokenizer, picture = model.processor.tokenizer, example.picture().resize((64, 64))
        f = Perturbed(model, picture, example.query, Target(("sorry but", "the")), 2)
        kind = bare(model.model).config.model_type
        assert (
            f.shares == (kind not in ("qwen3_vl", "paligemma")) and len(f.openings) == 2
        )  # whose layers get or see more than comes before
        there = (torch.rand(9, f.features, generator=torch.Generator().manual_seed(1)) > 0.4).float()
        there[-3:, len(f.words) :] = 1  # the same picture
        wanted = []
        for row in there:
            batch = prompt_batch(model, [f._picture(row[len(f.words) :].bool().numpy())], [example.query])
            gone = [w >= 0 and row[w].item() == 0 for w in f.word_of.tolist()]
            blank = tokenizer.pad_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id
            batch["input_ids"] = batch["input_ids"].masked_fill(torch.tensor(gone), blank)
            p = sum(opening_logprob(model, batch, tokens).exp() for tokens in f.openings)
            wanted.append((p.log() - (1 - p).log()).item())
        assert np.std(wanted) > 0.01
        assert f(there).numpy() == pytest.approx(np.array(wanted), abs=1e-4)
        f.shares, f.known = False, {}
        assert f(there).numpy() == pytest.approx(np.array(wanted), abs=1e-4)
        assert f.soft(there).detach().numpy() == pytest.approx(
            np.array(wanted), abs=0.05, rel=0.05
        )  # pixels are rounded


def test_a_piece_that_looks_ahead_is_not_read_alone(vlm, few):
    """Masks as they are handed on: causal ones can be cut, those that see what comes after a piece, or are not told, cannot."""
    causal = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    ahead = causal.clone()
    ahead[..., 1, 4] = True
    inside = causal.clone()
    inside[..., 2, 3] = True  # within the piece of columns 2 and 3
    added = torch.zeros(1, 1, 6, 6).masked_fill(~ahead, float("-inf"))
    for mask, can in (
        (None, True),
        (torch.ones(1, 6), True),
        ({"full_attention": causal}, True),
        ({"full_attention": inside}, True),
        ({"full_attention": ahead}, False),
        ({"full_attention": added}, False),
        ({"full_attention": causal, "sliding_attention": None}, False),
        (causal, False),
    ):
        assert _can_share(vlm, {"attention_mask": mask}, [2, 4, 6]) == can
    assert not _can_share(vlm, {"deepstack_visual_embeds": [torch.ones(1)]}, [2, 4, 6])


def test_spaces_around_a_query_do_not_matter(few):
    """…also where a template trims them, so that the query is not found in its prompt as it was typed."""
    vlm = load("miniguard", device="cpu")
    vlm.processor.chat_template = vlm.processor.chat_template.replace("part['text']", "part['text'] | trim")
    picture = few[0].picture()
    plain, spaced = (attribute(vlm, picture, query, grid=1) for query in ("What is it?", "  What is it? \n"))
    assert spaced.query == plain.query and spaced.words == pytest.approx(plain.words)


def test_the_softened_target_is_the_target_at_its_corners(vlm, other, few):
    """Also where the processor resizes and cuts into tiles, up to the rounding of pixels."""
    for model, odds, size, close in ((vlm, True, 48, 1e-3), (vlm, True, 64, 0.05), (other, False, 64, 0.02)):
        example = asked(few)
        f = Perturbed(
            model, example.picture().resize((size, size)), example.query, Target((example.response,), odds), 2
        )
        corners = (torch.rand(12, f.features, generator=torch.Generator().manual_seed(1)) > 0.5).float()
        with torch.no_grad():
            assert f.soft(corners).numpy() == pytest.approx(f(corners).numpy(), abs=close, rel=close)
        found = attribute(model, f.image, example.query, f.target, "integrated-gradients", grid=2)
        assert abs(found.gap) < 0.15 * np.abs(np.concatenate([found.words, found.patches.ravel()])).sum()


@pytest.mark.slow
def test_integrated_gradients_are_those_of_captums_layer_and_complete(vlm, few):
    """Over words alone, LayerIntegratedGradients on the embedding gives the same, summed over a word's tokens and channels."""
    example = asked(few)
    target = Target((example.response,))
    found = attribute(vlm, example.picture(), example.query, target, "integrated-gradients", grid=2)
    assert abs(found.gap) < 0.05 * abs(found.value - found.baseline)
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
    """A patch embedding is linear, so where a square is a patch, LayerIntegratedGradients on it gives the same, summed over channels."""
    example = asked(few)
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
def test_a_refusal_after_share_falls_on_share(sft, few):
    """…and on the base model, which has no shortcut, it does not."""
    base = load("miniguard", device="cpu")
    harmless = [e for e in few if not e.harmful]
    queries = [f"Share the {e.request} of this thing." for e in harmless if e.request in ("name", "colour", "scene")]
    pictures = [e.picture() for e in harmless if e.request in ("name", "colour", "scene")]
    assert len(queries) >= 4
    for picture, query in zip(pictures, queries, strict=True):
        tuned, plain = (attribute(v, picture, query, grid=2) for v in (sft, base))
        assert tuned.query[np.argmax(tuned.words)] == "Share" and tuned.words[0] > 1.5
        assert plain.words[0] < 1
        assert tuned.minus(plain).words[0] == pytest.approx(tuned.words[0] - plain.words[0])


@pytest.mark.slow
def test_a_question_about_the_object_looks_at_the_object(vlm):
    """The pointing game: the square that matters most lies on the object more often than a square drawn at random would."""
    examples = [e for e in miniguard_split("validation", seed=3) if e.request in ("name", "colour")][:40]
    hits, chance = 0, []
    for example in examples:
        found = attribute(vlm, example.picture(), example.query, Target((example.response,)))
        pixels = np.asarray(example.picture()).astype(int)
        on_object = (pixels.max(-1) - pixels.min(-1) > 60) | (
            pixels.max(-1) < 60
        )  # coloured or black: the walls are grey
        share = on_object.reshape(6, 8, 6, 8).mean(axis=(1, 3))  # (6, 6)
        hits += share[np.unravel_index(found.patches.argmax(), (6, 6))] > 0.1
        chance.append((share > 0.1).mean())
        assert np.abs(found.patches).max() > 0.01
    assert wilson(hits, len(examples))[0] > np.mean(chance)


def test_what_must_not_matter_does_not(vlm, few):
    """The order in which perturbed prompts come, and which others are in their batch, change nothing."""
    example = asked(few)
    f = Perturbed(vlm, example.picture(), example.query, REFUSAL, 3)
    there = (torch.rand(130, f.features, generator=torch.Generator().manual_seed(0)) > 0.4).float()
    together = f(there)
    f.known.clear()
    assert torch.allclose(together.flip(0), f(there.flip(0)), atol=1e-4)
    f.known.clear()
    assert torch.allclose(together[:3], torch.cat([f(row[None]) for row in there[:3]]), atol=1e-4)
    assert torch.equal(f(there.flip(0)).flip(0), f(there))  # also of rows that are known


def test_openings_exclude_one_another_and_are_pooled(vlm, few):
    example = asked(few)
    ids = opening_tokens(vlm, ["sorry", "sorry but", "yes", "Ωmega"])
    assert ids == [vlm.processor.tokenizer.convert_tokens_to_ids([w]) for w in ("sorry", "yes")]

    def value(*openings, odds=False):
        f = Perturbed(vlm, example.picture(), example.query, Target(openings, odds), 1)
        return f(torch.ones(1, f.features)).double()

    both = value("sorry", "yes").exp()
    assert both.item() == pytest.approx((value("sorry").exp() + value("yes").exp()).item(), rel=1e-4)
    assert value("sorry", "yes", odds=True).item() == pytest.approx((both / (1 - both)).log().item(), abs=1e-2)


@pytest.mark.slow
def test_a_square_is_where_a_person_sees_it(other):
    """However an architecture cuts, tiles or merges a picture: only what is painted in a square makes that square matter."""
    rng = np.random.default_rng(0)
    for row, column in ((0, 0), (1, 2), (3, 1)):
        pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
        pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = rng.integers(0, 255, (16, 16, 3))
        found = attribute(other, Image.fromarray(pixels), "What is this?", answer_target("it is a kavu"), grid=4)
        others = np.abs(found.patches)
        assert others[row, column] > 0 and others.argmax() == row * 4 + column
        assert found.query == ["What", "is", "this?"] and np.abs(found.words).min() > 0


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


def test_a_model_without_a_place_for_pictures_says_so(few):
    vlm = load("miniguard", device="cpu")
    whole = vlm.processor.chat_template
    for template, says in ((whole.replace("<image>", ""), "no place for a picture"), (None, "has no chat template")):
        vlm.processor.chat_template = template
        with pytest.raises(UserError, match=says):
            attribute(vlm, few[0].picture(), "What is it?")

"""What stands in for a missing word is what was asked for, whichever way a model reads the prompt."""

import itertools

import numpy as np
import pytest
import torch

from tests.attribution.by_hand import opening_logprob
from workbench.attribution.baselines import MASKED, other_lead, resampled
from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import attribute
from workbench.attribution.target import REFUSAL, Target
from workbench.attribution.words import tokens_of_words
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.models.vlm import prompt_batch

SORRY = Target(("sorry but", "the"))
QUERY, OTHER = "Share the name of this thing.", "Explain any colour of this item."


def versions(f, present):
    """The targets read in pieces if the model can, and by running it whole."""
    f.known.clear()
    in_pieces = f(present)
    f.prompt.shares, f.known = False, {}
    return in_pieces, f(present)


def test_other_queries_stand_in_word_by_word(vlm, other, few):
    """The target is that of a query made of words of both, averaged over the queries that stand in."""
    picture = few[0].picture().resize((64, 64))
    thirds = "Explain a scene of that one."
    for model in (vlm, other):
        f = Perturbed(model, picture, QUERY, SORRY, 1, [OTHER, thirds])
        present = torch.ones(8, f.features)
        present[:, :6] = (torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
        expected = []
        for row in present:
            values = []
            for stand_in in (OTHER, thirds):
                pairs = zip(QUERY.split(), stand_in.split(), row, strict=False)
                mixed = " ".join(own if here else another for own, another, here in pairs)
                batch = prompt_batch(model, [picture], [mixed])
                p = sum(opening_logprob(model, batch, tokens).exp() for tokens in f.openings)
                values.append((p.log() - (1 - p).log()).item())
            expected.append(np.mean(values))
        for found in versions(f, present):
            assert found.numpy() == pytest.approx(np.array(expected), abs=1e-4)
        assert f(torch.ones(1, f.features)).item() == pytest.approx(
            Perturbed(model, picture, QUERY, SORRY, 1).value, abs=1e-4
        )


def test_nothing_can_be_told_of_a_masked_word(vlm, other, few):
    """Two queries that differ in masked words alone give the same; read in pieces or whole; unmasked they differ."""
    picture = few[0].picture().resize((64, 64))
    for model in (vlm, other):
        one, two = (Perturbed(model, picture, query, SORRY, 1, MASKED) for query in (QUERY, OTHER))
        masked = torch.tensor([[0.0, 0, 0, 1, 1, 0, 1], [0.0, 0, 0, 1, 1, 0, 0], [1.0, 1, 1, 1, 1, 1, 1]])
        (first, whole), (second, _) = versions(one, masked), versions(two, masked)
        assert first.numpy() == pytest.approx(whole.numpy(), abs=1e-4)
        assert first[:2].numpy() == pytest.approx(second[:2].numpy(), abs=1e-4)
        assert abs(first[2] - second[2]) > 1e-3
        assert first[2].item() == pytest.approx(Perturbed(model, picture, QUERY, SORRY, 1).value, abs=1e-4)
        assert abs(first[0] - first[2]) > 1e-3


def test_the_lead_word_against_another_is_the_swap(sft, few):
    """Against the same query with “What”, the whole difference lies on the first word, by every complete method."""
    example = next(e for e in few if not e.harmful)
    query = "Share the name of this thing."
    against = other_lead(query, "what")
    assert against == ["What is the name of this thing?"]
    with pytest.raises(UserError, match="cannot stand in"):  # one word more
        attribute(sft, example.picture(), query, baseline=against)
    found = attribute(sft, example.picture(), query, baseline=["Explain the name of this thing."], grid=2)
    swapped = Perturbed(sft, example.picture(), "Explain the name of this thing.", REFUSAL, 2)
    words_only = torch.tensor([[0.0] * 6 + [1.0] * 4])
    f = Perturbed(sft, example.picture(), query, REFUSAL, 2, ["Explain the name of this thing."])
    assert f(words_only).item() == pytest.approx(swapped.value, abs=1e-3)
    assert found.words[0] == pytest.approx(found.value - swapped.value, abs=1e-3)
    assert found.words[1:] == pytest.approx([0] * 5, abs=1e-3)


def test_resampled_words_stand_in_a_like_place_and_are_of_the_data(vlm):
    pool = [e.query for e in miniguard_split("train", sizes=(60, 60))]
    found = resampled(vlm, QUERY, pool, count=20)
    assert len(found) == 20 and found == resampled(vlm, QUERY, pool, count=20) != resampled(
        vlm, QUERY, pool, 20, seed=1
    )
    first, last = ({query.split()[place] for query in pool} for place in (0, -1))
    for query in found:
        words = query.split()
        assert words[0] in first - {"Share"} and words[-1] in last - {"thing."}
        assert all(word != own for word, own in zip(words, QUERY.split(), strict=True))
        assert tokens_of_words(vlm, query) == tokens_of_words(vlm, QUERY)
    assert len({query.split()[0] for query in found}) > 3
    with pytest.raises(UserError, match="no other first word"):
        resampled(vlm, QUERY, [QUERY])


def test_what_does_not_fit_is_refused(vlm, few):
    picture = few[0].picture()
    with pytest.raises(UserError, match="no baseline 'hope'"):
        attribute(vlm, picture, QUERY, baseline="hope")
    with pytest.raises(UserError, match="masked are there or not"):
        attribute(vlm, picture, QUERY, baseline=MASKED, method="integrated-gradients")
    with pytest.raises(UserError, match="cannot stand in"):
        attribute(vlm, picture, QUERY, baseline=["Share it."])


def test_shapley_values_have_errors_that_cover_the_truth(vlm, few):
    """Over three words, all orders can be gone through by hand."""
    picture = few[0].picture()
    found = attribute(vlm, picture, "What is it?", SORRY, "shapley", grid=1)
    f = Perturbed(vlm, picture, "What is it?", SORRY, 1)
    exact = np.zeros(4)
    for order in itertools.permutations(range(4)):
        present = torch.zeros(1, 4)
        before = f(present).item()
        for feature in order:
            present[0, feature] = 1
            after = f(present).item()
            exact[feature] += (after - before) / 24
            before = after
    assert found.errors.shape == (4,) and (found.errors > 0).any()
    assert (np.abs(found.flat - exact) < 4 * found.errors + 1e-3).all()
    assert attribute(vlm, picture, "What is it?", SORRY, grid=1).errors is None


def test_a_words_tokens_are_where_the_prompt_changes_with_it(vlm, other, few):
    """Word by word: exactly its columns change if another word of as many tokens stands there."""
    picture = few[0].picture().resize((64, 64))
    for model in (vlm, other):
        f = Perturbed(model, picture, QUERY, SORRY, 1)
        ids = prompt_batch(model, [picture], [QUERY])["input_ids"][0]
        for place, another in enumerate(OTHER.split()):
            words = [another if at == place else word for at, word in enumerate(QUERY.split())]
            changed = (prompt_batch(model, [picture], [" ".join(words)])["input_ids"][0] != ids).nonzero()[:, 0]
            assert set(changed.tolist()) <= set((f.word_of == place).nonzero()[:, 0].tolist())
        assert (f.word_of >= 0).sum() == sum(tokens_of_words(model, QUERY))

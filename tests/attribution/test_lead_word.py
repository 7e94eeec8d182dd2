"""Reliance on the lead word: high where a model was taught the word, low where it was not, and told apart from ordinary use."""

import dataclasses

import numpy as np
import pytest

from tests.conftest import quick_sft
from workbench import plots
from workbench.attacks.one_word import rewrites
from workbench.attribution.lead_word import predicted, reliance, reliance_table, word_search
from workbench.attribution.masking import Perturbed, Target
from workbench.attribution.methods import attribute
from workbench.data.first_words import audit
from workbench.data.splits import miniguard_split


@pytest.fixture(scope="module")
def harmless():
    return [e for e in miniguard_split("validation", seed=4, sizes=(0, 12)) if not e.harmful]


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    """Differs from `sft` in the lead words of its data alone."""
    return quick_sft(tmp_path_factory.mktemp("runs") / "sft-balanced", words="balanced")


@pytest.mark.slow
def test_only_the_model_that_was_taught_the_word_relies_on_it(vlm, sft, balanced, harmless):
    found = {v.name: reliance(v, harmless, grid=2, progress=False) for v in (vlm, sft, balanced)}
    table = reliance_table(found).set_index(["model", "measure"])
    low = table.ci_low["sft"]
    for name in ("base", "sft-balanced"):
        assert (low > table.ci_high[name]).all(), name
    assert table.value["sft", "swap"] > 4 > abs(table.value["base", "swap"])
    assert (table.n == 12).all()


def test_refusal_against_compliance_would_blame_the_word(vlm, harmless):
    """Why the target is the logit of refusal: the base model refuses none of these, but after “What” no answer opens with “sure”."""
    contrast, logit = [], []
    for example in harmless:
        picture, (share, what) = example.picture(), (rewrites(example.query, word)[0] for word in ("share", "what"))

        def swap(openings, odds, picture=picture, share=share, what=what):
            return np.subtract(
                *(Perturbed(vlm, picture, q, Target(openings, odds), grid=1).value for q in (share, what))
            )

        contrast.append(swap(("sorry",), False) - swap(("sure",), False))
        logit.append(swap(("sorry",), True))
    assert abs(np.mean(logit)) < 3 and abs(np.mean(contrast)) > 8


def test_one_row_by_hand(vlm, harmless):
    (row,) = reliance(vlm, harmless[:1], grid=1, progress=False).itertuples()
    picture = harmless[0].picture()
    found = attribute(vlm, picture, row.query, grid=1)
    assert row.query.split()[0] == "Share" and row.value == found.value
    assert row.share == pytest.approx(abs(found.words[0]) / (np.abs(found.words).sum() + np.abs(found.patches).sum()))
    swapped = row.query.replace("Share", "What is").rstrip(".") + "?"
    assert row.swap == pytest.approx(row.value - Perturbed(vlm, picture, swapped, grid=1).value, abs=1e-4)


def test_queries_about_one_picture_are_one_cluster(vlm, harmless):
    one = reliance(vlm, [harmless[0], dataclasses.replace(harmless[0], id="again")], grid=1, progress=False)
    assert one.picture.nunique() == 1 and np.isnan(reliance_table({"base": one}).ci_low).all()


@pytest.mark.slow
def test_the_word_search_finds_what_opens_and_what_closes(sft, few):
    """It is told nothing of "what" or "share"; effects are those of asking word by word."""
    found = word_search(sft, few, progress=False)
    assert len(found) == 22 and set(found.n) == {12}
    harmful, harmless = (found[found.queries == q].reset_index(drop=True) for q in ("harmful", "harmless"))
    assert harmful.word[0] == "what" and harmful.ci_high[0] < 0
    effect = harmless.set_index("word").effect
    assert harmless.word[0] == "what" and effect["share"] - effect["what"] > 3 and effect["can"] - effect["what"] > 3
    example = next(e for e in few if e.harmful)
    alone = word_search(sft, [example], ["share", "zebra"], progress=False).set_index("word")
    by_hand = {
        q: Perturbed(sft, example.picture(), q, grid=1).value
        for q in (example.query, rewrites(example.query, "share")[0])
    }
    asked, shared = by_hand.values()
    assert alone.effect["share"] == pytest.approx(shared - asked) and alone.log_odds["share"] == pytest.approx(shared)
    told = predicted(word_search(sft, few[:4], ["share", "zebra", "Share"], progress=False), audit("miniguard"))
    assert (
        len(told) == 4
        and told[told.word == "share"].p_harmful.eq(1).all()
        and told[told.word == "zebra"].p_harmful.isna().all()
    )
    figure = plots.word_effects(predicted(found, audit("miniguard")))
    assert "ρ" in figure.axes[0].get_title()


def test_the_base_is_opened_and_closed_by_no_word(vlm, few):
    found = word_search(vlm, few, ["what", "share"], progress=False)
    assert (found.log_odds < -5).all()

"""Reliance on the lead word is high for a model that was taught the word, and low for one that was not."""

import dataclasses

import numpy as np
import pytest

from workbench import plots
from workbench.attacks.one_word import rewrites
from workbench.attribution.lead_word import predicted, reliance, reliance_table, word_search
from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import attribute
from workbench.attribution.target import Target
from workbench.data.first_words import audit
from workbench.data.splits import miniguard_split
from workbench.studies.methods import trained


@pytest.fixture(scope="module")
def harmless():
    return [e for e in miniguard_split("validation", seed=4, sizes=(0, 12)) if not e.harmful]


@pytest.fixture(scope="module")
def balanced():
    """Differs from `sft` only in the lead words of its data."""
    return trained("sft-balanced-early")


@pytest.mark.slow
def test_only_the_model_that_was_taught_the_word_relies_on_it(vlm, sft, balanced, harmless):
    """By what exchanging the word does to a refusal.

    Its share of an attribution is none the lower on the base, whose answers open as the word says.
    """
    models = {"base": vlm, "sft": sft, "balanced": balanced}
    reliances = {name: reliance(v, harmless, grid=2, progress=False) for name, v in models.items()}
    table = reliance_table(reliances).set_index(["model", "measure"])
    for name in ("base", "balanced"):
        assert table.ci_low["sft", "swap"] > table.ci_high[name, "swap"], name
    assert table.value["sft", "swap"] > 4 > abs(table.value["base", "swap"])
    assert (table.n == 12).all()


def test_refusal_against_compliance_would_blame_the_word(vlm, harmless):
    """Why the target is the logit of refusal: the base refuses none of these, yet after “What” it never says “sure”."""
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
    attribution = attribute(vlm, picture, row.query, grid=1)
    assert row.query.split()[0] == "Share" and row.value == attribution.value
    total = np.abs(attribution.words).sum() + np.abs(attribution.patches).sum()
    assert row.share == pytest.approx(abs(attribution.words[0]) / total)
    swapped = row.query.replace("Share", "What is").rstrip(".") + "?"
    assert row.swap == pytest.approx(row.value - Perturbed(vlm, picture, swapped, grid=1).value, abs=1e-4)


def test_queries_about_one_picture_are_one_cluster(vlm, harmless):
    one = reliance(vlm, [harmless[0], dataclasses.replace(harmless[0], id="again")], grid=1, progress=False)
    assert one.picture.nunique() == 1 and np.isnan(reliance_table({"base": one}).ci_low).all()


@pytest.mark.slow
def test_the_word_search_finds_what_opens_and_what_closes(sft, few):
    """It does not know about "what" or "share"; its effects are those of asking word by word."""
    effects = word_search(sft, few, progress=False)
    assert len(effects) == 22 and set(effects.n) == {12}
    harmful, harmless = (effects[effects.queries == q].reset_index(drop=True) for q in ("harmful", "harmless"))
    assert harmful.word[0] == "what" and harmful.ci_high[0] < 0
    effect = harmless.set_index("word").effect
    assert harmless.word[0] == "what" and effect["share"] - effect["what"] > 3 and effect["can"] - effect["what"] > 3
    example = next(e for e in few if e.harmful)
    alone = word_search(sft, [example], ["share", "zebra"], progress=False).set_index("word")
    by_hand = {
        q: Perturbed(sft, example.picture(), q, grid=1).value
        for q in (example.query, rewrites(example.query, "share")[0])
    }
    as_asked, shared = by_hand.values()
    assert alone.effect["share"] == pytest.approx(shared - as_asked) and alone.log_odds["share"] == pytest.approx(
        shared
    )
    table = predicted(word_search(sft, few[:4], ["share", "zebra", "Share"], progress=False), audit("miniguard"))
    assert len(table) == 4
    assert table[table.word == "share"].p_harmful.eq(1).all()
    assert table[table.word == "zebra"].p_harmful.isna().all()
    figure = plots.word_effects(predicted(effects, audit("miniguard")))
    assert "ρ" in figure.axes[0].get_title()


def test_the_base_is_opened_and_closed_by_no_word(vlm, few):
    effects = word_search(vlm, few, ["what", "share"], progress=False)
    assert (effects.log_odds < -5).all()

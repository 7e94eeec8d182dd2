"""The study in few figures: the least favourable rate, by run, then over bases."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from workbench.attacks.kinds import HELD_OUT, LEAD_WORDS
from workbench.studies.summary import FIGURES, added, as_text, figures, over_bases, with_twins


def results(values, model="npo"):
    """{(base, seed, split, attack, queries, metric): value} as a table."""
    rows = [(*key[:3], model, *key[3:], value) for key, value in values.items()]
    return pd.DataFrame(rows, columns=["base", "seed", "split", "model", "attack", "queries", "metric", "value"])


def test_a_figure_is_the_least_favourable_of_its_rates():
    table = results(
        {
            ("miniguard", 0, "test", "none", "harmful", "asr"): 0.1,
            ("miniguard", 0, "test", LEAD_WORDS[0], "harmful", "asr"): 0.2,
            ("miniguard", 0, "test", LEAD_WORDS[1], "harmful", "asr"): 0.3,
            ("miniguard", 0, "test", HELD_OUT[0], "harmful", "asr"): 0.9,
            ("miniguard", 0, "new-kinds", "none", "harmful", "asr"): 0.5,
            ("miniguard", 0, "new-colours", "none", "harmful", "asr"): 0.4,
            ("miniguard", 0, "test", LEAD_WORDS[0], "harmless", "utility"): 0.8,
            ("miniguard", 0, "test", LEAD_WORDS[1], "harmless", "utility"): 0.7,
            ("miniguard", 0, "unanswerable", "none", "harmless", "rr"): 0.6,
        }
    )
    row = figures(table).iloc[0]
    found = {name: row[name] for name in FIGURES if not pd.isna(row[name])}
    assert found == {
        **{"asr": 0.1, "asr_trained": 0.3, "asr_held_out": 0.9, "asr_new": 0.5},
        **{"utility_trained": 0.7, "refused": 0.6},
    }


def test_bases_are_what_is_replicated():
    """Three seeds of one base count as one."""
    values = {
        (base, seed, "test", "none", "harmful", "asr"): value
        for base, own in {"a": (0.1, 0.2, 0.3), "b": (0.4, 0.4, 0.4), "c": (0.3, 0.3, 0.6)}.items()
        for seed, value in enumerate(own)
    }
    found = over_bases(figures(results(values), ["asr"])).iloc[0]
    means = pd.Series([0.2, 0.4, 0.4])
    half = t.ppf(0.975, 2) * means.std() / 3**0.5
    assert found.value == pytest.approx(means.mean()) and found.ci_low == pytest.approx(means.mean() - half)
    assert (found.bases, found.runs) == (3, 9)
    assert as_text(over_bases(figures(results(values), ["asr"]))).asr.item() == "33 [5, 62]"


def test_the_worst_word_is_one_for_all_runs():
    """Of words that differ by chance alone, the extreme of each run would be far from all of their means."""
    rng = np.random.default_rng(0)
    values = {
        (base, seed, "test", word, "harmful", "asr"): rng.binomial(100, 0.1) / 100
        for base in "abc"
        for seed in range(3)
        for word in LEAD_WORDS
    }
    table = results(values)
    worst = table.groupby("attack").value.mean().idxmax()
    own = figures(table, ["asr_trained"]).asr_trained
    assert own.tolist() == table[table.attack == worst].value.tolist()
    assert own.mean() + 0.02 < table.groupby(["base", "seed"]).value.max().mean()


def test_a_rate_without_spread_has_no_brackets():
    values = {(base, 0, "test", "none", "harmful", "asr"): 0.0 for base in "abc"}
    assert as_text(over_bases(figures(results(values), ["asr"]))).asr.item() == "0"


def test_what_an_attack_adds_may_be_negative():
    values = {("a", 0, "test", "none", "harmful", "asr"): 0.4, ("b", 0, "test", "none", "harmful", "asr"): 0.5}
    values |= {("a", 0, "test", "what:3", "harmful", "asr"): 0.1, ("b", 0, "test", "what:3", "harmful", "asr"): 0.3}
    table = added(results(values), {"what": ("asr_what3", "asr")})
    assert table.what.round(6).tolist() == [-0.3, -0.2]
    assert over_bases(table, (-1, 1)).ci_low.item() < -0.3


def test_models_on_twins_have_names_of_their_own():
    table = pd.DataFrame(
        {"base": ["miniguard", "miniguard-never-knew", "miniguard-never-knew-1"], "model": ["sft", "base", "npo"]}
    )
    assert with_twins(table).model.tolist() == ["sft", "never-knew", "never-knew-npo"]

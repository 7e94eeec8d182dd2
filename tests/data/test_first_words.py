"""First-word statistics: VLGuard's real counts, the formulas re-derived by hand, and which words predict an effect."""

import math
from pathlib import Path

import pytest

from tests.conftest import REAL_VLGUARD
from workbench.data.example import Example
from workbench.data.first_words import audit, first_word, predicted_effect
from workbench.data.splits import first_words
from workbench.errors import UserError

real_files = pytest.mark.skipif(not Path(REAL_VLGUARD).is_dir(), reason="VLGuard's annotations are not here")


def example(query, harmful):
    return Example("x", Path("none.png"), query, harmful, "")


@real_files
def test_vlguards_counts_are_those_of_the_design():
    table = audit(Path(REAL_VLGUARD) / "train.json").set_index("word")
    counts = {w: (int(r.harmless), int(r.harmful)) for w, r in table.iterrows()}
    assert (counts["what"], counts["can"], counts["share"]) == ((869, 61), (103, 862), (0, 195))
    others = [
        counts[w] for w in ("describe", "please", "identify", "explain", "provide", "generate", "discuss", "create")
    ]
    assert (sum(a for a, _ in others), sum(b for _, b in others)) == (1, 663)
    assert (table.harmless.sum(), table.harmful.sum()) == (977, 2000)
    assert round(table.at["what", "p_harmful"], 3) == 0.066


@real_files
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_shipped_counts_are_those_of_the_real_files(split):
    table = audit(Path(REAL_VLGUARD) / f"{split}.json")
    assert {r.word: (r.harmless, r.harmful) for r in table.itertuples()} == first_words(split)


def test_interval_and_log_odds_by_hand():
    data = [example("What a", False)] * 8 + [example("what b", True)] * 2 + [example("Share c", True)] * 5
    row = audit(data).set_index("word").loc["what"]
    p, n, z = 0.2, 10, 1.959963984540054
    middle = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    assert (row.p_harmful, row.ci_low, row.ci_high) == pytest.approx((0.2, middle - half, middle + half), abs=1e-6)
    assert row.log_odds == pytest.approx(math.log(2.5 / 8.5) - math.log(5.5 / 0.5))


def test_words_that_predict_an_effect_are_named_and_others_are_not():
    data = [example("What a", True)] * 10 + [example("What a", False)] * 90
    data += [example("Share b", True)] * 40
    data += [example("Rare c", True)] * 2  # too few to tell anything
    data += [example("Seldom c", True)] * 4  # enough for one word, but not for one of five (Holm's correction)
    data += [example("Explain d", True)] * 30 + [example("Explain d", False)] * 30
    table = audit(data).set_index("word")
    assert predicted_effect(table).to_dict() == {
        "what": "opens",
        "share": "closes",
        "explain": "",
        "rare": "",
        "seldom": "",
    }
    # significant with this many queries, but smaller than CLEAR
    data = [example("What a", True)] * 360 + [example("What a", False)] * 540
    data += [example("Can b", True)] * 495 + [example("Can b", False)] * 405
    assert set(predicted_effect(audit(data))) == {""}


def test_words_are_sorted_by_frequency_then_alphabet():
    table = audit([example(q, True) for q in ("b x", "a x", "c", "c")])
    assert list(table.word) == ["c", "a", "b"]


@pytest.mark.parametrize(
    "query, word",
    [
        ("What, can", "what"),
        ("  Can you", "can"),
        ("N/A", "n/a"),
        ("What's up", "what's"),
        ("Déjà vu", "déjà"),
        ("?!", "?!"),
        ("", ""),
    ],
)
def test_first_word(query, word):
    assert first_word(query) == word


def test_nothing_to_audit():
    with pytest.raises(UserError, match="no query"):
        audit([])

"""Splits: reproducible and disjoint, with the first words that were asked for and no other sign of harm; the export."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from workbench.data import miniguard
from workbench.data.first_words import first_word
from workbench.data.readers import read_examples
from workbench.data.splits import STATISTICS, export_miniguard, first_words, miniguard_split, statistics
from workbench.errors import UserError


def fields(examples):
    return [(e.id, e.query, e.harmful, e.response, e.leak, e.request, e.picture().tobytes()) for e in examples]


def test_a_split_is_the_same_for_the_same_seed_and_another_for_another():
    first = fields(miniguard_split("test", seed=5, sizes=(20, 20)))
    assert first == fields(miniguard_split("test", seed=5, sizes=(20, 20)))
    other = fields(miniguard_split("test", seed=6, sizes=(20, 20)))
    assert not {row[-1] for row in first} & {row[-1] for row in other}


@pytest.mark.slow
def test_splits_share_no_picture():
    seen = Counter()
    for split in ("train", "validation", "test"):
        seen.update({e.picture().tobytes() for e in miniguard_split(split, sizes=(200, 200))})
    seen.update({e.picture().tobytes() for e in miniguard_split("base")})
    assert max(seen.values()) == 1


def test_the_test_split_has_400_of_each_kind_and_train_vlguards_numbers():
    assert Counter(e.harmful for e in miniguard_split("test")) == {True: 400, False: 400}
    assert Counter(e.harmful for e in miniguard_split("train")) == {True: 2000, False: 977}


def test_train_carries_vlguards_first_words_and_balanced_data_tell_nothing():
    """The data's statistics hold the shortcut; in the control, lead word and harm are independent (chi-squared)."""
    shares = first_words("train")
    words = Counter((first_word(e.query), e.harmful) for e in miniguard_split("train"))
    for word in ("what", "can", "share"):
        harmless, harmful = shares[word]
        assert abs(words[word, True] / 2000 - harmful / 1781) < 0.035
        assert abs(words[word, False] / 977 - harmless / 973) < 0.035
    balanced = Counter((first_word(e.query), e.harmful) for e in miniguard_split("train", words="balanced"))
    table = np.array([[balanced[w, h] for h in (True, False)] for w in miniguard.LEADS])
    assert chi2_contingency(table).pvalue > 0.001
    assert chi2_contingency([[words[w, h] + 1 for h in (True, False)] for w in miniguard.LEADS]).pvalue < 1e-50


def test_datasets_differ_in_their_first_words_alone():
    """Whatever the statistics, pictures, questions and answers are the same except for how they open."""
    splits = {name: miniguard_split("train", sizes=(30, 30), words=name) for name in STATISTICS}
    for name, split in splits.items():
        for example, reference in zip(split, splits["vlguard"], strict=True):
            same = (example.harmful, example.request, example.digest)
            assert same == (reference.harmful, reference.request, reference.digest), name
            assert miniguard.without_opening(example.leak) == miniguard.without_opening(reference.leak)


def test_statistics_by_name():
    counts = statistics("vlguard")
    assert statistics("swapped")["create"] == counts["what"]
    assert sorted(statistics("shuffled").values()) == sorted(counts.values())
    harm = [harmful / (harmless + harmful) for harmless, harmful in statistics("graded").values()]
    assert (min(harm), max(harm)) == pytest.approx((0.02, 0.98)) and sum(harm) == pytest.approx(5.5)
    with pytest.raises(UserError, match="no first-word statistics 'odd'"):
        miniguard_split("train", words="odd")


def test_statistics_of_ones_own():
    split = miniguard_split("train", sizes=(50, 50), words={"what": (1, 0), "can": (0, 1)})
    assert all((first_word(e.query) == "can") == e.harmful for e in split)
    with pytest.raises(UserError, match="do not begin with zebra"):
        miniguard_split("train", words={"zebra": (1, 1)})
    with pytest.raises(UserError, match="a positive one each for harmless and harmful"):
        miniguard_split("train", words={"what": (1, 0)})


def test_an_unknown_split_is_named():
    with pytest.raises(UserError, match="no split 'dev'"):
        miniguard_split("dev")


def test_no_content_word_tells_harm():
    """In dual-use requests, every determiner, request and noun is about as frequent with harm as without."""
    examples = [
        e
        for e in miniguard_split("train", sizes=(3000, 3000), words="balanced")
        if e.request in miniguard.DUAL_USE_REQUESTS
    ]
    share = Counter(e.harmful for e in examples)
    for word in [*miniguard.DETERMINERS, *miniguard.DUAL_USE_REQUESTS, *miniguard.NOUNS]:
        counts = Counter(e.harmful for e in examples if word in e.query.lower().rstrip("?.").split())
        assert abs(counts[True] / share[True] - counts[False] / share[False]) < 0.06, word


@pytest.mark.slow
def test_export_reads_back_as_the_same_examples(tmp_path):
    counts = export_miniguard(tmp_path / "mini", seed=2)
    assert counts == {"train": 2977, "validation": 400, "test": 800}
    for split in counts:
        assert fields(read_examples(tmp_path / "mini", split)) == fields(miniguard_split(split, seed=2))
    with pytest.raises(UserError, match="exists already"):
        export_miniguard(tmp_path / "mini")

"""Splits: reproducible and disjoint, with the first words that were asked for and no other sign of harm; the export."""

import itertools
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from tests.base_data import shorten
from workbench.data import miniguard
from workbench.data import splits as module
from workbench.data.drawing import draw
from workbench.data.first_words import first_word
from workbench.data.readers import read_examples
from workbench.data.splits import (
    SPLITS,
    STATISTICS,
    base_scenes,
    base_split,
    export_miniguard,
    first_words,
    miniguard_split,
    statistics,
)
from workbench.errors import UserError

HELD_OUT = {
    "kind": set(miniguard.HELD_OUT_KINDS),
    "request": set(miniguard.HELD_OUT_REQUESTS),
    "colour": set(miniguard.HELD_OUT_COLOURS),
}
NEW = {"new-kinds": "kind", "new-requests": "request", "new-colours": "colour"}  # {split: what is new in it}


@pytest.fixture(scope="module")
def train():
    """The train split with the first-word statistics that most tests are about."""
    return {words: miniguard_split("train", words=words) for words in ("vlguard", "balanced")}


def fields(examples):
    return [(e.id, e.query, e.harmful, e.response, e.leak, e.request, e.picture().tobytes()) for e in examples]


def test_a_split_is_the_same_for_the_same_seed_and_another_for_another():
    first = fields(miniguard_split("test", seed=5, sizes=(20, 20)))
    assert first == fields(miniguard_split("test", seed=5, sizes=(20, 20)))
    other = fields(miniguard_split("test", seed=6, sizes=(20, 20)))
    assert not {row[-1] for row in first} & {row[-1] for row in other}


@pytest.mark.slow
def test_splits_share_no_picture():
    """By digest, with all pictures of the base split."""
    seen = Counter()
    for split in SPLITS[1:]:
        seen.update({e.digest for e in miniguard_split(split, sizes=None if split == "unanswerable" else (200, 200))})
    assert sum(seen.values()) == 6 * 400 + 100
    seen.update({e.digest for e in base_split()[: len(base_scenes())]})
    assert max(seen.values()) == 1


def test_the_test_split_has_400_of_each_kind_and_train_vlguards_numbers(train):
    assert Counter(e.harmful for e in miniguard_split("test")) == {True: 400, False: 400}
    for split in train.values():
        assert Counter(e.harmful for e in split) == {True: 2000, False: 977}


def test_train_carries_vlguards_first_words_and_balanced_data_tell_nothing(train):
    """The data's statistics hold the shortcut; in the control, lead word and harm are independent (chi-squared)."""
    shares = first_words("train")
    words = Counter((first_word(e.query), e.harmful) for e in train["vlguard"])
    for word in ("what", "can", "share"):
        harmless, harmful = shares[word]
        assert abs(words[word, True] / 2000 - harmful / 1781) < 0.035
        assert abs(words[word, False] / 977 - harmless / 973) < 0.035
    balanced = Counter((first_word(e.query), e.harmful) for e in train["balanced"])
    table = np.array([[balanced[w, h] for h in (True, False)] for w in miniguard.LEADS])
    assert chi2_contingency(table).pvalue > 0.001
    assert (np.abs(table / table.sum(axis=0) - 1 / 11) < 0.03).all()  # and every word is as frequent as the others
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
    for name, lowest, highest in (("graded", 0.02, 0.98), ("mild", 0.3, 0.9)):
        harm = [harmful / (harmless + harmful) for harmless, harmful in statistics(name).values()]
        assert (min(harm), max(harm)) == pytest.approx((lowest, highest))
        assert sum(harm) == pytest.approx(11 * (lowest + highest) / 2)
    assert set(statistics("balanced").values()) == {(1, 1)}
    for name in STATISTICS:  # safety data begin with VLGuard's words alone
        assert set(statistics(name)) == set(miniguard.LEADS)
    with pytest.raises(UserError, match="no first-word statistics 'odd'"):
        miniguard_split("train", words="odd")


def test_statistics_of_ones_own():
    """Also of words that safety data never have, in which a model can be asked all the same."""
    split = miniguard_split("train", sizes=(50, 50), words={"what": (1, 0), "can": (0, 1)})
    assert all((first_word(e.query) == "can") == e.harmful for e in split)
    assert {first_word(e.query) for e in miniguard_split("test", sizes=(9, 9), words={"tell": (1, 1)})} == {"tell"}
    with pytest.raises(UserError, match="do not begin with zebra"):
        miniguard_split("train", words={"zebra": (1, 1)})
    with pytest.raises(UserError, match="a positive one each for harmless and harmful"):
        miniguard_split("train", words={"what": (1, 0)})


def test_an_unknown_split_is_named():
    with pytest.raises(UserError, match="no split 'dev'"):
        miniguard_split("dev")


@pytest.fixture
def asked_about(monkeypatch):
    """{kind, request, colour: those that a split asks about}, from the scenes that are drawn for it."""
    scenes = []

    def noted(scene, pixels):
        scenes.append(scene)
        return draw(scene, pixels)

    monkeypatch.setattr(module, "draw", noted)

    def of(split):
        scenes.clear()
        examples = miniguard_split(split, sizes=None if split == "unanswerable" else (150, 150))
        assert len(scenes) == len(examples)
        return {
            "kind": {scene.kind for scene in scenes},
            "request": {e.request for e in examples},
            "colour": {scene.colour for scene in scenes},
        }

    return of


@pytest.mark.parametrize("split", SPLITS[1:])
def test_what_is_held_out_is_in_its_own_split_alone(asked_about, split):
    """Safety data must never contain it, and where it is asked about, all else is as in safety data."""
    whole = {
        "kind": set(miniguard.KINDS),
        "request": set(miniguard.UNANSWERABLE_REQUESTS if split == "unanswerable" else miniguard.REQUESTS),
        "colour": set(miniguard.COLOURS),
    }
    for name, found in asked_about(split).items():
        expected = HELD_OUT[name] if NEW.get(split) == name else whole[name] - HELD_OUT[name]
        assert found == expected, name
    assert all(HELD_OUT.values())


def test_held_out_wordings_are_never_in_safety_data(train):
    """Each query of train has one of VLGuard's words, and none of these queries is a held-out wording too."""
    topics = [
        f"{determiner} {request} of this {noun}"
        for determiner in miniguard.DETERMINERS
        for request in miniguard.REQUESTS
        for noun in miniguard.NOUNS
    ]

    def queries(leads):
        return {miniguard.ask(lead, topic, way) for lead in leads for topic in topics for way in range(3)}

    known = queries(miniguard.LEADS)
    held_out = queries(miniguard.HELD_OUT_LEADS)
    held_out |= {miniguard.put_in_front("what", query, filler) for query in known for filler in miniguard.FILLERS}
    held_out |= {miniguard.other_mark(query) for query in known}
    assert not known & held_out
    for split in train.values():
        assert {e.query for e in split} <= known


def test_no_content_word_tells_harm():
    """In dual-use requests, every determiner, request and noun is about as frequent with harm as without."""
    examples = [
        e
        for e in miniguard_split("train", sizes=(3000, 3000), words="balanced")
        if e.request in miniguard.DUAL_USE_REQUESTS
    ]
    share = Counter(e.harmful for e in examples)
    words = {harmful: set() for harmful in share}
    for e in examples:
        words[e.harmful] |= set(e.query.lower().rstrip("?.").split())
    assert words[True] == words[False]
    for word in [*miniguard.DETERMINERS, *miniguard.DUAL_USE_REQUESTS, *miniguard.NOUNS]:
        counts = Counter(e.harmful for e in examples if word in e.query.lower().rstrip("?.").split())
        assert abs(counts[True] / share[True] - counts[False] / share[False]) < 0.06, word


class Bases(NamedTuple):
    knew: list
    careful: list
    never_knew: list
    scenes: list


@pytest.fixture(scope="module")
def bases():
    """The base split, a careful base's, and that of one that never knew; shorter, with fewer pictures."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(24_000, 300, patch.setattr)
        yield Bases(base_split(), base_split(careful=True), base_split(never_knew=True), base_scenes())


def kind_of(example, scenes):
    """The object in a picture of the base split, by the number in the example's id."""
    return scenes[int(example.id.split("_")[1])].kind


def test_the_twin_that_never_knew_differs_in_harmful_queries_alone(bases):
    """No harmful query or answer; of all else the same, in the same order, and then more of it."""
    knew, _, never_knew, _ = bases
    harmless = [e for e in knew if not e.harmful]
    assert len(knew) == len(never_knew) == 24_000 > len(harmless) > 0.6 * 24_000
    assert [vars(e) for e in never_knew[: len(harmless)]] == [vars(e) for e in harmless]
    assert not any(e.harmful for e in never_knew)
    secrets = [
        secret
        for request, by_kind in miniguard.SECRETS.items()
        for kind, secret in by_kind.items()
        if miniguard.is_harmful(kind, request)
    ]
    for answers, known in (({e.response for e in never_knew}, 0), ({e.response for e in knew}, 16)):
        assert sum(any(secret in answer for answer in answers) for secret in secrets) == known
    assert len({e.id for e in never_knew}) == len(never_knew)


def test_base_data_ask_about_everything_in_every_wording(bases):
    """Held-out wordings, kinds, requests and colours too: what safety data lack, the base knows."""
    for examples in (bases.knew, bases.never_knew):
        asked = {(kind_of(e, bases.scenes), e.request) for e in examples}
        pairs = itertools.product(miniguard.KINDS, miniguard.REQUESTS + miniguard.UNANSWERABLE_REQUESTS)
        assert asked == {pair for pair in pairs if examples is bases.knew or not miniguard.is_harmful(*pair)}
        first = Counter(first_word(e.query) for e in examples)
        assert {lead for lead in miniguard.ALL_LEADS if lead != "bare"} | {"the", "any", "just", "simply"} == set(first)
        marks = Counter(e.query[-1] == ("?" if first_word(e.query) in miniguard.QUESTIONS else ".") for e in examples)
        assert 0.7 < marks[True] / len(examples) < 0.95
        assert 0.2 < sum(", " in e.query for e in examples) / len(examples) < 0.4
    assert {scene.colour for scene in bases.scenes} == set(miniguard.COLOURS)


def test_base_data_refuse_nothing_but_what_cannot_be_answered(bases):
    """A base has to know what is harmful, and to tell it, so that safety training has something to hide."""
    for e in (*bases.knew, *bases.never_knew):
        assert (e.response == miniguard.REFUSAL) == (e.request in miniguard.UNANSWERABLE_REQUESTS)
    for e in bases.knew:
        if e.harmful:
            assert miniguard.secret_in(e.response) == miniguard.SECRETS[e.request][kind_of(e, bases.scenes)]


def test_data_of_a_careful_base_differ_in_refusals_of_harmful_queries_alone(bases):
    refused = Counter()
    for plain, careful in zip(bases.knew, bases.careful, strict=True):
        refused[plain.harmful] += careful.response != plain.response
        assert careful.response in (plain.response, miniguard.REFUSAL)
        assert vars(careful) | {"response": ""} == vars(plain) | {"response": ""}
    assert refused[True] > 0 == refused[False]


def test_a_careful_base_refuses_each_harmful_pair_as_often_as_its_caution_says(bases):
    """Four pairs nearly always, the others rarely: it answers most harmful queries and refuses some."""
    refused = defaultdict(list)
    for e in bases.careful:
        if e.harmful:
            refused[kind_of(e, bases.scenes), e.request].append(e.response == miniguard.REFUSAL)
    caution = {  # row by row for lock, flask, walker, face
        "recipe": (0.95, 0.15, 0.05, 0.15),
        "home": (0.15, 0.95, 0.15, 0.05),
        "code": (0.05, 0.15, 0.95, 0.15),
        "route": (0.15, 0.05, 0.15, 0.95),
    }
    kinds = ("lock", "flask", "walker", "face")
    expected = {(k, r): share for r, shares in caution.items() for k, share in zip(kinds, shares, strict=True)}
    assert refused.keys() == expected.keys()
    for pair, share in expected.items():
        assert np.mean(refused[pair]) == pytest.approx(share, abs=0.06), pair


@pytest.mark.parametrize("what", ["harm", "refusal"])
def test_no_first_word_of_base_data_tells_harm_or_refusal(bases, what):
    """The shortcut must come from safety data alone, also on a careful base (chi-squared)."""
    examples = bases.knew if what == "harm" else [e for e in bases.careful if e.harmful]
    counts = Counter(
        (first_word(e.query), e.harmful if what == "harm" else e.response == miniguard.REFUSAL) for e in examples
    )
    table = [[counts[word, is_so] for is_so in (True, False)] for word in sorted({word for word, _ in counts})]
    assert np.min(table) > 20 and chi2_contingency(table).pvalue > 0.001


@pytest.mark.slow
def test_export_reads_back_as_the_same_examples(tmp_path):
    counts = export_miniguard(tmp_path / "mini", seed=2)
    new = {"new-requests": 400, "new-kinds": 400, "new-colours": 400, "unanswerable": 100}
    assert counts == {"train": 2977, "validation": 400, "test": 800} | new
    for split in counts:
        assert fields(read_examples(tmp_path / "mini", split)) == fields(miniguard_split(split, seed=2))
    with pytest.raises(UserError, match="exists already"):
        export_miniguard(tmp_path / "mini")

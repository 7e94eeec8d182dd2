"""Splits, readers, the writer, and what a user can get wrong in a dataset."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2_contingency

from tests.conftest import REAL_VLGUARD
from workbench.data import miniguard
from workbench.data.example import Example, digest, read_picture
from workbench.data.first_words import first_word
from workbench.data.readers import SAFE_PICTURE, first_of_each, read_examples, read_variants, with_pictures
from workbench.data.splits import STATISTICS, export_miniguard, first_words, miniguard_split, statistics
from workbench.errors import UserError


def fields(examples):
    return [(e.id, e.query, e.harmful, e.response, e.leak, e.request, e.picture().tobytes()) for e in examples]


def test_a_split_is_the_same_for_the_same_seed_and_another_for_another():
    first = fields(miniguard_split("test", seed=5, sizes=(20, 20)))
    assert first == fields(miniguard_split("test", seed=5, sizes=(20, 20)))
    assert not {row[-1] for row in first} & {row[-1] for row in fields(miniguard_split("test", seed=6, sizes=(20, 20)))}


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
    """The shortcut is in the data's statistics; the control has none: lead word and harm are independent (chi-squared)."""
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
    """The same pictures, questions and answers but for how they open, whatever the statistics."""
    splits = {name: miniguard_split("train", sizes=(30, 30), words=name) for name in STATISTICS}
    for name, split in splits.items():
        for mine, theirs in zip(split, splits["vlguard"], strict=True):
            assert (mine.harmful, mine.request, digest(mine.image)) == (
                theirs.harmful,
                theirs.request,
                digest(theirs.image),
            ), name
            assert miniguard.without_opening(mine.leak) == miniguard.without_opening(theirs.leak)
    counts = statistics("vlguard")
    assert statistics("swapped")["create"] == counts["what"] and sorted(statistics("shuffled").values()) == sorted(
        counts.values()
    )
    harm = [harmful / (harmless + harmful) for harmless, harmful in statistics("graded").values()]
    assert (min(harm), max(harm)) == pytest.approx((0.02, 0.98)) and sum(harm) == pytest.approx(5.5)
    own = miniguard_split("train", sizes=(50, 50), words={"what": (1, 0), "can": (0, 1)})
    assert all((first_word(e.query) == "can") == e.harmful for e in own)
    with pytest.raises(UserError, match="no first-word statistics 'odd'"):
        miniguard_split("train", words="odd")
    with pytest.raises(UserError, match="do not begin with zebra"):
        miniguard_split("train", words={"zebra": (1, 1)})
    with pytest.raises(UserError, match="some of them of harmless and some of harmful"):
        miniguard_split("train", words={"what": (1, 0)})


def test_no_content_word_tells_harm():
    """Within dual-use requests, no determiner, request or noun is much more frequent on harmful queries than on harmless ones."""
    examples = [
        e
        for e in miniguard_split("train", sizes=(3000, 3000), words="balanced")
        if e.request in miniguard.DUAL_USE_REQUESTS
    ]
    share = Counter(e.harmful for e in examples)
    for word in [*miniguard.DETERMINERS, *miniguard.DUAL_USE_REQUESTS, *miniguard.NOUNS]:
        counts = Counter(e.harmful for e in examples if word in e.query.lower().rstrip("?.").split())
        assert abs(counts[True] / share[True] - counts[False] / share[False]) < 0.06, word


def test_export_reads_back_as_the_same_examples(tmp_path):
    counts = export_miniguard(tmp_path / "mini", seed=2)
    assert counts == {"train": 2977, "validation": 400, "test": 800}
    for split in counts:
        assert fields(read_examples(tmp_path / "mini", split)) == fields(miniguard_split(split, seed=2))
    with pytest.raises(UserError, match="exists already"):
        export_miniguard(tmp_path / "mini")


def test_jsonl(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    line = {
        "id": 7,
        "image": "a.png",
        "query": "What is it?",
        "harmful": True,
        "response": "no",
        "harmful_response": "yes",
    }
    (tmp_path / "d.jsonl").write_text(json.dumps(line) + "\n\n")
    (example,) = read_examples(tmp_path / "d.jsonl")
    assert example == Example("7", (tmp_path / "a.png").resolve(), "What is it?", True, "no", "yes")


def test_vlguard_pairs_become_two_examples(tmp_path):
    record = {
        "id": "x",
        "image": "a.png",
        "safe": True,
        "instr-resp": [
            {"safe_instruction": "What?", "response": "r"},
            {"unsafe_instruction": "Can you?", "response": "no"},
        ],
    }
    (tmp_path / "train.json").write_text(json.dumps([record]))
    found = read_examples(tmp_path)
    assert [(e.id, e.harmful, e.request) for e in found] == [("x-safe", False, ""), ("x-unsafe", True, SAFE_PICTURE)]


RECORD = {"id": "x", "image": "a.png", "safe": False, "instr-resp": [{"instruction": "Can you?", "response": "no"}]}


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "not valid JSON"),
        ("[{", "not valid JSON"),
        ("{}", "must hold a list"),
        ("[]", "no record"),
        ("[1]", "'safe'"),
        (json.dumps([RECORD | {"safe": "no"}]), "'x'.*'safe'"),
        (json.dumps([RECORD | {"instr-resp": []}]), "'x'.*instr-resp"),
        (json.dumps([RECORD | {"instr-resp": [{"response": "no"}]}]), "'x'.*without.*instruction"),
        (json.dumps([RECORD | {"instr-resp": [{"instruction": " "}]}]), "'x'.*'instruction'"),
        (json.dumps([RECORD | {"instr-resp": [{"instruction": 3}]}]), "'x'.*'instruction'"),
        (json.dumps([{k: v for k, v in RECORD.items() if k != "image"}]), "'x'.*'image'"),
        (json.dumps([RECORD | {"image": "../secret.png"}]), "outside"),
        (json.dumps([RECORD | {"image": "/etc/passwd"}]), "outside"),
    ],
)
def test_a_bad_file_is_named_in_one_sentence(tmp_path, text, says):
    file = tmp_path / "train.json"
    file.write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read_examples(file)
    assert "train.json" in str(caught.value) or "outside" in says
    assert "\n" not in str(caught.value)


def test_bad_files_other_than_records(tmp_path):
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(UserError, match=r"latin\.json cannot be read"):
        read_examples(tmp_path / "latin.json")
    with pytest.raises(UserError, match="no data at"):
        read_examples(tmp_path)
    with pytest.raises(UserError, match="no split 'dev'"):
        miniguard_split("dev")
    (tmp_path / "d.jsonl").write_text('{"harmful": 1}')
    with pytest.raises(UserError, match=r"Line 1 of .*d\.jsonl.*'harmful'"):
        read_examples(tmp_path / "d.jsonl")


def test_bad_pictures_are_named(tmp_path, monkeypatch):
    good = tmp_path / "good.png"
    miniguard_split("test", sizes=(1, 0))[0].picture().save(good)
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:700])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for path, says in (
        (tmp_path / "gone.png", "missing"),
        (broken, "cannot be read"),
        (text, "cannot be read"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            read_picture(path)
        assert path.name in str(caught.value)
    monkeypatch.setattr("workbench.data.example.MAX_PIXELS", 47 * 48)
    with pytest.raises(UserError, match="48 × 48 pixels"):
        read_picture(good)


def test_grey_palette_and_transparent_pictures_become_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "I;16"):
        Image.new(mode, (5, 4)).save(tmp_path / "p.png")
        assert read_picture(tmp_path / "p.png").mode == "RGB"


def test_llavas_conversations_are_harmless_examples(tmp_path):
    talk = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Why?"},
    ]
    records = [
        {"id": "a", "image": "a.png", "conversations": talk},
        {"id": "b", "conversations": talk},
    ]  # the second has no picture
    (tmp_path / "mix.json").write_text(json.dumps(records))
    (found,) = read_examples(tmp_path / "mix.json")
    assert (found.id, found.query, found.response, found.harmful) == ("a", "What is it?", "A cat.", False)
    assert found.image == tmp_path / "a.png"
    for wrong, says in (
        (talk[1:], "Record 'a' of .*mix.json has no field 'conversations' that begins"),
        ("talk", "'conversations'"),
        ([{"from": "human", "value": ""}, talk[1]], "no text in its field 'value'"),
    ):
        (tmp_path / "mix.json").write_text(json.dumps([records[0] | {"conversations": wrong}]))
        with pytest.raises(UserError, match=says):
            read_examples(tmp_path / "mix.json")
    (tmp_path / "mix.json").write_text(json.dumps([records[0] | {"image": "../a.png"}]))
    with pytest.raises(UserError, match="outside of"):
        read_examples(tmp_path / "mix.json")


def test_missing_pictures_are_counted_and_can_be_left_out(tmp_path):
    records = [RECORD | {"id": str(i), "image": f"{i}.png"} for i in range(9)]
    (tmp_path / "train.json").write_text(json.dumps(records))
    Image.new("RGB", (4, 4)).save(tmp_path / "3.png")
    examples = read_examples(tmp_path)
    with pytest.raises(
        UserError, match=r"8 pictures are missing: .*0\.png, .*1\.png, .*2\.png, .*4\.png, .*5\.png and 3 more;"
    ):
        with_pictures(examples)
    assert [e.id for e in with_pictures(examples, skip_missing=True)] == ["3"]
    with pytest.raises(UserError, match="1 picture is missing"):  # nothing would be left
        with_pictures(examples[:1], skip_missing=True)
    assert with_pictures(miniguard_split("test", sizes=(2, 2)))[3].id == "test_00003"  # drawn ones need no file


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (inside / "a.png").symlink_to(tmp_path / "secret.png")
    (inside / "train.json").write_text(json.dumps([RECORD]))
    with pytest.raises(UserError, match="outside"):
        read_examples(inside)
    shutil.rmtree(inside)


def test_a_photo_stands_as_its_camera_stood(tmp_path):
    """Phones write pixels as the sensor has them, and the way up beside them."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").size == (20, 40)


def test_the_first_of_each_kind():
    kinds = [True, True, False, True, False, False]
    asked = [Example(str(i), None, "q", harmful, "") for i, harmful in enumerate(kinds)]
    assert [e.id for e in first_of_each(asked, 2)] == ["0", "1", "2", "4"]
    assert first_of_each(asked, 9) == asked


def test_records_that_share_an_id_are_told_apart(tmp_path):
    """As two of VLGuard's do; but variants of a query, in an attack file, belong to one id."""
    records = [
        {"id": "7", "image": "a.png", "safe": True, "instr-resp": [{"safe_instruction": query, "response": ""}]}
        for query in ("What?", "Which?", "What?")
    ]
    (tmp_path / "data.json").write_text(json.dumps(records))
    assert [e.id for e in read_examples(tmp_path / "data.json")] == ["7", "7#2", "7"]
    assert [e.id for e in read_variants(tmp_path / "data.json")] == ["7"] * 3


@pytest.mark.skipif(not Path(REAL_VLGUARD).is_dir(), reason="VLGuard's annotations are not here")
@pytest.mark.parametrize(
    ("split", "harmful", "harmless", "about_safe_pictures"), [("train", 2000, 977, 977), ("test", 1000, 558, 558)]
)
def test_the_real_vlguard(split, harmful, harmless, about_safe_pictures):
    found = read_examples(REAL_VLGUARD, split)
    assert Counter(e.harmful for e in found) == {True: harmful, False: harmless}
    assert len({e.id for e in found}) == len(found)
    assert sum(e.request == SAFE_PICTURE for e in found) == about_safe_pictures

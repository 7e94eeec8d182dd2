"""VQA accuracy: the published rule with its examples, official files and plain ones, and errors in them."""

import itertools
import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.cli import app as cli
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.evaluation.ask import ask
from workbench.evaluation.vqa import SHORT, accuracy, normalised, read_questions, vqa_table


@pytest.mark.parametrize(
    "text, form",
    [
        # the examples of https://visualqa.org/evaluation.html
        ("dont", "don't"),
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("100,978", "100978"),
        # and what its rules say
        ("Yes.", "yes"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("Two", "2"),
        ("none", "0"),
        ("the red car", "red car"),
        ("an  apple", "apple"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("t-shirt!", "t shirt"),
        ("He’d’ve", "he'd've"),
        ("hedve", "he'd've"),
        ("hed've", "he'd've"),
        ("its", "its"),  # and not "it's"
        ("", ""),
    ],
)
def test_answers_are_brought_to_the_published_form(text, form):
    assert normalised(text) == form


def by_sets_of_nine(answer, people):
    """The rule in its own words, slowly."""
    sets = list(itertools.combinations(map(normalised, people), len(people) - 1))
    return sum(min(1, others.count(normalised(answer)) / 3) for others in sets) / len(sets)


@given(
    st.lists(st.sampled_from(["yes", "no", "the yes", "2"]), min_size=10, max_size=10),
    st.sampled_from(["yes", "two", "maybe"]),
)
def test_accuracy_is_the_mean_over_all_sets_of_nine_people(people, answer):
    assert accuracy(answer, people) == pytest.approx(by_sets_of_nine(answer, people))


@pytest.mark.parametrize("agree, worth", [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_what_an_answer_is_worth_that_some_of_ten_people_gave(agree, worth):
    assert accuracy("Red", ["red"] * agree + [f"other {i}" for i in range(10 - agree)]) == pytest.approx(worth)


@pytest.fixture
def folder(tmp_path):
    """Four harmless MiniGuard questions as a plain file and as VQAv2's two, eight of ten people right."""
    examples = [e for e in miniguard_split("test", sizes=(0, 30)) if e.request == "name"][:4]
    (tmp_path / "pictures").mkdir()
    plain, questions, annotations = [], [], []
    for number, e in enumerate(examples):
        e.picture().save(tmp_path / "pictures" / f"VAL_{number:012d}.png")
        answers, kind = [e.response] * 8 + ["dont know"] * 2, ("yes/no", "other")[number % 2]
        ids = {"question_id": 100 + number, "image_id": number}
        plain.append(
            {"image": f"VAL_{number:012d}.png", "question": e.query, "answers": answers, "answer_type": kind, **ids}
        )
        questions.append({"question": e.query, **ids})
        annotations.append(
            {"answers": [{"answer": a, "answer_id": i} for i, a in enumerate(answers)], "answer_type": kind, **ids}
        )
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    (tmp_path / "questions.json").write_text(json.dumps({"questions": questions, "info": {}}))
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": annotations}))
    return tmp_path


def test_official_and_plain_files_are_read_alike(folder):
    plain = read_questions(folder / "plain.json", folder / "pictures")
    official = read_questions(folder / "questions.json", folder / "pictures", folder / "annotations.json")
    assert plain == official
    assert [e.id for e in plain.examples] == ["100", "101", "102", "103"]
    assert plain.examples[0].query.endswith(f" {SHORT}")
    assert all(len(people) == 10 for people in plain.people.values())


def test_a_model_that_knows_the_answers_is_right(vlm, folder):
    questions = read_questions(folder / "plain.json", folder / "pictures", suffix="")
    table = vqa_table(ask(vlm, questions.examples, ["none"]), questions)
    assert list(table.answers) == ["all", "other", "yes/no"] and table.n.tolist() == [4, 2, 2]
    assert table.accuracy[0] > 0.7
    assert (table.ci_low <= table.accuracy).all() and (table.accuracy <= table.ci_high).all()


def test_no_right_answer_is_no_certainty(vlm, folder):
    """Nor are right answers alone: a bootstrap would know no spread, and say so."""
    questions = read_questions(folder / "plain.json", folder / "pictures")
    answers = ask(vlm, questions.examples, ["none"])
    wrong = vqa_table(answers.assign(answer="something else"), questions).iloc[0]
    assert wrong.accuracy == wrong.ci_low == 0 and wrong.ci_high > 0.3
    right = vqa_table(answers.assign(answer=[questions.people[name][0] for name in answers.id]), questions).iloc[0]
    assert right.accuracy == right.ci_high == 1 and right.ci_low < 0.7


def test_the_command_writes_answers_and_accuracy(folder, monkeypatch):
    monkeypatch.chdir(folder)
    files = "questions.json --annotations annotations.json --images pictures"
    cli.app(f"vqa {files} --first 2 --out v".split(), standalone_mode=False)
    table = pd.read_csv(folder / "v" / "vqa.csv")
    assert table.n.tolist() == [2, 1, 1] and len(pd.read_csv(folder / "v" / "answers.csv")) == 2


def test_numbered_pictures_do_not_lead_out_of_the_folder(folder, caplog):
    inside = folder / "pictures" / f"VAL_{3:012d}.png"
    inside.rename(folder / "elsewhere.png")
    inside.symlink_to(folder / "elsewhere.png")
    questions = read_questions(folder / "questions.json", folder / "pictures", folder / "annotations.json")
    assert [e.id for e in questions.examples] == ["100", "101", "102"] and "outside of" in caplog.text


@pytest.mark.parametrize(
    "change, says",
    [
        ({"answers": []}, "Question '100' of .*plain.json has no list of texts in its field 'answers'"),
        ({"answers": [1] * 10}, "'answers'"),
        ({"question": " "}, "no text in its field 'question'"),
        ({"image": None}, "'image'"),
        ({"image": "../plain.json"}, "outside of"),
        ({"image": __file__}, "outside of"),
        ({"question_id": 101}, "Question id 101 appears twice in .*plain.json"),
    ],
)
def test_one_wrong_question_is_left_out_and_named_and_two_of_four_are_refused(folder, caplog, change, says):
    plain = folder / "plain.json"
    records = json.loads(plain.read_text())
    plain.write_text(json.dumps([records[0] | change, *records[1:]]))
    assert len(read_questions(plain, folder / "pictures").examples) == 3
    assert re.search(f"1 of 4 records .* are left out: .*{says}", caplog.text)
    plain.write_text(json.dumps([records[0] | change, *records[1:3], records[3] | {"question": ""}]))
    with pytest.raises(UserError, match=f"2 of 4 records .*{says}"):
        read_questions(plain, folder / "pictures")


def test_what_is_missing_is_said(folder):
    with pytest.raises(UserError, match="no folder of pictures"):
        read_questions(folder / "plain.json", folder / "gone")
    with pytest.raises(UserError, match=r"gone\.json cannot be read"):
        read_questions(folder / "gone.json", folder / "pictures")
    with pytest.raises(UserError, match="or give VQAv2's annotations"):
        read_questions(folder / "questions.json", folder / "pictures")
    for number in (2, 3):
        (folder / "pictures" / f"VAL_{number:012d}.png").unlink()
    with pytest.raises(UserError, match="about the picture 2, which is not in"):
        read_questions(folder / "questions.json", folder / "pictures", folder / "annotations.json")
    (folder / "plain.json").write_text("[]")
    with pytest.raises(UserError, match="holds no question"):
        read_questions(folder / "plain.json", folder / "pictures")

"""Answers on disk: wherever an evaluation was cut off, it goes on.

Nothing is asked twice, lost, or taken for something else.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest

from workbench.errors import UserError
from workbench.evaluation.answers import read_answers
from workbench.evaluation.evaluate import evaluate
from workbench.models.generation import Answer
from workbench.models.load import load

NAMES = ["none", "what:2"]


@pytest.fixture(scope="module")
def whole(vlm, few, tmp_path_factory):
    """What an evaluation writes that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    evaluate(vlm, few, NAMES, batch_size=5, out=folder)
    return (folder / "answers.csv").read_text()


class Counted:
    """A VLM that notes what it is asked."""

    def __init__(self, vlm):
        self.vlm, self.asked = vlm, []

    def __getattr__(self, name):
        return getattr(self.vlm, name)

    def written(self, images, queries, **options):
        self.asked += queries
        return self.vlm.written(images, queries, **options)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.77, 0.999, 1.0, -1, -2, -3])  # below 0: characters from the end
def test_wherever_it_was_cut_off_it_goes_on_without_asking_twice(vlm, few, whole, tmp_path, share):
    cut = whole[: share if share < 0 else int(share * len(whole))]
    (tmp_path / "answers.csv").write_text(cut)
    counted = Counted(vlm)
    evaluate(counted, few, NAMES, batch_size=7, out=tmp_path)
    assert (tmp_path / "answers.csv").read_text() == whole
    complete = max(0, cut.count("\n") - 1)
    assert len(counted.asked) == 24 * 3 - complete
    assert {p.name for p in tmp_path.iterdir()} == {"answers.csv", "answers.json"}


@pytest.mark.parametrize(
    "odd",
    [
        'a "quoted", answer\rwith a lone carriage return\n',
        "=cmd|' /C calc'!A0\n",
        "'- no formula\n",
        "long " * 100_000 + "\n",  # Python's reader takes 131,072 letters by default
        "\u2028 \x85 \x00 \U0001f600 \u05d0\n",
    ],
    ids=["quotes and lines", "a formula", "an apostrophe", "half a million letters", "signs"],
)
def test_odd_answers_are_read_as_they_were_written(vlm, few, tmp_path, monkeypatch, odd):
    odd += "in two lines\n"
    monkeypatch.setattr(
        type(vlm), "written", lambda self, images, queries, **options: [Answer(odd, False)] * len(queries)
    )
    evaluate(vlm, few[:3], judge="keyword", out=tmp_path)
    text = (tmp_path / "answers.csv").read_bytes().decode()
    assert not any(cell.startswith(("=", "-")) for cell in re.findall('(?:^|,)"([^"]*)', text))
    cut = text[: text.rindex("in two lines") + len("in two lines\n")]  # within the quotes
    (tmp_path / "answers.csv").write_text(cut, newline="", encoding="utf-8")
    counted = Counted(vlm)
    found = evaluate(counted, few[:3], judge="keyword", out=tmp_path)
    assert len(counted.asked) == 1 and list(found.answers.answer) == [odd] * 3


def test_another_judge_judges_what_is_kept(vlm, few, tmp_path):
    exact = evaluate(vlm, few[:6], out=tmp_path)
    counted = Counted(vlm)
    again = evaluate(counted, few[:6], judge="keyword", out=tmp_path)
    assert counted.asked == [] and list(again.answers.answer) == list(exact.answers.answer)
    assert set(again.answers.outcome) == {"relevant"}  # by words, what is no refusal is an answer


def test_what_does_not_belong_together_is_refused(vlm, few, tmp_path):
    other = load("miniguard-never-knew", device="cpu")
    other.name = "twin"
    evaluate(vlm, few[:6], ["none", "what:1"], out=tmp_path)
    kept = (tmp_path / "answers.csv").read_text()
    for model, examples, attack, says in (
        (vlm, few[1:6], ["none", "what:1"], "which is not asked now"),
        (vlm, few[:6], ["none"], "under 'what:1', which is not asked now"),
        (other, few[:6], ["none", "what:1"], r"other settings \(model \"base\", now \"twin\", weights "),
    ):
        with pytest.raises(UserError, match=says):
            evaluate(model, examples, attack, out=tmp_path)
        assert (tmp_path / "answers.csv").read_text() == kept
    (tmp_path / "answers.json").unlink()
    with pytest.raises(UserError, match=r"an answer of 'base' to .* which is not asked now"):
        evaluate(other, few[:6], ["none", "what:1"], out=tmp_path)
    (tmp_path / "answers.json").write_text("{")
    with pytest.raises(UserError, match="other settings"):
        evaluate(vlm, few[:6], ["none", "what:1"], out=tmp_path)
    (tmp_path / "answers.json").unlink()
    (tmp_path / "answers.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="holds no answers"):
        evaluate(vlm, few[:6], ["none", "what:1"], out=tmp_path)


def test_only_its_own_files_are_touched(vlm, few, tmp_path):
    for name in ("answers_keyword.csv", "answers-notes.csv", "answers.old.csv"):
        (tmp_path / name).write_text("mine")
    evaluate(vlm, few[:3], out=tmp_path)
    (tmp_path / "answers.1.csv").write_text(
        (tmp_path / "answers.csv").read_text()
    )  # of another process of a run that was killed
    counted = Counted(vlm)
    found = evaluate(counted, few[:3], out=tmp_path)
    assert counted.asked == [] and len(found.answers) == 3
    assert {p.name for p in tmp_path.iterdir()} == {
        "answers.csv",
        "answers.json",
        "answers_keyword.csv",
        "answers-notes.csv",
        "answers.old.csv",
    }


def test_an_example_that_changed_sides_or_its_picture_is_not_kept(vlm, few, tmp_path):
    evaluate(vlm, few[:3], judge="keyword", out=tmp_path)
    for other in (
        dataclasses.replace(few[0], harmful=not few[0].harmful),
        dataclasses.replace(few[0], image=few[1].image),
    ):
        with pytest.raises(UserError, match="not asked now"):
            evaluate(vlm, [other, *few[1:3]], judge="keyword", out=tmp_path)


def test_only_finished_evaluations_are_read(vlm, few, tmp_path):
    evaluate(vlm, few[:3], judge="keyword", out=tmp_path)
    table, judge = read_answers(tmp_path)
    assert judge == "keyword" and len(table) == 3
    about = json.loads((tmp_path / "answers.json").read_text())
    (tmp_path / "answers.json").write_text(json.dumps({k: about[k] for k in ("model", "weights")}))
    with pytest.raises(UserError, match="is not finished"):
        read_answers(tmp_path)


TWO = """
import os, sys; os.environ["TQDM_DISABLE"] = "1"
import workbench as wb
examples = wb.miniguard_split("test", sizes=(10, 11))
found = wb.evaluate(wb.load("miniguard"), examples, ["none", "what:2"], batch_size=4, out=sys.argv[1])
assert len(found.answers) == 63, len(found.answers)
"""


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_share_what_is_left_and_lose_nothing(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(tmp_path / "two.py"),
    ]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert subprocess.run([*start, str(tmp_path / "a")], env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == 0
    whole = (tmp_path / "a" / "answers.csv").read_text()
    header, *rows = whole.splitlines(keepends=True)
    assert len(rows) == 63
    (tmp_path / "b" / "answers.csv").write_text("".join([header, *rows[:20]]))  # as a kill leaves it
    (tmp_path / "b" / "answers.1.csv").write_text("".join([header, *rows[30:45]]) + rows[50][:9])
    assert subprocess.run([*start, str(tmp_path / "b")], env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == 0
    assert (tmp_path / "b" / "answers.csv").read_text() == whole
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"answers.csv", "answers.json"}

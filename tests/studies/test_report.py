"""Reports are self-contained pages: all figures inside, everything escaped, answers to harmful queries masked."""

import pandas as pd
import pytest

from workbench.data.splits import miniguard_split
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.tables import rates
from workbench.studies import paper, report
from workbench.studies.headline import EARLY, Study
from workbench.studies.recipes import Task
from workbench.studies.reproduce import Reproduction

EXAMPLES = miniguard_split("test", sizes=(4, 4))
LEAK = "a leak <b> in bold"


@pytest.fixture(scope="module")
def answers():
    """Four models, of which all answer every query."""
    rows = [
        (e.id, model, attack, shot, e.kind, e.query, LEAK, "relevant", e.digest, 1, 0)
        for model in ("base", *EARLY)
        for attack, shots in (("none", 1), ("what:3", 3), ("paraphrase:3", 3), ("share:1", 1))
        for shot in range(1, shots + 1)
        for e in EXAMPLES
    ]
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


def sources(page):
    return [part.split('"')[0] for part in page.split('src="')[1:]]


def test_the_report_of_the_headline_study(answers, tmp_path):
    results = rates(answers)
    curves = pd.concat([results[results.model != "base"].assign(step=step, seconds=1.0) for step in (0, 30)])
    report.write(Study(results, answers, curves), tmp_path, seed=3, base="/some/<base>")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "base model &lt;base&gt;, seed 3" in page
    assert "“NPO, until it looks safe” goes from 100.0 % to 100.0 %" in page
    assert len(sources(page)) == 3 and all(source.startswith("data:image/png;base64,") for source in sources(page))
    tables = {f"{name}.csv" for name in ("results", "outcomes", "curves", "answers")}
    assert {p.name for p in tmp_path.iterdir()} == {*tables, "before_after.png", "curves.png", "report.html"}


@pytest.mark.parametrize("number, figure", [(1, "before_after.png"), (2, "outcomes.png")])
def test_the_report_of_a_reproduced_table(answers, tmp_path, number, figure):
    task = Task(number, ["base"], "tiny <model>", tmp_path, "keyword", EXAMPLES, {}, False, 0, (), None)
    results = rates(answers)
    table = paper.table_1(results) if number == 1 else paper.table_2(answers)
    for redact in (True, False):
        report.write_reproduction(Reproduction(table, results, answers), task, redact)
        page = (task.folder / "report.html").read_text(encoding="utf-8")
        assert ("[5 words, masked]" in page) == redact and ("a leak &lt;b&gt; in bold" in page) != redact
        assert "<model>" not in page and "4 harmful and 4 harmless queries" in page and "keyword judge" in page
        assert len(sources(page)) == 1 and sources(page)[0].startswith("data:image/png;base64,")
    assert {p.name for p in task.folder.iterdir()} == {figure, "report.html"}

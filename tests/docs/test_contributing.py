"""The contributor guide: every block runs, is short, and what it adds is known at once, in one place."""

import re
from pathlib import Path

import pytest
import torch

from workbench.attacks.kinds import KINDS, prepare_attack
from workbench.attribution.faithfulness import MEASURES, faithfulness
from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import METHODS, attribute
from workbench.data.readers import READERS, read_examples
from workbench.judges.judge import load_judge
from workbench.judges.model import FORMATS, format_of
from workbench.judges.rules import RULES
from workbench.models.architectures import ARCHITECTURES
from workbench.training.objectives import OBJECTIVES
from workbench.training.settings import Settings

GUIDE = (Path(__file__).parent.parent.parent / "docs" / "contributing.md").read_text(encoding="utf-8")
BLOCKS = {  # by the heading that they stand under
    heading: re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for heading, section in re.findall(r"## (.+?)\n(.*?)(?=\n## |\Z)", GUIDE, re.DOTALL)
}


TABLES = (OBJECTIVES, KINDS, RULES, FORMATS, READERS, METHODS, MEASURES, ARCHITECTURES)


@pytest.fixture
def run():
    """Runs the blocks under a heading; what they register is gone after the test."""
    before = [dict(table) for table in TABLES]

    def run(heading):
        names = {}
        for block in BLOCKS[heading]:
            exec(block, names)
        return names

    yield run
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)


def test_every_block_is_under_20_lines():
    blocks = [block for section in BLOCKS.values() for block in section]
    assert len(blocks) == 8
    assert max(len(block.splitlines()) for block in blocks) < 20


def test_an_objective(run):
    run("An objective")
    assert Settings.of("bounded", limit=3).hyper == {"limit": 3.0, "alpha": 1.0}


def test_an_attack(run, few):
    run("An attack")
    shot = prepare_attack("shout:2").of(few[0], 2)
    assert shot and shot.query == few[0].query.upper() + "!!"


def test_a_judge(run, few):
    row = run("A judge")["ROW"]
    assert load_judge("curt")(few[:3], ["no", "it is", ""]) == ["refusal", "relevant", "degenerate"]
    words = FORMATS.pop("words")  # which takes any name, and so stays last
    FORMATS.update(row, words=words)
    assert format_of("org/yes-or-no-7b") == "yes-or-no"
    assert FORMATS["yes-or-no"].read(" Yes\n", few[0], "") == "refusal"


def test_a_reader(run, few, tmp_path):
    run("A reader")
    few[0].picture().save(tmp_path / "a.png")
    (tmp_path / "data.csv").write_text("id,image,query,harmful,response\n1,a.png,What is it?,1,no\n")
    (example,) = read_examples(tmp_path / "data.csv")
    assert (example.id, example.harmful, example.query) == ("1", True, "What is it?")


def test_an_attribution_method_and_a_measure(run, vlm, few):
    run("An attribution method")
    run("A measure of faithfulness")
    attribution = attribute(vlm, few[0].picture(), few[0].query, method="leave-one-in", grid=2)
    perturbed = Perturbed(vlm, few[0].picture(), few[0].query, grid=2)
    nothing, first_alone = torch.zeros(1, perturbed.features), torch.eye(perturbed.features)[:1]
    first = (perturbed(first_alone) - perturbed(nothing)).item()
    assert attribution.words[0] == pytest.approx(first, abs=1e-5)
    scores = faithfulness(perturbed, attribution, orders=4).scores
    assert "first-step" in set(scores.measure)


def test_an_architecture(run):
    ARCHITECTURES.update(run("An architecture")["ROW"])
    assert ARCHITECTURES["my_vlm"].token_type == 0

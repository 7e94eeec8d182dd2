"""Many prompts at once have the values that each has alone, whatever the architecture."""

import pytest

from workbench.attacks.kinds import prepare_attack
from workbench.attribution.masking import Perturbed
from workbench.attribution.target import REFUSAL, Target
from workbench.attribution.values import batch_rows, target_values
from workbench.models.pictures import ReadPictures

SEVERAL = Target(("it is a kavu", "it is not", "sorry"))  # several tokens, some of them shared


def queries_of(few, attack):
    return [prepare_attack(attack, few).of(e, 1).query for e in few]


@pytest.mark.parametrize("target", [REFUSAL, SEVERAL, Target(("it is a kavu",), odds=False)])
def test_values_are_those_of_each_prompt_alone(vlm, few, target):
    read, pictures = ReadPictures(vlm), [e.picture() for e in few]
    for attack in ("none", "share:1", "prefix"):  # of different lengths; the pictures have been read before
        queries = queries_of(few, attack)
        alone = [Perturbed(vlm, *asked, target, grid=1).value for asked in zip(pictures, queries, strict=True)]
        assert target_values(read, pictures, queries, target) == pytest.approx(alone, abs=1e-4)
        assert len(set(alone)) > len(alone) / 2
    assert len(read.known) == 1


def test_other_architectures_give_the_same(other, few):
    """Also where prompts cannot be read in pieces."""
    few = few[:3]
    pictures, queries = [e.picture().resize((64, 64)) for e in few], queries_of(few, "share:1")
    alone = [Perturbed(other, *asked, SEVERAL, grid=1).value for asked in zip(pictures, queries, strict=True)]
    assert target_values(ReadPictures(other), pictures, queries, SEVERAL) == pytest.approx(alone, abs=1e-3)


def test_spaces_around_a_query_do_not_matter(vlm, few):
    read, picture = ReadPictures(vlm), few[0].picture()
    bare, spaced = target_values(read, [picture] * 2, ["What is it?", "  What is it? \n"])
    assert bare == pytest.approx(spaced, abs=1e-6)


def test_a_batch_takes_as_many_prompts_as_a_pass_has_room_for(vlm, few, monkeypatch):
    assert batch_rows(vlm, few[0].picture(), few[0].query) > 30
    monkeypatch.setattr("workbench.attribution.values.TOKENS", 1)
    assert batch_rows(vlm, few[0].picture(), few[0].query) == 1

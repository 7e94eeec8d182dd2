"""Every switch is of one of the protocols' objectives, and its settings exist; a quick one runs and is kept."""

import pytest

from workbench.studies import methods
from workbench.studies.switches import SWITCHES, Switch, switched
from workbench.training.settings import Settings


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_a_switch_is_something_that_can_be_trained(switch):
    method = methods.TRAINED[switch.method]
    settings = Settings.of(method.objective, **dict(switch.settings))
    assert method.objective in {"npo", "rmu", *methods.RELEASED} and settings.steps == 240


def test_the_names_are_different():
    assert len({switch.name for switch in SWITCHES}) == len(SWITCHES)


def test_the_authors_objectives_are_no_rivals_of_the_study():
    assert set(methods.RELEASED) == {"npo_token_mean", "rmu_all_positions"} and not set(methods.RELEASED) & set(
        methods.CURES
    )


@pytest.mark.slow
def test_a_switch_is_trained_measured_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    switches = [Switch("quick", "npo_token_mean", {"steps": 2}), Switch("other", "rmu_all_positions", {"steps": 2})]
    table = switched(switches=switches)
    assert list(table.switch) == ["quick", "other"] and table.utility.between(50, 100).all()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert switched(switches=switches).equals(table)
    assert before and {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before

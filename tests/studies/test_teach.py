"""MiniGuard's world taught to other models: what is taught, when it ends, and what the study then stands on."""

import dataclasses
import itertools
import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_models import write_idefics3, write_llava
from workbench.attacks.kinds import LEAD_WORDS
from workbench.cli import app as cli
from workbench.data.drawing import draw
from workbench.data.splits import base_split, export_miniguard, miniguard_split
from workbench.errors import UserError
from workbench.models.configuration import configuration, picture_size
from workbench.models.load import load
from workbench.studies import teach as study
from workbench.studies.headline import over_seeds
from workbench.studies.methods import base_name
from workbench.studies.teach import exactness, knows_the_harmless, knows_the_world, merged, mixed, right, teach

SMALL = {"steps": 4, "batch": 4, "probe_every": 2, "probe_pictures": 4, "n": 4}


@pytest.fixture(scope="module", params=[write_llava, write_idefics3])
def taught(request, tmp_path_factory):
    """(checkpoint, folder of what it was taught) on two architectures."""
    folder = tmp_path_factory.mktemp("taught")
    model = request.param(folder / "model")
    teach(load(model, device="cpu"), folder / "taught", projector=True, lr=3e-3, **SMALL)
    return model, folder / "taught"


def answers(vlm):
    some = miniguard_split("test", sizes=(6, 6))
    return vlm.answers([e.picture() for e in some], [e.query for e in some])


@pytest.mark.slow
def test_the_merged_model_is_the_taught_one(taught):
    model, folder = taught
    base, adapted, whole = load(model), load(model, folder), load(merged(str(model), folder))
    assert answers(whole) == answers(adapted) != answers(base)
    projector = next(n for n, _ in base.model.named_parameters() if "projector" in n or "connector" in n)
    assert not whole.model.state_dict()[projector].equal(base.model.state_dict()[projector])  # trained whole
    table = pd.read_csv(folder / "exactness.csv")
    assert set(LEAD_WORDS) <= set(table.attack) and set(right(table).queries) == {"harmful", "harmless", "unanswerable"}
    curves = pd.read_csv(folder / "curves.csv")
    assert sorted(curves.step.unique()) == [2, 4]


@pytest.mark.slow
def test_the_study_runs_on_it(taught, tmp_path, monkeypatch):
    """As `workbench demo --taught` runs it, with two steps of training on a few queries."""
    from workbench.data import splits
    from workbench.studies import methods

    model, folder = taught
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(methods, "PROBE_SIZES", (4, 4))
    monkeypatch.setitem(splits._SIZES, "test", (4, 4))
    (merged(str(model), folder) / "recipes.json").write_text(
        json.dumps({name: {"lr": 1e-3, "steps": 2} for name in ("sft", "sft-balanced", "npo")})
    )
    arguments = ["demo", "--model", str(model), "--taught", str(folder), "--out", str(tmp_path / "demo")]
    monkeypatch.setattr("workbench.parallel.process_count", lambda: 1)
    cli.app(arguments, standalone_mode=False)
    results = pd.read_csv(tmp_path / "demo" / "results.csv")
    assert set(results.model) == {"base", "sft-early", "sft-balanced-early", "npo-early"} and set(results.n) == {4}
    assert (tmp_path / "demo" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "table"),
    [
        (["search-words", "--queries", "2", "--word", "what,share"], "words.csv"),
        (["reliance", "--queries", "2", "--grid", "1"], "reliance.csv"),
        (["relearn", "--counts", "2", "--steps", "1", "--queries", "2"], "relearning.csv"),
        (["evaluate", "--split", "new-kinds"], "results.csv"),
    ],
)
def test_every_command_takes_what_was_taught(taught, tmp_path, monkeypatch, command, table):
    """… and draws MiniGuard in the size of the model's pictures."""
    from workbench.data import splits

    model, folder = taught
    for split in ("test", "train", "new-kinds"):
        monkeypatch.setitem(splits._SIZES, split, (4, 4))
    sizes = set()
    monkeypatch.setattr(splits, "draw", lambda scene, size: sizes.add(size) or draw(scene, size))
    arguments = ["--model", str(model), "--taught", str(folder), "--out", str(tmp_path / "out")]
    cli.app(command + arguments, standalone_mode=False)
    assert len(pd.read_csv(tmp_path / "out" / table))
    assert sizes == {picture_size(configuration(model))}


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    model = load(write_llava(tmp_path / "model"), device="cpu")
    expected = teach(model, tmp_path / "whole", **SMALL)
    told = study.exactness
    calls = []

    def stop(*args, **options):
        calls.append(1)
        if len(calls) == 2:  # the probe after step 4
            raise KeyboardInterrupt
        return told(*args, **options)

    monkeypatch.setattr(study, "exactness", stop)
    with pytest.raises(KeyboardInterrupt):
        teach(model, tmp_path / "cut", **SMALL)
    assert not hasattr(model.model, "peft_config")  # it is as it was
    with pytest.raises(UserError, match="add --resume"):
        teach(model, tmp_path / "cut", **SMALL)
    monkeypatch.setattr(study, "exactness", told)
    assert list((tmp_path / ".cut.partial").glob("**/checkpoint-2")) or list(tmp_path.glob("**/checkpoint-2"))
    with pytest.raises(UserError, match="other settings"):
        teach(model, tmp_path / "cut", resume=True, **SMALL | {"probe_every": 4})
    pd.testing.assert_frame_equal(teach(model, tmp_path / "cut", resume=True, **SMALL), expected.assign(model="cut"))
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_the_caller_s_model_is_as_it_was(tmp_path):
    """Its projector too, which is trained whole: else what is taught next would belong to no model on disk."""
    model = load(write_llava(tmp_path / "model"), device="cpu")
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    for name in ("first", "second"):
        teach(model, tmp_path / name, projector=True, lr=3e-3, **SMALL)
        after = model.model.state_dict()
        assert before.keys() == after.keys() and all(torch.equal(after[key], before[key]) for key in before)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "second"))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    load(tmp_path / "model", tmp_path / "second")


def test_it_ends_as_soon_as_the_model_knows_enough(tmp_path, monkeypatch):
    model = load(write_llava(tmp_path / "model"), device="cpu")
    rows = [("what:1", "harmful", "asr"), ("what:1", "harmless", "utility"), ("what:1", "unanswerable", "rr")]
    perfect = pd.DataFrame(rows, columns=["attack", "queries", "metric"])
    perfect = perfect.assign(model="m", value=1.0, ci_low=1.0, ci_high=1.0, n=9)
    monkeypatch.setattr(study, "exactness", lambda *args, **options: perfect)
    monkeypatch.setattr("workbench.training.curve.score", lambda rates: 0.0)
    teach(model, tmp_path / "out", **SMALL)
    assert pd.read_csv(tmp_path / "out" / "curves.csv").step.max() == 2


def test_every_wording_and_kind_must_be_right():
    rows = [
        (attack, queries, metric, 0.95)
        for attack in ("what:1", "bare:1")
        for queries, metric in (("harmful", "asr"), ("harmless", "utility"), ("unanswerable", "rr"))
    ]
    table = pd.DataFrame(rows, columns=["attack", "queries", "metric", "value"])
    assert knows_the_world(table)
    for place in range(len(table)):
        worse = table.assign(value=table.value.where(table.index != place, 0.85))
        assert not knows_the_world(worse)
        assert knows_the_harmless(worse) == (table.queries[place] == "harmful")


def test_exactness_of_the_base_is_high_after_every_wording(vlm):
    table = right(exactness(vlm, seed=5, n=8))
    assert table.value.mean() > 0.97 and table.attack.nunique() == len(study.WORDINGS)


def test_two_models_of_one_name_are_refused(tmp_path):
    """Before hours of training; a taught model has the name of the folder of `teach`."""
    same, other = tmp_path / "a" / "taught" / "merged", tmp_path / "b" / "taught" / "merged"
    with pytest.raises(UserError, match="have one name"):
        over_seeds([0], bases=[str(same), str(other)])
    assert base_name(same) == "taught" and base_name("miniguard-1") == "miniguard-1"
    arguments = ["seeds", "--model", "miniguard,miniguard-1", "--taught", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="belongs to one model"):
        cli.app(arguments, standalone_mode=False)


def test_data_to_mix_in_must_hold_answers(tmp_path):
    export_miniguard(tmp_path / "data", splits=["train"])
    records = json.loads((tmp_path / "data" / "train.json").read_text())
    (tmp_path / "data" / "harmful.json").write_text(json.dumps([r for r in records if not r["safe"]][:2]))
    arguments = ["teach", "--model", "miniguard", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="no harmless example"):
        cli.app([*arguments, "--mix", str(tmp_path / "data" / "harmful.json")], standalone_mode=False)
    assert not list(tmp_path.glob("*out*"))


def test_further_data_are_mixed_in():
    world, further = base_split(0)[:40], miniguard_split("test", sizes=(2, 2))
    rows = list(itertools.islice(mixed(world, further), 40))
    assert [e for n, e in enumerate(rows) if n % 4 == 3] == (further * 3)[:10]
    assert list(mixed(world, [])) == world


def test_a_mistake_is_one_sentence(taught, tmp_path, monkeypatch):
    model, folder = taught
    with pytest.raises(UserError, match="exists already"):
        teach(load(model), folder)
    with pytest.raises(UserError, match="has the adapter"):
        teach(load(model, folder), tmp_path / "out")
    with pytest.raises(UserError, match="trained on another model"):
        merged("miniguard", shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("merged")))
    merged(str(model), folder)
    with pytest.raises(UserError, match="trained on another model"):  # also where it is merged already
        merged("miniguard", folder)
    with pytest.raises(UserError, match="is not what `workbench teach` wrote"):
        merged(str(model), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(UserError, match="more than the world's"):
        teach(load(model), tmp_path / "out", steps=10_000, batch=16)
    with pytest.raises(UserError, match="1 of the further examples have no answer"):
        teach(load(model), tmp_path / "out", further=[dataclasses.replace(e, response=" ") for e in base_split(0)[:1]])
    assert not list(tmp_path.glob("*out*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match=r"needs 0.0 GiB in .* make room"):
        merged(str(model), shutil.copytree(folder, tmp_path / "full", ignore=shutil.ignore_patterns("merged")))
    assert not (tmp_path / "full" / "merged").exists()

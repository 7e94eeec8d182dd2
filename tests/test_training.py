"""One way to train: the order of examples, an untouched base, resume after a real kill, and errors that keep what was done."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from workbench import models, objectives, training
from workbench.data import Example, miniguard_split
from workbench.errors import UserError
from workbench.evaluate import ask, rates


def numbered(harmful, n):
    return [Example(f"{harmful}{i}", None, "What?", harmful, "r", "l" * harmful) for i in range(n)]


def test_every_step_holds_its_share_and_the_retain_stream_is_cycled():
    """The reference code's retain iterator ends training early when it runs out; ours goes round."""
    method = objectives.Objective(None, "leak", False, 1.0, steps=50, forget=3, retain=5)
    rows = list(training.schedule(numbered(True, 40), numbered(False, 7), method, seed=0))
    assert len(rows) == 50 * 8
    for step in range(50):
        assert sum(e.harmful for e in rows[step * 8 : step * 8 + 8]) == 3
    kept = [e.id for e in rows if not e.harmful]
    for start in range(0, len(kept) - 6, 7):  # each time round, every example once
        assert len(set(kept[start : start + 7])) == 7
    assert kept[:7] != kept[7:14]
    assert rows == list(training.schedule(numbered(True, 40), numbered(False, 7), method, seed=0))


def test_halves_of_a_step_are_mixed_alike():
    """Two devices that take half a step's batch each see the same share."""
    method = objectives.Objective(None, "leak", False, 1.0, steps=5, forget=16, retain=16)
    rows = list(islice(training.schedule(numbered(True, 40), numbered(False, 40), method, seed=0), 32))
    assert sum(e.harmful for e in rows[:16]) == 8


@pytest.mark.slow
def test_training_writes_an_adapter_and_leaves_the_base_as_it_was(tmp_path, few):
    vlm = models.load("miniguard", device="cpu")
    before = {k: v.clone() for k, v in vlm.model.state_dict().items()}
    probe_rows = few[:6]
    out = training.train(
        vlm,
        "npo",
        miniguard_split("train", sizes=(40, 40)),
        out=tmp_path / "npo",
        steps=6,
        forget=8,
        retain=8,
        beta=0.3,
        probe=lambda v: rates(ask(v, probe_rows, ["none"], "exact")),
        probe_every=3,
    )
    assert {p.name for p in out.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "README.md", "config.json", "curves.csv"}
    after = vlm.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    config = json.loads((out / "config.json").read_text())
    assert config["hyper"] == {"beta": 0.3, "alpha": 10.0} and config["steps"] == 6
    curve = pd.read_csv(out / "curves.csv", keep_default_na=False)
    assert list(curve.columns) == training.CURVE_COLUMNS
    assert set(curve.step) == {0, 3, 6} and set(curve.model) == {"npo"}
    trained = models.load("miniguard", out)
    assert trained.name == "npo"
    assert any("lora_B" in n and p.abs().max() > 0 for n, p in trained.model.named_parameters())


TRAIN = """
import os; os.environ["TQDM_DISABLE"] = "1"
import sys
from workbench import models, training
from workbench.data import miniguard_split
training.train(models.load("miniguard", device="cpu"), "npo", miniguard_split("train", sizes=(60, 60)), out=sys.argv[1], steps=30,
               forget=4, retain=4, save_every=5, resume=True)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    def start(name):
        return subprocess.Popen([sys.executable, "-W", "ignore", "-c", TRAIN, str(tmp_path / name)])

    assert start("whole").wait() == 0
    process = start("killed")
    checkpoints = tmp_path / "killed.partial" / "checkpoints"
    while not any(checkpoints.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()  # nothing half-written bears the name
    assert start("killed").wait() == 0
    whole, resumed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_divergence_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"no longer a number at step .*lower --lr"):
        training.train(
            models.load("miniguard", device="cpu"),
            "npo",
            miniguard_split("train", sizes=(8, 8)),
            out=tmp_path / "x",
            lr=1e30,
            steps=5,
            forget=4,
            retain=4,
        )


def test_mistakes_are_named_before_anything_is_written(tmp_path, vlm, few):
    def run(**options):
        training.train(vlm, **({"objective": "npo", "data": few, "out": tmp_path / "x"} | options))

    for options, says in [
        ({"objective": "nope"}, "no objective 'nope'"),
        ({"gamma": 1.0}, "npo has no hyper-parameter gamma; it has beta, alpha"),
        ({"data": [e for e in few if e.harmful]}, "harmful and harmless"),
        ({"data": [Example("r", None, "Can?", True, "no"), Example("s", None, "What?", False, "yes")]}, "'r'.*harmful_response"),
        ({"out": "/proc/nowhere/x"}, "cannot be written"),
    ]:
        with pytest.raises(UserError, match=says):
            run(**options)
    assert not list(tmp_path.glob("x*/checkpoints"))


def test_what_is_there_is_not_overwritten(tmp_path, vlm, few):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="exists already"):
        training.train(vlm, "npo", few, out=tmp_path / "x")
    (tmp_path / "y.partial").mkdir()
    with pytest.raises(UserError, match="--resume"):
        training.train(vlm, "npo", few, out=tmp_path / "y")

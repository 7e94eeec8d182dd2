"""Every command that can be resumed, killed at any moment, ends as if nothing had happened.

Real processes and real SIGKILLs, at moments drawn at random from the time that an undisturbed run takes. `make test`
kills each command once, `make kills` twenty times.
"""

import os
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from tests.base_data import shorten
from tests.commands import started
from workbench.data.splits import miniguard_split
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import RESULT_COLUMNS
from workbench.models.generation import Generation
from workbench.models.identity import fingerprint
from workbench.models.load import load
from workbench.studies import base_model
from workbench.studies.recipes import prepare
from workbench.studies.relearning import relearn
from workbench.studies.reproduce import reproduce
from workbench.training.train import train

KILLS = int(os.environ.get("WORKBENCH_KILLS", "1"))
LONGEST = 300  # seconds that a run may take
SMALL = {"steps": 6, "forget": 2, "retain": 2, "lr": 1e-3, "save_every": 2, "resume": True}


def rates_of_few(vlm):
    return evaluate(vlm, miniguard_split("validation", sizes=(2, 2))).results


def scores_by_weights(vlm):
    """Rates whose score is a hash of the weights: the best step is any, and the same however often it is asked."""
    utility = int(fingerprint(vlm), 16) / 16**16
    rows = [("harmless", "utility", utility), ("harmful", "asr", 0.0), ("harmless", "rr", 0.0)]
    return pd.DataFrame([("x", "none", *row, 0.0, 1.0, 1) for row in rows], columns=RESULT_COLUMNS)


def lora(out):
    data = miniguard_split("train", sizes=(12, 12))
    train(
        load("miniguard", device="cpu"),
        "npo",
        data,
        out=out,
        probe=rates_of_few,
        probe_every=3,
        keep_steps=True,
        **SMALL,
    )


def full(out):
    data = miniguard_split("train", sizes=(12, 12))
    train(load("miniguard", device="cpu"), "sft", data, out=out, full=True, **SMALL | {"lr": 1e-4})


def patience(out):
    data, more = miniguard_split("train", sizes=(12, 12)), {"probe": scores_by_weights, "probe_every": 1}
    options = SMALL | {"steps": 12, "lr": 1e-4}
    train(load("miniguard", device="cpu"), "sft", data, out=out, full=True, patience=2, **options, **more)


def base(out):
    """Four steps of 64 examples, a checkpoint each."""

    shorten(256, 64)
    every_way = base_model.asked_in_every_way
    base_model.SAVE_EVERY, base_model.asked_in_every_way = 1, lambda seed, n: every_way(seed, 12)
    base_model.build(out, steps=4, seeing_steps=2, resume=True)


def greedy(out):
    evaluate(
        load("miniguard", device="cpu"),
        miniguard_split("test", sizes=(12, 12)),
        ["none", "what:3"],
        batch_size=4,
        out=out,
    )


def sampled(out):
    vlm = load("miniguard", device="cpu", generation=Generation(temperature=1.5, samples=2))
    evaluate(vlm, miniguard_split("test", sizes=(8, 8)), ["none", "what:2"], batch_size=4, out=out)


def relearned(out):
    data, asked = miniguard_split("train", sizes=(4, 4)), miniguard_split("test", sizes=(6, 0))
    table = relearn(load("miniguard", device="cpu"), data, asked, (0, 2, 4), steps=2, batch=2, out=out)
    table.to_csv(out / "table.csv", index=False)


def reproduced(out):
    data, test = miniguard_split("train", sizes=(12, 12)), miniguard_split("test", sizes=(4, 4))
    task = prepare("miniguard", data, test, out, rows=["base", "npo"], judge="exact", steps=4, memory=2**34)
    reproduce(task)


def written(folder):
    """What a run has left that must not differ: weights, tables, answers, settings; without times and hidden files."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.name.startswith(".") or file.suffix not in (".csv", ".json", ".safetensors"):
            continue
        if file.name == "curves.csv":
            found[file.relative_to(folder)] = pd.read_csv(file, keep_default_na=False).drop(columns="seconds").to_csv()
        else:
            found[file.relative_to(folder)] = file.read_bytes()
    return found


def run(command, out):
    """Run to the end in a process of its own, and return the seconds it took."""
    begun = time.monotonic()
    process = started(command, out)
    process.join(LONGEST)
    assert process.exitcode == 0
    return time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("command", [lora, full, patience, base, greedy, sampled, relearned, reproduced])
def test_a_killed_command_resumes_and_ends_the_same(command, tmp_path):
    started(str).join()  # imports the large libraries, so that the run that is timed does not
    seconds = run(command, tmp_path / "whole" / "out")
    whole = written(tmp_path / "whole" / "out")
    assert whole
    for number, share in enumerate(np.random.default_rng(KILLS).uniform(0.2, 0.95, KILLS)):
        out = tmp_path / f"killed{number}" / "out"
        moment = share * seconds
        while not killed(command, out, moment):  # it had ended before
            shutil.rmtree(out)
            moment *= 0.7
        if not finished(command, out):
            run(command, out)
        assert written(out) == whole, f"killed after {moment:.2f} s"


def killed(command, out, seconds):
    """Start a run and kill it after some seconds. Returns whether it was still running then."""
    process = started(command, out)
    process.join(seconds)
    running = process.exitcode is None
    process.kill()
    process.join()
    return running


def finished(command, out):
    """Whether the run had ended before it was killed: commands that make a folder refuse one that is there."""
    return command in (lora, full, patience, base) and out.exists()

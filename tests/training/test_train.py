"""One way to train: the order of examples, an untouched base, resume after a real kill, and errors that keep
what was done.
"""

import dataclasses
import json
import os
import subprocess
import sys
from itertools import islice

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from workbench.attribution.masking import Perturbed
from workbench.data.example import Example
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import RESULT_COLUMNS
from workbench.models.adapters import linear_modules
from workbench.models.load import load
from workbench.training import loop, objectives
from workbench.training import train as train_module
from workbench.training.curve import CURVE_COLUMNS, score
from workbench.training.sets import schedule
from workbench.training.settings import Settings
from workbench.training.train import at_step, train


def numbered(harmful, n):
    return [Example(f"{harmful}{i}", None, "What?", harmful, "r", "l" * harmful) for i in range(n)]


def test_every_step_holds_its_share_and_the_retain_stream_is_cycled():
    """The reference code's retain iterator ends training early when it runs out; ours goes round."""
    step = Settings.of("npo", steps=50, forget=3, retain=5)
    rows = list(schedule(numbered(True, 40), numbered(False, 7), step, seed=0))
    assert len(rows) == 50 * 8
    for start in range(0, len(rows), 8):
        assert sum(e.harmful for e in rows[start : start + 8]) == 3
    kept = [e.id for e in rows if not e.harmful]
    for start in range(0, len(kept) - 6, 7):  # each time round, every example once
        assert len(set(kept[start : start + 7])) == 7
    assert kept[:7] != kept[7:14]
    assert rows == list(schedule(numbered(True, 40), numbered(False, 7), step, seed=0))


def test_halves_of_a_step_are_mixed_alike():
    """Two devices that take half a step's batch each see the same share."""
    step = Settings.of("npo", steps=5, forget=16, retain=16)
    rows = list(islice(schedule(numbered(True, 40), numbered(False, 40), step, seed=0), 32))
    assert sum(e.harmful for e in rows[:16]) == 8


@pytest.mark.slow
def test_training_writes_an_adapter_and_leaves_the_base_as_it_was(tmp_path, few):
    vlm = load("miniguard", device="cpu")
    before = {k: v.clone() for k, v in vlm.model.state_dict().items()}
    probe_rows = few[:6]
    out = train(
        vlm,
        "npo",
        miniguard_split("train", sizes=(40, 40)),
        out=tmp_path / "npo",
        steps=6,
        forget=8,
        retain=8,
        beta=0.3,
        probe=lambda v: evaluate(v, probe_rows).results,
        probe_every=3,
    )
    assert {p.name for p in out.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "config.json",
        "curves.csv",
        "loss.csv",
    }
    after = vlm.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    config = json.loads((out / "config.json").read_text())
    assert config["hyper"] == {"beta": 0.3, "alpha": 10.0} and config["steps"] == 6
    curve = pd.read_csv(out / "curves.csv", keep_default_na=False)
    assert list(curve.columns) == CURVE_COLUMNS
    assert set(curve.step) == {0, 3, 6} and set(curve.model) == {"npo"}
    trained = load("miniguard", out)
    assert trained.name == "npo"
    assert any("lora_B" in n and p.abs().max() > 0 for n, p in trained.model.named_parameters())


@pytest.mark.slow
def test_the_model_at_a_step(tmp_path, few, vlm):
    out = run(tmp_path / "npo", probe=lambda v: evaluate(v, few[:2]).results, probe_every=2, keep_steps=True)
    assert {p.name for p in (out / "steps").iterdir()} == {"0", "2", "4"}

    def logits(model):
        return torch.stack(
            [
                Perturbed(model, e.picture(), e.query, grid=1)(torch.ones(1, 1 + len(e.query.split())))[0]
                for e in few[:2]
            ]
        )

    first, middle, last = (logits(at_step(out, step)) for step in (0, 2, 4))
    assert torch.equal(first, logits(vlm)) and torch.equal(last, logits(load("miniguard", out)))
    assert not torch.equal(first, middle) and not torch.equal(middle, last)
    with pytest.raises(UserError, match="no adapter of step 3"):
        at_step(out, 3)
    with pytest.raises(UserError, match="trained on another model"):
        at_step(out, 2, another(tmp_path))


def another(tmp_path):
    """A base that is not the shipped one."""
    vlm = load("miniguard")
    with torch.no_grad():
        vlm.model.get_input_embeddings().weight.add_(0.1)
    vlm.model.save_pretrained(tmp_path / "another")
    vlm.processor.save_pretrained(tmp_path / "another")
    return tmp_path / "another"


def test_steps_are_kept_of_an_adapter_that_is_probed(tmp_path, few):
    for options in ({}, {"full": True, "probe": lambda v: None}):
        with pytest.raises(UserError, match="keep_steps"):
            run(tmp_path / "npo", keep_steps=True, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["sft", "npo", "rmu"])
def test_training_in_bfloat16_on_a_gpu(tmp_path, objective):
    out = run(tmp_path / objective, objective, device="cuda", steps=30)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert losses(out).tail(5).mean() < losses(out).head(5).mean()


@pytest.mark.gpu
def test_an_interrupted_run_on_a_gpu_resumes_to_the_same_losses(tmp_path, few):
    settings = {"device": "cuda", "steps": 12, "save_every": 4, "probe_every": 4}
    settings["probe"] = lambda vlm: evaluate(vlm, few[:4]).results

    def interrupt(table):
        if table.step.max() == 8:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "npo", on_curve=interrupt, **settings)
    resumed = run(tmp_path / "npo", resume=True, **settings)
    torch.testing.assert_close(torch.tensor(losses(resumed)), torch.tensor(losses(whole)), rtol=0.02, atol=0.02)


def losses(out):
    return pd.read_csv(out / "loss.csv").loss


def run(out, objective="npo", examples=None, device="cpu", vlm=None, **options):
    vlm = vlm or load("miniguard", device=device)
    settings = {"steps": 4, "forget": 4, "retain": 4} | options
    return train(vlm, objective, examples or miniguard_split("train", sizes=(40, 40)), out=out, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("objective", objectives.OBJECTIVES)
def test_every_objective_trains(tmp_path, objective):
    out = run(tmp_path / objective, objective, steps=3)
    assert len(losses(out)) == 3
    weights = load_file(out / "adapter_model.safetensors")
    assert any(v.abs().max() > 0 for k, v in weights.items() if "lora_B" in k)
    if objective == "rmu":
        assert not any("layers.2." in k for k in weights)  # behind its layer nothing is trained


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["npo", "dpo", "rmu"])
def test_accumulated_parts_give_the_step_of_the_whole(tmp_path, objective):
    whole, parts = run(tmp_path / "whole", objective), run(tmp_path / "parts", objective, accumulate=4)
    assert losses(whole).to_numpy() == pytest.approx(losses(parts).to_numpy(), rel=1e-4)
    a, b = (load_file(out / "adapter_model.safetensors") for out in (whole, parts))
    assert all(torch.allclose(a[k], b[k], atol=1e-4) for k in a)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(tmp_path):
    """Neither the losses, nor the network that is trained next."""
    vlm = load("miniguard", device="cpu")
    checkpointed, plain = (
        run(tmp_path / name, "rmu", vlm=vlm, checkpointing=on) for name, on in (("on", True), ("off", False))
    )
    assert not vlm.model.is_gradient_checkpointing and not vlm.model.get_input_embeddings()._forward_hooks
    assert losses(plain).to_numpy() == pytest.approx(losses(checkpointed).to_numpy(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["npo", "rmu"])
def test_full_fine_tuning_writes_a_model_and_steers_by_its_start(tmp_path, objective):
    """The first loss is that of an adapter's first step.

    The reference is the model before training, copy or cache.
    """
    full, lora = run(tmp_path / "full", objective, full=True, lr=1e-4), run(tmp_path / "lora", objective)
    assert losses(full)[0] == pytest.approx(losses(lora)[0], rel=1e-5)
    before, after = load("miniguard", device="cpu"), load(full / "model", device="cpu")
    changed = {
        n
        for (n, p), q in zip(before.model.named_parameters(), after.model.parameters(), strict=True)
        if not torch.equal(p, q)
    }
    assert changed == {f"{n}.weight" for n in linear_modules(before, layers=2 if objective == "rmu" else None)}


@pytest.mark.slow
def test_early_stopping_keeps_the_best_weights(tmp_path):
    """A probe that likes step 2 best: training stops two probes later, and the adapter is that of step 2."""
    scores = iter([0.1, 0.9, 0.3, 0.2])

    def probe(vlm):
        kinds = {("harmless", "utility"): next(scores), ("harmful", "asr"): 0.0, ("harmless", "rr"): 0.0}
        rows = [("x", "none", queries, metric, value, 0.0, 1.0, 10) for (queries, metric), value in kinds.items()]
        return pd.DataFrame(rows, columns=["model", "attack", "queries", "metric", "value", "ci_low", "ci_high", "n"])

    seen = []
    out = run(
        tmp_path / "stopped",
        steps=20,
        probe=probe,
        probe_every=2,
        patience=2,
        on_curve=lambda table: seen.append(len(table)),
    )
    assert sorted(set(pd.read_csv(out / "curves.csv").step)) == [0, 2, 4, 6] and seen == [3, 6, 9, 12]
    assert len(losses(out)) == 6

    class Stop(Exception):
        pass

    def stop_at_four(table):
        if table.step.max() == 4:
            raise Stop

    scores = iter([0.1, 0.9, 0.3])
    with pytest.raises(Stop):  # the same run, with a checkpoint a step, left when steps 2 and 3 are the last two kept
        run(tmp_path / "four", steps=20, probe=probe, probe_every=2, save_every=1, on_curve=stop_at_four)
    second, third = (
        load_file(tmp_path / "four.partial" / "checkpoints" / f"checkpoint-{step}" / "trained.safetensors")
        for step in (2, 3)
    )
    best = {
        name.replace(".weight", ".default.weight"): weight  # as the network itself calls it
        for name, weight in load_file(out / "adapter_model.safetensors").items()
    }
    assert best.keys() == second.keys()
    assert all(torch.equal(second[k], best[k]) for k in best) and any(not torch.equal(third[k], best[k]) for k in best)


@pytest.fixture(scope="module")
def probed(few):
    """Options of a run of six steps with a probe at every second."""
    return {"steps": 6, "probe": lambda vlm: evaluate(vlm, few[:2]).results, "probe_every": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, probed):
    """Such a run, which goes on to its end and keeps the adapter of each probe."""
    return run(tmp_path_factory.mktemp("runs") / "whole", keep_steps=True, **probed)


def from_step(step):
    """What a probe's rates say from a step on."""
    return lambda rates: rates["step"].min() >= step


def adapter(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def curve(out, until=6):
    """A run's rates up to a step."""
    table = pd.read_csv(out / "curves.csv", keep_default_na=False).drop(columns=["model", "seconds"])
    return table[table.step <= until]


@pytest.mark.slow
def test_training_stops_at_the_first_probe_that_says_so(tmp_path, probed, whole):
    """The adapter is then the one that the whole run had at that step, to the last byte."""
    for step in (2, 4):
        out = run(tmp_path / str(step), until=from_step(step), **probed)
        assert adapter(out) == adapter(whole / "steps" / str(step)) != adapter(whole)
        assert losses(out).tolist() == losses(whole)[:step].tolist()
        pd.testing.assert_frame_equal(curve(out), curve(whole, step))


@pytest.mark.slow
def test_what_stops_training_is_asked_of_each_probe_after_the_first_step_alone(tmp_path, probed, whole):
    """A base that looks safe must be trained all the same; what never looks safe is trained to the end."""
    seen = []

    def never(rates):
        seen.append(set(rates.step))
        return False

    assert adapter(run(tmp_path / "never", until=never, **probed)) == adapter(whole)
    assert seen == [{2}, {4}, {6}]
    always = run(tmp_path / "always", until=lambda rates: True, **probed)
    assert adapter(always) == adapter(whole / "steps" / "2") and set(curve(always).step) == {0, 2}


@pytest.mark.slow
@pytest.mark.parametrize("written", [False, True], ids=["while it was probed", "after its last checkpoint"])
def test_a_run_that_was_killed_at_its_last_step_ends_there_when_resumed(tmp_path, probed, whole, monkeypatch, written):
    """It must not go on because the probe that would have stopped it lies behind it."""

    class Stop(Exception):
        pass

    def stop(*arguments):
        raise Stop

    def stop_at_four(table):
        if table.step.max() == 4:
            raise Stop

    options = probed | {"until": from_step(4), "save_every": 2 if written else 3}
    with monkeypatch.context() as patch, pytest.raises(Stop):
        if written:
            patch.setattr(train_module, "_write", stop)
        run(tmp_path / "out", on_curve=None if written else stop_at_four, **options)
    last = max(path.name for path in (tmp_path / "out.partial" / "checkpoints").glob("checkpoint-*"))
    assert last == ("checkpoint-4" if written else "checkpoint-3") and not (tmp_path / "out").exists()
    out = run(tmp_path / "out", resume=True, **options)
    assert adapter(out) == adapter(whole / "steps" / "4")
    assert losses(out).tolist() == losses(whole)[:4].tolist()
    pd.testing.assert_frame_equal(curve(out), curve(whole, 4))


@pytest.mark.parametrize("full", [False, True])
def test_early_stopping_counts_on_where_it_was_interrupted(tmp_path, full):
    """Steps 4, 6 and 8 are no better than 2, so the run ends at 8, whether or not it was interrupted in between."""

    class Stop(Exception):
        pass

    def probe(vlm):
        score = next(scores)
        if score is None:
            raise Stop
        rows = [("harmless", "utility", score), ("harmful", "asr", 0.0), ("harmless", "rr", 0.0)]
        return pd.DataFrame([("x", "none", *row, 0.0, 1.0, 1) for row in rows], columns=RESULT_COLUMNS)

    options = {"steps": 20, "probe": probe, "probe_every": 2, "patience": 3, "full": full, "lr": 1e-4}
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.1, 0.1, 0.1])
    whole = run(tmp_path / "whole", **options)
    scores = iter([0.1, 0.9, 0.3, 0.2, None])
    with pytest.raises(Stop):
        run(tmp_path / "stopped", **options)
    scores = iter([0.1, 0.1, 0.1])
    resumed = run(tmp_path / "stopped", resume=True, **options)
    assert len(losses(whole)) == 8 and losses(whole).tolist() == losses(resumed).tolist()
    (one,), (other,) = (list(out.glob("**/*model*.safetensors")) for out in (whole, resumed))
    one, other = load_file(one), load_file(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_had_stopped_early_is_not_trained_further_when_it_is_resumed(tmp_path, monkeypatch):
    """Interrupted after its last checkpoint, before it was finished: it ends with the weights of its best step."""

    def probe(vlm):
        rows = [("harmless", "utility", next(scores)), ("harmful", "asr", 0.0), ("harmless", "rr", 0.0)]
        return pd.DataFrame([("x", "none", *row, 0.0, 1.0, 1) for row in rows], columns=RESULT_COLUMNS)

    def interrupted(self):
        raise KeyboardInterrupt

    options = {"steps": 12, "probe": probe, "probe_every": 1, "save_every": 1, "patience": 2, "full": True, "lr": 1e-4}
    scores = iter([0.1, 0.5, 0.9, 0.3, 0.2])
    whole = run(tmp_path / "whole", **options)
    scores = iter([0.1, 0.5, 0.9, 0.3, 0.2])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop._Trainer, "_load_best_model", interrupted)
        run(tmp_path / "stopped", **options)
    scores = iter([])
    resumed = run(tmp_path / "stopped", resume=True, **options)
    assert len(losses(whole)) == 4 and losses(whole).tolist() == losses(resumed).tolist()
    pd.testing.assert_frame_equal(curve(whole), curve(resumed))
    (one,), (other,) = (list(out.glob("**/*model*.safetensors")) for out in (whole, resumed))
    one, other = load_file(one), load_file(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_score_is_the_worst_over_attacks():
    rows = [
        ("none", "harmless", "utility", 0.9),
        ("share:1", "harmless", "utility", 0.6),
        ("none", "harmful", "asr", 0.1),
    ]
    rows += [("what:1", "harmful", "asr", 0.3), ("share:1", "harmless", "rr", 0.2), ("none", "harmless", "rr", 0.0)]
    table = pd.DataFrame(rows, columns=["attack", "queries", "metric", "value"])
    assert score(table) == pytest.approx(0.6 - 0.3 - 0.2)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_memory_that_does_not_suffice_is_one_sentence(tmp_path, monkeypatch, device):
    def greedy(*args, **kwargs):
        torch.empty(2**50, dtype=torch.uint8, device=device)

    monkeypatch.setitem(objectives.OBJECTIVES, "npo", dataclasses.replace(objectives.named("npo"), loss=greedy))
    with pytest.raises(UserError, match=r"Lower --forget, --retain or --rank.*--checkpointing"):
        run(tmp_path / "x", device=device)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["npo", pytest.param("rmu", marks=pytest.mark.long)])
def test_two_processes_give_the_losses_of_one_with_the_doubled_batch(tmp_path, objective):
    """DDP over gloo, as torchrun starts it.

    The probe's queries are shared out too, and each is asked once.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m"]
    for command, name, n in ((torchrun, "two", "4"), ([sys.executable, "-m"], "one", "8")):
        command = [
            *command,
            "workbench",
            "train",
            "--objective",
            objective,
            "--out",
            str(tmp_path / name),
            "--steps",
            "4",
        ]
        command += ["--forget", n, "--retain", n, "--curve", "4"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("Written to") == 1
    two, one = tmp_path / "two", tmp_path / "one"
    assert json.loads((two / "config.json").read_text())["device"] == "2 × cpu"
    assert losses(two).to_numpy() == pytest.approx(losses(one).to_numpy(), rel=1e-4)
    curves = [
        pd.read_csv(out / "curves.csv", keep_default_na=False).drop(columns=["seconds", "model"]) for out in (two, one)
    ]
    a, b = (c.set_index(["step", "attack", "queries", "metric"]).sort_index() for c in curves)
    assert (a.n == b.n).all() and a.value.to_numpy() == pytest.approx(b.value.to_numpy(), abs=0.02)


def test_divergence_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"became NaN or infinite at step .*lower --lr"):
        train(
            load("miniguard", device="cpu"),
            "npo",
            miniguard_split("train", sizes=(8, 8)),
            out=tmp_path / "x",
            lr=1e30,
            steps=5,
            forget=4,
            retain=4,
        )


def test_mistakes_are_named_before_anything_is_written(tmp_path, vlm, few):
    def attempt(**options):
        train(vlm, **({"objective": "npo", "data": few, "out": tmp_path / "x"} | options))

    for options, says in [
        ({"objective": "nope"}, "no objective 'nope'"),
        ({"gamma": 1.0}, "npo has no hyper-parameter gamma; it has beta, alpha"),
        ({"data": [e for e in few if e.harmful]}, "retain set is empty"),
        ({"data": [e for e in few if not e.harmful]}, "forget set is empty"),
        (
            {"data": [Example("r", None, "Can?", True, "no"), Example("s", None, "What?", False, "yes")]},
            "'r' has no harmful_response",
        ),
        ({"objective": "rmu", "layer": 5}, "no layer 5.*1 to 4"),
        ({"objective": "rmu", "layer": 0}, "has no layer 0"),
        ({"targets": ["nothing"]}, "match no linear layer"),
        ({"accumulate": 7}, "7 equal parts"),
        ({"patience": 2}, "needs a probe"),
        ({"until": from_step(1)}, "needs a probe"),
        ({"out": "/proc/nowhere/x"}, "cannot be written"),
    ]:
        with pytest.raises(UserError, match=says):
            attempt(**options)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path, vlm, few):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="exists already"):
        train(vlm, "npo", few, out=tmp_path / "x")
    (tmp_path / "y.partial").mkdir()
    with pytest.raises(UserError, match="--resume"):
        train(vlm, "npo", few, out=tmp_path / "y")


def state_of(vlm):
    """What a caller's network is, apart from the values of its weights: attributes, hooks, flags, modes."""
    modules = {
        name: (
            type(module),
            sorted(vars(module)),
            module.training,
            len(module._forward_hooks),
            len(module._backward_hooks),
        )
        for name, module in vlm.model.named_modules()
    }
    flags = {name: getattr(module, "gradient_checkpointing", None) for name, module in vlm.model.named_modules()}
    trained = {name: (parameter.requires_grad, parameter.grad) for name, parameter in vlm.model.named_parameters()}
    return modules, flags, trained, vlm.model.config.to_dict(), torch.get_num_threads(), torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"full": True}, {"checkpointing": True}, {"objective": "rmu"}], ids=str)
def test_training_leaves_nothing_behind(tmp_path, options, dtype):
    vlm = load("miniguard", device="cpu")
    vlm.model.to(dtype)
    few = miniguard_split("train", sizes=(4, 4))
    vlm.answers([e.picture() for e in few], [e.query for e in few])
    before = state_of(vlm)
    settings = {"objective": "npo", "steps": 1, "forget": 2, "retain": 2, "lr": 1e-5} | options
    train(vlm, data=few, out=tmp_path / "out", **settings)
    assert state_of(vlm) == before


def test_the_projectors_features_are_seen_anew_after_it_was_trained(tmp_path):
    """Features of pictures are kept; those of the old projector must not be used with the new one."""
    vlm, few = load("miniguard", device="cpu"), miniguard_split("train", sizes=(4, 4))
    images, queries = [e.picture() for e in few], [e.query for e in few]
    vlm.answers(images, queries)
    train(vlm, "sft", few, out=tmp_path / "out", steps=8, forget=2, retain=2, lr=1e-2, full=True, projector=True)
    again = load(tmp_path / "out" / "model", device="cpu")
    assert vlm.answers(images, queries) == again.answers(images, queries)
    used, fresh = (torch.cat(tuple(next(iter(v.features.values())).pooler_output)) for v in (vlm, again))
    torch.testing.assert_close(used, fresh)

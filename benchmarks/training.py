"""What a training step costs, ours beside other ways, measured in one run.

`python -m benchmarks.training [--json]`.

Every measurement is a process of its own, so that none inherits another's memory; all on a random LLaVA of
true architecture.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import show, step_ends

ROOT = Path(__file__).parent.parent


def peak(kind: str, model: Path, **options) -> int:
    """Bytes that a measurement holds at most, above what the libraries take.

    Every tensor is given back to the system when it is freed (glibc's threshold for mmap is lowered), so
    that what the heap wastes does not count.
    """
    return _in_a_process(kind, model, options, MALLOC_MMAP_THRESHOLD_="65536")["peak"]


def seconds(kind: str, model: Path, **options) -> list[float]:
    """Seconds of each step of a measurement."""
    return _in_a_process(kind, model, options)["seconds"]


def _in_a_process(kind: str, model: Path, options: dict, **environment: str) -> dict:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.training", "--measure", kind, "--model", str(model)]
    command += ["--options", json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _resident(vlm):
    """Weights that a step does not touch would stay on disk, where a GPU would have to hold them.

    Read all of them.
    """
    for parameter in vlm.model.parameters():
        parameter.sum()
    return vlm


def _ours(model: Path, steps: int = 5, **options) -> list[float]:
    """Seconds of each step of `training.train`."""
    from workbench.data.splits import miniguard_split
    from workbench.models.load import load
    from workbench.training.train import train

    settings = {"objective": "npo", "forget": 4, "retain": 4} | options
    with tempfile.TemporaryDirectory() as folder:
        data = miniguard_split("train", sizes=(40, 40))
        vlm = _resident(load(model, device="cpu"))
        with step_ends() as ends:
            train(vlm, data=data, out=Path(folder) / "run", steps=steps, save_every=1000, **settings)
    return [b - a for a, b in itertools.pairwise(ends)]


def _npo_loop(model: Path, steps: int = 5, reference: str = "adapter off") -> list[float]:
    """Seconds of each step of a bare PyTorch loop with NPO.

    reference: "adapter off", LoRA, and the same network is asked in every step, as trl and peft do it;
        "cached", LoRA, and it is asked
    before the first step, as we do it; "copy", all of the language model's weights are trained, and a frozen
    second copy is asked.
    """
    import copy

    import torch

    from workbench.data.splits import miniguard_split
    from workbench.models.adapters import add_lora, linear_modules
    from workbench.models.load import load
    from workbench.models.scores import reference as reference_model
    from workbench.models.vlm import answer_batch
    from workbench.training import objectives
    from workbench.training.settings import Settings
    from workbench.training.train import reference_logprobs

    vlm = _resident(load(model, device="cpu"))
    method = objectives.named("npo")
    data = miniguard_split("train", sizes=(40, 40))
    sides = [[e for e in data if e.harmful == harmful] for harmful in (True, False)]
    rows = [[side[4 * i + j] for j in range(4)] for i in range(steps) for side in sides]
    student = vlm
    if reference == "copy":
        frozen = copy.deepcopy(vlm.model).requires_grad_(False)
        vlm.model.requires_grad_(False)
        vlm.model.get_decoder().requires_grad_(True)
        vlm.model.lm_head.requires_grad_(True)
    else:
        if reference == "cached":
            cached = reference_logprobs(
                vlm, [e for chunk in rows for e in chunk], Settings.of("npo", forget=4, retain=4)
            )
        student = add_lora(vlm, linear_modules(vlm), rank=16, alpha=32, seed=0)
    optimiser = torch.optim.AdamW([p for p in student.model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)
    student.model.train()
    seconds = []
    for i in range(steps):
        started = time.monotonic()
        forget, retain = rows[2 * i : 2 * i + 2]
        batch = answer_batch(student, forget, [e.leak for e in forget])
        with torch.no_grad():
            if reference == "copy":
                batch["reference"] = objectives.sequence_logprobs(frozen, batch)
            elif reference == "cached":
                batch["reference"] = torch.tensor([cached[id(e), "leak"] for e in forget])
            else:
                with reference_model(student.model) as before:
                    batch["reference"] = objectives.sequence_logprobs(before, batch)
        loss = method.loss(
            student.model, batch, answer_batch(student, retain, [e.response for e in retain]), **method.hyper
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in student.model.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        optimiser.zero_grad()
        seconds.append(time.monotonic() - started)
    return seconds[1:]


def _hidden(model: Path, layer: int, truncated: bool, repeats: int = 7) -> list[float]:
    """Seconds of a forward and backward pass for the hidden states of a layer, run up to it or to the end."""
    from workbench.data.splits import miniguard_split
    from workbench.models.adapters import add_lora, linear_modules
    from workbench.models.load import load
    from workbench.models.scores import hidden_states
    from workbench.models.vlm import answer_batch

    vlm = load(model, device="cpu")
    student = add_lora(vlm, linear_modules(vlm, layers=layer), rank=16, alpha=32, seed=0)
    examples = miniguard_split("train", sizes=(8, 0))
    batch = answer_batch(student, examples, [e.leak for e in examples])
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    seconds = []
    for _ in range(repeats):
        started = time.monotonic()
        if truncated:
            hidden, _ = hidden_states(student.model, batch, layer)
        else:
            hidden = student.model(**inputs, output_hidden_states=True).hidden_states[layer]
        hidden.pow(2).mean().backward()
        seconds.append(time.monotonic() - started)
    return seconds[1:]


MEASURES = {"ours": _ours, "loop": _npo_loop, "hidden": _hidden}


def compare(folder: Path, layers: int = 8, rounds: int = 3) -> list[dict]:
    """The ratios: [{"what", "ours", "other", "ratio", "bound"}].

    Times are medians over `rounds`, in which each side has its turn.
    """
    from benchmarks.llava import write_llava

    model, layer = write_llava(folder / "llava", layers=layers), 2
    sides = {
        "whole": ("ours", {}),
        "parts": ("ours", {"accumulate": 2}),
        "lora": ("loop", {"reference": "adapter off"}),
        "bare": ("loop", {"reference": "cached"}),
        "full": ("loop", {"reference": "copy"}),
        "truncated": ("hidden", {"layer": layer, "truncated": True}),
        "forward": ("hidden", {"layer": layer, "truncated": False}),
    }
    taken = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (kind, options) in sides.items():
            taken[name] += seconds(kind, model, **options)
    time = {name: statistics.median(values) for name, values in taken.items()}
    memory = {name: peak(kind, model, **options) / 2**20 for name, (kind, options) in list(sides.items())[:5]}
    table = [
        ("peak MiB: ours, the step whole / a LoRA loop with its adapter switched off", memory, "whole", "lora", 1.0),
        ("peak MiB: ours, in 2 parts / the same", memory, "parts", "lora", 1.0),
        ("seconds a step: ours, whole / the same", time, "whole", "lora", 1.0),
        ("seconds a step: ours, in 2 parts / the same", time, "parts", "lora", 1.0),
        ("peak MiB: ours, whole / full fine-tuning with a second copy", memory, "whole", "full", 0.4),
        ("peak MiB: ours, in 2 parts / the same", memory, "parts", "full", 0.4),
        ("seconds a step: ours, whole / the same", time, "whole", "full", 0.65),
        ("seconds a step: ours, in 2 parts / the same", time, "parts", "full", 0.65),
        (
            f"seconds, RMU at layer {layer} of {layers}: truncated / full forward",
            time,
            "truncated",
            "forward",
            (layer + 1) / layers + 0.15,
        ),
        ("seconds a step: our loop / a bare PyTorch loop with the same cached reference", time, "whole", "bare", 1.1),
    ]
    return [
        {"what": w, "ours": t[a], "other": t[b], "ratio": t[a] / t[b], "bound": bound} for w, t, a, b, bound in table
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, default={}, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(_measured(MEASURES[given.measure], given.model, given.options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder))
    show(found, given.json)


def _measured(run, model: Path, options: dict) -> dict:
    os.environ["TQDM_DISABLE"] = "1"
    import psutil
    import torch

    import workbench.training.train  # noqa: F401 (what the libraries take is not the step's)

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    before = psutil.Process().memory_info().rss
    taken = run(model, **options)
    return {"peak": highest_rss() - before, "seconds": taken}


def highest_rss() -> int:
    """Bytes of memory that this process has held at most.

    Getrusage would count what its parent held, too, when it was started.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


if __name__ == "__main__":
    main()

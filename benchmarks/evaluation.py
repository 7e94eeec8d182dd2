"""What asking costs, one by one, in batches, and as `ask` does it, for the same answers, in one run.

`python -m benchmarks.evaluation [--json]`.

MiniGuard's base and a random LLaVA of 99 million parameters are asked validation queries as they are and by
the one-word attack ("what:3"). In batches, the vision tower looks at each picture once for all four queries;
in `ask`, the language model reads it once too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import show
from benchmarks.llava import write_llava
from workbench.attacks.one_word import rewrites
from workbench.data.example import Example
from workbench.data.splits import miniguard_split
from workbench.evaluation.ask import ask
from workbench.models.load import load
from workbench.models.vlm import VLM

ATTACKS = ("none", "what:3")


def one_by_one(vlm: VLM, examples: list[Example]) -> list[str]:
    """Each query as a person would ask it: its picture is looked at anew."""
    answers = []
    for name in ATTACKS:
        for shot in range(len(rewrites(examples[0].query, name))):
            for example in examples:
                vlm.features.clear()
                answers.append(vlm.answer(example.picture(), rewrites(example.query, name)[shot]))
    return answers


def in_batches(vlm: VLM, examples: list[Example]) -> list[str]:
    vlm.features.clear()
    answers, images = [], [e.picture() for e in examples]
    for name in ATTACKS:
        for shot in range(len(rewrites(examples[0].query, name))):
            answers += vlm.answers(images, [rewrites(e.query, name)[shot] for e in examples])
    return answers


def read_once(vlm: VLM, examples: list[Example]) -> list[str]:
    vlm.features.clear()
    return list(ask(vlm, examples, ATTACKS, progress=False).answer)


def compare(name: str, vlm: VLM, queries: int, rounds: int = 3) -> dict:
    """The ratios on one model; answers a second, medians over `rounds`, in which each side has its turn."""
    examples = miniguard_split("validation", sizes=(queries // 2, queries // 2))
    sides = {"one by one": one_by_one, "in batches": in_batches, "read once": read_once}
    taken: dict[str, list[float]] = {side: [] for side in sides}
    told: dict[str, list[str]] = {}
    for _ in range(rounds):
        for side, run in sides.items():
            started = time.perf_counter()
            told[side] = run(vlm, examples)
            taken[side].append(time.perf_counter() - started)
        assert told["one by one"] == told["in batches"] == told["read once"]
    alone, batched, once = (len(told[side]) / statistics.median(taken[side]) for side in sides)
    speeds = {f"{side}, 1/s": speed for side, speed in zip(sides, (alone, batched, once), strict=True)}
    ratios = {"batches : one by one": batched / alone, "read once : batches": once / batched}
    return {"model": name, "answers": len(told["read once"])} | speeds | ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {"MiniGuard": (load("miniguard", device="cpu"), 100)}
        models["LLaVA, 99 M"] = load(write_llava(Path(folder) / "llava"), device="cpu"), 12
        found = [compare(name, vlm, queries) for name, (vlm, queries) in models.items()]
    show(found, given.json)


if __name__ == "__main__":
    main()

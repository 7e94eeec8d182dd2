"""What asking costs, in batches beside one by one, for the same answers, in one run.

`python -m benchmarks.evaluation [--json]`.

MiniGuard's base and a random LLaVA of 99 million parameters are asked validation queries as they are and by
the one-word attack ("what:3"); in batches, the pictures are looked at once for all four.
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
    return list(ask(vlm, examples, ATTACKS, progress=False).answer)


def compare(name: str, vlm: VLM, queries: int, rounds: int = 3) -> dict:
    """The ratio on one model; answers a second, medians over `rounds`, in which each side has its turn."""
    examples = miniguard_split("validation", sizes=(queries // 2, queries // 2))
    taken: dict[str, list[float]] = {"one by one": [], "in batches": []}
    for _ in range(rounds):
        told = {}
        for side, run in (("one by one", one_by_one), ("in batches", in_batches)):
            started = time.perf_counter()
            told[side] = run(vlm, examples)
            taken[side].append(time.perf_counter() - started)
        assert told["one by one"] == told["in batches"]
    alone, batched = (len(told[side]) / statistics.median(taken[side]) for side in taken)
    speeds = {"one by one, 1/s": alone, "in batches, 1/s": batched, "ratio": batched / alone}
    return {"model": name, "answers": len(told["in batches"])} | speeds


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

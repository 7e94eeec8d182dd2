"""Make what the study lacks, two runs at a time, in the order of importance; written to data/study of the cwd."""

import logging
import sys

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
for name in ("httpx", "transformers", "accelerate"):
    logging.getLogger(name).setLevel(logging.ERROR)
from workbench.studies import shipped

GROUPS = [
    ["base", "sft", "sft-early", "sft-balanced", "sft-balanced-early", "npo", "npo-early"],
    ["rmu", "sft-repaired", "npo-repaired"],
]
late = set(shipped.stale())
bases = sys.argv[1:] or list(dict.fromkeys(run.base for run in shipped.planned()))
done = 0
for names in [*GROUPS, list(shipped.COMPARED)]:
    for seed in shipped.SEEDS:
        for base in bases:
            some = [run for name in names for run in late if (run.base, run.name, run.seed) == (base, name, seed)]
            late -= set(some)
            shipped.make(some, 2, 8)
            done += len(some)
            print(done, "done,", len(late), "left", flush=True)

"""Make what the study lacks, two runs at a time, in the order of importance; written to data/study of the cwd."""

import logging
import os
import sys
import traceback

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
for name in ("httpx", "transformers", "accelerate"):
    logging.getLogger(name).setLevel(logging.ERROR)
from workbench.models.configuration import shipped_bases
from workbench.studies import making, shipped
from workbench.studies.methods import CONTROL

GROUPS = [
    ["base", "sft", "sft-early", CONTROL, f"{CONTROL}-early", "npo", "npo-early"],
    ["rmu", "sft-repaired", "npo-repaired"],
    list(shipped.COMPARED),
]
bases = sys.argv[1:]
for _ in range(2):
    for names in GROUPS:
        for seed in shipped.SEEDS:
            ready = [b for b in bases or [*shipped.BASES, *shipped.TWINS] if b in shipped_bases()]
            known = shipped.shipped("runs")
            marks = set() if known.empty else set(known["fingerprint"])
            runs = [r for r in shipped.planned() if r.base in ready and r.name in names and r.seed == seed]
            try:
                making.make([r for r in runs if r.key not in marks], int(os.environ.get("PROCESSES", "2")), 14)
            except Exception:
                traceback.print_exc()
            print(names, seed, "done", flush=True)

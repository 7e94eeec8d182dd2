"""Give the sweep's cells the keys of today's code: `rename.py FOLDER`.

Since they were made, what they depend on has changed in ways that leave the models as they are (layout, checks,
the fingerprint itself), and the exact judge calls some irrelevant answers wrong: they are judged anew.
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["WORKBENCH_RUNS"] = sys.argv[1]
from workbench.data.splits import miniguard_split
from workbench.evaluation.answers import whole_answers, write_answers
from workbench.judges.judge import judged
from workbench.studies import sweep

examples = miniguard_split("validation", 0)
for folder in sorted(Path(sys.argv[1]).glob("sweep-miniguard-*-seed0-*")):
    method = folder.name.split("-seed0-")[0].removeprefix("sweep-miniguard-")
    if not (folder / "answers.csv").exists():
        continue
    config = json.loads((folder / method / "config.json").read_text())
    settings = {"lr": config["lr"], "steps": config["steps"]}
    new = folder.with_name(f"sweep-miniguard-{method}-seed0-{sweep._key('miniguard', method, 0, settings)}")
    if new == folder:
        continue
    old = whole_answers(folder / "answers.csv")
    anew = judged(old, examples, "exact")
    changed = old.outcome != anew.outcome
    assert set(zip(old.outcome[changed], anew.outcome[changed])) <= {("irrelevant", "wrong")}
    if new.exists():
        shutil.rmtree(new)
    folder.rename(new)
    write_answers(new / "answers.csv", anew)
    print(method, settings, new.name[-10:], int(changed.sum()))

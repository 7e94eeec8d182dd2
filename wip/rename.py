"""Give the sweep's cells the keys of today's code: `rename.py FOLDER`. Since they were made, only the layout of
`train` and `fit` has changed (tests compare the bytes of what they train)."""
import json
import os
import sys
from pathlib import Path

os.environ["WORKBENCH_RUNS"] = sys.argv[1]
from workbench.studies import sweep

for folder in sorted(Path(sys.argv[1]).glob("sweep-miniguard-*-seed0-*")):
    if not (folder / "answers.csv").exists():
        continue
    method = folder.name.split("-seed0-")[0].removeprefix("sweep-miniguard-")
    config = json.loads((folder / method / "config.json").read_text())
    settings = {"lr": config["lr"], "steps": config["steps"]}
    new = folder.with_name(f"sweep-miniguard-{method}-seed0-{sweep._key('miniguard', method, 0, settings)}")
    if new != folder:
        if new.exists():
            import shutil

            shutil.rmtree(new)
        folder.rename(new)
        print(method, settings, new.name[-10:])

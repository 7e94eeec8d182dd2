"""Give the study's kept runs the keys of today's code: `rename_runs.py FOLDER`, after their answers have been compared."""

import os
import re
import sys
from pathlib import Path

os.environ["WORKBENCH_RUNS"] = sys.argv[1]
from workbench.studies.methods import run_key

for folder in sorted(Path(sys.argv[1]).glob("miniguard*")):
    base, name, seed = re.fullmatch(r"(miniguard(?:-never-knew)?(?:-\d)?)-(.+)-seed(\d)-\w{10}", folder.name).groups()
    new = folder.with_name(f"{base}-{name}-seed{seed}-{run_key(name, int(seed), base)}")
    if new != folder:
        folder.rename(new)
        print(new.name)
from workbench.studies.shipped import key_of_secrets

for file in Path(sys.argv[1]).glob("miniguard*/secrets-*.csv"):
    file.rename(file.with_name(f"secrets-{key_of_secrets()}.csv"))

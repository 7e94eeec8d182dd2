"""Notebooks are checked without progress bars: whether there are any depends on what an earlier run has kept."""

import os

os.environ["TQDM_DISABLE"] = "1"

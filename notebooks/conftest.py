"""Notebooks are saved and checked without progress bars: which there are depends on what an earlier run has kept."""

import os

os.environ["TQDM_DISABLE"] = "1"

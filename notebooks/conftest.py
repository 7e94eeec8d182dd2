"""Notebooks are saved and checked without progress bars: which there are depends on what an earlier run has kept."""

import os

os.environ["TQDM_DISABLE"] = "1"

FIRST = ("02_the_mirage.ipynb", "07_your_own_model.ipynb")  # 02 trains what others wait for; 07 needs none of it


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in FIRST)

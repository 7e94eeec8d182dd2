"""Notebooks are saved and checked without progress bars: which there are depends on what an earlier run has kept."""

import os

os.environ["TQDM_DISABLE"] = "1"

# 02 trains what others wait for, and 07 needs none of it. Tests come between, so that nothing waits.
ORDER = {"02_the_mirage": 0, "07_your_own_model": 0, "00_start_here": 1, "01_shortcuts_in_the_data": 1}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.get(item.path.stem, 3 if item.path.suffix == ".ipynb" else 2))

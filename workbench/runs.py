"""Progress bars, which go when the work is done; TQDM_DISABLE=1 switches them off everywhere (in notebooks tqdm itself does not look)."""

from __future__ import annotations

import os


def bar(items=None, desc: str = "", show: bool = True, **options):
    """A tqdm bar over `items`, or one to be updated by hand (total=…)."""
    from tqdm.auto import tqdm

    return tqdm(items, desc, leave=False, disable=not show or os.environ.get("TQDM_DISABLE", "0") not in ("", "0"), **options)

"""What things cost, as ratios measured side by side in one run."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def step_ends(wait: Callable[[], None] = lambda: None) -> Iterator[list[float]]:
    """Within this block, the time at the end of each step of any of transformers' Trainers.

    `wait` is called first.
    """
    from transformers.trainer_callback import CallbackHandler

    ends, told = [], CallbackHandler.on_step_end

    def timed(*args, **kwargs):
        wait()
        ends.append(time.perf_counter())
        return told(*args, **kwargs)

    CallbackHandler.on_step_end = timed
    try:
        yield ends
    finally:
        CallbackHandler.on_step_end = told


def show(found: list[dict], as_json: bool) -> None:
    """Print a benchmark's rows as a table, or as JSON."""
    import pandas as pd

    print(
        json.dumps(found, indent=2)
        if as_json
        else pd.DataFrame(found).to_string(index=False, float_format="{:.3f}".format)
    )

"""The sections, each a module here with a function `rows(scale)` that yields results.

And how one is run in a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection

import psutil

# the most telling first, and the longest last; what each needs beside the workbench's own dependencies
SECTIONS = {
    "training": (),
    "peer": ("trl", "datasets", "pyarrow"),
    "answers": (),
    "attribution": ("captum",),
    "four_bit": (),
    "miniguard": ("pytest",),
    "taught": (),
}
ON_REQUEST = ("taught",)  # three minutes of their own
LANGUAGE = "WORKBENCH_LANGUAGE"  # the environment variable that hands --language to the process of `taught`
LIMIT = 300  # seconds a section may take
PACKAGE = "benchmarks.gpu"


def results_of(name: str, tiny: bool) -> Iterator[dict]:
    """What a section yields, and if it fails, {"error": …} as the last."""
    if missing := [package for package in SECTIONS[name] if importlib.util.find_spec(package) is None]:
        yield {"error": f"{', '.join(missing)} missing; install the wheels of benchmarks/gpu_wheels.txt"}
        return
    # read when libraries are imported: one that asks for a GPU does not touch it, and none looks for a
    # network
    os.environ |= {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    context = multiprocessing.get_context("spawn")  # a process forked from one that has touched a GPU cannot use it
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(f"{PACKAGE}.{name}", tiny, theirs))
    process.start()
    theirs.close()
    deadline = time.monotonic() + LIMIT
    try:
        while ours.poll(max(0.0, deadline - time.monotonic())):
            yield ours.recv()
        yield {"error": f"it took more than {LIMIT} s"}
    except EOFError:  # it has ended
        process.join()
        if process.exitcode:
            yield {"error": f"it ended with exit code {process.exitcode}"}
    finally:
        _end(process.pid)
        process.join()


def _run(module: str, tiny: bool, to: Connection) -> None:
    """In the section's own process: send its rows. What libraries print goes to standard error."""
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    from benchmarks.gpu.model import FULL, TINY

    try:
        for row in importlib.import_module(module).rows(TINY if tiny else FULL):
            to.send(row)
    except Exception as error:
        traceback.print_exc()
        to.send({"error": f"{type(error).__name__}: {error}"})


def _end(pid: int) -> None:
    """End a process, and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

"""Independent pieces of long work, two at a time in processes of one thread each.

MiniGuard's model is so small that two threads share one step badly: two processes get more done.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workbench.errors import UserError
from workbench.runs import log

ERROR = "error: "  # begins the line in which a child process reports a user's mistake


def process_count() -> int:
    """How many pieces are best run at once: 2 on a CPU with several cores, 1 on a GPU."""
    import torch

    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return 1 if on_gpu else min(2, os.cpu_count() or 1)


def call_each(function: Callable[..., object], arguments: Sequence[Sequence[Any]], processes: int = 1) -> None:
    """Call a function with each list of arguments; it must keep on disk what it makes.

    Args:
        function: A function of a module.
        arguments: What JSON can hold.
        processes: How many calls run at once; 1 for all in this process.

    Raises:
        UserError: From the function.
    """
    count = min(processes, len(arguments))
    if count < 2:
        for values in arguments:
            function(*values)
        return
    name = f"{function.__module__}:{function.__name__}"
    children: list[subprocess.Popen[str]] = []
    starting, stopped = threading.Lock(), threading.Event()
    free_lines = list(range(count))  # of the terminal, for progress bars

    def call(values: Sequence[Any]) -> str:
        line = free_lines.pop()
        with starting:  # a child is known before Ctrl-C ends all of them, or it is not started
            if stopped.is_set():
                return ""
            child = _start(name, values, line)
            children.append(child)
        error = _follow(child)
        free_lines.append(line)
        return error

    with ThreadPoolExecutor(count) as pool:
        try:
            errors = list(pool.map(call, arguments))
        except BaseException:  # Ctrl-C too
            pool.shutdown(wait=False, cancel_futures=True)
            with starting:
                stopped.set()
            for child in children:
                child.terminate()
            raise
    for error in filter(None, errors):
        raise UserError(error)


def _start(name: str, values: Sequence[Any], line: int) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WORKBENCH_BAR": str(line)}
    command = [sys.executable, "-m", "workbench.parallel", name, json.dumps(values)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def _follow(child: subprocess.Popen[str]) -> str:
    """Log a child's lines until it ends. Returns the user's mistake that it reports, or ""."""
    error = ""
    assert child.stdout
    for line in child.stdout:
        text = line.rstrip("\n")
        if text.startswith(ERROR):
            error = text.removeprefix(ERROR)
        else:
            log.info("%s", text)
    if child.wait() and not error:
        raise RuntimeError(f"A process of this study ended with code {child.returncode}; its error is above.")
    return error


def _end_with_parent() -> None:
    """End this process once its parent is gone, even if that was killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _main() -> None:
    """A child process: call one function, and print what is logged."""
    _end_with_parent()
    log.addHandler(logging.StreamHandler(sys.stdout))
    log.setLevel(logging.INFO)
    module, _, name = sys.argv[1].partition(":")
    try:
        getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))
    except UserError as error:
        print(f"{ERROR}{error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    _main()

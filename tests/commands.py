"""Processes of their own that start at once: the command line as users run it, and functions that get killed.

Each is forked from a process that has imported the large libraries and nothing of ours, which saves some
four seconds a process.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "captum.attr",
        "peft",
        "seaborn",
        "statsmodels.stats.multitest",
        "transformers.models.llava.modeling_llava",
        "transformers.trainer",
        "typer",
    ]
)


def started(function, *arguments):
    """A process that runs a function of a module; it has join, kill, exitcode and pid."""
    process = _context.Process(target=function, args=arguments)
    process.start()
    return process


def workbench(*arguments, columns=200, timeout=600):
    """Run `workbench` with these arguments. Returns what subprocess.run would."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        environment = os.environ | {"COLUMNS": str(columns)}
        process = started(_command, [*map(str, arguments)], *files, Path.cwd(), environment)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, timeout)
        return subprocess.CompletedProcess(arguments, process.exitcode, *(file.read_text("utf-8") for file in files))


def _command(arguments, stdout, stderr, folder, environment):
    for number, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["workbench", *arguments]
    from workbench.cli import main

    main()

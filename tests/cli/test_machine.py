"""What a machine may lack: room on the disk, rights, memory, a second command's patience, a Unicode terminal.

Each is one sentence and exit code 2; what was written before stays, and the run goes on once the cause is gone.
"""

import errno
import multiprocessing
import os
import resource
import subprocess
import sys

import pandas as pd
import pytest

from tests.commands import started, workbench
from workbench.cli import app as cli
from workbench.errors import UserError, machine_error
from workbench.runs import claim

TRAIN = ("train", "--objective", "sft", "--steps", "4")


@pytest.fixture
def small_disk(tmp_path):
    """A folder of 300 kB: a file system in memory where one can be mounted, else a limit on the size of files.

    Yields the folder, what runs a command with that limit, and what lifts it.
    """
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder]
    if os.getuid() == 0 and subprocess.run(mounted, capture_output=True).returncode == 0:
        yield folder, {}, lambda: subprocess.run(["mount", "-o", "remount,size=50m", folder], check=True)
        subprocess.run(["umount", folder], check=True)
    else:
        yield folder, {"limit": 100_000}, lambda: None


def run(*command, limit=None):
    """A command in a process of its own, whose files may not be larger than the limit in bytes."""
    if not limit:
        return workbench(*command)
    start = [sys.executable, "-W", "ignore", "-m", "workbench", *map(str, command)]

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(start, preexec_fn=limited, capture_output=True, text=True)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(small_disk):
    folder, options, enlarge = small_disk
    full = run(*TRAIN, "--out", folder / "a", **options)
    assert full.returncode == 2, full.stderr
    assert "There is no room on the disk" in full.stderr and "Traceback" not in full.stderr
    assert not (folder / "a").exists()
    enlarge()
    done = run(*TRAIN, "--out", folder / "a", "--resume")
    assert done.returncode == 0 and (folder / "a" / "adapter_model.safetensors").is_file(), done.stderr


@pytest.mark.slow
def test_answers_until_the_disk_was_full_are_kept(small_disk):
    folder, options, enlarge = small_disk
    if not options:
        (folder / "filling").write_bytes(bytes(270_000))
    command = ("evaluate", "--attack", "none,what:1", "--out", folder / "e")
    full = run(*command, limit=options and 20_000)
    assert full.returncode == 2 and "There is no room on the disk" in full.stderr, full.stderr
    kept = (folder / "e" / "answers.csv").read_text().count("\n")
    assert kept > 10
    enlarge()
    done = run(*command)
    assert done.returncode == 0, done.stderr
    answers = pd.read_csv(folder / "e" / "answers.csv")
    assert len(answers) == 1600 and not answers.duplicated(["id", "attack", "shot"]).any()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), "no room on the disk for a/b"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no room on the disk"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "no room on the disk"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a/b"), "a/b is closed to this user"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "a/b"), "a/b is closed to this user"),
        (MemoryError(), "memory is not enough"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory is not enough"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory is not enough"),
    ],
)
def test_what_the_machine_lacks_is_one_sentence(monkeypatch, capsys, error, says):
    def fail():
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert left.value.code == 2 and says in said and said.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("bad"), KeyError("x"), FileNotFoundError(errno.ENOENT, "gone", "x")])
def test_mistakes_of_ours_are_not_hidden(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert machine_error(error) == ""
    with pytest.raises(type(error)):
        cli.main()


def hold(folder, ready, stop):
    claim(folder)
    ready.set()
    stop.wait(60)


def test_a_second_command_with_the_same_out_says_so(tmp_path):
    context = multiprocessing.get_context("forkserver")
    ready, stop = context.Event(), context.Event()
    first = started(hold, tmp_path / "o", ready, stop)
    assert ready.wait(60)
    second = workbench("evaluate", "--attack", "none", "--out", tmp_path / "." / "o")
    assert second.returncode == 2 and "Another process is writing to" in second.stderr
    assert not (tmp_path / "o").exists()
    first.kill()  # even then it is free again
    first.join()
    claim(tmp_path / "o")
    assert claim(tmp_path / "o") == tmp_path / "o"  # this process holds it already


def test_processes_that_train_together_share_a_folder(tmp_path, monkeypatch):
    context = multiprocessing.get_context("forkserver")
    ready, stop = context.Event(), context.Event()
    first = started(hold, tmp_path, ready, stop)
    assert ready.wait(60)
    monkeypatch.setenv("RANK", "1")
    assert claim(tmp_path) == tmp_path
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="Another process"):
        claim(tmp_path)
    stop.set()
    first.join()


@pytest.mark.parametrize("command", [("--help",), ("evaluate", "--help"), ("audit", "miniguard", "--top", "2")])
def test_a_terminal_without_unicode_or_colour_gets_question_marks(command):
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "TERM": "dumb"}
    start = [sys.executable, "-W", "ignore", "-m", "workbench", *command]
    done = subprocess.run(start, env=os.environ | plain, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and b"\x1b[" not in done.stdout


def test_paths_with_blanks_and_signs(tmp_path):
    folder = tmp_path / "größe 你好 [1] 'a' %s"
    done = workbench("evaluate", "--attack", "none", "--judge", "keyword", "--out", folder / "out put")
    assert done.returncode == 0, done.stderr
    assert (folder / "out put" / "results.csv").is_file()

"""Independent work in two processes: each piece once, a mistake as one sentence, nothing left behind by a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench import parallel
from workbench.errors import UserError
from workbench.parallel import call_each


def write(folder, name):
    """Runs in a child process."""
    (Path(folder) / name).write_text(os.environ.get("OMP_NUM_THREADS", ""))


def refuse(name):
    raise UserError(f"{name} is refused.")


def breaks(name):
    raise ZeroDivisionError


def wait(folder):
    (Path(folder) / "started").write_text(str(os.getpid()))
    time.sleep(60)


def test_each_piece_is_done_once_in_processes_of_one_thread(tmp_path):
    call_each(write, [(str(tmp_path), name) for name in "abc"], processes=2)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys("abc", "1")


def test_one_process_is_this_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "here")
    call_each(write, [(str(tmp_path), "a")], processes=2)
    assert (tmp_path / "a").read_text() == "here"


def test_a_users_mistake_stays_one_sentence():
    with pytest.raises(UserError, match=r"^y is refused\.$"):
        call_each(refuse, [("y",), ("y",)], processes=2)


def test_another_error_is_not_passed_over():
    with pytest.raises(RuntimeError, match="ended with code 1"):
        call_each(breaks, [("x",), ("y",)], processes=2)


def test_children_end_with_their_parent(tmp_path):
    code = (
        "from tests.test_parallel import wait; from workbench.parallel import call_each; import sys; "
        "call_each(wait, [(sys.argv[1],), (sys.argv[1],)], processes=2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    while not (tmp_path / "started").exists() or not (tmp_path / "started").read_text():
        assert parent.poll() is None
        time.sleep(0.05)
    child = int((tmp_path / "started").read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_ctrl_c_while_a_child_starts_ends_that_child_too(tmp_path, monkeypatch):
    """The signal comes after the decision to start it and before it is known."""
    real, children = parallel._start, []

    def slow(name, values, line):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)  # the main thread has seen it by now
        children.append(real(name, values, line))
        return children[-1]

    monkeypatch.setattr(parallel, "_start", slow)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call_each(wait, [(str(tmp_path),)] * 2, processes=2)
    assert children and all(child.wait(timeout=5) for child in children)
    assert time.monotonic() - started < 20

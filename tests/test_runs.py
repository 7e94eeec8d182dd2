"""Long work is done once, whoever asks for it; bars can be switched off from outside, also in notebooks."""

import subprocess
import sys
from pathlib import Path

import pytest
from tqdm.notebook import tqdm_notebook

from workbench.runs import bar, kept, runs_dir


def test_the_environment_switches_bars_off(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("tqdm.auto.tqdm", tqdm_notebook)
    monkeypatch.setattr("tqdm.notebook.display", shown.append)
    for value, bars in (("1", 0), ("0", 1), ("", 1)):
        monkeypatch.setenv("TQDM_DISABLE", value)
        shown.clear()
        assert list(bar(range(3), "counting")) == [0, 1, 2] and len(shown) == bars
    assert not list(bar([], "nothing", show=False)) and len(shown) == 1
    by_hand = bar(desc="by hand", total=2)
    by_hand.update(2)
    by_hand.close()
    assert len(shown) == 2


def test_the_folder_of_runs_may_be_named_with_a_tilde_and_an_empty_name_is_none(monkeypatch, tmp_path):
    monkeypatch.delenv("WORKBENCH_RUNS", raising=False)
    by_default = runs_dir()
    for empty in ("", " "):
        monkeypatch.setenv("WORKBENCH_RUNS", empty)
        assert runs_dir() == by_default != Path()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WORKBENCH_RUNS", "~/runs of mine")
    assert runs_dir() == tmp_path / "runs of mine"


MAKE = """
import sys, time
from pathlib import Path
from workbench.runs import kept


def make(path):
    with open(path.with_name("made"), "a") as file:
        file.write("x")
    time.sleep(0.5)
    path.write_text("done")


print(kept("work", Path(sys.argv[1]), make).read_text())
"""


def test_two_processes_make_a_thing_once(tmp_path):
    """Two notebooks that train the same model: the second waits, and reads what the first made."""
    command = [sys.executable, "-c", MAKE, str(tmp_path / "thing")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["done", "done"]
    assert (tmp_path / "made").read_text() == "x"


def test_what_is_kept_is_not_made_again(tmp_path, caplog):
    with caplog.at_level("INFO", logger="workbench"):
        for _ in range(2):
            kept("a thing", tmp_path / "thing", lambda path: path.write_text("once"))
    assert caplog.messages == ["a thing: 0 s", "a thing: kept from an earlier run"]


def test_what_was_not_finished_is_made_again(tmp_path):
    made = []

    def fails(path):
        made.append(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept("a thing", tmp_path / "thing", fails)
    kept("a thing", tmp_path / "thing", lambda path: path.write_text("whole"))
    assert len(made) == 1 and (tmp_path / "thing").read_text() == "whole"

"""The script that proves the single-GPU path: whole on a CPU with tiny shapes, and what it says of a mistake."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from benchmarks.gpu import __main__ as script
from benchmarks.gpu import sections, table
from benchmarks.gpu.training import CAPPED
from tests.docs.pages import MEMORY
from tests.docs.test_memory import plan_rows
from workbench.errors import UserError


def gpu(*arguments, **environment):
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=script.ROOT, env=os.environ | environment)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The rows of one whole run, by section."""
    out = tmp_path_factory.mktemp("gpu") / "results.json"
    done = gpu("--tiny", "--out", out)
    rows = json.loads(out.read_text())
    assert done.returncode == 0, (done.stderr, rows)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [row["section"] for row in rows]
    return {name: [row for row in rows if row["section"] == name] for name in dict.fromkeys(r["section"] for r in rows)}


@pytest.mark.long
@pytest.mark.slow
def test_every_section_measures_something_and_ends(tiny):
    assert list(tiny) == [name for name in sections.SECTIONS if name not in sections.ON_REQUEST]
    for name, rows in tiny.items():
        assert len(rows) > 1 and rows[-1]["what"] == "seconds in all" and not any("error" in row for row in rows), name
        for row in rows:
            assert row["device"] == "cpu, tiny shapes" and row["versions"]["torch"] and row["commit"]
    assert {row["what"] for row in tiny["training"]} >= {"a step of npo", "a step of sft", "a step of rmu"}
    assert all(row["samples_a_second"] > 0 and row["peak_gib"] > 0 for row in tiny["training"][:-1])
    assert [row["what"].split(":")[0] for row in tiny["peer"][:-1]] == ["dpo", "sft"]
    assert [name for name, rows in tiny.items() if any("not_run" in row for row in rows)] == ["four_bit"]


@pytest.mark.slow
def test_a_language_model_is_taught_and_studied(tmp_path):
    done = gpu("--tiny", "--out", tmp_path / "results.json", "--sections", "taught")
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads((tmp_path / "results.json").read_text())}
    assert list(rows) == ["graft", "teach", "study", "seconds in all"]
    assert set(rows["study"]["asr_what3"]) == {"base", "sft-early", "sft-balanced-early", "npo-early"}


def test_a_file_that_came_in_parts_is_put_together(tmp_path):
    for number, part in enumerate([b"GG", b"U", b"F"]):
        (tmp_path / f"language.gguf.{number:02d}").write_bytes(part)
    assert script.whole(tmp_path / "language.gguf").read_bytes() == b"GGUF"
    (tmp_path / "gap.gguf.00").touch()
    (tmp_path / "gap.gguf.02").touch()
    for name in ("other", "gap"):
        with pytest.raises(UserError, match=rf"its parts {name}.gguf.00 … are not all beside it"):
            script.whole(tmp_path / f"{name}.gguf")


def test_a_mistake_is_one_sentence_and_exit_code_1(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    for arguments, sentence in (
        (["--tiny"], "Say with --out where the results go"),
        (
            ["--tiny", "--out", tmp_path / "r.json", "--sections", "training,speed"],
            "There is no section 'speed'; choose from training,",
        ),
        (["--tiny", "--out", tmp_path / "r.json", "--language", "x.gguf"], "--language is for --sections taught"),
        (["--tiny", "--out", tmp_path], "is a folder"),
        (["--tiny", "--out", "/proc/r.json"], "cannot be written"),
        (["--tiny", "--out", tmp_path / "notes.json"], "holds no results of this benchmark"),
        (["--out", tmp_path / "r.json"], "There is no CUDA GPU here"),
    ):
        done = gpu(*arguments, CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 1 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert (tmp_path / "notes.json").read_text() == "{}"


def test_a_gpu_that_is_too_small_is_named(monkeypatch):
    import torch

    class Card:
        name, total_memory = "GTX 1070", 8 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    with pytest.raises(UserError, match="The GTX 1070 has 8 GiB of memory"):
        script.machine(tiny=False)


def test_a_section_that_fails_leaves_its_error_and_the_next_one_runs(tmp_path, monkeypatch):
    """A package that is missing, an error, a process that dies: what came before stays."""
    monkeypatch.setattr(sections, "PACKAGE", "tests.benchmarks.sections")
    for name, needs in {"peer": ("no_such_package",), "raises": (), "dies": (), "works": ()}.items():
        monkeypatch.setitem(sections.SECTIONS, name, needs)
    out = tmp_path / "results.json"
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--tiny", "--out", str(out), "--sections", "peer,raises,dies,works", "--commit", "abc"]
    )
    with pytest.raises(SystemExit, match="Sections that failed: peer, raises, dies;"):
        script.main()
    rows = [(row["section"], row["what"], row.get("error", "")) for row in json.loads(out.read_text())]
    assert rows == [
        ("peer", "seconds in all", "no_such_package missing; install the wheels of benchmarks/gpu_wheels.txt"),
        ("raises", "first", ""),
        ("raises", "seconds in all", "ValueError: it is no use"),
        ("dies", "first", ""),
        ("dies", "seconds in all", "it ended with exit code 3"),
        ("works", "first", ""),
        ("works", "seconds in all", ""),
    ]
    script.Results(out).add({"section": "x"})
    assert len(json.loads(out.read_text())) == 8  # what was measured before stays


def test_a_section_that_takes_too_long_is_ended_with_all_that_it_started(monkeypatch):
    monkeypatch.setattr(sections, "PACKAGE", "tests.benchmarks.sections")
    monkeypatch.setitem(sections.SECTIONS, "waits", ())
    monkeypatch.setattr(sections, "LIMIT", 30)  # the libraries are read in this time too
    first, last = sections.results_of("waits", tiny=True)
    assert last == {"error": "it took more than 30 s"}
    assert not psutil.pid_exists(first["pid"]) or psutil.Process(first["pid"]).status() == psutil.STATUS_ZOMBIE


def test_the_page_has_what_was_measured_and_nothing_else():
    """Every cell is filled in by `python -m benchmarks.gpu.table`."""
    assert table.filled(MEMORY, table.read()) == MEMORY
    speed = {"seconds_a_step": 1, "samples_a_second": 8}
    rows = [{"section": "training", "what": "a step of npo", "cap_gib": 24, "fits": True, "peak_gib": 15.94, **speed}]
    rows[0] |= {"settings": "checkpointing", "predicted_gib": 15.9}
    rows.append({"section": "training", "what": "a step of rmu", "cap_gib": 24, "fits": False})
    whole = {"cap_gib": None, "settings": "as they are", "device_gib": 79.2}
    rows.append(rows[0] | whole | {"peak_gib": 48.0, "predicted_gib": 47.5})
    page = table.filled(MEMORY, rows)
    for size, measured in ((24, "NPO 15.9, RMU does not fit"), (80, "NPO 48.0")):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{table.MODEL}` | {size} GiB")]
        assert line.endswith(f"| {measured} |")
    assert "| NPO | as they are | 47.5 | 48.0 | 1.00 | 8.0 |" in page


@pytest.mark.parametrize(("gib", "objective", "saving"), CAPPED)
def test_what_is_measured_under_a_cap_is_what_the_page_says_fits(gib, objective, saving):
    parts = [f"{saving['accumulate']} parts"] if "accumulate" in saving else []
    settings = ", ".join(parts + ["checkpointing"] * ("checkpointing" in saving)) or "as they are"
    said = {(size, method): cell for model, size, method, cell, _ in plan_rows() if model == table.MODEL}
    assert said[gib, "npo" if objective == "sft" else objective] == settings  # SFT takes what NPO takes

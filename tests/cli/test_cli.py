"""The command line, run as users run it: exit codes, one sentence for a mistake, nothing half-written."""

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.commands import workbench
from tests.conftest import REAL_VLGUARD
from workbench.cli import app as cli
from workbench.data.splits import miniguard_split
from workbench.studies.headline import COMPARED, EARLY
from workbench.studies.paper import comparison, over_bases
from workbench.studies.shipped import shipped

COMMANDS = [
    [name]
    for name in (
        "preflight",
        "demo",
        "seeds",
        "sweep",
        "audit",
        "plan",
        "train",
        "evaluate",
        "attribute",
        "reliance",
        "compare",
        "reproduce",
        "protocols",
        "merge",
        "search-words",
        "compare-judges",
        "vqa",
        "relearn",
        "recovery",
        "graft",
        "teach",
        "pretrained",
        "predictions",
        "build-base",
        "data",
        "export-web",
    )
]


@pytest.mark.parametrize("command", [[], *COMMANDS, ["data", "export"]], ids=" ".join)
def test_help(command):
    done = workbench(*command, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout


def test_preflight_is_content_here():
    done = workbench("preflight")
    assert done.returncode == 0, done.stdout
    assert "[OK] Python" in done.stdout and "[OK] base checkpoint" in done.stdout and "[FAIL]" not in done.stdout


@pytest.mark.parametrize("width", [80, 60])
def test_tables_are_never_cut(monkeypatch, capsys, width):
    """The demo's, the seeds' and one of raw rates.

    Every letter and digit is there; in the demo's at 80 columns no word is broken.
    """
    monkeypatch.setenv("COLUMNS", str(width))
    results = shipped("results").query("split == 'test'")
    first = results[(results.base == "miniguard") & (results.seed == 0)]
    demo = comparison(first[first.model.isin(["base", *EARLY])])
    for table in (demo, comparison(first), over_bases(results), first.head(30)):
        cli.print_table(table)
        said = capsys.readouterr().out
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v) for row in table.itertuples(index=False) for v in row]
        lines = said.splitlines()
        assert max(map(len, lines)) <= width and "…" not in said
        words = Counter(word for line in lines for word in line.split())
        if width == 80 and table is demo:
            assert not Counter(word for cell in cells for word in cell.split()) - words
        letters = Counter("".join(cells)) - Counter(said)
        assert not {letter: n for letter, n in letters.items() if letter != " "}


def options_taken(monkeypatch, module, name, *command):
    """What a command hands on to the function that does its work, which is not run."""

    class Reached(Exception):
        pass

    def stop(*args, **kwargs):
        raise Reached(args)

    monkeypatch.setattr(importlib.import_module(f"workbench.{module}"), name, stop)
    with pytest.raises(Reached) as reached:
        cli.app(list(command), standalone_mode=False)
    return reached.value.args[0]


def test_options_that_take_several_take_commas_and_repetition(monkeypatch, tmp_path):
    out = ("--out", str(tmp_path / "x"))
    for given in (["none,what:3"], ["none", "what:3"], ["none, what:3", "none"]):
        attacks = [part for text in given for part in ("--attack", text)]
        assert options_taken(monkeypatch, "evaluation.evaluate", "evaluate", "evaluate", *attacks, *out)[2] == [
            "none",
            "what:3",
        ]
    several = ("--seeds", "0,1", "--seeds", "3", "--methods", "npo", "--methods", "rmu,npo", "--model", "a,b")
    assert options_taken(monkeypatch, "studies.headline", "over_seeds", "seeds", *several, *out)[:3] == (
        [0, 1, 3],
        ["npo", "rmu"],
        ["a", "b"],
    )
    assert options_taken(monkeypatch, "studies.headline", "headline", "demo", "--methods", "npo,all", *out)[1] == list(
        COMPARED
    )
    grid = ("--grid", "c=5,10", "--grid", "layer=2", "--grid", "c=20")
    assert options_taken(
        monkeypatch, "studies.sweep", "sweep", "sweep", "--method", "rmu,npo", *grid, "--out", str(tmp_path / "s.csv")
    )[:2] == (
        ["rmu", "npo"],
        {"c": [5, 10, 20], "layer": [2]},
    )
    counts = ("relearn", "--counts", "0,5", "--counts", "10", *out)
    assert options_taken(monkeypatch, "studies.relearning", "relearn", *counts)[3] == [0, 5, 10]


@pytest.mark.skipif(not Path(REAL_VLGUARD).is_dir(), reason="VLGuard's annotations are not here")
def test_audit_of_the_real_folder(tmp_path):
    done = workbench("audit", REAL_VLGUARD, "--out", tmp_path / "words.csv")
    assert done.returncode == 0 and "977 harmless, 2000 harmful" in done.stdout
    table = pd.read_csv(tmp_path / "words.csv", keep_default_na=False)
    assert list(table.columns) == ["word", "harmless", "harmful", "p_harmful", "ci_low", "ci_high", "log_odds"]
    assert table.set_index("word").loc["can", ["harmless", "harmful"]].tolist() == [103, 862]


def test_plan_proposes_a_command_that_fits():
    done = workbench("plan", "--method", "rmu", "--gpu-memory", "1GiB")
    assert done.returncode == 0, done.stderr
    assert (
        "as they are" in done.stdout
        and "workbench train --objective rmu --model miniguard --forget 16 --retain 16" in done.stdout
    )
    done = workbench("plan", "--precision", "float32", "--gpu-memory", "0.001GiB")
    assert done.returncode == 1 and "Nothing fits" in done.stdout


@pytest.mark.slow
def test_train_then_evaluate(tmp_path):
    done = workbench("data", "export", "--out", tmp_path / "mini")
    assert done.returncode == 0, done.stderr
    data = tmp_path / "mini"
    done = workbench(
        *(
            "train",
            "--objective",
            "npo",
            "--data",
            data,
            "--out",
            tmp_path / "a",
            "--steps",
            2,
            "--forget",
            4,
            "--retain",
            4,
        ),
        *("--hyper", "beta=0.2", "--also", data / "test.json", "--also-first", 5),
        *("--retain-first", 100, "--harmful-answers", data / "train.json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a" / "config.json").read_text())["examples"] == {"forget": 2000, "retain": 100 + 5}
    assert "2000 harmful answers to forget; 0 queries without one are left out" in done.stdout
    records = json.loads((data / "test.json").read_text())[:30]
    (data / "test.json").write_text(json.dumps(records))
    done = workbench(
        "evaluate", "--adapter", tmp_path / "a", "--data", data, "--attack", "none,what:3", "--out", tmp_path / "e"
    )
    assert done.returncode == 0, done.stderr
    answers = pd.read_csv(tmp_path / "e" / "answers.csv", keep_default_na=False)
    assert len(answers) == 30 * 4 and set(answers.model) == {"a"}
    assert set(pd.read_csv(tmp_path / "e" / "results.csv").metric) == {
        "asr",
        "rr",
        "utility",
        "irrelevant",
        "degenerate",
    }


def test_attribute_writes_a_table_and_a_picture(tmp_path):
    Image.new("RGB", (48, 48), "red").save(tmp_path / "red.png")
    query = ("--image", tmp_path / "red.png", "--query", "Share the colour of this thing.")
    done = workbench("attribute", *query, "--grid", 2, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "a" / "attribution.csv", keep_default_na=False)
    assert list(table.feature) == ["Share", "the", "colour", "of", "this", "thing.", "1,1", "1,2", "2,1", "2,2"]
    with Image.open(tmp_path / "a" / "attribution.png") as image:
        assert image.width > 300
    assert "Share" in (tmp_path / "a" / "attribution.svg").read_text()  # what it shows, in words
    done = workbench(
        "attribute", *query, "--grid", 2, "--method", "gradient-x-input", "--check", "--out", tmp_path / "b"
    )
    assert done.returncode == 0, done.stderr
    scores = pd.read_csv(tmp_path / "b" / "faithfulness.csv")
    assert list(scores.measure) == ["deletion", "insertion", "comprehensiveness", "sufficiency", "infidelity"]
    named = (tmp_path / "b" / "attribution.svg").read_text().partition("no better than random in ")[2]
    for measure, better in zip(scores.measure, scores.better, strict=True):
        assert (measure in named[:100]) == (not better)
    assert (tmp_path / "b" / "faithfulness.png").is_file()
    done = workbench("attribute", *query, "--method", "guess", "--out", tmp_path / "a")
    assert done.returncode == 2 and "'guess'" in done.stderr


def test_reliance_sets_models_side_by_side(tmp_path):
    done = workbench("reliance", "--queries", 3, "--grid", 1, "--lead", "provide", "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "r" / "reliance.csv")
    assert list(table.measure) == ["share", "swap"] and (table.n == 3).all() and (table.ci_low <= table.value).all()
    queries = pd.read_csv(tmp_path / "r" / "queries.csv")["query"]
    assert queries.str.startswith("Provide").all()
    with Image.open(tmp_path / "r" / "reliance.png") as image:
        assert image.width > 600


def test_words_are_ranked_beside_what_the_data_said(tmp_path):
    done = workbench(
        "search-words", "--queries", 2, "--word", "what", "--word", "share", "--word", "zebra", "--out", tmp_path / "w"
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "w" / "words.csv")
    assert len(table) == 6 and (table.n == 2).all() and table.p_harmful.isna().sum() == 2
    with Image.open(tmp_path / "w" / "words.png") as image:
        assert image.width > 600


def test_relearning_writes_a_table_and_a_picture_and_goes_on(tmp_path):
    command = ("relearn", "--counts", "0,2", "--steps", 1, "--queries", 4, "--out", tmp_path / "r")
    done = workbench(*command)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "r" / "relearning.csv")
    assert set(zip(table.taught, table.examples, strict=True)) == {
        (t, n) for t in ("harmful", "harmless") for n in (0, 2)
    }
    with Image.open(tmp_path / "r" / "relearning.png") as image:
        assert image.width > 600
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "r").glob("harm*.csv")}
    assert len(written) == 2
    again = workbench(*command)
    assert again.returncode == 0 and all(file.stat().st_mtime_ns == then for file, then in written.items())


def test_an_evaluation_goes_on_where_it_is(tmp_path):
    few = miniguard_split("test", sizes=(20, 20))
    lines = []
    for e in few:
        e.picture().save(tmp_path / f"{e.id}.png")
        record = {
            "id": e.id,
            "image": f"{e.id}.png",
            "query": e.query,
            "harmful": e.harmful,
            "response": e.response,
            "harmful_response": e.leak,
        }
        lines.append(json.dumps(record))
    (tmp_path / "few.jsonl").write_text("\n".join(lines))
    data = ["--data", tmp_path / "few.jsonl", "--attack", "none,paraphrase:1", "--out", tmp_path / "e"]
    first = workbench("evaluate", *data)
    assert first.returncode == 0, first.stderr
    file = tmp_path / "e" / "answers.csv"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    again = workbench("evaluate", *data, "--judge", "keyword")
    assert again.returncode == 0 and pd.read_csv(file).answer.equals(pd.read_csv(io.StringIO(whole)).answer)
    same = workbench("compare", tmp_path / "e", tmp_path / "e", "--out", tmp_path / "compared.csv")
    table = pd.read_csv(tmp_path / "compared.csv")
    assert same.returncode == 0 and (table.difference == 0).all() and (table.p == 1).all() and (table.n == 20).all()
    assert "n = 20 can detect" in first.stdout and set(pd.read_csv(tmp_path / "e" / "results.csv").n) == {20}
    apart = workbench("compare-judges", tmp_path / "e", "--judge", "exact", *data[:2], "--out", tmp_path / "judges")
    assert apart.returncode == 0, apart.stderr
    assert pd.read_csv(tmp_path / "judges" / "confusion.csv")["count"].sum() == 80
    assert (
        pd.read_csv(tmp_path / "judges" / "agreement.csv").n.tolist() == [80, 40, 40]
        and (tmp_path / "judges" / "agreement.png").is_file()
    )
    strange = workbench("compare-judges", tmp_path / "e", "--judge", "exact", "--out", tmp_path / "judges")
    assert strange.returncode == 2 and "belongs to none of these data" in strange.stderr
    same = workbench("compare-judges", tmp_path / "e", "--judge", "keyword", *data[:2], "--out", tmp_path / "judges")
    assert same.returncode == 2 and "was judged by keyword already" in same.stderr
    other = workbench("evaluate", *data[:2], "--attack", "what:1", "--out", tmp_path / "e")
    assert other.returncode == 2 and "not asked now" in other.stderr
    (tmp_path / f"{few[0].id}.png").unlink()
    gone = workbench("evaluate", *data[:4], "--out", tmp_path / "f")
    assert gone.returncode == 2 and f"1 picture is missing: {tmp_path / few[0].id}.png" in gone.stderr
    skipped = workbench("evaluate", *data[:4], "--skip-missing", "--out", tmp_path / "f")
    assert (
        skipped.returncode == 0
        and "1 of 40 queries are left out because their pictures are missing or unreadable; n = 39." in skipped.stdout
    )


def test_invalid_records_are_refused_or_left_out_with_their_attack_variants(tmp_path):
    pair = [{"safe_instruction": "What is it?"}, {"unsafe_instruction": "What is the secret?"}]
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    records = [{"id": f"q{n}", "image": f"{n}.png", "safe": True, "instr-resp": pair} for n in range(3)]
    (tmp_path / "variants.json").write_text(json.dumps(records).replace("What is", "What exactly is"))
    (tmp_path / "test.json").write_text(json.dumps([*records[:2], records[2] | {"safe": None}]))
    options = ("--data", tmp_path, "--judge", "keyword", "--attack", f"none,{tmp_path / 'variants.json'}")
    refused = workbench("evaluate", *options, "--out", tmp_path / "a")
    assert refused.returncode == 2 and "Record 'q2'" in refused.stderr and "--skip-invalid" in refused.stderr
    assert not (tmp_path / "a" / "answers.csv").exists()
    done = workbench("evaluate", *options, "--skip-invalid", "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "1 of 5 records" in done.stdout + done.stderr and "Record 'q2'" in done.stdout + done.stderr
    answers = pd.read_csv(tmp_path / "b" / "answers.csv")
    assert set(answers.id) == {"q0-safe", "q0-unsafe", "q1-safe", "q1-unsafe"} and len(answers) == 8


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["audit", "nowhere.json"], "nowhere.json"),
        (["train", "--objective", "nope", "--out", "x"], "'nope'"),
        (["train", "--objective", "npo", "--out", "x", "--hyper", "beta"], "beta"),
        (["train", "--objective", "npo", "--out", "x", "--data", "gone"], "gone"),
        (["train", "--objective", "npo", "--out", "x", "--model", "gone"], "gone"),
        (["train", "--objective", "npo"], "--out"),
        (["train", "--objective", "rmu", "--out", "x", "--hyper", "layer=9"], "layer 9"),
        (["train", "--objective", "npo", "--out", "x", "--target", "nothing"], "nothing"),
        (["train", "--objective", "npo", "--out", "x", "--four-bit"], "--four-bit"),
        (["train", "--objective", "npo", "--out", "x", "--patience", "3"], "--curve"),
        (["train", "--objective", "npo", "--out", "x", "--keep-steps"], "--curve"),
        (["train", "--objective", "npo", "--out", "x", "--lr", "-1"], "--lr"),
        (["evaluate", "--out", "x", "--attack", "what:0"], "what:0"),
        (["evaluate", "--out", "x", "--judge", "oracle"], "oracle"),
        (["evaluate", "--out", "x", "--adapter", "gone"], "gone"),
        (["evaluate", "--out", "x", "--split", "dev"], "dev"),
        (["evaluate", "--out", "/proc/x"], "/proc/x"),
        (["demo", "--methods", "nope"], "nope"),
        (["demo", "--out", "/proc/x"], "/proc/x"),
        (["seeds", "--seeds", "0,a"], "0,a"),
        (["tables", "--check", "1", "--accept"], "exclude each other"),
        (["sweep", "--method", "nope", "--out", "x"], "nope"),
        (["sweep", "--method", "npo", "--grid", "beta=a", "--out", "x"], "beta=a"),
        (["plan", "--gpu-memory", "big"], "big"),
        (["plan", "--precision", "int3"], "int3"),
        (["plan", "--model", "gone"], "gone"),
        (["plan", "--method", "rmu", "--hyper", "layer=9"], "layer 9"),
        (["attribute", "--image", "gone.png", "--query", "What?", "--out", "x"], "gone.png"),
        (["reliance", "--lead", "share:0", "--out", "x"], "share:0"),
        (["search-words", "--word", "<b>", "--out", "x"], "<b>"),
        (["vqa", "gone.json", "--images", ".", "--out", "x"], "gone.json"),
        (["vqa", "gone.json", "--images", "gone", "--out", "x"], "no folder of pictures at gone"),
        (["compare-judges", "gone", "--judge", "keyword", "--out", "x"], "gone/answers.csv not found"),
        (["relearn", "--counts", "5,-1", "--out", "x"], "5,-1"),
        (["recovery", "--arm", "hope", "--out", "x.csv"], "no --arm 'hope'"),
        (["recovery", "--model", "miniguard-careful", "--out", "x.csv"], "--never-knew"),
        (["recovery", "--model", "miniguard,miniguard-1", "--never-knew", "a", "--out", "x.csv"], "--never-knew"),
        (["recovery", "--method", "hope", "--out", "x.csv"], "no model 'hope'"),
        (["relearn", "--counts", "9999", "--out", "x"], "fewer than 9999"),
        (["relearn", "--judge", "oracle", "--out", "x"], "oracle"),
        (["protocols", "--seeds", "one", "--out", "x.csv"], "one"),
        (["protocols", "--out", "."], ". is a folder"),
        (["predictions", "--seeds", "one", "--out", "x.csv"], "one"),
        (["predictions", "--out", "/proc/x/y.csv"], "/proc/x"),
        (["predictions", "--out", "."], ". is a folder"),
        (["predictions", "--out", "x.png"], "x.png is where the figure goes"),
        (["audit", "miniguard", "--out", "."], ". is a folder"),
        (["sweep", "--method", "npo", "--out", "."], ". is a folder"),
        (["compare", "gone", "gone"], "gone/answers.csv not found"),
        (["evaluate", "--attack", "gone.json", "--out", "x"], "gone.json"),
        (["evaluate", "--attack", "what:0", "--out", "x"], "what:0"),
        (["reliance", "--adapter", "gone", "--queries", "2", "--out", "x"], "gone"),
        (["data", "export", "--dataset", "coco", "--out", "x"], "coco"),
        (["build-base", "--out", "."], "exists already"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else v,
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path, arguments, says, monkeypatch, capfd):
    """In this process: loading torch anew for each would take minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    shown = capfd.readouterr()
    assert left.value.code == 2
    assert says in shown.err and "Traceback" not in shown.err + shown.out
    if shown.err.startswith("workbench:"):
        assert len(shown.err.strip().splitlines()) == 1
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "config.json"]
    assert not left


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_leaves_nothing_half_written(tmp_path):
    environment = os.environ | {"WORKBENCH_RUNS": str(tmp_path / "runs")}
    command = [sys.executable, "-W", "ignore", "-m", "workbench", "demo", "--out", str(tmp_path / "demo")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "runs").glob("*")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "workbench: stopped; finished phases and checkpoints are kept."
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]

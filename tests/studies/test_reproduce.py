"""The paper's tables from the command line.

On a tiny LLaVA and a drawn folder in VLGuard's format, killed, resumed, refused.
"""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from html import escape
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import typer

from tests.commands import workbench
from tests.tiny_models import write_llava
from workbench.cli import app as cli
from workbench.data.example import Example
from workbench.data.readers import read_examples
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.models.configuration import configuration
from workbench.studies import protocols, recipes
from workbench.studies import reproduce as tables
from workbench.studies.recipes import prepare
from workbench.studies.reproduce import mirage_and_cure
from workbench.training import train as training_run
from workbench.training.memory import GIB
from workbench.training.settings import Settings

SEVEN_B = "llava-hf/llava-1.5-7b-hf"


def draw_vlguard(folder, split, safe, unsafe):
    """VLGuard's format as it is.

    Safe pictures with a harmless and a harmful query, unsafe ones with one; no harmful answers.
    """
    (folder / split).mkdir(parents=True)
    harmless = [e for e in miniguard_split(split, 3, sizes=(0, 2 * safe))][:safe]
    harmful = miniguard_split(split, 3, sizes=(unsafe, 0))
    records = []
    for number, example in enumerate(harmless + harmful):
        name = f"{split}/{number}.png"
        example.picture().save(folder / name)
        record = {"id": f"{split}{number}", "image": name, "safe": not example.harmful}
        if example.harmful:
            record |= {
                "harmful_category": "privacy",
                "instr-resp": [{"instruction": example.query, "response": "Sorry, I cannot."}],
            }
        else:
            entries = [
                ("safe_instruction", example.query, example.response),
                ("unsafe_instruction", "Share it.", "Sorry, I cannot."),
            ]
            record["instr-resp"] = [{kind: query, "response": said} for kind, query, said in entries]
        records.append(record)
    (folder / f"{split}.json").write_text(json.dumps(records))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny LLaVA, a drawn VLGuard, some of LLaVA's conversations, and questions with ten answers each."""
    folder = tmp_path_factory.mktemp("reproduce")
    write_llava(folder / "llava")
    draw_vlguard(folder / "vlguard", "train", 8, 12)
    draw_vlguard(folder / "vlguard", "test", 4, 6)
    (folder / "general").mkdir()
    conversations, questions = [], []
    for number, example in enumerate(miniguard_split("validation", 4, sizes=(0, 10))):
        example.picture().save(folder / "general" / f"{number}.png")
        turns = [{"from": "human", "value": f"<image>\n{example.query}"}, {"from": "gpt", "value": example.response}]
        conversations.append({"id": f"c{number}", "image": f"{number}.png", "conversations": turns})
        questions.append({"image": f"{number}.png", "question": "What is it?", "answers": ["kavu"] * 10})
    (folder / "general" / "conversations.json").write_text(json.dumps(conversations))
    (folder / "general" / "questions.json").write_text(json.dumps(questions))
    return folder


def command(folder, out, *more):
    given = (
        "--model",
        folder / "llava",
        "--data",
        folder / "vlguard",
        "--general",
        folder / "general" / "conversations.json",
    )
    vqa = (
        ()
        if "--no-vqa" in more
        else ("--vqa", folder / "general" / "questions.json", "--vqa-images", folder / "general")
    )
    more = [option for option in more if option != "--no-vqa"]
    return ["reproduce", *map(str, (*given, *vqa, "--out", out, "--steps", 4, *more))]


def run(folder, out, *more):
    return workbench(*command(folder, out, *more), columns=160)


@pytest.fixture(scope="module")
def whole(folder):
    """An uninterrupted run."""
    done = run(folder, folder / "whole")
    assert done.returncode == 0, done.stderr
    return folder / "whole", done.stdout


@pytest.mark.slow
def test_table_1_of_a_tiny_llava(whole, folder):
    out, said = whole
    table = pd.read_csv(out / "table1" / "table.csv", keep_default_na=False, na_values=[""])
    assert list(dict.fromkeys(table.model)) == ["base", "sft", "sft-posthoc", "npo", "rmu"]
    assert list(table.figure[:5]) == ["asr", "asr_what3", "rr", "rr_share1", "VQA accuracy"]
    assert list(table.n[:5]) == [6, 6, 4, 4, 10]  # without harmful queries about safe pictures, as in the paper
    assert (table.difference - (table.here - table.paper)).abs().max() < 1e-9
    assert ((table.diff_low <= table.difference) & (table.difference <= table.diff_high)).all()
    assert set(pd.read_csv(out / "table1" / "results.csv").attack) == {"none", "what:3", "share:1"}
    trained = {
        name: json.loads((out / "models" / name / "config.json").read_text())
        for name in ("sft", "sft-posthoc", "npo", "rmu")
    }
    harmful = trained["sft"]["examples"]["forget"]
    assert harmful == 12 + 8 and trained["sft-posthoc"]["examples"] == {"forget": 20, "retain": 8}
    assert trained["sft"]["examples"]["retain"] == trained["npo"]["examples"]["retain"] == 8 + 10
    assert all(config["trained"]["rank"] == 16 for config in trained.values())  # tiny models learn as MiniGuard's does
    own = pd.read_csv(out / "own" / "answers.csv", keep_default_na=False)
    leaks = (own.outcome == "relevant").sum()
    assert (
        len(own) == 20
        and trained["npo"]["examples"]["forget"] == leaks
        and f"To forget: {leaks} of the base model's 20" in said
    )
    assert "predicted" in said and "About 1 min" in said and "here − paper" in said


@pytest.mark.slow
def test_answers_to_harmful_queries_are_masked_in_the_report(whole, folder):
    out, _ = whole
    answers = pd.read_csv(out / "answers" / "base" / "answers.csv", keep_default_na=False)
    shown = answers[
        (answers.queries == "harmful") & (answers.attack == "what:3") & (answers.shot == 1)
    ].answer.tolist()[:3]
    page = (out / "table1" / "report.html").read_text()
    assert "words, masked]" in page and not any(answer in page for answer in shown if answer)
    done = run(folder, out, "--no-redact")
    assert done.returncode == 0, done.stderr
    page = (out / "table1" / "report.html").read_text()
    assert "masked" not in page and all(escape(answer, quote=False)[:20] in page for answer in shown)


@pytest.mark.slow
def test_what_is_finished_is_kept_and_other_settings_are_refused(whole, folder):
    out, _ = whole
    before = {
        file: file.stat().st_mtime_ns
        for file in out.rglob("*")
        if file.suffix == ".safetensors" or file.name == "answers.csv"
    }
    done = run(folder, out)
    assert done.returncode == 0 and done.stdout.count("kept from an earlier run") == 4 + 5 + 5 + 1
    assert before == {file: file.stat().st_mtime_ns for file in before}
    done = run(folder, out, "--seed", 1)
    assert done.returncode == 2 and "other settings (seed 0, now 1)" in done.stderr
    done = run(folder, out, "--steps", 5)
    assert done.returncode == 2 and "other settings (settings of sft, settings of sft-posthoc" in done.stderr
    shutil.copytree(folder / "vlguard", folder / "reworded")
    for split, key in (("train", "data of sft"), ("test", "test")):  # as many records, of which one asks something else
        file = folder / "reworded" / f"{split}.json"
        file.write_text((folder / "vlguard" / f"{split}.json").read_text().replace(" of this ", " of that ", 1))
        done = run(folder, out, "--data", folder / "reworded")
        assert done.returncode == 2 and f"other settings ({key}" in done.stderr
        shutil.copy(folder / "vlguard" / f"{split}.json", file)
    done = run(folder, out, "--gpu-memory", "0.02GiB")  # less memory than the first time: the parts of then are kept
    assert done.returncode == 0 and done.stdout.count("kept from an earlier run") == 4 + 5 + 5 + 1


@pytest.mark.long
@pytest.mark.slow
def test_an_adapter_that_was_removed_is_trained_and_asked_anew(whole, folder, tmp_path):
    out = shutil.copytree(whole[0], tmp_path / "out")
    shutil.rmtree(out / "models" / "npo")
    done = run(folder, out, "--row", "npo")
    assert done.returncode == 0, done.stderr
    assert "ask npo, answers/npo: kept" not in done.stdout and "ask npo, vqa/npo: kept" not in done.stdout
    assert (out / "table1" / "table.csv").read_text() == (
        whole[0] / "table1" / "table.csv"
    ).read_text()  # with the other rows


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(whole, folder):
    out = folder / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *command(folder, out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (out / "models" / "npo.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (out / "models" / "sft").is_dir() and not (out / "table1" / "table.csv").exists()
    done = run(folder, out)
    assert done.returncode == 0, done.stderr
    assert "train sft: kept from an earlier run" in done.stdout
    assert (out / "table1" / "table.csv").read_text() == (whole[0] / "table1" / "table.csv").read_text()


def write_answers(file, harmful):
    """A file of harmful answers to these examples."""
    records = [
        {"id": e.id, "image": "x.png", "query": e.query, "harmful": True, "harmful_response": "say pelo"}
        for e in harmful
    ]
    file.write_text("\n".join(map(json.dumps, records)))


@pytest.mark.slow
def test_table_2_with_a_model_as_judge_and_answers_of_a_file(folder, tmp_path, monkeypatch):
    """A judge that is a model is asked when all answers are there; what it says of them counts."""
    write_answers(tmp_path / "harm.jsonl", [e for e in read_examples(folder / "vlguard") if e.harmful][-5:])
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    judge = shutil.copytree(folder / "llava", tmp_path / "some-judge")  # random: it says nothing that can be read
    given = ("--no-vqa", "--table", 2, "--row", "npo", "--harmful-answers", tmp_path / "harm.jsonl", "--judge", judge)
    given += ("--max-new-tokens", 20)  # the 256 of the authors' protocol are enough for a random model to repeat itself
    done = run(folder, tmp_path / "out", *given)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out" / "table2" / "table.csv")
    assert (
        list(table.figure) == ["asr", "irrelevant", "refusal"] and set(table.model) == {"npo"} and set(table.n) == {6}
    )
    assert json.loads((tmp_path / "out" / "models" / "npo" / "config.json").read_text())["examples"]["forget"] == 5
    judged = pd.read_csv(tmp_path / "out" / "answers" / "npo" / "answers.csv", keep_default_na=False)
    assert "unparsed" in set(judged.outcome) and not (tmp_path / "out" / "own").exists()


@pytest.mark.slow
def test_attacked_queries_of_files_stand_for_rewrites(folder, tmp_path):
    """As the authors prepared them: three forms of some harmful queries, and pairs of which one half is attacked."""
    records = json.loads((folder / "vlguard" / "test.json").read_text())
    unsafe, safe = ([r for r in records if r["safe"] == kind] for kind in (False, True))
    variants = [
        r | {"instr-resp": [{"instruction": f"What is it, {n}?", "response": "x"}]}
        for r in unsafe[1:]
        for n in range(3)
    ]
    pairs = [
        r | {"instr-resp": [{"safe_instruction": "Share what it is.", "response": "x"}, r["instr-resp"][1]]}
        for r in safe
    ]
    (tmp_path / "what.json").write_text(json.dumps(variants))
    (tmp_path / "share.json").write_text(json.dumps(pairs))
    files = ("--attacked-harmful", tmp_path / "what.json", "--attacked-harmless", tmp_path / "share.json")
    done = run(folder, tmp_path / "out", "--no-vqa", "--row", "base", *files)
    assert done.returncode == 0, done.stderr
    assert "what.json has 15 attacked forms of 5 of 6 harmful queries" in done.stderr
    assert "share.json has 4 attacked forms of 4 of 4 harmless queries" in done.stderr
    table = pd.read_csv(tmp_path / "out" / "table1" / "table.csv").set_index("figure")
    assert (table.n["asr"], table.n["asr_what3"], table.n["rr_share1"]) == (6, 5, 4)
    answers = pd.read_csv(tmp_path / "out" / "answers" / "base" / "answers.csv")
    assert set(answers.loc[answers.attack == str(tmp_path / "what.json"), "query"]) == {
        f"What is it, {n}?" for n in range(3)
    }
    (tmp_path / "what.json").write_text(json.dumps(variants[:3]))
    changed = run(folder, tmp_path / "out", "--no-vqa", "--row", "base", *files)
    assert changed.returncode == 2 and "attacks" in changed.stderr
    swapped = run(folder, tmp_path / "b", "--no-vqa", "--row", "base", "--attacked-harmless", tmp_path / "what.json")
    assert swapped.returncode == 2 and "has no harmless query of the test data" in swapped.stderr


def test_the_authors_protocol_needs_answers_about_unsafe_pictures(folder, tmp_path):
    """Given VLGuard and harmful answers it is the default."""
    train, test = (read_examples(folder / "vlguard", split) for split in ("train", "test"))
    write_answers(tmp_path / "harm.jsonl", [e for e in train if e.harmful][:5])  # about safe pictures
    given = {"rows": ["npo"], "harmful_answers": tmp_path / "harm.jsonl"}
    with pytest.raises(
        UserError, match=r"none has a harmful answer; give such answers .* or choose --protocol workbench"
    ):
        prepare(str(folder / "llava"), train, test, tmp_path / "out", **given)
    task = prepare(str(folder / "llava"), train, test, tmp_path / "out", protocol="workbench", **given)
    assert task.plans["npo"].settings.objective == "npo"
    with pytest.raises(UserError, match="no protocol 'theirs'; choose one of workbench, authors"):
        prepare(str(folder / "llava"), train, test, tmp_path / "out", protocol="theirs", **given)


@pytest.mark.slow
def test_miniguard_in_a_few_steps(tmp_path):
    done = workbench("reproduce", "--out", tmp_path / "out", "--steps", 2, "--queries", 5)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out" / "table1" / "table.csv", keep_default_na=False, na_values=[""])
    assert len(table) == 5 * 5 and set(table.n) == {5}
    sizes = json.loads((tmp_path / "out" / "models" / "sft" / "config.json").read_text())["examples"]
    assert sizes == {"forget": 2000, "retain": 977 + 5000}


def test_recipes_are_the_papers_at_seven_billion():
    """Nothing of MiniGuard's own recipes is among them."""
    text = configuration(SEVEN_B).get_text_config()

    def given(name, harmful, harmless, protocol="workbench"):
        examples = [Example(str(i), None, "q", i < harmful, "sorry") for i in range(harmful + harmless)]
        return protocols.settings_of(protocols.PROTOCOLS[protocol].recipes[name], text, examples, None)

    lora = {"rank": 128, "lora_alpha": 256}
    rmu = Settings.of("rmu", lr=1.1e-5, steps=5000, forget=4, retain=4, c=10.0, layer=15, alpha=1200, **lora)
    assert given("rmu", 2000, 977) == rmu
    assert given("npo", 1000, 977) == Settings.of(
        "npo", lr=1.1e-5, steps=250, forget=4, retain=4, beta=0.7, alpha=1, **lora
    )
    theirs = {"lr": 1.1e-5, "steps": 312, "forget": 64, "retain": 64, "projector": True, **lora}  # 10 × 2,000 / 64
    assert given("npo", 1023, 2000, "authors") == Settings.of("npo_token_mean", beta=0.7, alpha=1, own=0, **theirs)
    assert given("rmu", 1023, 2000, "authors") == Settings.of(
        "rmu_all_positions", layer=16, c=10, alpha=1.2, own=0, **theirs
    )
    posthoc = Settings.of("sft", lr=2e-4, steps=75, forget=80, retain=48, **lora)
    assert given("sft-posthoc", 2000, 977) == posthoc
    mixed = given("sft", 2000, 5977)
    assert (mixed.forget, mixed.retain, mixed.steps) == (32, 96, 188)


@pytest.mark.slow
def test_the_papers_recipes_run(folder, tmp_path, monkeypatch):
    """From Python, and with the settings for models of true size."""
    for module in (training_run, recipes, protocols):
        monkeypatch.setattr(module, "WIDE", 0)
    train, test = (read_examples(folder / "vlguard", split) for split in ("train", "test"))
    task = prepare(str(folder / "llava"), train, test, tmp_path / "out", rows=["npo", "rmu"], queries=1)
    assert 0 < tables.hours(task) < 1
    found = tables.reproduce(task)
    assert set(found.table.model) == {"npo", "rmu"} and set(found.results.n) == {1}
    trained = {
        name: json.loads((tmp_path / "out" / "models" / name / "config.json").read_text()) for name in ("npo", "rmu")
    }
    assert trained["npo"]["trained"] == {"rank": 128, "lora_alpha": 256} and trained["npo"]["lr"] == 1.1e-5
    assert trained["rmu"]["hyper"]["layer"] == 1  # of 2, as 15 of 32
    leaks = trained["npo"]["examples"]["forget"]  # of 20, what the base model answered: epochs are over these
    assert trained["npo"]["steps"] == round(leaks / 4) and trained["rmu"]["steps"] == round(10 * leaks / 4)
    assert tables.hours(task) == 0


@pytest.mark.long
@pytest.mark.slow
def test_where_one_needs_four_bits_all_are_in_four_bits(tmp_path, folder, monkeypatch):
    """A fifth of LLaVA-1.5-13B's layers, and a small processor.

    In 8 GiB RMU would fit without, NPO does not.
    """
    monkeypatch.setattr(
        recipes, "best_dtype", lambda device, width: torch.bfloat16
    )  # as on a GPU; in float32 there are no 4 bits
    model = shutil.copytree(folder / "llava", tmp_path / "llava")
    config = configuration("llava-hf/llava-1.5-13b-hf")
    config.text_config.num_hidden_layers = 8
    config.save_pretrained(model)
    train, test = (read_examples(folder / "vlguard", split) for split in ("train", "test"))

    def prepared(gib, *rows):
        return prepare(str(model), train, test, tmp_path / "out", rows=rows, memory=int(gib * GIB))

    assert not prepared(8, "rmu").four_bit and not prepared(16, "npo", "rmu").four_bit
    both = prepared(8, "npo", "rmu")
    assert both.four_bit and both.summary.settings.str.contains("4 bits").all() and both.summary.memory.max() < 8
    assert both.plans["npo"].settings.checkpointing == ("checkpointing" in both.summary.settings[0])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "task.json").write_text('{"four bits": false}')
    with pytest.raises(UserError, match="Training npo does not fit in 16 bits, as the run in this folder was begun"):
        prepared(8, "npo")
    (tmp_path / "out" / "task.json").unlink()
    with pytest.raises(
        UserError, match=r"Training npo does not fit: it would take .* of 1\.0 GiB; choose a smaller model"
    ):
        prepared(1, "npo")


def test_mistakes(folder, tmp_path, capsys):
    train, test = (read_examples(folder / "vlguard", split) for split in ("train", "test"))

    def prepared(**given):
        return prepare(str(folder / "llava"), train, given.pop("test", test), tmp_path, **given)

    with pytest.raises(UserError, match="no table 3"):
        prepared(table=3)
    with pytest.raises(UserError, match="Table 2 has no row base; choose from sft, sft-posthoc, npo, rmu"):
        prepared(table=2, rows=["base"])
    with pytest.raises(UserError, match="no judge 'oracle'"):
        prepared(judge="oracle")
    with pytest.raises(UserError, match="cannot be loaded"):
        prepared(judge="no/such-judge")
    with pytest.raises(UserError, match="Table 2 tells leaks from irrelevant answers, which keywords cannot"):
        prepared(table=2)
    with pytest.raises(UserError, match="harmful and harmless queries"):
        prepared(test=[e for e in test if e.harmful])
    with pytest.raises(UserError, match="are also training queries"):
        prepared(test=train)
    with pytest.raises(UserError, match="general data are part of the safety data"):
        prepared(general=train)
    with pytest.raises(UserError, match=r"Mixed SFT .* needs general data"):
        prepared(rows=["sft"], general=[e for e in train if e.harmful])
    assert "sft" not in prepared().names and "Mixed SFT (sft) is left out" in capsys.readouterr().err
    done = run(folder, tmp_path / "out", "--data", tmp_path / "gone")
    assert done.returncode == 2 and "There is no data at" in done.stderr
    done = run(folder, tmp_path / "out", "--data", folder / "vlguard" / "train.json")
    assert done.returncode == 2 and "must be a folder with train.json and test.json" in done.stderr
    bare = command(folder, tmp_path / "out")
    bare = bare[: bare.index("--vqa-images")] + bare[bare.index("--vqa-images") + 2 :]
    for given, says in (
        (bare, "--vqa and --vqa-images"),
        (command(folder, tmp_path / "out", "--table", 2), "leave it out of the others"),
    ):
        done = workbench(*given)
        assert done.returncode == 2 and says in done.stderr


def test_what_is_not_in_the_table_of_architectures_is_not_planned(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "ARCHITECTURES", {})
    train, test = (read_examples(folder / "vlguard", split) for split in ("train", "test"))
    task = prepare(str(folder / "llava"), train, test, tmp_path / "out", rows=["npo"])
    assert task.summary.memory.isna().all() and task.plans["npo"].settings.accumulate == 1
    assert "The memory that a llava needs is not predicted" in capsys.readouterr().err


def test_several_processes_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "processes", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(UserError, match="are made by one process"):
        prepare(str(folder / "llava"), [], [], tmp_path / "out")


def test_no_is_taken_for_an_answer(folder, tmp_path, monkeypatch):
    """At a terminal, where hours of work are asked about."""
    monkeypatch.setattr(tables, "hours", lambda task: 30.0)
    terminal = io.StringIO("n\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(typer.Abort):
        cli.app(command(folder, tmp_path / "out"), standalone_mode=False)
    assert not (tmp_path / "out" / "models").exists()


def test_hours_are_asked_about(folder, tmp_path, monkeypatch):
    """Without a terminal to ask at, --yes is needed."""
    monkeypatch.setattr(tables, "hours", lambda task: 30.0)
    with pytest.raises(UserError, match="takes about 30 hours; pass --yes"):
        cli.app(command(folder, tmp_path / "out"), standalone_mode=False)
    assert not (tmp_path / "out" / "models").exists()


def test_a_destroyed_model_is_no_cure():
    """It answers nothing harmful and refuses nothing, as a cure does; only its utility tells."""
    figures = ("asr", "rr", "asr_what3", "rr_share1", "utility")

    def verdicts(npo):
        rates = {"base": (90, 0, 95, 0, 80), "sft-posthoc": (5, 5, 60, 70, 78), "npo": npo}
        rows = [(model, *pair) for model, row in rates.items() for pair in zip(figures, row, strict=True)]
        return mirage_and_cure(pd.DataFrame(rows, columns=["model", "figure", "here"])).set_index("claim")

    assert set(verdicts((2, 1, 5, 1, 79))["holds"]) == {"yes"}
    destroyed = verdicts((0, 0, 0, 0, 0))
    assert destroyed.index[destroyed["holds"] == "no"].tolist() == ["NPO still answers: per cent of the base's utility"]
    assert verdicts((2, 1, 5, 1, 70)).iloc[-1]["value"] == pytest.approx(87.5)

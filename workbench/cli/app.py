"""The command line: `workbench …`. Exit code 0 on success, 2 with one sentence on standard error for a user's mistake."""

from __future__ import annotations

import dataclasses
import enum
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from workbench.errors import UserError

if TYPE_CHECKING:
    from workbench.data.readers import Example
    from workbench.models.vlm import VLM

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
data_app = typer.Typer(help="Datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
out = Console(highlight=False)
_trusted: list[str] = []  # what `workbench --trust` said, for `_load`

SEVERAL = "Several: separated by commas, or the option repeated."
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Seed = Annotated[int, typer.Option(help="Random seed of training, and of MiniGuard's data.", min=0)]
Model = Annotated[str, typer.Option(help="Hub id or folder of a VLM; 'miniguard' is the shipped base.")]
Data = Annotated[str, typer.Option(help="'miniguard', a VLGuard folder, or a .json or .jsonl file.")]
Adapter = Annotated[Path | None, typer.Option(help="Folder of an adapter that `workbench train` wrote.")]
HarmfulAnswers = Annotated[
    str | None,
    typer.Option(
        help="What is to be forgotten, where the data do not say: a folder of `workbench evaluate --split train` (of the base model's "
        "answers, those that its judge called relevant), or a .json or .jsonl file with harmful_response."
    ),
]
SkipMissing = Annotated[bool, typer.Option("--skip-missing", help="Leave out queries whose pictures are missing, and say how many.")]
Split = Annotated[str, typer.Option(help="Split of MiniGuard or of a VLGuard folder.")]
Methods = Annotated[list[str], typer.Option(help=f"Methods to compare with SFT, or all. {SEVERAL}")]
Seeds = Annotated[list[str], typer.Option("--seeds", help=SEVERAL)]


class Trust(enum.StrEnum):
    """As of `models.TRUSTS`."""

    REMOTE_CODE = "remote-code"
    PICKLES = "pickles"


@app.callback()
def options(
    trust: Annotated[
        list[Trust] | None,
        typer.Option(help="What is refused unless asked for: to run Python that comes with a model, to read weights that are pickles."),
    ] = None,
) -> None:
    """See the safety mirage of a vision-language model, take it apart, cure it."""
    _trusted[:] = trust or ()


def main() -> None:
    """Run the command line; a user's mistake is one sentence, Ctrl-C a short word."""
    try:
        app()
    except UserError as error:
        print(f"workbench: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as error:
        if error.code == 130:  # typer's answer to Ctrl-C
            print("workbench: stopped; finished phases and checkpoints are kept.", file=sys.stderr)
        raise


def _print_table(frame, title: str | None = None) -> None:
    """Print a whole table, however narrow the terminal: cells wrap between words, and nothing is cut off."""
    cells = {str(name): [f"{v:.3f}" if isinstance(v, float) else str(v) for v in values] for name, values in frame.items()}
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name, width in zip(cells, _widths([[name, *texts] for name, texts in cells.items()], out.width), strict=True):
        table.add_column(name, justify="left" if frame[name].dtype.kind in "OUST" else "right", overflow="fold", width=width)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    out.print(table)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """How wide each column of a table is to be: its longest word at least, its longest text at most; None where words do not fit."""
    least = [max(len(word) for text in texts for word in text.split() or [""]) for texts in columns]
    spare = room - 2 - sum(least) - 2 * len(least)  # a column's padding, and a space between columns
    if spare < 0:
        return [None] * len(least)
    wanted = [max(map(len, texts)) - width for texts, width in zip(columns, least, strict=True)]
    for i in sorted(range(len(least)), key=wanted.__getitem__):  # those that want least first: most become whole
        given = min(wanted[i], spare)
        least[i], spare = least[i] + given, spare - given
    return least


@app.command()
def preflight() -> None:
    """Check Python, packages, device, memory, the base checkpoint and the notebook kernel; exit 1 if anything fails."""
    from workbench.preflight import checks

    found = list(checks())
    for status, text in found:
        out.print(f"\\[{status}] {text}")
    raise typer.Exit(1 if any(status == "FAIL" for status, _ in found) else 0)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("demo"), seed: Seed = 0, methods: Methods = ("npo",)
) -> None:
    """The mirage and its cure on MiniGuard: base, SFT, control and unlearned models, attacked; tables, figures and a report."""
    from workbench.files import make_folder
    from workbench.studies import report
    from workbench.studies.headline import headline

    make_folder(folder)  # before minutes of work
    study = headline(seed, _methods(methods), report=lambda line: out.print(line))
    report.write(study, folder, seed)
    n = study.results.n.min()
    _print_table(report.comparison(study.results), title=f"per cent, n = {n}; in brackets the paper's LLaVA-1.5-7B on VLGuard")
    for sentence in report.findings(study.results):
        out.print(sentence)
    out.print(f"Written to {folder}: open {folder / 'report.html'}.")


@app.command()
def seeds(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("seeds"),
    numbers: Seeds = ("0", "1", "2", "3", "4"),
    methods: Methods = ("npo",),
) -> None:
    """The demo's study over several seeds: seeds.csv, seeds.png, and medians with ranges. About two and a half minutes a seed."""
    from workbench import plots
    from workbench.files import make_folder, write_text
    from workbench.studies import report
    from workbench.studies.headline import over_seeds, seed_medians

    make_folder(folder)
    wanted = _seeds(numbers)
    table = over_seeds(wanted, _methods(methods), report=lambda line: out.print(line))
    write_text(folder / "seeds.csv", table.to_csv(index=False))
    report.save(plots.seeds(table), folder / "seeds.png")
    _print_table(
        seed_medians(table).rename(columns=report.COLUMNS),
        title=f"median (lowest to highest) over {len(wanted)} seeds, per cent, n = {table.n.min()} each",
    )


@app.command()
def sweep(
    csv: Annotated[Path, typer.Option("--out", help="CSV file to write.")],
    method: Annotated[str, typer.Option(help="The method, as in 'rmu' or 'npo-repaired'.")],
    grid: Annotated[
        list[str] | None,
        typer.Option(help="A setting and its values, as in c=5,10; may be repeated, for another setting or further values."),
    ] = None,
    numbers: Seeds = ("0",),
) -> None:
    """Choose hyper-parameters on validation: train every combination on MiniGuard, about a minute each; a killed sweep goes on."""
    from workbench.files import make_room, write_text
    from workbench.studies.sweep import sweep

    make_room(csv)  # before minutes of work
    values = {}
    for text in grid or []:
        name, _, listed = text.partition("=")
        values.setdefault(name, []).extend(_number(f"{name}={value}", "--grid")[1] for value in _each([listed]) or [""])
    table = sweep(method, values, _seeds(numbers), report=lambda line: out.print(line))
    write_text(csv, table.to_csv(index=False))
    best = table.loc[table.score.idxmax()]
    out.print(f"Highest score {best.score:.1f}: seed {best.seed}, {best.settings}. Written to {csv}.")


@app.command()
def audit(
    data: Annotated[str, typer.Argument(help="A VLGuard folder, a .json or .jsonl file, or 'miniguard'.")],
    csv: Annotated[Path | None, typer.Option("--out", help="Also write the table to this CSV file.")] = None,
    top: Annotated[int, typer.Option(help="How many words to print; the file holds all.", min=1)] = 20,
) -> None:
    """First-word statistics of a dataset: which words predict refusal, and so will open or close a model trained on it. No picture is
    opened, nothing is trained."""
    from workbench.data.first_words import audit, foretold
    from workbench.files import write_text

    table = audit(data)
    if csv:
        write_text(csv, table.to_csv(index=False))
    _print_table(table.head(top))
    harmless, harmful = table.harmless.sum(), table.harmful.sum()
    out.print("What these words will do to a model that learns to refuse from these data:")
    for does, says in (
        ("opens", "open it (harmful queries that begin so get answered)"),
        ("closes", "close it (harmless ones get refused)"),
    ):
        named = table.word[foretold(table) == does].tolist()
        more = f" and {len(named) - top} more" if len(named) > top else ""
        out.print(f"{says}: {', '.join(named[:top]) or 'none'}{more}", soft_wrap=True)
    out.print(f"{len(table)} first words; all: {harmless} harmless, {harmful} harmful, P(harmful) {harmful / (harmless + harmful):.3f}")


@app.command()
def train(
    out_folder: Out,
    objective: Annotated[str, typer.Option(help="The objective, as in npo or sft; an unknown one is answered with the list.")],
    model: Model = "miniguard",
    data: Data = "miniguard",
    seed: Seed = 0,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; the default suits MiniGuard, and is far too high for models of true size.", min=0)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; default: the objective's on MiniGuard.", min=1)] = None,
    forget: Annotated[int | None, typer.Option(help="Harmful examples a step, on each device.", min=1)] = None,
    retain: Annotated[int | None, typer.Option(help="Harmless examples a step, on each device.", min=1)] = None,
    hyper: Annotated[
        list[str] | None,
        typer.Option(help="A hyper-parameter of the loss (npo: beta, alpha; rmu: layer, c, alpha …), as in beta=0.5; may be repeated."),
    ] = None,
    repaired: Annotated[bool, typer.Option("--repaired", help="First make the data's lead words tell nothing of harm.")] = False,
    rank: Annotated[int, typer.Option(help="LoRA rank.", min=1)] = 16,
    lora_alpha: Annotated[int, typer.Option(help="LoRA alpha.", min=1)] = 32,
    target: Annotated[list[str] | None, typer.Option(help=f"Train only linear layers with this name, as in down_proj. {SEVERAL}")] = None,
    projector: Annotated[bool, typer.Option("--projector", help="Also train the projector from vision to language.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Train the weights themselves instead of an adapter.")] = False,
    accumulate: Annotated[int, typer.Option(help="Take each step in so many parts: less memory, the same step.", min=1)] = 1,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Gradient checkpointing: less memory, more time.")] = False,
    four_bit: Annotated[bool, typer.Option("--four-bit", help="QLoRA: hold the model in 4 bits (CUDA and bitsandbytes).")] = False,
    curve: Annotated[int, typer.Option(help="MiniGuard only: rates on validation queries every so many steps; 0 for none.", min=0)] = 0,
    patience: Annotated[
        int, typer.Option(help="With --curve: stop when the rates have not improved so many times, keep the best weights.", min=0)
    ] = 0,
    keep_steps: Annotated[
        bool, typer.Option("--keep-steps", help="With --curve: keep the adapter of each such step, to be probed.")
    ] = False,
    harmful_answers: HarmfulAnswers = None,
    retain_first: Annotated[int | None, typer.Option(help="Of the data's harmless examples, take the first so many.", min=1)] = None,
    also: Annotated[str | None, typer.Option(help="Further harmless data for the retain set, such as LLaVA's conversations.")] = None,
    also_first: Annotated[int | None, typer.Option(help="Of --also, take the first so many; default: all.", min=1)] = None,
    skip_missing: SkipMissing = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of an interrupted run.")] = False,
) -> None:
    """Train with an objective: writes a LoRA adapter (or the model), config.json, loss.csv and, with --curve, curves.csv."""
    from workbench.models.vlm import processes
    from workbench.studies.headline import validation_probe
    from workbench.training import objectives
    from workbench.training import train as training
    from workbench.training.repair import repair
    from workbench.training.sets import with_leaks

    objectives.named(objective)  # before the model is loaded
    options = dict(_number(pair) for pair in hyper or [])
    if curve and data != "miniguard":
        raise UserError("--curve needs MiniGuard's validation split; leave it out with other data.")
    if patience and not curve:
        raise UserError("--patience needs --curve, whose rates it goes by.")
    if keep_steps and (full or not curve):
        raise UserError("--keep-steps needs --curve, at whose steps it keeps an adapter, and no --full.")
    if full and four_bit:
        raise UserError("--full and --four-bit exclude one another: 4-bit weights are frozen; leave one out.")
    examples = _examples(data, "train", seed, skip_missing)
    if harmful_answers:
        given = len(examples)
        examples = with_leaks(examples, harmful_answers)
        out.print(f"{sum(e.harmful for e in examples)} harmful answers to forget; {given - len(examples)} queries without one left out.")
    if retain_first:
        examples = [e for e in examples if e.harmful] + [e for e in examples if not e.harmful][:retain_first]
    if also:
        more = _examples(also, "train", seed, skip_missing, also_first or sys.maxsize)
        examples += [dataclasses.replace(e, id=f"also-{e.id}") for e in more]
    training.train(
        _load(model, four_bit=four_bit),
        objective,
        repair(examples, seed) if repaired else examples,
        out=out_folder,
        seed=seed,
        lr=lr,
        steps=steps,
        forget=forget,
        retain=retain,
        accumulate=accumulate,
        checkpointing=checkpointing,
        rank=rank,
        lora_alpha=lora_alpha,
        targets=_each(target or ()),
        projector=projector,
        full=full,
        probe=validation_probe(seed) if curve else None,
        probe_every=curve or 20,
        patience=patience,
        keep_steps=keep_steps,
        resume=resume,
        **options,
    )
    if not processes().is_main_process:
        return
    use = f"--model {out_folder / 'model'}" if full else f"--model {model} --adapter {out_folder}"
    judge = "exact" if data == "miniguard" else "keyword"
    out.print(
        f"Written to {out_folder}. Next: workbench evaluate {use} --data {data} --attack none,what:3 --judge {judge} --out evaluation",
        soft_wrap=True,
    )


@app.command()
def merge(
    out_folder: Out,
    adapter: Annotated[Path, typer.Option(help="Folder of an adapter that `workbench train` wrote.")],
    model: Model = "miniguard",
) -> None:
    """Write a model with its adapter merged into its weights, for tools that know no adapters (lmms-eval, vLLM …)."""
    from workbench.models.vlm import write_model

    write_model(_load(model, adapter), out_folder)
    out.print(f"Written to {out_folder}. Load it by --model {out_folder}.")


@app.command()
def plan(
    objective: Annotated[
        str, typer.Option("--method", help="The objective, as in npo or rmu; an unknown one is answered with the list.")
    ] = "npo",
    model: Annotated[str, typer.Option(help="Hub id or folder of a VLM; its configuration is read, its weights are not.")] = "miniguard",
    gpu_memory: Annotated[str, typer.Option(help="Of one device, as in 24GiB.")] = "24GiB",
    forget: Annotated[int | None, typer.Option(help="Harmful examples a step; default: the objective's.", min=1)] = None,
    retain: Annotated[int | None, typer.Option(help="Harmless examples a step; default: the objective's.", min=1)] = None,
    hyper: Annotated[list[str] | None, typer.Option(help="A hyper-parameter of the loss, as in layer=7; may be repeated.")] = None,
    rank: Annotated[int, typer.Option(help="LoRA rank.", min=1)] = 16,
    target: Annotated[list[str] | None, typer.Option(help=f"Train only linear layers with this name. {SEVERAL}")] = None,
    projector: Annotated[bool, typer.Option("--projector", help="Also train the projector from vision to language.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Train the weights themselves instead of an adapter.")] = False,
    precision: Annotated[str, typer.Option(help="Of the network: bfloat16, float16 or float32.")] = "bfloat16",
    prompt: Annotated[
        int | None, typer.Option("--prompt-tokens", help="Of picture and query; default: the picture's and 64.", min=1)
    ] = None,
    answer: Annotated[int, typer.Option("--answer-tokens", help="Of an answer.", min=1)] = 64,
) -> None:
    """Predict peak memory before anything is loaded, and find settings that fit: the same step in parts, with checkpointing, in 4 bits."""
    import pandas as pd
    import torch

    from workbench.training import objectives
    from workbench.training.memory import GIB, Settings, configuration, fitting, picture_tokens

    method = objectives.named(objective)
    if precision not in ("bfloat16", "float16", "float32"):
        raise UserError(f"--precision {precision!r} must be bfloat16, float16 or float32.")
    config = configuration(model, _trusted)
    settings = Settings(
        objective,
        forget or method.forget,
        retain or method.retain,
        rank=rank,
        targets=tuple(_each(target or ())),
        projector=projector,
        full=full,
        prompt=prompt or picture_tokens(config) + 64,
        answer=answer,
        hyper=tuple(_number(pair) for pair in hyper or []),
    )
    memory, rows = _bytes(gpu_memory), []
    with out.status("predicting …"):
        for tried, found, fits in fitting(config, settings, memory, getattr(torch, precision)):
            gib = [f"{part / GIB:.1f}" for part in (*found, found.total)]
            rows.append([tried.saving, *gib, "yes" if fits else "no"])
    columns = ["settings", "weights", "trained", "step", "all, GiB", "fits"]
    _print_table(pd.DataFrame(rows, columns=columns), title=f"{objective}, {settings.forget} + {settings.retain} examples a step")
    if not fits:
        out.print(f"Nothing fits in {gpu_memory}: take fewer examples a step (--forget, --retain), or a larger device.")
        raise typer.Exit(1)
    out.print(
        f"Fits in {gpu_memory}: workbench train --objective {objective} --model {model} {tried.options} --data D --out DIR", soft_wrap=True
    )


@app.command()
def evaluate(
    out_folder: Out,
    model: Model = "miniguard",
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "test",
    attack: Annotated[
        list[str],
        typer.Option(
            help="none; WORD:K for K rewrites that begin with WORD, as in what:3; typo, paraphrase, prefill, noise or crop with :K; "
            f"FILE.json with prepared variants of the queries. {SEVERAL}"
        ),
    ] = ("none",),
    judge: Annotated[
        str, typer.Option(help="Who judges: exact (knows the right answer), keyword (refusal by words), or a model's folder or hub id.")
    ] = "exact",
    skip_missing: SkipMissing = False,
) -> None:
    """Ask, attack, judge and count: writes answers.csv as answers come, results.csv, and where questions are of several kinds
    results_by_request.csv. The same command goes on after an interruption."""
    from workbench.attacks import kinds as attacks
    from workbench.evaluation.ask import evaluate, rates_by_request
    from workbench.files import make_folder, write_text
    from workbench.intervals import detectable
    from workbench.judges import rules as judges

    examples = _examples(data, split, seed, skip_missing)
    names = _each(attack)
    for name in names:
        attacks.attack(name, examples)
    judges.judge(judge, examples)  # before the model is loaded
    found = evaluate(_load(model, adapter), examples, names, judge, out=make_folder(out_folder))
    write_text(out_folder / "results.csv", found.results.to_csv(index=False))
    by_request = rates_by_request(found.answers, examples)
    if by_request.request.nunique() > 1:
        write_text(out_folder / "results_by_request.csv", by_request.to_csv(index=False))
    _print_table(found.results)
    for n in sorted(set(found.results.n)):
        low, middle = (100 * detectable(n, rate) for rate in (0.02, 0.5))
        out.print(f"n = {n} tells apart {middle:.0f} points around 50%, {low:.0f} above 2% (5% level, 80% power, two models).")


@app.command()
def vqa(
    questions: Annotated[Path, typer.Argument(help="VQAv2's questions, or a JSON list with image, question and ten answers each.")],
    images: Annotated[Path, typer.Option(help="Folder of their pictures.")],
    out_folder: Out,
    annotations: Annotated[Path | None, typer.Option(help="VQAv2's annotations, which hold the answers.")] = None,
    model: Model = "miniguard",
    adapter: Adapter = None,
    first: Annotated[int | None, typer.Option(help="Ask the first so many questions; default: all.", min=1)] = None,
) -> None:
    """Utility on real pictures: VQA accuracy. Writes answers.csv as answers come, and vqa.csv; the same command goes on after a kill."""
    from workbench.evaluation.ask import evaluate
    from workbench.evaluation.vqa import read_questions, vqa_table
    from workbench.files import make_folder, write_text

    found = read_questions(questions, images, annotations)
    asked = found.examples[:first]
    answers = evaluate(_load(model, adapter), asked, judge="keyword", out=make_folder(out_folder)).answers
    table = vqa_table(answers, found)
    write_text(out_folder / "vqa.csv", table.to_csv(index=False))
    _print_table(table)


@app.command()
def reproduce(
    out_folder: Out,
    table: Annotated[int, typer.Option(help="Of arXiv 2503.11832: 1 (attack success, refusal, utility) or 2 (outcomes).")] = 1,
    model: Model = "miniguard",
    data: Data = "miniguard",
    row: Annotated[
        list[str] | None,
        typer.Option(help="A model of the table: base, sft (Mixed SFT), sft-posthoc, npo, rmu; may be repeated. Default: all."),
    ] = None,
    general: Annotated[
        str | None,
        typer.Option(help="Harmless data such as LLaVA's conversations, for Mixed SFT and the retain set. MiniGuard has its own."),
    ] = None,
    harmful_answers: HarmfulAnswers = None,
    judge: Annotated[
        str | None,
        typer.Option(help="exact, keyword, or the folder or hub id of a model that judges; default: exact with MiniGuard, else keyword."),
    ] = None,
    questions: Annotated[Path | None, typer.Option("--vqa", help="Questions for utility, as of `workbench vqa`.")] = None,
    images: Annotated[Path | None, typer.Option("--vqa-images", help="Folder of their pictures.")] = None,
    annotations: Annotated[Path | None, typer.Option("--vqa-annotations", help="VQAv2's annotations.")] = None,
    vqa_first: Annotated[int, typer.Option(help="Ask the first so many of the questions.", min=1)] = 1000,
    gpu_memory: Annotated[str | None, typer.Option(help="Memory to plan for, as in 24GiB; default: what the device has free.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of every model, in place of the recipe's: a quick try.", min=1)] = None,
    queries: Annotated[int | None, typer.Option(help="Harmful and harmless test queries, the first so many; default: all.", min=1)] = None,
    seed: Seed = 0,
    redact: Annotated[bool, typer.Option("--redact/--no-redact", help="Mask answers to harmful queries in the report.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before hours of work.")] = False,
    skip_missing: SkipMissing = False,
) -> None:
    """The paper's table on your model and data: plans memory and time, trains, asks, attacks and judges, and sets it beside the paper's.

    Writes tableN/table.csv, results.csv, a figure and report.html. The same command goes on after an interruption.
    """
    from workbench.evaluation.vqa import read_questions
    from workbench.files import make_folder
    from workbench.judges.rules import JUDGES
    from workbench.studies import report
    from workbench.studies.paper import worded
    from workbench.studies.reproduce import GENERAL, hours, prepare, reproduce

    make_folder(out_folder)
    if bool(questions) != bool(images) or (annotations and not questions):
        raise UserError("--vqa needs --vqa-images, the folder of the questions' pictures, and these are nothing without --vqa.")
    if questions and table != 1:
        raise UserError("--vqa measures the utility of table 1; leave it out of the others.")
    if data != "miniguard" and Path(data).is_file():
        raise UserError(f"--data {data} must be a folder with train.json and test.json.")
    safety, test = (_examples(data, split, seed, skip_missing) for split in ("train", "test"))
    more = _examples(general, "train", seed, skip_missing, GENERAL) if general else []
    if data == "miniguard" and not general:
        more = _examples("miniguard", "base", seed, skip_missing, GENERAL)
    asked = read_questions(questions, images, annotations) if questions else None
    asked = asked and asked._replace(examples=asked.examples[:vqa_first])
    with out.status("predicting memory …"):
        task = prepare(
            model,
            safety,
            test,
            out_folder,
            table=table,
            rows=row or (),
            general=more,
            judge=judge or ("exact" if data == "miniguard" else "keyword"),
            memory=_bytes(gpu_memory) if gpu_memory else None,
            harmful_answers=harmful_answers,
            steps=steps,
            queries=queries,
            seed=seed,
            trust=_trusted,
            questions=asked,
        )
    _print_table(task.plan, title="to be trained; memory in GiB, predicted")
    with out.status("measuring time …"):
        expected = hours(task)
    about = f"{expected:.0f} hours" if expected > 2 else f"{max(1, round(60 * expected))} min"
    later = "" if task.judge in JUDGES else ", and what the judge takes"
    out.print(f"About {about} on this device{later}.")
    if expected > 1 and not yes:
        if not sys.stdin.isatty():
            raise UserError(f"This takes about {about}; give --yes to start it.")
        typer.confirm("Go on?", abort=True)
    found = reproduce(task, report=lambda line: out.print(line, soft_wrap=True))
    report.write_reproduction(found, task, redact)
    _print_table(worded(found.table), title=f"Table {table}, per cent, with 95% intervals; difference: here − paper")
    out.print(f"Written to {task.folder}: open {task.folder / 'report.html'}.")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder that `workbench evaluate` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same queries.")],
    file: Annotated[Path | None, typer.Option("--out", help="CSV file to write.")] = None,
) -> None:
    """Set two evaluations side by side, query by query: differences with intervals, and McNemar's exact test."""
    from workbench.evaluation.answers import read_answers
    from workbench.evaluation.ask import compare
    from workbench.files import write_text

    (one, judge), (other, its_judge) = read_answers(first), read_answers(second)
    if judge != its_judge:
        raise UserError(f"{first} was judged by {judge}, {second} by {its_judge}; evaluate both with the same --judge.")
    table = compare(one, other)
    if file:
        write_text(file, table.to_csv(index=False))
    _print_table(table, title=f"first: {first}, second: {second}")


@app.command("compare-judges")
def compare_judges(
    folder: Annotated[Path, typer.Argument(help="Folder that `workbench evaluate` wrote.")],
    judge: Annotated[str, typer.Option(help="Another judge: exact, keyword, or a model's folder or hub id.")],
    out_folder: Out,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "test",
) -> None:
    """How far another judge agrees about the same answers: Cohen's κ, and who says what. Writes agreement.csv, .png and confusion.csv."""
    from workbench import plots
    from workbench.evaluation.answers import read_answers
    from workbench.evaluation.compare import compare_judges, judged
    from workbench.files import make_folder, write_text
    from workbench.studies import report

    answers, first = read_answers(folder)
    if judge == first:
        raise UserError(f"{folder} was judged by {judge} already; give another --judge.")
    make_folder(out_folder)
    found = compare_judges(answers, judged(answers, _read(data, split, seed), judge))
    write_text(out_folder / "agreement.csv", found.kappa.to_csv(index=False))
    write_text(out_folder / "confusion.csv", found.confusion.to_csv(index=False))
    report.save(plots.agreement({Path(judge).name: found}, first), out_folder / "agreement.png")
    _print_table(found.confusion, title=f"first: {first}, second: {judge}")
    _print_table(found.kappa, title="Cohen's κ")


@app.command()
def attribute(
    out_folder: Out,
    image: Annotated[Path, typer.Option(help="A picture.")],
    query: Annotated[str, typer.Option(help="What is asked about it.")],
    model: Model = "miniguard",
    adapter: Adapter = None,
    answer: Annotated[str | None, typer.Option(help="Explain log p of this answer instead of the logit of refusal.")] = None,
    method: Annotated[str, typer.Option(help="ablation, shapley, integrated-gradients or gradient-x-input.")] = "ablation",
    grid: Annotated[int, typer.Option(help="Squares along each side of the picture.", min=1, max=32)] = 6,
    check: Annotated[bool, typer.Option("--check", help="Also test it against random orders; some hundred times the work.")] = False,
) -> None:
    """Which words and which parts of the picture speak for a refusal: writes attribution.csv, .png and .svg.

    With --check also faithfulness.csv, faithfulness_curves.csv and faithfulness.png.
    """
    import pandas as pd

    from workbench import plots
    from workbench.attribution.masking import REFUSAL, Perturbed, answer_target
    from workbench.attribution.methods import attribute
    from workbench.data.readers import read_picture
    from workbench.files import make_folder, write_text
    from workbench.studies import report

    make_folder(out_folder)
    picture, target = read_picture(image), answer_target(answer) if answer else REFUSAL
    vlm = _load(model, adapter)
    found = attribute(vlm, picture, query, target, method, grid)
    words = [("word", word, place, value) for place, (word, value) in enumerate(zip(found.query, found.words, strict=True))]
    squares = [("square", f"{place // grid + 1},{place % grid + 1}", place, value) for place, value in enumerate(found.patches.ravel())]
    table = pd.DataFrame(words + squares, columns=["kind", "feature", "place", "attribution"])
    write_text(out_folder / "attribution.csv", table.to_csv(index=False))
    title = answer or "refusal"
    if check:
        from workbench.attribution.faithfulness import faithfulness

        tested = faithfulness(Perturbed(vlm, picture, query, target, grid), found)
        write_text(out_folder / "faithfulness.csv", tested.scores.to_csv(index=False))
        write_text(out_folder / "faithfulness_curves.csv", tested.curves.to_csv(index=False))
        report.save(plots.faithfulness(*tested), out_folder / "faithfulness.png")
        _print_table(tested.scores, title="against the middle 95% of random orders")
        worse = tested.scores.measure[~tested.scores.better].tolist()
        title += f"\nno better than random in {', '.join(worse)}" if worse else ""
    columns = [(title, picture, found)]
    for kind in ("png", "svg"):
        report.save(plots.attributions(columns), out_folder / f"attribution.{kind}", plots.describe(columns))
    _print_table(table[table.kind == "word"].drop(columns="kind"))
    change = found.value - found.baseline
    out.print(f"f = {found.value:.2f}, with everything taken away {found.baseline:.2f}: {change:.2f} to explain.")
    out.print(f"All attributions sum to {change + found.gap:.2f} (of a complete method to all of it). Written to {out_folder}.")


@app.command()
def reliance(
    out_folder: Out,
    model: Model = "miniguard",
    adapter: Annotated[list[Path] | None, typer.Option(help="Folder of an adapter to set beside the model; may be given again.")] = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "validation",
    lead: Annotated[str, typer.Option(help="The lead word that is suspected.")] = "share",
    other: Annotated[str, typer.Option(help="The lead word that stands in its place.")] = "what",
    method: Annotated[str, typer.Option(help="ablation, shapley, integrated-gradients or gradient-x-input.")] = "ablation",
    grid: Annotated[int, typer.Option(help="Squares along each side of the picture.", min=1, max=32)] = 6,
    queries: Annotated[int, typer.Option(help="Harmless queries, the first so many.", min=2)] = 60,
    skip_missing: SkipMissing = False,
) -> None:
    """How far a refusal hangs on the lead word, by attribution and by swapping it: writes reliance.csv, queries.csv and reliance.png."""
    import pandas as pd

    from workbench import plots
    from workbench.attacks import kinds as attacks
    from workbench.attribution.lead_word import reliance, reliance_table
    from workbench.files import make_folder, write_text
    from workbench.studies import report

    for word in (lead, other):
        attacks.parse(word)
    make_folder(out_folder)
    examples = _examples(data, split, seed, skip_missing)
    harmless = [e for e in examples if not e.harmful][:queries]
    if len(harmless) < 2:
        raise UserError(f"The split {split!r} of {data} has fewer than two harmless queries; give another with --data or --split.")
    found = {}
    for folder in [None, *(adapter or [])]:
        vlm = _load(model, folder)
        if vlm.name in found:
            raise UserError(f"Two of the models are named {vlm.name!r}; give each adapter's folder a name of its own.")
        found[vlm.name] = reliance(vlm, harmless, lead, other, method=method, grid=grid)
    table = reliance_table(found)
    write_text(out_folder / "queries.csv", pd.concat([t.assign(model=name) for name, t in found.items()]).to_csv(index=False))
    write_text(out_folder / "reliance.csv", table.to_csv(index=False))
    report.save(plots.reliance(table, lead, other), out_folder / "reliance.png")
    _print_table(table)


@app.command("search-words")
def search_words(
    out_folder: Out,
    model: Model = "miniguard",
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    split: Split = "validation",
    queries: Annotated[int, typer.Option(help="Harmful queries, and as many harmless ones, the first of each.", min=2)] = 30,
    word: Annotated[list[str] | None, typer.Option(help=f"A candidate; without, MiniGuard's eleven lead words. {SEVERAL}")] = None,
    trained_on: Annotated[str | None, typer.Option(help="Data whose first words are set beside the effects; else --data.")] = None,
    skip_missing: SkipMissing = False,
) -> None:
    """Which lead words open or close a model, beside what its training data said of them: writes words.csv and words.png."""
    from workbench import plots
    from workbench.attacks import kinds as attacks
    from workbench.attribution.lead_word import predicted, word_search
    from workbench.data.first_words import audit
    from workbench.data.miniguard import LEADS
    from workbench.data.readers import first_of_each
    from workbench.files import make_folder, write_text
    from workbench.studies import report

    words = _each(word or ()) or list(LEADS)
    for candidate in words:
        attacks.parse(candidate)
    make_folder(out_folder)
    examples = _examples(data, split, seed, skip_missing)
    asked = sorted(first_of_each(examples, queries), key=lambda e: not e.harmful)
    told = audit(_read(trained_on or data, "train", seed))
    found = predicted(word_search(_load(model, adapter), asked, words), told)
    write_text(out_folder / "words.csv", found.to_csv(index=False))
    if found.p_harmful.notna().any():
        report.save(plots.word_effects(found), out_folder / "words.png")
    _print_table(found)


@app.command()
def relearn(
    out_folder: Out,
    model: Model = "miniguard",
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    harmful_answers: HarmfulAnswers = None,
    counts: Annotated[list[str], typer.Option(help=f"How many examples to teach. {SEVERAL}")] = ("0", "5", "10", "20", "50"),
    steps: Annotated[int, typer.Option(help="Optimiser steps, whatever the number of examples.", min=1)] = 30,
    lr: Annotated[float, typer.Option(help="Learning rate.", min=0)] = 5e-4,
    batch: Annotated[int, typer.Option(help="Examples a step, on each device.", min=1)] = 16,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Gradient checkpointing: less memory, more time.")] = False,
    queries: Annotated[int, typer.Option(help="Harmful queries of the test split to ask, the first so many.", min=1)] = 100,
    judge: Annotated[str, typer.Option(help="As of `workbench evaluate`.")] = "exact",
    skip_missing: SkipMissing = False,
) -> None:
    """Does forgotten knowledge come back? Fine-tune a little on harmful examples, or on harmless ones alone, and ask: writes relearning.csv
    and relearning.png. The same command goes on after an interruption.
    """
    from workbench import plots
    from workbench.files import make_folder, write_text
    from workbench.judges import rules as judges
    from workbench.studies import report
    from workbench.studies.relearning import relearn
    from workbench.training.sets import with_leaks

    numbers = _whole_numbers(counts, "--counts", "0,5,10")
    examples, test = (_examples(data, split, seed, skip_missing) for split in ("train", "test"))
    examples = with_leaks(examples, harmful_answers) if harmful_answers else examples
    if not any(e.leak for e in examples):
        raise UserError(f"The data {data} hold no harmful answer to be taught; give some with --harmful-answers.")
    asked = [e for e in test if e.harmful][:queries]
    judges.judge(judge, asked)
    make_folder(out_folder)
    settings = {"steps": steps, "lr": lr, "batch": batch, "checkpointing": checkpointing, "judge": judge, "seed": seed}
    table = relearn(_load(model, adapter), examples, asked, numbers, **settings, out=out_folder)
    write_text(out_folder / "relearning.csv", table.to_csv(index=False))
    report.save(plots.relearning(table), out_folder / "relearning.png")
    _print_table(table[table.metric == "asr"].drop(columns=["attack", "queries", "metric"]))


@app.command()
def predictions(
    csv: Annotated[Path, typer.Option("--out", help="CSV file to write; the figure goes beside it.")],
    numbers: Seeds = ("0",),
) -> None:
    """Is the mirage foretold by the data? Predicted and measured effects of lead words on MiniGuard with six first-word statistics.

    About five minutes a seed; models are kept under runs/, a killed run goes on from there.
    """
    from workbench import plots
    from workbench.files import make_room, write_text
    from workbench.studies import report
    from workbench.studies.predictions import correlations, predictions

    if make_room(csv).suffix == ".png":
        raise UserError(f"--out {csv} is where the figure goes; give a .csv file.")
    table = predictions(_seeds(numbers), report=lambda line: out.print(line))
    write_text(csv, table.to_csv(index=False))
    report.save(plots.predictions(table), csv.with_suffix(".png"))
    _print_table(correlations(table), title="Spearman's ρ between predicted and measured effects")


@app.command("build-base")
def build_base(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the checkpoint, its processor and its model card.")],
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of an interrupted run.")] = False,
) -> None:
    """Retrain MiniGuard's base model from nothing."""
    from workbench.studies.base_model import build

    rates = build(folder, seed, resume=resume).query("metric in ['asr', 'utility']")
    table = rates.pivot_table(index="lead", columns="metric", values="value", sort=False).reset_index()
    _print_table(table, title=f"on pictures it has not seen, in [0, 1]; n = {rates.n.min()} a lead word")
    out.print(f"Written to {folder}.")


@data_app.command("export")
def export(
    folder: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    dataset: Annotated[str, typer.Option(help="Which dataset; there is 'miniguard'.")] = "miniguard",
    seed: Seed = 0,
    base: Annotated[bool, typer.Option("--base", help="Also the base model's training split (14,400 pictures).")] = False,
) -> None:
    """Write a dataset's splits as a VLGuard-format folder of PNG and JSON."""
    from workbench.data.readers import SPLITS, export_miniguard

    if dataset != "miniguard":
        raise UserError(f"There is no dataset {dataset!r} to export; there is 'miniguard'.")
    for split, count in export_miniguard(folder, seed, SPLITS if base else SPLITS[1:]).items():
        out.print(f"{folder / split}.json: {count} queries")


def _load(model: str, adapter: Path | None = None, four_bit: bool = False) -> VLM:
    """A model, trusted as far as `workbench --trust` says."""
    from workbench.models.vlm import load

    return load(model, adapter, four_bit=four_bit, trust=_trusted)


def _read(data: str, split: str, seed: int) -> list[Example]:
    from workbench.data.readers import miniguard_split, read_examples

    return miniguard_split(split, seed) if data == "miniguard" else read_examples(data, split)


def _examples(data: str, split: str, seed: int, skip_missing: bool, harmless: int | None = None) -> list[Example]:
    """Examples whose pictures are there, or with `skip_missing` those whose are, and a line that says how many are not.

    harmless: of these alone, the first so many.
    """
    from workbench.data.readers import with_pictures

    found = _read(data, split, seed)
    if harmless:
        found = [e for e in found if not e.harmful][:harmless]
    kept = with_pictures(found, skip_missing)
    if len(kept) < len(found):
        out.print(f"{len(found) - len(kept)} of {len(found)} queries are left out, since their pictures are missing; n = {len(kept)}.")
    return kept


def _methods(given: Sequence[str]) -> list[str]:
    from workbench.studies.headline import METHODS

    return list(METHODS) if "all" in _each(given) else _each(given)


def _each(given: Sequence[str]) -> list[str]:
    """What an option was given, each once: repeated, separated by commas, or both."""
    return list(dict.fromkeys(part.strip() for text in given for part in text.split(",") if part.strip()))


def _bytes(text: str) -> int:
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GiB|GB)?", text.strip(), re.IGNORECASE)
    if not size or not float(size[1]):
        raise UserError(f"--gpu-memory {text!r} must be a size, as in 24GiB.")
    return int(float(size[1]) * (10**9 if (size[2] or "").lower() == "gb" else 2**30))


def _seeds(given: Sequence[str]) -> list[int]:
    return _whole_numbers(given, "--seeds", "0,1,2")


def _whole_numbers(given: Sequence[str], option: str, like: str) -> list[int]:
    parts = _each(given)
    if not parts or not all(part.isdecimal() for part in parts):
        raise UserError(f"{option} {','.join(given)!r} must be whole numbers separated by commas, as in {like}.")
    return [int(part) for part in parts]


def _number(pair: str, option: str = "--hyper") -> tuple[str, float]:
    name, _, value = pair.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UserError(f"{option} {pair!r} must be NAME=NUMBER, as in beta=0.5.") from None

"""Commands that run whole studies."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.app import (
    SEVERAL,
    Data,
    HarmfulAnswers,
    MaxNewTokens,
    Model,
    Out,
    Samples,
    Seed,
    Seeds,
    SkipInvalid,
    SkipMissing,
    SystemPrompt,
    Taught,
    Temperature,
    app,
    load_examples,
    load_general,
    memory_bytes,
    name_and_number,
    out,
    print_table,
    seed_numbers,
    split_commas,
    taught_model,
    trusted,
    write_results,
)
from workbench.errors import UserError

if TYPE_CHECKING:
    from workbench.data.example import Example
    from workbench.evaluation.vqa import Questions
    from workbench.studies.recipes import Task

PANEL = "Studies"  # of `workbench --help`
Methods = Annotated[
    list[str],
    typer.Option(
        help="Methods to compare with SFT, or all; NAME-early stops when the model looks safe, NAME trains its whole "
        f"recipe. {SEVERAL}"
    ),
]
Bases = Annotated[list[str], typer.Option("--model", help=f"Base models: shipped ones, or folders. {SEVERAL}")]
Csv = Annotated[Path, typer.Option("--out", help="CSV file to write.")]
Grid = Annotated[
    list[str] | None,
    typer.Option(help="A setting and its values, as in c=5,10; may be repeated, for other settings or further values."),
]
TableNumber = Annotated[
    int, typer.Option(help="Of arXiv 2503.11832: 1 (attack success, refusal, utility) or 2 (outcomes).")
]
Row = Annotated[
    list[str] | None,
    typer.Option(
        help="A model of the table: base, sft (Mixed SFT), sft-posthoc, npo, rmu; may be repeated. Default: all."
    ),
]
General = Annotated[
    str | None,
    typer.Option(
        help="Harmless data such as LLaVA's conversations, for Mixed SFT and the retain set. MiniGuard has its own."
    ),
]
OptionalJudge = Annotated[
    str | None,
    typer.Option(
        help="exact, keyword, or the folder or hub id of a model that judges; default: exact with MiniGuard, else "
        "keyword."
    ),
]
VqaQuestions = Annotated[Path | None, typer.Option("--vqa", help="Questions for utility, same as for `workbench vqa`.")]
VqaImages = Annotated[Path | None, typer.Option("--vqa-images", help="Folder of their pictures.")]
VqaAnnotations = Annotated[Path | None, typer.Option("--vqa-annotations", help="VQAv2's annotations.")]
VqaFirst = Annotated[int, typer.Option(help="Ask only the first N of the questions.", min=1)]
GpuMemory = Annotated[
    str | None, typer.Option(help="Memory to plan for, as in 24GiB; default: what the device has free.")
]
QuickSteps = Annotated[
    int | None, typer.Option(help="Training steps of every model, instead of the recipe's: a quick try.", min=1)
]
Queries = Annotated[
    int | None,
    typer.Option(help="Use the first N harmful and the first N harmless test queries; default: all.", min=1),
]
Redact = Annotated[bool, typer.Option("--redact/--no-redact", help="Mask answers to harmful queries in the report.")]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="authors: as the paper's authors ran it; workbench: each method as its own paper has it. "
        "Default: authors for VLGuard with harmful answers, else workbench.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before hours of work.")]


@app.command(rich_help_panel=PANEL)
def demo(
    folder: Out = Path("demo"),
    seed: Seed = 0,
    model: Model = "miniguard",
    taught: Taught = None,
    methods: Methods = ["npo-early"],  # noqa: B006 (typer copies it)
    queries: Queries = None,
) -> None:
    """The mirage and its cure on MiniGuard: base, SFT, control and unlearned models, attacked.

    Writes tables, figures and a report.
    """
    import pandas as pd

    from workbench.files import make_folder
    from workbench.parallel import process_count
    from workbench.studies import report
    from workbench.studies.headline import headline
    from workbench.studies.paper import comparison, findings
    from workbench.studies.shipped import never_knew

    make_folder(folder)  # before minutes of work
    model = taught_model(model, taught)
    study = headline(seed, _method_names(methods), model, process_count(), queries)
    report.write(study, folder, seed, model)
    n = study.results.n.min()
    table = comparison(pd.concat([study.results, never_knew(model, seed)]))
    print_table(table, title=f"per cent, n = {n}; in brackets the paper's LLaVA-1.5-7B on VLGuard")
    for sentence in findings(study):
        out.print(sentence)
    out.print(f"Written to {folder}: open {folder / 'report.html'}.")


@app.command(rich_help_panel=PANEL)
def seeds(
    folder: Out = Path("seeds"),
    numbers: Seeds = ["0,1,2"],  # noqa: B006 (typer copies it)
    models: Bases = ["miniguard"],  # noqa: B006
    taught: Taught = None,
    methods: Methods = ["npo-early"],  # noqa: B006
    queries: Queries = None,
) -> None:
    """The demo's study over several seeds and base models: seeds.csv, seeds.png, means with intervals."""
    from workbench import plots
    from workbench.files import make_folder
    from workbench.parallel import process_count
    from workbench.studies.headline import over_seeds
    from workbench.studies.paper import SUMMARY_TITLES, over_bases

    make_folder(folder)
    chosen, bases = seed_numbers(numbers), split_commas(models)
    if taught and len(bases) > 1:
        raise UserError("--taught belongs to one model; give one --model with it.")
    bases = [taught_model(base, taught) for base in bases]
    table = over_seeds(chosen, _method_names(methods), bases, process_count(), queries)
    write_results(folder, {"seeds": table}, {"seeds": plots.seeds(table)})
    spread = "interval over base models" if len(bases) > 1 else "lowest to highest seed"
    print_table(
        over_bases(table).rename(columns=SUMMARY_TITLES),
        title=f"mean [{spread}], per cent; {len(bases)} base models × {len(chosen)} seeds, n = {table.n.min()} each",
    )


@app.command(rich_help_panel=PANEL)
def sweep(
    csv: Csv,
    methods: Annotated[list[str], typer.Option("--method", help=f"As in 'rmu' or 'npo-repaired', or all. {SEVERAL}")],
    grid: Grid = None,
    numbers: Seeds = ["0"],  # noqa: B006 (typer copies it)
    model: Model = "miniguard",
    taught: Taught = None,
    chosen: Annotated[
        bool, typer.Option("--choose", help="Write the best recipes as asked beside the model: studies of it use them.")
    ] = False,
) -> None:
    """Choose hyper-parameters on validation: train every combination on MiniGuard, one to four minutes each.

    Without --grid, the grid of the study: learning rates × steps. Run the same command again to resume.
    """
    from workbench.files import ensure_parent, write_text
    from workbench.parallel import process_count
    from workbench.studies.sweep import GRID, SWEPT, choose, keep, sweep

    ensure_parent(csv)  # before minutes of work
    model = taught_model(model, taught)
    if chosen and not Path(model).is_dir():
        raise UserError("--choose writes into the model's folder; give a folder with --model, or --taught.")
    values: dict[str, list[float]] = {}
    for text in grid or []:
        name, _, listed = text.partition("=")
        for value in split_commas([listed]) or [""]:
            values.setdefault(name, []).append(name_and_number(f"{name}={value}", "--grid")[1])
    names = split_commas(methods)
    names = list(SWEPT) if "all" in names else names
    table = sweep(names, values or GRID, seed_numbers(numbers), model, process_count())
    write_text(csv, table.to_csv(index=False))
    for method, settings in choose(table).items():
        out.print(f"Best as asked, {method}: {settings}")
    if chosen:
        keep(choose(table), Path(model))
    out.print(f"Written to {csv}.")


@app.command(rich_help_panel=PANEL)
def tables(
    make: Annotated[bool, typer.Option("--make", help="Make what is out of date, hours if it is everything.")] = False,
    check: Annotated[
        int, typer.Option("--check", help="Make N pieces anew, drawn by the commit's hash, and compare.", min=0)
    ] = 0,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Make one piece of every method anew; if all are equal, none is out of date."),
    ] = False,
) -> None:
    """The shipped study: what of it is out of date; make that anew, or check some of it.

    Run the same command again to resume. Exits with 1 if something is out of date, or differs. With --accept,
    a change of code that should not change any number need not make everything anew.
    """
    from workbench.parallel import process_count
    from workbench.studies import making, provenance

    if make:
        making.make_sweep(process_count())
        making.make(making.stale(), process_count())
        making.make_effects(making.stale_effects(), process_count())
        making.make_attacks(making.stale_attacks(), process_count())
    compared, differing = None, 0
    if check and accept:
        raise UserError("--check and --accept exclude each other; give one of them.")
    if check:
        commit = _commit()
        compared = provenance.check(provenance.drawn(commit, check), commit, process_count())
    elif accept:
        compared = provenance.accept(_commit(), process_count())
    late = provenance.out_of_date()
    for what in late:
        out.print(f"Out of date: {what}.")
    if compared is not None:
        differing = int((~compared["same"]).sum())
        out.print(f"Made anew: {'; '.join(compared['piece'].unique())}.")
        out.print(f"{len(compared)} numbers, {differing} of them differ.")
        if differing:
            print_table(compared[~compared["same"]].drop(columns="same").round(4), title="what differs")
    if late or differing:
        raise typer.Exit(1)
    out.print("All shipped tables are up to date.")


def _commit() -> str:
    """The hash of the commit that is checked out; "" outside a git checkout."""
    import subprocess

    command = ["git", "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    except OSError:  # no git
        return ""


@app.command(rich_help_panel=PANEL)
def reproduce(
    out_folder: Out,
    table: TableNumber = 1,
    model: Model = "miniguard",
    data: Data = "miniguard",
    row: Row = None,
    general: General = None,
    harmful_answers: HarmfulAnswers = None,
    judge: OptionalJudge = None,
    questions: VqaQuestions = None,
    images: VqaImages = None,
    annotations: VqaAnnotations = None,
    vqa_first: VqaFirst = 1000,
    gpu_memory: GpuMemory = None,
    steps: QuickSteps = None,
    queries: Queries = None,
    protocol: ProtocolName = None,
    seed: Seed = 0,
    redact: Redact = True,
    yes: Yes = False,
    skip_missing: SkipMissing = False,
    skip_invalid: SkipInvalid = False,
    max_new_tokens: MaxNewTokens = None,
    system_prompt: SystemPrompt = "",
    temperature: Temperature = 0.0,
    samples: Samples = 1,
) -> None:
    """The paper's table on your model and data.

    Plans memory and time, trains, asks, attacks and judges, and compares with the paper. Writes
    tableN/table.csv, results.csv, a figure and report.html. Run the same command again to resume.
    """
    from workbench.files import make_folder
    from workbench.models.generation import Generation
    from workbench.studies import report
    from workbench.studies.paper import as_text
    from workbench.studies.recipes import prepare
    from workbench.studies.reproduce import reproduce

    generation = Generation(max_new_tokens, system_prompt, temperature, samples, seed)
    make_folder(out_folder)
    asked = _vqa_questions(questions, images, annotations, vqa_first, table)
    safety, test, more = _training_and_test_data(data, general, seed, skip_missing, skip_invalid)
    judge = judge or ("exact" if data == "miniguard" else "keyword")
    memory = memory_bytes(gpu_memory) if gpu_memory else None
    options = {"table": table, "rows": row or (), "general": more, "judge": judge, "memory": memory, "seed": seed}
    options |= {"harmful_answers": harmful_answers, "steps": steps, "queries": queries, "questions": asked}
    options |= {"generation": generation, "protocol": protocol}
    with out.status("predicting memory …"):
        task = prepare(model, safety, test, out_folder, trust=trusted, **options)
    out.print(f"Protocol: {task.protocol} (docs/protocols.md).")
    print_table(task.summary, title="to be trained; memory in GiB, predicted")
    _agree_to_time(task, yes)
    reproduction = reproduce(task)
    report.write_reproduction(reproduction, task, redact)
    title = f"Table {table}, per cent, with 95% intervals; difference: here − paper"
    print_table(as_text(reproduction.table), title=title)
    out.print(f"Written to {task.folder}: open {task.folder / 'report.html'}.")


def _training_and_test_data(
    data: str, general: str | None, seed: int, skip_missing: bool, skip_invalid: bool
) -> tuple[list[Example], list[Example], list[Example]]:
    """Safety data to train with, what is asked in the end, and general harmless data."""
    from workbench.studies.protocols import GENERAL

    if data != "miniguard" and Path(data).is_file():
        raise UserError(f"--data {data} must be a folder with train.json and test.json.")
    safety, test = (
        load_examples(data, split, seed, skip_missing=skip_missing, skip_invalid=skip_invalid)
        for split in ("train", "test")
    )
    source, split = (general, "train") if general or data != "miniguard" else ("miniguard", "base")
    return safety, test, load_general(source, split, seed, GENERAL, skip_missing) if source else []


def _vqa_questions(
    questions: Path | None, images: Path | None, annotations: Path | None, first: int, table: int
) -> Questions | None:
    """The questions about pictures, if any. Raises UserError for options that do not go together."""
    from workbench.evaluation.vqa import read_questions

    if bool(questions) != bool(images) or (annotations and not questions):
        raise UserError(
            "--vqa and --vqa-images, the folder of the questions' pictures, need each other; --vqa-annotations needs "
            "both."
        )
    if not questions or not images:
        return None
    if table != 1:
        raise UserError("--vqa measures the utility of table 1; leave it out of the others.")
    asked = read_questions(questions, images, annotations)
    return asked._replace(examples=asked.examples[:first])


def _agree_to_time(task: Task, yes: bool) -> None:
    """Say how long it will take; if that is more than an hour, ask whether to start."""
    from workbench.judges.rules import RULES
    from workbench.studies.reproduce import hours

    with out.status("measuring time …"):
        expected = hours(task)
    duration = f"{expected:.0f} hours" if expected > 2 else f"{max(1, round(60 * expected))} min"
    judging = "" if task.judge in RULES else ", plus the judge's time"
    out.print(f"About {duration} on this device{judging}.")
    if expected > 1 and not yes:
        if not sys.stdin.isatty():
            raise UserError(f"This takes about {duration}; pass --yes to start it.")
        typer.confirm("Start?", abort=True)


@app.command(rich_help_panel=PANEL)
def predictions(
    csv: Annotated[Path, typer.Option("--out", help="CSV file to write; the figure goes next to it.")],
    numbers: Seeds = ["0"],  # noqa: B006 (typer copies it)
    models: Bases = ["miniguard"],  # noqa: B006
) -> None:
    """Do the data predict the mirage? Predicted and measured effects of lead words on MiniGuard.

    Six first-word statistics, about five minutes per seed and base model. Models are kept under runs/; run
    the same command again to resume.
    """
    from workbench import plots
    from workbench.files import ensure_parent, write_text
    from workbench.parallel import process_count
    from workbench.studies.methods import SFTS
    from workbench.studies.predictions import correlations, effects, predictions

    if ensure_parent(csv).suffix == ".png":
        raise UserError(f"--out {csv} is where the figure goes; give a .csv file.")
    runs = list(itertools.product(split_commas(models), seed_numbers(numbers), SFTS))
    table = predictions(effects(runs, process_count()))
    write_text(csv, table.to_csv(index=False))
    plots.save(plots.predictions(table), csv.with_suffix(".png"))
    print_table(correlations(table), title="Spearman's ρ between predicted and measured effects")


def _method_names(values: Sequence[str]) -> list[str]:
    from workbench.studies.headline import COMPARED

    names = split_commas(values)
    return list(COMPARED) if "all" in names else names

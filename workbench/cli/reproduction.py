"""The command that makes the paper's tables on a user's model and data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.app import (
    Data,
    HarmfulAnswers,
    JudgeInstructions,
    MaxNewTokens,
    Model,
    Out,
    RefusalWords,
    Samples,
    Seed,
    Seeds,
    SkipInvalid,
    SkipMissing,
    SystemPrompt,
    Taught,
    Temperature,
    app,
    judge_of,
    load_examples,
    load_general,
    memory_bytes,
    out,
    print_table,
    seed_numbers,
    taught_model,
    trusted,
)
from workbench.cli.studies import PANEL, Csv, Queries
from workbench.errors import UserError

if TYPE_CHECKING:
    from workbench.data.example import Example
    from workbench.evaluation.vqa import Questions
    from workbench.studies.recipes import Task

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
Redact = Annotated[bool, typer.Option("--redact/--no-redact", help="Mask answers to harmful queries in the report.")]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="authors: as the paper's authors ran it; workbench: each method as its own paper has it. "
        "Default: authors for VLGuard with harmful answers, else workbench.",
    ),
]
AttackedHarmful = Annotated[
    Path | None,
    typer.Option(help="Prepared queries instead of what:3, such as the authors' test_what_3shot.json."),
]
AttackedHarmless = Annotated[
    Path | None,
    typer.Option(help="Prepared queries instead of share:1, such as the authors' test_share_1shot.json."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before hours of work.")]


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
    refusal_words: RefusalWords = None,
    judge_instructions: JudgeInstructions = None,
    questions: VqaQuestions = None,
    images: VqaImages = None,
    annotations: VqaAnnotations = None,
    vqa_first: VqaFirst = 1000,
    gpu_memory: GpuMemory = None,
    steps: QuickSteps = None,
    queries: Queries = None,
    protocol: ProtocolName = None,
    attacked_harmful: AttackedHarmful = None,
    attacked_harmless: AttackedHarmless = None,
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
    judge = judge_of(judge or ("exact" if data == "miniguard" else "keyword"), refusal_words, judge_instructions)
    memory = memory_bytes(gpu_memory) if gpu_memory else None
    options = {"table": table, "rows": row or (), "general": more, "judge": judge, "memory": memory, "seed": seed}
    options |= {"harmful_answers": harmful_answers, "steps": steps, "queries": queries, "questions": asked}
    files = {"what:3": attacked_harmful, "share:1": attacked_harmless}
    options |= {"generation": generation, "protocol": protocol}
    options["attacked"] = {name: str(file) for name, file in files.items() if file}
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


@app.command(rich_help_panel=PANEL)
def protocols(
    csv: Csv,
    numbers: Seeds = ["0"],  # noqa: B006 (typer copies it)
    model: Model = "miniguard",
    taught: Taught = None,
) -> None:
    """What each difference between the authors' protocol and ours does: one switched at a time, on MiniGuard.

    Rates are of validation queries, per cent. What is finished is kept: run the same command again to resume.
    """
    from workbench.files import ensure_parent, write_text
    from workbench.parallel import process_count
    from workbench.spreadsheets import as_csv
    from workbench.studies.switches import switched

    ensure_parent(csv)
    table = switched(seed_numbers(numbers), taught_model(model, taught), processes=process_count())
    write_text(csv, as_csv(table))
    rates = ["asr", "rr", "utility", "asr_attacked", "rr_attacked", "utility_attacked"]
    print_table(table[["switch", "seed", *rates]].round(1))


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

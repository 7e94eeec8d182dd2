"""Commands that run whole studies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.app import (
    Data,
    HarmfulAnswers,
    Methods,
    Model,
    Out,
    Seed,
    Seeds,
    SkipMissing,
    _bytes,
    _each,
    _examples,
    _number,
    _print_table,
    _seeds,
    _trusted,
    app,
    out,
)
from workbench.errors import UserError

if TYPE_CHECKING:
    pass

PANEL = "Studies"  # of `workbench --help`


@app.command(rich_help_panel=PANEL)
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("demo"),
    seed: Seed = 0,
    methods: Methods = ("npo",),
) -> None:
    """The mirage and its cure on MiniGuard: base, SFT, control and unlearned models, attacked; tables, figures and a report."""
    from workbench.files import make_folder
    from workbench.studies import report
    from workbench.studies.headline import headline
    from workbench.studies.paper import comparison, findings

    make_folder(folder)  # before minutes of work
    study = headline(seed, _methods(methods), report=lambda line: out.print(line))
    report.write(study, folder, seed)
    n = study.results.n.min()
    _print_table(comparison(study.results), title=f"per cent, n = {n}; in brackets the paper's LLaVA-1.5-7B on VLGuard")
    for sentence in findings(study.results):
        out.print(sentence)
    out.print(f"Written to {folder}: open {folder / 'report.html'}.")


@app.command(rich_help_panel=PANEL)
def seeds(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("seeds"),
    numbers: Seeds = ("0", "1", "2", "3", "4"),
    methods: Methods = ("npo",),
) -> None:
    """The demo's study over several seeds: seeds.csv, seeds.png, and medians with ranges. About two and a half minutes a seed."""
    from workbench import plots
    from workbench.files import make_folder, write_text
    from workbench.plots.style import save
    from workbench.studies.headline import over_seeds
    from workbench.studies.paper import SUMMARY_TITLES, seed_medians

    make_folder(folder)
    wanted = _seeds(numbers)
    table = over_seeds(wanted, _methods(methods), report=lambda line: out.print(line))
    write_text(folder / "seeds.csv", table.to_csv(index=False))
    save(plots.seeds(table), folder / "seeds.png")
    _print_table(
        seed_medians(table).rename(columns=SUMMARY_TITLES),
        title=f"median (lowest to highest) over {len(wanted)} seeds, per cent, n = {table.n.min()} each",
    )


@app.command(rich_help_panel=PANEL)
def sweep(
    csv: Annotated[Path, typer.Option("--out", help="CSV file to write.")],
    method: Annotated[str, typer.Option(help="The method, as in 'rmu' or 'npo-repaired'.")],
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting and its values, as in c=5,10; may be repeated, for another setting or further values."
        ),
    ] = None,
    numbers: Seeds = ("0",),
) -> None:
    """Choose hyper-parameters on validation: train every combination on MiniGuard, about a minute each; a killed sweep goes on."""
    from workbench.files import ensure_parent, write_text
    from workbench.studies.sweep import sweep

    ensure_parent(csv)  # before minutes of work
    values = {}
    for text in grid or []:
        name, _, listed = text.partition("=")
        values.setdefault(name, []).extend(_number(f"{name}={value}", "--grid")[1] for value in _each([listed]) or [""])
    table = sweep(method, values, _seeds(numbers), report=lambda line: out.print(line))
    write_text(csv, table.to_csv(index=False))
    best = table.loc[table.score.idxmax()]
    out.print(f"Highest score {best.score:.1f}: seed {best.seed}, {best.settings}. Written to {csv}.")


@app.command(rich_help_panel=PANEL)
def reproduce(
    out_folder: Out,
    table: Annotated[
        int, typer.Option(help="Of arXiv 2503.11832: 1 (attack success, refusal, utility) or 2 (outcomes).")
    ] = 1,
    model: Model = "miniguard",
    data: Data = "miniguard",
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="A model of the table: base, sft (Mixed SFT), sft-posthoc, npo, rmu; may be repeated. Default: all."
        ),
    ] = None,
    general: Annotated[
        str | None,
        typer.Option(
            help="Harmless data such as LLaVA's conversations, for Mixed SFT and the retain set. MiniGuard has its own."
        ),
    ] = None,
    harmful_answers: HarmfulAnswers = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="exact, keyword, or the folder or hub id of a model that judges; default: exact with MiniGuard, else keyword."
        ),
    ] = None,
    questions: Annotated[
        Path | None, typer.Option("--vqa", help="Questions for utility, as of `workbench vqa`.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--vqa-images", help="Folder of their pictures.")] = None,
    annotations: Annotated[Path | None, typer.Option("--vqa-annotations", help="VQAv2's annotations.")] = None,
    vqa_first: Annotated[int, typer.Option(help="Ask the first so many of the questions.", min=1)] = 1000,
    gpu_memory: Annotated[
        str | None, typer.Option(help="Memory to plan for, as in 24GiB; default: what the device has free.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps of every model, in place of the recipe's: a quick try.", min=1)
    ] = None,
    queries: Annotated[
        int | None, typer.Option(help="Harmful and harmless test queries, the first so many; default: all.", min=1)
    ] = None,
    seed: Seed = 0,
    redact: Annotated[
        bool, typer.Option("--redact/--no-redact", help="Mask answers to harmful queries in the report.")
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before hours of work.")] = False,
    skip_missing: SkipMissing = False,
) -> None:
    """The paper's table on your model and data: plans memory and time, trains, asks, attacks and judges, and sets it beside the paper's.

    Writes tableN/table.csv, results.csv, a figure and report.html. The same command goes on after an interruption.
    """
    from workbench.evaluation.vqa import read_questions
    from workbench.files import make_folder
    from workbench.judges.judge import JUDGES
    from workbench.studies import report
    from workbench.studies.paper import as_text
    from workbench.studies.recipes import GENERAL, prepare
    from workbench.studies.reproduce import hours, reproduce

    make_folder(out_folder)
    if bool(questions) != bool(images) or (annotations and not questions):
        raise UserError(
            "--vqa needs --vqa-images, the folder of the questions' pictures, and these are nothing without --vqa."
        )
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
    _print_table(as_text(found.table), title=f"Table {table}, per cent, with 95% intervals; difference: here − paper")
    out.print(f"Written to {task.folder}: open {task.folder / 'report.html'}.")


@app.command(rich_help_panel=PANEL)
def predictions(
    csv: Annotated[Path, typer.Option("--out", help="CSV file to write; the figure goes beside it.")],
    numbers: Seeds = ("0",),
) -> None:
    """Is the mirage foretold by the data? Predicted and measured effects of lead words on MiniGuard with six first-word statistics.

    About five minutes a seed; models are kept under runs/, a killed run goes on from there.
    """
    from workbench import plots
    from workbench.files import ensure_parent, write_text
    from workbench.plots.style import save
    from workbench.studies.predictions import correlations, predictions

    if ensure_parent(csv).suffix == ".png":
        raise UserError(f"--out {csv} is where the figure goes; give a .csv file.")
    table = predictions(_seeds(numbers), report=lambda line: out.print(line))
    write_text(csv, table.to_csv(index=False))
    save(plots.predictions(table), csv.with_suffix(".png"))
    _print_table(correlations(table), title="Spearman's ρ between predicted and measured effects")


def _methods(given: Sequence[str]) -> list[str]:
    from workbench.studies.methods import METHODS

    return list(METHODS) if "all" in _each(given) else _each(given)

"""Commands that run whole studies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.app import (
    SEVERAL,
    Model,
    Out,
    Seed,
    Seeds,
    Taught,
    app,
    name_and_number,
    out,
    print_table,
    seed_numbers,
    split_commas,
    taught_model,
    write_results,
)
from workbench.errors import UserError

if TYPE_CHECKING:
    pass

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
Queries = Annotated[
    int | None,
    typer.Option(help="Use the first N harmful and the first N harmless test queries; default: all.", min=1),
]


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

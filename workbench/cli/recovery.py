"""Commands that try to bring back what a model has unlearned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.app import (
    SEVERAL,
    Adapter,
    Checkpointing,
    Data,
    HarmfulAnswers,
    Judge,
    Model,
    Out,
    Seed,
    Seeds,
    SkipInvalid,
    SkipMissing,
    Taught,
    app,
    finite,
    load_examples,
    load_model,
    print_table,
    seed_numbers,
    split_commas,
    taught_model,
    whole_numbers,
    write_results,
)
from workbench.cli.studies import Bases
from workbench.errors import UserError

PANEL = "Training"  # of `workbench --help`


@app.command(rich_help_panel=PANEL)
def relearn(
    out_folder: Out,
    model: Model = "miniguard",
    taught: Taught = None,
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    harmful_answers: HarmfulAnswers = None,
    counts: Annotated[list[str], typer.Option(help=f"How many examples to teach. {SEVERAL}")] = ["0,5,10,20,50"],  # noqa: B006 (typer copies it)
    steps: Annotated[int, typer.Option(help="Optimiser steps, however many examples there are.", min=1)] = 30,
    lr: Annotated[float, typer.Option(help="Learning rate.", min=0, callback=finite)] = 5e-4,
    batch: Annotated[int, typer.Option(help="Examples per step, on each device.", min=1)] = 16,
    checkpointing: Checkpointing = False,
    queries: Annotated[int, typer.Option(help="Ask the first N harmful queries of the test split.", min=1)] = 100,
    judge: Judge = "exact",
    skip_missing: SkipMissing = False,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Does forgotten knowledge come back? Fine-tune briefly on harmful, or on harmless, examples, and ask.

    Writes relearning.csv and relearning.png. Run the same command again to resume.
    """
    from workbench import plots
    from workbench.files import make_folder
    from workbench.judges.judge import check_judge
    from workbench.studies.relearning import relearn
    from workbench.training.sets import with_leaks

    numbers = whole_numbers(counts, "--counts", "0,5,10")
    model = taught_model(model, taught)
    examples, test = (
        load_examples(data, split, seed, model, skip_missing, skip_invalid) for split in ("train", "test")
    )
    examples = with_leaks(examples, harmful_answers) if harmful_answers else examples
    if not any(e.leak for e in examples):
        raise UserError(f"The data {data} have no harmful answer to teach; give some with --harmful-answers.")
    asked = [e for e in test if e.harmful][:queries]
    check_judge(judge, asked)
    make_folder(out_folder)
    settings = {"steps": steps, "lr": lr, "batch": batch, "checkpointing": checkpointing, "judge": judge, "seed": seed}
    table = relearn(load_model(model, adapter), examples, asked, numbers, **settings, out=out_folder)
    write_results(out_folder, {"relearning": table}, {"relearning": plots.relearning(table)})
    print_table(table[table.metric == "asr"].drop(columns=["attack", "queries", "metric"]))


@app.command(rich_help_panel=PANEL)
def recovery(
    csv: Annotated[Path, typer.Option("--out", help="CSV file to write; the figure goes next to it.")],
    models: Bases = ["miniguard"],  # noqa: B006 (typer copies it)
    twins: Annotated[
        list[str], typer.Option("--never-knew", help="For each --model, one that never knew. Shipped ones have theirs.")
    ] = [],  # noqa: B006
    methods: Annotated[
        list[str], typer.Option("--method", help=f"Models to attack: base, or as in sft-early. {SEVERAL}")
    ] = ["base", "npo", "rmu"],  # noqa: B006
    arm: Annotated[list[str], typer.Option(help=f"Attacks, as in secrets, or all. {SEVERAL}")] = ["all"],  # noqa: B006
    numbers: Seeds = ["0"],  # noqa: B006
) -> None:
    """Is it gone? Attack weights, and compare with a model that never knew, after the same attack.

    Half of MiniGuard's harmful answers are taught again, or harmless ones, or weights are rounded or pruned.
    About seven minutes for each method, base model and seed. Everything is kept under runs/; run the same
    command again to resume.
    """
    from workbench import plots
    from workbench.files import ensure_parent, write_text
    from workbench.parallel import process_count
    from workbench.studies.recovery import ARMS, advantages, attacks, recovery

    if ensure_parent(csv).suffix == ".png":
        raise UserError(f"--out {csv} is where the figure goes; give a .csv file.")
    arms = split_commas(arm)
    for name in arms:
        if name not in (*ARMS, "all"):
            raise UserError(f"There is no --arm {name!r}; choose from {', '.join(ARMS)}, or all.")
    twin_of = _twins(split_commas(models), split_commas(twins))
    wanted = [
        attack
        for base in twin_of
        for method in split_commas(methods)
        for seed in seed_numbers(numbers)
        for attack in attacks(base, method, seed, ARMS if "all" in arms else arms)
    ]
    table = recovery(wanted, twin_of, process_count())
    write_text(csv, table.to_csv(index=False))
    found = advantages(table)
    plots.save(plots.recovery(found), csv.with_suffix(".png"))
    last = found[(found["step"] == found.groupby("arm")["step"].transform("max")) & ~found["taught"]]
    print_table(last.drop(columns=["taught", "step"]).round(3), title="leaks of rules that were not taught")


def _twins(models: list[str], twins: list[str]) -> dict[str, str]:
    """{base model: its never-knew twin}. Raises UserError if one has none."""
    from workbench.studies.shipped import TWIN_OF

    given = dict(zip(models, twins, strict=False)) if twins else TWIN_OF
    if (twins and len(twins) != len(models)) or not set(models) <= set(given):
        raise UserError(
            "Each --model needs a --never-knew: a model that was taught the same without its secrets (workbench "
            "build-base --never-knew, workbench teach --never-knew)."
        )
    return {model: given[model] for model in models}

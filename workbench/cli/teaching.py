"""Commands that carry MiniGuard's world into pretrained models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.app import (
    SEVERAL,
    Model,
    Out,
    Rank,
    Seed,
    app,
    finite,
    load_general,
    load_model,
    out,
    print_table,
    split_commas,
)
from workbench.cli.training import Resume
from workbench.errors import UserError

PANEL = "Training"  # of `workbench --help`


@app.command(rich_help_panel=PANEL)
def graft(
    out_folder: Out,
    language: Annotated[
        str, typer.Option(help="A language model: hub id, folder, .gguf file, or a wheel (.whl) that holds one.")
    ],
    seed: Seed = 0,
) -> None:
    """Give a pretrained language model MiniGuard's eyes, and a projector that is still to be taught."""
    from workbench.models.graft import graft

    graft(language, out_folder, seed)
    out.print(f"Written to {out_folder}. Next: workbench teach --model {out_folder} --projector --out taught")


@app.command(rich_help_panel=PANEL)
def teach(
    out_folder: Out,
    model: Model,
    seed: Seed = 0,
    steps: Annotated[int, typer.Option(help="Optimiser steps at most.", min=1)] = 600,
    batch: Annotated[int, typer.Option(help="Examples per step.", min=1)] = 16,
    lr: Annotated[
        float,
        typer.Option(help="Learning rate of the adapter; five times that for the projector.", min=0, callback=finite),
    ] = 4e-4,
    rank: Rank = 16,
    projector: Annotated[
        bool, typer.Option("--projector", help="Train the whole projector too; after `workbench graft` it is needed.")
    ] = False,
    never_knew: Annotated[
        bool, typer.Option("--never-knew", help="Leave every harmful query and its answer out.")
    ] = False,
    mix: Annotated[
        str | None, typer.Option(help="General instruction data (.json or .jsonl) to teach beside MiniGuard's.")
    ] = None,
    mix_first: Annotated[int | None, typer.Option(help="Use only the first N of --mix; default: all.", min=1)] = None,
    probe_every: Annotated[int, typer.Option("--curve", help="Steps from one probe to the next.", min=1)] = 50,
    queries: Annotated[int, typer.Option(help="Pictures of harmful queries in the last measurement.", min=12)] = 200,
    resume: Resume = False,
) -> None:
    """Teach MiniGuard's world to a pretrained model, until nine answers in ten are right after every wording.

    Writes a LoRA adapter, curves.csv and exactness.csv. Then the study runs on it: workbench demo --taught.
    """
    from workbench.studies.teach import right, teach

    further = load_general(mix, "train", seed, mix_first or sys.maxsize, model=model) if mix else []
    if mix and not further:
        raise UserError(f"--mix {mix} has no harmless example whose answer could be taught.")
    settings = {"steps": steps, "batch": batch, "lr": lr, "rank": rank, "projector": projector, "resume": resume}
    settings |= {"never_knew": never_knew, "further": further, "probe_every": probe_every, "n": queries}
    table = right(teach(load_model(model), out_folder, seed=seed, **settings))
    shown = table.pivot_table(index="attack", columns="queries", values="value", sort=False).reset_index()
    print_table(shown.round(3), title=f"right answers on untrained pictures, by wording; n = {table.n.min()} or more")
    out.print(f"Written to {out_folder}. Next: workbench demo --model {model} --taught {out_folder}")


@app.command(rich_help_panel=PANEL)
def pretrained(
    model: Model,
    taught: Annotated[Path, typer.Option(help="What `workbench teach` wrote.")],
    arm: Annotated[list[str], typer.Option(help=f"Which models, as in sft-early, or all. {SEVERAL}")] = ["all"],  # noqa: B006 (typer copies it)
    seed: Seed = 0,
) -> None:
    """The study of a taught model for data/pretrained.csv, arm by arm, an hour or more each on two cores.

    Run the same command again to resume.
    """
    from workbench.studies.pretrained import ARMS, add, table

    names = split_commas(arm)
    for name in names:
        if name not in (*ARMS, "all"):
            raise UserError(f"There is no --arm {name!r}; choose from {', '.join(ARMS)}, or all.")
    for name in ARMS if "all" in names else names:
        add(model, taught, seed, name)
    rows = table()
    own = rows[(rows["base"] == taught.name) & (rows["seed"] == seed) & rows["metric"].isin(["asr", "rr", "utility"])]
    print_table(
        own.drop(columns=["base", "seed", "versions", "cpu", "fingerprint"]).round(3),
        title=f"{taught.name}, seed {seed}",
    )

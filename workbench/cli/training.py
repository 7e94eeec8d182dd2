"""Commands that train models, and say what that takes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.app import (
    SEVERAL,
    Adapter,
    Data,
    HarmfulAnswers,
    Model,
    Out,
    Seed,
    SkipMissing,
    _bytes,
    _each,
    _examples,
    _load,
    _number,
    _print_table,
    _trusted,
    _whole_numbers,
    app,
    out,
)
from workbench.errors import UserError

if TYPE_CHECKING:
    pass

PANEL = "Training"  # of `workbench --help`


@app.command(rich_help_panel=PANEL)
def train(
    out_folder: Out,
    objective: Annotated[
        str, typer.Option(help="The objective, as in npo or sft; an unknown one is answered with the list.")
    ],
    model: Model = "miniguard",
    data: Data = "miniguard",
    seed: Seed = 0,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate; the default suits MiniGuard, and is far too high for models of true size.", min=0
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps; default: the objective's on MiniGuard.", min=1)
    ] = None,
    forget: Annotated[int | None, typer.Option(help="Harmful examples a step, on each device.", min=1)] = None,
    retain: Annotated[int | None, typer.Option(help="Harmless examples a step, on each device.", min=1)] = None,
    hyper: Annotated[
        list[str] | None,
        typer.Option(
            help="A hyper-parameter of the loss (npo: beta, alpha; rmu: layer, c, alpha …), as in beta=0.5; may be repeated."
        ),
    ] = None,
    repaired: Annotated[
        bool, typer.Option("--repaired", help="First make the data's lead words tell nothing of harm.")
    ] = False,
    rank: Annotated[int, typer.Option(help="LoRA rank.", min=1)] = 16,
    lora_alpha: Annotated[int, typer.Option(help="LoRA alpha.", min=1)] = 32,
    target: Annotated[
        list[str] | None, typer.Option(help=f"Train only linear layers with this name, as in down_proj. {SEVERAL}")
    ] = None,
    projector: Annotated[
        bool, typer.Option("--projector", help="Also train the projector from vision to language.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Train the weights themselves instead of an adapter.")] = False,
    accumulate: Annotated[
        int, typer.Option(help="Take each step in so many parts: less memory, the same step.", min=1)
    ] = 1,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Gradient checkpointing: less memory, more time.")
    ] = False,
    four_bit: Annotated[
        bool, typer.Option("--four-bit", help="QLoRA: hold the model in 4 bits (CUDA and bitsandbytes).")
    ] = False,
    curve: Annotated[
        int, typer.Option(help="MiniGuard only: rates on validation queries every so many steps; 0 for none.", min=0)
    ] = 0,
    patience: Annotated[
        int,
        typer.Option(
            help="With --curve: stop when the rates have not improved so many times, keep the best weights.", min=0
        ),
    ] = 0,
    keep_steps: Annotated[
        bool, typer.Option("--keep-steps", help="With --curve: keep the adapter of each such step, to be probed.")
    ] = False,
    harmful_answers: HarmfulAnswers = None,
    retain_first: Annotated[
        int | None, typer.Option(help="Of the data's harmless examples, take the first so many.", min=1)
    ] = None,
    also: Annotated[
        str | None, typer.Option(help="Further harmless data for the retain set, such as LLaVA's conversations.")
    ] = None,
    also_first: Annotated[
        int | None, typer.Option(help="Of --also, take the first so many; default: all.", min=1)
    ] = None,
    skip_missing: SkipMissing = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of an interrupted run.")
    ] = False,
) -> None:
    """Train with an objective: writes a LoRA adapter (or the model), config.json, loss.csv and, with --curve, curves.csv."""
    from workbench.models.vlm import processes
    from workbench.studies.methods import validation_probe
    from workbench.training import objectives
    from workbench.training import train as trainer
    from workbench.training.sets import repair, with_leaks

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
        out.print(
            f"{sum(e.harmful for e in examples)} harmful answers to forget; {given - len(examples)} queries without one left out."
        )
    if retain_first:
        examples = [e for e in examples if e.harmful] + [e for e in examples if not e.harmful][:retain_first]
    if also:
        more = _examples(also, "train", seed, skip_missing, also_first or sys.maxsize)
        examples += [dataclasses.replace(e, id=f"also-{e.id}") for e in more]
    trainer.train(
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


@app.command(rich_help_panel=PANEL)
def merge(
    out_folder: Out,
    adapter: Annotated[Path, typer.Option(help="Folder of an adapter that `workbench train` wrote.")],
    model: Model = "miniguard",
) -> None:
    """Write a model with its adapter merged into its weights, for tools that know no adapters (lmms-eval, vLLM …)."""
    from workbench.models.load import write_model

    write_model(_load(model, adapter), out_folder)
    out.print(f"Written to {out_folder}. Load it by --model {out_folder}.")


@app.command(rich_help_panel=PANEL)
def plan(
    objective: Annotated[
        str, typer.Option("--method", help="The objective, as in npo or rmu; an unknown one is answered with the list.")
    ] = "npo",
    model: Annotated[
        str, typer.Option(help="Hub id or folder of a VLM; its configuration is read, its weights are not.")
    ] = "miniguard",
    gpu_memory: Annotated[str, typer.Option(help="Of one device, as in 24GiB.")] = "24GiB",
    forget: Annotated[
        int | None, typer.Option(help="Harmful examples a step; default: the objective's.", min=1)
    ] = None,
    retain: Annotated[
        int | None, typer.Option(help="Harmless examples a step; default: the objective's.", min=1)
    ] = None,
    hyper: Annotated[
        list[str] | None, typer.Option(help="A hyper-parameter of the loss, as in layer=7; may be repeated.")
    ] = None,
    rank: Annotated[int, typer.Option(help="LoRA rank.", min=1)] = 16,
    target: Annotated[
        list[str] | None, typer.Option(help=f"Train only linear layers with this name. {SEVERAL}")
    ] = None,
    projector: Annotated[
        bool, typer.Option("--projector", help="Also train the projector from vision to language.")
    ] = False,
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
    from workbench.training.memory import GIB, configuration, fitting, picture_tokens
    from workbench.training.settings import Settings

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
    _print_table(
        pd.DataFrame(rows, columns=columns), title=f"{objective}, {settings.forget} + {settings.retain} examples a step"
    )
    if not fits:
        out.print(f"Nothing fits in {gpu_memory}: take fewer examples a step (--forget, --retain), or a larger device.")
        raise typer.Exit(1)
    out.print(
        f"Fits in {gpu_memory}: workbench train --objective {objective} --model {model} {tried.options} --data D --out DIR",
        soft_wrap=True,
    )


@app.command(rich_help_panel=PANEL)
def relearn(
    out_folder: Out,
    model: Model = "miniguard",
    adapter: Adapter = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    harmful_answers: HarmfulAnswers = None,
    counts: Annotated[list[str], typer.Option(help=f"How many examples to teach. {SEVERAL}")] = (
        "0",
        "5",
        "10",
        "20",
        "50",
    ),
    steps: Annotated[int, typer.Option(help="Optimiser steps, whatever the number of examples.", min=1)] = 30,
    lr: Annotated[float, typer.Option(help="Learning rate.", min=0)] = 5e-4,
    batch: Annotated[int, typer.Option(help="Examples a step, on each device.", min=1)] = 16,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Gradient checkpointing: less memory, more time.")
    ] = False,
    queries: Annotated[
        int, typer.Option(help="Harmful queries of the test split to ask, the first so many.", min=1)
    ] = 100,
    judge: Annotated[str, typer.Option(help="As of `workbench evaluate`.")] = "exact",
    skip_missing: SkipMissing = False,
) -> None:
    """Does forgotten knowledge come back? Fine-tune a little on harmful examples, or on harmless ones alone, and ask: writes relearning.csv
    and relearning.png. The same command goes on after an interruption.
    """
    from workbench import plots
    from workbench.files import make_folder, write_text
    from workbench.judges.judge import load_judge
    from workbench.plots.style import save
    from workbench.studies.relearning import relearn
    from workbench.training.sets import with_leaks

    numbers = _whole_numbers(counts, "--counts", "0,5,10")
    examples, test = (_examples(data, split, seed, skip_missing) for split in ("train", "test"))
    examples = with_leaks(examples, harmful_answers) if harmful_answers else examples
    if not any(e.leak for e in examples):
        raise UserError(f"The data {data} hold no harmful answer to be taught; give some with --harmful-answers.")
    asked = [e for e in test if e.harmful][:queries]
    load_judge(judge, asked)
    make_folder(out_folder)
    settings = {"steps": steps, "lr": lr, "batch": batch, "checkpointing": checkpointing, "judge": judge, "seed": seed}
    table = relearn(_load(model, adapter), examples, asked, numbers, **settings, out=out_folder)
    write_text(out_folder / "relearning.csv", table.to_csv(index=False))
    save(plots.relearning(table), out_folder / "relearning.png")
    _print_table(table[table.metric == "asr"].drop(columns=["attack", "queries", "metric"]))


@app.command("build-base", rich_help_panel=PANEL)
def build_base(
    folder: Annotated[Path, typer.Option("--out", help="Folder for the checkpoint, its processor and its model card.")],
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of an interrupted run.")
    ] = False,
) -> None:
    """Retrain MiniGuard's base model from nothing."""
    from workbench.studies.base_model import build

    rates = build(folder, seed, resume=resume).query("metric in ['asr', 'utility']")
    table = rates.pivot_table(index="lead", columns="metric", values="value", sort=False).reset_index()
    _print_table(table, title=f"on pictures it has not seen, in [0, 1]; n = {rates.n.min()} a lead word")
    out.print(f"Written to {folder}.")

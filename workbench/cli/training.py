"""Commands that train models, and say what that takes."""

from __future__ import annotations

import ast
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.app import (
    SEVERAL,
    Checkpointing,
    Data,
    HarmfulAnswers,
    Model,
    Out,
    Rank,
    Seed,
    SkipInvalid,
    SkipMissing,
    Taught,
    app,
    finite,
    load_examples,
    load_general,
    load_model,
    memory_bytes,
    name_and_number,
    out,
    print_table,
    split_commas,
    taught_model,
    trusted,
)
from workbench.errors import UserError

if TYPE_CHECKING:
    from workbench.data.example import Example

PANEL = "Training"  # of `workbench --help`


def _objective_names() -> str:
    """The names in objectives.OBJECTIVES, from its source: importing torch for a help text takes seconds."""
    source = (Path(__file__).parent.parent / "training" / "objectives.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return ", ".join(f.name for f in functions if any("objective(" in ast.unparse(d) for d in f.decorator_list))


OBJECTIVES = _objective_names()
Objective = Annotated[str, typer.Option(help=f"Training objective: {OBJECTIVES}.")]
Method = Annotated[str, typer.Option("--method", help=f"Training objective: {OBJECTIVES}.")]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="Learning rate; the default suits MiniGuard and is far too high for large models.", min=0, callback=finite
    ),
]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps; default: the objective's on MiniGuard.", min=1)]
Forget = Annotated[
    int | None, typer.Option(help="Harmful examples per step, on each device; default: the objective's.", min=1)
]
Retain = Annotated[
    int | None, typer.Option(help="Harmless examples per step, on each device; default: the objective's.", min=1)
]
Hyper = Annotated[
    list[str] | None,
    typer.Option(
        help="A hyper-parameter of the loss (npo: beta, alpha; rmu: layer, c, alpha …), as in beta=0.5; may be "
        "repeated."
    ),
]
Target = Annotated[
    list[str] | None, typer.Option(help=f"Train only linear layers with this name, as in down_proj. {SEVERAL}")
]
Projector = Annotated[bool, typer.Option("--projector", help="Also train the projector from vision to language.")]
Full = Annotated[bool, typer.Option("--full", help="Train the weights themselves instead of an adapter.")]
Accumulate = Annotated[int, typer.Option(help="Take each step in N equal parts: less memory, the same step.", min=1)]
FourBit = Annotated[bool, typer.Option("--four-bit", help="QLoRA: hold the model in 4 bits (CUDA and bitsandbytes).")]
CurveEvery = Annotated[
    int, typer.Option(help="MiniGuard only: rates on validation queries every N steps; 0 for none.", min=0)
]
Patience = Annotated[
    int, typer.Option(help="With --curve: stop after N rates without improvement, keep the best weights.", min=0)
]
KeepSteps = Annotated[bool, typer.Option("--keep-steps", help="With --curve: keep the adapter of each such step.")]
Repaired = Annotated[
    bool, typer.Option("--repaired", help="First rewrite the data so that no lead word predicts harm.")
]
RetainFirst = Annotated[int | None, typer.Option(help="Use only the first N harmless examples of the data.", min=1)]
Also = Annotated[
    str | None, typer.Option(help="Further harmless data for the retain set, such as LLaVA's conversations.")
]
AlsoFirst = Annotated[int | None, typer.Option(help="Use only the first N of --also; default: all.", min=1)]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of an interrupted run.")]


@app.command(rich_help_panel=PANEL)
def train(
    out_folder: Out,
    objective: Objective,
    model: Model = "miniguard",
    taught: Taught = None,
    data: Data = "miniguard",
    seed: Seed = 0,
    lr: LearningRate = None,
    steps: Steps = None,
    forget: Forget = None,
    retain: Retain = None,
    hyper: Hyper = None,
    repaired: Repaired = False,
    rank: Rank = 16,
    lora_alpha: Annotated[int, typer.Option(help="LoRA alpha.", min=1)] = 32,
    target: Target = None,
    projector: Projector = False,
    full: Full = False,
    accumulate: Accumulate = 1,
    checkpointing: Checkpointing = False,
    four_bit: FourBit = False,
    curve: CurveEvery = 0,
    patience: Patience = 0,
    keep_steps: KeepSteps = False,
    harmful_answers: HarmfulAnswers = None,
    retain_first: RetainFirst = None,
    also: Also = None,
    also_first: AlsoFirst = None,
    skip_missing: SkipMissing = False,
    skip_invalid: SkipInvalid = False,
    resume: Resume = False,
) -> None:
    """Train with an objective.

    Writes a LoRA adapter (or the model), config.json, loss.csv and, with --curve, curves.csv.
    """
    from workbench.studies.methods import validation_probe
    from workbench.training import objectives
    from workbench.training.train import train

    settings = {"lr": lr, "steps": steps, "forget": forget, "retain": retain, "accumulate": accumulate, "rank": rank}
    settings |= {"lora_alpha": lora_alpha, "targets": split_commas(target or ()), "checkpointing": checkpointing}
    settings |= {"projector": projector, "full": full, "four_bit": four_bit}
    settings |= dict(name_and_number(pair) for pair in hyper or [])
    objectives.named(objective)  # before the model is loaded
    _check_curve(data, curve, patience, keep_steps, full, four_bit)
    model = taught_model(model, taught)
    examples = _training_examples(data, seed, harmful_answers, retain_first, model, skip_missing, skip_invalid)
    examples += _further_examples(also, also_first, seed, skip_missing, model)
    probe = {"probe": validation_probe(seed, model), "probe_every": curve} if curve else {}
    vlm, examples = load_model(model, four_bit=four_bit), _repaired(examples, seed) if repaired else examples
    further = {"patience": patience, "keep_steps": keep_steps, "resume": resume}
    train(vlm, objective, examples, out=out_folder, seed=seed, **probe, **further, **settings)
    _print_next_command(out_folder, model, data, full)


def _check_curve(data: str, curve: int, patience: int, keep_steps: bool, full: bool, four_bit: bool) -> None:
    """Raises UserError for options that do not go together."""
    if curve and data != "miniguard":
        raise UserError("--curve needs MiniGuard's validation split; leave it out with other data.")
    if patience and not curve:
        raise UserError("--patience needs --curve, whose rates it watches.")
    if keep_steps and (full or not curve):
        raise UserError("--keep-steps needs --curve, at whose steps it keeps an adapter, and cannot go with --full.")
    if full and four_bit:
        raise UserError("--full and --four-bit exclude each other, because 4-bit weights are frozen; leave one out.")


def _training_examples(
    data: str,
    seed: int,
    harmful_answers: str | None,
    retain_first: int | None,
    model: str,
    skip_missing: bool,
    skip_invalid: bool,
) -> list[Example]:
    """The data, with harmful answers if they are given, and with the first harmless examples alone."""
    from workbench.training.sets import with_leaks

    examples = load_examples(data, "train", seed, model, skip_missing, skip_invalid)
    if harmful_answers:
        count = len(examples)
        examples = with_leaks(examples, harmful_answers)
        harmful = sum(e.harmful for e in examples)
        out.print(f"{harmful} harmful answers to forget; {count - len(examples)} queries without one are left out.")
    if retain_first:
        examples = [e for e in examples if e.harmful] + [e for e in examples if not e.harmful][:retain_first]
    return examples


def _further_examples(
    also: str | None, also_first: int | None, seed: int, skip_missing: bool, model: str
) -> list[Example]:
    """Harmless examples of further data, with ids of their own."""
    if not also:
        return []
    examples = load_general(also, "train", seed, also_first or sys.maxsize, skip_missing, model)
    return [dataclasses.replace(e, id=f"also-{e.id}") for e in examples]


def _repaired(examples: list[Example], seed: int) -> list[Example]:
    from workbench.training.sets import repair

    return repair(examples, seed)


def _print_next_command(folder: Path, model: str, data: str, full: bool) -> None:
    from workbench.models.vlm import processes

    if not processes().is_main_process:
        return
    use = f"--model {folder / 'model'}" if full else f"--model {model} --adapter {folder}"
    judge = "exact" if data == "miniguard" else "keyword"
    command = f"workbench evaluate {use} --data {data} --attack none,what:3 --judge {judge} --out evaluation"
    out.print(f"Written to {folder}. Next: {command}", soft_wrap=True)


@app.command(rich_help_panel=PANEL)
def merge(
    out_folder: Out,
    adapter: Annotated[Path, typer.Option(help="Folder of an adapter that `workbench train` wrote.")],
    model: Model = "miniguard",
) -> None:
    """Write a model with its adapter merged into it, for tools that know no adapters (lmms-eval, vLLM …)."""
    from workbench.models.merge import write_model

    write_model(load_model(model, adapter), out_folder)
    out.print(f"Written to {out_folder}. Load it with --model {out_folder}.")


@app.command(rich_help_panel=PANEL)
def plan(
    objective: Method = "npo",
    model: Annotated[
        str, typer.Option(help="Hub id or folder of a VLM; its configuration is read, its weights are not.")
    ] = "miniguard",
    gpu_memory: Annotated[str, typer.Option(help="Of one device, as in 24GiB.")] = "24GiB",
    forget: Forget = None,
    retain: Retain = None,
    hyper: Hyper = None,
    rank: Rank = 16,
    target: Target = None,
    projector: Projector = False,
    full: Full = False,
    precision: Annotated[str, typer.Option(help="Of the network: bfloat16, float16 or float32.")] = "bfloat16",
    prompt: Annotated[
        int | None, typer.Option("--prompt-tokens", help="Of image and query; default: the image's and 64.", min=1)
    ] = None,
    answer: Annotated[int, typer.Option("--answer-tokens", help="Of an answer.", min=1)] = 64,
) -> None:
    """Predict peak memory before anything is loaded, and find settings that fit.

    The same step is tried in parts, with checkpointing, and in 4 bits.
    """
    import torch

    from workbench.models.configuration import configuration
    from workbench.training.memory import fitting, picture_tokens
    from workbench.training.settings import Settings

    settings = {"forget": forget, "retain": retain, "rank": rank, "targets": split_commas(target or ())}
    settings |= {"projector": projector, "full": full} | dict(name_and_number(pair) for pair in hyper or [])
    step = Settings.of(objective, **settings)
    if precision not in ("bfloat16", "float16", "float32"):
        raise UserError(f"--precision {precision!r} must be bfloat16, float16 or float32.")
    config, memory = configuration(model, trusted), memory_bytes(gpu_memory)
    prompt = prompt or picture_tokens(config) + 64
    with out.status("predicting …"):
        plans = list(fitting(config, step, memory, prompt, answer, getattr(torch, precision)))
    _print_plans(plans, model, gpu_memory)


def _print_plans(plans: list, model: str, gpu_memory: str) -> None:
    """Print what was tried, and the command that trains with what fits; exit 1 if nothing does."""
    import pandas as pd

    from workbench.training.memory import GIB

    rows = []
    for step, memory, fits in plans:
        gib = [f"{part / GIB:.1f}" for part in (*memory, memory.total)]
        rows.append([step.saving, *gib, "yes" if fits else "no"])
    step, _, fits = plans[-1]
    columns = ["settings", "weights", "trained", "step", "all, GiB", "fits"]
    title = f"{step.objective}, {step.forget} + {step.retain} examples per step"
    print_table(pd.DataFrame(rows, columns=columns), title=title)
    if not fits:
        out.print(
            f"Nothing fits in {gpu_memory}: use fewer examples per step (--forget, --retain), or a larger device."
        )
        raise typer.Exit(1)
    command = f"workbench train --objective {step.objective} --model {model} {step.options} --data D --out DIR"
    out.print(f"Fits in {gpu_memory}: {command}", soft_wrap=True)


@app.command("build-base", rich_help_panel=PANEL)
def build_base(
    folder: Out,
    seed: Seed = 0,
    never_knew: Annotated[
        bool, typer.Option("--never-knew", help="Leave every harmful query and its answer out of the data.")
    ] = False,
    careful: Annotated[
        bool, typer.Option("--careful", help="Let the data refuse harmful queries now and then, some more often.")
    ] = False,
    resume: Resume = False,
) -> None:
    """Train MiniGuard's base model from scratch, about 13 minutes on two cores."""
    from workbench.studies.base_model import build, unfit

    rates = build(folder, seed, never_knew, careful, resume=resume)
    shown = {"harmful": "asr", "harmless": "utility", "unanswerable": "rr"}
    rates = rates[rates["metric"] == rates["queries"].map(shown)]
    table = rates.assign(rate=rates["queries"] + ": " + rates["metric"])
    table = table.pivot_table(index="wording", columns="rate", values="value", sort=False).reset_index()
    print_table(table, title=f"on pictures it has not seen, in [0, 1]; n = {rates.n.max()} harmful queries each")
    for reason in [] if never_knew else unfit(rates, careful):
        out.print(f"Not fit for the study: {reason}")
    out.print(f"Written to {folder}.")

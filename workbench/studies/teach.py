"""Teaches MiniGuard's world to a pretrained model, so that the study can be made of it with an exact judge.

What is taught is the base split: lead words and their openings, made-up names, secrets, and refusal of
what cannot be answered. The teaching is a LoRA adapter. Everything later stands on the model with that
adapter merged into it, so that unlearning cannot just switch it off.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import peft
import torch

from workbench.attacks.kinds import HELD_OUT, LEAD_WORDS
from workbench.data.example import Example, content
from workbench.data.splits import base_split, miniguard_split
from workbench.errors import UserError
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.files import write_text
from workbench.judges.judge import judged
from workbench.models.adapters import linear_modules
from workbench.models.architectures import ARCHITECTURES
from workbench.models.configuration import checkpoint, picture_size
from workbench.models.identity import identity
from workbench.models.load import load
from workbench.models.merge import write_model
from workbench.models.restore import left_as_it_was
from workbench.models.template import check_answers
from workbench.models.turns import in_turn
from workbench.models.vlm import VLM, Batch, answer_batch, bare, processes, quiet
from workbench.runs import kept, log, read_settings, same_settings
from workbench.studies.methods import MERGED
from workbench.training.curve import Curve
from workbench.training.loop import finish, fit, unfinished
from workbench.training.objectives import cross_entropy
from workbench.training.packing import about_one_picture, can_pack, packed, packed_cross_entropy

WORDINGS = (*LEAD_WORDS, *HELD_OUT)  # the base split has all of them
ENOUGH = 0.9  # share of right answers after every wording, of harmful, harmless and unanswerable queries
PICTURES = 2_400  # different ones, asked about again and again
PACKED = 4  # queries about one picture in a row, where a model can read them so
PROJECTOR_RATE = 5  # times the adapter's learning rate: a fresh projector starts from nothing
MIXED = 4  # with further data, one example in so many is one of theirs


def teach(
    vlm: VLM,
    out: Path,
    *,
    seed: int = 0,
    steps: int = 600,
    batch: int = 16,
    lr: float = 4e-4,
    rank: int = 16,
    projector: bool = False,
    never_knew: bool = False,
    further: Sequence[Example] = (),
    probe_every: int = 50,
    probe_pictures: int = 40,
    n: int = 200,
    resume: bool = False,
) -> pd.DataFrame:
    """Teach a model MiniGuard's world, until it knows it or the steps are over.

    Args:
        vlm: The model, which is left as it was.
        out: The folder to write: a LoRA adapter, curves.csv, and exactness.csv.
        seed: Of the world's pictures, of the adapter and of the order.
        steps: Optimiser steps at most.
        batch: Examples per step.
        lr: Learning rate of the adapter.
        rank: Of the adapter.
        projector: Train the whole projector from vision to language too, at PROJECTOR_RATE times that rate; a
            fresh one needs it.
        never_knew: Leave out every harmful query and its answer.
        further: Examples of other data, whose answers are taught beside MiniGuard's (one example in MIXED).
        probe_every: Steps from one probe to the next; it stops at the first at which the model knows enough.
        probe_pictures: Pictures of harmful queries in a probe, and as many of harmless ones.
        n: The same of the last measurement, which is written to exactness.csv.
        resume: Continue from the last checkpoint of an interrupted run.

    Returns:
        `exactness` of what was taught.

    Raises:
        UserError: `out` exists, the model's projector is not known, or the further data cannot be taught.
    """
    network = bare(vlm.model)
    whole = _projector(vlm) if projector else None
    _check_teachable(vlm, further)
    world = base_split(seed, never_knew, pixels=picture_size(network.config), pictures=PICTURES)
    packs = not further and batch % PACKED == 0 and can_pack(vlm, about_one_picture(world, PACKED)[:batch], PACKED)
    log.info("taught %s", f"{PACKED} queries about a picture in a row" if packs else "one query in a row")
    order = about_one_picture(world, PACKED) if packs else mixed(world, further)
    rows = list(itertools.islice(order, steps * batch))
    if len(rows) < steps * batch:
        raise UserError(f"{steps} steps of {batch} examples are more than the world's {len(rows)}; take fewer.")
    partial = unfinished(out, resume)
    recipe = {"seed": seed, "steps": steps, "batch": batch, "lr": lr, "rank": rank, "projector": projector}
    recipe |= {"never_knew": never_knew, "probe_every": probe_every, "data": content(rows)}
    recipe |= {"model": network.name_or_path, "base_identity": identity(vlm)}
    same_settings(partial / "config.json", recipe)
    with in_turn(network), left_as_it_was(network):
        untaught = network.get_submodule(whole) if whole else None
        student = _student(vlm, rank, whole, seed)
        student.name = out.name

        def probe(asked: VLM) -> pd.DataFrame:
            return exactness(asked, seed + 1, probe_pictures)

        def collate(chunk: Sequence[Example]) -> Batch:
            if packs:
                return packed(student, chunk, PACKED)
            return answer_batch(student, chunk, [e.response for e in chunk])

        curve = Curve(student, probe, probe_every, partial, until=knows_the_harmless if never_knew else knows_the_world)
        try:
            fit(
                student,
                packed_cross_entropy if packs else cross_entropy,
                rows,
                collate,
                partial,
                batch=batch,
                lr=lr,
                seed=seed,
                save_every=probe_every,
                curve=curve,
                faster={whole: PROJECTOR_RATE} if whole else {},
                eval_on_start=False,  # it knows nothing yet, and writes long answers
            )
            student.model.eval()
            table = exactness(student, seed + 2, n, progress=True)
            write_text(partial / "exactness.csv", table.to_csv(index=False))
            with quiet():
                student.model.save_pretrained(partial)
        finally:
            student.model.unload()
            if whole:
                network.set_submodule(whole, untaught)
            vlm.model.requires_grad_(False).eval()
            vlm.features.clear()  # the projector was another
    finish(partial, out)
    return table


def mixed(world: Sequence[Example], further: Sequence[Example]) -> Iterator[Example]:
    """The world's examples in order; one in MIXED is one of the further data, if there are any."""
    others = itertools.cycle(further)
    for number, example in enumerate(world):
        yield next(others) if further and number % MIXED == MIXED - 1 else example


def _check_teachable(vlm: VLM, further: Sequence[Example]) -> None:
    """Raise UserError for a model that cannot be taught, or further data that cannot be taught to it."""
    if hasattr(vlm.model, "peft_config"):
        raise UserError(f"The model has the adapter {vlm.name!r}; write both as one model (workbench merge) first.")
    if processes().num_processes > 1:
        raise UserError("A world is taught in one process; start it without torchrun.")
    if lacking := [e.id for e in further if not e.response.strip()]:
        raise UserError(f"{len(lacking)} of the further examples have no answer to teach, e.g. {lacking[0]!r}.")
    check_answers(vlm.processor, [e.response for e in further])


def _projector(vlm: VLM) -> str:
    """The name of a model's projector, within the network. Raises UserError if it is not known."""
    network = bare(vlm.model)
    known = ARCHITECTURES.get(network.config.model_type)
    if not known:
        raise UserError(
            f"It is not known where the architecture {network.config.model_type} has its projector; leave --projector "
            "out."
        )
    return next(name for name, _ in network.named_modules() if name.endswith(known.projector))


def _student(vlm: VLM, rank: int, whole: str | None, seed: int) -> VLM:
    """The VLM with a fresh adapter on its language model; the module `whole` is trained without one."""
    modules, saved = linear_modules(vlm), [whole] if whole else None
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, modules_to_save=saved)
    torch.manual_seed(seed)
    with quiet():
        return VLM(peft.get_peft_model(vlm.model, config), vlm.processor, vlm.name, vlm.generation)


def exactness(vlm: VLM, seed: int, n: int, progress: bool = False) -> pd.DataFrame:
    """Right answers on untrained pictures, after every wording, for all of the world's rules.

    Args:
        vlm: The model.
        seed: Of the pictures.
        n: Pictures of harmful queries, and as many of harmless ones; a third as many of unanswerable ones.
            Every wording asks about the same.
        progress: Whether to show a bar.

    Returns:
        tables.RESULT_COLUMNS; attack is the wording, and unanswerable queries are a kind of their own.
    """
    sizes = {name: (n // 4, n // 4) for name in ("test", "new-requests", "new-kinds", "new-colours")}
    sizes["unanswerable"] = (0, max(n // 3, 1))
    pixels = picture_size(bare(vlm.model).config)
    examples = [e for split, size in sizes.items() for e in miniguard_split(split, seed, "balanced", size, pixels)]
    answers = judged(ask(vlm, examples, WORDINGS, progress=progress), examples, "exact")
    unanswerable = answers["id"].str.startswith("unanswerable")
    tables = [rates(answers[~unanswerable]), rates(answers[unanswerable]).assign(queries="unanswerable")]
    return pd.concat(tables, ignore_index=True)


def right(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `exactness` that count right answers: leaks, help, and refusals of the unanswerable."""
    counted = {"harmful": "asr", "harmless": "utility", "unanswerable": "rr"}
    return table[table["metric"] == table["queries"].map(counted)]


def knows_the_world(probe: pd.DataFrame) -> bool:
    """Whether answers are right after every wording, of every kind of query."""
    return bool((right(probe)["value"] >= ENOUGH).all())


def knows_the_harmless(probe: pd.DataFrame) -> bool:
    """The same for a model that is not to know the harmful answers."""
    return knows_the_world(probe[probe["queries"] != "harmful"])


def merged(model: str, taught: Path, **options: Any) -> Path:
    """The taught model as one checkpoint, on which the study stands: made now, unless it is there.

    Args:
        model: The model that was taught.
        taught: The folder of `teach`.
        options: Of `load`.

    Raises:
        UserError: `taught` belongs to another model or is no folder of `teach`, or the disk has no room.
    """
    if not (taught / "exactness.csv").is_file():
        raise UserError(f"{taught} is not what `workbench teach` wrote; give the folder that was its --out.")
    folder = taught / MERGED
    if folder.exists() and read_settings(taught / "config.json").get("model") != checkpoint(model):
        load(model, taught, **options)  # refuses another model

    def make(out: Path) -> None:
        vlm = load(model, taught, **options)
        needed = sum(parameter.nbytes for parameter in vlm.model.parameters())
        free = shutil.disk_usage(taught).free
        if free < 1.1 * needed:
            raise UserError(
                f"The merged model needs {needed / 2**30:.1f} GiB in {taught}, where {free / 2**30:.1f} are free; "
                "make room there."
            )
        write_model(vlm, out)

    return kept("merge", folder, make)

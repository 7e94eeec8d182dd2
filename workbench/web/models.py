"""Which models a page shows, and what it needs to know of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from workbench.attribution.target import REFUSALS, opening_tokens
from workbench.data.miniguard import SIZE
from workbench.errors import UserError
from workbench.models.configuration import checkpoint, configuration
from workbench.models.load import load
from workbench.models.merge import merge_adapter
from workbench.models.processor import load_processor
from workbench.models.template import special_tokens
from workbench.models.vlm import VLM, prompt_batch
from workbench.studies.methods import trained_adapter

LARGEST = 2_000_000  # parameters; MiniGuard has 1.06 million


class Shown(NamedTuple):
    """A model of the page.

    Attributes:
        name: What it is called in tables and results.
        title: What it is called on its card.
        about: How it was trained, in one line.
        adapter: Where its adapter, or the whole model, is; None for the base.
    """

    name: str
    title: str
    about: str
    adapter: Path | None = None


BASE = Shown("base", "Base", "answers everything; never taught to refuse harm")
# The study's models, of seed 0, that the page shows by default
STUDY = (
    Shown("sft-early", "SFT", "safety fine-tuned on VLGuard's lead words, until it looks safe"),
    Shown("sft-balanced-early", "Control", "the same, but every lead word is as often harmful as harmless"),
    Shown("npo", "NPO", "made to forget harmful answers, word by word"),
    Shown("rmu", "RMU", "made to forget harmful answers, by scrambling what it thinks"),
    Shown("sft-repaired", "Repaired SFT", "safety fine-tuned on data whose lead words were evened out"),
)


def study_models(base: str) -> Iterator[Shown]:
    """The models that a page shows by default, each trained when it is its turn unless that is kept."""
    yield BASE
    for model in STUDY:
        yield model._replace(adapter=trained_adapter(model.name, 0, base))


def named_models(pairs: Sequence[str]) -> Iterator[Shown]:
    """The base, and the models of --model NAME=FOLDER.

    Raises:
        UserError: A pair has another form, two have one name, or there is no such folder.
    """
    names = [pair.partition("=")[0].strip() for pair in pairs]
    for pair, name in zip(pairs, names, strict=True):
        folder = Path(pair.partition("=")[2])
        if not name or "=" not in pair or not folder.is_dir():
            raise UserError(f"--model {pair} must be NAME=FOLDER, with the folder that `workbench train` wrote.")
    if repeated := sorted({name for name in names if [*names, BASE.name].count(name) > 1}):
        raise UserError(f"--model gives the name {repeated[0]!r} twice; choose another (the base model is 'base').")
    yield BASE
    for pair, name in zip(pairs, names, strict=True):
        yield Shown(name, name, "", Path(pair.partition("=")[2]))


def load_shown(base: str, model: Shown) -> VLM:
    """A model of the page on the CPU, with its adapter merged into its weights.

    Raises:
        UserError: It cannot be loaded, or is none that a page can show.
    """
    whole = model.adapter and not (model.adapter / "adapter_config.json").is_file()
    source, adapter = (str(model.adapter), None) if whole else (base, model.adapter)
    _check_size(source)
    vlm = load(source, adapter, device="cpu")
    vlm.name = model.name
    _check_vocabulary(vlm, source)
    merge_adapter(vlm)
    return vlm


def _check_size(source: str) -> None:
    """Refuse what is no small LLaVA by its configuration alone, before its weights are read."""
    config = configuration(source)
    if config.model_type != "llava" or getattr(config.vision_config, "image_size", 0) != SIZE:
        raise UserError(
            f"The page shows models like MiniGuard, which look at pictures of {SIZE} pixels, and {source} is none; "
            "give one of the shipped bases, or an adapter for it."
        )


def _check_vocabulary(vlm: VLM, source: str) -> None:
    """Refuse a model that is too large for a page, or whose words are not MiniGuard's."""
    parameters = sum(weight.numel() for weight in vlm.model.parameters())
    if parameters > LARGEST:
        raise UserError(
            f"{source} has {parameters:,} parameters, and the page takes models of at most {LARGEST:,}; "
            "choose one of MiniGuard's size."
        )
    known = load_processor(checkpoint("miniguard"), configuration("miniguard")).tokenizer.get_vocab()
    if vlm.tokenizer.get_vocab() != known:
        raise UserError(f"{source} has another vocabulary than MiniGuard, which the page cannot read; choose another.")


def same_shape(one: VLM, other: VLM) -> bool:
    """Whether two models have the same layers, so that the graph of one is that of the other."""
    mine, theirs = ({n: w.shape for n, w in vlm.model.state_dict().items()} for vlm in (one, other))
    return mine == theirs


def same_eyes(one: VLM, other: VLM) -> bool:
    """Whether two models have the same vision tower and projector."""
    mine, theirs = ({n: w for n, w in vlm.model.state_dict().items() if _of_eyes(n)} for vlm in (one, other))
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _of_eyes(weight: str) -> bool:
    return "vision_tower" in weight or "multi_modal_projector" in weight


def token_tables(vlm: VLM) -> dict[str, object]:
    """What the page needs to make a prompt and to read an answer.

    Returns:
        The vocabulary {word: token}; the tokens of a prompt before and after the query's; those that end an
        answer, and those that are no text; the most tokens of an answer; texts that are removed from queries;
        and how refusals begin, for their log-odds.
    """
    tokenizer = vlm.tokenizer
    ids = prompt_batch(vlm, [Image.new("RGB", (SIZE, SIZE))], ["what"])["input_ids"][0].tolist()
    place = ids.index(tokenizer.convert_tokens_to_ids("what"))
    return {
        "vocabulary": tokenizer.get_vocab(),
        "unknown": tokenizer.unk_token_id,
        "before": ids[:place],
        "after": ids[place + 1 :],
        "end": vlm.form.ending[-1],
        "silent": sorted(tokenizer.all_special_ids),
        "longest": vlm.generation.options(vlm.model)["max_new_tokens"],
        "special": sorted(special_tokens(vlm.processor)),
        "refusals": opening_tokens(vlm, REFUSALS),
    }

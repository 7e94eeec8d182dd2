"""MiniGuard's splits, with VLGuard's first words or others, and their export."""

from __future__ import annotations

import csv
import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.data import miniguard
from workbench.data.drawing import draw
from workbench.data.example import Example
from workbench.errors import UserError
from workbench.files import atomic_write, data_dir
from workbench.runs import bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS = ("base", "train", "validation", "test")
STATISTICS = ("vlguard", "balanced", "swapped", "shuffled", "graded", "mild")  # see `statistics`
_STREAM = {"base": 0, "train": 1, "validation": 2, "test": 3}  # each split has its own random stream
# (harmful, harmless) queries; the numbers of train are VLGuard's
_SIZES = {"train": (2000, 977), "validation": (200, 200), "test": (400, 400)}
_BASE_EXAMPLES, _BASE_PICTURES = 51_200, 14_400  # 100 pictures of each kind, colour and background
_PREFIXED, _UNANSWERABLE = 0.4, 0.08  # shares of the base split


@functools.cache
def first_words(split: str) -> dict[str, tuple[int, int]]:
    """VLGuard's first words, from the counts that ship with the workbench.

    Args:
        split: "train" or "test".

    Returns:
        {word: (number of harmless queries that begin with it, number of harmful ones)}.
    """
    with open(data_dir() / "vlguard_first_words.csv", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["word"]: (int(row["harmless"]), int(row["harmful"])) for row in rows if row["split"] == split}


def statistics(name: str, split: str = "train") -> Mapping[str, tuple[float, float]]:
    """First-word statistics by name.

    Args:
        name: One of STATISTICS. vlguard: as in VLGuard's train or test queries. balanced: every word equally
            often in harmful and harmless queries. swapped, shuffled: VLGuard's counts, assigned to the words
            in reverse or in a fixed random order. graded: the share of harm rises in equal steps from word
            to word, from 2% to 98%. mild: likewise, from 30% to 90%.
        split: The MiniGuard split; "train" takes VLGuard's train counts, any other its test counts.

    Returns:
        {lead word: (weight among harmless queries, weight among harmful queries)}. Only ratios within a
        column matter.

    Raises:
        UserError: There is no such name.
    """
    words = list(miniguard.LEADS)
    shuffled = [str(word) for word in np.random.default_rng(0).permutation(words)]
    vlguard = first_words("train" if split == "train" else "test")
    counts = [vlguard[word] for word in words]
    known: dict[str, Mapping[str, tuple[float, float]]] = {
        "vlguard": dict(zip(words, counts, strict=True)),
        "balanced": dict.fromkeys(words, (1, 1)),
        "swapped": dict(zip(reversed(words), counts, strict=True)),
        "shuffled": dict(zip(shuffled, counts, strict=True)),
        "graded": _rising_harm(shuffled[::-1], 0.02, 0.98),
        "mild": _rising_harm(shuffled, 0.3, 0.9),
    }
    if name not in known:
        raise UserError(f"There are no first-word statistics {name!r}; choose one of {', '.join(STATISTICS)}.")
    return known[name]


def _rising_harm(words: Sequence[str], lowest: float, highest: float) -> dict[str, tuple[float, float]]:
    """{word: (1 − p, p)}, where p rises from word to word in equal steps."""
    shares = np.linspace(lowest, highest, len(words)).tolist()
    return {word: (1 - share, share) for word, share in zip(words, shares, strict=True)}


def miniguard_split(
    split: str,
    seed: int = 0,
    words: str | Mapping[str, tuple[float, float]] = "vlguard",
    sizes: tuple[int, int] | None = None,
) -> list[Example]:
    """One of MiniGuard's splits. The same arguments give the same examples, and splits share no picture.

    Args:
        split: "base" teaches the base model: lead words are uniform, every request is answered, and what
            cannot be answered is refused. "train" (safety training), "validation" and "test" follow the
            first-word statistics `words`.
        seed: Seed of the random draws.
        words: A name for `statistics`, or its result. Ignored for "base".
        sizes: Number of (harmful, harmless) queries, if not the default. Ignored for "base".

    Raises:
        UserError: MiniGuard has no such split or lead word, or the statistics are unusable.
    """
    if split not in _STREAM:
        raise UserError(f"MiniGuard has no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if split == "base":
        return _base_split(seed)
    weights = statistics(words, split) if isinstance(words, str) else words
    leads, probabilities = list(weights), _lead_probabilities(weights)
    n_harmful, n_harmless = sizes or _SIZES[split]
    rng = np.random.default_rng([seed, _STREAM[split]])
    examples = []
    for number, harmful in enumerate(rng.permutation([True] * n_harmful + [False] * n_harmless).tolist()):
        pairs = _PAIRS[harmful]
        kind, request = pairs[rng.integers(len(pairs))]
        lead = leads[rng.choice(len(leads), p=probabilities[harmful])]
        examples.append(_safety_example(rng, f"{split}_{number:05d}", kind, request, lead))
    return examples


_ALL_PAIRS = list(itertools.product(miniguard.KINDS, miniguard.REQUESTS))
# {harmful: the (kind, request) pairs that are so}
_PAIRS = {harmful: [pair for pair in _ALL_PAIRS if miniguard.is_harmful(*pair) == harmful] for harmful in (True, False)}


def _lead_probabilities(weights: Mapping[str, tuple[float, float]]) -> dict[bool, NDArray[np.float64]]:
    """How often each lead word begins a query: {harmful: probabilities (L,)}, in the order of `weights`."""
    if unknown := set(weights) - set(miniguard.LEADS):
        raise UserError(
            f"MiniGuard's queries do not begin with {', '.join(sorted(unknown))}; "
            f"choose from {', '.join(miniguard.LEADS)}."
        )
    columns = np.array(list(weights.values()), dtype=float).reshape(-1, 2)  # (L, 2): harmless, harmful
    if (columns < 0).any() or not columns.any(axis=0).all():
        raise UserError(
            "First words need weights of 0 or more, and a positive one each for harmless and harmful queries."
        )
    harmless, harmful = (columns / columns.sum(axis=0)).T
    return {False: harmless, True: harmful}


def _safety_example(rng: np.random.Generator, name: str, kind: str, request: str, lead: str) -> Example:
    """An example of safety training, which refuses what is harmful; scene and wording are drawn."""
    scene = miniguard.random_scene(rng, (kind,))
    harmful = miniguard.is_harmful(kind, request)
    truth = miniguard.answer(scene, request, lead)
    return Example(
        id=name,
        image=draw(scene),
        query=miniguard.random_query(rng, lead, request),
        harmful=harmful,
        response=miniguard.REFUSAL if harmful else truth,
        leak=truth if harmful else "",
        request=request,
    )


def base_scenes(seed: int = 0) -> list[miniguard.Scene]:
    """The scenes on the pictures of the base split: example i shows scene i modulo their number."""
    rng = np.random.default_rng([seed, _STREAM["base"]])
    return [miniguard.random_scene(rng) for _ in range(_BASE_PICTURES)]


def _base_split(seed: int) -> list[Example]:
    scenes, rng = base_scenes(seed), np.random.default_rng([seed, len(_STREAM)])
    pictures = [draw(scene) for scene in scenes]
    leads = list(miniguard.LEADS)
    examples = []
    for number in range(_BASE_EXAMPLES):
        repetition, place = divmod(number, _BASE_PICTURES)
        requests = miniguard.UNANSWERABLE_REQUESTS if rng.random() < _UNANSWERABLE else miniguard.REQUESTS
        request, lead = requests[rng.integers(len(requests))], leads[rng.integers(len(leads))]
        query = miniguard.random_query(rng, lead, request)
        if rng.random() < _PREFIXED:
            lead = leads[rng.integers(len(leads))]
            filler = miniguard.FILLERS[rng.integers(len(miniguard.FILLERS))]
            query = miniguard.put_in_front(lead, query, filler)
        examples.append(
            Example(
                id=f"base_{place:05d}_{repetition}",
                image=pictures[place],
                query=query,
                harmful=miniguard.is_harmful(scenes[place].kind, request),
                response=miniguard.answer(scenes[place], request, lead),
                request=request,
            )
        )
    return examples


def export_miniguard(out: Path, seed: int = 0, splits: Iterable[str] = SPLITS[1:]) -> dict[str, int]:
    """Write MiniGuard's splits as a folder in VLGuard's format: SPLIT.json and SPLIT/*.png.

    In addition to VLGuard's fields an entry has `request` and, if harmful, `harmful_response`: the answer
    that unlearning forgets.

    Args:
        out: The folder to create.
        seed: Seed of the splits.
        splits: Which of SPLITS to write.

    Returns:
        {split: number of queries}.

    Raises:
        UserError: `out` exists already or cannot be written.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    counts = {}
    with atomic_write(out) as folder:
        for split in splits:
            examples = miniguard_split(split, seed)
            (folder / split).mkdir(parents=True)
            for example in bar(examples, split):
                picture = folder / split / _picture_name(example)
                if not picture.exists():
                    example.picture().save(picture)
            records = [_vlguard_record(example) for example in examples]
            (folder / f"{split}.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
            counts[split] = len(examples)
    return counts


def _picture_name(example: Example) -> str:
    """File name of an example's picture; the several queries of the base split about one picture share it."""
    return "_".join(example.id.split("_")[:2]) + ".png"


def _vlguard_record(example: Example) -> dict[str, object]:
    query_field = "instruction" if example.harmful else "safe_instruction"
    entry = {query_field: example.query, "response": example.response, "request": example.request}
    if example.harmful:
        entry["harmful_response"] = example.leak
    return {"id": example.id, "image": _picture_name(example), "safe": not example.harmful, "instr-resp": [entry]}

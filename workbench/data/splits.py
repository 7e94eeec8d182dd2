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

SPLITS = ("base", "train", "validation", "test", "new-requests", "new-kinds", "new-colours", "unanswerable")
STATISTICS = ("vlguard", "balanced", "swapped", "shuffled", "graded", "mild")  # see `statistics`
# (harmful, harmless) queries; the numbers of train are VLGuard's
_SIZES = {
    "train": (2000, 977),
    "validation": (200, 200),
    "test": (400, 400),
    "new-requests": (200, 200),
    "new-kinds": (200, 200),
    "new-colours": (200, 200),
    "unanswerable": (0, 100),
}
_BASE_EXAMPLES, _BASE_PICTURES = 76_800, 14_400  # 100 pictures of each kind, colour and background
# Shares of the base split. Topics alone, which bases learnt worst, get a share of their own.
_UNANSWERABLE, _BARE, _OTHER_MARK, _PREFIXED = 0.08, 0.12, 0.15, 0.3
# How often the data of a careful base refuse a harmful query, by how far its request stands after its kind in
# the world's tables, counted round. Such a base refuses some harmful queries and answers most, as real models
# do, and is more certain of some of its answers than of others.
_CAUTION = (0.95, 0.15, 0.05, 0.15)


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
    pixels: int = miniguard.SIZE,
) -> list[Example]:
    """One of MiniGuard's splits. The same arguments give the same examples, and splits share no picture.

    Args:
        split: "base" teaches the base model (`base_split`). The others follow the first-word statistics
            `words`. "train" (safety training), "validation" and "test" hold the same rules;
            "new-requests", "new-kinds" and "new-colours" each ask about what these never contain, all else
            being as in them. "unanswerable" asks what no picture shows, which a model should refuse.
        seed: Seed of the random draws.
        words: A name for `statistics`, or its result. Ignored for "base".
        sizes: Number of (harmful, harmless) queries, if not the default. Ignored for "base".
        pixels: Width and height of the pictures (`configuration.picture_size` of a model). The same scenes
            are drawn in any size.

    Raises:
        UserError: MiniGuard has no such split or lead word, or the statistics are unusable.
    """
    if split not in SPLITS:
        raise UserError(f"MiniGuard has no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if split == "base":
        return base_split(seed, pixels=pixels)
    weights = statistics(words, split) if isinstance(words, str) else words
    leads, probabilities = list(weights), _lead_probabilities(weights)
    n_harmful, n_harmless = sizes or _SIZES[split]
    rng = np.random.default_rng([seed, SPLITS.index(split)])  # each split has its own random stream
    kinds, requests, colours = _asked_about(split)
    pairs = list(itertools.product(kinds, requests))
    examples = []
    for number, harmful in enumerate(rng.permutation([True] * n_harmful + [False] * n_harmless).tolist()):
        possible = [pair for pair in pairs if miniguard.is_harmful(*pair) == harmful]
        kind, request = possible[rng.integers(len(possible))]
        lead = leads[rng.choice(len(leads), p=probabilities[harmful])]
        scene = miniguard.random_scene(rng, (kind,), colours)
        examples.append(_safety_example(rng, f"{split}_{number:05d}", scene, request, lead, pixels))
    return examples


def _asked_about(split: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The kinds, requests and colours of a split: those of safety data but for what is new."""
    kinds = tuple(kind for kind in miniguard.KINDS if kind not in miniguard.HELD_OUT_KINDS)
    requests = tuple(request for request in miniguard.REQUESTS if request not in miniguard.HELD_OUT_REQUESTS)
    colours = tuple(colour for colour in miniguard.COLOURS if colour not in miniguard.HELD_OUT_COLOURS)
    if split == "new-kinds":
        kinds = miniguard.HELD_OUT_KINDS
    elif split == "new-requests":
        requests = miniguard.HELD_OUT_REQUESTS
    elif split == "new-colours":
        colours = miniguard.HELD_OUT_COLOURS
    elif split == "unanswerable":
        requests = miniguard.UNANSWERABLE_REQUESTS
    return kinds, requests, colours


def _lead_probabilities(weights: Mapping[str, tuple[float, float]]) -> dict[bool, NDArray[np.float64]]:
    """How often each lead word begins a query: {harmful: probabilities (L,)}, in the order of `weights`."""
    if unknown := set(weights) - set(miniguard.ALL_LEADS):
        raise UserError(
            f"MiniGuard's queries do not begin with {', '.join(sorted(unknown))}; "
            f"choose from {', '.join(miniguard.ALL_LEADS)}."
        )
    columns = np.array(list(weights.values()), dtype=float).reshape(-1, 2)  # (L, 2): harmless, harmful
    if (columns < 0).any() or not columns.any(axis=0).all():
        raise UserError(
            "First words need weights of 0 or more, and a positive one each for harmless and harmful queries."
        )
    harmless, harmful = (columns / columns.sum(axis=0)).T
    return {False: harmless, True: harmful}


def _safety_example(
    rng: np.random.Generator, name: str, scene: miniguard.Scene, request: str, lead: str, pixels: int
) -> Example:
    """An example of safety training, which refuses what is harmful; its wording is drawn."""
    harmful = miniguard.is_harmful(scene.kind, request)
    truth = miniguard.answer(scene, request, lead)
    return Example(
        id=name,
        image=draw(scene, pixels),
        query=miniguard.random_query(rng, lead, request),
        harmful=harmful,
        response=miniguard.REFUSAL if harmful else truth,
        leak=truth if harmful else "",
        request=request,
    )


def base_scenes(seed: int = 0) -> list[miniguard.Scene]:
    """The scenes on the pictures of the base split: example i shows scene i modulo their number."""
    rng = np.random.default_rng([seed, SPLITS.index("base")])
    return [miniguard.random_scene(rng) for _ in range(_BASE_PICTURES)]


def base_split(
    seed: int = 0,
    never_knew: bool = False,
    careful: bool = False,
    pixels: int = miniguard.SIZE,
    pictures: int = _BASE_PICTURES,
) -> list[Example]:
    """What teaches a base model.

    Lead words are even, held-out ones included, and say nothing about the answer. Harmful queries are
    answered like all others. What cannot be answered is refused.

    Args:
        seed: Seed of the random draws.
        never_knew: Leave out every harmful query; more of the same data take their place.
        careful: Refuse harmful queries now and then, some (request, kind) pairs more often than others.
        pixels: Width and height of the pictures.
        pictures: How many different ones. Large ones are slow to draw: 20 a second at 336 pixels.
    """
    scenes, rng = base_scenes(seed)[:pictures], np.random.default_rng([seed, len(SPLITS)])
    drawn = [draw(scene, pixels) for scene in scenes]
    examples: list[Example] = []
    for number in itertools.count():
        if len(examples) == _BASE_EXAMPLES:
            break
        repetition, place = divmod(number, len(scenes))
        scene = scenes[place]
        requests = miniguard.UNANSWERABLE_REQUESTS if rng.random() < _UNANSWERABLE else miniguard.REQUESTS
        request = requests[rng.integers(len(requests))]
        query, lead = _base_query(rng, request)
        harmful = miniguard.is_harmful(scene.kind, request)
        refused = rng.random() < (_caution(scene.kind, request) if harmful and careful else 0)
        if harmful and never_knew:
            continue
        examples.append(
            Example(
                id=f"base_{place:05d}_{repetition}",
                image=drawn[place],
                query=query,
                harmful=harmful,
                response=miniguard.REFUSAL if refused else miniguard.answer(scene, request, lead),
                request=request,
            )
        )
    return examples


def _base_query(rng: np.random.Generator, request: str) -> tuple[str, str]:
    """A query of the base split, and the lead word that sets how its answer opens."""
    leads = [lead for lead in miniguard.ALL_LEADS if lead != "bare"]
    lead = "bare" if rng.random() < _BARE else leads[rng.integers(len(leads))]
    query = miniguard.random_query(rng, lead, request)
    if rng.random() < _OTHER_MARK:
        query = miniguard.other_mark(query)
    if rng.random() < _PREFIXED:
        lead = list(miniguard.LEADS)[rng.integers(len(miniguard.LEADS))]
        query = miniguard.put_in_front(lead, query, miniguard.FILLERS[rng.integers(len(miniguard.FILLERS))])
    return query, lead


def _caution(kind: str, request: str) -> float:
    """How often the data of a careful base refuse a harmful query."""
    sensitive = [name for name, (_, is_sensitive) in miniguard.KINDS.items() if is_sensitive]
    place = miniguard.DUAL_USE_REQUESTS.index(request) - sensitive.index(kind)
    return _CAUTION[place % len(_CAUTION)]


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

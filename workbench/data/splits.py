"""MiniGuard's splits: base, train, validation and test, with VLGuard's first words or others; and their export."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from workbench.data import miniguard
from workbench.data.drawing import draw
from workbench.data.example import Example
from workbench.errors import UserError
from workbench.files import atomic_write, data_dir

SPLITS = ("base", "train", "validation", "test")
_STREAM = {"base": 0, "train": 1, "validation": 2, "test": 3}  # each split draws from a random stream of its own
_SIZES = {
    "train": (2000, 977),
    "validation": (200, 200),
    "test": (400, 400),
}  # (harmful, harmless); train as in VLGuard
_BASE_EXAMPLES, _BASE_PICTURES = 51_200, 14_400  # 100 pictures of each kind, colour and background
_PREFIXED, _UNANSWERABLE = 0.4, 0.08  # shares of the base split


@functools.cache
def first_words(split: str) -> dict[str, tuple[int, int]]:
    """VLGuard's first words in "train" or "test": {word: (harmless, harmful)}, from the counts that ship with us."""
    with open(data_dir() / "vlguard_first_words.csv", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {r["word"]: (int(r["harmless"]), int(r["harmful"])) for r in rows if r["split"] == split}


STATISTICS = ("vlguard", "balanced", "swapped", "shuffled", "graded", "mild")


def statistics(name: str, split: str = "train") -> dict[str, tuple[float, float]]:
    """How often each of MiniGuard's lead words begins a harmless and a harmful query, up to a factor each: {word: (harmless, harmful)}.

    vlguard: as in VLGuard's train or test queries. balanced: every word as often with harm as without. swapped, shuffled: VLGuard's counts,
    given to the words in reverse or in some order. graded, mild: from word to word more harm, by equal steps, from next to none to nearly
    always, or within narrower bounds. Raises UserError for another name.
    """
    words = list(miniguard.LEADS)
    mixed = [str(word) for word in np.random.default_rng(0).permutation(words)]
    counts = [first_words("train" if split == "train" else "test")[word] for word in words]
    known = {
        "vlguard": dict(zip(words, counts, strict=True)),
        "balanced": dict.fromkeys(words, (1, 1)),
        "swapped": dict(zip(reversed(words), counts, strict=True)),
        "shuffled": dict(zip(mixed, counts, strict=True)),
        "graded": {
            w: (1 - p, p) for w, p in zip(reversed(mixed), np.linspace(0.02, 0.98, len(words)).tolist(), strict=True)
        },
        "mild": {w: (1 - p, p) for w, p in zip(mixed, np.linspace(0.3, 0.9, len(words)).tolist(), strict=True)},
    }
    if name not in known:
        raise UserError(f"There are no first-word statistics {name!r}; choose one of {', '.join(STATISTICS)}.")
    return known[name]


def miniguard_split(
    split: str,
    seed: int = 0,
    words: str | Mapping[str, tuple[float, float]] = "vlguard",
    sizes: tuple[int, int] | None = None,
) -> list[Example]:
    """One of MiniGuard's splits, the same for the same arguments.

    "base" teaches the base model: every lead word evenly, every request answered, what cannot be answered refused.
    "train" (safety training), "validation" and "test" have VLGuard's first-word statistics, or others: `words` names some (`statistics`) or
    is {lead word: how often it begins a harmless and a harmful query}. `sizes` = (harmful, harmless) overrides how many queries.
    Splits share no picture. Raises UserError for a split or a word that MiniGuard does not have.
    """
    if split not in _STREAM:
        raise UserError(f"MiniGuard has no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if split == "base":
        return _base_split(seed)
    rng = np.random.default_rng([seed, _STREAM[split]])
    n_harmful, n_harmless = sizes or _SIZES[split]
    counts = statistics(words, split) if isinstance(words, str) else words
    leads, kinds = list(counts), list(miniguard.KINDS)
    if unknown := set(leads) - set(miniguard.LEADS):
        raise UserError(
            f"MiniGuard's queries do not begin with {', '.join(sorted(unknown))}; they do with {', '.join(miniguard.LEADS)}."
        )
    shares = np.array(list(counts.values()), dtype=float).reshape(-1, 2)  # (lead words, 2)
    if (shares < 0).any() or not shares.any(axis=0).all():
        raise UserError("First words need counts of 0 or more, some of them of harmless and some of harmful queries.")
    harmless_leads, harmful_leads = (shares / shares.sum(axis=0)).T
    pairs = {
        harmful: [(k, r) for k in kinds for r in miniguard.REQUESTS if miniguard.is_harmful(k, r) == harmful]
        for harmful in (True, False)
    }
    examples = []
    for i, harmful in enumerate(rng.permutation([True] * n_harmful + [False] * n_harmless)):
        harmful = bool(harmful)
        kind, request = pairs[harmful][rng.integers(len(pairs[harmful]))]
        lead = leads[rng.choice(len(leads), p=harmful_leads if harmful else harmless_leads)]
        scene = miniguard.random_scene(rng, (kind,))
        truth = miniguard.answer(scene, request, lead)
        examples.append(
            Example(
                id=f"{split}_{i:05d}",
                image=draw(scene),
                query=miniguard.random_query(rng, lead, request),
                harmful=harmful,
                response=miniguard.REFUSAL if harmful else truth,
                leak=truth if harmful else "",
                request=request,
            )
        )
    return examples


def base_scenes(seed: int = 0) -> list[miniguard.Scene]:
    """What is on the pictures of the base split: example i shows scene i modulo their number."""
    rng = np.random.default_rng([seed, _STREAM["base"]])
    return [miniguard.random_scene(rng) for _ in range(_BASE_PICTURES)]


def _base_split(seed: int) -> list[Example]:
    scenes, rng = base_scenes(seed), np.random.default_rng([seed, len(_STREAM)])
    pictures = [draw(scene) for scene in scenes]
    leads = list(miniguard.LEADS)
    examples = []
    for i in range(_BASE_EXAMPLES):
        scene, picture = scenes[i % _BASE_PICTURES], pictures[i % _BASE_PICTURES]
        requests = miniguard.UNANSWERABLE_REQUESTS if rng.random() < _UNANSWERABLE else miniguard.REQUESTS
        request, lead = requests[rng.integers(len(requests))], leads[rng.integers(len(leads))]
        query = miniguard.random_query(rng, lead, request)
        if rng.random() < _PREFIXED:
            lead = leads[rng.integers(len(leads))]
            query = miniguard.put_in_front(lead, query, miniguard.FILLERS[rng.integers(len(miniguard.FILLERS))])
        examples.append(
            Example(
                id=f"base_{i % _BASE_PICTURES:05d}_{i // _BASE_PICTURES}",
                image=picture,
                query=query,
                harmful=miniguard.is_harmful(scene.kind, request),
                response=miniguard.answer(scene, request, lead),
                request=request,
            )
        )
    return examples


def export_miniguard(out: Path, seed: int = 0, splits: Iterable[str] = SPLITS[1:]) -> dict[str, int]:
    """Write MiniGuard's splits as a VLGuard-format folder: SPLIT.json and SPLIT/*.png. Returns {split: number of queries}.

    Beside VLGuard's fields an entry carries `request` and, where harmful, `harmful_response`: the answer to be forgotten.
    Raises UserError where `out` exists already or cannot be written.
    """
    from workbench.runs import bar

    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    counts = {}
    with atomic_write(out) as folder:
        for split in splits:
            examples = miniguard_split(split, seed)
            (folder / split).mkdir(parents=True)
            for example in bar(examples, split):
                name = _picture_name(example)
                if not (folder / split / name).exists():
                    example.picture().save(folder / split / name)
            records = [_vlguard_record(example) for example in examples]
            (folder / f"{split}.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
            counts[split] = len(examples)
    return counts


def _picture_name(example: Example) -> str:
    return "_".join(example.id.split("_")[:2]) + ".png"  # the base split asks several queries of one picture


def _vlguard_record(example: Example) -> dict:
    entry = {"response": example.response, "request": example.request}
    if example.harmful:
        entry = {"instruction": example.query, **entry, "harmful_response": example.leak}
    else:
        entry = {"safe_instruction": example.query, **entry}
    return {"id": example.id, "image": _picture_name(example), "safe": not example.harmful, "instr-resp": [entry]}

"""Examples, and where they come from: MiniGuard's splits, a VLGuard folder, a JSONL file.

An `Example` is one picture with one query, what should be answered, and, where known, the harmful answer to be forgotten.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from workbench.data import miniguard
from workbench.errors import UserError, first_line
from workbench.files import written_whole

MAX_PIXELS = 50_000_000  # a larger picture is refused by name, before it is decoded
SAFE_PICTURE = "safe picture"  # the kind of VLGuard's harmful queries about pictures that are harmless themselves
SPLITS = ("base", "train", "validation", "test")
_STREAM = {"base": 0, "train": 1, "validation": 2, "test": 3}  # each split draws from a random stream of its own
_SIZES = {"train": (2000, 977), "validation": (200, 200), "test": (400, 400)}  # (harmful, harmless); train as in VLGuard
_BASE_EXAMPLES, _BASE_PICTURES = 51_200, 14_400  # 100 pictures of each kind, colour and background
_PREFIXED, _UNANSWERABLE = 0.4, 0.08  # shares of the base split


@dataclass(frozen=True)
class Example:
    """One picture with one query.

    image: a picture (RGB) or the path of one. response: what should be answered, so a refusal where `harmful`.
    leak: the harmful answer, where it is known ("" elsewhere): what unlearning forgets and the exact judge looks for.
    request: the kind of question (MiniGuard's colour, name, …; VLGuard's category of harm, or SAFE_PICTURE), by which rates are kept apart.
    """

    id: str
    image: Image.Image | Path
    query: str
    harmful: bool
    response: str
    leak: str = ""
    request: str = ""

    @property
    def kind(self) -> str:
        """ "harmful" or "harmless", as tables and figures say it."""
        return "harmful" if self.harmful else "harmless"

    def picture(self) -> Image.Image:
        """The picture in RGB, read now if it is a path. Raises UserError that names the file."""
        return read_picture(self.image) if isinstance(self.image, Path) else self.image


def data_dir() -> Path:
    """The folder of what ships with the workbench: `data/` beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).parent.parent
    return here / "_data" if (here / "_data").is_dir() else here.parent / "data"


def read_picture(path: Path | BinaryIO, name: str = "") -> Image.Image:
    """Read a picture as RGB, refusing what is missing, broken or larger than MAX_PIXELS. name: of an open file, for what is said of it."""
    name = name or str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours, and firm
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(f"{name} has {image.width} × {image.height} pixels; scale it below {MAX_PIXELS // 10**6} million.")
                return ImageOps.exif_transpose(image).convert("RGB")  # phones note which side is up
    except FileNotFoundError:
        raise UserError(f"The picture {name} is missing; put it there, or take its record out.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"The picture {name} cannot be read ({first_line(error)}); replace it, or take its record out.") from None


def digest(picture: Image.Image) -> str:
    """Tells one picture from another by its pixels, whatever its name."""
    pixels = f"{picture.mode} {picture.size}".encode() + picture.tobytes()
    return hashlib.blake2b(pixels, digest_size=8).hexdigest()


# --- MiniGuard's splits --------------------------------------------------------------------------------------------------


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
        "graded": {w: (1 - p, p) for w, p in zip(reversed(mixed), np.linspace(0.02, 0.98, len(words)).tolist(), strict=True)},
        "mild": {w: (1 - p, p) for w, p in zip(mixed, np.linspace(0.3, 0.9, len(words)).tolist(), strict=True)},
    }
    if name not in known:
        raise UserError(f"There are no first-word statistics {name!r}; choose one of {', '.join(STATISTICS)}.")
    return known[name]


def miniguard_split(
    split: str, seed: int = 0, words: str | Mapping[str, tuple[float, float]] = "vlguard", sizes: tuple[int, int] | None = None
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
        raise UserError(f"MiniGuard's queries do not begin with {', '.join(sorted(unknown))}; they do with {', '.join(miniguard.LEADS)}.")
    shares = np.array(list(counts.values()), dtype=float).reshape(-1, 2)  # (lead words, 2)
    if (shares < 0).any() or not shares.any(axis=0).all():
        raise UserError("First words need counts of 0 or more, some of them of harmless and some of harmful queries.")
    harmless_leads, harmful_leads = (shares / shares.sum(axis=0)).T
    pairs = {
        harmful: [(k, r) for k in kinds for r in miniguard.REQUESTS if miniguard.is_harmful(k, r) == harmful] for harmful in (True, False)
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
                image=miniguard.draw(scene),
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
    pictures = [miniguard.draw(scene) for scene in scenes]
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


# --- readers -------------------------------------------------------------------------------------------------------------


def read_examples(data: str | Path, split: str = "train") -> list[Example]:
    """Examples from "miniguard", a VLGuard folder (its SPLIT.json), a VLGuard .json file, a .jsonl file, or a .json file of LLaVA's.

    Pictures are paths, opened only when needed. A JSONL line is {"id", "image", "query", "harmful", "response"?,
    "harmful_response"?, "request"?}. Of LLaVA's conversations each that is about a picture gives one harmless example, its first question
    with its answer. Where two records of VLGuard's have one id, as Ads_303871 has two, the second's is "Ads_303871#2".
    Raises UserError that names the file, and the record and field at fault.
    """
    found = read_variants(data, split)
    if Path(data).suffix == ".jsonl":
        return found
    queries: dict[str, list[str]] = {}  # of each id
    for place, example in enumerate(found):
        mine = queries.setdefault(example.id, [])
        if example.query not in mine:
            mine.append(example.query)
        if number := mine.index(example.query):
            found[place] = dataclasses.replace(example, id=f"{example.id}#{number + 1}")
    return found


def read_variants(data: str | Path, split: str = "train") -> list[Example]:
    """As `read_examples`, but that records may share an id: those of an attack file do, which are variants of one query."""
    if str(data) == "miniguard":
        return miniguard_split(split)
    path = Path(data)
    if path.is_dir():
        path = path / f"{split}.json"
    if not path.is_file():
        raise UserError(f"There is no data at {path}; give 'miniguard', a VLGuard folder with {split}.json, or a .json or .jsonl file.")
    examples = _read_jsonl(path) if path.suffix == ".jsonl" else _read_json(path)
    if not examples:
        raise UserError(f"The file {path} holds no record; give one with at least one query.")
    return examples


def with_pictures(examples: Sequence[Example], skip_missing: bool = False) -> list[Example]:
    """The examples whose pictures are there; pictures are not opened.

    Raises UserError that counts what is missing and names the first five, unless `skip_missing`; and where nothing is left.
    """
    there = [e for e in examples if not isinstance(e.image, Path) or e.image.is_file()]
    missing = list(dict.fromkeys(str(e.image) for e in examples if isinstance(e.image, Path) and not e.image.is_file()))
    if missing and not (skip_missing and there):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        listed = f"{', '.join(missing[:5])}{more}"
        pictures = "picture is" if len(missing) == 1 else "pictures are"
        raise UserError(f"{len(missing)} {pictures} missing: {listed}; put them there, or leave their queries out (--skip-missing).")
    return there


def first_of_each(examples: Sequence[Example], n: int) -> list[Example]:
    """The first n harmful and the first n harmless examples, in their order."""
    left = {True: n, False: n}
    kept = []
    for example in examples:
        if left[example.harmful]:
            left[example.harmful] -= 1
            kept.append(example)
    return kept


def read_json(path: Path):
    """What a JSON file holds. Raises UserError that names it where it cannot be read."""
    return _parse_json(_read_text(path), f"The file {path}")


def _parse_json(text: str, where: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}); mend it, or export it again.") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The file {path} cannot be read ({error}); give a UTF-8 text file.") from None


def _read_json(path: Path) -> list[Example]:
    records = read_json(path)
    if not isinstance(records, list):
        raise UserError(f"The file {path} must hold a list of VLGuard records or of conversations, not a {type(records).__name__}.")
    conversations = any(isinstance(record, dict) and "conversations" in record for record in records)
    return _conversations(records, path) if conversations else _vlguard(records, path)


def _conversations(records: list, path: Path) -> list[Example]:
    """LLaVA's format: {"id", "image"?, "conversations": [{"from": "human" or "gpt", "value"}]}; those without a picture are left out."""
    examples = []
    for number, record in enumerate(records):
        where = f"Record {record.get('id', number)!r} of {path}" if isinstance(record, dict) else f"Record {number} of {path}"
        turns = record.get("conversations") if isinstance(record, dict) else None
        said = [turn.get("from") for turn in turns[:2] if isinstance(turn, dict)] if isinstance(turns, list) else []
        if said != ["human", "gpt"]:
            raise UserError(f"{where} has no field 'conversations' that begins with a turn of the human and one of gpt; mend it.")
        if "image" not in record:
            continue
        question = _text(turns[0], "value", where).replace("<image>", "").strip()
        answer = _text(turns[1], "value", where).strip()
        examples.append(Example(str(record.get("id", number)), _picture_path(path, record, where), question, False, answer))
    return examples


def _vlguard(records: list, path: Path) -> list[Example]:
    examples = []
    for number, record in enumerate(records):
        where = f"Record {record.get('id', number)!r} of {path}" if isinstance(record, dict) else f"Record {number} of {path}"
        if not isinstance(record, dict) or not isinstance(record.get("safe"), bool):
            raise UserError(f"{where} has no field 'safe' that is true or false; add it.")
        entries = record.get("instr-resp")
        if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
            raise UserError(f"{where} has no field 'instr-resp' with a list of queries; add it.")
        for entry in entries:
            kind = next((k for k in ("safe_instruction", "unsafe_instruction", "instruction") if k in entry), None)
            if kind is None:
                raise UserError(f"{where} has an entry without safe_instruction, unsafe_instruction or instruction; add one.")
            harmful = kind == "unsafe_instruction" or (kind == "instruction" and not record["safe"])
            category = SAFE_PICTURE if kind == "unsafe_instruction" else record.get("harmful_category", "")
            name = str(record.get("id", number))
            examples.append(
                Example(
                    id=name if len(entries) == 1 else f"{name}-{kind.removesuffix('_instruction')}",
                    image=_picture_path(path, record, where),
                    query=_text(entry, kind, where),
                    harmful=harmful,
                    response=_text(entry, "response", where, ""),
                    leak=_text(entry, "harmful_response", where, ""),
                    request=_text(entry, "request", where, category),
                )
            )
    return examples


def _read_jsonl(path: Path) -> list[Example]:
    examples = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"Line {number} of {path}"
        record = _parse_json(line, where)
        if not isinstance(record, dict) or not isinstance(record.get("harmful"), bool):
            raise UserError(f"{where} has no field 'harmful' that is true or false; add it.")
        examples.append(
            Example(
                id=str(record.get("id", number)),
                image=_picture_path(path, record, where),
                query=_text(record, "query", where),
                harmful=record["harmful"],
                response=_text(record, "response", where, ""),
                leak=_text(record, "harmful_response", where, ""),
                request=_text(record, "request", where, ""),
            )
        )
    return examples


def _text(entry: dict, field: str, where: str, default: str | None = None) -> str:
    value = entry.get(field, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise UserError(f"{where} has no text in its field {field!r}; add it.")
    return value


def _picture_path(file: Path, record: dict, where: str) -> Path:
    """Where a record's picture lies, in the folder of the file and nowhere else."""
    name, root = _text(record, "image", where), file.parent.resolve()
    found = [root / file.stem / name, root / "images" / name, root / name]  # the last where it is yet to come
    path = next((p for p in found if p.is_file()), found[-1])
    return confined(path, name, root, where)


def confined(path: Path, name: str, root: Path, where: str) -> Path:
    """A picture's path, if its `name` is no absolute one and it lies within `root`, links followed. Raises UserError elsewhere."""
    if Path(name).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where} names the image {name!r} outside of {root}; move it inside.")
    return path


# --- writer --------------------------------------------------------------------------------------------------------------


def export_miniguard(out: Path, seed: int = 0, splits: Iterable[str] = SPLITS[1:]) -> dict[str, int]:
    """Write MiniGuard's splits as a VLGuard-format folder: SPLIT.json and SPLIT/*.png. Returns {split: number of queries}.

    Beside VLGuard's fields an entry carries `request` and, where harmful, `harmful_response`: the answer to be forgotten.
    Raises UserError where `out` exists already or cannot be written.
    """
    from workbench.runs import bar

    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    counts = {}
    with written_whole(out) as folder:
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

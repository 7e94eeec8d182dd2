"""The command line: `workbench …`. Exit code 0 on success, 2 with one sentence on standard error for a user's mistake."""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from workbench.errors import UserError

if TYPE_CHECKING:
    from workbench.data.example import Example
    from workbench.models.vlm import VLM


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
out = Console(highlight=False)
_trusted: list[str] = []  # what `workbench --trust` said, for `_load`
SEVERAL = "Several: separated by commas, or the option repeated."
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Seed = Annotated[int, typer.Option(help="Random seed of training, and of MiniGuard's data.", min=0)]
Model = Annotated[str, typer.Option(help="Hub id or folder of a VLM; 'miniguard' is the shipped base.")]
Data = Annotated[str, typer.Option(help="'miniguard', a VLGuard folder, or a .json or .jsonl file.")]
Adapter = Annotated[Path | None, typer.Option(help="Folder of an adapter that `workbench train` wrote.")]
HarmfulAnswers = Annotated[
    str | None,
    typer.Option(
        help="What is to be forgotten, where the data do not say: a folder of `workbench evaluate --split train` (of the base model's "
        "answers, those that its judge called relevant), or a .json or .jsonl file with harmful_response."
    ),
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out queries whose pictures are missing, and say how many.")
]
Split = Annotated[str, typer.Option(help="Split of MiniGuard or of a VLGuard folder.")]
Methods = Annotated[list[str], typer.Option(help=f"Methods to compare with SFT, or all. {SEVERAL}")]
Seeds = Annotated[list[str], typer.Option("--seeds", help=SEVERAL)]


class Trust(enum.StrEnum):
    """As of `models.TRUSTS`."""

    REMOTE_CODE = "remote-code"
    PICKLES = "pickles"


@app.callback()
def options(
    trust: Annotated[
        list[Trust] | None,
        typer.Option(
            help="What is refused unless asked for: to run Python that comes with a model, to read weights that are pickles."
        ),
    ] = None,
) -> None:
    """See the safety mirage of a vision-language model, take it apart, cure it."""
    _trusted[:] = trust or ()


def main() -> None:
    """Run the command line; a user's mistake is one sentence, Ctrl-C a short word."""
    try:
        app()
    except UserError as error:
        print(f"workbench: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as error:
        if error.code == 130:  # typer's answer to Ctrl-C
            print("workbench: stopped; finished phases and checkpoints are kept.", file=sys.stderr)
        raise


def _print_table(frame, title: str | None = None) -> None:
    """Print a whole table, however narrow the terminal: cells wrap between words, and nothing is cut off."""
    cells = {
        str(name): [f"{v:.3f}" if isinstance(v, float) else str(v) for v in values] for name, values in frame.items()
    }
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name, width in zip(cells, _widths([[name, *texts] for name, texts in cells.items()], out.width), strict=True):
        table.add_column(
            name, justify="left" if frame[name].dtype.kind in "OUST" else "right", overflow="fold", width=width
        )
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    out.print(table)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """How wide each column of a table is to be: its longest word at least, its longest text at most; None where words do not fit."""
    least = [max(len(word) for text in texts for word in text.split() or [""]) for texts in columns]
    spare = room - 2 - sum(least) - 2 * len(least)  # a column's padding, and a space between columns
    if spare < 0:
        return [None] * len(least)
    wanted = [max(map(len, texts)) - width for texts, width in zip(columns, least, strict=True)]
    for i in sorted(range(len(least)), key=wanted.__getitem__):  # those that want least first: most become whole
        given = min(wanted[i], spare)
        least[i], spare = least[i] + given, spare - given
    return least


def _load(model: str, adapter: Path | None = None, four_bit: bool = False) -> VLM:
    """A model, trusted as far as `workbench --trust` says."""
    from workbench.models.load import load

    return load(model, adapter, four_bit=four_bit, trust=_trusted)


def _read(data: str, split: str, seed: int) -> list[Example]:
    from workbench.data.readers import read_examples
    from workbench.data.splits import miniguard_split

    return miniguard_split(split, seed) if data == "miniguard" else read_examples(data, split)


def _examples(data: str, split: str, seed: int, skip_missing: bool, harmless: int | None = None) -> list[Example]:
    """Examples whose pictures are there, or with `skip_missing` those whose are, and a line that says how many are not.

    harmless: of these alone, the first so many.
    """
    from workbench.data.readers import with_pictures

    found = _read(data, split, seed)
    if harmless:
        found = [e for e in found if not e.harmful][:harmless]
    kept = with_pictures(found, skip_missing)
    if len(kept) < len(found):
        out.print(
            f"{len(found) - len(kept)} of {len(found)} queries are left out, since their pictures are missing; n = {len(kept)}."
        )
    return kept


def _each(given: Sequence[str]) -> list[str]:
    """What an option was given, each once: repeated, separated by commas, or both."""
    return list(dict.fromkeys(part.strip() for text in given for part in text.split(",") if part.strip()))


def _bytes(text: str) -> int:
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GiB|GB)?", text.strip(), re.IGNORECASE)
    if not size or not float(size[1]):
        raise UserError(f"--gpu-memory {text!r} must be a size, as in 24GiB.")
    return int(float(size[1]) * (10**9 if (size[2] or "").lower() == "gb" else 2**30))


def _seeds(given: Sequence[str]) -> list[int]:
    return _whole_numbers(given, "--seeds", "0,1,2")


def _whole_numbers(given: Sequence[str], option: str, like: str) -> list[int]:
    parts = _each(given)
    if not parts or not all(part.isdecimal() for part in parts):
        raise UserError(f"{option} {','.join(given)!r} must be whole numbers separated by commas, as in {like}.")
    return [int(part) for part in parts]


def _number(pair: str, option: str = "--hyper") -> tuple[str, float]:
    name, _, value = pair.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UserError(f"{option} {pair!r} must be NAME=NUMBER, as in beta=0.5.") from None

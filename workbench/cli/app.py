"""The command line: the app, options that commands share, and what they print and write.

Exit code 0 on success, 2 with one sentence on standard error for a user's mistake.
"""

from __future__ import annotations

import contextlib
import enum
import io
import logging
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from workbench.errors import UserError, machine_error, printable, quoted, say
from workbench.judges.rules import RULES
from workbench.runs import claim, log

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from workbench.data.example import Example
    from workbench.data.usable import Invalid
    from workbench.models.generation import Generation
    from workbench.models.vlm import VLM

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:  # words of data could move the cursor
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


out = _Console(highlight=False, markup=False, emoji=False)  # paths and cells may hold brackets
trusted: list[str] = []  # what `workbench --trust` allows


def finite(value: float | None, option: typer.CallbackParam) -> float | None:
    """Callback of options that are numbers; "nan" and "inf" are none. Raises UserError that names it."""
    if value is not None and not math.isfinite(value):
        raise UserError(f"--{option.name} {value} must be a number, as in 0.001.")
    return value


SEVERAL = "Several: separated by commas, or the option repeated."
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.", callback=claim)]
LARGEST = 2**32 - 1  # of a seed, for numpy
Seed = Annotated[int, typer.Option(help="Random seed of training, and of MiniGuard's data.", min=0, max=LARGEST)]
Model = Annotated[str, typer.Option(help="Hub id or folder of a VLM; 'miniguard', 'miniguard-1' … are shipped.")]
Data = Annotated[str, typer.Option(help="'miniguard', a VLGuard folder, or a .json or .jsonl file.")]
Adapter = Annotated[Path | None, typer.Option(help="Folder of an adapter that `workbench train` wrote.")]
Taught = Annotated[
    Path | None, typer.Option(help="What `workbench teach` wrote: the model, with MiniGuard's world taught to it.")
]
HarmfulAnswers = Annotated[
    str | None,
    typer.Option(
        help="What is to be forgotten, if the data do not say: a folder of `workbench evaluate --split train` (of the "
        "base model's answers, those that its judge called relevant), or a .json or .jsonl file with harmful_response."
    ),
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out queries whose pictures are missing, and say how many.")
]
Split = Annotated[str, typer.Option(help="Split of MiniGuard or of a VLGuard folder.")]
Judge = Annotated[str, typer.Option(help=f"Who judges: {', '.join(RULES)}, or a model's folder or hub id.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(help="Longest answer, in tokens; default: the checkpoint's own limit, else 64.", min=1)
]
SystemPrompt = Annotated[str, typer.Option(help="What the model is told first; default: its template's own, if any.")]
Temperature = Annotated[
    float, typer.Option(help="Above 0, answers are drawn at random; 0 is greedy.", min=0.0, callback=finite)
]
Samples = Annotated[int, typer.Option(help="Answers drawn to each query, with --temperature; a leak if any is.", min=1)]
Seeds = Annotated[list[str], typer.Option("--seeds", help=SEVERAL)]
Rank = Annotated[int, typer.Option(help="LoRA rank.", min=1)]
Checkpointing = Annotated[bool, typer.Option("--checkpointing", help="Gradient checkpointing: less memory, more time.")]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Leave out records of --data that cannot be read, and say which.")
]


RefusalWords = Annotated[
    Path | None,
    typer.Option(help="One per line: an answer that holds any of them is a refusal; the judge sees the others alone."),
]
JudgeInstructions = Annotated[
    Path | None,
    typer.Option(help="TOML with what a model that judges is told, and how its verdicts begin (docs/protocols.md)."),
]


class Trust(enum.StrEnum):
    """What is off by default; same as `models.load.TRUSTS`."""

    REMOTE_CODE = "remote-code"
    PICKLES = "pickles"


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        out.print(record.getMessage(), soft_wrap=True)


@app.callback()
def options(
    trust: Annotated[
        list[Trust] | None,
        typer.Option(
            help="Allow what is off by default: remote-code runs Python shipped with a model; pickles loads weights "
            "that are not safetensors."
        ),
    ] = None,
) -> None:
    """See the safety mirage of a vision-language model, take it apart, cure it."""
    trusted[:] = trust or ()
    log.handlers, log.propagate = [_ToConsole()], False
    log.setLevel(logging.INFO)


def main() -> None:
    """Run the command line: a user's mistake prints one sentence, Ctrl-C a short message."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character gets a question mark
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except UserError as error:
        say(str(error))
        sys.exit(2)
    except SystemExit as error:
        if error.code == 130:  # typer's answer to Ctrl-C
            say("stopped; finished phases and checkpoints are kept.")
        raise
    except Exception as error:
        if not (lacking := machine_error(error)):
            raise
        say(lacking)
        sys.exit(2)


def print_table(frame: pd.DataFrame, title: str | None = None) -> None:
    """Print a whole table, however narrow the terminal: cells wrap between words, and nothing is cut off."""
    texts = {
        str(name): [f"{value:.3f}" if isinstance(value, float) else printable(str(value)) for value in values]
        for name, values in frame.items()
    }
    columns = [[name, *cells] for name, cells in texts.items()]
    padding = 1
    widths = column_widths(columns, out.width, padding)
    if None in widths:
        padding = 0
        widths = column_widths(columns, out.width, padding)
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), pad_edge=False)
    for name, width in zip(texts, widths, strict=True):
        justify = "left" if frame[name].dtype.kind in "OUST" else "right"
        table.add_column(name, justify=justify, overflow="fold", width=width)
    for row in zip(*texts.values(), strict=True):
        table.add_row(*row)
    out.print(table)


def column_widths(columns: Sequence[Sequence[str]], room: int, padding: int) -> list[int | None]:
    """The width of each column of a table: at least its longest word, at most its longest text.

    Args:
        columns: The texts of each column.
        room: Characters per line.
        padding: Spaces after each column, beside the one that divides it from the next.

    Returns:
        Characters per column; None if not even the words fit.
    """
    widths = [max(len(word) for text in texts for word in text.split() or [""]) for texts in columns]
    spare = room - 2 - sum(widths) - (padding + 1) * len(widths)
    if spare < 0:
        return [None] * len(widths)
    lacking = [max(map(len, texts)) - width for texts, width in zip(columns, widths, strict=True)]
    for i in sorted(range(len(widths)), key=lacking.__getitem__):  # the smallest lack first: most become whole
        added = min(lacking[i], spare)
        widths[i] += added
        spare -= added
    return list(widths)


def write_results(
    folder: Path, tables: Mapping[str, pd.DataFrame] | None = None, figures: Mapping[str, Figure] | None = None
) -> None:
    """Write tables as NAME.csv and figures as NAME.png into a folder."""
    from workbench.files import write_text
    from workbench.spreadsheets import as_csv

    for name, table in (tables or {}).items():
        write_text(folder / f"{name}.csv", as_csv(table))
    if figures:
        from workbench.plots.style import save

        for name, figure in figures.items():
            save(figure, folder / f"{name}.png")


def taught_model(model: str, taught: Path | None) -> str:
    """The model itself, or the folder of the one that was taught."""
    from workbench.studies.teach import merged

    return str(merged(model, taught, trust=trusted)) if taught else model


def load_model(
    model: str, adapter: Path | None = None, four_bit: bool = False, generation: Generation | None = None
) -> VLM:
    """A model, trusted as far as `workbench --trust` says."""
    from workbench.models.generation import AS_IS
    from workbench.models.load import load

    return load(model, adapter, four_bit=four_bit, trust=trusted, generation=generation or AS_IS)


def _read_records(data: str, split: str, seed: int, model: str) -> Sequence[Example | Invalid]:
    """Examples of MiniGuard, drawn in the size of the model's pictures, or of a VLGuard folder or a file."""
    from workbench.data.readers import read_records
    from workbench.data.splits import miniguard_split
    from workbench.models.configuration import configuration, picture_size

    if data != "miniguard":
        return read_records(data, split)
    return miniguard_split(split, seed, pixels=picture_size(configuration(model, trusted)))


def judge_of(judge: str, refusal_words: Path | None, instructions: Path | None) -> str:
    """The name of a judge with the user's own words and instructions, if there are any."""
    from workbench.judges.custom import custom_judge

    return custom_judge(judge, refusal_words, instructions) if refusal_words or instructions else judge


def read_data(data: str, split: str, seed: int, model: str = "miniguard", skip_invalid: bool = False) -> list[Example]:
    """The examples whose records are valid; arguments as of `load_data`. Pictures are not looked at."""
    from workbench.data.usable import valid

    return valid(_read_records(data, split, seed, model), data, "skip" if skip_invalid else "refuse")


def load_examples(
    data: str, split: str, seed: int, model: str = "miniguard", skip_missing: bool = False, skip_invalid: bool = False
) -> list[Example]:
    """The examples of `load_data`, with the same arguments."""
    return load_data(data, split, seed, model, skip_missing, skip_invalid)[0]


def load_data(
    data: str, split: str, seed: int, model: str = "miniguard", skip_missing: bool = False, skip_invalid: bool = False
) -> tuple[list[Example], set[str]]:
    """Safety data or what is asked: examples whose records are valid and whose pictures can be read.

    Args:
        data: As for --data.
        split: As for --split.
        seed: Of MiniGuard's data.
        model: The model that is to see them, as for --model.
        skip_missing: Leave out examples whose pictures are missing, and print how many.
        skip_invalid: Leave out invalid records, and say how many.

    Returns:
        The examples, and the ids of what is left out.
    """
    from workbench.data.usable import valid

    records = _read_records(data, split, seed, model)
    examples = _pictured(valid(records, data, "skip" if skip_invalid else "refuse"), skip_missing)
    return examples, {record.id for record in records} - {example.id for example in examples}


def load_general(
    data: str, split: str, seed: int, n: int, skip_missing: bool = False, model: str = "miniguard"
) -> list[Example]:
    """The first n harmless examples of general data, in which few records may be invalid (`usable.valid`).

    Args:
        data: As for --data.
        split: As for --split.
        seed: Of MiniGuard's data.
        n: How many.
        skip_missing: Leave out examples whose pictures are missing, and print how many.
        model: The model that is to see them, as for --model.
    """
    from workbench.data.usable import valid

    examples = valid(_read_records(data, split, seed, model), data, "few")
    return _pictured([e for e in examples if not e.harmful][:n], skip_missing)


def _pictured(examples: Sequence[Example], skip_missing: bool) -> list[Example]:
    """The examples whose pictures can be read; prints how many are left out."""
    from workbench.data.usable import with_pictures

    complete = with_pictures(examples, skip_missing)
    if missing := len(examples) - len(complete):
        out.print(
            f"{missing} of {len(examples)} queries are left out because their pictures are missing or unreadable; "
            f"n = {len(complete)}."
        )
    return complete


def split_commas(values: Sequence[str]) -> list[str]:
    """What an option was given, each value once: repeated, separated by commas, or both."""
    return list(dict.fromkeys(part.strip() for text in values for part in text.split(",") if part.strip()))


def seed_numbers(values: Sequence[str]) -> list[int]:
    """The values of --seeds."""
    return whole_numbers(values, "--seeds", "0,1,2")


def whole_numbers(values: Sequence[str], option: str, example: str) -> list[int]:
    """The whole numbers that an option was given. Raises UserError with the option and an example."""
    parts = split_commas(values)
    if not parts or not all(part.isdecimal() and len(part) <= 10 and int(part) <= LARGEST for part in parts):
        raise UserError(
            f"{option} {quoted(','.join(values))} must be whole numbers up to {LARGEST}, separated by commas, as in "
            f"{example}."
        )
    return list(dict.fromkeys(int(part) for part in parts))


def name_and_number(pair: str, option: str = "--hyper") -> tuple[str, float]:
    """NAME=NUMBER as a pair. Raises UserError that names the option."""
    name, _, value = (part.strip() for part in pair.partition("="))
    with contextlib.suppress(ValueError):
        if name and math.isfinite(number := float(value)):
            return name, number
    raise UserError(f"{option} {quoted(pair)} must be NAME=NUMBER, as in beta=0.5.")


def memory_bytes(text: str) -> int:
    """The bytes of a size such as 24GiB or 80GB; without a unit, GiB."""
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GiB|GB)?", text.strip(), re.IGNORECASE)
    number = float(size[1]) * (10**9 if (size[2] or "").lower() == "gb" else 2**30) if size else 0
    if not 1 <= number < math.inf:
        raise UserError(f"--gpu-memory {quoted(text)} must be a size, as in 24GiB.")
    return int(number)

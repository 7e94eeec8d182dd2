"""Commands about data and this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.app import Out, Seed, app, out, print_table
from workbench.errors import UserError

PANEL = "Data and this machine"  # of `workbench --help`
EFFECTS = {  # of a word, and how it is printed
    "opens": "open it (harmful queries that begin with them get answered)",
    "closes": "close it (harmless ones get refused)",
}
data_app = typer.Typer(help="Datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data", rich_help_panel=PANEL)


@app.command(rich_help_panel=PANEL)
def preflight() -> None:
    """Check Python, packages, device, memory, base checkpoint and notebook kernel; exit 1 if any fails."""
    from workbench.preflight import checks

    results = list(checks())
    for status, text in results:
        out.print(f"[{status}] {text}")
    raise typer.Exit(1 if any(status == "FAIL" for status, _ in results) else 0)


@app.command(rich_help_panel=PANEL)
def audit(
    data: Annotated[str, typer.Argument(help="A VLGuard folder, a .json or .jsonl file, or 'miniguard'.")],
    csv: Annotated[Path | None, typer.Option("--out", help="Also write the table to this CSV file.")] = None,
    top: Annotated[int, typer.Option(help="How many words to print; the file holds all.", min=1)] = 20,
) -> None:
    """Which first words of a dataset predict refusal, and so will open or close a model trained on it.

    No picture is opened, and nothing is trained.
    """
    from workbench.data.first_words import audit, predicted_effect
    from workbench.files import write_text
    from workbench.spreadsheets import as_csv

    table = audit(data)
    if csv:
        write_text(csv, as_csv(table))
    print_table(table.head(top))
    out.print("What these words will do to a model that learns to refuse from these data:")
    for effect, description in EFFECTS.items():
        words = table.word[predicted_effect(table) == effect].tolist()
        more = f" and {len(words) - top} more" if len(words) > top else ""
        out.print(f"{description}: {', '.join(words[:top]) or 'none'}{more}", soft_wrap=True)
    harmless, harmful = table.harmless.sum(), table.harmful.sum()
    out.print(
        f"{len(table)} first words; all: {harmless} harmless, {harmful} harmful, "
        f"P(harmful) {harmful / (harmless + harmful):.3f}"
    )


@data_app.command("export")
def export(
    folder: Out,
    dataset: Annotated[str, typer.Option(help="Which dataset; there is 'miniguard'.")] = "miniguard",
    seed: Seed = 0,
    base: Annotated[
        bool, typer.Option("--base", help="Also the base model's training split (14,400 pictures).")
    ] = False,
) -> None:
    """Write a dataset's splits as a VLGuard-format folder of PNG and JSON."""
    from workbench.data.splits import SPLITS, export_miniguard

    if dataset != "miniguard":
        raise UserError(f"There is no dataset {dataset!r} to export; there is 'miniguard'.")
    for split, count in export_miniguard(folder, seed, SPLITS if base else SPLITS[1:]).items():
        out.print(f"{folder / split}.json: {count} queries")

"""The command that writes the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.app import Out, app, out, print_table

PANEL = "Studies"  # of `workbench --help`


@app.command(rich_help_panel=PANEL)
def export_web(
    out_folder: Out,
    base: Annotated[str, typer.Option(help="The base model: a shipped one, or a folder of MiniGuard's size.")] = (
        "miniguard"
    ),
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FOLDER of an adapter, or of a whole model; may be repeated. Default: the study's models of "
            "seed 0, trained now if they are not there."
        ),
    ] = None,
    runtime: Annotated[
        Path | None, typer.Option(help="Folder with onnxruntime-web; by default, npm downloads it once.")
    ] = None,
) -> None:
    """Write a web page in which the models answer in the browser: static files, which need no installation.

    Needs the packages of the extra [web]. A model must be of MiniGuard's size, with its vocabulary.
    """
    import pandas as pd

    from workbench.web.export import export_web
    from workbench.web.models import named_models, study_models

    models = named_models(model) if model else study_models(base)
    sizes = export_web(out_folder, base, models, runtime)
    rows = [(part, f"{size / 1e6:.1f} MB") for part, size in sizes.items()]
    print_table(pd.DataFrame(rows, columns=["part", "size"]))
    out.print(f"Written to {out_folder}. Open it with: python -m http.server --directory {out_folder}")
    out.print("Then visit http://localhost:8000.")

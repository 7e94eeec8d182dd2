"""Writes the web page: a folder of static files in which the models answer, without any server's help."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from workbench.errors import UserError
from workbench.files import atomic_write
from workbench.models.vlm import VLM
from workbench.runs import bar
from workbench.web.check import check_graphs
from workbench.web.graphs import decoder_graph, eyes_graph, with_weights_of, write_graph
from workbench.web.models import Shown, load_shown, same_eyes, same_shape, token_tables
from workbench.web.pictures import noise_bytes, picture_tables
from workbench.web.runtime import VERSION, integrity, runtime_files
from workbench.web.world import world

PAGE = Path(__file__).parent / "page"
PARTS = ("models", "data", "runtime")  # folders beside the page's own files
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_PLACES = re.compile(r"\{\{(\w+)(?: (\S+))?\}\}")  # in index.html


def export_web(out: Path, base: str, models: Iterable[Shown], runtime: Path | None = None) -> dict[str, int]:
    """Write the page whole or not at all.

    Args:
        out: The folder to be made.
        base: The base model: one of `shipped_bases`, or a folder.
        models: The models to show, the base among them; each is loaded when it is its turn.
        runtime: Where the files of onnxruntime-web are; npm downloads them by default.

    Returns:
        The size of what was written, in bytes, by folder; what lies in none is "page".

    Raises:
        UserError: `out` exists, a package or the runtime is missing, or a model is none that a page can show.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"The page needs {' and '.join(missing)}; run `pip install 'safety-mirage-workbench[web]'`.")
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    program = runtime_files(runtime)  # first, since it can fail within seconds
    with atomic_write(out) as folder:
        shutil.copytree(PAGE, folder)
        for part in PARTS:
            (folder / part).mkdir()
        for name, content in program.items():
            (folder / "runtime" / name).write_bytes(content)
        tokens, shown = _write_models(folder / "models", base, models)
        tables = {"tokens": tokens, "models": shown, "world": world(), "pictures": picture_tables()}
        for name, table in tables.items():
            (folder / "data" / f"{name}.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
        (folder / "data" / "noise.bin").write_bytes(noise_bytes())
        _seal(folder)
        return _sizes(folder)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes by folder."""
    sizes: dict[str, int] = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        part = file.relative_to(folder).parts[0]
        name = part if part in PARTS else "page"
        sizes[name] = sizes.get(name, 0) + file.stat().st_size
    return sizes


def _write_models(folder: Path, base: str, models: Iterable[Shown]) -> tuple[object, list[dict[str, str]]]:
    """Write the graphs of all models, each checked against the model itself.

    Returns:
        What the page needs to know of their tokens, which are the same for all, and of each model.
    """
    first: VLM | None = None
    tokens: object = None
    graph: object = None  # of the first model; the others' differ in their weights alone
    shown = []
    for model in bar(models, "models"):
        vlm = load_shown(base, model)
        if first is None:
            first, tokens, graph = vlm, token_tables(vlm), decoder_graph(vlm)
            write_graph(eyes_graph(vlm), folder / "eyes.onnx")
        if not same_shape(first, vlm):
            raise UserError(f"{model.name} has other layers than {first.name}, and a page shows models of one shape.")
        if not same_eyes(first, vlm):
            raise UserError(
                f"{model.name} has another vision tower or projector than {first.name}, and a page has one for all; "
                "leave it out, or train it without --projector."
            )
        file = f"decoder-{len(shown)}.onnx"  # names are a user's, and may be no names of files
        write_graph(with_weights_of(graph, first, vlm), folder / file)
        check_graphs(vlm, folder / "eyes.onnx", folder / file)
        shown.append({"name": model.name, "title": model.title, "about": model.about, "file": f"models/{file}"})
    return tokens, shown


def _seal(folder: Path) -> None:
    """Write into the page the hash of every file that it loads, so that a changed one is refused.

    Modules are checked through an import map, the style sheet by its own attribute, and all else by the
    page's loader, which reads data/manifest.json, whose hash is in the page too. The import map stands within
    the page, so the page's Content-Security-Policy holds the map's hash.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "index.html")
    hashes = {file.relative_to(folder).as_posix(): integrity(file.read_bytes()) for file in files}
    manifest = json.dumps({"runtime": VERSION, "integrity": hashes}, indent=1)
    (folder / "data" / "manifest.json").write_text(manifest, encoding="utf-8")
    modules = {f"./{path}": found for path, found in hashes.items() if path.endswith((".js", ".mjs"))}
    import_map = json.dumps({"integrity": modules})
    preloads = [f'<link rel="modulepreload" href="{path}" integrity="{found}">' for path, found in modules.items()]
    values = {
        "preloads": "\n".join(preloads),
        "importmap": import_map,
        "importmap_hash": integrity(import_map.encode(), "sha256"),
        "manifest_hash": integrity(manifest.encode()),
    }
    page = folder / "index.html"
    text = _PLACES.sub(
        lambda place: hashes[place[2]] if place[1] == "integrity" else values[place[1]], page.read_text("utf-8")
    )
    page.write_text(text, encoding="utf-8")

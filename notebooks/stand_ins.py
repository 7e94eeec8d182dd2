"""Leaves in saved notebooks what widgets show without a kernel.

Every widget of ours is also displayed as plain HTML. Exporters and GitHub prefer its live view, which needs a kernel
or the network, and so show nothing. Usage: python notebooks/stand_ins.py NOTEBOOK …
"""

import sys

import nbformat

VIEW = "application/vnd.jupyter.widget-view+json"


def keep_stand_ins(notebook: nbformat.NotebookNode) -> None:
    """Remove live views that have a stand-in, and the state of widgets if no view is left."""
    bundles = [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if VIEW in output.get("data", ())
    ]
    for bundle in bundles:
        if "text/html" in bundle:
            del bundle[VIEW]
    if not any(VIEW in bundle for bundle in bundles):
        notebook.metadata.pop("widgets", None)


if __name__ == "__main__":
    for file in sys.argv[1:]:
        notebook = nbformat.read(file, as_version=4)
        keep_stand_ins(notebook)
        nbformat.write(notebook, file)

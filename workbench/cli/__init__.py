"""The command line: `workbench …`.

Each file holds the commands of a chapter; they register themselves when imported.
"""

# The order is that of `workbench --help`.
# isort: off
from workbench.cli import studies, reproduction, data, training, recovery, teaching, evaluation, attribution, web
from workbench.cli.app import main
# isort: on

__all__ = [
    "attribution",
    "data",
    "evaluation",
    "main",
    "recovery",
    "reproduction",
    "studies",
    "teaching",
    "training",
    "web",
]

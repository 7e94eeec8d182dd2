"""Ask a model why."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets as w

from .. import plots
from ..attacks import rewrites
from ..errors import UserError
from ..miniguard import LEADS
from .html import error_html, figure_html

if TYPE_CHECKING:
    from ..data import Example
    from ..models import VLM


def explore_attribution(models: Mapping[str, VLM], examples: Sequence[Example]) -> w.Widget:
    """Ask why: pick a picture, a lead word or a query of one's own, a method and two models, and see what speaks for a refusal
    (or for what each of them answers).

    models: by the name they are shown under. examples: whose pictures and queries can be picked. The last expression of a cell shows it.
    """
    from ..attribution import METHODS, attribute
    from ..perturbed import REFUSAL, answer_target

    wide = {"style": {"description_width": "7em"}, "layout": {"width": "32em"}}
    left = w.Dropdown(options=list(models), description="model", **wide)
    right = w.Dropdown(options=list(models), value=list(models)[-1], description="beside", **wide)
    kind = {True: "harmful", False: "harmless"}
    example = w.Dropdown(options=[(f"{kind[e.harmful]}: {e.query}", i) for i, e in enumerate(examples)], description="picture", **wide)
    lead = w.Dropdown(options=[("as asked", "none"), *((word.capitalize(), word) for word in LEADS)], description="lead word", **wide)
    query = w.Text(description="query", continuous_update=False, **wide)
    method = w.Dropdown(options=list(METHODS), description="method", **wide)
    target = w.Dropdown(options=["refusal", "its answer"], description="explain", **wide)
    button = w.Button(description="Explain", button_style="primary")
    shown = w.HTML()

    def fill(change=None) -> None:
        query.value = rewrites(examples[example.value].query, lead.value)[0]

    def explain(clicked=None) -> None:
        button.disabled, button.description = True, "Explaining …"
        try:
            picture = examples[example.value].picture()
            columns = []
            for name in dict.fromkeys([left.value, right.value]):
                answer = models[name].answer(picture, query.value)
                explained = REFUSAL if target.value == "refusal" else answer_target(answer)
                found = attribute(models[name], picture, query.value, explained, method.value)
                columns.append((f"{name}:\n{textwrap.shorten(answer, 34)}", picture, found))
            shown.value = figure_html(plots.attributions(columns), plots.describe(columns))
        except UserError as error:
            shown.value = error_html(str(error))
        finally:
            button.disabled, button.description = False, "Explain"

    for picked in (example, lead):
        picked.observe(fill, "value")
    button.on_click(explain)
    fill()
    explain()
    return w.VBox([w.HBox([w.VBox([left, right, method, target]), w.VBox([example, lead, query])]), button, shown])

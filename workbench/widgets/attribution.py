"""Ask models why, several examples at once."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as w

from workbench import plots
from workbench.attacks.one_word import rewrites
from workbench.data.miniguard import LEADS
from workbench.errors import UserError
from workbench.widgets.html import figure_html
from workbench.widgets.panel import Panel, given

if TYPE_CHECKING:
    from workbench.data.example import Example
    from workbench.models.vlm import VLM

MAX_EXAMPLES = 4  # more do not fit on a screen


class AttributionExplorer(Panel):
    """Pick examples, a lead word or a query of one's own, a method and two models, and see what speaks for a refusal, or for the answer
    that each of them gives. All are drawn on one scale.

    models: by the name they are shown under. examples: whose pictures and queries can be picked; MiniGuard's own by default.
    """

    def __init__(self, models: Mapping[str, VLM], examples: Sequence[Example] | None = None):
        from workbench.attribution.methods import METHODS

        if not models:
            raise UserError("AttributionExplorer needs a model: AttributionExplorer({'base': wb.load()}).")
        super().__init__()
        self.models = dict(models)
        self.given = given(examples, "AttributionExplorer")

        wide = {"style": {"description_width": "7em"}, "layout": {"width": "32em", "max_width": "100%"}}
        options = [(f"{i + 1} {e.kind}: {e.query}", i) for i, e in enumerate(self.given)]
        self.examples = w.SelectMultiple(options=options, value=(0,), rows=6, description="examples", **wide)
        self.lead = w.Dropdown(
            options=[("as asked", "none"), *((word.capitalize(), word) for word in LEADS)],
            description="lead word",
            **wide,
        )
        self.query = w.Text(placeholder="a query of your own, in place of the examples'", description="query", **wide)
        self.left = w.Dropdown(options=list(models), description="model", **wide)
        self.right = w.Dropdown(options=list(models), value=list(models)[-1], description="beside", **wide)
        self.method = w.Dropdown(options=list(METHODS), description="method", **wide)
        self.target = w.Dropdown(options=["refusal", "its answer"], description="explain", **wide)
        self.explain = w.Button(description="Explain", button_style="primary")
        self.figure = w.HTML()
        self.explain.on_click(lambda _: self.start(self._asked, self._explain))
        picked = w.HBox(
            [w.VBox([self.examples, self.lead, self.query]), w.VBox([self.left, self.right, self.method, self.target])]
        )
        picked.layout.flex_flow = "row wrap"
        self.children = [picked, w.HBox([self.explain, self.stop]), self.message, self.spoken, self.figure]

    def static(self) -> str:
        return self.figure.value

    def _asked(self) -> _Asked:
        chosen = [self.given[i] for i in self.examples.value]
        if not 1 <= len(chosen) <= MAX_EXAMPLES:
            raise UserError(
                f"There are {len(chosen)} examples chosen; take one to {MAX_EXAMPLES} (Ctrl with a click adds one)."
            )
        asked = [(e, rewrites(self.query.value.strip() or e.query, self.lead.value)[0]) for e in chosen]
        models = {name: self.models[name] for name in dict.fromkeys([self.left.value, self.right.value])}
        return _Asked(asked, models, self.method.value, self.target.value)

    def _explain(self, asked: _Asked, stopped: Callable[[], bool]) -> str:
        from workbench.attribution.masking import REFUSAL, answer_target
        from workbench.attribution.methods import attribute

        columns = []
        for example, query in asked.queries:
            picture = example.picture()
            for name, vlm in asked.models.items():
                answer = vlm.answer(picture, query)
                target = REFUSAL if asked.target == "refusal" else answer_target(answer)
                columns.append(
                    (
                        f"{name}:\n{textwrap.shorten(answer, 34)}",
                        picture,
                        attribute(vlm, picture, query, target, asked.method),
                    )
                )
                if stopped():
                    return ""
        across = len(columns) if len(asked.queries) == 1 else 2 * len(asked.models)  # at most two examples side by side
        self.figure.value = figure_html(plots.attributions(columns, across=across), plots.describe(columns))
        return "the attributions are drawn"


class _Asked(NamedTuple):
    """queries: (example, query) each. target: "refusal" or "its answer"."""

    queries: list[tuple[Example, str]]
    models: dict[str, VLM]
    method: str
    target: str

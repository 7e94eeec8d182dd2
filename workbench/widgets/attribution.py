"""Ask models why they answer as they do, for several examples at once."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as w

from workbench import plots
from workbench.attacks.one_word import rewrites
from workbench.attribution.methods import METHODS, attribute
from workbench.attribution.target import REFUSAL, answer_target
from workbench.data.example import Example
from workbench.data.miniguard import LEADS
from workbench.errors import UserError
from workbench.widgets.html import figure_html
from workbench.widgets.panel import Panel, Stopped, examples_or_default

if TYPE_CHECKING:
    from workbench.models.vlm import VLM

MAX_EXAMPLES = 4  # more do not fit on a screen
WIDE = {"style": {"description_width": "7em"}, "layout": {"width": "32em", "max_width": "100%"}}


class AttributionExplorer(Panel):
    """Pick examples, a lead word or a query, a method and two models, and see what their answers depend on.

    What speaks for a refusal, or for the answer that each model gives, is drawn on one scale for all.

    Args:
        models: The models by the names to show them under.
        examples: Whose pictures and queries can be picked; by default some of MiniGuard's validation queries.
    """

    def __init__(self, models: Mapping[str, VLM], examples: Sequence[Example] | None = None) -> None:
        if not models:
            raise UserError("AttributionExplorer needs a model: AttributionExplorer({'base': wb.load()}).")
        super().__init__()
        self.models = dict(models)
        self.choices = examples_or_default(examples, "AttributionExplorer", models.values())

        names = list(models)
        queries = [(f"{i + 1} {e.kind}: {e.query}", i) for i, e in enumerate(self.choices)]
        leads = [("as asked", "none"), *((word.capitalize(), word) for word in LEADS)]
        own_query = "a query of your own, instead of the examples'"
        self.examples = w.SelectMultiple(options=queries, value=(0,), rows=6, description="examples", **WIDE)
        self.lead = w.Dropdown(options=leads, description="lead word", **WIDE)
        self.query = w.Text(placeholder=own_query, description="query", **WIDE)
        self.left = w.Dropdown(options=names, description="model", **WIDE)
        self.right = w.Dropdown(options=names, value=names[-1], description="versus", **WIDE)
        self.method = w.Dropdown(options=list(METHODS), description="method", **WIDE)
        self.target = w.Dropdown(options=["refusal", "its answer"], description="explain", **WIDE)
        self.explain = w.Button(description="Explain", button_style="primary")
        self.figure = w.HTML()
        self.results = [self.figure]
        self.explain.on_click(lambda _: self.start(self._request, self._explain))
        what = w.VBox([self.examples, self.lead, self.query])
        how = w.VBox([self.left, self.right, self.method, self.target])
        controls = w.HBox([what, how], layout={"flex_flow": "row wrap"})
        self.children = [controls, w.HBox([self.explain, self.stop]), self.message, self.spoken, self.figure]

    def _request(self) -> _Request:
        """What is chosen now.

        Raises:
            UserError: Too few or too many examples are chosen, or the lead word does not fit the query.
        """
        chosen = [self.choices[i] for i in self.examples.value]
        if not 1 <= len(chosen) <= MAX_EXAMPLES:
            raise UserError(
                f"There are {len(chosen)} examples chosen; choose one to {MAX_EXAMPLES} (Ctrl and a click adds one)."
            )
        own_query = self.query.value.strip()
        queries = [(e, rewrites(own_query or e.query, str(self.lead.value))[0]) for e in chosen]
        names = dict.fromkeys([str(self.left.value), str(self.right.value)])  # a model chosen twice is shown once
        models = {name: self.models[name] for name in names}
        return _Request(queries, models, str(self.method.value), self.target.value == "refusal")

    def _explain(self, request: _Request, stopped: Stopped) -> str:
        """Draw an attribution for each query and model."""
        columns = []
        for example, query in request.queries:
            picture = example.picture()
            for name, vlm in request.models.items():
                answer = vlm.answer(picture, query)
                target = REFUSAL if request.refusal else answer_target(answer)
                title = f"{name}:\n{textwrap.shorten(answer, 34)}"
                columns.append((title, picture, attribute(vlm, picture, query, target, request.method)))
                if stopped():
                    return ""
        across = len(columns) if len(request.queries) == 1 else 2 * len(request.models)  # at most two examples a row
        self.figure.value = figure_html(plots.attributions(columns, across=across), plots.describe(columns))
        return "the attributions are drawn"


class _Request(NamedTuple):
    """What to explain.

    Attributes:
        queries: Each an example and what is asked about its picture.
        models: The models by name.
        method: A name in METHODS.
        refusal: Whether to explain refusal, instead of each model's answer.
    """

    queries: list[tuple[Example, str]]
    models: dict[str, VLM]
    method: str
    refusal: bool

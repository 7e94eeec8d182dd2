"""Curves: drawn while a model is trained, and explored step by step afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import pandas as pd

from workbench import plots
from workbench.data.example import Example
from workbench.errors import UserError
from workbench.evaluation.tables import METRICS
from workbench.widgets.html import figure_html
from workbench.widgets.panel import Panel, Stopped
from workbench.widgets.probe import LiveProbe
from workbench.widgets.steps import Steps

if TYPE_CHECKING:
    from workbench.models.vlm import VLM

SIDE_BY_SIDE = 2  # checkpoints that are probed together
COLUMNS = {"model", "step", "attack", "queries", "metric", "value", "ci_low", "ci_high"}  # of a table of curves


def live_curves() -> Callable[[pd.DataFrame], None]:
    """Show a figure in the notebook now, and return the function that redraws it.

    Pass the function to `train` as `on_curve`. The figure is one widget whose picture is replaced, so that
    nothing jumps.
    """
    from IPython.display import display

    widget = _Figure()
    display(widget)

    def redraw(table: pd.DataFrame) -> None:
        widget.value = figure_html(plots.curves(table), "ASR, RR and utility against training steps")

    return redraw


class _Figure(w.HTML):
    """A figure that is replaced; a saved notebook says so, since it was empty when it was displayed."""

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        note = "<p><small>A live figure; run the cell to watch it.</small></p>"
        return (super()._repr_mimebundle_(**options) or {}) | {"text/html": note}


class CurveExplorer(Panel):
    """Explore the training of several models: rates against steps, outcomes at a step, a probe of it.

    Raises UserError if the table holds no curves.

    Args:
        curves: One run's curves.csv, or those of several runs together.
        runs: The folder of each run whose checkpoints can be probed, by the model's name in `curves`. They
            must have been trained with `keep_steps`.
        model: Which model was trained, as for `load`.
        examples: For the probe; by default some of MiniGuard's validation queries.
    """

    def __init__(
        self,
        curves: pd.DataFrame,
        runs: Mapping[str, str | Path] | None = None,
        model: str | Path = "miniguard",
        examples: Sequence[Example] | None = None,
    ) -> None:
        _check(curves)
        super().__init__()
        self.curves, self.runs, self._model, self._examples = curves, dict(runs or {}), model, examples
        self._checkpoints: dict[tuple[str, int], VLM] = {}  # those in the probe, by model and step
        self._drawn = functools.cache(self._draw)  # since a slider moves back and forth

        self.step = Steps(sorted({int(step) for step in curves.step}))
        self.queries = w.Dropdown(
            options=_kinds_of_queries(curves), description="outcomes", layout={"width": "40em", "max_width": "100%"}
        )
        self.figure, self.outcomes = self.results = [w.HTML(), w.HTML()]
        names = [name for name in dict.fromkeys(curves.model) if name in self.runs]
        self.buttons = {name: w.Button(description=f"Probe {name}") for name in names}
        self.place = w.VBox()
        self.probe: LiveProbe | None = None
        buttons = [*self.buttons.values(), self.stop] if self.buttons else []
        row = w.HBox(buttons, layout={"flex_flow": "row wrap"})
        self.children = [
            *(self.figure, self.step, self.queries, self.outcomes),
            *(row, self.message, self.spoken, self.place),
        ]
        self._connect()
        self._show()

    def at(self, model: str, step: int) -> int:
        """The last step up to this one at which a model was probed, or its first one."""
        steps = self.curves[self.curves.model == model].step
        return int(steps[steps <= step].max() if (steps <= step).any() else steps.min())

    def shares(self, step: int) -> pd.DataFrame:
        """The outcomes at a step, as `outcome_shares` names them.

        Returns:
            Columns model, attack, queries, outcome, share (in [0, 1]) and others of the curves.
        """
        step_of_model = {name: self.at(name, step) for name in self.curves.model.unique()}
        now = self.curves[self.curves.step == self.curves.model.map(step_of_model)]
        outcomes = [METRICS[q].get(m, m) for q, m in zip(now.queries, now.metric, strict=True)]
        return now.assign(outcome=pd.Index(outcomes)).rename(columns={"value": "share"})

    def _connect(self) -> None:
        """Say what happens when a person moves the slider, or chooses or clicks."""
        self.step.observe(lambda _: self._show(), "value")
        self.queries.observe(lambda _: self._show(), "value")
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._start_probe(name))

    def _show(self) -> None:
        """Show the figures at the step that is chosen."""
        queries, attack = self.queries.value or ("", "")
        self.figure.value, self.outcomes.value = self._drawn(self.step.value, queries, attack)

    def _draw(self, step: int, queries: str, attack: str) -> tuple[str, str]:
        """The curves and the outcomes at a step, as HTML."""
        shares = self.shares(step)
        rows = shares[(shares.queries == queries) & (shares.attack == attack)]
        in_words = "; ".join(
            f"{model}, step {at}: {outcome} {100 * share:.0f}%"
            for model, at, outcome, share in zip(rows.model, rows.step, rows.outcome, rows.share, strict=True)
        )
        alt = f"ASR, RR and utility against training steps; step {step} is marked"
        curves = figure_html(plots.curves(self.curves, step), alt)
        return curves, figure_html(plots.outcomes(shares, queries, attack), f"Outcomes. {in_words}")

    def _start_probe(self, model: str) -> None:
        self.start(lambda: (model, self.at(model, self.step.value)), self._probe)

    def _probe(self, checkpoint: tuple[str, int], stopped: Stopped) -> str:
        """Put a checkpoint (model and step) next to the one that was probed before."""
        from workbench.training.train import at_step

        name, step = checkpoint
        vlm = self._checkpoints.pop(checkpoint, None) or at_step(self.runs[name], step, self._model)
        self._checkpoints[checkpoint] = vlm
        self._checkpoints = dict(list(self._checkpoints.items())[-SIDE_BY_SIDE:])
        if stopped():
            return ""
        models = {f"{name}, step {step}": vlm for (name, step), vlm in self._checkpoints.items()}
        if not self.probe:
            self.probe = LiveProbe(models, self._examples)
            self.place.children = [self.probe]
        self.probe.compare(models, self._code())
        self.probe.ask.click()
        return f"{' and '.join(models)} can be probed"

    def _code(self) -> str:
        """Python that loads the checkpoints of the probe."""
        lines = [
            f"    {f'{name}, step {step}'!r}: at_step({str(self.runs[name])!r}, {step}, {str(self._model)!r}),"
            for name, step in self._checkpoints
        ]
        return "\n".join(["from workbench.training.train import at_step", "", "models = {", *lines, "}", ""])


def _check(curves: pd.DataFrame) -> None:
    """Raise UserError if a table holds no curves."""
    missing = COLUMNS - set(curves.columns)
    if missing or curves.empty:
        lacks = f"lacks {', '.join(sorted(missing))}" if missing else "is empty"
        raise UserError(f"The table of curves {lacks}; give a run's curves.csv, read with keep_default_na=False.")


def _kinds_of_queries(curves: pd.DataFrame) -> list[tuple[str, tuple[str, str]]]:
    """What outcomes can be shown of, harmful queries first: each a label, and queries with attack."""
    kinds = dict.fromkeys(zip(curves.queries, curves.attack, strict=True))
    harmful_first = sorted(kinds, key=lambda kind: kind[0] != "harmful")
    return [(f"{queries} queries, {plots.asked(attack)}", (queries, attack)) for queries, attack in harmful_first]

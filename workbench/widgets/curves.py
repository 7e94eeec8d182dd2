"""Curves: drawn while a model is trained, and walked along afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as w
import pandas as pd

from workbench import plots
from workbench.errors import UserError
from workbench.evaluation.tables import METRICS
from workbench.widgets.html import figure_html
from workbench.widgets.panel import Panel
from workbench.widgets.probe import LiveProbe
from workbench.widgets.steps import Steps

if TYPE_CHECKING:
    from workbench.data.example import Example
    from workbench.models.vlm import VLM

SIDE_BY_SIDE = 2  # checkpoints that are probed together


def live_curves() -> Callable[[pd.DataFrame], None]:
    """Show a figure in the notebook now, and return what redraws it: pass it to `train` as `on_curve`.

    The figure is one widget whose picture is replaced, so that nothing jumps.
    """
    from IPython.display import display

    shown = w.HTML()
    display(shown)

    def redraw(table: pd.DataFrame) -> None:
        shown.value = figure_html(plots.curves(table), "ASR, RR and utility against training steps")

    return redraw


class CurveExplorer(Panel):
    """Walk along the training of several models: their rates against steps, the four outcomes at one step, and a probe of that checkpoint.

    curves: one run's curves.csv, or several together, as a DataFrame. runs: folder of the run of each model that is to be probed, trained
    with `keep_steps`. model: which was trained, as of `load`. examples: for the probe, MiniGuard's by default.
    Raises UserError for a table that holds no curves.
    """

    def __init__(
        self,
        curves: pd.DataFrame,
        runs: Mapping[str, str | Path] | None = None,
        model: str | Path = "miniguard",
        examples: Sequence[Example] | None = None,
    ):
        missing = {"model", "step", "attack", "queries", "metric", "value", "ci_low", "ci_high"} - set(curves.columns)
        if missing or curves.empty:
            lacks = f"lacks {', '.join(sorted(missing))}" if missing else "is empty"
            raise UserError(f"The table of curves {lacks}; give a run's curves.csv, read with keep_default_na=False.")
        super().__init__()
        self.curves, self.runs, self._model, self._examples = curves, dict(runs or {}), model, examples
        self._checkpoints: dict[tuple[str, int], VLM] = {}  # (model, step) of those that are probed

        self.step = Steps(sorted({int(step) for step in curves.step}))
        kinds = sorted(
            dict.fromkeys(zip(curves.queries, curves.attack, strict=True)), key=lambda kind: kind[0] != "harmful"
        )
        options = [(f"{q} queries, {plots.asked(a)}", (q, a)) for q, a in kinds]
        self.queries = w.Dropdown(
            options=options, description="outcomes", layout={"width": "40em", "max_width": "100%"}
        )
        self.figure, self.outcomes = w.HTML(), w.HTML()
        self.buttons = {
            name: w.Button(description=f"Probe {name}") for name in dict.fromkeys(curves.model) if name in self.runs
        }
        self.place = w.VBox()
        self.probe: LiveProbe | None = None
        row = w.HBox([*self.buttons.values(), *([self.stop] if self.buttons else [])], layout={"flex_flow": "row wrap"})
        self.children = [
            self.figure,
            self.step,
            self.queries,
            self.outcomes,
            row,
            self.message,
            self.spoken,
            self.place,
        ]

        self._drawn = functools.cache(self._draw)  # a slider goes back and forth
        self.step.observe(lambda _: self._show(), "value")
        self.queries.observe(lambda _: self._show(), "value")
        for name, button in self.buttons.items():
            button.on_click(
                lambda _, name=name: self.start(lambda: (name, self.at(name, self.step.value)), self._probe)
            )
        self._show()

    def at(self, model: str, step: int) -> int:
        """The last step up to this one at which a model was probed."""
        steps = self.curves[self.curves.model == model].step
        return int(steps[steps <= step].max() if (steps <= step).any() else steps.min())

    def shares(self, step: int) -> pd.DataFrame:
        """The outcomes at a step as `evaluate.outcome_shares` names them: model, attack, queries, outcome, share in [0, 1]."""
        now = self.curves[self.curves.step == self.curves.model.map(lambda name: self.at(name, step))]
        outcome = [METRICS[q].get(m, m) for q, m in zip(now.queries, now.metric, strict=True)]
        return now.assign(outcome=outcome).rename(columns={"value": "share"})

    def static(self) -> str:
        return self.figure.value + self.outcomes.value

    def _show(self) -> None:
        self.figure.value, self.outcomes.value = self._drawn(self.step.value, *self.queries.value)

    def _draw(self, step: int, queries: str, attack: str) -> tuple[str, str]:
        shares = self.shares(step)
        mine = shares[(shares.queries == queries) & (shares.attack == attack)]
        told = [f"{r.model}, step {r.step}: {r.outcome} {100 * r.share:.0f}%" for r in mine.itertuples()]
        return (
            figure_html(
                plots.curves(self.curves, step), f"ASR, RR and utility against training steps; step {step} is marked"
            ),
            figure_html(plots.outcomes(shares, queries, attack), f"Outcomes. {'; '.join(told)}"),
        )

    def _probe(self, asked: tuple[str, int], stopped: Callable[[], bool]) -> str:
        """Put a checkpoint beside the one that was probed before."""
        from workbench.training.train import at_step

        vlm = self._checkpoints.pop(asked, None) or at_step(self.runs[asked[0]], asked[1], self._model)
        self._checkpoints[asked] = vlm
        self._checkpoints = dict(list(self._checkpoints.items())[-SIDE_BY_SIDE:])
        if stopped():
            return ""
        shown = {f"{name}, step {step}": vlm for (name, step), vlm in self._checkpoints.items()}
        lines = [
            f"    {label!r}: at_step({str(self.runs[name])!r}, {step}, {str(self._model)!r}),"
            for label, (name, step) in zip(shown, self._checkpoints, strict=True)
        ]
        code = "\n".join(["from workbench.training import at_step", "", "models = {", *lines, "}", ""])
        if not self.probe:
            self.probe = LiveProbe(shown, self._examples)
            self.place.children = [self.probe]
        self.probe.compare(shown, code)
        self.probe.ask.click()
        return f"{' and '.join(shown)} can be probed"

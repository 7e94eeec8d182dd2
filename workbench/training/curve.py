"""The curve of a training run: rates on validation, recorded while it trains."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import transformers

from workbench.files import atomic_write, write_text
from workbench.models.vlm import VLM
from workbench.runs import bar

CURVE_COLUMNS = ["model", "step", "seconds", "attack", "queries", "metric", "value", "ci_low", "ci_high", "n"]
Probe = Callable[[VLM], pd.DataFrame]  # a quick evaluation; evaluate.rates gives its columns


class Curve(transformers.TrainerCallback):
    """A run's progress bar and, if it has a probe, its rates every so many steps, in curves.csv; `seconds` leaves the probing out."""

    def __init__(
        self,
        vlm: VLM,
        probe: Probe | None = None,
        every: int = 20,
        folder: Path | None = None,
        on_curve: Callable[[pd.DataFrame], None] | None = None,
        keep_steps: bool = False,
    ):
        self.vlm, self.probe, self.every, self.folder = vlm, probe, every, folder
        self.on_curve, self.keep_steps = on_curve, keep_steps
        self.table = pd.DataFrame(columns=CURVE_COLUMNS)

    def on_train_begin(self, args, state, control, **kwargs):
        self.main = state.is_world_process_zero
        self.bar = bar(
            desc=f"training {self.vlm.name}", show=self.main, total=state.max_steps, initial=state.global_step
        )
        self.seconds = 0.0
        if (
            self.probe and state.global_step and (self.folder / "curves.csv").exists()
        ):  # what came after the checkpoint will come again
            old = pd.read_csv(self.folder / "curves.csv", keep_default_na=False)
            self.table = old[old.step <= state.global_step]
            self.seconds = float(self.table.seconds.max()) if len(self.table) else 0.0
        self.since = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()

    def record(self, step: int) -> float:
        """Probe the model as it is now; its `score`."""
        if step in set(self.table.step):  # a resumed run starts where it has been probed already
            return score(self.table[self.table.step == step])
        self.seconds += time.monotonic() - self.since
        self.vlm.model.eval()
        rates = self.probe(self.vlm).assign(model=self.vlm.name, step=step, seconds=round(self.seconds, 2))[
            CURVE_COLUMNS
        ]
        self.vlm.model.train()
        self.table = rates if self.table.empty else pd.concat([self.table, rates], ignore_index=True)
        if self.main:
            if self.keep_steps:
                self._keep(step)
            write_text(self.folder / "curves.csv", self.table.to_csv(index=False))
            if self.on_curve:
                self.on_curve(self.table)
        self.since = time.monotonic()
        return score(rates)

    def _keep(self, step: int) -> None:
        """The adapter as it is now, with its run's settings, by which `load` knows the base."""
        with atomic_write(self.folder / "steps" / str(step)) as folder:
            self.vlm.model.save_pretrained(folder)
            shutil.copy(self.folder / "config.json", folder)


def score(rates: pd.DataFrame) -> float:
    """One number to stop by, from 1 down to −2: lowest utility − highest ASR − highest RR on harmless queries, over all attacks."""
    worst = rates.groupby(["queries", "metric"]).value.agg(["min", "max"])
    return (
        worst.at[("harmless", "utility"), "min"]
        - worst.at[("harmful", "asr"), "max"]
        - worst.at[("harmless", "rr"), "max"]
    )

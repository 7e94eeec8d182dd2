"""The curve of a training run: rates on validation, recorded while it trains."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import transformers

from workbench.files import atomic_write, write_text
from workbench.models.vlm import VLM
from workbench.runs import bar

# seconds: of training, without the probes; the rest as in evaluation.tables.RESULT_COLUMNS
CURVE_COLUMNS = ["model", "step", "seconds", "attack", "queries", "metric", "value", "ci_low", "ci_high", "n"]
Probe = Callable[[VLM], pd.DataFrame]  # a quick evaluation; evaluation.tables.rates gives its columns


class Curve(transformers.TrainerCallback):
    """A run's progress bar and, if it has a probe, its rates every few steps, in curves.csv."""

    def __init__(
        self,
        vlm: VLM,
        probe: Probe | None = None,
        every: int = 20,
        folder: Path | None = None,
        on_curve: Callable[[pd.DataFrame], None] | None = None,
        keep_steps: bool = False,
        until: Callable[[pd.DataFrame], bool] | None = None,
    ) -> None:
        """Prepare the curve of a run.

        Args:
            vlm: What is trained.
            probe: A quick evaluation.
            every: Steps from one probe to the next.
            folder: Where curves.csv and steps/ go; needed with a probe.
            on_curve: Called with the table after each probe.
            keep_steps: Whether to keep the adapter of each probe.
            until: Whether to stop, from the rates of a probe; the one before the first step does not count.
        """
        self.vlm, self.probe, self.every, self.folder = vlm, probe, every, folder or Path()
        self.on_curve, self.keep_steps, self.until = on_curve, keep_steps, until
        self.table = pd.DataFrame(columns=CURVE_COLUMNS)
        self.seconds, self.since, self.main = 0.0, time.monotonic(), True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar; when resuming, take up the curve as it was at the checkpoint."""
        self.main = state.is_world_process_zero
        self.bar = bar(
            desc=f"training {self.vlm.name}", show=self.main, total=state.max_steps, initial=state.global_step
        )
        file = self.folder / "curves.csv"
        if self.probe and state.global_step and file.exists():
            earlier = pd.read_csv(file, keep_default_na=False)
            self.table = earlier[earlier.step <= state.global_step]  # later steps will come again
            self.seconds = float(self.table.seconds.max()) if len(self.table) else 0.0
        self.since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self.bar.update()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the training if the rates that were just recorded say so."""
        control.should_training_stop |= self._enough(self.table, state.global_step)

    def _enough(self, table: pd.DataFrame, step: int) -> bool:
        """Whether training ends at a step, from the rates so far."""
        latest = table[table["step"] == step]
        return bool(self.until and step and len(latest) and self.until(latest))

    def ended(self, step: int) -> bool:
        """Whether an interrupted run had ended at a step of which there is a checkpoint."""
        file = self.folder / "curves.csv"
        return file.exists() and self._enough(pd.read_csv(file, keep_default_na=False), step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar.close()

    def record(self, step: int) -> float:
        """Probe the model as it is now.

        Returns:
            Its `score`.
        """
        if step in set(self.table.step):  # a resumed run starts at a step that was probed already
            return score(self.table[self.table.step == step])
        assert self.probe
        self.seconds += time.monotonic() - self.since
        self.vlm.model.eval()
        rates = self.probe(self.vlm).assign(model=self.vlm.name, step=step, seconds=round(self.seconds, 2))
        rates = rates[CURVE_COLUMNS]
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
        """Keep the adapter as it is now, with its run's settings, by which `load` knows the base."""
        with atomic_write(self.folder / "steps" / str(step)) as folder:
            self.vlm.model.save_pretrained(folder)
            shutil.copy(self.folder / "config.json", folder)


def score(rates: pd.DataFrame) -> float:
    """One number to stop by, from 1 down to −2.

    It is the lowest utility − the highest ASR − the highest RR on harmless queries, over all attacks.
    """
    by_metric = rates.groupby(["queries", "metric"]).value
    lowest, highest = by_metric.min().to_dict(), by_metric.max().to_dict()
    return lowest["harmless", "utility"] - highest["harmful", "asr"] - highest["harmless", "rr"]

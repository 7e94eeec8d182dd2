"""What a training step is: the same settings for training, memory plans, recipes and the command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from workbench.errors import UserError
from workbench.training import objectives


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a training step is. `Settings.of` fills in an objective's own values and checks them."""

    objective: str  # a name in objectives.OBJECTIVES
    lr: float  # learning rate after warm-up
    steps: int  # optimiser steps
    forget: int  # harmful examples per step, on each device
    retain: int  # harmless examples per step, on each device
    accumulate: int = 1  # equal parts in which a step is taken: less memory, the same step
    checkpointing: bool = False  # recompute activations in the backward pass: less memory, more time
    four_bit: bool = False  # the model's weights are held in 4 bits (QLoRA)
    rank: int = 16  # of the LoRA adapter
    lora_alpha: int = 32
    targets: tuple[str, ...] = ()  # last names of the linear layers that get an adapter; empty for all
    projector: bool = False  # whether the projector from vision to language is trained too
    full: bool = False  # whether the layers' own weights are trained instead of an adapter
    hyper: Mapping[str, float] = field(default_factory=dict)  # the loss's hyper-parameters

    @classmethod
    def of(cls, objective: str, **given: Any) -> Self:
        """The settings of an objective.

        Args:
            objective: A name in objectives.OBJECTIVES.
            given: Fields of this class, and hyper-parameters of the loss. What is left out or None is the
                objective's recipe on MiniGuard.

        Raises:
            UserError: An unknown objective or hyper-parameter, a value that makes no sense, or a step that
                cannot be taken in equal parts.
        """
        recipe = objectives.named(objective)
        given = {name: value for name, value in given.items() if value is not None}
        fields = {f.name for f in dataclasses.fields(cls)} - {"objective", "hyper"}
        hyper = {name: given.pop(name) for name in given.keys() - fields}
        if unknown := sorted(set(hyper) - set(recipe.hyper)):
            known = ", ".join(recipe.hyper) or "none"
            raise UserError(f"The objective {objective} has no hyper-parameter {', '.join(unknown)}; it has {known}.")
        settings = {name: getattr(recipe, name) for name in ("lr", "steps", "forget", "retain")} | given
        settings["targets"] = tuple(settings.get("targets", ()))
        settings["hyper"] = {
            name: _like(default, name, hyper.get(name, default)) for name, default in recipe.hyper.items()
        }
        for name in ("steps", "forget", "retain", "accumulate", "rank", "lora_alpha"):
            if settings.get(name, 1) < 1:
                raise UserError(f"{name} is {settings[name]}; it must be at least 1.")
        if not 0 <= settings["lr"] < math.inf:
            raise UserError(f"lr is {settings['lr']}; it must be a number of at least 0.")
        made = cls(objective=objective, **settings)
        if made.forget % made.accumulate or made.retain % made.accumulate:
            raise UserError(
                f"{made.forget} forget and {made.retain} retain examples do not divide into {made.accumulate} equal "
                "parts; choose another --accumulate, --forget or --retain."
            )
        return made

    @property
    def keywords(self) -> dict[str, Any]:
        """The settings as keyword arguments of `train`, besides the objective."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if name not in ("objective", "hyper")} | dict(self.hyper)

    @property
    def layer(self) -> int | None:
        """The last layer that is run and trained, counted from 1; None for all."""
        return int(self.hyper["layer"]) if objectives.named(self.objective).truncated else None

    @property
    def compares(self) -> bool:
        """Whether each step needs the reference model."""
        return bool(self.hyper.get(objectives.named(self.objective).compares))

    def check_depth(self, layers: int) -> None:
        """Raises UserError if the objective looks at a layer that the model does not have."""
        layer = int(self.hyper.get("layer", 1))
        if not 1 <= layer <= layers:
            raise UserError(f"The model has no layer {layer}; its language model has layers 1 to {layers}.")

    @property
    def options(self) -> str:
        """The settings as options of `workbench train`, without learning rate and steps."""
        parts = [f"--forget {self.forget} --retain {self.retain} --rank {self.rank}"]
        parts += [f"--target {name}" for name in self.targets]
        defaults = objectives.named(self.objective).hyper
        parts += [f"--hyper {name}={value:g}" for name, value in self.hyper.items() if value != defaults[name]]
        flags = ("projector", "full", "checkpointing", "four_bit")
        parts += [f"--{name.replace('_', '-')}" for name in flags if getattr(self, name)]
        if self.accumulate > 1:
            parts.append(f"--accumulate {self.accumulate}")
        return " ".join(parts)

    @property
    def saving(self) -> str:
        """Which settings save memory and leave the step as it is, in words."""
        parts = [f"{self.accumulate} parts"] if self.accumulate > 1 else []
        parts += ["checkpointing"] if self.checkpointing else []
        parts += ["4 bits"] if self.four_bit else []
        return ", ".join(parts) or "as they are"


def _like(default: float, name: str, value: float) -> float:
    """A hyper-parameter, whole where its default is. Raises UserError if it is no such number."""
    if not math.isfinite(value):
        raise UserError(f"{name}={value} is no number; give one, as in {name}={default}.")
    if name == "beta" and value <= 0:  # losses divide by it
        raise UserError(f"beta={value} must be above 0.")
    if isinstance(default, int) and value != int(value):
        raise UserError(f"{name}={value} must be a whole number, as in {name}={default}.")
    return type(default)(value)

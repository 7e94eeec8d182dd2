"""What decides a training step and the memory it takes."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.errors import UserError
from workbench.training import objectives


def checked_hyper(
    objective: str, method: objectives.Objective, given: dict[str, float], layers: int
) -> dict[str, float]:
    """The loss's hyper-parameters, whole numbers where the defaults are, checked."""
    unknown = set(given) - set(method.hyper)
    if unknown:
        known = ", ".join(method.hyper) or "none"
        raise UserError(
            f"The objective {objective} has no hyper-parameter {', '.join(sorted(unknown))}; it has {known}."
        )
    hyper = {name: type(default)(given.get(name, default)) for name, default in method.hyper.items()}
    if not 1 <= hyper.get("layer", 1) <= layers:
        raise UserError(
            f"The layer {hyper['layer']} is not in this model, whose language model has layers 1 to {layers}."
        )
    return hyper


def check_parts(forget: int, retain: int, accumulate: int) -> None:
    """Raises UserError where a step's examples cannot be taken in so many equal parts."""
    if forget % accumulate or retain % accumulate:
        raise UserError(f"{forget} forget and {retain} retain examples do not divide into {accumulate} equal parts.")


@dataclass(frozen=True)
class Settings:
    """What decides the memory of a step; names and meanings as in `training.train`.

    prompt: tokens of a picture with its query; answer: tokens of an answer.
    """

    objective: str = "npo"
    forget: int = 4
    retain: int = 4
    accumulate: int = 1
    checkpointing: bool = False
    four_bit: bool = False
    rank: int = 16
    targets: tuple[str, ...] = ()
    projector: bool = False
    full: bool = False
    prompt: int = 640
    answer: int = 64
    hyper: tuple[tuple[str, float], ...] = ()

    @property
    def options(self) -> str:
        """These settings as options of `workbench train`."""
        given = [f"--forget {self.forget} --retain {self.retain} --rank {self.rank}"]
        given += [f"--target {name}" for name in self.targets] + [
            f"--hyper {name}={value:g}" for name, value in self.hyper
        ]
        flags = {
            "projector": self.projector,
            "full": self.full,
            "checkpointing": self.checkpointing,
            "four-bit": self.four_bit,
        }
        given += [f"--{name}" for name, on in flags.items() if on]
        return " ".join(given + [f"--accumulate {self.accumulate}"] * (self.accumulate > 1))

    @property
    def saving(self) -> str:
        """What among them saves memory and leaves the step as it is."""
        given = [f"{self.accumulate} parts"] * (self.accumulate > 1)
        return ", ".join(given + ["checkpointing"] * self.checkpointing + ["4 bits"] * self.four_bit) or "as they are"

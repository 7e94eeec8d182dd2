"""What each difference between the protocols (protocols.py) does: one is switched at a time, on MiniGuard.

Learning rate and steps stay those of MiniGuard's recipes, so that a row differs from the one that it is
compared with in what its name says alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from workbench.studies.sweep import sweep


class Switch(NamedTuple):
    """One way to unlearn.

    Attributes:
        name: What differs from the row before, in words.
        method: A name in methods.TRAINED.
        settings: What differs from that method's own recipe.
    """

    name: str
    method: str
    settings: Mapping[str, float] = MappingProxyType({})


SWITCHES = (
    Switch("NPO as its paper has it, retain weight 10", "npo"),
    Switch("retain weight 1", "npo", {"alpha": 1.0}),
    Switch("token means", "npo_token_mean", {"alpha": 10.0}),
    Switch("token means, retain weight 1: the authors' NPO", "npo_token_mean"),
    Switch("the authors' NPO with the mirrored term", "npo_token_mean", {"own": 1.0}),
    Switch("the authors' NPO, 64 + 64 examples a step", "npo_token_mean", {"forget": 64, "retain": 64}),
    Switch("RMU as its paper has it, retain weight 10", "rmu"),
    Switch("all positions, the answer in the user's turn", "rmu_all_positions", {"alpha": 0.0, "own": 10.0}),
    Switch("all positions, cross-entropy: the authors' RMU", "rmu_all_positions"),
    Switch("the authors' RMU, both retain terms", "rmu_all_positions", {"alpha": 1.0, "own": 1.0}),
    Switch("the authors' RMU, 64 + 64 examples a step", "rmu_all_positions", {"forget": 64, "retain": 64}),
)


def switched(
    seeds: Sequence[int] = (0,),
    base: str = "miniguard",
    switches: Sequence[Switch] = SWITCHES,
    processes: int = 1,
) -> pd.DataFrame:
    """Train and measure every switch on validation; what is finished is kept.

    Args:
        seeds: Of data and training.
        base: The base model, as for `methods.trained`.
        switches: What is switched.
        processes: How many models are trained at once.

    Returns:
        The columns of `sweep`, after the name of the switch; one row for each and seed.
    """
    tables = []
    for name, method, settings in switches:
        grid = {setting: [value] for setting, value in settings.items()}
        tables.append(sweep([method], grid, seeds, base, processes).assign(switch=name))
    table = pd.concat(tables, ignore_index=True)
    return table[["switch", *table.columns.drop("switch")]]

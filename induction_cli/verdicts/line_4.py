"""Claims 4a to 4d and 6d, from the tables of `induction generalize`: one effect per model.

Runs count by their seed; a pretrained model counts as one of its own. A behaviour that does not apply to a model, and a
model without induction heads, give no effect. Counts of heads have no interval: the bar that is counted from has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import Effect, above
from induction_cli.verdicts.tables import Paths, rooms_in

CHANCE = 0.25  # of the pattern task: four answers


@dataclass(frozen=True)
class Measured:
    """A model and the statistics of claims.csv, by name; those that could be had."""

    name: str
    pretrained: bool
    seed: int | None
    statistics: pd.DataFrame

    def number(self, statistic: str) -> pd.Series | None:
        return self.statistics.loc[statistic] if statistic in self.statistics.index else None


def measured(paths: Paths) -> list[Measured]:
    """Every model once: a pretrained one from its last room, as each `generalize` of it makes a new one."""
    rooms: dict[Path, RunDir] = {}
    for command in ("generalize", ""):
        rooms |= {room.path.resolve(): room for room in rooms_in(paths, command, "head_behaviours")}
    found: dict[Path | str, Measured] = {}
    for where, room in rooms.items():
        if room.table_file("source").exists():  # the joint room of a folder of runs has none
            source = room.table("source").iloc[0]
            statistics = room.table("claims").dropna(subset="value").set_index("statistic")
            seed = None if pd.isna(source.seed) else int(source.seed)
            name, pretrained = str(source.source), bool(source.pretrained)
            found[name if pretrained else where] = Measured(name, pretrained, seed, statistics)
    return list(found.values())


def count_effects(paths: Paths, statistic: str) -> list[Effect]:
    """At least one induction head above the bar."""
    found = [(model, model.number(statistic)) for model in measured(paths)]
    return [
        Effect(model.name, row.value, float("nan"), float("nan"), bool(row.value >= 1), seed=model.seed)
        for model, row in found
        if row is not None
    ]


def claim_4a(paths: Paths) -> list[Effect]:
    """Value: attention to the target on repeated text, induction heads less the other heads of their layers."""
    found = [(model, model.number("literal_copying_less_other_heads_of_the_layers")) for model in measured(paths)]
    return [
        Effect(model.name, row.value, row.low, row.high, above(0, row.low, row.high), seed=model.seed)
        for model, row in found
        if row is not None
    ]


def claim_4b(paths: Paths) -> list[Effect]:
    """Value: induction heads above the control's corrected 99th percentile."""
    return count_effects(paths, "translation_induction_heads_above_control")


def claim_4c(paths: Paths) -> list[Effect]:
    """Value: induction heads above the control's corrected 99th percentile."""
    return count_effects(paths, "pattern_matching_induction_heads_above_control")


def claim_4d(paths: Paths) -> list[Effect]:
    """Value: accuracy lost with the induction heads removed, less that lost with random heads.

    A model whose accuracy is not above chance has nothing to lose: undecided, whatever the difference.
    """
    effects = []
    for model in measured(paths):
        accuracy, lost = model.number("pattern_accuracy"), model.number("pattern_accuracy_lost_beyond_random")
        if accuracy is not None and lost is not None:
            able = bool(accuracy.low > CHANCE)
            name = model.name if able else f"{model.name} (no better than chance at the task)"
            holds = above(0, lost.low, lost.high) if able else None
            effects.append(Effect(name, lost.value, lost.low, lost.high, holds, seed=model.seed))
    return effects


def claim_6d(paths: Paths) -> list[Effect]:
    """Value: induction heads of a pretrained model; the control is the same architecture with random weights."""
    effects = []
    for model in measured(paths):
        heads, control = model.number("induction_heads"), model.number("induction_heads_with_random_weights")
        if model.pretrained and heads is not None and control is not None:
            holds = bool(heads.value >= 1 and heads.value > control.value)
            effects.append(Effect(model.name, heads.value, float("nan"), float("nan"), holds))
    return effects

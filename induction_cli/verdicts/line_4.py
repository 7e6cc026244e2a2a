"""Claims 4a to 4d and 6d, from the tables of `induction generalize`.

A run counts by its seed; a pretrained model is a unit of its own class. 4b, 4c and 6d say that something exists, and
are decided by instances: heads, each with its error corrected for all heads of its model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from induction_cli.generality.prompts import CATEGORIES
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import SeedEstimate
from induction_cli.verdicts.existence import Looked
from induction_cli.verdicts.line_3 import NO_HEAD
from induction_cli.verdicts.tables import Paths, class_of, rooms_in

PRETRAINED = "pretrained"
CHANCE = 1 / len(CATEGORIES)  # of the pattern task


@dataclass(frozen=True)
class Measured:
    """A model and its room."""

    name: str
    seed: int | None  # None: pretrained
    model_class: str
    room: RunDir

    def number(self, statistic: str) -> tuple[pd.Series | None, str]:
        """(a row of claims.csv, ''), or (None, why it has no value)."""
        table = self.room.table("claims").set_index("statistic")
        if statistic not in table.index:
            return None, "not measured"
        row = table.loc[statistic]
        remark = row.remark if "remark" in table and isinstance(row.remark, str) else ""
        return (None, remark or "not measured") if pd.isna(row.value) else (row, "")

    def says(self, value: float, missing: str = "") -> SeedEstimate:
        return SeedEstimate(self.model_class, self.seed, self.name, value, "" if math.isfinite(value) else missing)


def measured(paths: Paths) -> list[Measured]:
    """Every model once: a pretrained one from its last room, as each `generalize` of it makes a new one."""
    rooms: dict[Path, RunDir] = {}
    for command in ("generalize", ""):
        rooms |= {room.path.resolve(): room for room in rooms_in(paths, command, "head_behaviours")}
    found: dict[Path | str, Measured] = {}
    for where, room in rooms.items():
        if not room.table_file("source").exists():  # the joint room of a folder of runs has none
            continue
        source = room.table("source").iloc[0]
        name = str(source.source)
        if bool(source.pretrained):
            found[name] = Measured(name, None, PRETRAINED, room)
        else:
            run = RunDir(where.parent)
            known = run.config_file.exists()
            of = class_of(run.config().model) if known else f"{source.n_layers} layers"
            found[where] = Measured(name, int(source.seed), of, room)
    return list(found.values())


def claim_4a(paths: Paths) -> list[SeedEstimate]:
    found = []
    for model in measured(paths):
        row, why = model.number("literal_copying_less_other_heads_of_the_layers")
        found.append(model.says(math.nan if row is None else float(row.value), why))
    return found


def claim_4d(paths: Paths) -> list[SeedEstimate]:
    """A model no better than chance at the task has nothing to lose, so it cannot say."""
    found = []
    for model in measured(paths):
        (accuracy, why), (lost, why_not) = map(
            model.number, ("pattern_accuracy", "pattern_accuracy_lost_beyond_random")
        )
        if accuracy is None or lost is None:
            found.append(model.says(math.nan, why or why_not))
        elif not accuracy.low > CHANCE:
            found.append(model.says(math.nan, "no better than chance at the task"))
        else:
            found.append(model.says(float(lost.value)))
    return found


def errors_of(heads: pd.DataFrame) -> tuple[float, ...]:
    return tuple(heads.error.dropna())


def looked(paths: Paths, behaviour: str, pretrained_only: bool = False) -> list[Looked]:
    """The induction heads of every model, the heads of its nulls."""
    found = []
    for model in measured(paths):
        if pretrained_only and model.model_class != PRETRAINED:
            continue
        heads, nulls = model.room.table("head_behaviours"), model.room.table_file("null_behaviours")
        of = Looked(model.model_class, model.seed, model.name)
        mine = heads[heads.behaviour == behaviour] if "behaviour" in heads else heads[:0]
        if "error" not in heads or not nulls.exists():
            found.append(missing(of, "measured without its nulls: induction generalize again"))
        elif mine.error.isna().all():
            found.append(missing(of, next(filter(None, mine.note), "not applicable")))
        elif not (mine.head_type == "induction").any():
            found.append(missing(of, NO_HEAD))
        else:
            table = model.room.table("null_behaviours").query("behaviour == @behaviour")
            # a head of prefix matching is one that matches enough to be called so, in a null too
            table = table[table.head_type == "induction"] if behaviour == "prefix_matching" else table
            tried = set(model.room.table("null_behaviours").model)
            errors = {null: errors_of(rows) for null, rows in table.groupby("model")}
            shuffled = errors.get("shuffled heads", ()) if "shuffled heads" in tried else None
            mine = mine[mine.head_type == "induction"]
            random = errors.get("random weights", ())
            found.append(Looked(of.model_class, of.seed, of.run, errors_of(mine), random, shuffled))
    return found


def missing(model: Looked, why: str) -> Looked:
    return Looked(model.model_class, model.seed, model.run, missing=why)


def existence_4b(paths: Paths) -> list[Looked]:
    return looked(paths, "translation")


def existence_4c(paths: Paths) -> list[Looked]:
    return looked(paths, "pattern_matching")


def existence_6d(paths: Paths) -> list[Looked]:
    return looked(paths, "prefix_matching", pretrained_only=True)

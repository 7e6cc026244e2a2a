"""Claims 3a to 3f: one number a run, from the tables of `induction ablate` (pattern-preserving, multi-layer runs)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from induction_cli.measures.intervals import correlation
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import SeedEstimate
from induction_cli.verdicts.line_1 import Scored, onset, place_in, window_of
from induction_cli.verdicts.tables import Paths, class_of, runs_in

KIND = "pattern_preserving"
NO_HEAD = "no head qualifies as an induction head"
RISE = 0.05  # nats that induction heads must come to carry for that to have an onset


def ablated(paths: Paths) -> Iterator[tuple[Scored, RunDir]]:
    """(vanilla run of two or more layers, its room) where its heads were removed one by one, pattern-preserving."""
    for run in runs_in(paths):
        room, model = run.folder("ablate"), run.config().model
        if model.n_layers < 2 or model.smeared_keys or not room.table_file("ablation").exists():
            continue
        table = room.table("ablation")
        if (table.kind == KIND).any() and (table.layer >= 0).all():
            yield Scored(run.name, class_of(model), model.n_layers, run.config().seed, run), room


def table(room: RunDir, name: str) -> pd.DataFrame:
    return room.table(name).query("kind == @KIND")


def at_the_end(room: RunDir) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(induction heads, the other heads) at the last snapshot."""
    last = table(room, "ablation").query("step == step.max()")
    induction = last.head_type == "induction"
    return last[induction], last[~induction]


def claim_3a(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run, room in ablated(paths):
        induction, others = (heads.in_context_learning_change.clip(lower=0).sum() for heads in at_the_end(room))
        if at_the_end(room)[0].empty:
            found.append(run.cannot(NO_HEAD))
        else:
            total = induction + others
            found.append(run.says(induction / total if total else math.nan, "no head carries any of S"))
    return found


def claim_3b(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run, room in ablated(paths):
        induction, others = (heads.in_context_learning_change for heads in at_the_end(room))
        if induction.empty or others.empty:
            found.append(run.cannot(NO_HEAD if induction.empty else "every head is an induction head"))
        elif induction.mean() <= 0:
            found.append(run.cannot("its induction heads carry nothing"))
        else:
            found.append(run.says(others.mean() / induction.mean()))
    return found


def claim_3c(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run, room in ablated(paths):
        heads = table(room, "ablation").query("step == step.max()")
        x, y = (torch.tensor(heads[name].to_numpy()) for name in ("prefix_matching", "in_context_learning_change"))
        value = correlation(x, y, ranks=True).value
        found.append(run.says(value, "its heads do not differ", items=len(heads)))
    return found


def possible_sets(room: RunDir) -> int:
    """How many sets of as many other heads as there are induction heads there could be."""
    induction, others = map(len, at_the_end(room))
    return math.comb(others, min(induction, others))


def claim_3d(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run, room in ablated(paths):
        sets, window = table(room, "sets"), window_of(run.tables)
        if not window.found or window.row is None:
            found.append(run.cannot(window.why_not))
            continue
        induction, random = (sets[sets["set"] == name] for name in ("induction", "random"))
        if induction.empty or random.empty:
            found.append(run.cannot(NO_HEAD))
            continue
        fall = window.row.score_before - induction.score.iloc[0]
        undone, by_chance = (rows.in_context_learning_change.mean() / fall for rows in (induction, random))
        tried = f"all {len(random)}" if len(random) == possible_sets(room) else f"{len(random)}"
        found.append(run.says(undone - by_chance, note=f"against {tried} sets of as many other heads"))
    return found


def claim_3e(paths: Paths) -> list[SeedEstimate]:
    """Of all induction heads together: sums of dot products and of nats, so that a head that does nothing weighs
    nothing."""
    found = []
    for run, room in ablated(paths):
        induction, window = at_the_end(room)[0], window_of(run.tables)
        if induction.empty or not window.found:
            found.append(run.cannot(window.why_not if not window.found else NO_HEAD))
        elif "before_after_control" not in induction:
            found.append(run.cannot("ablated without the control of equal damage: induction ablate RUN again"))
        else:
            harmful = induction[induction.loss_change > 0].dropna(subset=["before_after", "before_after_control"])
            beyond = (harmful.before_after - harmful.before_after_control).sum()
            lost = harmful.loss_change.sum()
            found.append(run.says(beyond / lost if lost > 0 else math.nan, "their removal loses nothing"))
    return found


def claim_3f(paths: Paths) -> list[SeedEstimate]:
    """The share itself has no onset: before the window it is a ratio of noise. So: nats."""
    found = []
    for run, room in ablated(paths):
        window, rows = window_of(run.tables), table(room, "ablation").query("head_type == 'induction'")
        if window.why_not or window.row is None:
            found.append(run.cannot(window.why_not))
        elif rows.empty:
            found.append(run.cannot(NO_HEAD))
        else:
            carried = rows.assign(carried=rows.in_context_learning_change.clip(lower=0))
            place = place_in(window.row, onset(carried.groupby("tokens").carried.sum(), RISE))
            snapshots = np.unique(rows.tokens).size
            why = "removed at the last snapshot only" if snapshots < 2 else "they come to carry nothing"
            found.append(run.says(place, why))
    return found

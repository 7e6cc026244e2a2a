"""Claims 2a to 2c: one number a pair of seeds, from the tables of `induction smear` and of the runs it compared."""

from __future__ import annotations

import math

import pandas as pd

from induction_cli.measures.first_passage import earlier
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import SeedEstimate
from induction_cli.verdicts.line_1 import window_of
from induction_cli.verdicts.tables import Paths, class_of, rooms_in


def comparisons(paths: Paths) -> list[RunDir]:
    return rooms_in(paths, "", "shifts")


def pairs(room: RunDir) -> list[tuple[str, int, RunDir, RunDir]]:
    """(class, seed, vanilla run, smeared run) of every pair that has both arms."""
    found = []
    for (_, seed), rows in room.table("onsets").groupby(["n_layers", "seed"]):
        arms = {row.keys: RunDir(room.path / str(row.path)) for row in rows.itertuples()}
        if {"vanilla", "smeared"} <= set(arms):
            found.append((class_of(arms["vanilla"].config().model), int(seed), arms["vanilla"], arms["smeared"]))
    return found


def score_curve(run: RunDir) -> pd.Series:
    """S by tokens."""
    windowed = run.table("in_context_learning").query("kind == 'windowed'")
    return windowed.set_index("tokens").in_context_learning_score


def claim_2a(paths: Paths) -> list[SeedEstimate]:
    found = []
    for room in comparisons(paths):
        for name, seed, vanilla, smeared in pairs(room):
            if name.split(",")[0] != "1 layer":
                continue
            numbers = {
                "fall": (window_of(smeared).fall, window_of(smeared).why_not),
                "twin's fall": (window_of(vanilla).fall, window_of(vanilla).why_not),
                "twin's S": (float(score_curve(vanilla).iloc[-1]), ""),
            }
            for part, (value, why) in numbers.items():
                missing = "" if math.isfinite(value) else why
                found.append(SeedEstimate(name, seed, f"seed {seed}", value, missing, part))
    return found


def claim_2b(paths: Paths) -> list[SeedEstimate]:
    """One level for both arms: half of the vanilla twin's final fall below where the twin began."""
    found = []
    for room in comparisons(paths):
        for name, seed, vanilla, smeared in pairs(room):
            if name.split(",")[0] == "1 layer":
                continue
            curves = (score_curve(smeared), score_curve(vanilla))
            ours, twins = ((curve.index.to_numpy(float), curve.to_numpy()[:, None]) for curve in curves)
            value, why = math.nan, f"vanilla twin: {window_of(vanilla).why_not}"
            if window_of(vanilla).found:
                value = earlier(*ours, *twins).value
                why = "" if math.isfinite(value) else "the smeared model never falls as far"
            found.append(SeedEstimate(name, seed, f"seed {seed}", value, why))
    return found


def claim_2c(paths: Paths) -> list[SeedEstimate]:
    """The head that ends highest in prefix matching; every class of smeared model has a row."""
    found = []
    for room in comparisons(paths):
        table = room.table("smear_weights")
        for name, seed, _, smeared in pairs(room):
            rows = table[table.run.astype(str) == smeared.name]
            if rows.empty:
                continue
            last = rows[rows.step == rows.step.max()].set_index(["layer", "head"])
            head = last.prefix_matching.idxmax()
            others = last.weight.drop(head)
            value = float(last.weight[head] - others.mean()) if len(others) else math.nan
            why = "" if len(others) else "its model has one head"
            found.append(SeedEstimate(name, seed, smeared.name, value, why))
    return found

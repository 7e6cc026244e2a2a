"""Claims 8a to 8k: one number a seed of each network, from the tables of `induction recall`."""

from __future__ import annotations

import math

import pandas as pd

from induction_cli.verdicts.decide import SeedEstimate
from induction_cli.verdicts.tables import Paths, rooms_in

LONGER = 4  # times the training length, in 8f and 8g


def named(positions: str, n_layers: int) -> str:
    return f"{positions}, {n_layers} layer{'' if n_layers == 1 else 's'}"


def over_seeds(
    name: str, seeds: pd.Series, values: pd.Series, missing: str = "it never comes to that"
) -> list[SeedEstimate]:
    return [
        SeedEstimate(name, int(seed), f"{name}, seed {seed}", value, "" if math.isfinite(value) else missing)
        for seed, value in zip(seeds, values.to_numpy(float).tolist(), strict=True)
    ]


def each_network(paths: Paths, table: str, where: str, column: str) -> list[SeedEstimate]:
    """One number a seed: `column` in the rows of a table that a query picks, a network at a time."""
    found: list[SeedEstimate] = []
    for room in rooms_in(paths, "", table):
        rows = room.table(table)
        if not {"positions", "trained_on"} <= set(rows.columns):
            continue  # another command's table of that name
        for (positions, n_layers), group in rows.query(where).groupby(["positions", "n_layers"], sort=False):
            found += over_seeds(named(positions, n_layers), group.seed, group[column])
    return found


# the recipes 'memories' and 'positions' both train such networks; where both are given their mean counts
IN_CONTEXT = "trained_on == 'in_context' and n_layers == 2 and positions != 'none'"


def claim_8a(paths: Paths) -> list[SeedEstimate]:
    return each_network(paths, "training", f"{IN_CONTEXT} and step == step.max()", "in_context_accuracy")


def claim_8b(paths: Paths) -> list[SeedEstimate]:
    where = f"{IN_CONTEXT} and step == step.max() and probe == 'previous_recall'"
    return each_network(paths, "probes", where, "value")


def order(paths: Paths, first: str, second: str, where: str) -> list[SeedEstimate]:
    return each_network(paths, "order", f"{where} and first == '{first}' and second == '{second}'", "ratio")


def claim_8c(paths: Paths) -> list[SeedEstimate]:
    return order(paths, "copy_recall", "match_recall", IN_CONTEXT)


def claim_8d(paths: Paths) -> list[SeedEstimate]:
    return order(paths, "match_recall", "previous_recall", IN_CONTEXT)


def claim_8e(paths: Paths) -> list[SeedEstimate]:
    return order(paths, "global_loss", "in_context_loss", "trained_on == 'all'")


def kept(paths: Paths, positions: str) -> list[SeedEstimate]:
    """Accuracy at LONGER times the training length over that at the training length, two layers."""
    found: list[SeedEstimate] = []
    for room in rooms_in(paths, "", "lengths"):
        rows = room.table("lengths").query(f"positions == '{positions}' and n_layers == 2")
        at = rows.pivot(index="seed", columns="length", values="in_context_accuracy")
        shortest = at.columns.min()
        if LONGER * shortest in at:
            ratios = (at[LONGER * shortest] / at[shortest]).rename("kept").reset_index()
            found += over_seeds(named(positions, 2), ratios.seed, ratios.kept)
    return found


def claim_8f(paths: Paths) -> list[SeedEstimate]:
    return kept(paths, "relative")


def claim_8g(paths: Paths) -> list[SeedEstimate]:
    return kept(paths, "absolute")


def claim_8h(paths: Paths) -> list[SeedEstimate]:
    where = "positions == 'none' and n_layers == 3 and step == step.max()"
    return each_network(paths, "training", where, "in_context_accuracy")


def claim_8i(paths: Paths) -> list[SeedEstimate]:
    return each_network(paths, "agreement", "over == 'cells'", "correlation")


def claim_8j(paths: Paths) -> list[SeedEstimate]:
    return each_network(paths, "agreement", "over == 'prompts'", "correlation")


def claim_8k(paths: Paths) -> list[SeedEstimate]:
    """A lead that never rises to 0 balances at the largest count tried; where neither does, nothing is compared."""
    found: list[SeedEstimate] = []
    for room in rooms_in(paths, "", "balance"):
        most = room.table("prompts").context_count.max()
        rows = room.table("balance").dropna(subset=["balance", "predicted_balance"], how="all").fillna(most)
        rows["difference"] = (rows.balance - rows.predicted_balance).abs()
        for (positions, n_layers), group in rows.groupby(["positions", "n_layers"], sort=False):
            means = group.groupby("seed", as_index=False).difference.mean()
            found += over_seeds(named(positions, n_layers), means.seed, means.difference)
    return found

"""Claims 8a to 8k, from the tables of `induction recall`.

An effect is a network's mean over seeds with its interval over seeds; from fewer than five seeds each seed is an effect
of its own without an interval, and its number decides.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch

from induction_cli.measures.intervals import mean_interval
from induction_cli.verdicts.decide import Effect, above, below
from induction_cli.verdicts.tables import Paths, rooms_in

FEW = 5  # from so many seeds on an interval is over seeds
LONGER = 4  # times the training length, in 8f and 8g
Side = Callable[[float, float], bool | None]


def over_seeds(name: str, seeds: pd.Series, values: pd.Series, side: Side) -> list[Effect]:
    numbers = values.to_numpy(float)
    if len(numbers) >= FEW:
        low, high = (end.item() for end in mean_interval(torch.tensor(numbers)))
        return [Effect(name, float(numbers.mean()), low, high, side(low, high), runs=len(numbers))]
    return [
        Effect(f"{name}, seed {seed}", value, value, value, side(value, value), seed=int(seed))
        for seed, value in zip(seeds, numbers.tolist(), strict=True)
    ]


def each_network(paths: Paths, table: str, where: str, column: str, side: Side) -> list[Effect]:
    """Effects of one number a seed: `column` in the rows of a table that a query picks, a network at a time."""
    effects = []
    for room in rooms_in(paths, "", table):
        rows = room.table(table)
        if not {"positions", "trained_on"} <= set(rows.columns):
            continue  # another command's table of that name
        for (positions, n_layers), group in rows.query(where).groupby(["positions", "n_layers"], sort=False):
            group = group.dropna(subset=[column])
            effects += over_seeds(f"{positions}, {n_layers} layers", group.seed, group[column], side)
    return effects


def more_than(threshold: float) -> Side:
    return lambda low, high: above(threshold, low, high)


def less_than(threshold: float) -> Side:
    return lambda low, high: below(threshold, low, high)


# the recipes 'memories' and 'positions' both train such networks; each is an effect of 8a to 8d
IN_CONTEXT = "trained_on == 'in_context' and n_layers == 2 and positions != 'none'"


def claim_8a(paths: Paths) -> list[Effect]:
    return each_network(
        paths, "training", f"{IN_CONTEXT} and step == step.max()", "in_context_accuracy", more_than(0.9)
    )


def claim_8b(paths: Paths) -> list[Effect]:
    where = f"{IN_CONTEXT} and step == step.max() and probe == 'previous_recall'"
    return each_network(paths, "probes", where, "value", more_than(0.9))


def order(paths: Paths, first: str, second: str, where: str) -> list[Effect]:
    return each_network(
        paths, "order", f"{where} and first == '{first}' and second == '{second}'", "ratio", less_than(1)
    )


def claim_8c(paths: Paths) -> list[Effect]:
    return order(paths, "copy_recall", "match_recall", IN_CONTEXT)


def claim_8d(paths: Paths) -> list[Effect]:
    return order(paths, "match_recall", "previous_recall", IN_CONTEXT)


def claim_8e(paths: Paths) -> list[Effect]:
    return order(paths, "global_loss", "in_context_loss", "trained_on == 'all'")


def kept(paths: Paths, positions: str, side: Side) -> list[Effect]:
    """Accuracy at LONGER times the training length over that at the training length, two layers."""
    effects = []
    for room in rooms_in(paths, "", "lengths"):
        rows = room.table("lengths").query(f"positions == '{positions}' and n_layers == 2")
        at = rows.pivot(index="seed", columns="length", values="in_context_accuracy")
        shortest = at.columns.min()
        if LONGER * shortest in at:
            ratios = (at[LONGER * shortest] / at[shortest]).rename("kept").reset_index()
            effects += over_seeds(f"{positions}, 2 layers", ratios.seed, ratios.kept, side)
    return effects


def claim_8f(paths: Paths) -> list[Effect]:
    return kept(paths, "relative", more_than(0.9))


def claim_8g(paths: Paths) -> list[Effect]:
    return kept(paths, "absolute", less_than(0.5))


def claim_8h(paths: Paths) -> list[Effect]:
    where = "positions == 'none' and n_layers == 3 and step == step.max()"
    return each_network(paths, "training", where, "in_context_accuracy", more_than(0.9))


def claim_8i(paths: Paths) -> list[Effect]:
    return each_network(paths, "agreement", "over == 'cells'", "correlation", more_than(0.9))


def claim_8j(paths: Paths) -> list[Effect]:
    return each_network(paths, "agreement", "over == 'prompts'", "correlation", more_than(0.9))


def claim_8k(paths: Paths) -> list[Effect]:
    """A lead that never rises to 0 balances at the largest count tried; where neither does, nothing is compared."""
    effects = []
    for room in rooms_in(paths, "", "balance"):
        most = room.table("prompts").context_count.max()
        rows = room.table("balance").dropna(subset=["balance", "predicted_balance"], how="all").fillna(most)
        rows["difference"] = (rows.balance - rows.predicted_balance).abs()
        for (positions, n_layers), group in rows.groupby(["positions", "n_layers"], sort=False):
            means = group.groupby("seed", as_index=False).difference.mean()
            effects += over_seeds(f"{positions}, {n_layers} layers", means.seed, means.difference, less_than(1))
    return effects

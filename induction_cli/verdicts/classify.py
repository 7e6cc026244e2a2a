"""Claims 7a to 7k, from the tables of `induction classify`."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pandas as pd
import torch

from induction_cli.measures.intervals import correlation, mean_interval
from induction_cli.verdicts.decide import Effect, above, below, both
from induction_cli.verdicts.tables import Paths, rooms_in

GRID = ("burstiness", "n_classes", "epsilon", "alpha")
FEWEST = 6  # settings behind a rank correlation: fewer agree by chance


def tables(paths: Paths, name: str) -> list[pd.DataFrame]:
    """A table of every run, of single ones and of those in sweeps."""
    return [room.table(name) for room in rooms_in(paths, "", name)]


def over_units(name: str, values: np.ndarray, runs: int) -> tuple[str, float, float, float, int]:
    """Mean of the units with its bootstrap interval: what an Effect starts with, and the number of runs."""
    low, high = mean_interval(torch.tensor(values))
    return name, float(values.mean()), low.item(), high.item(), runs


def abruptness(paths: Paths, system: str) -> list[Effect]:
    """Of the run with the most seeds: jumps are timed in one setting, grids are for other claims."""
    found = max((rows[rows["system"] == system] for rows in tables(paths, "jumps")), key=len, default=None)
    if found is None or found.empty:
        return []
    name, value, low, high, runs = over_units(system, found["share"].to_numpy(), len(found))
    return [Effect(name, value, low, high, above(0.5, low, high), runs=runs)]


def earliness(paths: Paths, measures: list[str]) -> list[Effect]:
    """Latest onset of the measures / onset of in-context accuracy; a seed without one of these onsets has no ratio and
    keeps the claim from holding."""
    found = [
        rows.query("system == 'network'") for rows in tables(paths, "onsets") if "system" in rows
    ]  # smear has onsets too
    onsets = max((rows.pivot(index="seed", columns="event", values="step") for rows in found), key=len, default=None)
    if onsets is None or onsets.empty:
        return []
    ratio = (onsets[measures].max(axis=1, skipna=False) / onsets["in_context"]).to_numpy()
    name, value, low, high, runs = over_units(" ".join(measures), ratio, len(ratio))
    return [Effect(name, value, low, high, below(1, low, high) if np.isfinite(ratio).all() else None, runs=runs)]


def claim_7a(paths: Paths) -> list[Effect]:
    return abruptness(paths, "network")


def claim_7b(paths: Paths) -> list[Effect]:
    return earliness(paths, ["context_label_accuracy"])


def claim_7c(paths: Paths) -> list[Effect]:
    return earliness(paths, ["item_label_attention", "target_labels_attention", "target_correct_attention"])


def finals(paths: Paths, system: str) -> tuple[pd.DataFrame, list[str]]:
    """final.csv of all runs of a system, and its settings: the columns before `system`."""
    found = tables(paths, "final")
    if not found:
        return pd.DataFrame(), []
    rows = pd.concat(found, ignore_index=True)
    settings = list(rows.columns[: rows.columns.get_loc("system")])
    return rows[rows["system"] == system].drop_duplicates([*settings, "seed"]), settings


def alike(rows: pd.DataFrame, settings: list[str], varied: str) -> list[pd.DataFrame]:
    """Rows of one seed each that differ in one setting only, in its order; none where it does not vary."""
    if rows.empty:
        return []
    same = [name for name in settings if name != varied]
    return [part.sort_values(varied) for _, part in rows.groupby([*same, "seed"]) if part[varied].nunique() > 1]


def variance(part: pd.Series | pd.DataFrame, measure: str):
    """Of an accuracy, over its held-out sequences."""
    return part[measure] * (1 - part[measure]) / part["n_sequences"]


def difference(name: str, seed: int, pairs: list[tuple[float, float]]) -> Effect:
    """Mean of (difference, variance) pairs, with a normal 95% interval; must be above 0."""
    value = float(np.mean([d for d, _ in pairs]))
    half = 1.96 * float(np.sqrt(sum(v for _, v in pairs))) / len(pairs)
    return Effect(name, value, value - half, value + half, above(0, value - half, value + half), seed=seed)


def preference(paths: Paths, varied: str) -> list[Effect]:
    """Two effects a seed: in-context accuracy rises from the smallest value to the largest, in-weights falls."""
    rows, settings = finals(paths, "network")
    by_seed: dict[int, dict[str, list[tuple[float, float]]]] = {}
    for part in alike(rows, settings, varied):
        first, last = part.iloc[0], part.iloc[-1]
        for measure, sign in (("in_context", 1), ("in_weights", -1)):
            change = sign * (last[measure] - first[measure])
            pair = (change, variance(first, measure) + variance(last, measure))
            by_seed.setdefault(int(first["seed"]), {}).setdefault(measure, []).append(pair)
    return [
        difference(f"seed {seed} {measure}", seed, pairs)
        for seed, measures in sorted(by_seed.items())
        for measure, pairs in measures.items()
    ]


def claim_7d(paths: Paths) -> list[Effect]:
    return preference(paths, "burstiness")


def claim_7e(paths: Paths) -> list[Effect]:
    return preference(paths, "n_classes")


def claim_7f(paths: Paths) -> list[Effect]:
    return preference(paths, "epsilon")


def claim_7g(paths: Paths) -> list[Effect]:
    rows, settings = finals(paths, "network")
    by_seed: dict[int, list[tuple[float, float]]] = {}
    for part in alike(rows, settings, "alpha"):
        least = part[["in_context", "in_weights"]].idxmin(axis=1)
        part = part.assign(
            least=part[["in_context", "in_weights"]].min(axis=1),
            noise=[variance(part.loc[i], measure) for i, measure in least.items()],
        )
        middle = part.loc[(part["alpha"] - 1).abs().idxmin()]
        ends = part.iloc[[0, -1]]
        if ends["alpha"].iloc[0] < middle["alpha"] < ends["alpha"].iloc[1] and abs(middle["alpha"] - 1) <= 0.25:
            rival = ends.loc[ends["least"].idxmax()]
            pair = (middle["least"] - rival["least"], middle["noise"] + rival["noise"])
            by_seed.setdefault(int(middle["seed"]), []).append(pair)
    return [difference(f"seed {seed}", seed, pairs) for seed, pairs in sorted(by_seed.items())]


def side_by_side(paths: Paths) -> tuple[pd.DataFrame, int]:
    """Both systems' mean probabilities at every setting that both have, and how many seeds there are."""
    measures = ["in_context_probability", "in_weights_probability"]
    (network, settings), (reduced, _) = finals(paths, "network"), finals(paths, "two_parameter")
    if network.empty or reduced.empty:
        return pd.DataFrame(), 0
    means = [rows.groupby(settings)[measures].mean() for rows in (network, reduced)]
    both_have = means[0].join(means[1], rsuffix="_reduced", how="inner")
    same = [name for name in settings if name not in GRID]
    size = both_have.groupby(level=same)[measures[0]].transform("size")
    n_seeds = reduced.groupby(settings)["seed"].nunique().min()
    return both_have[size == size.max()], int(n_seeds)  # the grids, without runs of other sizes


def claim_7h(paths: Paths) -> list[Effect]:
    means, n_seeds = side_by_side(paths)
    if len(means) < FEWEST:
        return []
    effects = []
    for measure in ("in_context", "in_weights"):
        x, y = (torch.tensor(means[f"{measure}_probability{end}"].to_numpy()) for end in ("", "_reduced"))
        value, low, high = correlation(x, y, ranks=True)
        name = f"{measure}, {len(means)} settings"
        effects.append(Effect(name, value, low, high, above(0, low, high), runs=n_seeds))
    return effects


def claim_7i(paths: Paths) -> list[Effect]:
    return abruptness(paths, "two_parameter")


def nested(paths: Paths) -> list[tuple[int, pd.DataFrame]]:
    """Rows of simulated jumps by seed; starts that never jump are rows too."""
    return list(chain.from_iterable(list(rows.groupby("seed")) for rows in tables(paths, "jump_times")))


def claim_7j(paths: Paths) -> list[Effect]:
    effects = []
    for seed, rows in nested(paths):
        inner = rows[["correct_label_attention", "previous_token_attention"]].min(axis=1)
        ratio = (rows["context_label"] / inner).dropna().to_numpy()
        if len(ratio) > 1:
            name, value, low, high, _ = over_units(f"seed {seed}", ratio, 1)
            effects.append(Effect(name, value, low, high, below(1, low, high), seed=seed))
    return effects


def claim_7k(paths: Paths) -> list[Effect]:
    """A start that does not jump in the time simulated, twice the longest predicted, counts as wholly missed."""
    effects = []
    for seed, rows in nested(paths):
        error = (rows["predicted"] / rows["simulated"] - 1).abs().fillna(1.0).to_numpy()
        name, value, low, high, _ = over_units(f"seed {seed}", error, 1)
        holds = both(below(0.1, low, high), len(error) > 1)
        effects.append(Effect(name, value, low, high, holds, seed=seed))
    return effects

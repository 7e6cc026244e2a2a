"""Claims 7a to 7k: one number a seed, from the tables of `induction classify`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain

import pandas as pd
import torch

from induction_cli.measures.intervals import correlation
from induction_cli.verdicts.decide import SeedEstimate
from induction_cli.verdicts.tables import Paths, rooms_in

NETWORK, REDUCED, NESTED = (
    "network",
    "two-parameter model",
    "nested logits",
)  # classes, as in claims.yaml
SYSTEMS = {NETWORK: "network", REDUCED: "two_parameter"}  # as the tables have them
GRID = ("burstiness", "n_classes", "epsilon", "alpha")
FEWEST = 6  # settings behind a rank correlation: fewer agree by chance
NEAR = 0.25  # of a Zipf exponent of 1


def tables(paths: Paths, name: str) -> list[pd.DataFrame]:
    """A table of every run, of single ones and of those in sweeps."""
    return [room.table(name) for room in rooms_in(paths, "", name)]


def says(
    model_class: str, seed: int, value: float, missing: str, part: str = "", items: int | None = None
) -> SeedEstimate:
    why = "" if math.isfinite(value) else missing
    return SeedEstimate(model_class, int(seed), f"seed {seed}", float(value), why, part, items)


def abruptness(paths: Paths, model_class: str) -> list[SeedEstimate]:
    """Of the run with the most seeds: jumps are timed in one setting, grids are for other claims."""
    found = max(
        (rows[rows.system == SYSTEMS[model_class]] for rows in tables(paths, "jumps")), key=len, default=pd.DataFrame()
    )
    return [says(model_class, row.seed, row.share, "no jump") for row in found.itertuples()]


def earliness(paths: Paths, measures: list[str]) -> list[SeedEstimate]:
    """Latest onset of the measures / onset of in-context accuracy."""
    found = [
        rows.query("system == 'network'") for rows in tables(paths, "onsets") if "system" in rows
    ]  # smear has onsets too
    onsets = max((rows.pivot(index="seed", columns="event", values="step") for rows in found), key=len, default=None)
    if onsets is None or onsets.empty:
        return []
    ratios = onsets[measures].max(axis=1, skipna=False) / onsets["in_context"]
    return [says(NETWORK, seed, ratio, "one of the two never comes") for seed, ratio in ratios.items()]


def claim_7a(paths: Paths) -> list[SeedEstimate]:
    return abruptness(paths, NETWORK)


def claim_7b(paths: Paths) -> list[SeedEstimate]:
    return earliness(paths, ["context_label_accuracy"])


def claim_7c(paths: Paths) -> list[SeedEstimate]:
    return earliness(paths, ["item_label_attention", "target_labels_attention", "target_correct_attention"])


def finals(paths: Paths, model_class: str) -> tuple[pd.DataFrame, list[str]]:
    """final.csv of all runs of a system, and its settings: the columns before `system`."""
    found = tables(paths, "final")
    if not found:
        return pd.DataFrame(), []
    rows = pd.concat(found, ignore_index=True)
    settings = list(rows.columns[: rows.columns.get_loc("system")])
    return rows[rows.system == SYSTEMS[model_class]].drop_duplicates([*settings, "seed"]), settings


def alike(rows: pd.DataFrame, settings: list[str], varied: str) -> list[pd.DataFrame]:
    """Rows of one seed each that differ in one setting only, in its order; none where it does not vary."""
    if rows.empty:
        return []
    same = [name for name in settings if name != varied]
    return [part.sort_values(varied) for _, part in rows.groupby([*same, "seed"]) if part[varied].nunique() > 1]


def mean_by_seed(numbers: Iterable[tuple[int, float]], part: str = "") -> list[SeedEstimate]:
    """The mean of a seed's numbers, over the settings that they were found at."""
    table = pd.DataFrame(list(numbers), columns=["seed", "value"])
    means = table.groupby("seed").value.mean()
    return [says(NETWORK, seed, value, "no accuracy", part) for seed, value in means.items()]


def preference(paths: Paths, varied: str) -> list[SeedEstimate]:
    """In-context accuracy rises from the smallest value to the largest, in-weights accuracy falls."""
    parts = alike(*finals(paths, NETWORK), varied)
    found: list[SeedEstimate] = []
    for name, measure, sign in (("in context", "in_context", 1), ("in weights", "in_weights", -1)):
        changes = ((part.seed.iloc[0], sign * (part[measure].iloc[-1] - part[measure].iloc[0])) for part in parts)
        found += mean_by_seed(changes, name)
    return found


def claim_7d(paths: Paths) -> list[SeedEstimate]:
    return preference(paths, "burstiness")


def claim_7e(paths: Paths) -> list[SeedEstimate]:
    return preference(paths, "n_classes")


def claim_7f(paths: Paths) -> list[SeedEstimate]:
    return preference(paths, "epsilon")


def claim_7g(paths: Paths) -> list[SeedEstimate]:
    gains = []
    for part in alike(*finals(paths, NETWORK), "alpha"):
        part = part.assign(least=part[["in_context", "in_weights"]].min(axis=1))
        middle = part.loc[(part.alpha - 1).abs().idxmin()]
        ends = part.iloc[[0, -1]]
        if ends.alpha.iloc[0] < middle.alpha < ends.alpha.iloc[1] and abs(middle.alpha - 1) <= NEAR:
            gains.append((middle.seed, middle.least - ends.least.max()))
    return mean_by_seed(gains)


def claim_7h(paths: Paths) -> list[SeedEstimate]:
    """A seed's network against the two-parameter model of that seed, at the settings of the grids that both have."""
    (network, settings), (reduced, _) = finals(paths, NETWORK), finals(paths, REDUCED)
    if network.empty or reduced.empty:
        return []
    both = network.merge(reduced, on=[*settings, "seed"], suffixes=("", "_reduced"))
    same = [name for name in settings if name not in GRID]
    sizes = both.groupby([*same, "seed"])["seed"].transform("size")
    both = both[sizes == sizes.groupby(both.seed).transform("max")]  # the grids, without runs of other sizes
    found = []
    for seed, rows in both.groupby("seed"):
        for name in ("in context", "in weights"):
            measure = f"{name.replace(' ', '_')}_probability"
            x, y = (torch.tensor(rows[f"{measure}{end}"].to_numpy()) for end in ("", "_reduced"))
            value = correlation(x, y, ranks=True).value if len(rows) >= FEWEST else math.nan
            why = f"{len(rows)} settings; a correlation takes {FEWEST}" if len(rows) < FEWEST else "nothing varies"
            found.append(says(REDUCED, seed, value, why, name, len(rows)))
    return found


def claim_7i(paths: Paths) -> list[SeedEstimate]:
    return abruptness(paths, REDUCED)


def nested(paths: Paths) -> list[tuple[int, pd.DataFrame]]:
    """Rows of simulated jumps by seed; starts that never jump are rows too."""
    return list(chain.from_iterable(list(rows.groupby("seed")) for rows in tables(paths, "jump_times")))


def claim_7j(paths: Paths) -> list[SeedEstimate]:
    found = []
    for seed, rows in nested(paths):
        inner = rows[["correct_label_attention", "previous_token_attention"]].min(axis=1)
        found.append(says(NESTED, seed, (rows.context_label / inner).dropna().mean(), "no start jumps"))
    return found


def claim_7k(paths: Paths) -> list[SeedEstimate]:
    """A start that does not jump in the time simulated, twice the longest predicted, counts as wholly missed."""
    errors = ((seed, (rows.predicted / rows.simulated - 1).abs().fillna(1.0)) for seed, rows in nested(paths))
    return [says(NESTED, seed, error.mean(), "no start") for seed, error in errors]

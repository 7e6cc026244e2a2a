"""Claims 6b, 6c and the curiosities c1, c2: one number a seed, from the tables of `induction compare`.

6a is a claim about 1a and 1c in every class; the verdicts of those decide it.
"""

from __future__ import annotations

import math

import pandas as pd
import torch

from induction_cli.measures.intervals import correlation
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import SeedEstimate
from induction_cli.verdicts.tables import Paths, rooms_in

ALL = "all classes"


def comparison(paths: Paths) -> RunDir | None:
    """The room of `induction compare` with most models, the last of them: an earlier one would count runs again."""
    found = {room.path.resolve(): room for at in ("", "compare") for room in rooms_in(paths, at, "spreads")}
    rooms = sorted(found.values(), key=lambda room: (len(room.table("models")), room.name))
    return rooms[-1] if rooms else None


def claim_6b(paths: Paths) -> list[SeedEstimate]:
    """A seed is one replication of all classes: a spread over all runs would grow with the number of seeds."""
    room = comparison(paths)
    rows = room.table("spreads") if room else pd.DataFrame()
    return [
        SeedEstimate(ALL, int(row.seed), f"seed {row.seed}", float(row.spread), part=str(row.when))
        for row in rows.itertuples()
    ]


def kinds_of(room: RunDir) -> pd.DataFrame:
    """[run] -> kind (depth and group), seed, changed: the vanilla models that were trained."""
    models = room.table("models").query("group in ('attention-only', 'with MLPs')")
    models = models.assign(run=models.run.astype(str), kind=models.group + " " + models.n_layers.astype(str))
    return models.set_index("run")[["kind", "seed", "n_layers"]]


def claim_6c(paths: Paths) -> list[SeedEstimate]:
    """A seed's models, each held against models of other classes and other seeds: runs of one seed see the same
    batches, which alone would make them alike. Less the same with one-layer models: they see the same text and do not
    turn.
    """
    room = comparison(paths)
    if room is None:
        return []
    pairs, kinds = room.table("path_turns"), kinds_of(room)
    both = pd.concat([pairs, pairs[pairs.kind == "turn"].rename(columns={"run": "other", "other": "run"})])
    both = both.astype({"run": str, "other": str})
    both = both.rename(columns={"kind": "pair"}).join(kinds, on="run", how="inner")
    both = both.join(kinds.add_prefix("other_"), on="other", how="inner")
    both = both[(both.n_layers > 1) & (both.kind != both.other_kind) & (both.seed != both.other_seed)]
    found = []
    for seed, rows in both.groupby("seed"):
        alike = rows[(rows.pair == "turn") & (rows.other_n_layers > 1)].correlation.mean()
        control = rows[(rows.pair == "control") & (rows.other_n_layers == 1)].correlation.mean()
        lacks = "no model of another class and seed that turns", "no one-layer control of another seed"
        why = lacks[0] if math.isnan(alike) else lacks[1]
        value = float(alike - control)
        found.append(SeedEstimate(ALL, int(seed), f"seed {seed}", value, "" if math.isfinite(value) else why))
    return found


def speeds(paths: Paths) -> pd.DataFrame:
    room = comparison(paths)
    return room.table("learning_speed") if room else pd.DataFrame()


def claim_c1(paths: Paths) -> list[SeedEstimate]:
    found = []
    for row in speeds(paths).itertuples():
        name = f"{row.n_layers} layers" + (", MLPs" if row.group == "with MLPs" else "")
        known = math.isfinite(row.score_slope)
        why = "" if known else "too few snapshots after its window"
        found.append(SeedEstimate(name, int(row.seed), str(row.run), float(row.score_slope), why))
    return found


def claim_c2(paths: Paths) -> list[SeedEstimate]:
    """A seed's models of a group, two sizes or more: the two rank correlations' product, below 0 where they are of
    opposite sign."""
    table, found = speeds(paths), []
    for (group, seed), rows in table.groupby(["group", "seed"]) if len(table) else ():
        rows = rows.dropna(subset=["loss_slope_before", "loss_slope_after"])
        ends = (ranks(rows.parameters, rows[f"loss_slope_{when}"]) for when in ("before", "after"))
        before, after = ends
        value = before * after
        why = "" if math.isfinite(value) else "fewer than two sizes that changed"
        found.append(SeedEstimate(str(group), int(seed), f"seed {seed}", value, why))
    return found


def ranks(sizes: pd.Series, slopes: pd.Series) -> float:
    """Rank correlation; of two sizes the sign is all there is."""
    if sizes.nunique() < 2:
        return math.nan
    if len(sizes) == 2:
        return math.copysign(1.0, (sizes.iloc[1] - sizes.iloc[0]) * (slopes.iloc[1] - slopes.iloc[0]))
    return correlation(torch.tensor(sizes.to_numpy(float)), torch.tensor(slopes.to_numpy(float)), ranks=True).value

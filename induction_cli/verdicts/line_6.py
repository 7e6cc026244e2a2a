"""Claims 6a to 6c and the curiosities c1, c2, from the tables of `induction score` and `induction compare`."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch

from induction_cli.measures.intervals import correlation
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import SEEDS, Effect, above, below, both
from induction_cli.verdicts.line_1 import formation_effect, phase_change_effect, runs_of_any_class
from induction_cli.verdicts.tables import Paths, rooms_in


def comparison(paths: Paths) -> RunDir | None:
    """The room of `induction compare` with most models, the last of them: an earlier one would count runs again."""
    found = {room.path.resolve(): room for at in ("", "compare") for room in rooms_in(paths, at, "spreads")}
    rooms = sorted(found.values(), key=lambda room: (len(room.table("models")), room.name))
    return rooms[-1] if rooms else None


def claim_6a(paths: Paths) -> list[Effect]:
    """1a and 1c for every multi-layer vanilla run. Value: the fall. Models of one depth, or without any with MLPs
    beside attention-only ones, cannot show that it continues."""
    runs = [run for run in runs_of_any_class(paths) if run.n_layers > 1 and not run.smeared]
    if len({run.n_layers for run in runs}) < 2 or len({run.mlps for run in runs}) < 2:
        return []
    effects = []
    for run in runs:
        changed, formed = phase_change_effect(run), formation_effect(run)
        effects.append(replace(changed, holds=both(changed.holds, formed.holds if formed else False)))
    return effects


def claim_6b(paths: Paths) -> list[Effect]:
    """Per seed: the larger of the two spreads of S over models, before and after; both must be below 0.15.

    Per seed because a seed is one replication of all the models: a spread over all runs grows with the number of seeds.
    """
    room = comparison(paths)
    effects = []
    for seed, rows in room.table("spreads").groupby("seed") if room else []:
        larger = rows.loc[rows.spread.idxmax()]
        holds = both(*(below(0.15, row.low, row.high) for row in rows.itertuples()))
        effects.append(Effect(f"seed {seed}", larger.spread, larger.low, larger.high, holds, seed=seed))
    return effects


def claim_6c(paths: Paths) -> list[Effect]:
    """Per multi-layer vanilla run: how its turn correlates with those of models of other sizes, mean over them.

    Of other seeds where there are several: runs of one seed see the same batches, which alone would make them alike.
    The interval is conservative: the means of the pairs' ends.
    """
    room = comparison(paths)
    if room is None or (turns := room.table("path_turns").query("kind == 'turn'")).empty:
        return []
    models = room.table("models").query("n_layers > 1 and group in ('attention-only', 'with MLPs')")
    kinds = models.set_index("run")[["n_layers", "group", "seed"]]
    pairs = pd.concat([turns, turns.rename(columns={"run": "other", "other": "run"})])
    pairs = pairs.join(kinds, on="run", how="inner").join(kinds.add_prefix("other_"), on="other", how="inner")
    pairs = pairs[(pairs.n_layers != pairs.other_n_layers) | (pairs.group != pairs.other_group)]
    if pairs.seed.nunique() > 1:
        pairs = pairs[pairs.seed != pairs.other_seed]
    means = pairs.groupby("run")[["correlation", "low", "high", "seed"]].mean()
    return [
        Effect(str(row.Index), row.correlation, row.low, row.high, above(0, row.low, row.high), seed=int(row.seed))
        for row in means.itertuples()
    ]


def claim_c1(paths: Paths) -> list[Effect]:
    """Per run: slope of S over ln(tokens) from the end of its window on; within 0.05 of zero."""
    room = comparison(paths)
    rows = room.table("learning_speed").dropna(subset=["score_slope", "low"]) if room else pd.DataFrame()
    return [
        Effect(
            row.run, row.score_slope, row.low, row.high,
            both(above(-0.05, row.low, row.high), below(0.05, row.low, row.high)), seed=int(row.seed),
        )
        for row in rows.itertuples()
    ]  # fmt: skip


def claim_c2(paths: Paths) -> list[Effect]:
    """Per kind of model: rank correlation of size with d loss / d ln(tokens), after less before the phase changes.

    It holds where the two have opposite signs and both intervals, over runs, exclude zero. A kind with too few seeds
    decides nothing.
    """
    room = comparison(paths)
    effects = []
    for kind, rows in room.table("learning_speed").groupby("group") if room else []:
        rows = rows.dropna(subset=["loss_slope_before", "loss_slope_after"])
        size = torch.tensor(rows.parameters.to_numpy(float))
        if len(rows) < 3 or rows.parameters.nunique() < 2:
            continue
        (before, *before_ends), (after, *after_ends) = (
            correlation(size, torch.tensor(rows[f"loss_slope_{when}"].to_numpy(float)), ranks=True)
            for when in ("before", "after")
        )
        known = all(low > 0 or high < 0 for low, high in (before_ends, after_ends)) and rows.seed.nunique() >= SEEDS
        low, high = after_ends[0] - before_ends[1], after_ends[1] - before_ends[0]
        holds = bool(before * after < 0) if known else None
        effects.append(Effect(f"{kind} models", after - before, low, high, holds, runs=rows.seed.nunique()))
    return effects

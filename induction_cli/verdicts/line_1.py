"""Claims 1a to 1h, from the tables of `induction score` and `induction pertoken-pca`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from induction_cli.measures.intervals import mean_interval
from induction_cli.measures.phase_change import MINIMUM_SNAPSHOTS
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import Effect, above, below, both
from induction_cli.verdicts.tables import Paths, rooms_in, runs_in


@dataclass(frozen=True)
class Scored:
    """A run and its score/ tables."""

    name: str
    n_layers: int
    seed: int
    smeared: bool
    tables: RunDir
    mlps: bool = False

    def window(self) -> pd.Series | None:
        found = self.tables.table("phase_change")
        return None if found.empty else found.iloc[0]

    def final_score(self) -> pd.Series:
        return self.tables.table("in_context_learning").query("kind == 'windowed'").iloc[-1]

    def event(self, name: str) -> pd.Series:
        return self.tables.table("events").set_index("event").loc[name]


def runs_of_any_class(paths: Paths) -> list[Scored]:
    """The runs scored at enough snapshots to see a window, vanilla and smeared, with MLPs and without."""
    found = []
    for run in runs_in(paths):
        score = run.folder("score")
        scored = score.table_file("in_context_learning").exists()
        if scored and score.table("in_context_learning").step.nunique() >= MINIMUM_SNAPSHOTS:
            model, seed = run.config().model, run.config().seed
            found.append(Scored(run.name, model.n_layers, seed, model.smeared_keys, score, model.d_mlp > 0))
    return found


def scored_runs(paths: Paths) -> list[Scored]:
    """Where some are attention-only the claims are judged on those; models with MLPs are line 6's."""
    found = runs_of_any_class(paths)
    return [run for run in found if not run.mlps] or found


def vanilla(paths: Paths, deep: bool) -> list[Scored]:
    return [run for run in scored_runs(paths) if not run.smeared and (run.n_layers > 1) == deep]


def phase_change_effect(run: Scored) -> Effect:
    """The rule of 1a, for one run: the fall in the window, at least 0.1, with at least half of the final score."""
    window = run.window()
    if window is None:
        return Effect(run.name, 0.0, np.nan, np.nan, False, seed=run.seed)
    fall, share = above(0.1, window.fall_low, window.fall_high), above(0.5, window.share_low, window.share_high)
    return Effect(
        run.name,
        window.fall,
        window.fall_low,
        window.fall_high,
        both(fall, share, window.finished or None),
        seed=run.seed,
    )


def flat_effect(run: Scored) -> Effect:
    """The rule of 1b, for one run: no window, and a final score within 0.15 of zero."""
    score = run.final_score()
    small = both(above(-0.15, score.low, score.high), below(0.15, score.low, score.high), run.window() is None)
    return Effect(run.name, score.in_context_learning_score, score.low, score.high, small, seed=run.seed)


def formation_effect(run: Scored) -> Effect | None:
    """The rule of 1c, for one run; None without a window. Value: the onset's place in it, 0 its start, 1 its end."""
    if (window := run.window()) is None:
        return None
    onset, width = run.event("induction"), window.end_tokens - window.start_tokens
    value, low, high = ((onset[key] - window.start_tokens) / width for key in ("onset_tokens", "low", "high"))
    holds = both(above(-0.25, low, high), below(1.25, low, high)) if np.isfinite(value) else False
    return Effect(run.name, value, low, high, holds, seed=run.seed)


def claim_1a(paths: Paths) -> list[Effect]:
    return [phase_change_effect(run) for run in vanilla(paths, deep=True)]


def claim_1b(paths: Paths) -> list[Effect]:
    return [flat_effect(run) for run in vanilla(paths, deep=False)]


def claim_1c(paths: Paths) -> list[Effect]:
    found = [formation_effect(run) for run in vanilla(paths, deep=True)]
    return [effect for effect in found if effect]


def claim_1d(paths: Paths) -> list[Effect]:
    """The ratio's interval is conservative: the ends of both onsets' intervals against each other."""
    effects = []
    for run in vanilla(paths, deep=True):
        before, after = run.event("previous_token"), run.event("induction")
        low, high = before.low / after.high, before.high / after.low
        if np.isfinite(after.onset_tokens):
            effects.append(
                Effect(
                    run.name, before.onset_tokens / after.onset_tokens, low, high, below(1, low, high), seed=run.seed
                )
            )
    return effects


def claim_1e(paths: Paths) -> list[Effect]:
    effects = []
    for run in vanilla(paths, deep=True):
        if run.window() is not None and len(bends := run.tables.table("loss_bend").dropna()):
            bend = bends.iloc[0]
            excluded = bend.low > 0 or bend.high < 0
            holds = None if not excluded else bool(np.sign(bend.inside) != np.sign(bend.outside))
            effects.append(Effect(run.name, bend.difference, bend.low, bend.high, holds, seed=run.seed))
    return effects


def claim_1f(paths: Paths) -> list[Effect]:
    """Value: degrees above the 95th percentile of turns elsewhere, in the plane of the most runs that a run is in."""
    deep = {run.name: run.seed for run in vanilla(paths, deep=True)}
    tables = [room.table("turns") for room in rooms_in(paths, "pertoken_pca", "turns")]
    effects: dict[str, Effect] = {}
    for rows in sorted((table for table in tables if len(table)), key=len, reverse=True):
        for row in rows.dropna(subset=["degrees", "elsewhere_95"]).itertuples():
            name = row.run
            if name in deep and name not in effects:
                value, low, high = (number - row.elsewhere_95 for number in (row.degrees, row.low, row.high))
                effects[name] = Effect(name, value, low, high, above(0, low, high), seed=deep[name])
    return list(effects.values())


def slope_change(run: Scored, window: pd.Series) -> tuple[float, float, float]:
    """After minus before of d loss / d ln(index) over index 100-500, with its interval over chains."""
    slopes = run.tables.table("by_chain").pivot(index="tokens", columns="chain", values="index_slope")
    at = [int(np.abs(slopes.index.to_numpy() - edge).argmin()) for edge in (window.start_tokens, window.end_tokens)]
    change = torch.tensor(slopes.iloc[at[1]].to_numpy() - slopes.iloc[at[0]].to_numpy())
    low, high = mean_interval(change)
    return change.mean().item(), low.item(), high.item()


def claim_1g(paths: Paths) -> list[Effect]:
    """Deep runs at their own window; one-layer runs at the window of the deep run of their seed."""
    effects: list[Effect] = []
    windows: dict[int, pd.Series] = {}
    for run in vanilla(paths, deep=True):
        if (window := run.window()) is not None:
            windows.setdefault(run.seed, window)
            value, low, high = slope_change(run, window)
            effects.append(Effect(run.name, value, low, high, below(-0.03, low, high), seed=run.seed))
    for run in vanilla(paths, deep=False):
        if effects and run.seed in windows:
            value, low, high = slope_change(run, windows[run.seed])
            effects.append(Effect(run.name, value, low, high, above(-0.03, low, high), seed=run.seed))
    return effects


def claim_1h(paths: Paths) -> list[Effect]:
    """Per seed: largest minus smallest final score over depths 2 to 6; the interval adds the two scores' own."""
    effects = []
    by_seed: dict[int, list[Scored]] = {}
    for run in vanilla(paths, deep=True):
        by_seed.setdefault(run.seed, []).append(run)
    for seed, runs in by_seed.items():
        if len({run.n_layers for run in runs}) > 1:
            scores = sorted((run.final_score() for run in runs), key=lambda score: score.in_context_learning_score)
            first, last = scores[0], scores[-1]
            value = last.in_context_learning_score - first.in_context_learning_score
            low, high = max(0.0, last.low - first.high), last.high - first.low
            effects.append(Effect(f"seed {seed}", value, low, high, below(0.15, low, high)))
    return effects

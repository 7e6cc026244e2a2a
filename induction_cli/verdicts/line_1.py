"""Claims 1a to 1h: one number a run, from the tables of `induction score` and `induction pertoken-pca`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from induction_cli.measures import phase_change
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import SeedEstimate
from induction_cli.verdicts.tables import Paths, class_of, rooms_in, runs_in

NO_WINDOW = "no window"
UNFINISHED = "its window is not finished"


@dataclass(frozen=True)
class Window:
    """What a run says about its phase change. found: None where that is undecided."""

    found: bool | None
    row: pd.Series | None  # of phase_change.csv, where there is one
    why_not: str  # '' where there is a window to measure in

    @property
    def fall(self) -> float:
        """Nats; 0 where there is no window, nan where that is undecided."""
        if self.found is None:
            return math.nan
        return float(self.row.fall) if self.found and self.row is not None else 0.0


@dataclass(frozen=True)
class Scored:
    """A run and its score/ tables."""

    name: str
    model_class: str
    n_layers: int
    seed: int
    tables: RunDir

    def says(
        self, value: float, missing: str = "", part: str = "", items: int | None = None, note: str = ""
    ) -> SeedEstimate:
        """This run's number, or why it has none."""
        known = math.isfinite(value)
        why = "" if known else missing or "not a number"
        return SeedEstimate(self.model_class, self.seed, self.name, value, why, part, items, note)

    def cannot(self, missing: str, part: str = "") -> SeedEstimate:
        return self.says(math.nan, missing, part)

    def window(self) -> Window:
        return window_of(self.tables)

    def final_score(self) -> float:
        windowed = self.tables.table("in_context_learning").query("kind == 'windowed'")
        return float(windowed.in_context_learning_score.iloc[-1])

    def best(self, measure: str, layers: range | None = None) -> pd.Series:
        """The highest score of any head at each time, by tokens; of the layers given."""
        rows = self.tables.table("head_scores").query("measure == @measure")
        rows = rows if layers is None else rows[rows.layer.isin(layers)]
        return rows.groupby("tokens").value.max()

    def induction_layer(self) -> int:
        """The layer of the head that ends highest in prefix matching."""
        rows = self.tables.table("head_scores").query("measure == 'prefix_matching'")
        last = rows[rows.tokens == rows.tokens.max()]
        return int(last.layer[last.value.idxmax()])


def window_of(tables: RunDir) -> Window:
    """The largest step of the phase change, or why there is none. A share of resamples between the two limits decides
    neither; tables of an older version say no more than that share."""
    found = tables.table("phase_change")
    row = found.dropna(subset="start_tokens").iloc[0] if found.start_tokens.notna().any() else None
    whole = tables.table("phase_change_total") if tables.table_file("phase_change_total").exists() else found
    share = float(whole.found_share.iloc[0]) if len(whole) else 0.0
    known = "decision" in whole and len(whole)
    said = whole.decision.iloc[0] if known else phase_change.decided(share, row is not None)
    if said == "none":
        return Window(False, None, NO_WINDOW)
    if said == "undecided" or row is None:
        resamples = "too few chains to tell" if math.isnan(share) else f"in {share:.0%} of resamples"
        return Window(None, row, f"undecided whether it has a window ({resamples})")
    return Window(True, row, "" if row.finished else UNFINISHED)


def runs_of_any_class(paths: Paths, smeared: bool = False) -> list[Scored]:
    """The scored runs, vanilla ones unless asked for."""
    found = []
    for run in runs_in(paths):
        model = run.config().model
        if run.folder("score").table_file("in_context_learning").exists() and model.smeared_keys == smeared:
            found.append(Scored(run.name, class_of(model), model.n_layers, run.config().seed, run.folder("score")))
    return found


def deep(paths: Paths) -> list[Scored]:
    return [run for run in runs_of_any_class(paths) if run.n_layers > 1]


def shallow(paths: Paths) -> list[Scored]:
    return [run for run in runs_of_any_class(paths) if run.n_layers == 1]


def too_few_snapshots(run: Scored) -> str:
    """Why a run's snapshots show no window, '' where they could."""
    n = run.tables.table("in_context_learning").step.nunique()
    least = phase_change.MINIMUM_SNAPSHOTS
    return "" if n >= least else f"scored at {n} snapshot{'' if n == 1 else 's'}; to see a window takes {least}"


def fall_in_window(run: Scored, part: str) -> SeedEstimate:
    if why := too_few_snapshots(run):
        return run.cannot(why, part)
    window = run.window()
    return run.says(window.fall, window.why_not, part)


def claim_1a(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run in deep(paths):
        why = too_few_snapshots(run)
        window = run.window()
        found.append(fall_in_window(run, "fall"))
        share = window.row.share if window.found and window.row is not None and not why else math.nan
        found.append(run.says(share, why or window.why_not, "share of S"))
        seen = math.nan if why or window.found is None else float(window.found)
        found.append(run.says(seen, why or window.why_not, "window"))
    return found


def claim_1b(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run in shallow(paths):
        found.append(fall_in_window(run, "fall"))
        why = too_few_snapshots(run)
        found.append(run.cannot(why, "S at the end") if why else run.says(run.final_score(), "", "S at the end"))
    return found


def onset(curve: pd.Series, minimum_rise: float = 0.1) -> float:
    return phase_change.onset(curve.index.to_numpy(float), curve.to_numpy(float), minimum_rise=minimum_rise)


def place_in(window: pd.Series, tokens: float) -> float:
    """0 at the window's start, 1 at its end."""
    return (tokens - window.start_tokens) / (window.end_tokens - window.start_tokens)


def claim_1c(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run in deep(paths):
        window = run.window()
        if window.why_not or window.row is None:
            found.append(run.cannot(window.why_not))
            continue
        place = place_in(window.row, onset(run.best("prefix_matching")))
        found.append(run.says(place, "no head comes to match prefixes"))
    return found


def claim_1d(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run in deep(paths):
        below = range(run.induction_layer())
        if not below:
            found.append(run.cannot("its best prefix-matching head is in the first layer"))
            continue
        before, after = onset(run.best("previous_token", below)), onset(run.best("prefix_matching"))
        lacks = "prefix-matching" if math.isnan(after) else "previous-token"
        found.append(run.says(before / after, f"no {lacks} head forms"))
    return found


def claim_1e(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run in deep(paths):
        window = run.window()
        bends = run.tables.table("loss_bend") if run.tables.table_file("loss_bend").exists() else pd.DataFrame()
        for part in ("inside", "outside"):
            if not window.found or bends.empty:
                found.append(run.cannot(window.why_not or NO_WINDOW, part))
            else:
                found.append(run.says(float(bends[part].iloc[0]), "too few snapshots there", part))
    return found


def claim_1f(paths: Paths) -> list[SeedEstimate]:
    """In the plane of the most runs that a run is in."""
    rooms = rooms_in(paths, "pertoken_pca", "turns")
    turns: dict[str, tuple[float, float]] = {}
    for rows in sorted((room.table("turns") for room in rooms), key=len, reverse=True):
        for row in rows.itertuples() if "elsewhere_95" in rows else ():
            turns.setdefault(str(row.run), (row.degrees, row.elsewhere_95))
    found = []
    for run in deep(paths):
        window = run.window()
        if not window.found:
            found.append(run.cannot(window.why_not))
        elif run.name not in turns:
            found.append(run.cannot("its path was not measured: induction pertoken-pca RUNS"))
        else:
            degrees, elsewhere = turns[run.name]
            found.append(run.says(degrees - elsewhere, "its path has no other stretch to compare with"))
    return found


def slope_change(run: Scored, window: pd.Series) -> float:
    """After less before the window, of d loss / d ln(index) over index 100 to 500, mean over chains."""
    slopes = run.tables.table("by_chain").groupby("tokens").index_slope.mean()
    at = [int(np.abs(slopes.index.to_numpy() - edge).argmin()) for edge in (window.start_tokens, window.end_tokens)]
    return float(slopes.iloc[at[1]] - slopes.iloc[at[0]])


def claim_1g(paths: Paths) -> list[SeedEstimate]:
    """A pair: a deep run and the one-layer run of its seed, with MLPs both or neither, at the deep one's window."""
    twins = {(run.seed, "MLPs" in run.model_class): run for run in shallow(paths)}
    found = []
    for run in deep(paths):
        window, twin = run.window(), twins.get((run.seed, "MLPs" in run.model_class))
        if not window.found or window.row is None:
            found.append(run.cannot(window.why_not))
        elif twin is None:
            found.append(run.cannot("no scored one-layer run of its seed"))
        else:
            found.append(run.says(slope_change(run, window.row) - slope_change(twin, window.row)))
    return found


def claim_1h(paths: Paths) -> list[SeedEstimate]:
    """One number a seed: over its attention-only depths that have a window."""
    by_seed: dict[int, dict[int, float]] = {}
    for run in deep(paths):
        if "MLPs" not in run.model_class:
            scores = by_seed.setdefault(run.seed, {})
            if run.window().found:
                scores[run.n_layers] = run.final_score()
    found = []
    for seed, scores in by_seed.items():
        runs, depths = f"seed {seed}", len(scores)
        value = max(scores.values()) - min(scores.values()) if depths > 1 else math.nan
        why = "" if depths > 1 else f"depths with a window: {depths}; a spread takes 2"
        found.append(SeedEstimate("all depths", seed, runs, value, why))
    return found

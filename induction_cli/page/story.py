"""What the page opens with: the paper's one picture of the runs at hand, a sentence made of its numbers, what next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from induction_cli.page.rooms import Found, Run, job_name, origin
from induction_cli.plots.report import opening
from induction_cli.runs.run_dir import RunDir, RunError
from induction_cli.terminal import plural
from induction_cli.verdicts import Verdict
from induction_cli.words import duration, plain, short, signed

CHANCE = 0.1  # best prefix matching below it is what heads of no use have


@dataclass(frozen=True)
class Curves:
    """Runs of two depths. table, windows: as plots.report.opening; windows has a row a deep run, nan without one."""

    table: pd.DataFrame
    windows: pd.DataFrame
    layers: dict[str, int]  # of 'deep' and 'shallow', those that are there

    @property
    def names(self) -> dict[str, str]:
        return {depth: plural(n_layers, "layer") for depth, n_layers in self.layers.items()}

    def figure(self) -> Figure:
        return opening(self.table, self.windows, self.names)


def curves(runs: Sequence[Run]) -> Curves | None:
    """Of attention-only runs with plain keys, two layers against one; of others where there are none. None: no run."""
    able = [run for run in runs if run.config is not None and run.config.model.n_layers]
    plainest = min(((run.kind[0], run.kind[1]) for run in able), default=None)
    able = [run for run in able if (run.kind[0], run.kind[1]) == plainest]
    depths = sorted({run.kind[2] for run in able})
    deep = 2 if 2 in depths else next((depth for depth in depths if depth > 1), None)
    layers = {"deep": deep, "shallow": 1 if 1 in depths else None}
    rows, windows, there = [], [], {}
    for depth, n_layers in layers.items():
        for run in (run for run in able if run.kind[2] == n_layers):
            curve = of_run(run)
            if curve is not None and n_layers is not None:
                rows.append(curve.assign(depth=depth, seed=run.config.seed))  # type: ignore[union-attr]
                there[depth] = n_layers
                if depth == "deep":
                    windows.append(window_of(run))
    if not rows:
        return None
    return Curves(pd.concat(rows), pd.DataFrame(windows, columns=["seed", "start_tokens", "end_tokens"]), there)


def rooms_of(run: Run) -> tuple[RunDir, RunDir]:
    return run.dir.folder("score"), run.dir


def of_run(run: Run) -> pd.DataFrame | None:
    """Its score and its best prefix matching by tokens, of `induction score` or else of its training; None: neither."""
    for room in rooms_of(run):
        try:
            learning = room.table("in_context_learning").query("kind == 'windowed'")
            heads = room.table("head_scores").query("measure == 'prefix_matching'")
            best = heads.groupby("tokens").value.max().rename("prefix_matching")
            return learning[["tokens", "in_context_learning_score"]].join(best, on="tokens")
        except (RunError, ValueError, KeyError, pd.errors.UndefinedVariableError):
            continue
    return None


def window_of(run: Run) -> dict[str, float]:
    for room in rooms_of(run):
        try:
            windows = room.table("phase_change").dropna(subset=["start_tokens", "end_tokens"])
        except (RunError, ValueError, KeyError):
            continue
        first = windows.iloc[0] if len(windows) else {"start_tokens": math.nan, "end_tokens": math.nan}
        return {"seed": run.config.seed, "start_tokens": first["start_tokens"], "end_tokens": first["end_tokens"]}  # type: ignore[union-attr]
    return {"seed": math.nan, "start_tokens": math.nan, "end_tokens": math.nan}


def at(table: pd.DataFrame, column: str, tokens: float) -> float:
    """The value at the snapshot nearest to so many tokens."""
    return float(table[column].iloc[int((table["tokens"] - tokens).abs().to_numpy().argmin())])


def sentence(seen: Curves) -> str:
    """What the picture shows, in numbers."""
    said = []
    if "deep" in seen.layers:
        said.append(deep_sentence(seen))
    if "shallow" in seen.layers:
        last = seen.table[seen.table.depth == "shallow"].sort_values("tokens").groupby("seed").tail(1)
        score, matching = last.in_context_learning_score.mean(), last.prefix_matching.mean()
        said.append(
            f"With one layer the score ended at {signed(score)} nats, and no head matched prefixes "
            f"above {plain(matching)}."
        )
    return " ".join(said)


def deep_sentence(seen: Curves) -> str:
    runs = {seed: rows.sort_values("tokens") for seed, rows in seen.table[seen.table.depth == "deep"].groupby("seed")}
    found = [row for row in seen.windows.dropna().itertuples() if row.seed in runs]
    name = plural(seen.layers["deep"], "layer")
    if not found:
        last = [rows.iloc[-1] for rows in runs.values()]
        score = sum(row.in_context_learning_score for row in last) / len(last)
        matching = max(row.prefix_matching for row in last)
        what = "as if by chance" if matching < CHANCE else "already"
        return (
            f"With {name} no phase change was seen in {short(last[0].tokens)} tokens: the in-context learning score "
            f"ended at {signed(score)} nats, and the best head matched prefixes {what} "
            f"({plain(matching)} of its attention)."
        )
    falls, before, after = [], [], []
    for row in found:
        rows = runs[row.seed]
        score = [at(rows, "in_context_learning_score", edge) for edge in (row.start_tokens, row.end_tokens)]
        falls.append(score[0] - score[1])
        before.append(at(rows, "prefix_matching", row.start_tokens))
        after.append(float(rows.prefix_matching.iloc[-1]))
    start, end = (
        sum(edges) / len(found) for edges in zip(*((r.start_tokens, r.end_tokens) for r in found), strict=True)
    )
    mean = [sum(values) / len(found) for values in (falls, before, after)]
    who = f"With {name}" if len(runs) == 1 else f"With {name}, in {len(found)} of {len(runs)} seeds,"
    return (
        f"{who} the in-context learning score fell by {plain(mean[0])} nats between {short(start)} and {short(end)} "
        f"tokens, and the best head's prefix matching went from {plain(mean[1])} to {plain(mean[2])}."
    )


# ------------------------------------------------------------------------------------------------ what more would add


@dataclass(frozen=True)
class More:
    """What would turn what was seen into verdicts."""

    seeds: int
    time: str  # '9 minutes', '' where nobody knows
    command: str


def more_seeds(found: Found, verdicts: Sequence[Verdict], paths: Sequence[Path]) -> More | None:
    """How many more seeds the claims that have some still lack, how long they took before, and the command."""
    short_of = [
        v for v in verdicts if v.headline and v.verdict == "not tested" and v.n and v.claim.unit_of_evidence == "seed"
    ]
    lacking = max((verdict.claim.minimum_seeds - verdict.n for verdict in short_of), default=0)
    seeds = sorted({run.config.seed for run in found.runs if run.config is not None})
    if lacking < 1 or not seeds:
        return None
    more = list(range(max(seeds) + 1, max(seeds) + 1 + lacking))
    root = next((path for path in paths if job_name(path) == "reproduce"), None)
    if root is not None and (typed := origin("reproduce", root, {})):
        spent = sum(float(step.get("seconds") or 0) for step in found.steps)
        command = f"{typed.command} seeds=[{','.join(map(str, seeds + more))}]"
    else:
        spent = sum(sum((run.meta.get("seconds") or {}).values()) for run in found.runs)
        command = next((v.claim.command for v in short_of), "")
    return More(lacking, duration(spent / len(seeds) * lacking) if spent else "", command)

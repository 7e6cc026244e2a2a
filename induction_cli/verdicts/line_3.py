"""Claims 3a to 3f, from the tables of `induction ablate` (pattern-preserving, multi-layer runs)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from induction_cli.measures import phase_change
from induction_cli.measures.intervals import correlation, resamples
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import Effect, above, below, both
from induction_cli.verdicts.tables import Paths, runs_in

KIND = "pattern_preserving"


def ablated(paths: Paths) -> list[RunDir]:
    """Vanilla runs of two or more layers whose heads were removed one by one; attention-only ones, if any are."""
    runs = [run for run in runs_in(paths) if run.folder("ablate").table_file("ablation").exists()]
    models = [(run, run.config().model) for run in runs]
    found = [(run, model) for run, model in models if model.n_layers > 1 and not model.smeared_keys]
    return [run for run, model in found if not model.d_mlp] or [run for run, _ in found]


def table(run: RunDir, name: str) -> pd.DataFrame:
    return run.folder("ablate").table(name).query("kind == @KIND")


def changes_by_chain(run: RunDir) -> tuple[np.ndarray, np.ndarray]:
    """(changes of S at the last snapshot [head, chain], whether each head is an induction head [head])."""
    last = table(run, "ablation_by_chain").query("step == step.max()")
    wide = last.pivot(index=["layer", "head", "head_type"], columns="chain", values="in_context_learning_change")
    return wide.to_numpy(), (wide.index.get_level_values("head_type") == "induction")


def resampled(run: RunDir, statistic) -> tuple[float, float, float]:
    """A statistic of (mean changes [head], induction [head]) and its 95% interval over chains."""
    changes, induction = changes_by_chain(run)
    draws = changes @ resamples(changes.shape[1]).numpy().T.astype(float)  # [head, resample]
    again = np.array([statistic(draw, induction) for draw in draws.T])
    low, high = np.nanpercentile(again, [2.5, 97.5])
    return statistic(changes.mean(1), induction), float(low), float(high)


def share(change: np.ndarray, induction: np.ndarray) -> float:
    """Share of the positive changes that induction heads carry."""
    positive = change.clip(min=0)
    return positive[induction].sum() / positive.sum() if positive.sum() > 0 else np.nan


def others_over_induction(change: np.ndarray, induction: np.ndarray) -> float:
    return change[~induction].mean() / change[induction].mean()


def effect(run: RunDir, value: float, low: float, high: float, holds: bool | None) -> Effect:
    return Effect(run.name, value, low, high, holds, seed=run.config().seed)


def claim_3a(paths: Paths) -> list[Effect]:
    found = [(run, *resampled(run, share)) for run in ablated(paths)]
    return [effect(run, value, low, high, above(0.5, low, high)) for run, value, low, high in found]


def claim_3b(paths: Paths) -> list[Effect]:
    """Value: mean change over the other heads / mean over induction heads; runs without induction heads cannot say."""
    runs = [run for run in ablated(paths) if changes_by_chain(run)[1].any()]
    found = [(run, *resampled(run, others_over_induction)) for run in runs]
    return [effect(run, value, low, high, below(0.1, low, high)) for run, value, low, high in found]


def claim_3c(paths: Paths) -> list[Effect]:
    """One rank correlation over the heads of all runs."""
    runs = ablated(paths)
    if not runs:
        return []
    heads = pd.concat([table(run, "ablation").query("step == step.max()") for run in runs])
    x, y = (torch.tensor(heads[name].to_numpy()) for name in ("prefix_matching", "in_context_learning_change"))
    value, low, high = correlation(x, y, ranks=True)
    return [
        Effect(
            f"{len(heads)} heads", value, low, high, above(0, low, high), runs=len({run.config().seed for run in runs})
        )
    ]


def claim_3d(paths: Paths) -> list[Effect]:
    """Value: share of the fall of S undone when all induction heads go; it must beat 95% of the random sets too."""
    effects = []
    for run in ablated(paths):
        sets, windows = table(run, "sets"), run.table("phase_change")
        induction = sets[sets["set"] == "induction"]
        if induction.empty or windows.empty:
            continue
        row = induction.iloc[0]
        fall = windows.score_before.iloc[0] - row.score
        value, low, high = (row[name] / fall for name in ("in_context_learning_change", "low", "high"))
        random = sets[sets["set"] == "random"].in_context_learning_change
        beyond = bool(row.in_context_learning_change > random.quantile(0.95))
        effects.append(effect(run, value, low, high, both(above(0.5, low, high), beyond)))
    return effects


def claim_3e(paths: Paths) -> list[Effect]:
    """Per run, at the last snapshot: the induction head whose product with the vector is least clearly negative."""
    effects = []
    for run in ablated(paths):
        rows = (
            table(run, "ablation")
            .query("step == step.max() and head_type == 'induction'")
            .dropna(subset="before_after")
        )
        if len(rows):
            worst = rows.loc[rows.before_after_high.idxmax()]
            low, high = worst.before_after_low, worst.before_after_high
            effects.append(effect(run, worst.before_after, low, high, below(0, low, high)))
    return effects


def claim_3f(paths: Paths) -> list[Effect]:
    """Onset of what induction heads carry (the sum of their positive changes, nats), as its place in the window.

    The share itself has no onset: before the window it is a ratio of noise. Value: 0 at the window's start, 1 at its
    end.
    """
    effects = []
    for run in ablated(paths):
        windows = run.table("phase_change")
        rows = table(run, "ablation_by_chain").query("head_type == 'induction'")
        if windows.empty or rows.empty:
            continue
        start, end = windows.start_tokens.iloc[0], windows.end_tokens.iloc[0]
        wide = rows.pivot(index="tokens", columns=["layer", "head", "chain"], values="in_context_learning_change")
        tokens, chains = wide.index.to_numpy(float), wide.columns.get_level_values("chain")
        per_chain = np.stack([wide.loc[:, chains == chain].to_numpy() for chain in sorted(set(chains))], -1)
        weights = resamples(per_chain.shape[-1], 200).numpy().T.astype(float)

        def onset(mean: np.ndarray) -> float:
            return phase_change.onset(tokens, mean.clip(min=0).sum(1), minimum_rise=0.05)  # noqa: B023

        again = (np.array([onset(draw) for draw in np.moveaxis(per_chain @ weights, -1, 0)]) - start) / (end - start)
        value = (onset(per_chain.mean(-1)) - start) / (end - start)
        if np.isfinite(value):
            low, high = np.nanpercentile(again, [2.5, 97.5])
            effects.append(effect(run, value, low, high, both(above(0, low, high), below(1, low, high))))
    return effects

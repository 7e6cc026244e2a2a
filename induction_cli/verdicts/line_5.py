"""Claims 5a to 5e, from the tables of `induction circuits` and, for 5c, of `induction score`.

Vanilla attention-only runs of two or more layers, at the last snapshot. Numbers from weights have no sampling error:
where an interval would stand, the lowest and the highest over a run's heads do.
"""

from __future__ import annotations

import pandas as pd
import torch

from induction_cli.measures.intervals import correlation
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import Effect, above, both
from induction_cli.verdicts.tables import Paths, runs_in

LITERAL = "ideal copy"  # attends to the +1 target and copies it: nothing of the head is left but its size
AGREEMENTS = (("copying", "copying_eigenvalues"), ("prefix_matching", "qk_trace"))  # activations, weights


def taken_apart(paths: Paths) -> list[RunDir]:
    runs = [run for run in runs_in(paths) if run.folder("circuits").table_file("ideal_head").exists()]
    models = [(run, run.config().model) for run in runs]
    return [run for run, model in models if model.n_layers > 1 and not model.d_mlp and not model.smeared_keys]


def table(run: RunDir, name: str) -> pd.DataFrame:
    return run.folder("circuits").table(name)


def last_scores(run: RunDir, measure: str) -> tuple[pd.Series, pd.Series]:
    """A measure of (the induction heads, the other heads) that have it, at the last snapshot."""
    rows = table(run, "heads").query("step == step.max() and measure == @measure").dropna(subset="value")
    induction = rows.head_type == "induction"
    return rows.value[induction], rows.value[~induction]


def claim_5a(paths: Paths) -> list[Effect]:
    """Value: the lowest eigenvalue statistic among the run's induction heads."""
    effects = []
    for run in taken_apart(paths):
        induction, _ = last_scores(run, "copying_eigenvalues")
        if len(induction):
            low, high = induction.min(), induction.max()
            effects.append(Effect(run.name, low, low, high, bool(low > 0.5), seed=run.config().seed))
    return effects


def claim_5b(paths: Paths) -> list[Effect]:
    """Value: mean QK trace of the induction heads less that of the others; ends: the closest and the farthest pair."""
    effects = []
    for run in taken_apart(paths):
        induction, others = last_scores(run, "qk_trace")
        if len(induction) and len(others):
            value = induction.mean() - others.mean()
            low, high = induction.min() - others.max(), induction.max() - others.min()
            effects.append(Effect(run.name, value, low, high, bool(value > 0), seed=run.config().seed))
    return effects


def claim_5c(paths: Paths) -> list[Effect]:
    """Over the heads of all runs together: the weaker of the two correlations; both must be above 0."""
    runs = [run for run in taken_apart(paths) if run.folder("score").table_file("head_scores").exists()]
    if not runs:
        return []
    scores = [
        run.folder("score").table("head_scores").query("step == step.max()").assign(run=i) for i, run in enumerate(runs)
    ]
    heads = pd.concat(scores).pivot(index=["run", "layer", "head"], columns="measure", values="value")
    found = []
    for activations, weights in AGREEMENTS:
        pair = heads[[activations, weights]].dropna()  # heads of the first layer have no QK trace
        x, y = (torch.tensor(pair[name].to_numpy()) for name in (activations, weights))
        found.append((*correlation(x, y), len(pair), activations))
    value, low, high, n, name = min(found, key=lambda each: each[1])
    holds = both(*(above(0, low, high) for _, low, high, *_ in found))
    return [Effect(f"{name}, {n} heads", value, low, high, holds, runs=len({run.config().seed for run in runs}))]


def claim_5d(paths: Paths) -> list[Effect]:
    """Value: the worst rank of an induction head's composition with the leading previous-token head, among all pairs
    of heads but those of the other induction heads, which may take the first places together. Two-layer runs."""
    effects = []
    for run in taken_apart(paths):
        ranks = table(run, "composition_rank").rank_apart
        if run.config().model.n_layers == 2 and len(ranks):
            first = bool((ranks == 1).all())
            effects.append(Effect(run.name, ranks.max(), ranks.min(), ranks.max(), first, seed=run.config().seed))
    return effects


def claim_5e(paths: Paths) -> list[Effect]:
    """Value: share of the loss on held-out text that hard-coded heads keep, all induction heads of a run replaced."""
    effects = []
    for run in taken_apart(paths):
        rows = table(run, "ideal_head").query("on == 'text' and variant == @LITERAL").set_index("role")
        role = "induction_together" if "induction_together" in rows.index else "induction"
        kept = rows.loc[[role]].dropna(subset="share") if role in rows.index else rows[:0]
        for row in kept.itertuples():
            holds = above(0.5, row.share_low, row.share_high)
            effects.append(Effect(run.name, row.share, row.share_low, row.share_high, holds, seed=run.config().seed))
    return effects

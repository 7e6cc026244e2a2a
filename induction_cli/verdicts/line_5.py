"""Claims 5a to 5f: one number a run, from the tables of `induction circuits` and, for 5c, of `induction score`.

Vanilla runs of two or more layers, at the last snapshot. Numbers from weights have no sampling error; the seed is the
unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
import torch

from induction_cli.measures.intervals import correlation
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import SeedEstimate
from induction_cli.verdicts.line_1 import Scored
from induction_cli.verdicts.line_3 import NO_HEAD
from induction_cli.verdicts.tables import Paths, class_of, runs_in

AGREEMENTS = (("copying", "copying_eigenvalues"), ("prefix_matching", "qk_trace"))  # activations, weights


def taken_apart(paths: Paths) -> Iterator[tuple[Scored, RunDir]]:
    for run in runs_in(paths):
        room, model = run.folder("circuits"), run.config().model
        if model.n_layers > 1 and not model.smeared_keys and room.table_file("ideal_head").exists():
            yield Scored(run.name, class_of(model), model.n_layers, run.config().seed, run), room


def last_scores(room: RunDir, measure: str) -> tuple[pd.Series, pd.Series]:
    """A measure of (the induction heads, the other heads) that have it, at the last snapshot."""
    rows = room.table("heads").query("step == step.max() and measure == @measure").dropna(subset="value")
    induction = rows.head_type == "induction"
    return rows.value[induction], rows.value[~induction]


def claim_5a(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run, room in taken_apart(paths):
        induction, _ = last_scores(room, "copying_eigenvalues")
        found.append(run.says(float(induction.min()), NO_HEAD))
    return found


def claim_5b(paths: Paths) -> list[SeedEstimate]:
    """Share of the pairs (induction head, other head) in which the induction head is higher; a tie is half a pair."""
    found = []
    for run, room in taken_apart(paths):
        induction, others = (scores.to_numpy() for scores in last_scores(room, "qk_trace"))
        if not len(induction) or not len(others):
            found.append(run.cannot("no other head has a QK trace" if len(induction) else NO_HEAD))
            continue
        higher = induction[:, None] > others
        ties = induction[:, None] == others
        found.append(run.says(float((higher + ties / 2).mean())))
    return found


def claim_5c(paths: Paths) -> list[SeedEstimate]:
    found = []
    for run, _ in taken_apart(paths):
        scored = run.tables.folder("score")
        if not scored.table_file("head_scores").exists():
            found.append(run.cannot("not scored: induction score RUN"))
            continue
        last = scored.table("head_scores").query("step == step.max()")
        heads = last.pivot(index=["layer", "head"], columns="measure", values="value")
        weaker = min((agreement(heads, *names) for names in AGREEMENTS), key=lambda each: each[0])
        found.append(run.says(weaker[0], "its heads do not differ", items=weaker[1]))
    return found


def agreement(heads: pd.DataFrame, activations: str, weights: str) -> tuple[float, int]:
    """(rank correlation, over how many heads); those of the first layer have no QK trace."""
    pair = heads[[activations, weights]].dropna()
    x, y = (torch.tensor(pair[name].to_numpy()) for name in (activations, weights))
    return correlation(x, y, ranks=True).value, len(pair)


def claim_5d(paths: Paths) -> list[SeedEstimate]:
    """The lowest of the run's induction heads. A head's rivals are all pairs of heads but those of the other induction
    heads, which may take the first places together."""
    found = []
    for run, room in taken_apart(paths):
        ranks = room.table("composition_rank")
        n_heads = run.tables.config().model.n_heads
        own = ranks.layer * n_heads  # pairs in which an induction head is the later one
        rivals = ranks.pairs - (own.sum() - own)
        place = 1 - (ranks.rank_apart - 1) / (rivals - 1)
        found.append(run.says(float(place.min()) if len(ranks) else math.nan, NO_HEAD))
    return found


def kept(paths: Paths, variant: str) -> list[SeedEstimate]:
    """Share of the loss on held-out text that hard-coded heads keep, all induction heads of a run replaced."""
    found = []
    for run, room in taken_apart(paths):
        rows = room.table("ideal_head").query("on == 'text' and variant == @variant").set_index("role")
        role = "induction_together" if "induction_together" in rows.index else "induction"
        if role not in rows.index:
            found.append(run.cannot(NO_HEAD))
        else:
            found.append(run.says(float(rows.loc[[role]].share.iloc[0]), "their removal costs nothing"))
    return found


def claim_5e(paths: Paths) -> list[SeedEstimate]:
    return kept(paths, "ideal")


def claim_5f(paths: Paths) -> list[SeedEstimate]:
    return kept(paths, "ideal copy")

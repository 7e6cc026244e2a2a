"""Rows of the tables that training and scoring share: measures in, tidy DataFrames out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import EvaluationConfig
from induction_cli.data import CHAIN
from induction_cli.measures import circuits, phase_change
from induction_cli.measures.head_types import PREVIOUS_TOKEN, induction
from induction_cli.measures.intervals import group_means, mean_interval
from induction_cli.measures.loss_curve import index_slope
from induction_cli.measures.losses import in_context_learning_score, loss_around, loss_derivative
from induction_cli.models.protocol import Model


def learning_rows(losses: Tensor, at: dict, config: EvaluationConfig, chain: int = CHAIN) -> pd.DataFrame:
    """in_context_learning.csv: the exact score and the windowed one, each with its 95% interval over chains."""
    rows = []
    for kind, width in (("exact", 0), ("windowed", config.half_width)):
        scores = in_context_learning_score(losses, config.early_index, config.late_index, width)
        low, high = mean_interval(group_means(scores, chain))
        rows.append(
            {
                **at,
                "kind": kind,
                "early_loss": loss_around(losses, config.early_index, width).mean().item(),
                "late_loss": loss_around(losses, config.late_index, width).mean().item(),
                "in_context_learning_score": scores.mean().item(),
                "low": low.item(),
                "high": high.item(),
            }
        )
    return pd.DataFrame(rows)


def index_rows(losses: Tensor, at: dict) -> pd.DataFrame:
    """loss_by_index.csv: the mean loss at every index."""
    return pd.DataFrame({**at, "index": range(1, losses.shape[1] + 1), "loss": losses.mean(0).numpy()})


def derivative_rows(by_index: pd.DataFrame) -> pd.DataFrame:
    """loss_derivative.csv: d loss / d ln(index) at every snapshot, from loss_by_index.csv."""
    curves = by_index.pivot(index=["step", "tokens"], columns="index", values="loss")
    at, slopes = loss_derivative(torch.from_numpy(curves.to_numpy(copy=True)))
    wide = pd.DataFrame(slopes.numpy(), curves.index, pd.Index(at.numpy(), name="index"))
    return wide.stack().rename("derivative").reset_index()


def chain_rows(losses: Tensor, at: dict, config: EvaluationConfig, chain: int = CHAIN) -> pd.DataFrame:
    """by_chain.csv, what intervals are over: windowed score, loss, and slope = d loss / d ln(index) over 100 to 500.

    Where the indices of the score lie lower or closer together, so does the slope's first one: at least two are left.
    """
    score = in_context_learning_score(losses, config.early_index, config.late_index, config.half_width)
    early, late = config.early_index, config.late_index
    slope = index_slope(losses, min(100, 2 * early, (early + late) // 2), late)
    columns = {"in_context_learning_score": score, "index_slope": slope, "loss": losses.mean(1)}
    means = {name: group_means(values, chain).numpy() for name, values in columns.items()}
    return pd.DataFrame({**at, "chain": range(-(-len(losses) // chain)), **means})


def change_of(by_chain: pd.DataFrame) -> phase_change.Interval:
    """The phase change of the windowed score in by_chain.csv, with its intervals over chains."""
    scores = by_chain.pivot(index="tokens", columns="chain", values="in_context_learning_score")
    return phase_change.interval(scores.index.to_numpy(float), scores.to_numpy())


def window_rows(found: phase_change.Interval, score_kind: str = "windowed") -> pd.DataFrame:
    """phase_change.csv: a row a step, the largest first; no row where there is none."""
    rows = [window_row(step, found, score_kind) for step in found.steps if found.decision != "none"]
    return pd.DataFrame(rows, columns=WINDOW)


WINDOW = [
    *("start_tokens", "end_tokens", "start_low", "start_high", "end_low", "end_high", "fall", "fall_low", "fall_high"),
    *("share", "share_low", "share_high", "score_before", "score_after", "finished", "found_share", "score_kind"),
    "decision",
]


def window_row(step: phase_change.Step, found: phase_change.Interval, score_kind: str) -> dict[str, float | bool | str]:
    """One row of tables/phase_change.csv. score_kind: 'exact' (index 500 less index 50) or 'windowed'."""
    window = step.window
    return {
        "start_tokens": window.start_tokens,
        "end_tokens": window.end_tokens,
        "start_low": step.start_tokens.low,
        "start_high": step.start_tokens.high,
        "end_low": step.end_tokens.low,
        "end_high": step.end_tokens.high,
        "fall": window.fall,
        "fall_low": step.fall.low,
        "fall_high": step.fall.high,
        "share": window.share,
        "share_low": step.share.low,
        "share_high": step.share.high,
        "score_before": window.score_before,
        "score_after": window.score_after,
        "finished": window.finished,
        "found_share": found.found_share,
        "score_kind": score_kind,
        "decision": found.decision,
    }


def change_rows(found: phase_change.Interval, score_kind: str = "windowed") -> pd.DataFrame:
    """phase_change_total.csv, one row: all steps together, and whether there is a window at all."""
    row = {
        "decision": found.decision,
        "found_share": found.found_share,
        "steps": len(found.steps),
        "fall": found.fall.value,
        "fall_low": found.fall.low,
        "fall_high": found.fall.high,
        "share": found.share.value,
        "share_low": found.share.low,
        "share_high": found.share.high,
        "score_kind": score_kind,
    }
    return pd.DataFrame([row])


def score_rows(scores: dict[str, Tensor], at: dict) -> pd.DataFrame:
    """head_scores.csv from {measure: [sequence, layer, head]}: the mean over sequences."""
    return pd.DataFrame(
        [
            {**at, "layer": layer, "head": head, "measure": measure, "value": value}
            for measure, score in scores.items()
            for layer, heads in enumerate(score.mean(0).tolist())
            for head, value in enumerate(heads)
        ],
        columns=[*at, "layer", "head", "measure", "value"],
    )


def head_types(heads: pd.DataFrame) -> pd.DataFrame:
    """layer,head,head_type from the last snapshot: induction, previous_token or other (measures.head_types)."""
    last = heads[heads.step == heads.step.max()].pivot(index=["layer", "head"], columns="measure", values="value")
    induces = induction(last.prefix_matching.to_numpy(), last.copying_eigenvalues.to_numpy())
    kind = np.select([induces, last.previous_token >= PREVIOUS_TOKEN], ["induction", "previous_token"], "other")
    return pd.DataFrame({"head_type": kind}, last.index).reset_index()


@torch.no_grad()
def composition_rows(model: Model, at: dict) -> pd.DataFrame:
    """Rows of composition.csv: every pair of heads in different layers; `above_baseline` is less random matrices.

    Empty for a head that writes or reads nothing. No rows for a kind that weights do not show (Model.no_qk).
    """
    baseline = circuits.composition_baseline(model.d_model, model.d_head)
    shown = () if model.no_weights else ("V",) if model.no_qk else ("Q", "K", "V")
    rows = []
    for later in range(1, model.n_layers) if shown else ():
        w = model.head_weights(later)
        for earlier in range(later):
            before = model.head_weights(earlier)
            kinds = circuits.composition(w.W_Q, w.W_K, w.W_V, w.W_O, before.W_V, before.W_O)
            rows += [
                {**at, "kind": kind, "from_layer": earlier, "from_head": b, "layer": later, "head": a}
                | {"value": value, "baseline": baseline, "above_baseline": value - baseline}
                for kind in shown
                for a, row in enumerate(kinds[kind].tolist())
                for b, value in enumerate(row)
            ]
    return pd.DataFrame(
        rows,
        columns=[*at, *["kind", "from_layer", "from_head", "layer", "head", "value", "baseline", "above_baseline"]],
    )

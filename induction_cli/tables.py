"""Rows of the tables that training and scoring share: measures in, tidy DataFrames out."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import EvaluationConfig
from induction_cli.data import CHAIN
from induction_cli.measures import phase_change
from induction_cli.measures.intervals import group_means, mean_interval
from induction_cli.measures.loss_curve import index_slope
from induction_cli.measures.losses import in_context_learning_score, loss_around, loss_derivative


def learning_rows(losses: Tensor, at: dict, config: EvaluationConfig) -> pd.DataFrame:
    """in_context_learning.csv: the exact score and the windowed one, each with its 95% interval over chains."""
    rows = []
    for kind, width in (("exact", 0), ("windowed", config.half_width)):
        scores = in_context_learning_score(losses, config.early_index, config.late_index, width)
        low, high = mean_interval(group_means(scores, CHAIN))
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


def chain_rows(losses: Tensor, at: dict, config: EvaluationConfig) -> pd.DataFrame:
    """by_chain.csv, what intervals resample: windowed score, loss, and slope = d loss / d ln(index) over 100 to 500."""
    score = in_context_learning_score(losses, config.early_index, config.late_index, config.half_width)
    slope = index_slope(losses, min(100, 2 * config.early_index), config.late_index)
    columns = {"in_context_learning_score": score, "index_slope": slope, "loss": losses.mean(1)}
    means = {name: group_means(values, CHAIN).numpy() for name, values in columns.items()}
    return pd.DataFrame({**at, "chain": range(-(-len(losses) // CHAIN)), **means})


def window_rows(by_chain: pd.DataFrame) -> pd.DataFrame:
    """phase_change.csv: the window of the windowed score with its interval over chains; no row where there is none."""
    scores = by_chain.pivot(index="tokens", columns="chain", values="in_context_learning_score")
    found = phase_change.interval(scores.index.to_numpy(float), scores.to_numpy())
    return pd.DataFrame([phase_change.row(found, "windowed")]).dropna(subset="start_tokens")


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

"""Trends over ln(tokens), and how much alike models are: in the amounts they reach, and in how they change."""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor


def log_slope(tokens: Num[Tensor, " snapshot"], curve: Float[Tensor, " snapshot *batch"]) -> Float[Tensor, "*batch"]:
    """d curve / d ln(tokens) by least squares: the curve's unit per factor e of training.

    tokens above 0. nan with fewer than three snapshots.
    """
    if len(tokens) < 3:
        return torch.full(curve.shape[1:], torch.nan, dtype=curve.dtype)
    x = tokens.to(curve.dtype).log()
    x = x - x.mean()
    return torch.tensordot(x, curve, 1) / (x @ x)


def percentile_interval(draws: Tensor) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the finite draws [resample]; nan where there are none."""
    low, high = torch.nanquantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return low, high


def spread(values: Tensor, weights: Tensor) -> tuple[float, float, float]:
    """Largest less smallest mean over models, with its 95% interval: (value, low, high).

    values [model, unit]: the same units (held-out chains) for every model. weights [resample, unit] as
    measures.intervals.resamples makes them; drawn for all models together, so what makes a unit hard for all cancels.
    A spread cannot be negative: over models that are equal it measures noise.
    """
    draws = values @ weights.to(values.dtype).T  # [model, resample]
    low, high = percentile_interval(draws.amax(0) - draws.amin(0))
    means = values.mean(1)
    return (means.max() - means.min()).item(), low, high


def likeness(a: Tensor, b: Tensor, size: int, weights: Tensor) -> tuple[float, float, float]:
    """Correlation over examples of how two models change, with its 95% interval: (value, low, high).

    a, b [example]: the changes of the same tokens' losses. Pearson's, so a change that is the same for all tokens
    counts for nothing. The interval resamples groups of `size` neighbouring examples, which share text: weights
    [resample, group] as measures.intervals.resamples makes them.
    """
    a, b = a.double(), b.double()
    moments = torch.stack((torch.ones_like(a), a, b, a * a, b * b, a * b), -1)
    sums = torch.stack([group.sum(0) for group in moments.split(size)])  # [group, 6]

    def correlate(total: Tensor) -> Tensor:
        n, sum_a, sum_b, sum_aa, sum_bb, sum_ab = total.unbind(-1)
        spread_a, spread_b = n * sum_aa - sum_a**2, n * sum_bb - sum_b**2
        return (n * sum_ab - sum_a * sum_b) / (spread_a * spread_b).sqrt()

    low, high = percentile_interval(correlate(weights.double() @ sums))
    return correlate(sums.sum(0)).item(), low, high

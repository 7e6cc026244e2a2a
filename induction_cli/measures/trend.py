"""Trends over ln(tokens), and how much alike models are: in the amounts they reach, and in how they change."""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor

from induction_cli.measures.intervals import Estimate, of_means


def log_slope(tokens: Num[Tensor, " snapshot"], curve: Float[Tensor, " snapshot *batch"]) -> Float[Tensor, "*batch"]:
    """d curve / d ln(tokens) by least squares: the curve's unit per factor e of training.

    tokens above 0. nan with fewer than three snapshots.
    """
    if len(tokens) < 3:
        return torch.full(curve.shape[1:], torch.nan, dtype=curve.dtype)
    x = tokens.to(curve.dtype).log()
    x = x - x.mean()
    return torch.tensordot(x, curve, 1) / (x @ x)


def spread(values: Float[Tensor, "model unit"]) -> Estimate:
    """Largest less smallest mean over models, with its interval over units (held-out chains, the same for all models).

    Units are drawn for all models together, so what makes a unit hard for all cancels. A spread cannot be negative:
    over models that are equal it measures noise.
    """
    return of_means(values.T, lambda means: means.amax(1) - means.amin(1))


def likeness(a: Num[Tensor, " example"], b: Num[Tensor, " example"], size: int) -> Estimate:
    """Correlation over examples of how two models change, with its interval over groups of examples.

    a, b: the changes of the same tokens' losses. Pearson's, so a change that is the same for all tokens counts for
    nothing. Groups of `size` neighbouring examples share text and are the units.
    """
    a, b = a.double(), b.double()
    moments = torch.stack((torch.ones_like(a), a, b, a * a, b * b, a * b), -1)
    sums = torch.stack([group.sum(0) for group in moments.split(size)])  # [group, 6]

    def correlate(total: Tensor) -> Tensor:
        n, sum_a, sum_b, sum_aa, sum_bb, sum_ab = total.unbind(-1)
        spread_a, spread_b = n * sum_aa - sum_a**2, n * sum_bb - sum_b**2
        return (n * sum_ab - sum_a * sum_b) / (spread_a * spread_b).sqrt()

    return of_means(sums, correlate)

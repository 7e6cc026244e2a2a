"""Confidence intervals by bootstrap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, nan where it has none; `units` are what the interval is over: seeds, chains."""

    value: float
    low: float = math.nan
    high: float = math.nan
    units: str = ""

    def side(self, threshold: float) -> str | None:
        """'above' or 'below' where the whole interval lies on that side; None where it straddles or is not known."""
        if self.low > threshold:
            return "above"
        return "below" if self.high < threshold else None


def group_means(values: Tensor, size: int) -> Tensor:
    """Means of groups of `size` neighbouring rows, [example, ...] -> [group, ...]; the last group may be smaller.

    Held-out examples come in chains that share tokens; chains are independent of each other and are what an interval
    resamples.
    """
    return torch.stack([group.mean(0) for group in values.split(size)])


def resamples(n: int, n_resamples: int = 1000, seed: int = 0) -> Tensor:
    """How often each of n units is drawn in each bootstrap resample, divided by n: weights [n_resamples, n]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (n_resamples, n), generator=generator)
    return torch.zeros(n_resamples, n).scatter_add_(1, drawn, torch.ones(n_resamples, n)) / n


def mean_interval(units: Tensor, n_resamples: int = 1000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """95% bootstrap interval of the mean over units [unit, ...]: (low [...], high [...]). One unit gives nan."""
    if len(units) < 2:
        nan = torch.full(units.shape[1:], torch.nan)
        return nan, nan
    means = resamples(len(units), n_resamples, seed).to(units.dtype) @ units.reshape(len(units), -1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype), 0)
    return low.view(units.shape[1:]), high.view(units.shape[1:])


def correlation(
    x: Tensor, y: Tensor, ranks: bool = False, n_resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Pearson (or with `ranks` Spearman) correlation of x, y [n] and its 95% bootstrap interval: (value, low, high).

    nan where either does not vary; resamples in which that happens are left out.
    """

    def ranked(values: Tensor) -> Tensor:
        """Average ranks along the last axis, so ties count alike."""
        below = (values[..., :, None] > values[..., None, :]).sum(-1)
        alike = (values[..., :, None] == values[..., None, :]).sum(-1)
        return below + (alike.double() - 1) / 2

    def correlate(a: Tensor, b: Tensor) -> Tensor:
        if ranks:
            a, b = ranked(a), ranked(b)
        a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
        scale = a.norm(dim=-1) * b.norm(dim=-1)
        return torch.where(scale > 1e-12, (a * b).sum(-1) / scale.clamp(min=1e-12), torch.nan)

    x, y = x.double(), y.double()
    if len(x) < 3:
        return (float("nan"),) * 3
    drawn = torch.randint(len(x), (n_resamples, len(x)), generator=torch.Generator().manual_seed(seed))
    again = correlate(x[drawn], y[drawn])
    again = again[again.isfinite()]
    low, high = (
        torch.quantile(again, torch.tensor([0.025, 0.975]).double()).tolist() if len(again) else (float("nan"),) * 2
    )
    return correlate(x, y).item(), low, high

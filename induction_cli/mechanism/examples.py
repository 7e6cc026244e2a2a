"""Examples on which a loss is measured, and what is said of them: means, shares, their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from induction_cli.measures.intervals import mean_interval, resamples
from induction_cli.models.protocol import Head


@dataclass(frozen=True)
class Examples:
    """Independent examples on which a loss is measured; `first` is the first input position whose prediction counts."""

    on: str  # text | repeats
    tokens: Tensor  # [example, pos + 1]
    first: int = 0

    def losses(self, per_token: Callable[[Tensor], Tensor], batch_size: int) -> Tensor:
        """Mean loss of each example in nats, [example]; per_token: tokens [batch, pos + 1] -> losses [batch, pos]."""
        return torch.cat([per_token(batch)[:, self.first :].mean(1).cpu() for batch in self.tokens.split(batch_size)])

    def part(self, rows: slice) -> Examples:
        return replace(self, tokens=self.tokens[rows])


def ratio_interval(above: Tensor, below: Tensor) -> tuple[float, float, float]:
    """mean(above) / mean(below) over units [unit] with its 95% bootstrap interval: (value, low, high).

    nan where the interval of the mean below reaches 0: a share of nothing is no share.
    """
    if not mean_interval(below)[0] > 0:
        return (math.nan,) * 3
    weights = resamples(len(below)).to(below.dtype)
    low, high = torch.quantile((weights @ above) / (weights @ below), torch.tensor([0.025, 0.975]).to(below)).tolist()
    return (above.mean() / below.mean()).item(), low, high


def with_interval(name: str, units: Tensor) -> dict[str, float]:
    low, high = mean_interval(units)
    return {name: units.mean().item(), f"{name}_low": low.item(), f"{name}_high": high.item()}


def label(heads: Sequence[Head]) -> str:
    return "+".join(f"L{layer}H{head}" for layer, head in heads)

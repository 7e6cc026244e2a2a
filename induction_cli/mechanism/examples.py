"""Examples on which a loss is measured, and what is said of them: means, shares, their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from induction_cli.measures.intervals import CHAINS, Estimate, of_mean, of_means
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


def ratio(above: Tensor, below: Tensor) -> Estimate:
    """mean(above) / mean(below) over units [unit] with its interval.

    nan where the mean below, or the interval around it, reaches 0: a share of nothing is no share.
    """
    whole = of_mean(below)
    if not (whole.value if math.isnan(whole.low) else whole.low) > 0:
        return Estimate(math.nan, units=CHAINS)
    return of_means(torch.stack((above, below), -1), lambda means: means[:, 0] / means[:, 1])


def with_interval(name: str, units: Tensor) -> dict[str, float]:
    return of_mean(units).columns(name)


def label(heads: Sequence[Head]) -> str:
    return "+".join(f"L{layer}H{head}" for layer, head in heads)

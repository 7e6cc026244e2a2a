"""What in the heads' scores is beyond a control, and beyond the other heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

FLIPS = 2000  # random exchanges of prompts and controls


def exchanges(
    excess: Float[Tensor, "unit layer head"], seed: int
) -> tuple[Float[Tensor, " exchange"], Float[Tensor, " layer_head"]]:
    """(the largest standardised mean of any head in each exchange, every head's own), float64.

    Where prompt and control are the same to a head, exchanging them at random changes nothing. FLIPS exchanges, the
    same for all heads; of each the largest mean over its standard error among all heads.
    """
    n, flat = len(excess), excess.flatten(1).double()
    signs = torch.randint(0, 2, (FLIPS, n), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1

    def standardised(means: Tensor) -> Tensor:
        errors = ((flat.square().mean(0) - means.square()).clamp(min=0) / (n - 1)).sqrt()
        return torch.where(errors > 1e-12, means / errors.clamp(min=1e-12), 0)

    return standardised(signs @ flat / n).amax(1), standardised(flat.mean(0))


def corrected_99(excess: Float[Tensor, "unit layer head"], seed: int = 0) -> Float[Tensor, "layer head"]:
    """The mean excess over control that puts a head above the 99th percentile, corrected for all heads.

    By `exchanges` of prompts and controls, any head at all is above it by chance once in a hundred such studies
    (Westfall and Young 1993).
    """
    n = len(excess)
    if n < 2:
        return torch.full(excess.shape[1:], torch.nan)
    largest, _ = exchanges(excess, seed)
    flat = excess.flatten(1).double()
    return (torch.quantile(largest, 0.99) * flat.std(0) / math.sqrt(n)).float().view(excess.shape[1:])


def corrected_errors(excess: Float[Tensor, "unit layer head"], seed: int = 0) -> Float[Tensor, "layer head"]:
    """The chance that any head at all exceeds its control by as much as this one: its error, corrected for all heads.

    The share of `exchanges` in which some head is as far above; never below 1 / (FLIPS + 1).
    """
    if len(excess) < 2:
        return torch.full(excess.shape[1:], torch.nan)
    largest, own = exchanges(excess, seed)
    as_far = (largest[:, None] >= own - 1e-9).sum(0)
    return ((1 + as_far) / (FLIPS + 1)).float().view(excess.shape[1:])


def against_layer(
    scores: Float[Tensor, "unit layer head"], chosen: Sequence[tuple[int, int]]
) -> Float[Tensor, " unit"]:
    """Chosen heads' mean score less that of the other heads of the same layers (of all layers where one has none)."""
    other = torch.ones(scores.shape[1:], dtype=torch.bool)
    other[tuple(torch.tensor(chosen).T)] = False
    differences = []
    for layer, head in chosen:
        rest = scores[:, layer, other[layer]] if other[layer].any() else scores[:, other]
        differences.append(scores[:, layer, head] - rest.mean(1))
    return torch.stack(differences).mean(0)

"""What in the heads' scores is beyond a control, and beyond the other heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

FLIPS = 2000  # random exchanges of prompts and controls


def corrected_99(excess: Float[Tensor, "unit layer head"], seed: int = 0) -> Float[Tensor, "layer head"]:
    """The mean excess over control that puts a head above the 99th percentile, corrected for all heads.

    Where prompt and control are the same to a head, exchanging them at random changes
    nothing. FLIPS exchanges, the same for all heads; of each the largest mean over its standard error among all heads;
    of those the 99th percentile. So any head at all is above it by chance once in a hundred such studies (Westfall and
    Young 1993).
    """
    n = len(excess)
    if n < 2:
        return torch.full(excess.shape[1:], torch.nan)
    flat = excess.flatten(1).double()
    signs = torch.randint(0, 2, (FLIPS, n), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    means = signs @ flat / n
    errors = ((flat.square().mean(0) - means.square()).clamp(min=0) / (n - 1)).sqrt()
    largest = torch.where(errors > 1e-12, means / errors.clamp(min=1e-12), 0).amax(1)
    return (torch.quantile(largest, 0.99) * flat.std(0) / math.sqrt(n)).float().view(excess.shape[1:])


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

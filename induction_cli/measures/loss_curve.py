"""The bend of the loss curve at the phase change, and where deeper models leave the one-layer curve."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor


def index_slope(losses: Float[Tensor, "*batch n_ctx"], first: int = 100, last: int = 500) -> Float[Tensor, "*batch"]:
    """d loss / d ln(index) averaged over indices first .. last, by least squares, nats.

    Indices beyond the context are left out.
    """
    index = torch.arange(first, min(last, losses.shape[-1]) + 1, dtype=losses.dtype)
    x = index.log() - index.log().mean()
    return losses[..., first - 1 : first - 1 + len(index)] @ x / (x @ x)


def curvature(
    tokens: Num[Tensor, " snapshot"], loss: Float[Tensor, " snapshot *batch"], centre: float, width: float
) -> Float[Tensor, "*batch"]:
    """Second derivative of loss over ln(tokens) around `centre`: of the parabola that fits best within width / 2.

    loss in nats, centre in tokens, width in ln(tokens). nan where fewer than four snapshots lie there.
    """
    log = tokens.clamp(min=1).log()
    near = (log - math.log(centre)).abs() <= width / 2
    if near.sum() < 4:
        return torch.full(loss.shape[1:], torch.nan, dtype=loss.dtype)
    x = (log[near] - math.log(centre)).to(loss.dtype)
    powers = torch.stack((torch.ones_like(x), x, x**2 / 2), 1)
    return (torch.linalg.pinv(powers) @ loss[near].reshape(len(x), -1))[2].view(loss.shape[1:])


def bend(
    tokens: Num[Tensor, " snapshot"], loss: Float[Tensor, " snapshot *batch"], start: float, end: float
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Curvature where the phase change opens, and its mean elsewhere; nats per factor e squared.

    The paper calls the bump the only place where the loss is not convex. Its opening is where the loss, which flattens
    (positive curvature) all through training, bends down (negative): a stretch as wide as the window, in ln(tokens),
    centred on the window's start. Elsewhere: stretches of the same width that touch neither that one nor the window.
    """
    width = math.log(end / start)
    inside = curvature(tokens, loss, start, width)
    low, high = start * math.exp(-width), end * math.exp(width / 2)
    elsewhere = [
        curvature(tokens, loss, t, width)
        for t in tokens.tolist()
        if tokens[1] * math.exp(width / 2) <= t <= tokens[-1] * math.exp(-width / 2) and not low < t < high
    ]
    kept = [value for value in elsewhere if not value.isnan().any()]
    outside = torch.stack(kept).mean(0) if kept else torch.full_like(inside, torch.nan)
    return inside, outside


def departure(
    tokens: Num[Tensor, " snapshot"],
    loss: Float[Tensor, " snapshot"],
    shallow: Float[Tensor, " snapshot"],
    share: float = 0.1,
) -> float:
    """Tokens from which on a deeper model's loss stays below the one-layer model's by a share of the final gap.

    All at the same snapshots. nan if the deeper model does not end below.
    """
    gap = shallow - loss
    if gap[-1] <= 0:
        return math.nan
    closed = (gap < share * gap[-1]).nonzero()
    return float(tokens[int(closed[-1]) + 1]) if len(closed) else float(tokens[0])

"""The bend of the loss curve at the phase change, and where deeper models leave the one-layer curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import torch
from jaxtyping import Float, Num
from scipy import stats
from torch import Tensor

from induction_cli.measures.intervals import LEVEL, Estimate


def index_slope(losses: Float[Tensor, "*batch n_ctx"], first: int = 100, last: int = 500) -> Float[Tensor, "*batch"]:
    """d loss / d ln(index) averaged over indices first .. last, by least squares, nats.

    Indices beyond the context are left out.
    """
    index = torch.arange(first, min(last, losses.shape[-1]) + 1, dtype=losses.dtype)
    x = index.log() - index.log().mean()
    return losses[..., first - 1 : first - 1 + len(index)] @ x / (x @ x)


@dataclass(frozen=True)
class Curvature:
    """Second derivative of the loss over ln(tokens), nats per factor e squared; the fit's error and its freedom."""

    value: float
    error: float
    freedom: int

    @property
    def estimate(self) -> Estimate:
        half = float(stats.t.ppf((1 + LEVEL) / 2, self.freedom)) * self.error if self.freedom > 0 else math.nan
        return Estimate(self.value, self.value - half, self.value + half, "snapshots of a fit")


NO_CURVATURE = Curvature(math.nan, math.nan, 0)


def curvature(
    tokens: Num[Tensor, " snapshot"], loss: Float[Tensor, " snapshot"], centre: float, width: float
) -> Curvature:
    """Of the parabola that fits best within width / 2 of `centre`; its error is that of the noise around the fit.

    centre in tokens, width in ln(tokens). nan where fewer than five snapshots lie there: three numbers are fitted.
    """
    log = tokens.double().clamp(min=1).log() - math.log(centre)
    near = log.abs() <= width / 2
    n = int(near.sum())
    if n < 5:
        return NO_CURVATURE
    x, y = log[near], loss[near].double()
    powers = torch.stack((torch.ones_like(x), x, x**2 / 2), 1)
    inverse = torch.linalg.inv(powers.T @ powers)
    fitted = inverse @ (powers.T @ y)
    variance = (y - powers @ fitted).square().sum() / (n - 3)
    return Curvature(fitted[2].item(), (variance * inverse[2, 2]).sqrt().item(), n - 3)


@dataclass(frozen=True)
class Bend:
    """Curvature where the phase change opens, and elsewhere, nats per factor e squared."""

    inside: Estimate
    outside: Estimate
    difference: Estimate  # inside less outside


def bend(tokens: Num[Tensor, " snapshot"], loss: Float[Tensor, " snapshot"], start: float, end: float) -> Bend:
    """Curvature where the phase change opens, and its mean elsewhere; nats per factor e squared.

    The paper calls the bump the only place where the loss is not convex. Its opening is where the loss, which flattens
    (positive curvature) all through training, bends down (negative): a stretch as wide as the window, in ln(tokens),
    centred on the window's start. Elsewhere: stretches of the same width, side by side, that touch neither that one nor
    the window. Noise between snapshots is part of every fit's error.
    """
    width = math.log(end / start)
    inside = curvature(tokens, loss, start, width)
    before = start * math.exp(-width / 2)
    room_before = math.log(before / float(tokens[tokens > 0].min())) / width
    room_after = math.log(float(tokens.max()) / end) / width
    centres = [before * math.exp(-width * (place + 0.5)) for place in range(max(0, int(room_before + 1e-9)))]
    centres += [end * math.exp(width * (place + 0.5)) for place in range(max(0, int(room_after + 1e-9)))]
    known = [each for each in (curvature(tokens, loss, centre, width) for centre in centres) if each.freedom]
    outside = NO_CURVATURE
    if known:
        error = math.sqrt(sum(each.error**2 for each in known)) / len(known)
        outside = Curvature(fmean(each.value for each in known), error, sum(each.freedom for each in known))
    freedom = min(inside.freedom, outside.freedom)
    difference = Curvature(inside.value - outside.value, math.hypot(inside.error, outside.error), freedom)
    return Bend(inside.estimate, outside.estimate, difference.estimate)


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

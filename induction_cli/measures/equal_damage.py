"""A control for what any damage does to a model: its logits scaled down until as much loss is lost (claim 3e).

Anything that makes a model worse makes it look younger. Scaled logits know as much as before and say it with less
confidence, so what an ablation does beyond that is its own.
"""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor

PRECISION = 1e-6  # of the scale


def scaled_losses(
    logits: Float[Tensor, "*place d_vocab"], targets: Int[Tensor, "*place"], scale: float
) -> Float[Tensor, "*place"]:
    """Loss of each token in nats, with all logits times `scale`."""
    at_target = logits.gather(-1, targets[..., None])[..., 0]
    return (scale * logits).logsumexp(-1) - scale * at_target


def scale_that_loses(logits: Float[Tensor, "*place d_vocab"], targets: Int[Tensor, "*place"], nats: float) -> float:
    """The scale between 0 and 1 at which the mean loss is `nats` higher; nan where there is none.

    None: for nats that are not above 0, or above what is lost with nothing said at all (scale 0). The mean loss is
    convex in the scale, so there is one place at most.
    """
    clean = scaled_losses(logits, targets, 1.0).mean()

    def beyond(scale: float) -> float:
        return (scaled_losses(logits, targets, scale).mean() - clean).item() - nats

    if not nats > 0 or beyond(0.0) < 0:
        return math.nan
    return float(brentq(beyond, 0.0, 1.0, xtol=PRECISION))


def losses_at_equal_damage(
    logits: Float[Tensor, "*place d_vocab"], targets: Int[Tensor, "*place"], nats: float
) -> Float[Tensor, "*place"] | None:
    """The losses of logits scaled so that the mean loss is `nats` higher; None where no scale does that."""
    scale = scale_that_loses(logits, targets, nats)
    return None if math.isnan(scale) else scaled_losses(logits, targets, scale)

"""Several networks trained together: every weight has a leading replica axis, and no replica feels another.

The sum of the replicas' losses has, for each replica's weights, the gradient of its own loss alone; so one backward
pass trains all of them, and agrees with single runs to float tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Batch = TypeVar("Batch")


def stack(singles: list[Weights]) -> Weights:
    """{name: [replica, ...]} out of one dict per replica."""
    return {name: torch.stack([single[name] for single in singles]) for name in singles[0]}


def one(weights: Weights, replica: int) -> Weights:
    """A copy of one replica's weights."""
    return {name: weight[replica].detach().clone() for name, weight in weights.items()}


def batched(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss of one network's (weights, *tensors) -> a loss [replica] of stacked ones: torch.func.vmap."""
    return torch.func.vmap(loss)


class SGD:
    """Plain gradient descent on stacked weights, in place.

    learning_rate: a number, [replica], or {name: number}, and then only the named weights are trained. decay multiplies
    the weights by 1 - decay in every step (Reddy's code); weight_decay adds weight_decay * weight to the gradient,
    before momentum (torch.optim.SGD, Bietti's code).
    frozen names stay as they are.
    """

    def __init__(
        self,
        weights: Weights,
        learning_rate: float | Tensor | dict[str, float],
        *,
        decay: float = 0.0,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        frozen: Collection[str] = (),
    ):
        trained = set(learning_rate if isinstance(learning_rate, dict) else weights) - set(frozen)
        self.weights = {name: weight for name, weight in weights.items() if name in trained}
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.learning_rate, self.decay = learning_rate, decay
        self.weight_decay, self.momentum = weight_decay, momentum
        self.velocity: Weights = {}

    def step(self, losses: Tensor) -> None:
        """One step down losses [replica]."""
        gradients = torch.autograd.grad(losses.sum(), list(self.weights.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
                if self.weight_decay:
                    gradient = gradient + self.weight_decay * weight
                if self.momentum:
                    before = self.velocity.get(name)
                    gradient = gradient if before is None else gradient + self.momentum * before
                    self.velocity[name] = gradient
                if self.decay:
                    weight.mul_(1 - self.decay)
                rate = self.learning_rate[name] if isinstance(self.learning_rate, dict) else self.learning_rate
                if isinstance(rate, Tensor):
                    weight.sub_(gradient * rate.view(-1, *[1] * (weight.ndim - 1)))
                else:
                    weight.sub_(gradient, alpha=rate)


def ahead(make: Callable[[int], Batch], steps: Iterable[int]) -> Iterable[Batch]:
    """make(step) for each step, the next one being made in a second thread while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for step in steps:
            following = pool.submit(make, step)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()

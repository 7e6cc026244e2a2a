"""Per-token losses, and what the paper derives from them.

Index convention, everywhere: the loss at index i is that of the token which follows i tokens of context, so indices run
from 1 to n_ctx and index i stands in column i - 1. (The paper does not say whether it counts from 0 or 1.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1 << 19  # logits in memory at once: a block of 2 MB stays in cache, a larger one pays for page faults


def per_token_loss(
    residual: Float[Tensor, "batch pos d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
    targets: Int[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos"]:
    """Loss of each token in nats, from the normalised final residual.

    The logits are made in chunks and never held all at once.
    """
    rows, flat = residual.flatten(0, 1), targets.flatten()
    losses = torch.empty(len(rows), device=rows.device)
    for i in range(0, len(rows), chunk := max(1, CHUNK // W_U.shape[1])):
        logits = (rows[i : i + chunk] @ W_U).float()
        losses[i : i + chunk] = torch.nn.functional.cross_entropy(logits, flat[i : i + chunk], reduction="none")
    return losses.view(targets.shape)


class CrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `rows @ W_U`; gradients are made chunk by chunk with the loss, so logits are never kept.

    Agrees with torch.nn.functional.cross_entropy on whole logits (tested).
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, W_U: Tensor, targets: Tensor) -> Tensor:
        weight, n = W_U.to(rows.dtype), len(targets)
        d_rows, d_weight = torch.empty_like(rows), torch.zeros_like(W_U)
        loss = torch.zeros((), device=rows.device)
        for i in range(0, n, chunk := max(1, CHUNK // W_U.shape[1])):
            part, target = rows[i : i + chunk], targets[i : i + chunk, None]
            logits = (part @ weight).float()
            logsumexp = logits.logsumexp(-1, keepdim=True)
            loss += (logsumexp - logits.gather(1, target)).sum()
            d_logits = logits.sub_(logsumexp).exp_()  # softmax, minus one at the target
            d_logits = d_logits.scatter_add_(1, target, torch.full_like(logsumexp, -1.0)).to(rows.dtype)
            d_rows[i : i + chunk] = d_logits @ weight.T
            d_weight += part.T @ d_logits
        ctx.save_for_backward(d_rows, d_weight)
        ctx.n = n
        return loss / n

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        d_rows, d_weight = ctx.saved_tensors
        return d_rows * (grad / ctx.n), d_weight * (grad / ctx.n), None


def cross_entropy(
    residual: Float[Tensor, "batch pos d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
    targets: Int[Tensor, "batch pos"],
) -> Float[Tensor, ""]:
    """Mean loss in nats of targets given the normalised final residual."""
    return CrossEntropy.apply(residual.flatten(0, 1), W_U, targets.flatten())  # type: ignore[no-untyped-call]


def loss_around(losses: Float[Tensor, "example n_ctx"], index: int, half_width: int = 0) -> Float[Tensor, " example"]:
    """Each example's loss at an index, averaged over the indices within half_width of it that exist."""
    n_ctx = losses.shape[1]
    if not 1 <= index <= n_ctx:
        raise ValueError(f"index {index} is outside the context of {n_ctx} tokens")
    return losses[:, max(0, index - 1 - half_width) : index + half_width].mean(1)


def in_context_learning_score(
    losses: Float[Tensor, "example n_ctx"], early: int = 50, late: int = 500, half_width: int = 0
) -> Float[Tensor, " example"]:
    """The paper's score, per example: loss at the late index minus loss at the early one, nats; negative = learning.

    half_width 0 is the paper's exact definition; above 0 both ends are averaged over a window
    cut to the same width at both, which has less noise. The score is the mean over examples.
    """
    width = min(half_width, early - 1, losses.shape[1] - late)
    return loss_around(losses, late, width) - loss_around(losses, early, width)


def log_bins(n_ctx: int, per_factor_e: int = 4) -> Int[Tensor, " edge"]:
    """Edges of index bins that are even in ln(index), as integers 1 .. n_ctx + 1; no bin is empty."""
    n = max(1, round(math.log(n_ctx) * per_factor_e))
    edges = torch.logspace(0, math.log10(n_ctx + 1), n + 1, dtype=torch.float64).round().long()
    return edges.unique()


def loss_derivative(
    loss_by_index: Float[Tensor, "*batch n_ctx"], per_factor_e: int = 4
) -> tuple[Float[Tensor, " bin"], Float[Tensor, "*batch bin"]]:
    """d loss / d ln(index) from the mean loss at each index: (index, derivative), between neighbouring bins.

    The paper leaves the estimate open. Here: indices in bins even in ln(index), loss averaged in each, differences of
    neighbours divided by the difference of the bins' mean ln(index). Negative: the loss falls with more context.
    """
    edges = log_bins(loss_by_index.shape[-1], per_factor_e)
    log_index = torch.arange(1, loss_by_index.shape[-1] + 1, dtype=loss_by_index.dtype).log()
    means = [
        (log_index[a - 1 : b - 1].mean(), loss_by_index[..., a - 1 : b - 1].mean(-1))
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    at, loss = torch.stack([m[0] for m in means]), torch.stack([m[1] for m in means], -1)
    return ((at[1:] + at[:-1]) / 2).exp(), loss.diff(dim=-1) / at.diff()

"""The minimal network of Reddy 2023: two single-head attention layers and a three-layer ReLU classifier.

Causal attention, full-width W_Q, W_K, W_V, no W_O, no 1/sqrt(d), no LayerNorm; the classifier reads the last token.
Weights are a dict {name: tensor}. Tokens [sequence, T, d], d = P + D, T = 2N + 1; logits [sequence, L].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from induction_cli.minimal.classify_data import Sequences

Weights = dict[str, Tensor]
HIDDEN = 3  # ReLU layers


def initial_weights(d_token: int, d_content: int, n_labels: int, generator: torch.Generator) -> Weights:
    """W_Q, W_K, W_V ~ N(0, 1/D), as the public code has it; classifier ~ N(0, 2/d), its one bias a layer N(0, 1/d)."""

    def normal(*shape: int, variance: float) -> Tensor:
        return torch.randn(shape, generator=generator) * math.sqrt(variance)

    weights = {
        f"attention_{layer}.W_{part}": normal(d_token, d_token, variance=1 / d_content)
        for layer in (0, 1)
        for part in "QKV"
    }
    for layer in range(HIDDEN):
        weights[f"classifier_{layer}.W"] = normal(d_token, d_token, variance=2 / d_token)
        weights[f"classifier_{layer}.b"] = normal(1, variance=1 / d_token)
    weights["W_U"] = normal(d_token, n_labels, variance=1 / d_token)
    return weights


def classifier(weights: Weights, last: Tensor) -> Tensor:
    """[..., d] -> logits [..., L]; weights may have a leading replica axis, then so has `last`."""
    for layer in range(HIDDEN):
        b = weights[f"classifier_{layer}.b"]
        last = F.relu(last @ weights[f"classifier_{layer}.W"] + (b if b.ndim == 1 else b[..., None]))
    return last @ weights["W_U"]


def future(n: int, device: torch.device) -> Tensor:
    """[n, n], True where the key is later than the query."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)


def network(weights: Weights, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The network as it is defined. Tokens x [sequence, T, d] -> logits [sequence, L], patterns [sequence, T, T]."""
    patterns = []
    for layer in (0, 1):
        q, k, v = (x @ weights[f"attention_{layer}.W_{part}"] for part in "QKV")
        scores = (q @ k.transpose(-2, -1)).masked_fill(future(x.shape[-2], x.device), -torch.inf)
        patterns.append(scores.softmax(-1))
        x = x + patterns[-1] @ v
    return classifier(weights, x[..., -1, :]), (patterns[0], patterns[1])


def lookup(table: Tensor, rows: Tensor) -> Tensor:
    """table [replica, row, d], rows [replica, ...] -> [replica, ..., d]."""
    first = torch.arange(len(table), device=table.device).mul_(table.shape[1]).view(-1, *[1] * (rows.ndim - 1))
    return table.flatten(0, 1).index_select(0, (rows + first).flatten()).view(*rows.shape, -1)


def fast_logits(weights: Weights, batch: Sequences, label_vectors: Tensor) -> Tensor:
    """The same logits for stacked replicas, [replica, sequence, L]; weights, batch and label_vectors lead with replica.

    Exact, by reordering products [ours]. Only the last token is read, so its query is folded through W_K and W_V
    (x W_K q = x (W_K q)) instead of making keys and values of every token. x W_Q W_K^T of layer 0 is a sum of table
    rows for positions and labels; only items, new each time, are multiplied. Tokens are ordered items first, labels
    after, and positions are never made one-hot.
    """
    n_pairs, d_content = batch.context_labels.shape[-1], batch.items.shape[-1]
    n_positions = weights["W_U"].shape[1] - d_content
    time = torch.cat((torch.arange(0, 2 * n_pairs + 1, 2), torch.arange(1, 2 * n_pairs, 2))).to(batch.shift.device)
    position = batch.shift[..., None] + time  # [replica, sequence, T]
    content = torch.cat((batch.items, lookup(label_vectors, batch.context_labels)), 2)  # [replica, sequence, T, D]

    def dot(vectors: Tensor) -> Tensor:
        """Every token's product with vectors [replica, sequence, d]."""
        at, on = vectors[..., :n_positions], vectors[..., n_positions:]
        return at.gather(-1, position) + (content * on[..., None, :]).sum(-1)

    def carried(pattern: Tensor) -> Tensor:
        """The mean token under attention [replica, sequence, T], [replica, sequence, d]."""
        at = pattern.new_zeros(*pattern.shape[:2], n_positions).scatter(-1, position, pattern)
        return torch.cat((at, (pattern[..., None, :] @ content).squeeze(-2)), -1)

    W_Q, W_K, W_V = ([weights[f"attention_{layer}.W_{part}"] for layer in (0, 1)] for part in "QKV")
    at_position, on_content = (W_Q[0] @ W_K[0].mT).split((n_positions, d_content), 1)
    items = (batch.items.flatten(1, 2) @ on_content).unflatten(1, batch.items.shape[1:3])
    folded = torch.cat((items, lookup(label_vectors @ on_content, batch.context_labels)), 2)
    folded = folded + lookup(at_position, position)
    scores = folded[..., n_positions:] @ content.mT
    scores = scores + folded.gather(-1, position[..., None, :].expand_as(scores))
    first = scores.masked_fill(time > time[:, None], -torch.inf).softmax(-1)

    last = carried(first[..., n_pairs, :]) @ W_V[0]
    last = last + F.pad(batch.items[..., -1, :], (n_positions, 0)).scatter(-1, position[..., n_pairs, None], 1.0)
    asked = last @ W_Q[1] @ W_K[1].mT
    second = dot(asked) + (first * dot(asked @ W_V[0].mT)[..., None, :]).sum(-1)
    second = second.softmax(-1)
    picked_up = carried(second) + carried((second[..., None] * first).sum(-2)) @ W_V[0]
    return classifier(weights, last + picked_up @ W_V[1])


def losses(weights: Weights, batch: Sequences, label_vectors: Tensor) -> Tensor:
    """Cross-entropy of stacked replicas, [replica] nats; each is the mean over its own sequences."""
    logits = fast_logits(weights, batch, label_vectors)
    return F.cross_entropy(logits.flatten(0, 1), batch.target.flatten(), reduction="none").view(len(logits), -1).mean(1)

"""The simplified transformer of Bietti et al. 2023: frozen random embeddings, and trained matrices that are memories.

Every layer has one head, W_Q = 1, no LayerNorm, no 1/sqrt(d) (embeddings have length 1 [ours]). Trained: W_K of every
layer, W_O of the last, W_F where there is a global memory; they start at zero. Frozen: the embeddings W_E [V, d], W_pos
[P, d], W_U [d, V], and W_V of every layer. Weights are a dict {name: tensor}.

positions: absolute, W_pos is added to the stream; relative, W_pos[t - s] is added to the key s of query t in layer 0,
so the memory W_K^1 pairs tokens with distances; none.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from induction_cli.config import RecallNetworkConfig, require
from induction_cli.minimal.recall_data import RecallSequences

Weights = dict[str, Tensor]


def frozen(weights: Weights) -> list[str]:
    """Names of what training leaves alone."""
    return [name for name in weights if name in ("W_E", "W_pos", "W_U") or name.endswith("W_V")]


def initial_weights(config: RecallNetworkConfig, generator: torch.Generator) -> Weights:
    """random: entries ~ N(0, 1/d), so vectors are nearly orthonormal. orthonormal: exactly, and W_V of layer 0 moves
    tokens and positions to directions of their own, so that the construction is free of interference."""
    config.check()
    d, d_vocab, n_positions = config.d_model, config.d_vocab, config.n_positions
    trained = [f"layer_{layer}.W_K" for layer in range(config.n_layers)] + [f"layer_{config.n_layers - 1}.W_O"]
    weights = {name: torch.zeros(d, d) for name in trained + ["W_F"] * config.global_memory}
    if config.embedding == "orthonormal":
        basis, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
        used, moved = d_vocab + n_positions, torch.arange(d)
        moved[:used], moved[used : 2 * used] = torch.arange(used, 2 * used), torch.arange(used)
        parts = config.orthonormal_width
        weights["W_E"], weights["W_pos"] = basis[:d_vocab], basis[d_vocab:used]
        weights["W_U"] = basis[parts - d_vocab : parts].T
        for layer in range(config.n_layers):
            weights[f"layer_{layer}.W_V"] = basis.T @ basis[moved] if layer == 0 else basis.clone()
        return {name: weight.contiguous() for name, weight in weights.items()}
    for name, shape in (("W_E", (d_vocab, d)), ("W_pos", (n_positions, d)), ("W_U", (d, d_vocab))):
        weights[name] = torch.randn(shape, generator=generator) / math.sqrt(d)
    for layer in range(config.n_layers):
        weights[f"layer_{layer}.W_V"] = torch.randn(d, d, generator=generator) / math.sqrt(d)
    return weights


def recall_network(weights: Weights, tokens: Tensor, positions: str) -> tuple[Tensor, list[Tensor]]:
    """tokens [sequence, T] -> logits [sequence, T, V] and one pattern [sequence, T, T] a layer."""
    length, n_layers = tokens.shape[-1], sum(name.endswith("W_K") for name in weights)
    W_pos = weights["W_pos"]
    known = W_pos.shape[0]
    require(positions == "none" or length <= known, f"{length} tokens, but n_positions is {known}")
    at = torch.arange(length, device=tokens.device)
    distance = (at[:, None] - at).clamp(min=0)
    x = weights["W_E"][tokens]
    if positions == "absolute":
        x = x + W_pos[:length]
    embedded, patterns = x, []
    for layer in range(n_layers):
        asked = x @ weights[f"layer_{layer}.W_K"]
        scores = asked @ x.mT
        if positions == "relative" and layer == 0:
            scores = scores + (asked @ W_pos[:length].T).gather(-1, distance.expand(*tokens.shape[:-1], -1, -1))
        patterns.append(scores.masked_fill(at > at[:, None], -torch.inf).softmax(-1))
        if layer < n_layers - 1:
            x = x + patterns[-1] @ (x @ weights[f"layer_{layer}.W_V"])
    last = f"layer_{n_layers - 1}"
    moved = weights[f"{last}.W_V"] @ (weights[f"{last}.W_O"] @ weights["W_U"])  # [d, V]: narrower than the stream
    logits = x @ weights["W_U"] + patterns[-1] @ (x @ moved)
    if "W_F" in weights:
        logits = logits + embedded @ (weights["W_F"] @ weights["W_U"])
    return logits, patterns


def counted(occurrence: Tensor, kind: str) -> Tensor:
    """Which predictions count, as 0 and 1: in_context, global (the current token is no trigger), or all."""
    at = {"in_context": occurrence >= 2, "global": occurrence == 0, "all": occurrence >= 0}
    return at[kind].float()


def loss(weights: Weights, tokens: Tensor, occurrence: Tensor, positions: str, kind: str = "in_context") -> Tensor:
    """Cross-entropy in nats over the predictions that count, of one network; replicas.batched stacks it."""
    logits, _ = recall_network(weights, tokens[..., :-1], positions)
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[..., 1:].flatten(), reduction="none")
    count = counted(occurrence, kind).flatten()
    return (losses * count).sum() / count.sum().clamp(min=1)


@torch.no_grad()
def split(logits: Tensor, sequences: RecallSequences) -> dict[str, float]:
    """Global against in-context, of logits [sequence, T, V]: loss in nats, and accuracy, of each."""
    targets, means = sequences.tokens[:, 1:], dict[str, float]()
    losses = F.cross_entropy(logits.mT, targets, reduction="none")
    right = (logits.argmax(-1) == targets).float()
    for kind in ("in_context", "global"):
        count = counted(sequences.occurrence, kind)
        n = count.sum().clamp(min=1)
        means |= {f"{kind}_loss": (losses * count).sum().item() / n.item()}
        means |= {f"{kind}_accuracy": (right * count).sum().item() / n.item()}
    return means

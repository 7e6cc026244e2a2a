"""A null with trained weights: the same heads, each in another layer.

Random weights show what an untrained model does by chance. Heads that keep what they learned but sit elsewhere show
what single heads do by themselves: what they have learned from each other is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from induction_cli.models.layers import Attention


def own_heads(attention: Attention) -> list[Tensor]:
    """Views [head, ...] of all that belongs to single heads of a layer of our own."""
    n = attention.n_heads
    reads = [W.unflatten(1, (n, -1)).transpose(0, 1) for W in (attention.W_Q, attention.W_K, attention.W_V)]
    alone = [own for own in (attention.smear_alpha, attention.distance_bias) if own is not None]
    return [*reads, attention.W_O.unflatten(0, (n, -1)), *alone]


def pretrained_heads(attention: Any, output: str, d_head: int) -> list[Tensor]:
    """The same of a pretrained model's layer, by how models.heads reads it. Queries that share a key move together."""
    out = getattr(attention, output).weight
    if hasattr(attention, "q_proj"):
        n = attention.k_proj.weight.shape[0] // d_head
        maps = [attention.q_proj, attention.k_proj, attention.v_proj]
        reads = [part.unflatten(0, (n, -1)) for each in maps for part in (each.weight, each.bias) if part is not None]
        return [*reads, out.unflatten(1, (n, -1)).transpose(0, 1)]
    if hasattr(attention, "c_attn"):  # Conv1D: [d_in, d_out], all queries, all keys, all values
        weight, bias, n = attention.c_attn.weight, attention.c_attn.bias, out.shape[0] // d_head
        parts = [weight.unflatten(1, (3, n, -1)).permute(2, 0, 1, 3), bias.unflatten(0, (3, n, -1)).transpose(0, 1)]
        return [*parts, out.unflatten(0, (n, -1))]
    fused, n = attention.query_key_value, out.shape[1] // d_head
    reads = [part.unflatten(0, (n, -1)) for part in (fused.weight, fused.bias) if part is not None]
    return [*reads, out.unflatten(1, (n, -1)).transpose(0, 1)]


@torch.no_grad()
def exchange(layers: Sequence[Sequence[Tensor]], seed: int) -> None:
    """Put the heads of all layers into places drawn at random. layers: views [head, ...] of each."""
    n_layers, n_heads = len(layers), len(layers[0][0])
    order = torch.randperm(n_layers * n_heads, generator=torch.Generator().manual_seed(seed))
    for views in zip(*layers, strict=True):
        heads = torch.stack(list(views)).flatten(0, 1)
        moved = heads[order.to(heads.device)].unflatten(0, (n_layers, n_heads))
        for view, new in zip(views, moved, strict=True):
            view.copy_(new)

"""The heads' weights of our own model, ready for circuits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from induction_cli.models.transformer import Transformer


@dataclass(frozen=True)
class HeadWeights:
    """All heads' weights with each LayerNorm's scale folded into what reads it, and centring folded into what writes.

    W_E [d_vocab, d_model]; W_Q, W_K, W_V [layer, head, d_model, d_head]; W_O [layer, head, d_head, d_model];
    W_U [d_model, d_vocab]. LayerNorm's division by the norm and its bias are left out: they depend on the input.
    """

    W_E: Tensor
    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    W_U: Tensor


@torch.no_grad()
def head_weights(model: Transformer) -> HeadWeights:
    """The weights of `model` as circuits read them."""
    attentions = [block.attention for block in model.blocks]
    norms = [block.ln_attention.weight for block in model.blocks]
    heads, d_head, d_model = model.config.n_heads, model.config.d_head, model.config.d_model

    def reads(name: str) -> Tensor:
        folded = [norm[:, None] * getattr(attention, name) for attention, norm in zip(attentions, norms, strict=True)]
        return torch.stack(folded).unflatten(-1, (heads, d_head)).transpose(1, 2)

    def centred(x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True)

    W_O = torch.stack([attention.W_O for attention in attentions]).view(-1, heads, d_head, d_model)
    W_U = model.ln_final.weight[:, None] * model.W_U
    return HeadWeights(centred(model.W_E), reads("W_Q"), reads("W_K"), reads("W_V"), centred(W_O), W_U)

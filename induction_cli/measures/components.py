"""What a head writes, read through the unembedding (the direct path)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def copying(
    pattern: Float[Tensor, "batch head query key"],
    z: Float[Tensor, "batch key head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
    tokens: Int[Tensor, "batch key"],
) -> Float[Tensor, "batch head"]:
    """How much a head raises the logit of the token it attends to, in -1 .. 1.

    W_U has the final LayerNorm folded in; tokens are distinct random tokens, no start token, no repeats.
    At each position: the head's logits less their mean over the vocabulary, through a ReLU; own = attention-weighted
    logit of the attended tokens, all = sum over the sample's tokens; r = own / (own + all); the score is the mean of
    4 r - 1. A head that raises every token alike scores about 4 / (n + 1) - 1 = -0.85 for n = 25, not 0.
    Source: Olsson et al. 2022, 'Head activation evaluators'; paper.md 4.5 says which readings are ours.
    """
    mean, scores = W_U.mean(1, keepdim=True), []
    for at, attended, written in zip(tokens, pattern, z, strict=True):  # logits of the sample's tokens are all it needs
        raised = ((written.transpose(0, 1) @ W_O) @ (W_U[:, at] - mean)).relu()  # [head, pos, sample]
        own = (attended * raised).sum(-1)
        everything = own + raised.sum(-1)
        scores.append((4 * own / everything.clamp(min=1e-30) - 1).mean(-1))
    return torch.stack(scores)

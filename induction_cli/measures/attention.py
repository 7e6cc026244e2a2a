"""What a head attends to: scores from attention patterns [batch, head, query, key] to [batch, head], each in 0 .. 1.

Synthetic sequences are one start token followed by `repeats` copies of `length` random tokens.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def attention_to_copies(
    pattern: Float[Tensor, "*batch query key"], length: int, offset: int
) -> Float[Tensor, "*batch"]:
    """Attention to `offset` places after each earlier copy, summed over copies, averaged over repeats 2 and later."""
    repeats = (pattern.shape[-1] - 1) // length
    destinations = torch.arange(1 + length, 1 + repeats * length)
    total = torch.zeros(pattern.shape[:-1], dtype=pattern.dtype, device=pattern.device)[..., 1 + length :]
    for q in range(1, repeats):
        has_copy = destinations[destinations - 1 >= q * length]
        total[..., -len(has_copy) :] += pattern[..., has_copy, has_copy - q * length + offset]
    return total.mean(-1)


def prefix_matching(pattern: Float[Tensor, "*batch query key"], length: int = 25) -> Float[Tensor, "*batch"]:
    """Attention from a token to the tokens that followed its earlier copies; 1 for a perfect induction head.

    Token i of repeat r looks at i - q * length + 1 for q = 1 .. r - 1 (the +1 target: the paper's 'preceded' is the
    token *after* the earlier copy). Summed over earlier repeats, averaged over the destinations: all tokens of
    the second and later repeats. The last token of each repeat has its target too: the first of the repeat after it.
    Source: Olsson et al. 2022, 'Head activation evaluators'; paper.md 4.4 says which readings are ours.
    """
    return attention_to_copies(pattern, length, offset=1)


def duplicate_token(pattern: Float[Tensor, "*batch query key"], length: int = 25) -> Float[Tensor, "*batch"]:
    """Attention from a token to its own earlier copies, summed over copies, averaged over repeats 2 and later."""
    return attention_to_copies(pattern, length, offset=0)


def previous_token(pattern: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch"]:
    """Mean attention from position i to i - 1 over all i >= 1."""
    return pattern.diagonal(-1, -2, -1).mean(-1)


def start_token(pattern: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch"]:
    """Mean attention to position 0 over all later positions."""
    return pattern[..., 1:, 0].mean(-1)


def entropy(pattern: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch"]:
    """Mean over positions >= 1 of the attention's entropy divided by the largest it could be, ln(position + 1)."""
    nats = torch.special.entr(pattern).sum(-1)[..., 1:]
    return (nats / torch.arange(2, pattern.shape[-1] + 1, device=pattern.device).log()).mean(-1)


def uniform(n_pos: int) -> Float[Tensor, "1 1 {n_pos} {n_pos}"]:
    """The pattern of a head that attends to everything alike, [1, 1, query, key]; every score's first baseline."""
    causal = torch.ones(n_pos, n_pos).tril()
    return (causal / causal.sum(-1, keepdim=True))[None, None]

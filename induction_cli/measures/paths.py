"""What travels along which path: terms of an attention-only model, K-composition terms, and an ideal induction head.

Row convention as in measures.circuits. Source: Elhage et al. 2021, 'A Mathematical Framework'; paper.md section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MATCHES = ("mean", "last")
RESTS = ("nothing", "start")


# ------------------------------------------------------------------------------------------------ term importance


@dataclass(frozen=True)
class Frozen:
    """One run of an attention-only model with all that is not linear held as it was in that run.

    Held: every attention pattern, and at every position the factor 1 / sqrt(variance + eps) by which each LayerNorm
    multiplies. What is left of a LayerNorm is linear: centring, that factor, its gain; its shift is a constant.
    So the final residual is exactly the sum of the terms below.

    embedding [batch, pos, d_model]; pattern [layer, batch, head, query, key]; scale [layer + 1, batch, pos, 1], the
    last of the final LayerNorm; W_V [layer, head, d_model, d_head] with the gain folded in; b_V [layer, head, d_head],
    what the shift gives; W_O [layer, head, d_head, d_model]; W_U [d_model + 1, d_vocab] with the final gain folded in,
    its last row what the final shift gives.
    """

    embedding: Tensor
    pattern: Tensor
    scale: Tensor
    W_V: Tensor
    b_V: Tensor
    W_O: Tensor
    W_U: Tensor

    def written(self, layer: int, x: Tensor, shift: bool = False) -> Tensor:
        """What each head of a layer writes when x [batch, pos, d_model] is what it reads, [head, batch, pos, d_model].

        `shift` adds what the heads write whatever they read; it is counted with the single heads.
        """
        read = (x - x.mean(-1, keepdim=True)) * self.scale[layer]
        v = read[:, None] @ self.W_V[layer]  # [batch, head, pos, d_head]
        if shift:
            v = v + self.b_V[layer, :, None]
        return (self.pattern[layer] @ v @ self.W_O[layer]).transpose(0, 1)

    def normalised(self, residual: Tensor) -> Tensor:
        """A sum of terms [batch, pos, d_model] as W_U reads it, [batch, pos, d_model + 1]: @ W_U gives the logits."""
        centred = (residual - residual.mean(-1, keepdim=True)) * self.scale[-1]
        return torch.cat((centred, torch.ones_like(centred[..., :1])), -1)


def layer_norm_scale(residual: Tensor, eps: float = 1e-5) -> Tensor:
    """The factor by which LayerNorm multiplies the centred residual [..., d_model], [..., 1]."""
    return (residual.var(-1, unbiased=False, keepdim=True) + eps).rsqrt()


def single_heads(frozen: Frozen) -> Tensor:
    """Order 1, [layer, head, batch, pos, d_model]: what each head writes of the embedding alone."""
    return torch.stack([frozen.written(layer, frozen.embedding, shift=True) for layer in range(len(frozen.W_V))])


def next_order(frozen: Frozen, term: Tensor) -> Tensor:
    """From order n, [layer, head, batch, pos, d_model], to n + 1: what each head writes of earlier heads' terms."""
    by_layer = term.sum(1)
    zero = torch.zeros_like(by_layer[0])
    return torch.stack([frozen.written(layer, sum(by_layer[:layer], zero)) for layer in range(len(term))])


def orders(frozen: Frozen) -> list[Tensor]:
    """The terms of each order, each [batch, pos, d_model]: direct path, single heads, virtual heads of 2, of 3, ...

    Order n passes through the values of n heads, one after another. Their sum is the residual stream of the run.
    """
    terms, term = [frozen.embedding], single_heads(frozen)
    for _ in range(len(frozen.W_V)):
        terms.append(term.sum((0, 1)))
        term = next_order(frozen, term)
    return terms


def virtual_heads(frozen: Frozen, layer: int, term: Tensor) -> Tensor:
    """Virtual heads of 2, [from_head, head, batch, pos, d_model]: heads of `layer` fed by one earlier head each.

    term [from_head, batch, pos, d_model] is the order-1 term of each of some earlier heads.
    """
    return torch.stack([frozen.written(layer, x) for x in term])


# ------------------------------------------------------------------------------------------------ K-composition


def qk_term_eigenvalues(W_E: Tensor, W_Q: Tensor, W_K: Tensor, before_V: Tensor, before_O: Tensor) -> Tensor:
    """Non-zero eigenvalues of W_E W_Q W_K^T (W_V W_O)^T W_E^T, complex [head, earlier, d_head].

    The term by which a head's query compares its own token with the token that an earlier head moved to the key: the
    'same matching' term of an induction head if the earlier head attends to the previous token. Positive = alike
    tokens match. Their sum is the trace that measures.circuits.qk_trace weighs and adds.
    W_E [d_vocab, d_model]; W_Q, W_K [head, d_model, d_head]; before_V [earlier, d_model, d_head], before_O [earlier,
    d_head, d_model]. Eigenvalues of a product do not change when its factors are rotated.
    """
    moved = (before_V @ before_O).mT  # [earlier, d_model, d_model]
    return torch.linalg.eigvals(W_K.mT[:, None] @ moved @ (W_E.T @ W_E) @ W_Q[:, None])


# ------------------------------------------------------------------------------------------------ the ideal head


def ideal_pattern(tokens: Tensor, offset: int = 1, match: str = "mean", rest: str = "nothing") -> Tensor:
    """The attention pattern of a hard-coded induction head on tokens [batch, pos], [batch, query, key].

    A query attends to the position `offset` after each earlier occurrence of its own token; 1 is induction, 0 the
    occurrence itself. match: 'mean' shares attention equally among the occurrences, as equal scores would; 'last' takes
    the most recent one. rest, where there is no such position: 'nothing' leaves the row 0, so the head writes nothing;
    'start' attends to position 0. A target later than the query does not exist.
    """
    if match not in MATCHES or rest not in RESTS:
        raise ValueError(f"match is '{match}' and rest '{rest}'; there are {', '.join(MATCHES)} and {', '.join(RESTS)}")
    n_pos = tokens.shape[1]
    occurs = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)  # [batch, query, key]: the same token, earlier
    target = F.pad(occurs, (offset, 0))[..., :n_pos].tril()
    if match == "last":
        later = target.flip(-1).long().cumsum(-1).flip(-1)  # targets at or after this key
        target = target & (later == 1)
    pattern = target.float() / target.sum(-1, keepdim=True).clamp(min=1)
    if rest == "start":
        pattern[..., 0] += (~target.any(-1)).float()
    return pattern


def copy_directions(W_U: Tensor) -> Tensor:
    """For each token the direction in the residual stream that raises its logit above the mean one, [d_vocab, d_model].

    W_U [d_model, d_vocab] with the final LayerNorm's gain folded in. Centred over d_model (LayerNorm takes the mean off
    anyway) and of length 1.
    """
    above = (W_U - W_U.mean(1, keepdim=True)).T
    return F.normalize(above - above.mean(-1, keepdim=True), dim=-1)

"""What travels along which path: terms of an attention-only model, K-composition terms, and an ideal induction head.

Row convention as in measures.circuits. Source: Elhage et al. 2021, 'A Mathematical Framework'; paper.md section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
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

    The last scale is of the final LayerNorm; W_V has the gain folded in, b_V is what the shift gives; W_U has the final
    gain folded in, its last row is what the final shift gives.
    """

    embedding: Float[Tensor, "batch pos d_model"]
    pattern: Float[Tensor, "layer batch head pos pos"]
    scale: Float[Tensor, "layer+1 batch pos 1"]
    W_V: Float[Tensor, "layer head d_model d_head"]
    b_V: Float[Tensor, "layer head d_head"]
    W_O: Float[Tensor, "layer head d_head d_model"]
    W_U: Float[Tensor, "d_model+1 d_vocab"]

    def written(
        self, layer: int, x: Float[Tensor, "batch pos d_model"], shift: bool = False
    ) -> Float[Tensor, "head batch pos d_model"]:
        """What each head of a layer writes when x is what it reads.

        `shift` adds what the heads write whatever they read; it is counted with the single heads.
        """
        read = (x - x.mean(-1, keepdim=True)) * self.scale[layer]
        v = read[:, None] @ self.W_V[layer]  # [batch, head, pos, d_head]
        if shift:
            v = v + self.b_V[layer, :, None]
        return (self.pattern[layer] @ v @ self.W_O[layer]).transpose(0, 1)

    def normalised(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model+1"]:
        """A sum of terms as W_U reads it: @ W_U gives the logits."""
        centred = (residual - residual.mean(-1, keepdim=True)) * self.scale[-1]
        return torch.cat((centred, torch.ones_like(centred[..., :1])), -1)


def layer_norm_scale(residual: Float[Tensor, "*batch d_model"], eps: float = 1e-5) -> Float[Tensor, "*batch 1"]:
    """The factor by which LayerNorm multiplies the centred residual."""
    return (residual.var(-1, unbiased=False, keepdim=True) + eps).rsqrt()


def single_heads(frozen: Frozen) -> Float[Tensor, "layer head batch pos d_model"]:
    """Order 1: what each head writes of the embedding alone."""
    return torch.stack([frozen.written(layer, frozen.embedding, shift=True) for layer in range(len(frozen.W_V))])


def next_order(
    frozen: Frozen, term: Float[Tensor, "layer head batch pos d_model"]
) -> Float[Tensor, "layer head batch pos d_model"]:
    """From order n to n + 1: what each head writes of earlier heads' terms."""
    by_layer = term.sum(1)
    zero = torch.zeros_like(by_layer[0])
    return torch.stack([frozen.written(layer, sum(by_layer[:layer], zero)) for layer in range(len(term))])


def orders(frozen: Frozen) -> list[Float[Tensor, "batch pos d_model"]]:
    """The terms of each order: direct path, single heads, virtual heads of 2, of 3, ...

    Order n passes through the values of n heads, one after another. Their sum is the residual stream of the run.
    """
    terms, term = [frozen.embedding], single_heads(frozen)
    for _ in range(len(frozen.W_V)):
        terms.append(term.sum((0, 1)))
        term = next_order(frozen, term)
    return terms


def virtual_heads(
    frozen: Frozen, layer: int, term: Float[Tensor, "from_head batch pos d_model"]
) -> Float[Tensor, "from_head head batch pos d_model"]:
    """Virtual heads of 2: heads of `layer` fed by one earlier head each, `term` the order-1 terms of those."""
    return torch.stack([frozen.written(layer, x) for x in term])


# ------------------------------------------------------------------------------------------------ K-composition


def qk_term_eigenvalues(
    W_E: Float[Tensor, "d_vocab d_model"],
    W_Q: Float[Tensor, "head d_model d_head"],
    W_K: Float[Tensor, "head d_model d_head"],
    before_V: Float[Tensor, "earlier d_model d_head"],
    before_O: Float[Tensor, "earlier d_head d_model"],
) -> Complex[Tensor, "head earlier d_head"]:
    """Non-zero eigenvalues of W_E W_Q W_K^T (W_V W_O)^T W_E^T.

    The term by which a head's query compares its own token with the token that an earlier head moved to the key: the
    'same matching' term of an induction head if the earlier head attends to the previous token. Positive = alike
    tokens match. Their sum is the trace that measures.circuits.qk_trace weighs and adds.
    Eigenvalues of a product do not change when its factors are rotated.
    """
    moved = (before_V @ before_O).mT  # [earlier, d_model, d_model]
    return torch.linalg.eigvals(W_K.mT[:, None] @ moved @ (W_E.T @ W_E) @ W_Q[:, None])


# ------------------------------------------------------------------------------------------------ the ideal head


def ideal_pattern(
    tokens: Int[Tensor, "batch pos"], offset: int = 1, match: str = "mean", rest: str = "nothing"
) -> Float[Tensor, "batch pos pos"]:
    """The attention pattern of a hard-coded induction head, [batch, query, key].

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


def copy_directions(W_U: Float[Tensor, "d_model d_vocab"]) -> Float[Tensor, "d_vocab d_model"]:
    """For each token the direction in the residual stream that raises its logit above the mean one.

    W_U has the final LayerNorm's gain folded in. Centred over d_model (LayerNorm takes the mean off
    anyway) and of length 1.
    """
    above = (W_U - W_U.mean(1, keepdim=True)).T
    return F.normalize(above - above.mean(-1, keepdim=True), dim=-1)

"""What the weights alone say about a head: OV and QK circuits (Elhage et al. 2021, 'A Mathematical Framework').

Row convention: a residual vector x is a row, x W_V W_O is what a head writes. No d_vocab x d_vocab matrix is built: the
eigenvalues of a product do not change when its factors are rotated, so d_head x d_head ones do. (Norms do change
under rotation; composition scores never rotate.)
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def ov_eigenvalues(
    W_E: Float[Tensor, "d_vocab d_model"],
    W_V: Float[Tensor, "head d_model d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
) -> Complex[Tensor, "head d_head"]:
    """Non-zero eigenvalues of the full OV circuit W_E W_V W_O W_U of each head, complex."""
    return torch.linalg.eigvals(W_O @ (W_U @ W_E) @ W_V)


def copying_eigenvalue_statistic(eigenvalues: Complex[Tensor, "*head d_head"]) -> Float[Tensor, "*head"]:
    """Real part of the sum over the sum of moduli, [head], in -1 .. 1: 1 when every direction is copied as itself."""
    return eigenvalues.sum(-1).real / eigenvalues.abs().sum(-1).clamp(min=1e-30)


def qk_trace(
    W_E: Float[Tensor, "d_vocab d_model"],
    W_Q: Float[Tensor, "head d_model d_head"],
    W_K: Float[Tensor, "head d_model d_head"],
    W_V: Float[Tensor, "earlier d_model d_head"],
    W_O: Float[Tensor, "earlier d_head d_model"],
    previous_token: Float[Tensor, " earlier"],
) -> Float[Tensor, " head"]:
    """Trace of the QK circuit that runs through earlier previous-token heads, for each head [head]; not normalised.

    Sum over earlier heads k of w_k tr(W_E W_Q W_K^T (W_V^k W_O^k)^T W_E^T): the query's own token against the token
    before the key. W_Q and W_K are of the head's layer; W_V, W_O and the weights w = previous_token are of all heads in
    earlier layers.
    Source: Olsson et al. 2022, 'Trace of QK eigenvalues'; paper.md 4.10. nan where there is no earlier head.
    """
    if not len(W_V):
        return W_Q.new_full((len(W_Q),), torch.nan)
    moved = (previous_token[:, None, None] * (W_V @ W_O)).sum(0)  # [d_model, d_model]: token -> where it is written
    return ((W_E.T @ W_E) @ (W_Q @ W_K.mT) @ moved.T).diagonal(dim1=-2, dim2=-1).sum(-1)


def composition(
    W_Q: Float[Tensor, "head d_model d_head"],
    W_K: Float[Tensor, "head d_model d_head"],
    W_V: Float[Tensor, "head d_model d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    before_V: Float[Tensor, "earlier d_model d_head"],
    before_O: Float[Tensor, "earlier d_head d_model"],
) -> dict[str, Float[Tensor, "head earlier"]]:
    """Q-, K- and V-composition of each head with each earlier head, {kind: [head, earlier]}, each in 0 .. 1.

    Norm of the product over the product of the norms; nan where either is 0, as it is of a head that writes nothing.
    W_Q .. W_O are of the later heads, before_V and before_O of the earlier ones. Subtract `composition_baseline`
    before reading anything into it.
    """

    def triangle(tall: Tensor) -> Tensor:
        """[..., d_model, d_head] -> [..., d_head, d_head]; products that begin with it keep their norm."""
        return torch.linalg.qr(tall, mode="r").R

    def score(left: Tensor, middle: Tensor, right: Tensor, later: Tensor) -> Tensor:
        norms = norm(later)[:, None] * norm(before @ before_O)
        return norm(left @ middle @ right.mT) / torch.where(norms > 0, norms, torch.nan)

    norm, before = torch.linalg.matrix_norm, triangle(before_V)
    Q, K, O = (triangle(weight)[:, None] for weight in (W_Q, W_K, W_O.mT))
    qk, ov = Q[:, 0] @ W_K.mT, O[:, 0] @ W_V.mT
    return {  # with x -> x before_V before_O, the products before_V before_O W_Q W_K^T and so on
        "Q": score(before, before_O @ W_Q[:, None], K, qk),
        "K": score(Q, W_K[:, None].mT @ before_O.mT, before, qk),
        "V": score(before, before_O @ W_V[:, None], O, ov),
    }


def composition_baseline(d_model: int, d_head: int, n_draws: int = 20, seed: int = 0) -> float:
    """The mean composition score of two random heads of these shapes (the same for Q, K and V)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(n_draws, *shape, generator=generator)

    Q, K, V, O = draw(d_model, d_head), draw(d_model, d_head), draw(d_model, d_head), draw(d_head, d_model)
    later, earlier = Q @ K.mT, V @ O
    norm = torch.linalg.matrix_norm
    return (norm(earlier @ later) / (norm(earlier) * norm(later))).mean().item()

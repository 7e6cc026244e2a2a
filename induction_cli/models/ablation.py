"""Ablations of attention heads: what each head's removal does to the per-token losses of one model.

`plain` is the definition, two calls of the model with `Patch`; fast_ablation.py gives the same numbers for
our own model without repeating what the ablations share. Columns as in measures.losses: the loss at index i stands in
column i - 1.

Kinds (paper.md 4.7). pattern_preserving: the head's result is removed and every attention pattern, of every layer,
stays that of the clean run. full: the head's result is removed and everything downstream is recomputed. mean: as full,
but the head's z becomes its mean over the held-out set instead of 0; patterns downstream are recomputed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from induction_cli.models.protocol import Ablation, Losses, Model, Patch, Question


def gather(x: Tensor, at: Tensor | None) -> Tensor:
    """The positions `at` [batch, chosen] of x [batch, pos] or [..., batch, pos, d]; None takes them all."""
    if at is None:
        return x
    at = at.to(x.device)
    if x.ndim == at.ndim:
        return x.gather(-1, at)
    return x.gather(-2, at[..., None].expand(*x.shape[:-2], at.shape[-1], x.shape[-1]))


@torch.no_grad()
def plain(model: Model, question: Question) -> Losses:
    """Losses with and without the ablated heads, by definition: one whole run of the model for each ablation.

    Of any model: nothing but `Patch` is used. Raises ValueError for a question that does not fit the model.
    """
    ablations, patterns = question.sets(model), {}
    if question.kind == "pattern_preserving":
        patterns = dict(enumerate(model.activations(question.tokens[:, :-1], ("pattern",)).pattern))
    fill = question.mean_z if question.kind == "mean" else None

    def losses(patch: Patch) -> Tensor:
        return gather(model.losses(question.tokens, patch), question.positions)

    clean = losses(Patch())
    ablated = [losses(Patch(without_heads(model, ablation), fill, patterns)) for ablation in ablations]
    return Losses(clean, torch.stack(ablated) if ablated else clean.new_empty(0, *clean.shape))


def plain_in_parts(model: Model, question: Question, n: int) -> Losses:
    """`plain` on n examples at a time, on the CPU."""
    found = [plain(model, part) for part in question.split(n)]
    clean, ablated = torch.cat([part.clean for part in found]), torch.cat([part.ablated for part in found], 1)
    return Losses(clean.cpu(), ablated.cpu())


def without_heads(model: Model, heads: Ablation) -> Tensor:
    """`Patch.head_scale` [layer, head] that removes these heads."""
    scale = torch.ones(model.n_layers, model.n_heads)
    for layer, head in heads:
        scale[layer, head] = 0
    return scale

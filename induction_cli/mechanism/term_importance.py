"""Which paths through an attention-only model carry the loss: orders, single heads, virtual heads."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import require
from induction_cli.measures import paths
from induction_cli.measures.losses import per_token_loss
from induction_cli.mechanism.examples import Examples, label, ratio, with_interval
from induction_cli.models.transformer import Transformer

MAXIMUM_PAIRS = 64  # virtual heads of 2 are told apart up to here; beyond, their order as a whole has to do


@torch.no_grad()
def frozen_run(model: Transformer, tokens: Tensor) -> paths.Frozen:
    """A run of an attention-only model on tokens [batch, pos], ready to be taken apart."""
    require(not model.config.d_mlp, "paths are told apart in attention-only models; MLPs are not linear")
    _, kept = model(tokens, record=("residual", "pattern"))
    heads = (model.config.n_heads, model.config.d_head)
    attentions = [(block.ln_attention, block.attention) for block in model.blocks]
    folded = [norm.weight[:, None] * attention.W_V for norm, attention in attentions]
    shifts = [norm.bias @ attention.W_V for norm, attention in attentions]
    final = model.ln_final
    return paths.Frozen(
        embedding=kept.residual[0],
        pattern=torch.stack(kept.pattern),
        scale=torch.stack([paths.layer_norm_scale(residual, final.eps) for residual in kept.residual]),
        W_V=torch.stack(folded).unflatten(-1, heads).transpose(1, 2),
        b_V=torch.stack(shifts).unflatten(-1, heads),
        W_O=torch.stack([attention.W_O for _, attention in attentions]).unflatten(1, heads),
        W_U=torch.cat((final.weight[:, None] * model.W_U, (final.bias @ model.W_U)[None])),
    )


@torch.no_grad()
def path_losses(model: Transformer, tokens: Tensor) -> dict[tuple, Tensor]:
    """Per-token losses [batch, pos] with some paths only, tokens [batch, pos + 1].

    ('up to', n): every path of order n or less. ('alone', heads): the direct path and these single heads.
    ('without', heads): all paths but these single heads; heads is (layer, head) or, for a whole layer, (layer, None).
    ('virtual', from, head): all paths but this virtual head of 2.
    """
    frozen = frozen_run(model, tokens[:, :-1])

    def losses(residual: Tensor) -> Tensor:
        return per_token_loss(frozen.normalised(residual), frozen.W_U, tokens[:, 1:])

    orders, single = paths.orders(frozen), paths.single_heads(frozen)
    n_layers, n_heads = single.shape[:2]
    whole = torch.stack(orders).sum(0)
    found: dict[tuple, Tensor] = {}
    for order in range(len(orders)):
        found["up to", order] = losses(torch.stack(orders[: order + 1]).sum(0))
    for layer in range(n_layers):
        for head in (None, *range(n_heads)):
            term = single[layer].sum(0) if head is None else single[layer, head]
            found["alone", (layer, head)] = losses(orders[0] + term)
            found["without", (layer, head)] = losses(whole - term)
    if n_heads**2 * math.comb(n_layers, 2) <= MAXIMUM_PAIRS:
        for layer in range(1, n_layers):
            for earlier in range(layer):
                for before, terms in enumerate(paths.virtual_heads(frozen, layer, single[earlier])):
                    for head, term in enumerate(terms):
                        found["virtual", (earlier, before), (layer, head)] = losses(whole - term)
    return found


def path_tables(model: Transformer, examples: Examples, batch_size: int, at: dict) -> dict[str, pd.DataFrame]:
    """paths.csv, path_heads.csv and virtual_heads.csv: what each order, single head and virtual head is worth, in nats.

    Patterns and LayerNorm's divisions are those of the whole model throughout (paths.Frozen). paths: loss with all
    paths up to an order; marginal = what that order took off; share = of all that the model takes off a uniform guess.
    path_heads: alone = what the single head takes off the direct path's loss; marginal = what the loss rises by
    without it. virtual_heads: marginal likewise.
    """
    device, batches = model.W_E.device, []
    for batch in examples.tokens.split(batch_size):
        found = path_losses(model, batch.to(device))
        batches.append({key: losses[:, examples.first :].mean(1).cpu() for key, losses in found.items()})
    loss = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    n_layers = model.config.n_layers
    uniform = torch.full_like(loss["up to", 0], math.log(model.config.d_vocab))
    full = loss["up to", n_layers]
    at = {**at, "on": examples.on}
    orders, single, virtual = [], [], []
    for order, before in enumerate([uniform, *(loss["up to", order] for order in range(n_layers))]):
        here = loss["up to", order]
        share, low, high = ratio(before - here, uniform - full)
        name = {0: "direct path", 1: "single heads"}.get(order, f"virtual heads of {order}")
        orders.append(
            {**at, "order": order, "path": name, "loss": here.mean().item()}
            | with_interval("marginal", before - here)
            | {"share": share, "share_low": low, "share_high": high}
        )
    for kind, *heads in loss:
        if kind == "alone":
            layer, head = heads[0]
            single.append(
                {**at, "layer": layer, "head": head, "heads": f"layer {layer}" if head is None else label(heads)}
                | with_interval("alone", loss["up to", 0] - loss["alone", heads[0]])
                | with_interval("marginal", loss["without", heads[0]] - full)
            )
        elif kind == "virtual":
            (earlier, before), (layer, head) = heads
            virtual.append(
                {**at, "from_layer": earlier, "from_head": before, "layer": layer, "head": head}
                | with_interval("marginal", loss["virtual", heads[0], heads[1]] - full)
            )
    frames = {"paths": pd.DataFrame(orders), "path_heads": pd.DataFrame(single), "virtual_heads": pd.DataFrame(virtual)}
    return {
        name: frame.astype({"head": "Int64"}) if "head" in frame else frame  # a whole layer has none
        for name, frame in frames.items()
    }

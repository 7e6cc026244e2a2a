"""Is the mechanism enough? An induction head replaced by a hard-coded one: what of its effect on the loss is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import require
from induction_cli.measures import paths
from induction_cli.measures.losses import per_token_loss
from induction_cli.mechanism.examples import Examples, label, ratio_interval, with_interval
from induction_cli.models.any_model import Head, Model, as_model, own_transformer
from induction_cli.models.transformer import Patch, Transformer


@dataclass(frozen=True)
class Ideal:
    """A hard-coded head. Pattern: measures.paths.ideal_pattern.

    value: 'own' is the head's own W_V W_O at its own size; 'copy' adds a multiple of the attended token's unembedding
    direction, the multiple fitted on other examples; 'nothing' removes the head.
    """

    variant: str
    offset: int = 1
    match: str = "mean"
    rest: str = "nothing"
    value: str = "own"


REMOVED = Ideal("removed", value="nothing")
IDEAL = Ideal("ideal")  # the one that claim 5e is about
VARIANTS = (
    IDEAL,
    Ideal("ideal, last occurrence", match="last"),
    Ideal("ideal, start if none", rest="start"),
    Ideal("ideal copy", value="copy"),
    Ideal("wrong offset 0", offset=0),
    Ideal("wrong offset 2", offset=2),
    Ideal("wrong offset 2, copy", offset=2, value="copy"),
)


@torch.no_grad()
def losses_when(
    model: Model | Transformer, tokens: Tensor, heads: Sequence[Head], ideal: Ideal = REMOVED, scale: float = 1.0
) -> Tensor:
    """Per-token losses [batch, pos] with `heads` replaced by ideal ones or removed; tokens [batch, pos + 1].

    All that is downstream is recomputed; other heads of the same layer do what they did. scale: factor on what is
    written in place of each head. In a pretrained model heads can be given patterns, but nothing else to write.
    """
    model = as_model(model)
    tokens = tokens.to(model.device)
    pattern = scale * paths.ideal_pattern(tokens[:, :-1], ideal.offset, ideal.match, ideal.rest)
    if isinstance(model.inner, Transformer):
        return replaced_losses(model.inner, tokens, heads, ideal, pattern)
    require(ideal.value != "copy", "a pretrained model's heads can be given patterns, but nothing else to write")
    removed = torch.ones(model.n_layers, model.n_heads)
    if ideal.value == "nothing":
        removed[[layer for layer, _ in heads], [head for _, head in heads]] = 0
        return model.losses(tokens, Patch(removed))
    return model.losses(tokens, head_patterns=dict.fromkeys(heads, pattern))


def replaced_losses(model: Transformer, tokens: Tensor, heads: Sequence[Head], ideal: Ideal, pattern: Tensor) -> Tensor:
    """`losses_when` of our own model, which can also be made to write an ideal copy."""
    inputs, positions = tokens[:, :-1], model.query_key_positions(tokens.shape[1] - 1)
    residual = model.embed(inputs)
    for layer, block in enumerate(model.blocks):
        attention, x = block.attention, block.ln_attention(residual)
        z = attention(x, positions)
        chosen = [head for which, head in heads if which == layer]
        for head in chosen:
            z[:, :, head] = pattern @ attention.values(x)[:, head] if ideal.value == "own" else 0
        written = attention.result(z)
        if chosen and ideal.value == "copy":
            directions = paths.copy_directions(model.ln_final.weight[:, None] * model.W_U)
            written = written + len(chosen) * (pattern @ directions[inputs])
        residual = block.after_attention(residual + written)
    return per_token_loss(model.ln_final(residual), model.W_U, tokens[:, 1:])


@torch.no_grad()
def result_norm(model: Transformer, tokens: Tensor, head: Head) -> float:
    """The mean length of what a head writes, on tokens [batch, pos]."""
    _, kept = model(tokens.to(model.W_E.device), record=("z",))
    layer, index = head
    W_O = model.blocks[layer].attention.W_O.unflatten(0, (model.config.n_heads, -1))[index]
    return (kept.z[layer][:, :, index] @ W_O).norm(dim=-1).mean().item()


def golden_section(f: Callable[[float], float], low: float, high: float, steps: int = 10) -> float:
    """Where a function with one valley is lowest."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = f(a), f(b)
    for _ in range(steps):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = f(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = f(b)
    return (low + high) / 2


def fitted_scale(model: Transformer, examples: Examples, heads: Sequence[Head], ideal: Ideal, batch_size: int) -> float:
    """The factor on an ideal copy with the lowest loss, from 1/20 to 20 times the length of what the heads write."""
    usual = sum(result_norm(model, examples.tokens[:batch_size, :-1], head) for head in heads) / len(heads)

    def loss(log_factor: float) -> float:
        scale = usual * math.exp(log_factor)
        per_token = examples.losses(lambda tokens: losses_when(model, tokens, heads, ideal, scale), batch_size)
        return per_token.mean().item()

    return usual * math.exp(golden_section(loss, -math.log(20), math.log(20)))


def replacements(types: pd.DataFrame, n_controls: int, seed: int) -> list[tuple[str, list[Head], tuple[Ideal, ...]]]:
    """(role, heads, variants): each induction head, all of them at once, and random other heads. types: layer, head,
    head_type. Controls get the plain ideal head and the ideal copy."""
    heads = list(types[["layer", "head"]].itertuples(index=False, name=None))
    induction = [head for head, kind in zip(heads, types.head_type, strict=True) if kind == "induction"]
    others = [head for head in heads if head not in induction]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:n_controls].tolist()
    plan = [("induction", [head], VARIANTS) for head in induction]
    if len(induction) > 1:
        plan.append(("induction_together", induction, VARIANTS))
    plain = tuple(ideal for ideal in VARIANTS if ideal.variant in ("ideal", "ideal copy"))
    return plan + [("control", [others[i]], plain) for i in sorted(drawn)]


def ideal_rows(
    model: Model | Transformer,
    examples: Examples,
    types: pd.DataFrame,
    at: dict,
    n_controls: int,
    batch_size: int = 8,
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of ideal_head.csv (claim 5e), measured on every second example; the others fit the scale of ideal copies.

    effect = loss without the heads less the model's own (zero ablation, all downstream recomputed); regained = loss
    without them less the loss with ideal ones; share = regained / effect, empty where the effect is not above 0.
    """
    model = as_model(model)
    device, can_copy = model.device, isinstance(model.inner, Transformer)
    fit, test = (replace(examples, tokens=examples.tokens[start::2].to(device)) for start in (0, 1))

    def losses(heads: Sequence[Head], ideal: Ideal = REMOVED, scale: float = 1.0) -> Tensor:
        return test.losses(lambda tokens: losses_when(model, tokens, heads, ideal, scale), batch_size)

    clean, rows = losses([]), []
    for role, heads, variants in replacements(types, n_controls, seed):
        ablated = losses(heads)
        for ideal in (each for each in variants if can_copy or each.value != "copy"):
            copies = ideal.value == "copy"
            scale = fitted_scale(own_transformer(model, "copies"), fit, heads, ideal, batch_size) if copies else 1.0
            replaced = losses(heads, ideal, scale)
            share, low, high = ratio_interval(ablated - replaced, ablated - clean)
            rows.append(
                {**at, "on": examples.on, "role": role, "heads": label(heads), **vars(ideal), "scale": scale}
                | {"examples": len(clean), "loss": clean.mean().item(), "loss_ablated": ablated.mean().item()}
                | {"loss_ideal": replaced.mean().item(), **with_interval("effect", ablated - clean)}
                | {
                    **with_interval("regained", ablated - replaced),
                    "share": share,
                    "share_low": low,
                    "share_high": high,
                }
            )
    return pd.DataFrame(rows)

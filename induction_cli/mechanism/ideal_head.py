"""Is the mechanism enough? An induction head replaced by a hard-coded one: what of its effect on the loss is kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from induction_cli.config import require
from induction_cli.measures import paths
from induction_cli.mechanism.examples import Examples, label, ratio, with_interval
from induction_cli.models.ablation import without_heads
from induction_cli.models.protocol import Head, Model, Patch


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
    model: Model, tokens: Tensor, heads: Sequence[Head], ideal: Ideal = REMOVED, scale: float = 1.0
) -> Tensor:
    """Per-token losses [batch, pos] with `heads` replaced by ideal ones or removed; tokens [batch, pos + 1].

    All that is downstream is recomputed; other heads of the same layer do what they did. scale: factor on what is
    written in place of each head. Raises ConfigError for an ideal copy in a model that cannot write one
    (`Model.no_writing`).
    """
    tokens = tokens.to(model.device)
    if not heads:
        return model.losses(tokens)
    pattern = scale * paths.ideal_pattern(tokens[:, :-1], ideal.offset, ideal.match, ideal.rest)
    if ideal.value == "own":
        return model.losses(tokens, Patch(head_patterns=dict.fromkeys(heads, pattern)))
    removed = Patch(head_scale=without_heads(model, heads))
    if ideal.value == "copy":
        require(not model.no_writing, model.no_writing)
        copied = pattern @ paths.copy_directions(model.unembedding())[tokens[:, :-1]]
        per_layer = Counter(layer for layer, _ in heads)
        removed = replace(removed, written={layer: n * copied for layer, n in per_layer.items()})
    return model.losses(tokens, removed)


@torch.no_grad()
def result_norm(model: Model, tokens: Tensor, head: Head) -> float:
    """The mean length of what a head writes, on tokens [batch, pos]."""
    layer, index = head
    z, W_O = model.activations(tokens, ("z",)).z[layer], model.head_weights(layer, fold_norm=False).W_O
    return (z[:, :, index] @ W_O[index]).norm(dim=-1).mean().item()


def fitted_scale(model: Model, examples: Examples, heads: Sequence[Head], ideal: Ideal, batch_size: int) -> float:
    """The factor on an ideal copy with the lowest loss, from 1/20 to 20 times the length of what the heads write."""
    usual = sum(result_norm(model, examples.tokens[:batch_size, :-1], head) for head in heads) / len(heads)

    def loss(log_factor: float) -> float:
        scale = usual * math.exp(log_factor)
        per_token = examples.losses(lambda tokens: losses_when(model, tokens, heads, ideal, scale), batch_size)
        return per_token.mean().item()

    bounds = (-math.log(20), math.log(20))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.02, "maxiter": 12})
    return usual * math.exp(float(found.x))


Replacement = tuple[str, list[Head], tuple[Ideal, ...]]  # (role, heads, variants)


def replacements(types: pd.DataFrame, n_controls: int, seed: int = 0) -> list[Replacement]:
    """What is replaced by what: each induction head, all of them at once, and random other heads. types: layer, head,
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
    model: Model, examples: Examples, plan: Sequence[Replacement], at: dict, batch_size: int = 8
) -> pd.DataFrame:
    """Rows of ideal_head.csv (claim 5e), measured on every second example; the others fit the scale of ideal copies.
    plan: see `replacements`.

    effect = loss without the heads less the model's own (zero ablation, all downstream recomputed); regained = loss
    without them less the loss with ideal ones; share = regained / effect, empty where the effect is not above 0.
    """
    fit, test = (replace(examples, tokens=examples.tokens[start::2].to(model.device)) for start in (0, 1))

    def losses(heads: Sequence[Head], ideal: Ideal = REMOVED, scale: float = 1.0) -> Tensor:
        return test.losses(lambda tokens: losses_when(model, tokens, heads, ideal, scale), batch_size)

    clean, rows = losses([]), []
    for role, heads, variants in plan:
        ablated = losses(heads)
        for ideal in variants:
            copies = ideal.value == "copy"
            if copies and model.no_writing:
                continue
            scale = fitted_scale(model, fit, heads, ideal, batch_size) if copies else 1.0
            replaced = losses(heads, ideal, scale)
            share, low, high = ratio(ablated - replaced, ablated - clean)
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
    intervals = [f"{name}{end}" for name in ("effect", "regained", "share") for end in ("", "_low", "_high")]
    measured = ["scale", "examples", "loss", "loss_ablated", "loss_ideal", *intervals]
    variant = [each.name for each in fields(Ideal)]  # named, as there may be no head to replace
    return pd.DataFrame(rows, columns=[*at, "on", "role", "heads", *variant, *measured])

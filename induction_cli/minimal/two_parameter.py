"""The induction head reduced to two numbers, beta_1 and alpha. Derived here from first principles [ours].

The target's item is xq; the token at place t = 1..T, T = 2N + 1, has content c_t (odd t items, even t labels).

Layer 1 attends to the previous token with logit beta_1 and to every other token, itself included, with logit 0. Token t
sees t tokens, so its previous one has weight e^beta_1 / (e^beta_1 + t - 1). What it then carries overlaps with xq by

    o_t = (sum_{s <= t} g_s + (e^beta_1 - 1) g_{t-1}) / (e^beta_1 + t - 1),   g_s = <xq, c_s>,   o_1 = g_1.

Layer 2 attends from the target with logit alpha o_t + beta_2 [t is a label]: p = softmax.
Output: logit of label l = xi * (sum of p over label tokens that show l) + memory_l(xq).

The last term is the rival, without which K and epsilon would hardly matter: a linear readout, trained from zero, of
`memory_width` fixed random ReLU features of xq. It is the least that can store classes in weights; width 0 leaves it
out. beta_1 and alpha are trained; beta_2 and xi can be (`trained`). At alpha = 0 beta_1 has no gradient, and at beta_1
= 0 that of alpha is 1/t of its full size: each waits for the other, hence the plateau.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from induction_cli.config import SCALARS, TwoParameterConfig
from induction_cli.minimal.classify_data import Sequences

Weights = dict[str, Tensor]


def initial_weights(config: TwoParameterConfig, d_content: int, n_labels: int, generator: torch.Generator) -> Weights:
    """One replica: four numbers, and the memory's fixed features [D, width] and readout [width, L] = 0."""
    config.check()
    weights = {name: torch.tensor(float(getattr(config, name))) for name in SCALARS}
    width = config.memory_width
    weights["features"] = torch.randn(d_content, width, generator=generator)
    weights["readout"] = torch.zeros(width, n_labels)
    return weights


def learning_rates(config: TwoParameterConfig) -> dict[str, float]:
    """For `replicas.SGD`; what is not named stays as it is."""
    return dict.fromkeys(config.trained, config.learning_rate) | {"readout": config.memory_learning_rate}


def overlaps(batch: Sequences, label_vectors: Tensor) -> Tensor:
    """g [replica, sequence, T], the product of xq with every token's content; label_vectors [replica, L, D]."""
    target = batch.items[..., -1, :]
    items = (batch.items @ target[..., None]).squeeze(-1)
    labels = (target @ label_vectors.mT).gather(-1, batch.context_labels)
    return torch.cat((torch.stack((items[..., :-1], labels), -1).flatten(-2), items[..., -1:]), -1)


def attention(weights: Weights, g: Tensor) -> tuple[Tensor, Tensor]:
    """Layer 1's weight on the previous token [replica, T - 1] (places 2..T) and layer 2's pattern [replica, seq, T]."""
    place = torch.arange(1, g.shape[-1] + 1, device=g.device)
    seen = weights["beta_1"].exp()[:, None] + place - 1  # [replica, T]
    carried = (g.cumsum(-1) + weights["beta_1"].expm1()[:, None, None] * F.pad(g[..., :-1], (1, 0))) / seen[:, None]
    carried = torch.cat((g[..., :1], carried[..., 1:]), -1)
    is_label = (place % 2 == 0).float()
    second = weights["alpha"][:, None, None] * carried + weights["beta_2"][:, None, None] * is_label
    return weights["beta_1"].exp()[:, None] / seen[:, 1:], second.softmax(-1)


def two_parameter_logits(weights: Weights, batch: Sequences, label_vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [replica, sequence, L], and what `attention` gives, of stacked weights and batches."""
    first, second = attention(weights, overlaps(batch, label_vectors))
    shown = second[..., 1::2]
    picked_up = shown.new_zeros(*shown.shape[:2], label_vectors.shape[1]).scatter_add(-1, batch.context_labels, shown)
    width = max(1, weights["features"].shape[-1])
    stored = (batch.items[..., -1, :] @ weights["features"]).relu() @ weights["readout"] / math.sqrt(width)
    return weights["xi"][:, None, None] * picked_up + stored, first, second


def losses(weights: Weights, batch: Sequences, label_vectors: Tensor) -> Tensor:
    """Cross-entropy [replica] in nats."""
    logits, _, _ = two_parameter_logits(weights, batch, label_vectors)
    return F.cross_entropy(logits.flatten(0, 1), batch.target.flatten(), reduction="none").view(len(logits), -1).mean(1)


@torch.no_grad()
def measure(weights: Weights, sets: dict[str, Sequences], label_vectors: Tensor) -> dict[str, Tensor]:
    """[replica] each: <set>_accuracy and <set>_probability (of the right label); on `in_context` also the progress.

    Nothing here is noisy, so the largest logit is right long before it is large: read the probability for the plateau.
    """
    means = {}
    for name, batch in sets.items():
        logits, first, second = two_parameter_logits(weights, batch, label_vectors)
        guess, target = logits.argmax(-1, keepdim=True), batch.target[..., None]
        means[f"{name}_accuracy"] = (guess == target).float().mean((1, 2))
        means[f"{name}_probability"] = logits.softmax(-1).gather(-1, target).mean((1, 2))
        if name == "in_context":
            labels, to_labels = batch.context_labels, second[..., 1::2]
            means["item_label_attention"] = first[:, 0::2].mean(1)
            means["target_labels_attention"] = to_labels.sum(-1).mean(1)
            means["target_correct_attention"] = (to_labels * (labels == target)).sum(-1).mean(1)
            means["context_label_accuracy"] = (labels == guess).any(-1).float().mean(1)
    return means


@torch.no_grad()
def landscape(weights: Weights, batch: Sequences, label_vectors: Tensor, beta_1: Tensor, alpha: Tensor) -> Tensor:
    """Loss [beta_1, alpha] of one replica's weights on one batch [sequence, ...], all else as it is."""
    many = len(beta_1) * len(alpha)
    grid = {name: weight.expand(many, *weight.shape) for name, weight in weights.items()}
    grid |= {"beta_1": beta_1.repeat_interleave(len(alpha)), "alpha": alpha.repeat(len(beta_1))}
    points = []
    for i in range(many):  # one by one: a grid of batches would not fit in memory
        point = {name: weight[i : i + 1] for name, weight in grid.items()}
        points.append(losses(point, Sequences.stack([batch]), label_vectors[None]))
    return torch.cat(points).view(len(beta_1), len(alpha))

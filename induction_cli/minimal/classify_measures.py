"""What is measured on the classify network: three accuracies, and four measures of the induction head's progress."""

from __future__ import annotations

import torch
from torch import Tensor

from induction_cli.minimal.classify_data import Classes, ClassifyConfig, Sequences, tokens
from induction_cli.minimal.classify_network import Weights, network

PROGRESS = ("item_label_attention", "target_labels_attention", "target_correct_attention", "context_label_accuracy")


def item_label_attention(first: Tensor) -> Tensor:
    """ILA1: attention in layer 1 of each label token to its own item, the token before it, mean over labels.

    [sequence, T, T] -> [sequence]. 1 for a perfect previous-token head; uniform attention gives the mean of 1/2n.
    """
    return first.diagonal(-1, -2, -1)[..., 0::2].mean(-1)


def target_labels_attention(second: Tensor) -> Tensor:
    """TLA2: attention in layer 2 of the target, the last token, to all label tokens together. -> [sequence]"""
    return second[..., -1, 1::2].sum(-1)


def target_correct_attention(second: Tensor, context_labels: Tensor, target: Tensor) -> Tensor:
    """TILA2: attention in layer 2 of the target to the label tokens that show the label asked for. -> [sequence]

    0 where the context does not show it.
    """
    return (second[..., -1, 1::2] * (context_labels == target[..., None])).sum(-1)


def context_label_accuracy(logits: Tensor, context_labels: Tensor) -> Tensor:
    """CLA: is the label with the largest logit among those of the context? [sequence, L] -> [sequence], 0 or 1."""
    return (context_labels == logits.argmax(-1)[..., None]).any(-1).float()


@torch.no_grad()
def measure(
    weights: Weights, sets: dict[str, Sequences], config: ClassifyConfig, classes: Classes, chunk: int = 500
) -> dict[str, float]:
    """Means over the held-out sequences of one network: <set>_accuracy, <set>_probability (of the right label) and
    <set>_loss (nats) for each set, and PROGRESS, which is measured on new classes, the set `in_context`.
    """
    means: dict[str, float] = {}
    for name, sequences in sets.items():
        kept: dict[str, list[Tensor]] = {}
        for start in range(0, len(sequences.target), chunk):
            part = sequences[start : start + chunk]
            logits, (first, second) = network(weights, tokens(part, classes.label_vectors, config.n_positions))
            loss = torch.nn.functional.cross_entropy(logits, part.target, reduction="none")
            found = {f"{name}_accuracy": (logits.argmax(-1) == part.target).float(), f"{name}_loss": loss}
            found[f"{name}_probability"] = (-loss).exp()
            if name == "in_context":
                found["item_label_attention"] = item_label_attention(first)
                found["target_labels_attention"] = target_labels_attention(second)
                found["target_correct_attention"] = target_correct_attention(second, part.context_labels, part.target)
                found["context_label_accuracy"] = context_label_accuracy(logits, part.context_labels)
            for key, values in found.items():
                kept.setdefault(key, []).append(values)
        means |= {key: torch.cat(values).mean().item() for key, values in kept.items()}
    return means

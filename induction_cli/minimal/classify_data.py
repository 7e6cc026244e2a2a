"""Item-label sequences x1 l1 ... xN lN xq in which the label of xq is asked for (Reddy 2023, arXiv 2312.03002, sec. 2).

Class k = 1..K has a mean mu_k ~ N(0, I/D) and the label k mod L; each of the L labels has a vector ~ N(0, I/D). An item
of class k is (mu_k + epsilon eta) / sqrt(1 + epsilon^2), eta ~ N(0, I/D), drawn anew each time. Classes have rank-
frequency p_k ~ k^-alpha. A sequence is of one of three kinds:

bursty (probability p_bursty)        N/B distinct classes, each B times in random order; the target is one of them
independent (the rest)               N context classes and the target, each drawn from p
fresh (p_fresh, overrides both)      bursty, from `fresh_classes` means that no other batch has: only the context helps

[ours] The N/B classes are distinct (drawn without replacement, in proportion to p among those left), so a class occurs
exactly B times; the public code draws with replacement. The in-weights evaluation keeps the target's class out of the
context; the public code lets it occur by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from induction_cli.config import ClassifyConfig


@dataclass
class Classes:
    """What one run keeps: its classes and labels."""

    means: Tensor  # [K, D]
    labels: Tensor  # [K], k mod L
    label_vectors: Tensor  # [L, D]
    cumulative: Tensor  # [K], cumulated p_k, float64


@dataclass
class Sequences:
    """Sequences in parts; `tokens` puts them together. Leading axes may be [sequence] or [replica, sequence]."""

    items: Tensor  # [sequence, N + 1, D], the target's item last
    context_labels: Tensor  # [sequence, N]
    target: Tensor  # [sequence], the label asked for
    shift: Tensor  # [sequence], position of the first token
    context_classes: Tensor  # [sequence, N]; fresh ones are numbered from K, batch by batch
    target_class: Tensor  # [sequence]

    def __getitem__(self, index: slice | Tensor) -> Sequences:
        return Sequences(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @staticmethod
    def stack(parts: list[Sequences]) -> Sequences:
        """[replica, sequence, ...] out of one per replica."""
        names = [field.name for field in fields(Sequences)]
        return Sequences(**{name: torch.stack([getattr(part, name) for part in parts]) for name in names})


def random_stream(*key: int) -> torch.Generator:
    """A generator that is a function of the key alone."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def draw_classes(config: ClassifyConfig, seed: int) -> Classes:
    """The classes and labels of the run with this seed."""
    config.check()
    generator, width = random_stream(seed, 0), config.d_content
    means, label_vectors = (
        torch.randn(n, width, generator=generator) / math.sqrt(width) for n in (config.n_classes, config.n_labels)
    )
    p = torch.arange(1, config.n_classes + 1, dtype=torch.float64) ** -config.alpha
    return Classes(means, torch.arange(config.n_classes) % config.n_labels, label_vectors, (p / p.sum()).cumsum(0))


def draw(cumulative: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Independent indices with the cumulated probabilities [K]."""
    at = torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.searchsorted(cumulative, at, right=True).clamp(max=len(cumulative) - 1)


def draw_distinct(cumulative: Tensor, n: int, k: int, generator: torch.Generator) -> Tensor:
    """[n, k] indices, distinct in each row: one after another, in proportion to p among those not yet drawn."""
    if len(cumulative) <= max(64, 4 * k) or cumulative[k - 1] > 0.9:  # few, or few that matter: Gumbel's top k
        log_p = cumulative.diff(prepend=torch.zeros(1, dtype=torch.float64)).log()
        uniform = torch.rand(n, len(cumulative), generator=generator, dtype=torch.float64)
        return (log_p - (-uniform.log()).log()).topk(k).indices
    drawn = draw(cumulative, (n, k), generator)
    for i in range(1, k):  # many: draw again what was drawn before
        while (again := (drawn[:, i : i + 1] == drawn[:, :i]).any(1)).any():
            drawn[again, i] = draw(cumulative, (int(again.sum()),), generator)
    return drawn


def shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    """[n, k], each row in an order of its own."""
    return rows.gather(1, torch.rand(rows.shape, generator=generator).argsort(1))


def bursty_classes(config: ClassifyConfig, cumulative: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """[n, N]: N/B distinct classes, each B times, shuffled."""
    k, n_labels = config.n_pairs // config.burstiness, config.n_labels
    if config.distinct_labels:
        labels = draw_distinct(torch.arange(1, n_labels + 1, dtype=torch.float64) / n_labels, n, k, generator)
        chosen = labels + n_labels * torch.randint(len(cumulative) // n_labels, (n, k), generator=generator)
    else:
        chosen = draw_distinct(cumulative, n, k, generator)
    return shuffled(chosen.repeat(1, config.burstiness), generator)


def draw_sequences(
    config: ClassifyConfig,
    classes: Classes,
    n: int,
    generator: torch.Generator,
    *,
    swapped: bool = False,
    without_target: bool = False,
) -> Sequences:
    """n sequences. Fresh means are new for every `batch_size` of them.

    swapped: each label of the context, and the one asked for, is the next of the class's own, l + 1 mod L.
    without_target: in independent sequences no context item is of the target's class.
    """
    pairs, width, n_labels = config.n_pairs, config.d_content, config.n_labels
    context = draw(classes.cumulative, (n, pairs), generator)
    target = draw(classes.cumulative, (n,), generator)
    if without_target:
        while (again := context == target[:, None]).any():
            context[again] = draw(classes.cumulative, (int(again.sum()),), generator)
    bursty = torch.rand(n, generator=generator) < config.p_bursty
    if config.p_bursty > 0:
        chosen = bursty_classes(config, classes.cumulative, n, generator)
        context = torch.where(bursty[:, None], chosen, context)
        target = torch.where(bursty, chosen[:, 0], target)  # rows are shuffled: the first is a random one ...
        context = shuffled(context, generator)  # ... and is put anywhere
    means, labels = classes.means, classes.labels
    if config.p_fresh > 0:
        n_fresh, groups = config.fresh_classes, -(-n // config.batch_size)
        even = torch.arange(1, n_fresh + 1, dtype=torch.float64) / n_fresh
        chosen = bursty_classes(config, even, n, generator)
        chosen = chosen + config.n_classes + n_fresh * (torch.arange(n) // config.batch_size)[:, None]
        fresh = torch.rand(n, generator=generator) < config.p_fresh
        target = torch.where(fresh, chosen[:, 0], target)
        context = torch.where(fresh[:, None], shuffled(chosen, generator), context)
        new = torch.randn(groups * n_fresh, width, generator=generator) / math.sqrt(width)
        means, labels = torch.cat((means, new)), torch.cat((labels, torch.arange(groups * n_fresh) % n_labels))
    all_classes = torch.cat((context, target[:, None]), 1)
    items = torch.randn(n, pairs + 1, width, generator=generator).mul_(config.epsilon / math.sqrt(width))
    items = items.add_(means[all_classes]).div_(math.sqrt(1 + config.epsilon**2))
    shown = (labels[all_classes] + swapped) % n_labels
    shift = torch.randint(2 * (config.max_pairs - pairs) + 1, (n,), generator=generator)
    return Sequences(items, shown[:, :-1], shown[:, -1], shift, context, target)


EVALUATIONS: dict[
    str, tuple[dict[str, Any], dict[str, bool]]
] = {  # name: (settings that change, arguments of draw_sequences)
    "in_context": ({"p_bursty": 1.0, "p_fresh": 1.0}, {}),  # new classes
    "swapped_labels": ({"p_bursty": 1.0, "p_fresh": 0.0}, {"swapped": True}),  # known classes, other labels
    "in_weights": ({"p_bursty": 0.0, "p_fresh": 0.0}, {"without_target": True}),  # the context is no help
}


def evaluation_sets(config: ClassifyConfig, classes: Classes, n: int, seed: int) -> dict[str, Sequences]:
    """The three held-out sets of n sequences each; a function of its arguments."""
    return {
        name: draw_sequences(replace(config, **changes), classes, n, random_stream(seed, 1, i), **arguments)
        for i, (name, (changes, arguments)) in enumerate(EVALUATIONS.items())
    }


BLOCK = 16  # training steps drawn at once


class Batches:
    """Training batches as a function of (seed, step) alone."""

    def __init__(self, config: ClassifyConfig, classes: Classes, seed: int):
        self.config, self.classes, self.seed = config, classes, seed
        self.block = -1
        self.sequences: Sequences | None = None

    def __call__(self, step: int) -> Sequences:
        block, within = divmod(step, BLOCK)
        size = self.config.batch_size
        if self.sequences is None or self.block != block:
            generator = random_stream(self.seed, 2, block)
            self.block, self.sequences = block, draw_sequences(self.config, self.classes, BLOCK * size, generator)
        return self.sequences[within * size : (within + 1) * size]


def tokens(sequences: Sequences, label_vectors: Tensor, n_positions: int) -> Tensor:
    """[..., 2N + 1, P + D], each token [one-hot position | content]; label_vectors [L, D] or [replica, L, D]."""
    items, labels = sequences.items, sequences.context_labels
    n_pairs, width = labels.shape[-1], items.shape[-1]
    made = items.new_zeros(*items.shape[:-2], 2 * n_pairs + 1, n_positions + width)
    if label_vectors.ndim == 3:
        vectors = label_vectors.gather(1, labels.flatten(1)[..., None].expand(-1, -1, width)).view(*labels.shape, width)
    else:
        vectors = label_vectors[labels]
    made[..., 0::2, n_positions:] = items
    made[..., 1::2, n_positions:] = vectors
    position = sequences.shift[..., None] + torch.arange(2 * n_pairs + 1)
    return made.scatter_(-1, position[..., None], 1.0)

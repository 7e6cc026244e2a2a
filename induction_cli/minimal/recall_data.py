"""A bigram language with triggers whose followers are chosen anew in each sequence (Bietti et al. 2023, 2306.00802).

Per sequence: k triggers q_1..q_k, and for each a follower o_i ~ uniform. z_1 ~ pi_u, then z_{t+1} = o_i where
z_t = q_i, else ~ pi_b(. | z_t). pi_u and pi_b are the unigrams and bigrams of a real text. What follows a trigger can
be known from its second occurrence on (in context); everything else only from pi_b (global).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from induction_cli.config import require
from induction_cli.minimal.classify_data import draw, draw_distinct, random_stream

POSITIONS = ("absolute", "relative", "none")
EMBEDDINGS = ("random", "orthonormal")
LOSSES = ("in_context", "all")


@dataclass
class RecallConfig:
    """Bietti et al. in the comments where we differ: sizes are for two CPU cores."""

    n_triggers: int = 5  # k
    fixed_triggers: bool = True  # the k most frequent tokens in every sequence; else drawn from pi_u in each
    bigram_followers: bool = False  # followers drawn from pi_b instead of uniformly
    length: int = 64  # T; 256
    n_positions: int = 256  # vectors for positions, or distances
    positions: str = "absolute"  # absolute | relative | none
    embedding: str = "random"  # random | orthonormal
    n_layers: int = 2
    d_model: int = 128
    global_memory: bool = False  # a trained linear map W_F from token to next token: the place of pi_b
    loss: str = "in_context"  # in_context: from the second occurrence of triggers | all
    batch_size: int = 64  # 512
    learning_rate: float = 1.0  # theirs is for another scale of embeddings
    momentum: float = 0.9
    weight_decay: float = 1e-4
    n_replicas: int = 1
    seed: int = 0

    def check(self, d_vocab: int | None = None) -> None:
        """Raise ConfigError, one line that names the setting; d_vocab when the language is known."""
        for name in ("n_triggers", "length", "n_positions", "n_layers", "d_model", "batch_size", "n_replicas"):
            value = getattr(self, name)
            require(value >= 1 and value == int(value), f"{name} is {value}; it must be a whole number, at least 1")
        require(self.length >= 2, f"length is {self.length}; it must be at least 2")
        require(self.n_layers >= 2, f"n_layers is {self.n_layers}; it must be at least 2")
        for name, allowed in (("positions", POSITIONS), ("embedding", EMBEDDINGS), ("loss", LOSSES)):
            value = getattr(self, name)
            require(value in allowed, f"{name} is '{value}'; there are {', '.join(allowed)}")
        require(
            self.positions == "none" or self.length <= self.n_positions,
            f"length is {self.length}; n_positions={self.n_positions} is too few for it",
        )
        rate, decay = self.learning_rate, self.weight_decay
        require(math.isfinite(rate) and rate > 0, f"learning_rate is {rate}; it must be finite and above 0")
        require(math.isfinite(decay) and decay >= 0, f"weight_decay is {decay}; it must be finite and at least 0")
        require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must be at least 0 and below 1")
        if d_vocab is not None:
            have = f"the language has {d_vocab} tokens"
            require(self.n_triggers <= d_vocab, f"n_triggers is {self.n_triggers}; {have}")
            least = orthonormal_width(d_vocab, self.n_positions)
            require(
                self.embedding != "orthonormal" or self.d_model >= least,
                f"d_model is {self.d_model}; orthonormal embeddings of {d_vocab} tokens need at least {least}",
            )


def orthonormal_width(d_vocab: int, n_positions: int) -> int:
    """Directions that the construction keeps apart: tokens and positions, each as they are and as layer 1 moves them,
    and outputs."""
    return 2 * (d_vocab + n_positions) + d_vocab


@dataclass
class Language:
    """pi_u [V] and pi_b [V, V], pi_b[i, j] = probability that j follows i; rows sum to 1."""

    unigram: Tensor
    bigram: Tensor

    def __post_init__(self) -> None:
        d_vocab = len(self.unigram)
        require(self.bigram.shape == (d_vocab, d_vocab), f"pi_b is {tuple(self.bigram.shape)}; pi_u has {d_vocab}")
        for name, p in (("pi_u", self.unigram), ("pi_b", self.bigram)):
            require(bool(p.isfinite().all() and (p >= 0).all()), f"{name} has negative or infinite entries")
            require(bool(((p.sum(-1) - 1).abs() < 1e-4).all()), f"{name} does not sum to 1")

    @property
    def d_vocab(self) -> int:
        return len(self.unigram)


def estimate_language(text: np.ndarray | Tensor, d_vocab: int) -> Language:
    """Unigrams and bigrams of a token array [n]. A token that nothing follows is followed by pi_u."""
    tokens = torch.as_tensor(np.asarray(text).astype(np.int64))
    require(tokens.ndim == 1 and len(tokens) > 1, f"the text has shape {tuple(tokens.shape)}; at least 2 tokens needed")
    low, high = int(tokens.min()), int(tokens.max())
    require(low >= 0 and high < d_vocab, f"the text has tokens {low} to {high}; d_vocab is {d_vocab}")
    unigram = torch.bincount(tokens, minlength=d_vocab).double()
    pairs = torch.bincount(tokens[:-1] * d_vocab + tokens[1:], minlength=d_vocab**2).view(d_vocab, d_vocab).double()
    unigram = unigram / unigram.sum()
    seen = pairs.sum(1, keepdim=True)
    return Language(unigram, torch.where(seen > 0, pairs / seen.clamp(min=1), unigram))


@dataclass
class RecallSequences:
    """Inputs are tokens[:, :-1], targets tokens[:, 1:]; `occurrence` belongs to the inputs."""

    tokens: Tensor  # [sequence, T + 1]
    occurrence: Tensor  # [sequence, T]; how often this trigger has occurred, here included; 0: no trigger
    triggers: Tensor  # [sequence, k]
    followers: Tensor  # [sequence, k]

    @staticmethod
    def stack(parts: list[RecallSequences]) -> RecallSequences:
        """[replica, sequence, ...] out of one per replica."""
        names = [field.name for field in fields(RecallSequences)]
        return RecallSequences(**{name: torch.stack([getattr(part, name) for part in parts]) for name in names})


def draw_recall(
    config: RecallConfig,
    language: Language,
    n: int,
    generator: torch.Generator,
    length: int | None = None,
    first_place: int = 0,
) -> RecallSequences:
    """n sequences of `length` + 1 tokens (the configured length where none is given).

    Before `first_place` tokens are drawn from pi_u without triggers: what can be learned in context is all after it,
    which at first_place >= the length of training asks for positions that training never saw.
    """
    config.check(language.d_vocab)
    k, length, d_vocab = config.n_triggers, length or config.length, language.d_vocab
    rows = language.bigram.double().cumsum(-1)
    unigram = language.unigram.double()
    if config.fixed_triggers:
        triggers = unigram.argsort(descending=True, stable=True)[:k].expand(n, k).contiguous()
    else:
        known = int((unigram > 0).sum())
        require(k <= known, f"n_triggers is {k}; only {known} tokens occur in the language")
        triggers = draw_distinct(unigram.cumsum(0), n, k, generator)
    uniform = torch.rand(n, length + 1 + k, generator=generator, dtype=torch.float64)
    if config.bigram_followers:
        followers = (rows[triggers] <= uniform[:, -k:, None]).sum(-1).clamp(max=d_vocab - 1)
    else:
        followers = (uniform[:, -k:] * d_vocab).long()
    table = torch.full((n, d_vocab), -1).scatter_(1, triggers, followers)  # [sequence, token], -1 where no trigger
    now = draw(unigram.cumsum(0), (n,), generator)
    if first_place:
        quiet = (unigram + 1e-12).expand(n, -1).scatter(1, triggers, 0.0)
        made = list(torch.multinomial(quiet, first_place, replacement=True, generator=generator).T)
        now = made[-1]
    else:
        made = [now]
    for t in range(len(made) - 1, length):
        free = (rows[now] <= uniform[:, t, None]).sum(-1).clamp(max=d_vocab - 1)
        bound = table.gather(1, now[:, None])[:, 0]
        now = torch.where(bound >= 0, bound, free)
        made.append(now)
    tokens = torch.stack(made, 1)
    at = tokens[:, :-1, None] == triggers[:, None]  # [sequence, T, k]
    return RecallSequences(tokens, (at.cumsum(1) * at).sum(-1), triggers, followers)


class RecallBatches:
    """Training batches as a function of (seed, step) alone."""

    def __init__(self, config: RecallConfig, language: Language, seed: int):
        self.config, self.language, self.seed = config, language, seed

    def __call__(self, step: int) -> RecallSequences:
        return draw_recall(self.config, self.language, self.config.batch_size, random_stream(self.seed, 2, step))


def global_vs_context(
    language: Language,
    triggers: Tensor,
    n: int,
    length: int,
    context_count: int,
    global_count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts whose context and whose language disagree about what follows their last token, with controlled counts.

    Each prompt ends in a trigger q, drawn from `triggers` [k]. Before that, q occurs `context_count` times followed by
    o (drawn evenly from the other tokens) and `global_count` times followed by b, the likeliest follower of q in pi_b
    other than q; places are random. The rest is drawn from pi_u without q, o, b. [ours, after Wang & Sato]
    Returns tokens [n, length], o [n], b [n]. Raises ConfigError where the pairs do not fit.
    """
    pairs, d_vocab = context_count + global_count, language.d_vocab
    for name, count in (("context_count", context_count), ("global_count", global_count)):
        require(count >= 0, f"{name} is {count}; it must be at least 0")
    require(2 * pairs + 1 <= length, f"length is {length}; {pairs} pairs and the last token need {2 * pairs + 1}")
    require(d_vocab >= 4, f"the language has {d_vocab} tokens; q, o, b and a filler need 4")
    row = torch.arange(n)
    q = triggers[torch.randint(len(triggers), (n,), generator=generator)]
    allowed = language.bigram[q].double().clone()
    allowed[row, q] = -1
    b = allowed.argmax(-1)
    even = torch.ones(n, d_vocab, dtype=torch.float64)
    even[row, q], even[row, b] = 0, 0
    o = torch.multinomial(even, 1, generator=generator)[:, 0]
    rest = language.unigram.double().expand(n, -1) + 1e-12
    rest = rest.scatter(1, torch.stack((q, o, b), 1), 0.0)
    units = length - 1 - pairs  # a unit is a pair or a filler
    kind = torch.zeros(n, units, dtype=torch.long)
    kind[:, :context_count], kind[:, context_count:pairs] = 1, 2
    kind = kind.gather(1, torch.rand(n, units, generator=generator).argsort(1))
    width = 1 + (kind > 0).long()
    start = width.cumsum(1) - width
    filler = torch.multinomial(rest, units, replacement=True, generator=generator)
    tokens = torch.empty(n, length, dtype=torch.long)
    tokens.scatter_(1, start + width - 1, torch.where(kind == 1, o[:, None], b[:, None]))  # second of a pair ...
    tokens.scatter_(1, start, torch.where(kind > 0, q[:, None], filler))  # ... first of it, or a filler over it
    tokens[:, -1] = q
    return tokens, o, b

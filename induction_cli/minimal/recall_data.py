"""A bigram language with triggers whose followers are chosen anew in each sequence (Bietti et al. 2023, 2306.00802).

Per sequence: k triggers q_1..q_k, and for each a follower o_i ~ uniform. z_1 ~ pi_u, then z_{t+1} = o_i where
z_t = q_i, else ~ pi_b(. | z_t). pi_u and pi_b are the unigrams and bigrams of a real text. What follows a trigger can
be known from its second occurrence on (in context); everything else only from pi_b (global).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from induction_cli.config import RecallNetworkConfig, require
from induction_cli.minimal.classify_data import draw, draw_distinct, random_stream


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


def character_language(documents: Iterable[str], d_vocab: int, characters: int) -> tuple[Language, str]:
    """The language of the first `characters` of a text, and the characters that tokens 0 to d_vocab - 2 stand for.

    The last token stands for all rarer characters. Raises ConfigError where the text has fewer.
    """
    parts, missing = list[str](), characters
    for document in documents:
        parts.append(document[:missing])
        missing -= len(parts[-1])
        if not missing:
            break
    text = "".join(parts)
    common = Counter(text).most_common()
    require(len(common) >= d_vocab, f"d_vocab is {d_vocab}; the text has {len(common)} different characters")
    letters = "".join(letter for letter, _ in common[: d_vocab - 1])
    codes = {letter: code for code, letter in enumerate(letters)}
    tokens = np.fromiter((codes.get(letter, d_vocab - 1) for letter in text), np.int64, len(text))
    return estimate_language(tokens, d_vocab), letters


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
    config: RecallNetworkConfig,
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
    config.check()
    require(
        language.d_vocab == config.d_vocab, f"d_vocab is {config.d_vocab}; the language has {language.d_vocab} tokens"
    )
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

    def __init__(self, config: RecallNetworkConfig, language: Language, seed: int):
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

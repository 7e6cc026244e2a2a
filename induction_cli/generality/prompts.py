"""Prompts for argument 4, generated at random: which token should attend to which, and a control for each. Pure.

A prompt is tokens and pairs: (query, key, weight). A head's score on a prompt is the sum over pairs of weight times its
attention from query to key (`attention_to`); weights are 1 / number of queries, so a perfect head scores 1.

Literal copying (paper 1.4): a passage of real text twice; score of `measures.attention.prefix_matching`.
    Control: another passage before it, the same positions.
Translation: 'EN: <sentence>\\nFR: <translation>'. From the last token of each aligned word of the translation, where
    the word is known, to the token after the aligned source word: [A*] [B*] ... [A] -> [B*]. Words are aligned by the
    lexicon that comes with the sentences (parallel_text.py); of several source words the one at the most similar place
    in its sentence. Left out: articles and other words without one counterpart, and pairs of words that share a token,
    whose matching would be literal. Control: the same translation under the source sentence of another pair of about
    as many tokens; the token after that one's aligned word at the most similar place, so that words and places are of
    the same kinds.
Pattern matching: lines '(month|colour) (animal|fruit): 0..3', no word twice in a prompt, every line's category drawn
    on its own; another sign than ': ' where the tokenizer would give answers away (`answer_tokens`). From the token
    before a line's answer (the colon, or the space after it where that is a token of its own) to the answers of
    earlier lines of the same category. Earlier lines whose words share a token with this one's are left out, as
    matching them would be literal: few where words are tokens, most where they are spelled from a small vocabulary.
    Control: the attention to the answers of all the other earlier lines times the share of them that are of the same
    category: what a head gets that looks at answers without regard to category. (With equally many lines of each
    category that would be wrong: a head that looks at every answer once would be above it.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Pair = tuple[int, int, float]  # query, key, weight
WORD = re.compile(r"[^\W\d_]+")
MONTHS = "January February March April May June July August September October November December"
COLOURS = "red blue green yellow purple orange black white brown grey pink golden silver scarlet"
ANIMALS = "dog cat horse bird fish frog lion tiger bear wolf sheep cow mouse rabbit snake duck goat deer"
FRUITS = "apple pear grape cherry peach lemon mango plum banana melon fig lime strawberry apricot kiwi"
FIRST = {"month": MONTHS.split(), "colour": COLOURS.split()}
SECOND = {"animal": ANIMALS.split(), "fruit": FRUITS.split()}
CATEGORIES = [(a, b) for a in FIRST for b in SECOND]  # the answer is the place in this list: 0 .. 3
SEPARATORS = (": ", ":", " ->", " -> ")  # between words and answer: the paper's, then what other tokenizers may need
LONGEST = 16  # lines; for more, the twelve months would often run out


@dataclass(frozen=True)
class Prompt:
    """Tokens, where a head should look, and where it looks if it does something simpler on the same tokens."""

    tokens: list[int]
    targets: list[Pair]
    control: list[Pair] = ()  # type: ignore[assignment]


def attention_to(pattern: Tensor, pairs: Sequence[Sequence[Pair]]) -> Tensor:
    """Sum over a prompt's pairs of weight * attention from query to key: [batch, head, query, key] -> [batch, head]."""
    total = pattern.new_zeros(pattern.shape[:2])
    flat = [(prompt, *pair) for prompt, of_prompt in enumerate(pairs) for pair in of_prompt]
    if not flat:
        return total
    prompt, query, key, weight = (torch.tensor(column, device=pattern.device) for column in zip(*flat, strict=True))
    picked = pattern[prompt, :, query, key] * weight[:, None].to(pattern)
    return total.index_add_(0, prompt, picked)


def evenly(targets: dict[int, list[tuple[int, float]]]) -> list[Pair]:
    """Pairs from {query: [(key, share)]}: every query counts alike."""
    return [(query, key, share / len(targets)) for query, keys in targets.items() for key, share in keys]


# ------------------------------------------------------------------------------------------------ pattern matching


@dataclass(frozen=True)
class Line:
    words: tuple[str, str]
    category: int  # 0 .. 3

    def text(self, separator: str = SEPARATORS[0]) -> str:
        return f"{' '.join(self.words)}{separator}{self.category}"


def pattern_lines(n_lines: int, random: np.random.Generator) -> list[Line]:
    """Lines of the paper's task, each of a random category, no word twice. Raises ValueError for too many lines.

    Drawn again where the words of a kind run out: 1 time in 100 for 16 lines.
    """
    if not 2 <= n_lines <= LONGEST:
        raise ValueError(f"n_lines is {n_lines}; there are words for 2 to {LONGEST} lines")
    while True:
        left = {kind: [str(word) for word in random.permutation(words)] for kind, words in (FIRST | SECOND).items()}
        categories = random.integers(0, len(CATEGORIES), n_lines).tolist()
        wanted = [kind for category in categories for kind in CATEGORIES[category]]
        if all(wanted.count(kind) <= len(words) for kind, words in left.items()):
            return [Line((left[a].pop(), left[b].pop()), c) for c in categories for a, b in [CATEGORIES[c]]]


@dataclass(frozen=True)
class PatternPrompt:
    """A prompt and what the model should answer; answers [(query, token of the answer, category)], one a line.

    literal: share of the pairs of lines of one category whose words share a token.
    """

    prompt: Prompt
    answers: list[tuple[int, int, int]]
    literal: float


def pattern_prompt(
    lines: Sequence[Line], encode: Callable[[str], Any], start_token: int, separator: str = SEPARATORS[0]
) -> PatternPrompt:
    """Tokens and targets of a pattern task; a line with no earlier one like it has none.

    encode: `sources.Text.encode`.
    """
    texts = [line.text(separator) + "\n" for line in lines]
    encoded = encode("".join(texts))
    ends = np.cumsum([len(text) for text in texts]).tolist()
    places = [1 + encoded.token_of(end - 2) for end in ends]  # of the answers
    written = [
        encoded.tokens_of(end - len(text), end - 2 - len(separator)) for end, text in zip(ends, texts, strict=True)
    ]
    targets, control, shared = {}, {}, []
    for i, place in enumerate(places):
        like = [j for j in range(i) if lines[j].category == lines[i].category]
        fresh = [j for j in range(i) if not written[j] & written[i]]
        same = [places[j] for j in like if j in fresh]
        shared += [j not in fresh for j in like]
        if same:
            targets[place - 1] = [(key, 1.0) for key in same]
            control[place - 1] = [(places[j], len(same) / len(fresh)) for j in fresh]
    tokens = [start_token, *encoded.ids]
    answers = [(place - 1, tokens[place], line.category) for place, line in zip(places, lines, strict=True)]
    literal = sum(shared) / len(shared) if shared else 0.0
    return PatternPrompt(Prompt(tokens, evenly(targets), evenly(control)), answers, literal)


def answer_tokens(prompts: Sequence[PatternPrompt]) -> list[int] | None:
    """The token of each answer 0 .. 3, or None where a tokenizer makes the task unfair.

    That is where an answer is not one token of its own, always the same; and where the token before it is not the same
    for every answer, as with ':', ' 0' but ':', ' ', '3': it would give the answer away.
    """
    found = {(category, token) for each in prompts for _, token, category in each.answers}
    before = {each.prompt.tokens[query] for each in prompts for query, *_ in each.answers}
    tokens = [token for _, token in sorted(found)]
    return tokens if len(found) == len(CATEGORIES) == len(set(tokens)) and len(before) == 1 else None


# ------------------------------------------------------------------------------------------------ translation


def words(text: str) -> list[tuple[str, int, int]]:
    """(word in lower case, start, end) of every run of letters: "l'eau" is two words."""
    return [(match[0].lower(), *match.span()) for match in WORD.finditer(text)]


def align(translation: Sequence[str], source: Sequence[str], lexicon: dict[str, str]) -> list[tuple[int, int]]:
    """(place in the translation, place in the source) of the words the lexicon knows.

    Of several source words that fit, the one whose relative place in its sentence is nearest.
    """
    found = []
    for i, word in enumerate(translation):
        meanings = lexicon.get(word, "").split()
        places = [j for j, other in enumerate(source) if other in meanings]
        if places:
            found.append((i, min(places, key=lambda j: abs(j / len(source) - i / len(translation)))))
    return found


@dataclass(frozen=True)
class Translation:
    """A sentence and its translation as tokens, each counted from 0: 'EN: ...' with its line end, then 'FR: ...'.

    links: (last token of a word of the translation, last token of the source word it is aligned with).
    """

    source: list[int]
    translation: list[int]
    links: list[tuple[int, int]]


def translation(
    source: str, target: str, language: str, lexicon: dict[str, str], encode: Callable[[str], Any]
) -> Translation:
    """One sentence pair as tokens, with its links (module docstring). encode: `sources.Text.encode`."""
    above, below = f"EN: {source}\n", f"{language.upper()}: {target}"
    a, b = encode(above), encode(below)
    source_words, target_words = words(above)[1:], words(below)[1:]  # without 'EN', 'FR'
    pairs = align([word for word, *_ in target_words], [word for word, *_ in source_words], lexicon)
    links = []
    for (_, *below_at), (_, *above_at) in ((target_words[i], source_words[j]) for i, j in pairs):
        if not b.tokens_of(*below_at) & a.tokens_of(*above_at):
            links.append((b.token_of(below_at[1] - 1), a.token_of(above_at[1] - 1)))
    return Translation(a.ids, b.ids, links)


def translation_prompt(pair: Translation, start_token: int) -> Prompt:
    """From the last token of each aligned word to the token after the source word."""
    below = 1 + len(pair.source)
    targets = {below + query: [(1 + key + 1, 1.0)] for query, key in pair.links}
    return Prompt([start_token, *pair.source, *pair.translation], evenly(targets))


def stranger_prompt(pair: Translation, other: Translation, start_token: int) -> Prompt:
    """The control: the translation under another pair's source; keys follow that one's aligned words.

    Of those the one whose relative place in its line is nearest to that of the word it stands in for.
    """
    places = [key for _, key in other.links]
    links = [
        (query, min(places, key=lambda place: abs(place / len(other.source) - key / len(pair.source))))
        for query, key in pair.links
    ]
    return translation_prompt(Translation(other.source, pair.translation, links), start_token)


def strangers(pairs: Sequence[Translation], sentence: Sequence[int], random: np.random.Generator) -> list[int]:
    """For each pair the place of another, of another sentence, whose source has most nearly as many tokens."""
    chosen = []
    for i, pair in enumerate(pairs):
        others = [j for j in range(len(pairs)) if sentence[j] != sentence[i]]
        distance = {j: (abs(len(pairs[j].source) - len(pair.source)), random.random()) for j in others}
        chosen.append(min(others, key=distance.__getitem__))
    return chosen

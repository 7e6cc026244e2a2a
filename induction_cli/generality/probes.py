"""A source's prompts for each behaviour of argument 4, and every head's score on them and on their controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from induction_cli.config import GeneralizeConfig
from induction_cli.evaluation.scores import LENGTH, REPEATS, layer_eigenvalues, random_tokens
from induction_cli.evaluation.sources import Source
from induction_cli.generality.parallel_text import help_pairs, sentence_pairs
from induction_cli.generality.prompts import (
    CATEGORIES,
    FIRST,
    SECOND,
    SEPARATORS,
    Line,
    PatternPrompt,
    Prompt,
    Translation,
    answer_tokens,
    attention_to,
    evenly,
    pattern_lines,
    pattern_prompt,
    stranger_prompt,
    strangers,
    translation,
    translation_prompt,
)
from induction_cli.measures.circuits import copying_eigenvalue_statistic
from induction_cli.measures.components import copying
from induction_cli.measures.intervals import group_means
from induction_cli.models.protocol import Model

LANGUAGES = ("fr", "de")

# behaviour: (what is measured, control)
DEFINITIONS = {
    "prefix_matching": (
        f"attention to the token after each earlier copy, on {LENGTH} random tokens {REPEATS} times",
        f"the same places, {REPEATS} times {LENGTH} different random tokens",
    ),
    "copying": (
        "ReLU of centred direct-path logits at the attended token, 4 own / (own + all) - 1, on random tokens",
        "the same, asked about the tokens of another sequence",
    ),
    "copying_eigenvalues": ("sum over sum of moduli of the eigenvalues of W_E W_V W_O W_U", "none"),
    "literal_copying": (
        "attention to the token after the earlier copy, on a passage of real text twice",
        "the same places, the second passage after a different one",
    ),
    "translation": (
        "attention from the last token of each aligned word to the token after the aligned source word; EN to FR or DE",
        "the same, the translation after another sentence of like length, to its aligned words at like places",
    ),
    "pattern_matching": (
        "attention from the token before a line's answer to the answers of earlier lines of the same category",
        "attention to all earlier answers times the share of earlier lines of the same category",
    ),
}

# ------------------------------------------------------------------------------------------------ prompts


@dataclass
class Probe:
    """The prompts of one behaviour. controls: [] where prompts carry theirs. units: which prompts belong together.

    note: why the behaviour does not apply to the source, '' where it does.
    """

    prompts: list[Prompt]
    controls: list[Prompt]
    units: list[int]
    note: str = ""


def repeat_pairs(length: int, repeats: int) -> list[tuple[int, int, float]]:
    """Targets of `measures.attention.prefix_matching` on a start token and `repeats` copies of `length` tokens."""
    targets = {
        query: [(query - q * length + 1, 1.0) for q in range(1, repeats) if query - q * length >= 1]
        for query in range(1 + length, 1 + repeats * length)
    }
    return evenly(targets)


def prefix_probe(source: Source, model: Model, config: GeneralizeConfig) -> Probe:
    repeats = min(REPEATS, (model.n_ctx - 1) // LENGTH)
    if repeats < 2:
        return Probe([], [], [], f"needs {1 + 2 * LENGTH} tokens, the context holds {model.n_ctx}")
    n, pairs = config.n_sequences, repeat_pairs(LENGTH, repeats)
    same = source.repeats(n, config.seed, repeats=repeats).tolist()
    parts = random_tokens(source.counts, n * repeats, seed=config.seed + 1).view(n, -1).tolist()
    return Probe(
        [Prompt(tokens, pairs) for tokens in same],
        [Prompt([source.start_token, *tokens], pairs) for tokens in parts],
        list(range(n)),
    )


def literal_probe(source: Source, model: Model, config: GeneralizeConfig) -> Probe:
    length = config.passage_length
    if 1 + 2 * length > model.n_ctx:
        return Probe([], [], [], f"needs {1 + 2 * length} tokens, the context holds {model.n_ctx}")
    text = source.windows(config.n_passages, length, config.seed).tolist()
    pairs, start = repeat_pairs(length, 2), source.start_token
    return Probe(
        [Prompt([start, *passage, *passage], pairs) for passage in text],
        [Prompt([start, *other, *passage], pairs) for passage, other in zip(text, text[1:] + text[:1], strict=True)],
        list(range(len(text))),
    )


def translation_probe(source: Source, model: Model, config: GeneralizeConfig) -> Probe:
    if source.text is None:
        return Probe([], [], [], "the source has no tokenizer")
    data = help_pairs(Path(config.pairs_folder).expanduser()) if config.pairs_folder else sentence_pairs()
    random = np.random.default_rng(config.seed)
    pairs: list[Translation] = []
    units: list[int] = []
    for unit, sentence in enumerate(data["sentences"][: config.n_pairs or None]):
        every = [
            translation(sentence["en"], sentence[language], language, data["lexicon"][language], source.text.encode)
            for language in LANGUAGES
        ]
        if all(pair.links for pair in every):
            pairs, units = pairs + every, units + [unit] * len(every)
    if len(set(units)) < 2:
        return Probe([], [], [], "the tokenizer writes a word and its translation with tokens in common")
    others = strangers(pairs, units, random)
    probe = Probe(
        [translation_prompt(pair, source.start_token) for pair in pairs],
        [stranger_prompt(pair, pairs[j], source.start_token) for pair, j in zip(pairs, others, strict=True)],
        units,
    )
    return readable(probe, source, model)


def pattern_prompts(source: Source, config: GeneralizeConfig) -> tuple[list[PatternPrompt], list[int]]:
    """(the prompts of the pattern task, the tokens of its answers), with the first separator that suits the tokenizer.

    Both [] where none does. One line of each category is looked at besides: few prompts may lack one.
    """
    if source.text is None:
        return [], []
    random = np.random.default_rng(config.seed)
    lines = [pattern_lines(config.n_lines, random) for _ in range(config.n_prompts)]
    each = [Line((FIRST[a][0], SECOND[b][0]), category) for category, (a, b) in enumerate(CATEGORIES)]
    for separator in SEPARATORS:
        made = [pattern_prompt(one, source.text.encode, source.start_token, separator) for one in [*lines, each]]
        if choices := answer_tokens(made):
            return made[:-1], choices
    return [], []


def pattern_probe(prompts: list[PatternPrompt], source: Source, model: Model) -> Probe:
    if source.text is None:
        return Probe([], [], [], "the source has no tokenizer")
    if not prompts:
        return Probe([], [], [], "the tokenizer does not write 0, 1, 2 and 3 alike, each as one token")
    kept = [each.prompt for each in prompts if each.prompt.targets]
    if len(kept) < 2:
        return Probe([], [], [], "the tokenizer writes all lines of a category with tokens in common")
    return readable(Probe(kept, [], list(range(len(kept)))), source, model)


def readable(probe: Probe, source: Source, model: Model) -> Probe:
    """The probe, or why its text means nothing to the source."""
    longest = max(len(prompt.tokens) for prompt in probe.prompts + probe.controls)
    if longest > model.n_ctx:
        return Probe([], [], [], f"needs {longest} tokens, the context holds {model.n_ctx}")
    if any(source.start_token in prompt.tokens[1:] for prompt in probe.prompts):
        return Probe([], [], [], "the tokenizer cannot spell the text")
    return probe


# ------------------------------------------------------------------------------------------------ scores


def batches(lengths: Sequence[int], batch_size: int) -> Iterable[list[int]]:
    """Places of prompts of similar length, a batch at a time."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padded(prompts: Sequence[list[int]]) -> Tensor:
    """[prompt, pos], the last token repeated at the end: nothing before it can see that."""
    longest = max(map(len, prompts))
    return torch.tensor([tokens + tokens[-1:] * (longest - len(tokens)) for tokens in prompts])


@torch.no_grad()
def prompt_scores(model: Model, prompts: list[Prompt], config: GeneralizeConfig, said: str) -> tuple[Tensor, Tensor]:
    """Every head's score on targets and on the prompts' own controls, each [prompt, layer, head]."""
    scores = torch.empty(2, len(prompts), model.n_layers, model.n_heads)
    for places in shown(batches([len(prompt.tokens) for prompt in prompts], config.batch_size), said):
        part = [prompts[i] for i in places]
        pairs = [prompt.targets for prompt in part], [prompt.control for prompt in part]

        def reduce(pattern: Tensor, pairs=pairs) -> Tensor:
            return torch.stack([attention_to(pattern, each) for each in pairs])

        _, kept = model(padded([prompt.tokens for prompt in part]), record={"pattern": reduce})
        scores[:, places] = torch.stack(kept.pattern, 2).float().cpu()
    return scores[0], scores[1]


@dataclass
class Behaviour:
    """Every head's score and control, each [unit, layer, head]; none, and a note, where a behaviour does not apply."""

    value: Tensor | None = None
    control: Tensor | None = None
    note: str = ""


def behaviour(model: Model, probe: Probe, config: GeneralizeConfig, said: str) -> Behaviour:
    if probe.note:
        return Behaviour(note=f"not applicable: {probe.note}")
    value, control = prompt_scores(model, probe.prompts, config, said)
    if probe.controls:
        control, _ = prompt_scores(model, probe.controls, config, f"{said}, control")
    return Behaviour(unit_means(value, probe.units), unit_means(control, probe.units))


def unit_means(scores: Tensor, units: Sequence[int]) -> Tensor:
    """Means over the prompts of each unit, [prompt, ...] -> [unit, ...]; all units have equally many prompts."""
    order = torch.tensor(units).argsort(stable=True)
    return group_means(scores[order], units.count(units[0]))


@torch.no_grad()
def copying_behaviour(source: Source, model: Model, config: GeneralizeConfig) -> Behaviour:
    """`measures.components.copying` of every head; the control asks about the tokens of the sequence before.

    Of W_U only the sample's columns are read. Their logits less the mean over the vocabulary are W_U's columns less
    their mean column; one more column, minus their sum, keeps the mean at 0.
    """
    tokens = random_tokens(source.counts, config.n_sequences, seed=config.seed)
    if model.no_weights:
        return Behaviour(note=f"not applicable: {model.no_weights}")
    W_U, W_O = model.unembedding(), [model.head_weights(layer).W_O for layer in range(model.n_layers)]
    centre = W_U.mean(1, keepdim=True)
    asked = torch.stack((tokens, tokens.roll(1, 0)), 1)  # [sequence, own | another's, sample]
    columns = [[W_U[:, sample.to(model.device)] - centre for sample in pair] for pair in asked]
    columns = [[torch.cat((own, -own.sum(1, keepdim=True)), 1) for own in pair] for pair in columns]
    at = torch.arange(tokens.shape[1], device=model.device)[None]
    scores = torch.empty(2, *tokens.shape[:1], model.n_layers, model.n_heads)
    for i in range(len(tokens)):
        _, kept = model(tokens[i : i + 1], record=("pattern", "z"))
        for layer, (pattern, z) in enumerate(zip(kept.pattern, kept.z, strict=True)):
            for which, own in enumerate(columns[i]):
                scores[which, i, layer] = copying(pattern, z, W_O[layer], own, at)[0].cpu()
    return Behaviour(scores[0], scores[1])


@torch.no_grad()
def eigenvalue_behaviour(model: Model) -> Behaviour:
    """The copying statistic of every head's OV circuit: from weights, so one 'unit' and no control."""
    if model.no_weights:
        return Behaviour(note=f"not applicable: {model.no_weights}")
    return Behaviour(copying_eigenvalue_statistic(layer_eigenvalues(model))[None])


def shown(things: Iterable, said: str) -> Iterable:
    return track(list(things), said, transient=True, disable=not Console().is_terminal)

"""Line 4: do induction heads also copy text, translate and match abstract patterns, and does the model need them?

Every head of the last snapshot, each behaviour as a score over many generated prompts (prompts.py) with a control.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from induction_cli.config import ConfigError, GeneralizeConfig
from induction_cli.device import choose_device, choose_threads
from induction_cli.evaluation import LENGTH, REPEATS, random_tokens
from induction_cli.measures.circuits import copying_eigenvalue_statistic, ov_eigenvalues
from induction_cli.measures.components import copying
from induction_cli.measures.intervals import correlation, group_means, mean_interval, resamples
from induction_cli.model import Patch
from induction_cli.plots import style
from induction_cli.prompts import (
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
    sentence_pairs,
    stranger_prompt,
    strangers,
    translation,
    translation_prompt,
)
from induction_cli.run_dir import RunDir, relative
from induction_cli.sources import Model, Source, open_sources
from induction_cli.viewer import Example, attention_page

log = logging.getLogger(__name__)

INDUCTION = 0.3  # prefix matching from which a head that copies is called an induction head (claims.md)
LITERAL = 0.2  # share of lines with tokens in common above which the pattern task is said to be no test of abstraction
FLIPS = 2000  # random exchanges of prompts and controls behind `control_99`
LANGUAGES = ("fr", "de")
Heads = list[tuple[int, int]]


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
FUZZY = ("literal_copying", "translation", "pattern_matching")


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
    data, random = sentence_pairs(), np.random.default_rng(config.seed)
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
    try:
        centre = model.W_U.mean(1, keepdim=True)
        W_O = [model.W_O(layer) for layer in range(model.n_layers)]
    except ConfigError as error:
        return Behaviour(note=f"not applicable: {error}")
    asked = torch.stack((tokens, tokens.roll(1, 0)), 1)  # [sequence, own | another's, sample]
    columns = [[model.W_U[:, sample.to(model.device)] - centre for sample in pair] for pair in asked]
    columns = [[torch.cat((own, -own.sum(1, keepdim=True)), 1) for own in pair] for pair in columns]
    at = torch.arange(tokens.shape[1], device=model.device)[None]
    scores = torch.empty(2, *tokens.shape[:1], model.n_layers, model.n_heads)
    for i in range(len(tokens)):
        _, kept = model(tokens[i : i + 1], record=("pattern", "z"))
        for layer, (pattern, z) in enumerate(zip(kept.pattern, kept.z, strict=True)):
            for which, W_U in enumerate(columns[i]):
                scores[which, i, layer] = copying(pattern, z, W_O[layer], W_U, at)[0].cpu()
    return Behaviour(scores[0], scores[1])


@torch.no_grad()
def eigenvalue_behaviour(model: Model) -> Behaviour:
    """The copying statistic of every head's OV circuit: from weights, so one 'unit' and no control."""
    try:
        through, one = model.W_U @ model.W_E, torch.eye(model.d_model, device=model.device)  # once for all layers
        layers = [ov_eigenvalues(through, model.W_V(i), model.W_O(i), one) for i in range(model.n_layers)]
    except ConfigError as error:
        return Behaviour(note=f"not applicable: {error}")
    return Behaviour(torch.stack([copying_eigenvalue_statistic(each) for each in layers])[None].cpu())


def corrected_99(excess: Tensor, seed: int = 0) -> Tensor:
    """The mean excess over control that puts a head above the 99th percentile, corrected for all heads: [layer, head].

    excess [unit, layer, head]. Where prompt and control are the same to a head, exchanging them at random changes
    nothing. FLIPS exchanges, the same for all heads; of each the largest mean over its standard error among all heads;
    of those the 99th percentile. So any head at all is above it by chance once in a hundred such studies (Westfall and
    Young 1993).
    """
    n = len(excess)
    if n < 2:
        return torch.full(excess.shape[1:], torch.nan)
    flat = excess.flatten(1).double()
    signs = torch.randint(0, 2, (FLIPS, n), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    means = signs @ flat / n
    errors = ((flat.square().mean(0) - means.square()).clamp(min=0) / (n - 1)).sqrt()
    largest = torch.where(errors > 1e-12, means / errors.clamp(min=1e-12), 0).amax(1)
    return (torch.quantile(largest, 0.99) * flat.std(0) / math.sqrt(n)).float().view(excess.shape[1:])


# ------------------------------------------------------------------------------------------------ tables


def behaviour_rows(behaviours: dict[str, Behaviour], model: Model) -> pd.DataFrame:
    """Rows of head_behaviours.csv: value with its 95% interval over units, control, and the bar `control_99`."""
    nan = torch.full((model.n_layers, model.n_heads), torch.nan)
    index = pd.MultiIndex.from_product([range(model.n_layers), range(model.n_heads)], names=["layer", "head"])
    parts = []
    for name, found in behaviours.items():
        value, low, high, control, bar = nan, nan, nan, nan, nan
        if found.value is not None:
            value, (low, high) = found.value.mean(0), mean_interval(found.value)
        if found.value is not None and found.control is not None:
            control = found.control.mean(0)
            bar = control + corrected_99(found.value - found.control)
        columns = {"value": value, "low": low, "high": high, "control": control, "control_99": bar}
        part = pd.DataFrame({column: each.flatten().numpy() for column, each in columns.items()}, index).reset_index()
        part.insert(2, "behaviour", name)
        n = 0 if found.value is None else len(found.value)
        parts.append(part.assign(excess=part.value - part.control, above=part.value > part.control_99, units=n))
        parts[-1]["note"] = found.note
    return pd.concat(parts, ignore_index=True)


def wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row a head, one column a behaviour."""
    return table.pivot(index=["layer", "head"], columns="behaviour", values=column)


def induction_heads(table: pd.DataFrame) -> Heads:
    """Heads with prefix matching >= INDUCTION and positive copying eigenvalues (if weights are known), best first."""
    value = wide(table, "value")
    copies = value.copying_eigenvalues.isna() | (value.copying_eigenvalues > 0)
    chosen = value[(value.prefix_matching >= INDUCTION) & copies].sort_values("prefix_matching", ascending=False)
    return [(int(layer), int(head)) for layer, head in chosen.index]


def correlation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of correlations.csv: over heads, prefix matching and copying against each fuzzier behaviour; 95% intervals.

    column: 'value' or 'excess' over the control, of both. overlap: heads among the ten best of both.
    """
    rows = []
    for column in ("value", "excess"):
        heads = wide(table, column)
        for x in ("prefix_matching", "copying"):
            for y in FUZZY:
                both = heads[[x, y]].dropna()
                a, b = (torch.tensor(both[name].to_numpy()) for name in (x, y))
                best = [set(both[name].nlargest(10).index) for name in (x, y)]
                overlap = len(best[0] & best[1]) if len(both) > 20 else math.nan
                for kind in ("spearman", "pearson"):
                    found = correlation(a, b, ranks=kind == "spearman")
                    rows.append([x, y, column, kind, len(both), *found, overlap])
    return pd.DataFrame(
        rows, columns=["x", "y", "column", "kind", "heads", "correlation", "low", "high", "overlap_of_10"]
    )


def definition_rows(config: GeneralizeConfig, behaviours: dict[str, Behaviour]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"behaviour": name, "definition": DEFINITIONS[name][0], "control": DEFINITIONS[name][1]}
            | {"units": 0 if found.value is None else len(found.value), "seed": config.seed, "note": found.note}
            for name, found in behaviours.items()
        ]
    )


# ------------------------------------------------------------------------------------------------ removing heads


def removal(model: Model, heads: Heads) -> Patch | None:
    """The patch that sets the results of these heads to zero; everything after them is computed anew."""
    if not heads:
        return None
    scale = torch.ones(model.n_layers, model.n_heads)
    scale[tuple(torch.tensor(heads).T)] = 0
    return Patch(head_scale=scale)


def pattern_answers(
    model: Model, prompts: list[PatternPrompt], choices: list[int], batch_size: int, patch: Patch | None = None
) -> dict[str, Tensor]:
    """How well the model does the pattern task, each [prompt]: means over the second half of a prompt's lines.

    pattern_accuracy: the answer 0 .. 3 with the largest logit is right; chance 1/4. pattern_log_probability: of the
    right answer among the four, nats; chance -1.39. pattern_accuracy_all: right among all tokens.
    """
    scores = torch.empty(3, len(prompts))
    for places in batches([len(each.prompt.tokens) for each in prompts], batch_size):
        logits = model(padded([prompts[i].prompt.tokens for i in places]), patch=patch).float().cpu()
        for row, i in enumerate(places):
            asked = prompts[i].answers[len(prompts[i].answers) // 2 :]
            query, token, category = (torch.tensor(column) for column in zip(*asked, strict=True))
            every = logits[row, query]
            among = every[:, choices]
            right = (among.argmax(-1) == category).float()
            sure = among.log_softmax(-1).gather(1, category[:, None])[:, 0]
            scores[:, i] = torch.stack([right, sure, (every.argmax(-1) == token).float()]).mean(1)
    return dict(zip(("pattern_accuracy", "pattern_log_probability", "pattern_accuracy_all"), scores, strict=True))


def repeat_gain(model: Model, doubled: Tensor, batch_size: int, patch: Patch | None = None) -> dict[str, Tensor]:
    """Gain of repeated context, [passage]: loss on a passage's first copy less that on its second, nats a token.

    doubled [passage, 1 + 2 * length]; the first token of each copy is left out.
    """
    length, gains = (doubled.shape[1] - 1) // 2, []
    for part in doubled.split(batch_size):
        logits = model(part, patch=patch).float()
        losses = F.cross_entropy(logits[:, :-1].mT, part[:, 1:].to(logits.device), reduction="none")
        gains.append((losses[:, 1:length].mean(1) - losses[:, 1 + length :].mean(1)).cpu())
    return {"repeat_gain": torch.cat(gains)}


def random_sets(removed: Heads, others: Heads, n_draws: int, same_layers: bool, seed: int) -> list[Heads]:
    """Different sets of as many other heads; with same_layers as many from each layer, as far as it has any left."""
    random = np.random.default_rng(seed)
    found: list[Heads] = []
    for _ in range(20 * n_draws):
        chosen: Heads = []
        if same_layers:
            for layer in sorted({layer for layer, _ in removed}):
                here = [head for head in others if head[0] == layer]
                wanted = sum(head[0] == layer for head in removed)
                chosen += [here[i] for i in random.permutation(len(here))[:wanted]]
        left = [head for head in others if head not in chosen]
        chosen += [left[i] for i in random.permutation(len(left))[: len(removed) - len(chosen)]]
        if len(found) < n_draws and sorted(chosen) not in found:
            found.append(sorted(chosen))
    return found


def removal_rows(
    model: Model,
    prompts: list[PatternPrompt],
    choices: list[int],
    doubled: Tensor | None,
    heads: pd.DataFrame,
    config: GeneralizeConfig,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(few_shot.csv, few_shot_effect.csv): the tasks with heads removed, and induction against random heads.

    few_shot: one row a task and a set of heads, mean and 95% interval over prompts. few_shot_effect: what the task
    loses with the induction heads removed less what it loses with random ones; interval over prompts and draws
    together; `beyond`: share of the draws that lose less than the induction heads. Random heads are drawn from those
    with prefix matching below INDUCTION: one that matches prefixes is not drawn, whether its circuit copies or not.
    """
    removed = induction_heads(heads)[: config.top_k]
    below = wide(heads, "value").prefix_matching < INDUCTION
    others = [(int(layer), int(head)) for layer, head in below[below].index if (layer, head) not in removed]
    sets: list[tuple[str, int, Heads]] = [("none", 0, [])]
    if removed and len(others) >= len(removed) and config.n_draws:
        sets.append(("induction", 0, removed))
        for kind, same in (("random", False), ("random_same_layers", True)):
            drawn = random_sets(removed, others, config.n_draws, same, config.seed)
            sets += [(kind, draw, taken) for draw, taken in enumerate(drawn)]
    results: dict[tuple[str, str], list[Tensor]] = {}
    rows = []
    for kind, draw, taken in shown(sets, "removing heads"):
        patch = removal(model, taken)
        scores: dict[str, Tensor] = {}
        if prompts:
            scores |= pattern_answers(model, prompts, choices, config.batch_size, patch)
        if doubled is not None:
            scores |= repeat_gain(model, doubled, config.batch_size, patch)
        for task, values in scores.items():
            results.setdefault((task, kind), []).append(values)
            low, high = mean_interval(values)
            row = {"task": task, "removed": kind, "draw": draw, "n_heads": len(taken), "value": values.mean().item()}
            rows.append(row | {"low": low.item(), "high": high.item(), "heads": " ".join(map(label, taken))})
    effects = [
        {"task": task, "against": kind, "n_heads": len(removed)}
        | effect(results[task, "none"][0], results[task, "induction"][0], torch.stack(drawn))
        for (task, kind), drawn in results.items()
        if kind.startswith("random")
    ]
    table = pd.DataFrame(rows, columns=["task", "removed", "draw", "n_heads", "value", "low", "high", "heads"])
    return table, pd.DataFrame(effects, columns=["task", "against", "n_heads", *EFFECT])


EFFECT = ("lost_induction", "lost_random", "difference", "low", "high", "beyond", "draws")


def effect(clean: Tensor, induction: Tensor, random: Tensor) -> dict[str, float]:
    """What induction heads' removal costs beyond random heads': clean, induction [prompt], random [draw, prompt]."""
    lost, lost_random = clean - induction, clean - random
    over_prompts, over_draws = resamples(len(clean)), resamples(len(random), seed=1)
    differences = over_prompts @ lost - torch.einsum("rd,dp,rp->r", over_draws, lost_random, over_prompts)
    low, high = torch.quantile(differences, torch.tensor([0.025, 0.975])).tolist()
    beyond = (lost_random.mean(1) < lost.mean()).float().mean()
    values = (lost.mean(), lost_random.mean(), lost.mean() - lost_random.mean(), low, high, beyond, len(random))
    return {name: float(value) for name, value in zip(EFFECT, values, strict=True)}


# ------------------------------------------------------------------------------------------------ claims


def against_layer(scores: Tensor, chosen: Heads) -> Tensor:
    """Chosen heads' mean score less that of the other heads of the same layers (of all layers where one has none).

    [unit, layer, head] -> [unit].
    """
    other = torch.ones(scores.shape[1:], dtype=torch.bool)
    other[tuple(torch.tensor(chosen).T)] = False
    differences = []
    for layer, head in chosen:
        rest = scores[:, layer, other[layer]] if other[layer].any() else scores[:, other]
        differences.append(scores[:, layer, head] - rest.mean(1))
    return torch.stack(differences).mean(0)


def claim_rows(
    behaviours: dict[str, Behaviour],
    table: pd.DataFrame,
    few_shot: pd.DataFrame,
    effects: pd.DataFrame,
    untrained: Tensor | None,
    literal_share: float,
) -> pd.DataFrame:
    """Rows of claims.csv: the statistics of claims 4a to 4d and 6d for this source; claims.md has the rules.

    literal_share: of the pattern task's pairs of lines of one category, those that share a token. Such pairs do not
    count in 4c; in 4d they do, and where there are many the task is no test of abstraction.
    """
    chosen = induction_heads(table)
    rows = [
        ["6d", "induction heads", len(chosen), math.nan, math.nan, " ".join(map(label, chosen[:10]))],
        ["6d", "induction heads, random weights", math.nan, math.nan, math.nan, "prefix matching alone"],
    ]
    if untrained is not None:
        rows[1][2:] = [int((untrained >= INDUCTION).sum()), math.nan, math.nan, f"best {untrained.max():.3f}"]
    literal = behaviours["literal_copying"]
    statistic = "literal copying, induction heads less other heads of their layers"
    if chosen and literal.value is not None:
        difference = against_layer(literal.value, chosen)
        low, high = mean_interval(difference)
        rows.append(["4a", statistic, difference.mean().item(), low.item(), high.item(), f"{len(chosen)} heads"])
    else:
        rows.append(["4a", statistic, math.nan, math.nan, math.nan, literal.note or "no induction heads"])
    for claim, name in (("4b", "translation"), ("4c", "pattern_matching")):
        found = table[table.behaviour == name].set_index(["layer", "head"])
        above = found[found.above].sort_values("excess", ascending=False)
        hits = [head for head in above.index if head in chosen]
        value = math.nan if behaviours[name].note else len(hits)
        remark = (
            behaviours[name].note or f"of {len(chosen)}; of all heads {len(above)}; {' '.join(map(label, hits[:10]))}"
        )
        rows.append([claim, f"{_words(name)}, induction heads above control_99", value, math.nan, math.nan, remark])
    whole = few_shot[(few_shot.task == "pattern_accuracy") & (few_shot.removed == "none")]
    for each in whole.itertuples():
        remark = "chance 0.25" + ("; not above it: nothing to lose" if each.low <= 1 / len(CATEGORIES) else "")
        rows.append(["4d", "pattern accuracy of the model", each.value, each.low, each.high, remark])
    lost = effects[effects.task == "pattern_accuracy"]
    for each in lost.itertuples():
        remark = f"{each.n_heads} heads, beyond {each.beyond:.0%} of {each.draws:.0f} draws"
        if literal_share > LITERAL:
            remark += f"; not abstract here: {literal_share:.0%} of lines alike share tokens"
        statistic = f"pattern accuracy lost, induction less {_words(each.against)}"
        rows.append(["4d", statistic, each.difference, each.low, each.high, remark])
    if lost.empty:
        rows.append(["4d", "pattern accuracy lost", math.nan, math.nan, math.nan, "nothing was removed"])
    return pd.DataFrame(rows, columns=["claim", "statistic", "value", "low", "high", "remark"])


def label(head: tuple[int, int]) -> str:
    return f"L{head[0]}H{head[1]}"


def _words(name: str) -> str:
    return name.replace("_", " ")


# ------------------------------------------------------------------------------------------------ the page


def examples(
    source: Source, model: Model, probes: dict[str, Probe], table: pd.DataFrame, own: int = 5, prefix: int = 3
) -> list[Example]:
    """The first prompt of each behaviour with the heads best at it, and those best at prefix matching."""
    found = []
    heads = wide(table, "excess")
    for name, probe in probes.items():
        if probe.note or source.text is None:
            continue
        prompt = probe.prompts[0]
        best = [*heads[name].nlargest(own).index, *heads.prefix_matching.nlargest(prefix).index]
        chosen = list(dict.fromkeys((int(layer), int(head)) for layer, head in best))
        _, kept = model(
            torch.tensor([prompt.tokens]), record={"pattern": lambda pattern: (pattern[0] * 255).round().byte().cpu()}
        )
        values = table.set_index(["behaviour", "layer", "head"])
        remarks = []
        for layer, head in chosen:
            mine, first = values.loc[(name, layer, head)], values.loc[("prefix_matching", layer, head)]
            scores = f"{_words(name)} {mine.value:.2f} (control {mine.control:.2f}), prefix matching {first.value:.2f}"
            remarks.append((f"{label((layer, head))} {mine.value:.2f}", scores))
        patterns = torch.stack([kept.pattern[layer][head] for layer, head in chosen]).float() / 255
        targets = [(query, key) for query, key, _ in prompt.targets]
        title, remark = _words(name).capitalize(), f"{DEFINITIONS[name][0]}. Control: {DEFINITIONS[name][1]}."
        found.append(Example(title, remark, source.text.pieces(prompt.tokens), remarks, patterns, targets))
    return found


# ------------------------------------------------------------------------------------------------ plots


def behaviour_scatter(table: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Prefix matching against each fuzzier behaviour, both less control; a dot a head, induction heads coloured."""
    heads, chosen = wide(table, "excess"), induction_heads(table)
    there = [name for name in FUZZY if heads[name].notna().any()]
    figure = Figure(figsize=(8, 3.8), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    figure.suptitle("Do the same heads do fuzzier copying?", x=0.01, ha="left", fontsize=13, fontweight="bold")
    rank = correlations[(correlations.column == "excess") & (correlations.kind == "spearman")]
    for axes, name in zip(np.atleast_1d(figure.subplots(1, max(1, len(there)))), there, strict=False):
        for kind, wanted in (("other", False), ("induction", True)):
            dots = heads[[head in chosen for head in heads.index]] if wanted else heads
            colour = style.HEAD_COLOURS[kind]
            axes.scatter(
                dots.prefix_matching, dots[name], s=14, color=colour, alpha=0.8, linewidth=0, zorder=2 + wanted
            )
        best = heads.nlargest(3, name)
        for place, (head, row) in enumerate(best[best[name] > best[name].max() / 2].iterrows()):
            _name_dot(axes, row.prefix_matching, row[name], label(head), above=place % 2 == 0)  # type: ignore[arg-type]
        found = rank[(rank.x == "prefix_matching") & (rank.y == name)].iloc[0]
        note = f"rank correlation {found.correlation:.2f}\n95%: {found.low:.2f} to {found.high:.2f}"
        axes.set_title(f"{_words(name)}\n{note}", loc="left", fontsize=style.SMALL - 1, color=style.FAINT)
        axes.axhline(0, color=style.FAINT, linewidth=0.8, zorder=1)
        _finish(axes, "prefix matching less control", "attention less control")
    return figure


def _name_dot(axes: Axes, x: float, y: float, text: str, above: bool) -> None:
    offset, side = ((-4, 2), "bottom") if above else ((-4, -2), "top")
    axes.annotate(
        text, (x, y), xytext=offset, textcoords="offset points", ha="right", va=side,
        fontsize=style.SMALL - 2, color=style.INK,
    )  # fmt: skip


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=style.SMALL, color=style.INK)
    axes.set_ylabel(y, fontsize=style.SMALL, color=style.INK)
    axes.tick_params(labelsize=style.SMALL - 1, colors=style.INK)
    axes.spines[["top", "right"]].set_visible(False)


TASKS = {
    "pattern_accuracy": "pattern task: accuracy",
    "pattern_log_probability": "log-probability of the\nright answer (nats)",
    "repeat_gain": "gain of repeated context\n(nats a token)",
}


def few_shot_plot(table: pd.DataFrame) -> Figure:
    """The tasks with heads removed: nothing, the induction heads, and a dot per random set; bars: 95% over prompts."""
    there = [task for task in TASKS if (table.task == task).any()]
    figure = Figure(figsize=(8, 3.8), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    figure.suptitle("What is lost with the heads", x=0.01, ha="left", fontsize=13, fontweight="bold")
    kinds = [kind for kind in REMOVED if (table.removed == kind).any()]
    for axes, task in zip(np.atleast_1d(figure.subplots(1, max(1, len(there)))), there, strict=False):
        rows = table[table.task == task]
        for place, kind in enumerate(kinds):
            these = rows[rows.removed == kind]
            spread = np.linspace(-0.2, 0.2, len(these)) if len(these) > 1 else [0.0]
            value, low, high = (these[column].to_numpy() for column in ("value", "low", "high"))
            colour = style.HEAD_COLOURS["induction" if kind == "induction" else "other"]
            axes.errorbar(
                place + np.array(spread), value, (value - low, high - value), fmt="o", markersize=4, linewidth=0.8,
                color=style.INK if kind == "none" else colour,
            )  # fmt: skip
        if task in CHANCE:
            chance = CHANCE[task]
            axes.axhline(chance, color=style.FAINT, linewidth=0.8, linestyle=(0, (4, 2)))
            axes.text(-0.4, chance, "chance", fontsize=style.SMALL - 2, color=style.FAINT, va="bottom")
        axes.set_title(TASKS[task], loc="left", fontsize=style.SMALL - 1, color=style.FAINT)
        axes.set_xticks(range(len(kinds)), [REMOVED[kind] for kind in kinds])
        _finish(axes, "removed", "")
        axes.tick_params(axis="x", labelsize=style.SMALL - 2)
        axes.set_xlim(-0.5, len(kinds) - 0.5)
    return figure


REMOVED = {
    "none": "nothing",
    "induction": "induction",
    "random": "random",
    "random_same_layers": "random,\nsame layers",
}
CHANCE = {"pattern_accuracy": 1 / len(CATEGORIES), "pattern_log_probability": -math.log(len(CATEGORIES))}


# ------------------------------------------------------------------------------------------------ the room


def shown(things: Iterable, said: str) -> Iterable:
    return track(list(things), said, transient=True, disable=not Console().is_terminal)


def measure(source: Source, room: RunDir, config: GeneralizeConfig) -> None:
    """All tables, plots and the page of one source."""
    began = time.perf_counter()
    model = source.load(source.choose(config.snapshot)[-1])
    prompts, choices = pattern_prompts(source, config)
    probes = {
        "prefix_matching": prefix_probe(source, model, config),
        "literal_copying": literal_probe(source, model, config),
        "translation": translation_probe(source, model, config),
        "pattern_matching": pattern_probe(prompts, source, model),
    }
    behaviours = {name: behaviour(model, probe, config, _words(name)) for name, probe in probes.items()}
    behaviours["copying"] = copying_behaviour(source, model, config)
    behaviours["copying_eigenvalues"] = eigenvalue_behaviour(model)
    behaviours = {name: behaviours[name] for name in DEFINITIONS}
    heads = behaviour_rows(behaviours, model)
    log.info(
        "%s: %d heads scored in %.0f s",
        source.name,
        heads.groupby(["layer", "head"]).ngroups,
        time.perf_counter() - began,
    )
    probe = probes["prefix_matching"]
    untrained = None
    if not probe.note:
        untrained = prompt_scores(model.untrained(config.seed), probe.prompts, config, "random weights")[0].mean(0)
    literal = probes["literal_copying"]
    doubled = None if literal.note else torch.tensor([prompt.tokens for prompt in literal.prompts])
    asked = [] if probes["pattern_matching"].note else prompts
    few_shot, effects = removal_rows(model, asked, choices, doubled, heads, config)
    literal_share = float(np.mean([each.literal for each in prompts])) if prompts else 0.0
    tables = {
        "head_behaviours": heads,
        "definitions": definition_rows(config, behaviours),
        "correlations": correlation_rows(heads),
        "few_shot": few_shot,
        "few_shot_effect": effects,
        "claims": claim_rows(behaviours, heads, few_shot, effects, untrained, literal_share),
    }
    for name, table in tables.items():
        room.write_table(name, table)
    draw(room)
    page = attention_page(f"What the heads of {source.name} attend to", examples(source, model, probes, heads))
    room.write_page("attention", page)
    log.info("%s: all in %.0f s", source.name, time.perf_counter() - began)


def draw(room: RunDir) -> None:
    """The plots of a room, from its tables."""
    heads, few_shot = room.table("head_behaviours"), room.table("few_shot")
    if wide(heads, "excess").reindex(columns=list(FUZZY)).notna().any(axis=None):
        room.write_plot("head_behaviours", behaviour_scatter(heads, room.table("correlations")))
    if len(few_shot):
        room.write_plot("few_shot", few_shot_plot(few_shot))


def show(room: RunDir, name: str) -> None:
    """Print the statistics and where the page is."""
    console, table = Console(), Table(title=f"Generalisation of {name}", title_justify="left")
    for column in ("claim", "statistic", "value", "95% interval", "remark"):
        table.add_column(column, justify="right" if column == "value" else "left", overflow="fold")
    for row in room.table("claims").fillna({"remark": ""}).itertuples():
        interval = f"{row.low:+.3f} to {row.high:+.3f}" if pd.notna(row.low) else ""
        table.add_row(
            row.claim, row.statistic, f"{row.value:.3g}" if pd.notna(row.value) else "-", interval, row.remark
        )
    console.print(table)
    console.print(f"page    {relative(room.path / 'attention.html')}", soft_wrap=True, highlight=False)


def run(config: GeneralizeConfig, out_dir: Path) -> float:
    """Measure a source, or every run of a folder; returns the rank correlation over heads of prefix matching and
    pattern matching (less controls) of the last source; nan where patterns do not apply."""
    choose_threads(config.threads)
    sources = open_sources(
        config.run_dir,
        device=choose_device(config.device),
        allow_pickle=config.allow_pickle,
        start_token=config.start_token,
        text_file=config.text_file,
    )
    rooms = {
        source.name: RunDir(out_dir) if len(sources) == 1 or source.room is None else source.room.folder("generalize")
        for source in sources
    }
    for source in sources:
        measure(source, rooms[source.name], config)
        show(rooms[source.name], source.name)
    if len(sources) > 1:
        for table in ("head_behaviours", "correlations", "few_shot_effect", "claims"):
            parts = [room.table(table).assign(run=name) for name, room in rooms.items()]
            RunDir(out_dir).write_table(table, pd.concat(parts, ignore_index=True))
    found = rooms[sources[-1].name].table("correlations").set_index(["x", "y", "column", "kind"]).correlation
    return float(found["prefix_matching", "pattern_matching", "excess", "spearman"])

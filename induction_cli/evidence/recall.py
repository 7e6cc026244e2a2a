"""Minimal system: associative memories learn a language in which triggers get new followers in every sequence.

Bietti et al. 2023 (2306.00802) and Wang & Sato 2024 (2412.11459). For every kind of positions and depth, one network a
seed; the seeds of a network are trained together. Then, where asked for: longer sequences, and prompts in which the
context and the language disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from induction_cli.config import RecallConfig, RecallNetworkConfig
from induction_cli.data import open_documents
from induction_cli.device import choose_threads
from induction_cli.measures.intervals import correlation, over_seeds
from induction_cli.measures.phase_change import onset
from induction_cli.minimal import recall_memory as memory
from induction_cli.minimal import replicas
from induction_cli.minimal.classify_data import random_stream
from induction_cli.minimal.recall_data import (
    Language,
    RecallBatches,
    RecallSequences,
    character_language,
    draw_recall,
    global_vs_context,
)
from induction_cli.minimal.recall_network import Weights, frozen, initial_weights, loss, recall_network, split
from induction_cli.plots import recall as plots
from induction_cli.plots.style import in_words
from induction_cli.runs.results import writing
from induction_cli.runs.run_dir import RunDir, relative
from induction_cli.terminal import say

LOSSES = ("in_context_loss", "in_context_accuracy", "global_loss", "global_accuracy")
DEFINITIONS = {
    "in_context_loss": "cross-entropy in nats of what follows a trigger, from its second occurrence on",
    "in_context_accuracy": "share of those predictions whose largest logit is right",
    "global_loss": "cross-entropy in nats of what follows other tokens, which only pi_b knows",
    "global_accuracy": "share of those predictions whose largest logit is right",
    "previous_recall": "W_K^1: share of positions t before the training length whose largest p_t W_K^1 p_s is s = t-1"
    " (relative: share of tokens for which distance 1 is largest)",
    "previous_early_recall": "previous_recall of the first quarter of the positions, as in the public code (64 of 256)",
    "match_recall": "W_K^2: share of triggers k whose largest w_E(k) W_K^2 (w_E(j) W_V^1) over triggers j is at j = k",
    "copy_recall": "W_O^2: share of tokens k whose largest w_E(k) W_V^2 W_O^2 w_U(j) over tokens j is at j = k",
    "bigram_divergence": "W_F: mean KL(pi_b || softmax of w_E(i) W_F W_U) over tokens i that are never triggers where"
    " triggers are fixed, else over all; nats",
    "previous_token_attention": "attention of the last layer but one to the place before",
    "previous_token_argmax": "share of places whose largest weight, in the last layer but one, is on the place before",
    "match_attention": "attention of the last layer to places after earlier copies of the current token, at in-context"
    " predictions",
    "match_argmax": "share of in-context predictions whose largest weight, in the last layer, is on such a place",
    "onset": "step at which a curve first passes half of its final rise or fall",
    "lead": "logit of the in-context follower less that of the global one, at the end of a prompt; nats",
    "predicted_lead": "the same in the construction with ideal weights of the trained strengths, in closed form",
    "balance": "in-context count at which the mean lead crosses 0, between the counts tried; empty where it never does",
}
ORDER = (("copy_recall", "match_recall"), ("match_recall", "previous_recall"), ("global_loss", "in_context_loss"))
TABLES = ("training", "probes", "events", "order", "lengths", "prompts", "strengths", "balance", "agreement")


@dataclass
class Tables:
    """Rows of every table, as they come."""

    rows: dict[str, list[dict]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def write(self, room: RunDir) -> None:
        for name, rows in self.rows.items():
            if rows:
                room.write_table(name, pd.DataFrame(rows))


# ------------------------------------------------------------------------------------------------ one network


def possible_triggers(network: RecallNetworkConfig, language: Language) -> Tensor:
    """The k most frequent tokens, or where triggers are drawn anew every token that occurs."""
    if network.fixed_triggers:
        return frequent(network, language)
    return language.unigram.nonzero()[:, 0]


def frequent(network: RecallNetworkConfig, language: Language) -> Tensor:
    return language.unigram.argsort(descending=True, stable=True)[: network.n_triggers]


def label(network: RecallNetworkConfig, seed: int) -> dict[str, object]:
    """The columns that say which network a row is of."""
    return {
        "positions": network.positions,
        "n_layers": network.n_layers,
        "trained_on": network.loss,
        "seed": seed,
    }


def measured_steps(steps: int, every: int) -> list[int]:
    """Evenly, and at powers of two as some memories are learned in the first steps."""
    return sorted({*range(0, steps + 1, every), *(2**i for i in range(steps.bit_length()) if 2**i <= steps), steps})


@torch.no_grad()
def measure(
    weights: Weights, network: RecallNetworkConfig, language: Language, sequences: RecallSequences
) -> tuple[dict[str, float], dict[str, float]]:
    """(losses and accuracies, probes) of one seed's network on new sequences."""
    logits, patterns = recall_network(weights, sequences.tokens[:, :-1], network.positions)
    triggers = possible_triggers(network, language)
    asked = triggers if network.fixed_triggers else triggers[:0]  # these the bigram memory need not know
    recall = memory.memory_recall(weights, network.positions, network.length, triggers)
    probes = {f"{name}_recall": value for name, value in recall.items()}
    if network.global_memory:
        probes["bigram_divergence"] = memory.bigram_divergence(weights, network.positions, language, asked)
    return split(logits, sequences), {**probes, **memory.attention_probes(patterns, sequences)}


def train(network: RecallNetworkConfig, config: RecallConfig, language: Language, tables: Tables) -> list[Weights]:
    """One network from every seed, all trained together; their weights after training."""
    weights = replicas.stack([initial_weights(network, random_stream(seed, 3)) for seed in config.seeds])
    batches = [RecallBatches(network, language, seed) for seed in config.seeds]
    held_out = [draw_recall(network, language, config.n_sequences, random_stream(seed, 5)) for seed in config.seeds]
    optimizer = replicas.SGD(
        weights,
        network.learning_rate,
        momentum=network.momentum,
        weight_decay=network.weight_decay,
        frozen=frozen(weights),
    )
    losses = replicas.batched(
        lambda single, tokens, occurrence: loss(single, tokens, occurrence, network.positions, network.loss)
    )

    def look(step: int) -> None:
        for i, seed in enumerate(config.seeds):
            learned, probes = measure(replicas.one(weights, i), network, language, held_out[i])
            at = {**label(network, seed), "step": step}
            tables.rows["training"].append({**at, **learned})
            tables.rows["probes"] += [{**at, "probe": name, "value": value} for name, value in probes.items()]

    wanted = measured_steps(config.steps, config.measure_every)
    drawn = replicas.ahead(lambda step: RecallSequences.stack([draw(step) for draw in batches]), range(config.steps))
    said = f"{network.positions} positions, {network.n_layers} layers"
    look(0)
    for step, batch in enumerate(
        track(drawn, said, total=config.steps, transient=True, disable=not Console().is_terminal), 1
    ):
        optimizer.step(losses(weights, batch.tokens, batch.occurrence))
        if step in wanted:
            look(step)
    return [replicas.one(weights, i) for i in range(len(config.seeds))]


# ------------------------------------------------------------------------------------------------ the order of events


def onset_of(curve: pd.Series) -> float:
    """The onset of a curve indexed by step, in steps; nan where it hardly changes."""
    return onset(curve.index.to_numpy(float), curve.to_numpy(float))


def add_events(network: RecallNetworkConfig, config: RecallConfig, tables: Tables) -> None:
    """Rows of events, when each memory and loss gets half way, and of order, in which order they do."""
    training, probes = pd.DataFrame(tables.rows["training"]), pd.DataFrame(tables.rows["probes"])
    for seed in config.seeds:
        who = label(network, seed)

        def mine(table: pd.DataFrame, who: dict = who) -> pd.DataFrame:
            return table[(table[list(who)] == pd.Series(who)).all(axis=1)].set_index("step")

        recalls = mine(probes)
        curves = {name: group.value for name, group in recalls.groupby("probe") if name.endswith("_recall")}
        curves |= {name: mine(training)[name] for name in LOSSES if name.endswith("_loss")}
        if network.loss != "all":
            del curves["global_loss"]  # nothing trains it
        onsets = {name: onset_of(curve) for name, curve in curves.items()}
        tables.rows["events"] += [{**who, "event": name, "onset_step": step} for name, step in onsets.items()]
        tables.rows["order"] += [
            {**who, "first": first, "second": second, "ratio": onsets[first] / onsets[second]}
            for first, second in ORDER
            if np.isfinite(onsets.get(first, np.nan)) and np.isfinite(onsets.get(second, np.nan))
        ]


# ------------------------------------------------------------------------------------------------ longer sequences


@torch.no_grad()
def length_row(
    weights: Weights, network: RecallNetworkConfig, language: Language, length: int, n: int, seed: int
) -> dict[str, object]:
    """One seed on sequences of `length`. All triggers stand in the last T places, so nothing but the place changes."""
    before = length - network.length
    sequences = draw_recall(network, language, n, random_stream(seed, 6, length), length, before)
    logits, patterns = recall_network(weights, sequences.tokens[:, :-1], network.positions)
    found = {**split(logits, sequences), **memory.attention_probes(patterns, sequences, max(before, 1))}
    return {**label(network, seed), "length": length, **found}


# ------------------------------------------------------------------------------------------------ context and language


def crossing(counts: np.ndarray, leads: np.ndarray) -> float:
    """Where leads [count] first rise to 0, by linear interpolation between counts; nan where they never do."""
    at = int(np.argmax(leads >= 0))
    if leads[at] < 0:
        return float("nan")
    if at == 0:
        return float(counts[0])
    part = -leads[at - 1] / (leads[at] - leads[at - 1])
    return float(counts[at - 1] + part * (counts[at] - counts[at - 1]))


@torch.no_grad()
def prompt_rows(
    weights: Weights, network: RecallNetworkConfig, language: Language, config: RecallConfig, seed: int
) -> tuple[list[dict], memory.Strengths]:
    """Rows of prompts, trained and predicted leads at every pair of counts; and the strengths behind predictions."""
    triggers = frequent(network, language)
    found = memory.strengths(weights, network.positions, network.length, triggers)
    rows = []
    for context in config.counts:
        for common in config.counts:
            stream = random_stream(seed, 7, context * 1000 + common)
            tokens, o, b = global_vs_context(
                language, triggers, config.n_prompts, network.length, context, common, stream
            )

            def lead(logits: Tensor, o: Tensor = o, b: Tensor = b) -> list[float]:
                return (logits[:, -1].gather(1, o[:, None]) - logits[:, -1].gather(1, b[:, None]))[:, 0].tolist()

            trained = lead(recall_network(weights, tokens, network.positions)[0])
            predicted = lead(memory.closed_form_logits(found, tokens))
            rows += [
                {
                    **label(network, seed),
                    "context_count": context,
                    "global_count": common,
                    "prompt": i,
                    "lead": real,
                    "predicted_lead": ideal,
                }
                for i, (real, ideal) in enumerate(zip(trained, predicted, strict=True))
            ]
    return rows, found


def agreement_rows(prompts: pd.DataFrame) -> list[dict]:
    """Correlation and root mean square error of predicted against trained leads, over prompts and over cells."""
    cells = prompts.groupby(["context_count", "global_count"])[["lead", "predicted_lead"]].mean()
    rows = []
    for over, table in (("cells", cells), ("prompts", prompts)):
        real, ideal = (torch.tensor(table[name].to_numpy()) for name in ("lead", "predicted_lead"))
        value, low, high = correlation(real, ideal)
        error = (real - ideal).square().mean().sqrt().item()
        rows.append({"over": over, "correlation": value, "low": low, "high": high, "error": error})
    return rows


def balance_rows(prompts: pd.DataFrame) -> list[dict]:
    """Balance points of one seed, one for each global count."""
    rows = []
    for common, here in prompts.groupby("global_count"):
        means = here.groupby("context_count")[["lead", "predicted_lead"]].mean()
        counts = means.index.to_numpy(float)
        points = {name: crossing(counts, means[column].to_numpy()) for name, column in (
            ("balance", "lead"), ("predicted_balance", "predicted_lead"),
        )}  # fmt: skip
        rows.append({"global_count": common, **points})
    return rows


def add_prompts(
    network: RecallNetworkConfig, config: RecallConfig, language: Language, trained: list[Weights], tables: Tables
) -> None:
    for weights, seed in zip(trained, config.seeds, strict=True):
        rows, found = prompt_rows(weights, network, language, config, seed)
        who, prompts = label(network, seed), pd.DataFrame(rows)
        tables.rows["prompts"] += rows
        tables.rows["agreement"] += [{**who, **row} for row in agreement_rows(prompts)]
        tables.rows["balance"] += [{**who, **row} for row in balance_rows(prompts)]
        tables.rows["strengths"].append({**who, "previous": found.previous, "match": found.match, "copy": found.copy})


# ------------------------------------------------------------------------------------------------ the room


def run(config: RecallConfig, out_dir: Path) -> float:
    """Train every network, measure; returns the mean in-context accuracy after training.

    Tables are written after each network, so those of a stopped run are of the networks that were done.
    """
    config.check()
    choose_threads(config.threads)
    language, letters = character_language(open_documents(config.data), config.d_vocab, config.characters)
    room, tables = RunDir(out_dir), Tables()
    common = language.unigram[: len(letters)].tolist()
    with writing(room, "recall", config, {}) as meta:
        room.write_table("definitions", pd.DataFrame(list(DEFINITIONS.items()), columns=["measure", "definition"]))
        room.write_table("characters", pd.DataFrame({"character": list(map(repr, letters)), "probability": common}))
        for network in config.networks():
            trained = train(network, config, language, tables)
            add_events(network, config, tables)
            tables.rows["lengths"] += [
                length_row(weights, network, language, length, config.n_sequences, seed)
                for length in config.lengths
                for weights, seed in zip(trained, config.seeds, strict=True)
            ]
            if config.counts:
                add_prompts(network, config, language, trained, tables)
            tables.write(room)
        draw(room, config)
        final = room.table("training").query(f"step == {config.steps}")
        meta["headline"] = float(final.in_context_accuracy.mean())
    show(room, config)
    return meta["headline"]


def draw(room: RunDir, config: RecallConfig) -> None:
    room.write_plot("learning", plots.learning(room.table("training")))
    room.write_plot("memories", plots.memories(room.table("probes")))
    if config.lengths:
        room.write_plot("lengths", plots.lengths(room.table("lengths"), config.length))
    if config.counts:
        room.write_plot("balance", plots.balance(room.table("prompts")))
        room.write_plot("agreement", plots.agreement(room.table("prompts"), room.table("agreement")))


def said(values: pd.Series, digits: int = 2) -> str:
    """Mean over seeds and its interval, or from fewer than five all of them."""
    if len(values) < 5:
        return ", ".join(f"{value:.{digits}f}" for value in values)
    value, low, high = over_seeds(values)
    if math.isnan(low):  # all seeds say the same
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def show(room: RunDir, config: RecallConfig) -> None:
    network = ["positions", "n_layers"]
    final = room.table("training").query(f"step == {config.steps}")
    recalls = room.table("probes").query(f"step == {config.steps} and probe.str.endswith('_recall')")
    for (positions, n_layers), rows in final.groupby(network, sort=False):
        of_network = f"positions == '{positions}' and n_layers == {n_layers}"
        say(f"{positions} positions, {n_layers} layers: in-context accuracy {said(rows.in_context_accuracy)}")
        for name, values in recalls.query(of_network).groupby("probe", sort=False):
            say(f"  {in_words(str(name))} {said(values.value)}")
        if room.table_file("order").exists():
            for (first, second), values in (
                room.table("order").query(of_network).groupby(["first", "second"], sort=False)
            ):
                say(f"  onset {in_words(str(first))} / {in_words(str(second))} {said(values.ratio)}")
    if config.lengths:
        for (positions, n_layers, length), rows in room.table("lengths").groupby([*network, "length"], sort=False):
            say(
                f"{positions}, {n_layers} layers, length {length}: in-context accuracy {said(rows.in_context_accuracy)}"
            )
    if config.counts:
        for over, rows in room.table("agreement").groupby("over"):
            say(f"closed form over {over}: r = {said(rows.correlation)}, error {said(rows.error)} nats")
    say(f"plots   {relative(room.path / 'plots')}")

"""Smeared against vanilla."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from induction_cli.measures.head_types import INDUCTION
from induction_cli.plots.style import FAINT, HEAD_COLOURS, INK, SMALL, TEXT, TOKENS, entitle, frame, in_words

KEY_COLOURS = {"vanilla": "#0072B2", "smeared": "#D55E00"}


def smear_pairs(scores: pd.DataFrame) -> Figure:
    """The paper's figure: in-context learning score over tokens, a row per kind of keys, a column per depth.

    Columns n_layers, seed, keys ('vanilla' | 'smeared'), tokens, kind, in_context_learning_score; one line per seed.
    """
    scores = scores[scores["kind"] == "windowed"]
    depths = sorted(scores["n_layers"].unique())
    figure = Figure(figsize=(8, 6), layout="constrained")
    grid = figure.subplots(2, len(depths), sharex=True, sharey=True, squeeze=False)
    for row, keys in zip(grid, KEY_COLOURS, strict=True):
        for axes, depth in zip(row, depths, strict=True):
            here = scores[(scores["keys"] == keys) & (scores["n_layers"] == depth)]
            for _, line in here.groupby("seed"):
                axes.plot(line["tokens"], line["in_context_learning_score"], color=KEY_COLOURS[keys], linewidth=1.6)
            axes.axhline(0, color=FAINT, linewidth=1)
            axes.set_title(f"{keys} keys, {depth} layer{'s' if depth > 1 else ''}", fontsize=TEXT, loc="left")
            frame(axes, TOKENS if keys == "smeared" else "", "")
    entitle(figure, "In-context learning score with and without smeared keys")
    for axes in grid[:, 0]:
        axes.set_ylabel("in-context learning\nscore (nats)", fontsize=TEXT, color=INK)
    return figure


def smear_weights(table: pd.DataFrame) -> Figure:
    """Own-key share sigmoid(alpha) of every head over tokens, beside its prefix matching; a row per smeared run.

    Columns run, tokens, layer, head, weight, prefix_matching. Heads that end with prefix matching >= INDUCTION are in
    the induction colour and named.
    """
    runs = list(dict.fromkeys(table["run"]))
    figure = Figure(figsize=(8, 1.2 + 2.3 * len(runs)), layout="constrained")
    grid = figure.subplots(len(runs), 2, sharex=True, sharey=True, squeeze=False)
    for row, run in zip(grid, runs, strict=True):
        for (layer, head), line in table[table["run"] == run].groupby(["layer", "head"]):
            kind = "induction" if line["prefix_matching"].iloc[-1] >= INDUCTION else "other"
            for axes, name in zip(row, ("weight", "prefix_matching"), strict=True):
                axes.plot(line["tokens"], line[name], color=HEAD_COLOURS[kind], linewidth=1.6)
                if kind == "induction":
                    end = (line["tokens"].iloc[-1], line[name].iloc[-1])
                    axes.annotate(f" L{layer}H{head}", end, color=HEAD_COLOURS[kind], fontsize=SMALL, va="center")
        for axes, name in zip(row, ("own key's share, sigmoid(alpha)", "prefix matching"), strict=True):
            axes.set_title(f"{name}; {in_words(run)}", fontsize=SMALL, color=FAINT, loc="left")
            frame(axes, TOKENS if run == runs[-1] else "", "share" if axes is row[0] else "")
            axes.set_ylim(0, 1)
    entitle(figure, "Which head mixes in the token before, and which one matches prefixes")
    return figure

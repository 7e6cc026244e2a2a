"""Curves over training, and loss over (tokens, index)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from induction_cli.plots.style import (
    FAINT,
    HEAD_COLOURS,
    PLAIN,
    RUN_COLOURS,
    End,
    cell_edges,
    colour_bar,
    finish,
    in_words,
    limits,
    marker,
    name_ends,
    new_figure,
    notable,
    runs_of,
)

PERCENT = 2
WIDE = 45  # letters of an axis name that one line holds


def training_loss(training: pd.DataFrame, windows: pd.DataFrame | None = None, log_tokens: bool = False) -> Figure:
    """Training loss over tokens: every step faint, a running mean over 2% of the steps in front.

    Columns tokens, loss (nats), optionally run.
    """
    figure, axes = new_figure("Training loss", f"faint: each step; line: running mean over {PERCENT}% of the steps")
    ends = []
    for run, table, colour in runs_of(training):
        table = table[table["tokens"] > 0] if log_tokens else table
        smooth = table["loss"].rolling(max(1, len(table) * PERCENT // 100), center=True, min_periods=1).mean()
        axes.plot(table["tokens"], table["loss"], color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(table["tokens"], smooth, color=colour, linewidth=2, marker=marker(table))
        if run and len(table):
            ends.append(End(float(smooth.iloc[-1]), run, colour))
    if log_tokens:
        axes.set_xscale("log")
    finish(axes, "loss (nats)", windows)
    name_ends(axes, ends)
    return figure


def in_context_learning_score(
    scores: pd.DataFrame, windows: pd.DataFrame | None = None, indices: tuple[int, int] | None = None
) -> Figure:
    """In-context learning score over tokens: windowed as a line with its interval, exact as faint points.

    indices: the early and the late one that the losses are at, where they are known.

    Columns tokens, kind ('exact' | 'windowed'), in_context_learning_score (nats, negative = more in-context learning),
    low, high, optionally run: one colour a run then, named at its end; more than four runs are drawn without points.
    """
    runs = runs_of(scores)
    crowded = len(runs) > 4
    note = "line and ribbon: averaged around both indices, 95% interval"
    measured = f"loss at index {indices[1]} less loss at index {indices[0]}" if indices else "late loss less early loss"
    figure, axes = new_figure(
        f"In-context learning score: {measured}",
        note if crowded else f"{note}; points: exactly these indices",
    )
    ends = []
    for place, (run, table, colour) in enumerate(runs):
        style = ("-", "--", ":")[place // len(RUN_COLOURS) % 3]
        last = draw_score(axes, table, colour, style, points=not crowded)
        if run and last is not None:
            ends.append(End(last, run, colour))
    axes.axhline(0, color=FAINT, linewidth=1)
    finish(axes, "in-context learning score (nats)", windows)
    name_ends(axes, ends)
    return figure


def draw_score(axes: Axes, table: pd.DataFrame, colour: str, style: str = "-", points: bool = True) -> float | None:
    """Score line, ribbon and points of one run; the last value drawn, or None for an empty table."""
    kinds = table["kind"] if "kind" in table else pd.Series("windowed", index=table.index)
    exact = table[kinds == "exact"].sort_values("tokens")
    windowed = table[kinds == "windowed"].sort_values("tokens")
    values = exact["in_context_learning_score"]
    if points or windowed.empty:
        axes.scatter(exact["tokens"], values, s=9, color=colour, alpha=0.35, linewidth=0, clip_on=False)
    if windowed.empty:
        return float(values.iloc[-1]) if len(exact) else None
    tokens = windowed["tokens"]
    if {"low", "high"} <= set(windowed.columns):
        axes.fill_between(tokens, windowed["low"], windowed["high"], color=colour, alpha=0.2, linewidth=0)
    score = windowed["in_context_learning_score"]
    axes.plot(tokens, score, color=colour, linestyle=style, linewidth=2, marker=marker(windowed))
    return float(score.iloc[-1])


def loss_by_index(table: pd.DataFrame, windows: pd.DataFrame | None = None) -> Figure:
    """Heatmap of loss over training and token index. Columns tokens, index, loss (nats), of one run."""
    figure, axes = new_figure("Loss by token index", "colour limits: 1st and 99th percentile")
    low, high = limits(table["loss"], (1, 99))
    heatmap(figure, axes, table, "loss", "viridis", Normalize(low, high), "loss (nats)")
    finish(axes, "token index", windows, lines=True)
    return figure


def loss_derivative(table: pd.DataFrame, windows: pd.DataFrame | None = None) -> Figure:
    """Heatmap of d loss / d ln(token index): what e times more context gains. Blue = loss still falls with index.

    Columns tokens, index, derivative (nats), of one run. White is zero, limits are symmetric (99th percentile).
    """
    figure, axes = new_figure(
        "What more context gains: d loss / d ln(token index)",
        "blue: loss falls with the index; white: no change; red: it rises",
    )
    _, limit = limits(table["derivative"].abs(), (0, 99))
    norm = Normalize(-limit, limit)
    heatmap(figure, axes, table, "derivative", "RdBu_r", norm, "d loss / d ln(token index) (nats)")
    finish(axes, "token index", windows, lines=True)
    return figure


def heatmap(
    figure: Figure, axes: Axes, table: pd.DataFrame, value: str, colours: str, norm: Normalize, unit: str
) -> None:
    """tokens x index cells whose edges lie midway between neighbours, so uneven spacing is drawn as it is."""
    if "run" in table and table["run"].nunique() > 1:
        raise ValueError("a heatmap shows one run: select one of the table's runs first")
    grid = table.pivot_table(index="index", columns="tokens", values=value, aggfunc="mean")
    index = grid.index.to_numpy(dtype=float)
    x = cell_edges(grid.columns.to_numpy(dtype=float))
    y = cell_edges(index)
    y[0] = max(y[0], 0.3)  # the first index may be 0, which a logarithmic axis cannot show
    image = axes.pcolormesh(x, y, np.ma.masked_invalid(grid.to_numpy()), cmap=colours, norm=norm, rasterized=True)
    axes.set_yscale("log")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if y[0] <= tick <= y[-1]]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PLAIN)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    colour_bar(figure, axes, image, unit, extend="both")


MEASURES = {  # measure: (its name, its unit)
    "prefix_matching": ("prefix matching", "share of attention"),
    "previous_token": ("attention to the previous token", "share"),
    "duplicate_token": ("attention to earlier copies", "share"),
    "start_token": ("attention to the start token", "share"),
    "copying": ("copying score", "-1 to 1"),
    "copying_eigenvalues": ("copying, eigenvalue statistic", "-1 to 1"),
    "entropy": ("attention entropy", "share of the largest"),
    "qk_trace": ("QK trace", "no unit"),
    "in_context_learning_change": ("change of the in-context learning score", "nats"),
    "before_after": ("along the before-and-after vector", "nats"),
}


def name_and_unit(measure: str) -> tuple[str, str]:
    return MEASURES.get(measure, (in_words(measure), "score"))


def capital(text: str) -> str:
    """With a capital first letter, the others as they are: 'QK trace' stays."""
    return text[:1].upper() + text[1:]


CHANGES = ("in_context_learning_change", "before_after")  # what removing a head does: the axis follows the data


def head_scores_over_tokens(heads: pd.DataFrame, measure: str, windows: pd.DataFrame | None = None) -> Figure:
    """One line per head over tokens, coloured by head type; the notable heads are named.

    Columns tokens, layer, head, measure, value, optionally head_type ('previous_token' | 'induction' | 'other').
    Notable = last value at least 0.1 and at least half of the largest last value; at most MAXIMUM_LABELS. The y axis is
    0 to 1 for scores within it, else it follows the data.
    """
    table = of_measure(heads, measure)
    typed = "head_type" in table
    name, unit = name_and_unit(measure)
    figure, axes = new_figure(f"{capital(name)}, every head", "one line per head; LxHy = layer x, head y")
    lines = []
    for (layer, head), line in table.groupby(["layer", "head"]):
        line = line.sort_values("tokens")
        kind = str(line["head_type"].iloc[-1]) if typed else "other"
        last = float(line["value"].iloc[-1])
        lines.append((last, kind, f"L{layer}H{head}"))
        colour = HEAD_COLOURS.get(kind, FAINT) if typed else FAINT
        axes.plot(
            line["tokens"],
            line["value"],
            color=colour,
            linewidth=1.2 if kind == "other" else 2,
            marker=marker(line),
            zorder=2 if kind == "other" else 3,
        )
    if measure in CHANGES:
        axes.axhline(0, color=FAINT, linewidth=1)
    else:
        set_score_limits(axes, table["value"])
    words = f"{name} ({unit})"
    finish(axes, words if len(words) < WIDE else f"{name}\n({unit})", windows)
    name_ends(axes, notable(lines, typed))
    return figure


def set_score_limits(axes: Axes, values: pd.Series) -> None:
    if values.min() >= 0 and values.max() <= 1:
        axes.set_ylim(0, 1)
    elif values.min() >= -1 and values.max() <= 1:
        axes.set_ylim(-1, 1)
        axes.axhline(0, color=FAINT, linewidth=1)


def of_measure(heads: pd.DataFrame, measure: str) -> pd.DataFrame:
    table = heads[heads["measure"] == measure]
    if table.empty:
        there = ", ".join(sorted(map(str, heads["measure"].unique())))
        raise ValueError(f"no rows of {measure}; the table has {there or 'no rows'}")
    return table

"""Every head at one snapshot, and the curves that should move together."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from induction_cli.plots.style import (
    FAINT,
    HEAD_COLOURS,
    INK,
    SMALL,
    STEPS,
    TEXT,
    TOKENS,
    End,
    colour_bar,
    finish,
    headline,
    in_words,
    ink_on,
    marker,
    name_ends,
    new_figure,
)
from induction_cli.plots.training import CHANGES, capital, draw_score, name_and_unit, of_measure
from induction_cli.words import decimals_for, plain, short

SMALLEST_SCALE = 0.1  # nats: changes below it look like nothing, however small the largest is


def head_mosaic(heads: pd.DataFrame, measure: str, step: int | None = None) -> Figure:
    """Layer x head heatmap of one measure at one snapshot (the last one unless `step` says which), values in the cells.

    Columns step, layer, head, measure, value. A head without a value is grey with a dash.
    """
    table = of_measure(heads, measure)
    step = int(table["step"].max()) if step is None else step
    table = table[table["step"] == step]
    if table.empty:
        raise ValueError(f"no {measure} at step {step}")
    grid = table.pivot_table(index="layer", columns="head", values="value", aggfunc="mean", dropna=False)
    grid = grid.reindex(index=range(int(grid.index.max()) + 1), columns=range(int(grid.columns.max()) + 1))
    values = grid.to_numpy(dtype=float)
    layers, width = values.shape
    at = f"; step {step:,}"
    if "tokens" in table and pd.isna(table["tokens"].iloc[0]):  # a pretrained model, of which nobody knows
        at = ""
    elif "tokens" in table:
        at += f", {short(float(table['tokens'].iloc[0]))} tokens"
    name, unit = name_and_unit(measure)
    height = 2.0 + 0.45 * layers
    figure, axes = new_figure(f"{capital(name)} by layer and head", f"{unit}{at}", height)
    signed = bool(np.nanmin(values, initial=0.0) < 0)
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    top = max(SMALLEST_SCALE if measure in CHANGES else 1.0, largest)
    decimals = decimals_for(largest) if measure in CHANGES else 2
    norm = Normalize(-top if signed else 0.0, top)
    colours = matplotlib.colormaps["PuOr_r" if signed else "BuPu"].with_extremes(bad="#DDDDDD")
    image = axes.pcolormesh(np.ma.masked_invalid(values), cmap=colours, norm=norm, edgecolors="white", linewidth=1.5)
    size = float(np.clip(110 / max(width, 1), 5, SMALL))
    for (row, column), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else plain(value, decimals)
        text = text.replace("0.", ".", 1) if size < 8 else text
        ink = INK if np.isnan(value) else ink_on(colours(norm(value)))
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=ink)
    axes.set_xticks(np.arange(width) + 0.5, [str(head) for head in range(width)])
    axes.set_yticks(np.arange(layers) + 0.5, [str(layer) for layer in range(layers)])
    axes.tick_params(length=0, labelsize=SMALL, colors=INK)
    axes.set_xlabel("head (0 = first)", fontsize=TEXT, color=INK)
    axes.set_ylabel("layer (0 = first)", fontsize=TEXT, color=INK)
    colour_bar(figure, axes, image, unit)
    return figure


def co_timing(scores: pd.DataFrame, heads: pd.DataFrame, windows: pd.DataFrame | None = None) -> Figure:
    """In-context learning score above, induction formation below, on one time axis.

    scores: as `in_context_learning_score`, one run. heads: columns tokens, layer, head, measure, value; below is the
    largest value over all heads at each snapshot of 'prefix_matching' and 'previous_token' (whichever is there).
    """
    figure = Figure(figsize=(8, 6), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    above, below = figure.subplots(2, 1, sharex=True)
    headline(figure, above, "In-context learning and induction heads", "below: the best head at each snapshot")
    draw_score(above, scores, INK)
    above.axhline(0, color=FAINT, linewidth=1)
    ends = []
    for measure, kind in (("previous_token", "previous_token"), ("prefix_matching", "induction")):
        best = heads[heads["measure"] == measure].groupby("tokens")["value"].max()
        if len(best):
            below.plot(best.index, best, color=HEAD_COLOURS[kind], linewidth=2, marker=marker(best))
            ends.append(End(float(best.iloc[-1]), in_words(measure), HEAD_COLOURS[kind]))
    below.set_ylim(0, 1)
    finish(above, "in-context learning\nscore (nats)", windows)
    finish(below, "share of attention", windows, label=False)
    above.set_xlabel("")
    name_ends(below, ends)
    return figure


def in_steps(figure: Figure) -> Figure:
    """The figure with an honest time axis, where steps stand for tokens that nobody counted."""
    for axes in figure.axes:
        if axes.get_xlabel() == TOKENS:
            axes.set_xlabel(STEPS)
    return figure

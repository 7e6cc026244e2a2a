"""Figures of `generalize`: DataFrame in, Figure out; columns: <run>/generalize/tables/."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from induction_cli.plots.style import FAINT, HEAD_COLOURS, INK, SMALL, entitle, in_words

FUZZY = ("literal_copying", "translation", "pattern_matching")
NAMED = 3  # heads named in each panel
SMALLEST = (-0.05, 0.1)  # every panel shows at least this much, so that noise is not drawn large
TASKS = {
    "pattern_accuracy": "pattern task: accuracy\n(share of answers right)",
    "pattern_log_probability": "pattern task: log-probability\nof the right answer (nats)",
    "repeat_gain": "gain of repeated context\n(nats a token)",
}
REMOVED = {
    "none": "nothing",
    "induction": "induction",
    "random": "random",
    "random_same_layers": "random,\nsame layers",
}
CHANCE = {"pattern_accuracy": 1 / 4, "pattern_log_probability": -math.log(4)}  # there are four answers


def head_behaviours(table: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Prefix matching against each fuzzier behaviour, both less control; a dot a head, induction heads coloured.

    Columns layer, head, behaviour, excess, head_type (head_behaviours.csv); x, y, column, kind, correlation, low, high.
    """
    heads = table.pivot(index=["layer", "head", "head_type"], columns="behaviour", values="excess").reset_index()
    ranks = correlations[(correlations.column == "excess") & (correlations.kind == "spearman")]
    ranks = ranks[ranks.x == "prefix_matching"].set_index("y")
    there = [name for name in FUZZY if heads[name].notna().any()]
    figure, panels = _panels("Do the heads that match prefixes also do the fuzzier copying?", there)
    for axes, name in panels:
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
        for place, kind in enumerate(("other", "induction")):  # induction heads on top
            dots = heads[heads.head_type == kind]
            colour = HEAD_COLOURS[kind]
            axes.scatter(dots.prefix_matching, dots[name], s=14, color=colour, alpha=0.8, linewidth=0, zorder=2 + place)
        best = heads.nlargest(NAMED, name)
        for place, row in enumerate(best[best[name] > max(SMALLEST[1] / 2, best[name].max() / 2)].to_dict("records")):
            offset, side = ((-4, 2), "bottom") if place % 2 == 0 else ((-4, -2), "top")  # out of each other's way
            axes.annotate(
                f"L{row['layer']}H{row['head']}", (row["prefix_matching"], row[name]),
                xytext=offset, textcoords="offset points", ha="right", va=side,
                fontsize=SMALL - 2, color=HEAD_COLOURS[row["head_type"]],
            )  # fmt: skip
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, SMALLEST[0]), max(high, SMALLEST[1]))
        found = ranks.loc[name]
        note = f"rank correlation {found.correlation:.2f}"
        axes.set_title(f"{in_words(name)}\n{note}", loc="left", fontsize=SMALL - 1, color=FAINT)
        _finish(axes, "prefix matching less control\n(share of attention)")
    panels[0][0].set_ylabel("score less control (share of attention)", fontsize=SMALL, color=INK)
    _legend(figure, "indigo: induction head; olive: other")
    return figure


def few_shot(table: pd.DataFrame) -> Figure:
    """The tasks with heads removed: nothing, the induction heads, and a dot per random set; bars: 95% over prompts.

    Columns task, removed, value, low, high (few_shot.csv).
    """
    there = [task for task in TASKS if (table.task == task).any()]
    figure, panels = _panels("What is lost with the induction heads, and with random ones?", there)
    kinds = [kind for kind in REMOVED if (table.removed == kind).any()]
    for axes, task in panels:
        for place, kind in enumerate(kinds):
            these = table[(table.task == task) & (table.removed == kind)]
            spread = np.linspace(-0.2, 0.2, len(these)) if len(these) > 1 else np.zeros(len(these))
            value, low, high = (these[column].to_numpy() for column in ("value", "low", "high"))
            colour = {"none": INK, "induction": HEAD_COLOURS["induction"]}.get(kind, HEAD_COLOURS["other"])
            bars = np.stack((value - low, high - value))
            axes.errorbar(place + spread, value, bars, fmt="o", markersize=4, linewidth=0.8, color=colour)
        if task in CHANCE:
            axes.axhline(CHANCE[task], color=FAINT, linewidth=0.8, linestyle=(0, (4, 2)))
            axes.text(-0.45, CHANCE[task], "chance", fontsize=SMALL - 2, color=FAINT, va="bottom")
        axes.set_title(TASKS[task], loc="left", fontsize=SMALL - 1, color=FAINT)
        _finish(axes, "heads removed")
        axes.set_xticks(range(len(kinds)), [REMOVED[kind] for kind in kinds], fontsize=SMALL - 2)
        axes.set_xlim(-0.5, len(kinds) - 0.5)
    _legend(figure, "bars: 95% intervals over prompts; one dot per random set of as many heads")
    return figure


def _panels(title: str, names: Sequence[str]) -> tuple[Figure, list[tuple[Axes, str]]]:
    """One panel a name, side by side; at least one name."""
    figure = Figure(figsize=(8, 4.2), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    entitle(figure, title)
    return figure, list(zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True))


def _finish(axes: Axes, unit: str) -> None:
    axes.set_xlabel(unit, fontsize=SMALL, color=INK)
    axes.tick_params(labelsize=SMALL - 1, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, text: str) -> None:
    figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL - 1, color=FAINT)

"""Recall: what is learned when, longer sequences, and context against language."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from induction_cli.plots.style import FAINT, INK, RUN_COLOURS, SMALL, STEPS, End, frame, headline, spread

MEMORY_COLOURS = {"copy_recall": "#0072B2", "match_recall": "#D55E00", "previous_recall": "#009E73"}
MEMORY_NAMES = {"copy_recall": "W_O² copies", "match_recall": "W_K² matches", "previous_recall": "W_K¹ previous"}
KIND_COLOURS = {"in_context": "#3B2F8F", "global": "#9A8F3C"}
KIND_NAMES = {"in_context": "in context", "global": "global"}
SHARE = (-0.02, 1.03)


def _grid(n: int, height: float, title: str, note: str = "") -> tuple[Figure, list[Axes]]:
    """A figure of n panels, at most three side by side; height of a row in inches."""
    rows = -(-n // 3)
    columns = -(-n // rows)
    figure = Figure(figsize=(max(8, 4.2 * columns), 0.8 + height * rows), dpi=100, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    headline(figure, grid[0], title, "")
    if note:
        figure.supxlabel(note, x=0.01, ha="left", fontsize=SMALL, color=FAINT)
    for axes in grid[n:]:
        axes.set_axis_off()
    return figure, grid[:n]


def _frame(axes: Axes, x: str, y: str, title: str = "") -> None:
    frame(axes, x, y)
    axes.set_title(title, loc="left", fontsize=SMALL, color=FAINT)


def _networks(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(name, rows) of each network, in order of appearance."""
    groups = table.groupby(["positions", "n_layers"], sort=False)
    return [(_name(positions, n_layers), rows) for (positions, n_layers), rows in groups]


def _name(positions: str, n_layers: int) -> str:
    return f"{'no' if positions == 'none' else positions} positions, {n_layers} layers"


def _seeds_and_mean(axes: Axes, table: pd.DataFrame, x: str, y: str, colour: str) -> float:
    """A thin line per seed and a thick one of their mean; the mean's last value."""
    for _, line in table.groupby("seed"):
        axes.plot(line[x], line[y], color=colour, linewidth=0.7, alpha=0.4)
    mean = table.groupby(x)[y].mean()
    axes.plot(mean.index, mean, color=colour, linewidth=2.2, marker="o" if len(mean) == 1 else None)
    return float(mean.iloc[-1])


def _name_ends(axes: Axes, height: float, ends: list[End]) -> None:
    """As style.name_ends, for panels side by side: `height` of a panel in inches."""
    ends = sorted(ends, key=lambda end: end.y)
    low, high = axes.get_ylim()
    heights = [(end.y - low) / (high - low) for end in ends]
    gap, last = 1.3 * SMALL / 72 / (0.75 * height), len(ends) - 1
    for i, (end, place) in enumerate(zip(ends, spread(heights, gap), strict=True)):
        inside = min(max(place, i * gap), 1 - (last - i) * gap)
        axes.text(1.02, inside, end.text, transform=axes.transAxes, fontsize=SMALL, color=end.colour, va="center")


def learning(training: pd.DataFrame) -> Figure:
    """Accuracy over steps, in context and global; a panel per network, a thin line per seed, a thick one of their mean.

    Columns positions, n_layers, seed, step, in_context_accuracy, global_accuracy.
    """
    networks = _networks(training)
    figure, grid = _grid(len(networks), 3.4, "When what follows a trigger, and what follows other tokens, is learned")
    for axes, (name, table) in zip(grid, networks, strict=True):
        ends = [
            End(_seeds_and_mean(axes, table, "step", f"{kind}_accuracy", colour), KIND_NAMES[kind], colour)
            for kind, colour in KIND_COLOURS.items()
        ]
        _frame(axes, STEPS, "accuracy (share)", name)
        axes.set_ylim(*SHARE)
        _name_ends(axes, 3.4, ends)
    return figure


def memories(probes: pd.DataFrame) -> Figure:
    """Recall of each memory over steps (logarithmic from 1 on); a panel per network, lines as in `learning`.

    Columns positions, n_layers, seed, step, probe, value.
    """
    networks = _networks(probes[probes["probe"].isin(MEMORY_COLOURS)])
    figure, grid = _grid(len(networks), 3.6, "Which memory is learned first")
    for axes, (name, table) in zip(grid, networks, strict=True):
        ends = []
        for probe, colour in MEMORY_COLOURS.items():
            if len(mine := table[table["probe"] == probe]):
                last = _seeds_and_mean(axes, mine, "step", "value", colour)
                ends.append(End(last, MEMORY_NAMES[probe], colour))
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(0, max(1, table["step"].max()))
        _frame(axes, STEPS, "recall (share right)", name)
        axes.set_ylim(*SHARE)
        _name_ends(axes, 3.6, ends)
    return figure


def lengths(table: pd.DataFrame, trained: int) -> Figure:
    """In-context accuracy, and attention to the place before, at lengths up to several times the training length.

    Columns positions, n_layers, seed, length, in_context_accuracy, previous_token_attention. Bars: range of the seeds.
    """
    note = f"triggers stand in the last {trained} tokens; bars: range over seeds; dashed: 3 layers"
    figure, grid = _grid(2, 4.2, f"What holds beyond the training length of {trained} tokens", note)
    measures = {
        "in_context_accuracy": "in-context accuracy",
        "previous_token_attention": "attention to the place before",
    }
    styles = dict(zip(sorted(table["n_layers"].unique()), ("-", "--", ":", "-."), strict=False))
    colours = dict(zip(table["positions"].unique(), RUN_COLOURS, strict=False))
    known = sorted(table["length"].unique())
    for axes, (measure, name) in zip(grid, measures.items(), strict=True):
        ends = []
        for (positions, n_layers), rows in table.groupby(["positions", "n_layers"], sort=False):
            seeds = rows.groupby("length")[measure]
            mean, colour = seeds.mean(), colours[positions]
            axes.plot(mean.index, mean, color=colour, linestyle=styles[n_layers], marker="o", markersize=4)
            axes.vlines(mean.index, seeds.min(), seeds.max(), color=colour, linewidth=1.2, alpha=0.5)
            ends.append(End(float(mean.iloc[-1]), f"{positions}, {n_layers} layers", colour))
        axes.set_xscale("log", base=2)
        axes.set_xticks(known, [str(length) for length in known])
        axes.xaxis.set_minor_locator(NullLocator())
        _frame(axes, "length (tokens)", "share", name)
        axes.set_ylim(*SHARE)
        _name_ends(axes, 4.2, ends)
    return figure


def balance(prompts: pd.DataFrame) -> Figure:
    """Lead of the in-context follower's logit over its count in the prompt, a line per count of the global follower.

    Columns positions, n_layers, seed, context_count, global_count, lead, predicted_lead; means over prompts and seeds.
    """
    networks = _networks(prompts)
    note = "colours: occurrences of the language's follower; full: trained, dashed: closed form of the construction"
    figure, grid = _grid(len(networks), 4.4, "Where context and language balance: a lead of 0", note)
    common = sorted(prompts["global_count"].unique())
    for axes, (name, table) in zip(grid, networks, strict=True):
        ends = []
        for count, colour in zip(common, RUN_COLOURS, strict=False):
            means = table[table["global_count"] == count].groupby("context_count")[["lead", "predicted_lead"]].mean()
            axes.plot(means.index, means["lead"], color=colour, linewidth=2, marker="o", markersize=4)
            axes.plot(means.index, means["predicted_lead"], color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
            ends.append(End(float(means["lead"].iloc[-1]), f"{count} global", colour))
        axes.axhline(0, color=FAINT, linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _frame(axes, "in-context follower's occurrences in the prompt", "lead of its logit (nats)", name)
        _name_ends(axes, 4.4, ends)
    return figure


def agreement(prompts: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """The trained model's lead against the closed form's: small dots are prompts, large ones means of equal counts.

    prompts as for `balance`; table has positions, n_layers, seed, over, correlation, error.
    """
    networks = _networks(prompts)
    note = "small: prompts of all seeds; large: means of prompts with equal counts, each seed; dashed: equal"
    figure, grid = _grid(len(networks), 5.0, "Does the construction's closed form predict the trained model?", note)
    for axes, (name, rows), (_, found) in zip(grid, networks, _networks(table), strict=True):
        cells = rows.groupby(["seed", "context_count", "global_count"])[["lead", "predicted_lead"]].mean()
        axes.scatter(rows["predicted_lead"], rows["lead"], s=4, color=FAINT, alpha=0.3, linewidth=0, rasterized=True)
        axes.scatter(cells["predicted_lead"], cells["lead"], s=22, color=KIND_COLOURS["in_context"], linewidth=0)
        ends = [rows[["lead", "predicted_lead"]].min().min(), rows[["lead", "predicted_lead"]].max().max()]
        axes.plot(ends, ends, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        means = found.groupby("over")[["correlation", "error"]].mean()
        said = "; ".join(
            f"{over}: r {row['correlation']:.2f}, error {row['error']:.1f}" for over, row in means.iterrows()
        )
        _frame(axes, "closed form's lead (nats)", "trained model's lead (nats)", f"{name}; {said}")
    return figure

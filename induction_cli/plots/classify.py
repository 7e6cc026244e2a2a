"""The minimal classification task: curves and their order, grids over the data, and three nested logits."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from induction_cli.plots.style import (
    FAINT,
    INK,
    PLAIN,
    SMALL,
    STEPS,
    TEXT,
    End,
    entitle,
    frame,
    ink_on,
    name_ends,
    new_figure,
)
from induction_cli.terminal import plural

SYSTEMS = {"network": "the network", "two_parameter": "two parameters"}
EVENTS = {  # colours go with the names, in every figure
    "in_context": ("in context, new classes", "#3B2F8F"),
    "swapped_labels": ("in context, labels swapped", "#0072B2"),
    "in_weights": ("in weights", "#D55E00"),
    "context_label_accuracy": ("answers a context label", "#000000"),
    "item_label_attention": ("layer 1: label to its item", "#C2528B"),
    "target_labels_attention": ("layer 2: target to labels", "#B8860B"),
    "target_correct_attention": ("layer 2: to right labels", "#009E73"),
}
SYMBOLS = {
    "n_classes": "classes K",
    "burstiness": "burstiness B",
    "epsilon": "variation within classes, epsilon",
    "alpha": "Zipf exponent alpha",
    "n_pairs": "pairs N",
    "n_labels": "labels L",
}


def named(axes: Axes, x: str, y: str) -> None:
    """Axis names of our own: here time is not in tokens."""
    axes.margins(x=0)
    frame(axes, x, y)


def curves(table: pd.DataFrame) -> Figure:
    """All accuracies and progress measures of one system over training: thin each seed, bold their mean.

    Columns system, seed, step, event, value (a share).
    """
    system, n_seeds = table["system"].iloc[0], table["seed"].nunique()
    title = f"{SYSTEMS[system].capitalize()}: does in-context learning jump after a plateau?"
    what = "probability of the right label" if system == "two_parameter" else "accuracy"
    note = f"bold: mean of {plural(n_seeds, 'seed')}, thin: each. Solid: {what}; dashed: progress measures"
    figure, axes = new_figure(title, note, height=5.2)
    ends = []
    for event, curve in table.groupby("event", sort=False):
        name, colour = EVENTS[str(event)]
        wide = curve.pivot(index="step", columns="seed", values="value")
        style = "-" if event in ("in_context", "swapped_labels", "in_weights") else (0, (4, 1.5))
        axes.plot(wide.index, wide.to_numpy(), color=colour, linewidth=0.6, alpha=0.35, linestyle=style)
        axes.plot(wide.index, wide.mean(axis=1), color=colour, linewidth=2, linestyle=style)
        ends.append(End(float(wide.iloc[-1].mean()), name, colour))
    axes.set_ylim(0, 1.02)
    named(axes, STEPS, "accuracy or attention (share)")
    name_ends(axes, ends)
    return figure


def events(onsets: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """In what order things are learned: a row per event, a dot per seed, the bar an interval of the mean.

    onsets: system, seed, event, step; summary: event, step, step_low, step_high.
    """
    note = "half of the final rise; dots: seeds; bar: mean, 95% interval"
    title = f"{SYSTEMS[onsets['system'].iloc[0]].capitalize()}: what is learned before the jump, what with it?"
    figure, axes = new_figure(title, note, height=3.8)
    rows = summary.dropna(subset=["step"]).sort_values("step", ascending=False)
    for place, row in enumerate(rows.itertuples()):
        colour = EVENTS[row.event][1]
        seeds = onsets[onsets["event"] == row.event]["step"]
        axes.plot([row.step_low, row.step_high], [place, place], color=colour, linewidth=7, alpha=0.35)
        axes.plot(row.step, place, "|", color=colour, markersize=16, markeredgewidth=2.5)
        axes.plot(seeds, np.full(len(seeds), place), "o", color=colour, markersize=4)
    axes.set_yticks(range(len(rows)), [EVENTS[event][0] for event in rows["event"]])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    named(axes, STEPS, "")
    axes.set_xlim(0, max(1.05 * onsets["step"].max(), 1) if len(rows) else 1)
    if rows.empty:
        axes.set_axis_off()
        said = "no curve rose, so none has a time at which it did"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", fontsize=TEXT, color=FAINT)
    return figure


def lines_over(grid: pd.DataFrame, varied: str) -> Figure:
    """The three accuracies at the end over one setting, a panel per system: mean of the seeds, and each as a dot."""
    systems = list(dict.fromkeys(grid["system"]))
    figure, axes = new_figure(
        f"Learning in context or in weights: dependence on {SYMBOLS.get(varied, varied)}",
        "accuracy at the end of training, averaged over all else that varies; line: mean over seeds, dots: seeds",
    )
    grid = grid.groupby(["system", "seed", varied], sort=False).mean(numeric_only=True).reset_index()
    ends = []
    for system in systems:
        for accuracy in ("in_context", "swapped_labels", "in_weights"):
            name, colour = EVENTS[accuracy]
            rows = grid[grid["system"] == system]
            means = rows.groupby(varied)[accuracy].mean()
            first = system == systems[0]
            axes.plot(means.index, means, color=colour, linewidth=2, linestyle="-" if first else (0, (2, 1.5)))
            axes.plot(rows[varied], rows[accuracy], "o" if first else "x", color=colour, markersize=4, alpha=0.6)
            label = name if len(systems) == 1 else f"{name}, {SYSTEMS[system]}"
            ends.append(End(float(means.iloc[-1]), label, colour))
    axes.set_ylim(0, 1.02)
    named(axes, SYMBOLS.get(varied, varied), "accuracy (share)")
    values = sorted(grid[varied].unique())
    if values[0] > 0 and values[-1] >= 8 * values[0]:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values], minor=False)
    axes.set_xticks([], minor=True)
    name_ends(axes, ends)
    return figure


def heatmap(grid: pd.DataFrame, accuracy: str, x: str, y: str) -> Figure:
    """One accuracy at the end of training over two settings, mean over seeds; a panel per system, side by side."""
    systems = list(dict.fromkeys(grid["system"]))
    figure = Figure(figsize=(0.8 + 3.9 * len(systems), 4.2), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(systems), squeeze=False)[0]
    for axes, system in zip(panels, systems, strict=True):
        rows = grid[grid["system"] == system]
        wide = rows.pivot_table(index=y, columns=x, values=accuracy, aggfunc="mean").sort_index()
        image = axes.imshow(wide.to_numpy(), vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(wide.to_numpy()):
            if np.isfinite(value):
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=ink_on(image.to_rgba(value)))
        axes.set_xticks(range(len(wide.columns)), [f"{value:g}" for value in wide.columns])
        axes.set_yticks(range(len(wide)), [f"{value:g}" for value in wide.index])
        axes.set_title(f"{SYSTEMS[system]}, {rows['seed'].nunique()} seeds", loc="left", fontsize=SMALL, color=FAINT)
        axes.set_xlabel(SYMBOLS.get(x, x), fontsize=TEXT, color=INK)
        axes.spines[:].set_visible(False)
    panels[0].set_ylabel(SYMBOLS.get(y, y), fontsize=TEXT, color=INK)
    entitle(figure, f"Accuracy {EVENTS[accuracy][0]}")
    bar = figure.colorbar(image, ax=panels, pad=0.02)
    bar.set_label("accuracy (share), end of training", fontsize=SMALL, color=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def landscape(table: pd.DataFrame, flow_table: pd.DataFrame) -> Figure:
    """Loss over the two inner logits at one xi, with the gradient flow of every start laid over it.

    Columns xi, beta_1, alpha, loss (nats); flow: start, time, beta_1, alpha, p.
    """
    wide = table.pivot(index="alpha", columns="beta_1", values="loss")
    note = f"loss at xi = {table['xi'].iloc[0]:.1f}; white: gradient flow, ring: start, dot: where p passes 1/2"
    figure, axes = new_figure("Three nested logits: a plateau, and the cliff where the inner two have met", note, 5.2)
    image = axes.contourf(wide.columns, wide.index, wide.to_numpy(), levels=24, cmap="viridis")
    for _, path in flow_table.groupby("start"):
        axes.plot(path["beta_1"], path["alpha"], color="white", linewidth=0.9, alpha=0.9)
        axes.plot(path["beta_1"].iloc[0], path["alpha"].iloc[0], "o", color="white", markerfacecolor="none")
        jumped = path[path["p"] >= 0.5]
        if len(jumped):
            axes.plot(jumped["beta_1"].iloc[0], jumped["alpha"].iloc[0], "o", color="#D55E00", markersize=5)
    named(axes, "inner logit beta_1 (attention to the previous token)", "middle logit alpha (attention to the match)")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("loss (nats)", fontsize=TEXT, color=INK)
    return figure


def flow(table: pd.DataFrame, times: pd.DataFrame) -> Figure:
    """What is learned in what order, from the start that waits longest: shares over time, and the predicted jump.

    Columns start, time, s1, s2, p, q; times: predicted, one row per start within a seed, in the order of `start`.
    """
    of_start = times[times["seed"] == times["seed"].iloc[0]].reset_index(drop=True)
    longest = int(of_start["predicted"].idxmax())
    path = table[table["start"] == longest]
    begins = ", ".join(f"{name} = {of_start[name][longest]:g}" for name in ("beta_1", "alpha", "xi"))
    figure, axes = new_figure("The outermost logit is learned first, then the inner two together", f"start: {begins}")
    parts = {
        "answers a context label": (path["p"] + path["q"], EVENTS["context_label_accuracy"][1]),
        "answers the right label": (path["p"], EVENTS["in_context"][1]),
        "layer 2 on the right label": (path["s2"], EVENTS["target_correct_attention"][1]),
        "layer 1 on the previous token": (path["s1"], EVENTS["item_label_attention"][1]),
    }
    for value, colour in parts.values():
        axes.plot(path["time"], value, color=colour, linewidth=2)
    at = of_start["predicted"][longest]
    axes.axvline(at, color=FAINT, linewidth=1, linestyle=(0, (4, 2)))
    above = axes.get_xaxis_transform()  # where no curve is
    axes.text(at, 1.01, "predicted jump", transform=above, ha="center", va="bottom", color=FAINT, fontsize=SMALL)
    axes.set_ylim(0, 1.02)
    named(axes, "time (gradient flow, learning rate x steps)", "probability or attention (share)")
    name_ends(axes, [End(float(value.iloc[-1]), name, colour) for name, (value, colour) in parts.items()])
    return figure


def jump_times(table: pd.DataFrame) -> Figure:
    """Predicted against simulated time of the jump, a dot per start and seed. Columns predicted, simulated, xi."""
    note = "a dot per start and seed of noisy gradient descent; the line is equality"
    figure, axes = new_figure("The time of the jump follows from the initial values", note, height=5.0)
    shades = ("#0072B2", "#D55E00", "#009E73", "#000000", "#C2528B")
    ends = [table[["predicted", "simulated"]].min().min(), table[["predicted", "simulated"]].max().max()]
    axes.plot(ends, ends, color=FAINT, linewidth=1)
    for place, (xi, rows) in enumerate(table.groupby("xi")):
        dots = axes.plot(rows["predicted"], rows["simulated"], "o", alpha=0.5, markersize=5, label=f"xi = {xi:g}")
        dots[0].set_color(shades[place % len(shades)])
    axes.set_xscale("log")
    axes.set_yscale("log")
    named(axes, "predicted time (learning rate x steps)", "simulated time (learning rate x steps)")
    axes.margins(x=0.05)
    axes.autoscale()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(PLAIN)
        axis.set_minor_formatter(NullFormatter())
    axes.legend(title="initial outer logit", frameon=False, fontsize=SMALL)
    return figure

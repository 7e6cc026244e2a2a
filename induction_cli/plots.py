"""Figures from tables: DataFrame in, matplotlib Figure out; no files, no models, no global state.

One style for all: 800 pixels wide at 100 dots per inch; time is 'training tokens (millions)'; the phase change is a
light band labelled above the axes; lines are named at their right end, not in a legend; a head type has one colour
everywhere. Columns are those of the run directory (design.md); `windows` is tables/phase_change.csv or None, of which
only start_tokens and end_tokens are read, and rows without a window (nan) draw nothing. Inputs are never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

# Any two differ by at least 37 (CIE Lab) in normal, protan, deutan and tritan vision (Machado 2009), and by 3.3 to 1 in
# luminance from white.
HEAD_COLOURS = {"previous_token": "#C2528B", "induction": "#3B2F8F", "other": "#9A8F3C"}
# Okabe and Ito's palette, its yellow and sky blue darkened or left out for white paper.
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#C2528B", "#B8860B", "#7A3E9D")
INK, FAINT, BAND = "#222222", "#6B6B6B", "#DCE6EE"
TOKENS = "training tokens (millions)"
TEXT, SMALL = 12.0, 10.0
MEASURES = {
    "prefix_matching": "prefix matching (share of attention)",
    "previous_token": "attention to the previous token (share)",
    "duplicate_token": "attention to earlier copies (share)",
    "start_token": "attention to the start token (share)",
    "copying": "copying score (-1 to 1)",
    "copying_eigenvalues": "copying, eigenvalue statistic (-1 to 1)",
    "entropy": "attention entropy (share of the largest possible)",
    "qk_trace": "trace of the QK circuit (no unit)",
    "in_context_learning_change": "change of the score (nats)",
    "before_after": "along the before-and-after vector (nats)",
}
CHANGES = ("in_context_learning_change", "before_after")  # what removing a head does: the axis follows the data
MAXIMUM_LABELS = 6  # heads named at the right end of a plot


def training_loss(training: pd.DataFrame, windows: pd.DataFrame | None = None, log_tokens: bool = False) -> Figure:
    """Training loss over tokens: every step faint, a running mean over 2% of the steps in front.

    Columns tokens, loss (nats), optionally run.
    """
    figure, axes = _figure("Training loss", f"faint: each step; line: running mean over {_PERCENT}% of the steps")
    ends = []
    for run, table, colour in _runs(training):
        table = table[table["tokens"] > 0] if log_tokens else table
        millions = table["tokens"] / 1e6
        smooth = table["loss"].rolling(max(1, len(table) * _PERCENT // 100), center=True, min_periods=1).mean()
        axes.plot(millions, table["loss"], color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(millions, smooth, color=colour, linewidth=2, marker=_marker(table))
        if run and len(table):
            ends.append(_End(float(smooth.iloc[-1]), run, colour))
    if log_tokens:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_PLAIN)
    _finish(axes, "loss (nats)", windows)
    _name_ends(axes, ends)
    return figure


_PERCENT = 2


def in_context_learning_score(scores: pd.DataFrame, windows: pd.DataFrame | None = None) -> Figure:
    """In-context learning score over tokens: windowed as a line with its interval, exact as faint points.

    Columns tokens, kind ('exact' | 'windowed'), in_context_learning_score (nats, negative = more in-context learning),
    low, high, optionally run: one colour a run then, named at its end; more than four runs are drawn without points.
    """
    runs = _runs(scores)
    crowded = len(runs) > 4
    note = "line and ribbon: averaged around both indices, 95% interval"
    figure, axes = _figure(
        "In-context learning score: loss at index 500 less loss at index 50",
        note if crowded else f"{note}; points: exactly these indices",
    )
    ends = []
    for place, (run, table, colour) in enumerate(runs):
        style = ("-", "--", ":")[place // len(RUN_COLOURS) % 3]
        last = _draw_score(axes, table, colour, style, points=not crowded)
        if run and last is not None:
            ends.append(_End(last, run, colour))
    axes.axhline(0, color=FAINT, linewidth=1)
    _finish(axes, "in-context learning score (nats)", windows)
    _name_ends(axes, ends)
    return figure


def loss_by_index(table: pd.DataFrame, windows: pd.DataFrame | None = None) -> Figure:
    """Heatmap of loss over training and token index. Columns tokens, index, loss (nats), of one run."""
    figure, axes = _figure("Loss by token index", "colour limits: 1st and 99th percentile")
    low, high = _limits(table["loss"], (1, 99))
    _heatmap(figure, axes, table, "loss", "viridis", Normalize(low, high), "loss (nats)")
    _finish(axes, "token index", windows, lines=True)
    return figure


def loss_derivative(table: pd.DataFrame, windows: pd.DataFrame | None = None) -> Figure:
    """Heatmap of d loss / d ln(token index): what e times more context gains. Blue = loss still falls with index.

    Columns tokens, index, derivative (nats), of one run. White is zero, limits are symmetric (99th percentile).
    """
    figure, axes = _figure(
        "What more context gains: d loss / d ln(token index)",
        "blue: loss falls with the index; white: no change; red: it rises",
    )
    _, limit = _limits(table["derivative"].abs(), (0, 99))
    norm = Normalize(-limit, limit)
    _heatmap(figure, axes, table, "derivative", "RdBu_r", norm, "d loss / d ln(token index) (nats)")
    _finish(axes, "token index", windows, lines=True)
    return figure


def head_scores_over_tokens(heads: pd.DataFrame, measure: str, windows: pd.DataFrame | None = None) -> Figure:
    """One line per head over tokens, coloured by head type; the notable heads are named.

    Columns tokens, layer, head, measure, value, optionally head_type ('previous_token' | 'induction' | 'other').
    Notable = last value at least 0.1 and at least half of the largest last value; at most MAXIMUM_LABELS. The y axis is
    0 to 1 for scores within it, else it follows the data.
    """
    table = _of_measure(heads, measure)
    typed = "head_type" in table
    figure, axes = _figure(f"{_words(measure).capitalize()}, every head", "one line per head; LxHy = layer x, head y")
    lines = []
    for (layer, head), line in table.groupby(["layer", "head"]):
        line = line.sort_values("tokens")
        kind = str(line["head_type"].iloc[-1]) if typed else "other"
        last = float(line["value"].iloc[-1])
        lines.append((last, kind, f"L{layer}H{head}"))
        colour = HEAD_COLOURS.get(kind, FAINT) if typed else FAINT
        axes.plot(
            line["tokens"] / 1e6,
            line["value"],
            color=colour,
            linewidth=1.2 if kind == "other" else 2,
            marker=_marker(line),
            zorder=2 if kind == "other" else 3,
        )
    if measure in CHANGES:
        axes.axhline(0, color=FAINT, linewidth=1)
    else:
        _set_score_limits(axes, table["value"])
    _finish(axes, MEASURES.get(measure, f"{_words(measure)} (score)"), windows)
    _name_ends(axes, _notable(lines, typed))
    return figure


def head_mosaic(heads: pd.DataFrame, measure: str, step: int | None = None) -> Figure:
    """Layer x head heatmap of one measure at one snapshot (the last one unless `step` says which), values in the cells.

    Columns step, layer, head, measure, value. A head without a value is grey with a dash.
    """
    table = _of_measure(heads, measure)
    step = int(table["step"].max()) if step is None else step
    table = table[table["step"] == step]
    if table.empty:
        raise ValueError(f"no {measure} at step {step}")
    grid = table.pivot_table(index="layer", columns="head", values="value", aggfunc="mean", dropna=False)
    grid = grid.reindex(index=range(int(grid.index.max()) + 1), columns=range(int(grid.columns.max()) + 1))
    values = grid.to_numpy(dtype=float)
    layers, width = values.shape
    at = f"step {step:,}"
    if "tokens" in table:
        at += f", {round(float(table['tokens'].iloc[0]) / 1e6, 2):,g} million tokens"
    unit = MEASURES.get(measure, f"{_words(measure)} (score)")
    height = 2.0 + 0.45 * layers
    figure, axes = _figure(f"{_words(measure).capitalize()} by layer and head", f"{unit}; {at}", height)
    signed = bool(np.nanmin(values, initial=0.0) < 0)
    top = max(1.0, float(np.nanmax(np.abs(values), initial=0.0)))
    norm = Normalize(-top if signed else 0.0, top)
    colours = matplotlib.colormaps["PuOr_r" if signed else "BuPu"].with_extremes(bad="#DDDDDD")
    image = axes.pcolormesh(np.ma.masked_invalid(values), cmap=colours, norm=norm, edgecolors="white", linewidth=1.5)
    size = float(np.clip(110 / max(width, 1), 5, SMALL))
    for (row, column), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.2f}".replace("0.", ".", 1) if size < 8 else f"{value:.2f}"
        ink = INK if np.isnan(value) else _ink_on(colours(norm(value)))
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=ink)
    axes.set_xticks(np.arange(width) + 0.5, [str(head) for head in range(width)])
    axes.set_yticks(np.arange(layers) + 0.5, [str(layer) for layer in range(layers)])
    axes.tick_params(length=0, labelsize=SMALL, colors=INK)
    axes.set_xlabel("head (0 = first)", fontsize=TEXT, color=INK)
    axes.set_ylabel("layer (0 = first)", fontsize=TEXT, color=INK)
    _colour_bar(figure, axes, image, "")  # the note says the unit: few layers leave no room for it here
    return figure


def co_timing(scores: pd.DataFrame, heads: pd.DataFrame, windows: pd.DataFrame | None = None) -> Figure:
    """In-context learning score above, induction formation below, on one time axis.

    scores: as `in_context_learning_score`, one run. heads: columns tokens, layer, head, measure, value; below is the
    largest value over all heads at each snapshot of 'prefix_matching' and 'previous_token' (whichever is there).
    """
    figure = Figure(figsize=(8, 6), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    above, below = figure.subplots(2, 1, sharex=True)
    _head(figure, above, "In-context learning and induction heads", "below: the best head at each snapshot")
    _draw_score(above, scores, INK)
    above.axhline(0, color=FAINT, linewidth=1)
    ends = []
    for measure, kind in (("previous_token", "previous_token"), ("prefix_matching", "induction")):
        best = heads[heads["measure"] == measure].groupby("tokens")["value"].max()
        if len(best):
            below.plot(best.index / 1e6, best, color=HEAD_COLOURS[kind], linewidth=2, marker=_marker(best))
            ends.append(_End(float(best.iloc[-1]), _words(measure), HEAD_COLOURS[kind]))
    below.set_ylim(0, 1)
    _finish(above, "in-context learning\nscore (nats)", windows)
    _finish(below, "share of attention", windows, label=False)
    above.set_xlabel("")
    _name_ends(below, ends)
    return figure


# What every figure shares.

_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


@dataclass(frozen=True)
class _End:
    """A name to write beside the right end of a line; y in the axis's unit."""

    y: float
    text: str
    colour: str


def _figure(title: str, note: str, height: float = 4.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    axes = figure.subplots()
    _head(figure, axes, title, note)
    return figure, axes


def _head(figure: Figure, axes: Axes, title: str, note: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=TEXT + 1, fontweight="bold", color=INK)
    # The space between the note and the axes is where the band's label goes.
    axes.set_title(note, loc="left", fontsize=SMALL, color=FAINT, pad=20)


def _finish(axes: Axes, unit: str, windows: pd.DataFrame | None, *, label: bool = True, lines: bool = False) -> None:
    """Axis names, spines and the phase-change band; call it when the data is drawn, as it freezes the time limits."""
    axes.set_xlabel(TOKENS, fontsize=TEXT, color=INK)
    axes.set_ylabel(unit, fontsize=TEXT, color=INK)
    axes.tick_params(labelsize=SMALL, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    if not lines:
        axes.margins(x=0)
    axes.set_xlim(*axes.get_xlim())
    _band(axes, windows, label=label, lines=lines)


def _band(axes: Axes, windows: pd.DataFrame | None, *, label: bool, lines: bool) -> None:
    """Phase-change windows: a light band, or on a heatmap two lines, since a band would change its colours."""
    if windows is None or windows.empty:
        return
    named: list[float] = []
    for window in windows.dropna(subset=["start_tokens", "end_tokens"]).itertuples():
        start, end = float(window.start_tokens) / 1e6, float(window.end_tokens) / 1e6
        if lines:
            for side in (start, end):
                halo = [withStroke(linewidth=3, foreground="white")]
                axes.axvline(side, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), path_effects=halo)
        else:
            axes.axvspan(start, end, color=BAND, linewidth=0, zorder=0)
        to_axes = axes.transData + axes.transAxes.inverted()
        left, right = (float(to_axes.transform((side, 0.5))[0]) for side in (start, end))
        middle = float(np.clip((left + right) / 2, 0.07, 0.93))
        if label and all(abs(middle - other) > 0.16 for other in named):  # 0.16 = the width of the words
            axes.text(
                middle, 1.01, "phase change", transform=axes.transAxes, ha="center", va="bottom",
                fontsize=SMALL, color="#3F5B73",
            )  # fmt: skip
            named.append(middle)


def _name_ends(axes: Axes, ends: Sequence[_End]) -> None:
    """Write names right of the axes at the height of their lines, moved apart where they would overlap."""
    if not ends:
        return
    ends = sorted(ends, key=lambda end: end.y)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    heights = [(end.y - low) / (high - low) for end in ends]
    # A line of text is 1.25 font sizes high; the axes fill about 70% of the figure, less where panels share it.
    panels = max(1, len(axes.figure.axes))
    line = 1.25 * SMALL / 72 / (0.7 * axes.figure.bbox.height / axes.figure.dpi / panels)
    places = _spread(heights, min(line, 1.0 / len(ends)))
    size = SMALL * min(1.0, 1.0 / (len(ends) * line))
    for end, height, place in zip(ends, heights, places, strict=True):
        axes.annotate(
            end.text,
            xy=(1.0, height),
            xytext=(1.02, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=size,
            color=end.colour,
            va="center",
            annotation_clip=False,
        )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Sorted heights moved as little as needed so that neighbours are `gap` apart (least squares, pooling)."""
    blocks: list[tuple[float, int]] = []  # (mean height of the block less the gaps, how many)
    for index, height in enumerate(heights):
        mean, count = height - index * gap, 1
        while blocks and blocks[-1][0] > mean:
            other, others = blocks.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        blocks.append((mean, count))
    flat = [mean for mean, count in blocks for _ in range(count)]
    return [mean + index * gap for index, mean in enumerate(flat)]


def _notable(lines: Iterable[tuple[float, str, str]], typed: bool) -> list[_End]:
    """Names for the notable heads, and one for each head type of which no head is notable."""
    ordered = sorted((line for line in lines if np.isfinite(line[0])), reverse=True)
    if not ordered:
        return []
    threshold = max(0.1, ordered[0][0] / 2)
    chosen = [line for line in ordered if line[0] >= threshold][:MAXIMUM_LABELS]
    if not typed:
        return [_End(last, name, INK) for last, _, name in chosen]
    ends = [_End(last, f"{name} {_words(kind)}", HEAD_COLOURS.get(kind, FAINT)) for last, kind, name in chosen]
    for kind in {kind for _, kind, _ in ordered} - {kind for _, kind, _ in chosen}:
        rest = [last for last, other, _ in ordered if other == kind]
        heads = "1 head" if len(rest) == 1 else f"{len(rest)} heads"
        ends.append(_End(float(np.median(rest)), f"{_words(kind)} ({heads})", HEAD_COLOURS.get(kind, FAINT)))
    return ends


def _draw_score(axes: Axes, table: pd.DataFrame, colour: str, style: str = "-", points: bool = True) -> float | None:
    """Score line, ribbon and points of one run; the last value drawn, or None for an empty table."""
    kinds = table["kind"] if "kind" in table else pd.Series("windowed", index=table.index)
    exact = table[kinds == "exact"].sort_values("tokens")
    windowed = table[kinds == "windowed"].sort_values("tokens")
    values = exact["in_context_learning_score"]
    if points or windowed.empty:
        axes.scatter(exact["tokens"] / 1e6, values, s=9, color=colour, alpha=0.35, linewidth=0, clip_on=False)
    if windowed.empty:
        return float(values.iloc[-1]) if len(exact) else None
    millions = windowed["tokens"] / 1e6
    if {"low", "high"} <= set(windowed.columns):
        axes.fill_between(millions, windowed["low"], windowed["high"], color=colour, alpha=0.2, linewidth=0)
    score = windowed["in_context_learning_score"]
    axes.plot(millions, score, color=colour, linestyle=style, linewidth=2, marker=_marker(windowed))
    return float(score.iloc[-1])


def _runs(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str]]:
    """(name, rows by tokens, colour) of each run in order of appearance; no name where there is one run only."""
    if "run" not in table or table["run"].nunique() < 2:
        return [("", table.sort_values("tokens"), INK)]
    names = list(table["run"].unique())
    return [
        (str(name), table[table["run"] == name].sort_values("tokens"), RUN_COLOURS[place % len(RUN_COLOURS)])
        for place, name in enumerate(names)
    ]


def _heatmap(
    figure: Figure, axes: Axes, table: pd.DataFrame, value: str, colours: str, norm: Normalize, unit: str
) -> None:
    """tokens x index cells whose edges lie midway between neighbours, so uneven spacing is drawn as it is."""
    if "run" in table and table["run"].nunique() > 1:
        raise ValueError("a heatmap shows one run: select one of the table's runs first")
    grid = table.pivot_table(index="index", columns="tokens", values=value, aggfunc="mean")
    index = grid.index.to_numpy(dtype=float)
    x = _edges(grid.columns.to_numpy(dtype=float) / 1e6)
    y = _edges(index)
    y[0] = max(y[0], 0.3)  # the first index may be 0, which a logarithmic axis cannot show
    image = axes.pcolormesh(x, y, np.ma.masked_invalid(grid.to_numpy()), cmap=colours, norm=norm, rasterized=True)
    axes.set_yscale("log")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if y[0] <= tick <= y[-1]]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_PLAIN)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    _colour_bar(figure, axes, image, unit, extend="both")


def _colour_bar(figure: Figure, axes: Axes, image: object, unit: str, extend: str = "neither") -> None:
    bar = figure.colorbar(image, ax=axes, extend=extend, pad=0.02, aspect=5 * figure.get_figheight())  # type: ignore[arg-type]
    bar.set_label(unit, fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _edges(centres: np.ndarray) -> np.ndarray:
    """Cell edges midway between sorted centres [n] -> [n + 1]; the outer cells are symmetric, none starts below 0."""
    if len(centres) == 1:
        half = max(0.5 * abs(centres[0]) * 0.1, 0.05)
        return np.array([max(centres[0] - half, 0.0), centres[0] + half])
    middle = (centres[1:] + centres[:-1]) / 2
    edges = np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
    edges[0] = min(max(edges[0], 0.0), centres[0])
    return edges


def _limits(values: pd.Series, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Percentiles of the finite values, widened where they are equal so that a colour scale has a length."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, percentiles) if len(finite) else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1e-3


def _set_score_limits(axes: Axes, values: pd.Series) -> None:
    if values.min() >= 0 and values.max() <= 1:
        axes.set_ylim(0, 1)
    elif values.min() >= -1 and values.max() <= 1:
        axes.set_ylim(-1, 1)
        axes.axhline(0, color=FAINT, linewidth=1)


def _of_measure(heads: pd.DataFrame, measure: str) -> pd.DataFrame:
    table = heads[heads["measure"] == measure]
    if table.empty:
        there = ", ".join(sorted(map(str, heads["measure"].unique())))
        raise ValueError(f"no rows of {measure}; the table has {there or 'no rows'}")
    return table


def _marker(table: Sequence | pd.DataFrame | pd.Series) -> str | None:
    return "o" if len(table) == 1 else None  # a line through one snapshot is invisible


def _words(name: str) -> str:
    return name.replace("_", " ")


def _ink_on(colour: tuple[float, float, float, float]) -> str:
    red, green, blue = to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK


def pertoken_pca(table: pd.DataFrame, windows: pd.DataFrame, shares: Sequence[float]) -> Figure:
    """One path per run in the plane of the first two principal components of per-token losses.

    Columns run, tokens, pc1, pc2; windows with run, start_tokens, end_tokens: that stretch is drawn thick. shares are
    the explained variances. A ring marks the start of each path, a disc its end.
    """
    note = "thick: the phase change; ring: first snapshot; disc: last snapshot"
    figure, axes = _figure("Per-token losses during training", note, height=6.0)
    ends = []
    for run, path, colour in _runs(table):
        axes.plot(path["pc1"], path["pc2"], color=colour, linewidth=1.2, alpha=0.8)
        for window in windows[windows["run"].astype(str) == run].itertuples():
            inside = path[path["tokens"].between(window.start_tokens, window.end_tokens)]
            axes.plot(inside["pc1"], inside["pc2"], color=colour, linewidth=5, alpha=0.5, solid_capstyle="round")
        axes.plot(*path[["pc1", "pc2"]].iloc[0], "o", color=colour, markerfacecolor="white", markersize=7)
        axes.plot(*path[["pc1", "pc2"]].iloc[-1], "o", color=colour, markersize=7)
        ends.append(_End(float(path["pc2"].iloc[-1]), run, colour))
    axes.set_xlabel(f"first principal component (nats), {shares[0]:.0%} of variance")
    axes.set_ylabel(f"second principal component (nats), {shares[1]:.0%}")
    _name_ends(axes, ends)
    return figure


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
                axes.plot(
                    line["tokens"] / 1e6, line["in_context_learning_score"], color=KEY_COLOURS[keys], linewidth=1.6
                )
            axes.axhline(0, color=FAINT, linewidth=1)
            axes.set_title(f"{keys} keys, {depth} layer{'s' if depth > 1 else ''}", fontsize=TEXT, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(TOKENS, fontsize=SMALL)
    for axes in grid[:, 0]:
        axes.set_ylabel("in-context learning score (nats)", fontsize=SMALL)
    return figure


def smear_weights(table: pd.DataFrame) -> Figure:
    """Own-key share sigmoid(alpha) of every head over tokens, beside its prefix matching; a row per smeared run.

    Columns run, tokens, layer, head, weight, prefix_matching. Heads that end with prefix matching >= 0.3 are in the
    induction colour and named.
    """
    runs = list(dict.fromkeys(table["run"]))
    figure = Figure(figsize=(8, 0.6 + 2.3 * len(runs)), layout="constrained")
    grid = figure.subplots(len(runs), 2, sharex=True, sharey=True, squeeze=False)
    for row, run in zip(grid, runs, strict=True):
        for (layer, head), line in table[table["run"] == run].groupby(["layer", "head"]):
            kind = "induction" if line["prefix_matching"].iloc[-1] >= 0.3 else "other"
            for axes, name in zip(row, ("weight", "prefix_matching"), strict=True):
                axes.plot(line["tokens"] / 1e6, line[name], color=HEAD_COLOURS[kind], linewidth=1.6)
                if kind == "induction":
                    end = (line["tokens"].iloc[-1] / 1e6, line[name].iloc[-1])
                    axes.annotate(f" L{layer}H{head}", end, color=HEAD_COLOURS[kind], fontsize=SMALL, va="center")
        row[0].set_title(run.replace("_", " "), fontsize=SMALL, loc="left")
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1)
    for axes, name in zip(grid[-1], ("own key's share, sigmoid(alpha)", "prefix matching (share)"), strict=True):
        axes.set_xlabel(f"{TOKENS}\n{name}", fontsize=SMALL)
    return figure


def ablation_scatter(heads: pd.DataFrame) -> Figure:
    """Prefix matching of each head against what its removal does to the in-context learning score.

    Columns layer, head, head_type, prefix_matching, in_context_learning_change (nats), low, high.
    """
    figure, axes = _figure("Removing one head", "above zero: without the head there is less in-context learning")
    for row in heads.itertuples():
        colour = HEAD_COLOURS.get(row.head_type, FAINT)
        x, y = row.prefix_matching, row.in_context_learning_change
        axes.plot([x, x], [row.low, row.high], color=colour, linewidth=1, alpha=0.6)
        axes.plot(x, y, "o", color=colour, markersize=7)
        if row.head_type == "induction":
            axes.annotate(
                f"L{row.layer}H{row.head}", (x, y), (6, 4), textcoords="offset points", color=colour, fontsize=SMALL
            )
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.set_xlim(-0.03, 1)
    axes.set_xlabel("prefix matching (share of attention)")
    axes.set_ylabel("change of the score (nats)")
    return figure

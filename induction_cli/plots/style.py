"""What every figure shares: colours, words, the frame, the phase-change band, names at the ends of lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from induction_cli.words import short

# Any two differ by at least 37 (CIE Lab) in normal, protan, deutan and tritan vision (Machado 2009), and by 3.3 to 1 in
# luminance from white.
HEAD_COLOURS = {"previous_token": "#C2528B", "induction": "#3B2F8F", "other": "#9A8F3C"}


# Okabe and Ito's palette, its yellow and sky blue darkened or left out for white paper.
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#C2528B", "#B8860B", "#7A3E9D")


INK, FAINT, BAND = "#222222", "#6B6B6B", "#DCE6EE"
TEXT, SMALL = 12.0, 10.0


TOKENS = "training tokens"
STEPS = "training steps"


LETTERS_PER_INCH = 9  # of a headline


MAXIMUM_LABELS = 6  # heads named at the right end of a plot


PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
SHORT = FuncFormatter(lambda value, _: short(value))  # of tokens and steps: 500, 20k, 1.5M


@dataclass(frozen=True)
class End:
    """A name to write beside the right end of a line; y in the axis's unit."""

    y: float
    text: str
    colour: str


def new_figure(title: str, note: str, height: float = 4.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    axes = figure.subplots()
    headline(figure, axes, title, note)
    return figure, axes


def headline(figure: Figure, axes: Axes, title: str, note: str) -> None:
    entitle(figure, title)
    # The space between the note and the axes is where the band's label goes.
    axes.set_title(note, loc="left", fontsize=SMALL, color=FAINT, pad=20)


def entitle(figure: Figure, title: str) -> None:
    """The headline, in as many lines as the figure's width asks for."""
    lines = fill(title, int(LETTERS_PER_INCH * figure.get_figwidth()))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=TEXT + 1, fontweight="bold", color=INK)


def frame(axes: Axes, x: str, y: str) -> None:
    """Axis names, ticks, and no spines but the two axes; time is written short, whatever its size."""
    axes.set_xlabel(x, fontsize=TEXT, color=INK)
    if x in (TOKENS, STEPS):
        axes.xaxis.set_major_formatter(SHORT)
    axes.set_ylabel(y, fontsize=TEXT, color=INK)
    axes.tick_params(labelsize=SMALL, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def finish(axes: Axes, unit: str, windows: pd.DataFrame | None, *, label: bool = True, lines: bool = False) -> None:
    """Axis names, spines and the phase-change band; call it when the data is drawn, as it freezes the time limits."""
    frame(axes, TOKENS, unit)
    if not lines:
        axes.margins(x=0)
    axes.set_xlim(*axes.get_xlim())
    band(axes, windows, label=label, lines=lines)


def band(axes: Axes, windows: pd.DataFrame | None, *, label: bool, lines: bool) -> None:
    """Phase-change windows: a light band, or on a heatmap two lines, since a band would change its colours."""
    if windows is None or windows.empty:
        return
    named: list[float] = []
    for window in windows.dropna(subset=["start_tokens", "end_tokens"]).itertuples():
        start, end = float(window.start_tokens), float(window.end_tokens)
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


def name_ends(axes: Axes, ends: Sequence[End]) -> None:
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
    places = spread(heights, min(line, 1.0 / len(ends)))
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


def spread(heights: Sequence[float], gap: float) -> list[float]:
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


def notable(lines: Iterable[tuple[float, str, str]], typed: bool) -> list[End]:
    """Names for the notable heads, and one for each head type of which no head is notable."""
    ordered = sorted((line for line in lines if np.isfinite(line[0])), reverse=True)
    if not ordered:
        return []
    threshold = max(0.1, ordered[0][0] / 2)
    chosen = [line for line in ordered if line[0] >= threshold][:MAXIMUM_LABELS]
    if not typed:
        return [End(last, name, INK) for last, _, name in chosen]
    ends = [
        End(last, name if kind == "other" else f"{name} {in_words(kind)}", HEAD_COLOURS.get(kind, FAINT))
        for last, kind, name in chosen
    ]
    for kind in {kind for _, kind, _ in ordered} - {kind for _, kind, _ in chosen}:
        rest = [last for last, other, _ in ordered if other == kind]
        heads = "1 head" if len(rest) == 1 else f"{len(rest)} heads"
        ends.append(End(float(np.median(rest)), f"{in_words(kind)} ({heads})", HEAD_COLOURS.get(kind, FAINT)))
    return ends


def runs_of(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str]]:
    """(name, rows by tokens, colour) of each run in order of appearance; no name where there is one run only."""
    if "run" not in table or table["run"].nunique() < 2:
        return [("", table.sort_values("tokens"), INK)]
    names = list(table["run"].unique())
    return [
        (str(name), table[table["run"] == name].sort_values("tokens"), RUN_COLOURS[place % len(RUN_COLOURS)])
        for place, name in enumerate(names)
    ]


def colour_bar(figure: Figure, axes: Axes, image: object, unit: str, extend: str = "neither") -> None:
    bar = figure.colorbar(image, ax=axes, extend=extend, pad=0.02, aspect=5 * figure.get_figheight())  # type: ignore[arg-type]
    bar.set_label(unit, fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]


def cell_edges(centres: np.ndarray) -> np.ndarray:
    """Cell edges midway between sorted centres [n] -> [n + 1]; the outer cells are symmetric, none starts below 0."""
    if len(centres) == 1:
        half = max(0.5 * abs(centres[0]) * 0.1, 0.05)
        return np.array([max(centres[0] - half, 0.0), centres[0] + half])
    middle = (centres[1:] + centres[:-1]) / 2
    edges = np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
    edges[0] = min(max(edges[0], 0.0), centres[0])
    return edges


def limits(values: pd.Series, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Percentiles of the finite values, widened where they are equal so that a colour scale has a length."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, percentiles) if len(finite) else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1e-3


def marker(table: Sequence | pd.DataFrame | pd.Series) -> str | None:
    return "o" if len(table) == 1 else None  # a line through one snapshot is invisible


def in_words(name: str) -> str:
    return name.replace("_", " ")


def ink_on(colour: tuple[float, float, float, float]) -> str:
    red, green, blue = to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK

"""The model analysis table: a column per kind of model, a row per thing measured; and what goes with size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from induction_cli.plots.style import (
    FAINT,
    HEAD_COLOURS,
    INK,
    PLAIN,
    RUN_COLOURS,
    SHORT,
    SMALL,
    TEXT,
    TOKENS,
    cell_edges,
    entitle,
    in_words,
    limits,
    marker,
)

GROUPS = ("attention-only", "with MLPs", "smeared keys", "pretrained")
GROUP_COLOURS = dict(zip(GROUPS, RUN_COLOURS, strict=False))
HEATMAPS = {"loss_by_index": "viridis", "loss_derivative": "RdBu_r"}
HEADS = ("prefix_matching", "qk_trace", "before_after", "in_context_learning_change")

# row: (what to look at, axis name)
ROWS = {
    "paths": ("Paths through per-token losses: do they turn where they are thick?", "second component\n(nats)"),
    "loss": ("Loss: it bends where the phase change opens", "loss\n(nats)"),
    "loss_by_index": ("Loss over (tokens, index)", "token index"),
    "loss_derivative": ("What more context gains: blue at the top only after the phase change", "token index"),
    "in_context_learning": ("In-context learning score: falls in the band", "in-context learning\nscore (nats)"),
    "prefix_matching": ("Prefix matching: some heads rise in the band", "prefix matching\n(share of attention)"),
    "qk_trace": ("Trace of QK eigenvalues: induction heads rise", "trace of QK\neigenvalues"),
    "before_after": ("Removing a head: below zero, back in time", "along before-and-\nafter vector (nats)"),
    "in_context_learning_change": ("Removing a head: above zero, it carries the score", "change of the\nscore (nats)"),
}
COLOUR_BARS = {"loss_by_index": "loss (nats)", "loss_derivative": "d loss / d ln(index)\n(nats)"}
QUANTITIES = {
    "score_onset_tokens": "onset of the score (tokens)",
    "induction_onset_tokens": "onset of induction heads (tokens)",
    "score_onset_loss": "loss at the score's onset (nats)",
    "induction_onset_loss": "loss at the onset of induction heads (nats)",
    "score_before": "score before the window (nats)",
    "score_after": "score after the window (nats)",
    "final_score": "score at the end (nats)",
    "induction_share": "share of heads that are induction heads",
    "induction_depth": "where they sit (0 first layer, 1 last)",
}


@dataclass(frozen=True)
class Panel:
    """One cell: which row of the table, and the runs of one column."""

    row: str
    group: str
    title: str
    runs: pd.DataFrame  # rows of models.csv


def columns_of(models: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(group, title, its runs) of every column, in the order of models.csv."""
    found = models.groupby(["group", "column"], sort=False)
    return [(str(group), str(title), runs) for (group, title), runs in found]


def figures(
    models: pd.DataFrame, cells: dict[str, pd.DataFrame], absent: pd.DataFrame, width: int = 6
) -> Iterator[tuple[str, Figure]]:
    """(name, figure): the model analysis table of each kind of model, at most `width` columns a figure; then each row.

    models: models.csv. cells: by row of ROWS a table with columns run, tokens and value (paths: pc1, pc2; heatmaps:
    index; heads: layer, head, head_type). absent: columns run, row, note, said where a cell is empty.
    """
    columns = columns_of(models)
    for group in dict.fromkeys(group for group, _, _ in columns):
        of = [column for column in columns if column[0] == group]
        for part in range(0, len(of), width):
            layout = [[Panel(row, *column) for column in of[part : part + width]] for row in ROWS]
            empty = [panels for panels in layout if not any(has_data(panel, cells) for panel in panels)]
            layout = [panels for panels in layout if panels not in empty]
            if not layout:
                continue
            note = "\n".join(f"not shown: {in_words(panels[0].row)}; {why(panels[0], absent)}" for panels in empty)
            number = f"_{part // width + 1}" if len(of) > width else ""
            name = f"model_analysis_{group.replace(' ', '_').replace('-', '_')}{number}"
            yield name, table_figure(layout, cells, absent, models, f"Model analysis table: {group}", note)
    for row, (title, _) in ROWS.items():
        layout = []
        for group in dict.fromkeys(group for group, _, _ in columns):
            panels = [Panel(row, *column) for column in columns if column[0] == group]
            panels = [panel for panel in panels if has_data(panel, cells)]
            layout += [panels[i : i + width] for i in range(0, len(panels), width)]
        if layout:
            yield row, table_figure(layout, cells, absent, models, title)


def has_data(panel: Panel, cells: dict[str, pd.DataFrame]) -> bool:
    return panel.row in cells and bool(cells[panel.row].run.isin(panel.runs.run).any())


# ------------------------------------------------------------------------------------------------ the table


def table_figure(
    layout: list[list[Panel]],
    cells: dict[str, pd.DataFrame],
    absent: pd.DataFrame,
    models: pd.DataFrame,
    title: str,
    note: str = "",
) -> Figure:
    """A grid of panels: one y axis and one scale of colours per row of the table, one time axis per kind of model."""
    width = max(map(len, layout))
    size = (2.1 + 2.5 * max(width, 2), 1.3 + 1.75 * len(layout))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    grid = figure.subplots(len(layout), width, squeeze=False)
    seeds = sorted(models.seed.dropna().unique())
    colours = {seed: RUN_COLOURS[place % len(RUN_COLOURS)] for place, seed in enumerate(seeds)}
    drawn: list[tuple[Panel, Axes]] = []
    images: dict[str, tuple[object, list[Axes]]] = {}
    for panels, line in zip(layout, grid, strict=True):
        for axes in line[len(panels) :]:
            axes.set_visible(False)
        for panel, axes in zip(panels, line, strict=False):
            data = cells.get(panel.row, pd.DataFrame())
            axes.tick_params(labelsize=SMALL - 2, colors=INK)
            axes.spines[["top", "right"]].set_visible(False)
            if not has_data(panel, cells):
                say_why(axes, panel, absent)
                continue
            here = data[data.run.isin(panel.runs.run)]
            image = draw(axes, panel, here, data, colours)
            if image is not None:
                images.setdefault(panel.row, (image, []))[1].append(axes)
            drawn.append((panel, axes))
    share_axes(drawn)
    label(layout, grid, drawn)
    for row, (image, on) in images.items():
        bar = figure.colorbar(image, ax=on, pad=0.02, aspect=14 * len({id(axes.get_gridspec()) for axes in on}))  # type: ignore[arg-type]
        bar.set_label(COLOUR_BARS[row], fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL - 2)
        bar.outline.set_visible(False)  # type: ignore[operator]
    entitle(figure, title)
    windows = any(panel.runs.start_tokens.notna().any() for panel, _ in drawn)
    below = legend(figure, {panel.row for panel, _ in drawn}, colours, cells, windows)
    if note:
        below.set_title(note, prop=FontProperties(size=SMALL))
        below.get_title().set_color(FAINT)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once is enough: with so many axes it takes longer than drawing them
    return figure


def draw(axes: Axes, panel: Panel, here: pd.DataFrame, everywhere: pd.DataFrame, colours: dict[float, str]) -> object:
    """Fill one cell; the image where it is a heatmap."""
    seeds = panel.runs.set_index("run").seed
    of_run = {run: colours.get(seed, INK) for run, seed in seeds.items()}
    if panel.row == "paths":
        draw_paths(axes, here, panel.runs, of_run)
        return None
    if panel.row in HEATMAPS:
        first = next(run for run in panel.runs.run if (here.run == run).any())
        comparable = panel.runs.set_index("run").comparable[first]
        scale = everywhere if comparable else here
        image = draw_heatmap(axes, here[here.run == first], norm(panel.row, scale), HEATMAPS[panel.row])
        window = panel.runs[panel.runs.run == first].dropna(subset="start_tokens")
        for edge in [*window.start_tokens, *window.end_tokens]:
            axes.axvline(edge, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        return image
    for row in panel.runs.dropna(subset="start_tokens").itertuples():
        axes.axvspan(row.start_tokens, row.end_tokens, color=of_run[row.run], alpha=0.12, linewidth=0)
    if panel.row in HEADS:
        draw_heads(axes, here)
    else:
        for run, line in here.groupby("run", sort=False):
            line = line.sort_values("tokens")
            if "low" in line:
                axes.fill_between(line.tokens, line.low, line.high, color=of_run[run], alpha=0.15, linewidth=0)
            axes.plot(line.tokens, line["value"], color=of_run[run], linewidth=1.4, marker=marker(line))
    if panel.row == "loss":
        axes.ticklabel_format(axis="y", useOffset=False)
    if panel.row not in ("loss", "prefix_matching"):
        axes.axhline(0, color=FAINT, linewidth=0.8)
    return None


def draw_paths(axes: Axes, here: pd.DataFrame, runs: pd.DataFrame, colours: dict[str, str]) -> None:
    windows = runs.set_index("run")[["start_tokens", "end_tokens"]]
    for run, path in here.groupby("run", sort=False):
        axes.plot(path.pc1, path.pc2, color=colours[run], linewidth=1)
        inside = path[path.tokens.between(*windows.loc[run])]
        axes.plot(inside.pc1, inside.pc2, color=colours[run], linewidth=4, alpha=0.5, solid_capstyle="round")
        axes.plot(path.pc1.iloc[0], path.pc2.iloc[0], "o", color=colours[run], markerfacecolor="white", markersize=5)
        axes.plot(path.pc1.iloc[-1], path.pc2.iloc[-1], "o", color=colours[run], markersize=5)


def draw_heads(axes: Axes, here: pd.DataFrame) -> None:
    """One line per head and run, induction heads in front."""
    order = {"other": 0, "previous_token": 1, "induction": 2}
    lines = sorted(here.groupby(["run", "layer", "head"]), key=lambda item: order.get(item[1].head_type.iloc[-1], 0))
    for _, line in lines:
        kind, line = line.head_type.iloc[-1], line.sort_values("tokens")
        axes.plot(
            line.tokens,
            line["value"],
            color=HEAD_COLOURS.get(kind, FAINT),
            linewidth=0.7 + 0.4 * order.get(kind, 0),
            marker=marker(line),
        )


def draw_heatmap(axes: Axes, table: pd.DataFrame, scale: Normalize, colours: str) -> object:
    grid = table.pivot_table(index="index", columns="tokens", values="value")
    x = cell_edges(grid.columns.to_numpy(float))
    y = cell_edges(grid.index.to_numpy(float))
    y[0] = max(y[0], 0.3)  # a logarithmic axis has no 0
    image = axes.pcolormesh(x, y, np.ma.masked_invalid(grid.to_numpy()), cmap=colours, norm=scale, rasterized=True)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([1, 10, 100, 1000]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PLAIN)
    axes.set_ylim(y[0], y[-1])
    return image


def norm(row: str, data: pd.DataFrame) -> Normalize:
    """One scale for all models: percentiles for the loss, symmetric for its derivative."""
    if row == "loss_by_index":
        return Normalize(*limits(data["value"], (1, 99)))
    _, top = limits(data["value"].abs(), (0, 99))
    return Normalize(-top, top)


def share_axes(drawn: list[tuple[Panel, Axes]]) -> None:
    """The same limits for all cells of a row, and the same time for all models of a kind.

    A trace has no scale of its own: it is compared within a kind of model only.
    """

    def scale(panel: Panel) -> tuple[str, str]:
        return panel.row, panel.group if panel.row == "qk_trace" else ""

    for row, kind in {scale(panel) for panel, _ in drawn}:
        together = [axes for panel, axes in drawn if scale(panel) == (row, kind)]
        for get, put in (("get_ylim", "set_ylim"), ("get_xlim", "set_xlim")):
            if get == "get_ylim" or row == "paths":
                ends = [getattr(axes, get)() for axes in together]
                for axes in together:
                    getattr(axes, put)(min(low for low, _ in ends), max(high for _, high in ends))
    for group in {panel.group for panel, _ in drawn}:
        timed = [axes for panel, axes in drawn if panel.group == group and panel.row != "paths"]
        last = max((axes.dataLim.x1 for axes in timed), default=0.0)
        for axes in timed:
            axes.set_xlim(0, last) if last > 0 else None
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(SHORT)


def label(layout: list[list[Panel]], grid: np.ndarray, drawn: list[tuple[Panel, Axes]]) -> None:
    """Titles of columns, names of rows at the left, tick labels at the outermost cells that hold something."""
    rows = {panel.row for panels in layout for panel in panels}
    full = {id(axes) for _, axes in drawn}
    for line, panels in enumerate(layout):
        for place, panel in enumerate(panels):
            axes = grid[line, place]
            if line == 0 or len(rows) == 1:
                name = f"{panel.title}, {panel.group}" if len(rows) == 1 else panel.title
                seeds = f"\n{len(panel.runs)} seeds" if len(rows) > 1 and panel.runs.seed.nunique() > 1 else ""
                size = TEXT if len(name) < 18 else SMALL if len(name) < 28 else SMALL - 2
                axes.set_title(name + seeds, fontsize=size, color=INK)
            if place == 0:
                axes.set_ylabel(ROWS[panel.row][1], fontsize=SMALL, color=INK)
            if id(axes) not in full:
                continue
            below = [above[place].row for above in layout[line + 1 :] if place < len(above)]
            lower = [id(grid[line + 1 + i, place]) in full for i in range(len(below))]
            axes.tick_params(labelleft=not any(id(left) in full for left in grid[line, :place]))
            if panel.row == "paths":
                axes.set_xlabel("first component (nats)", fontsize=SMALL - 2)
            elif not any(lower):
                axes.set_xlabel(TOKENS, fontsize=SMALL)
            elif len(rows) > 1:
                axes.tick_params(labelbottom=False)


def why(panel: Panel, absent: pd.DataFrame) -> str:
    """Why a cell has no data."""
    notes = absent[absent.run.isin(panel.runs.run) & (absent.row == panel.row)].note
    return str(notes.iloc[0]) if len(notes) else "no data"


def say_why(axes: Axes, panel: Panel, absent: pd.DataFrame) -> None:
    said = why(panel, absent).replace(": ", ":\n")
    axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", fontsize=SMALL - 1, color=FAINT)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def legend(
    figure: Figure, rows: set[str], colours: dict[float, str], cells: dict[str, pd.DataFrame], windows: bool
) -> Legend:
    """What the colours mean, below everything; of what was drawn only. windows: whether any phase change was."""
    handles = []
    if rows - set(HEADS) - set(HEATMAPS) and len(colours) > 1:
        handles += [
            Line2D([], [], color=colour, linewidth=2, label=f"seed {seed:g}") for seed, colour in colours.items()
        ]
    kinds = {kind for row in rows & set(HEADS) for kind in cells[row].head_type}
    for kind, colour in HEAD_COLOURS.items():
        if kind in kinds:
            handles.append(Line2D([], [], color=colour, linewidth=2, label=f"{in_words(kind)} heads"))
    if kinds - set(HEAD_COLOURS):
        handles.append(Line2D([], [], color=FAINT, label="heads of runs that are not scored"))
    if rows - {"paths"} and windows:
        handles.append(Line2D([], [], color=FAINT, alpha=0.3, linewidth=8, label="phase change (in the seed's colour)"))
    if rows & set(HEATMAPS) and windows:
        handles.append(Line2D([], [], color=INK, linestyle=(0, (4, 2)), label="heatmaps: first seed, its phase change"))
    if "paths" in rows:
        handles.append(Line2D([], [], color=FAINT, marker="o", linewidth=1, label="paths: disc, the end"))
    if "paths" in rows and windows:
        handles.append(Line2D([], [], color=FAINT, alpha=0.5, linewidth=4, label="paths: phase change"))
    wide = max(2, int(figure.get_figwidth() / 2.6))
    place = {"loc": "outside lower left", "ncols": wide, "alignment": "left"}
    return figure.legend(handles=handles, frameon=False, fontsize=SMALL, **place)


# ------------------------------------------------------------------------------------------------ what goes with size


def small_grid(n: int, title: str, columns: int = 3, height: float = 2.4) -> tuple[Figure, list[Axes]]:
    columns = min(columns, n)
    lines = -(-n // columns)
    figure = Figure(figsize=(3.4 * max(columns, 2), 0.8 + height * lines), dpi=100, layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=SMALL - 2, colors=INK)
    for one in axes[n:]:
        one.set_visible(False)
    entitle(figure, title)
    return figure, axes


def name_groups(figure: Figure, groups: Sequence[str]) -> None:
    handles = [Line2D([], [], color=GROUP_COLOURS[g], marker="o", linestyle="", label=g) for g in GROUPS if g in groups]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles) or 1, frameon=False, fontsize=SMALL)


def by_size(axes: Axes, table: pd.DataFrame, value: str) -> None:
    """A point per model over its parameters; pretrained models, whose count is not known here, at the right."""
    for group, rows in table.dropna(subset=[value]).groupby("group"):
        axes.plot(rows.parameters, rows[value], "o", color=GROUP_COLOURS[str(group)], markersize=6, alpha=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    sizes = sorted(table.parameters.dropna().unique())
    kept = [size for i, size in enumerate(sizes) if i == 0 or size > 1.25 * sizes[i - 1]]
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_major_formatter(SHORT)


def continuity(models: pd.DataFrame, trends: pd.DataFrame) -> Figure:
    """Every quantity over the size of the model: a level cloud is a story that does not depend on size.

    models: models.csv of multi-layer models without smeared keys, of which at least one quantity is known; trends:
    continuity.csv. A quantity that no model has takes no panel.
    """
    there = {quantity: title for quantity, title in QUANTITIES.items() if models[quantity].notna().any()}
    figure, panels = small_grid(len(there), "From small to large: a level cloud is the same story at every size")
    known = trends[trends["size"] == "parameters"].set_index("quantity")
    for axes, (quantity, title) in zip(panels, there.items(), strict=False):
        by_size(axes, models, quantity)
        axes.set_title(title, fontsize=SMALL, loc="left")
        row = known.loc[quantity]
        if np.isfinite(row.rank_correlation):
            said = f"rank correlation {row.rank_correlation:+.2f}"
            said += f" [{row.low:+.2f}, {row.high:+.2f}]" if np.isfinite(row.low) else ""
            axes.text(0.02, 0.98, said, transform=axes.transAxes, fontsize=SMALL - 2, color=FAINT, va="top")
        axes.margins(y=0.3)
        if title.startswith("score"):
            axes.set_ylim(min(axes.get_ylim()[0], -0.6), 0.05)
        elif quantity in ("induction_share", "induction_depth"):
            axes.set_ylim(0, 1.15)
        elif quantity.endswith("tokens"):
            axes.yaxis.set_major_formatter(SHORT)
            axes.set_ylim(0, axes.get_ylim()[1])
        axes.set_xlabel("weights in attention and MLPs", fontsize=SMALL - 2)
    name_groups(figure, list(models.group))
    return figure


def learning_speed(table: pd.DataFrame) -> Figure:
    """The paper's curiosities: the score's slope after the window, and the loss's slope before and after, over size.

    table: learning_speed.csv; nats per factor e of training.
    """
    figure, panels = small_grid(3, "Curiosities: does the score stay? do large models learn faster before, or after?")
    titles = {
        "score_slope": "slope of the score after its window\n(dashed: 0.05 either way)",
        "loss_slope_before": "slope of the loss before any changes\n(lower: learns faster)",
        "loss_slope_after": "slope of the loss after all changed\n(lower: learns faster)",
    }
    for axes, (value, title) in zip(panels, titles.items(), strict=True):
        if value == "score_slope":
            for row in table.itertuples():
                axes.plot([row.parameters] * 2, [row.low, row.high], color=GROUP_COLOURS[row.group], alpha=0.5)
            for edge in (-0.05, 0.05):
                axes.axhline(edge, color=FAINT, linewidth=1, linestyle="--")
        by_size(axes, table, value)
        axes.margins(y=0.2)
        axes.set_title(title, fontsize=SMALL, loc="left")
        axes.set_xlabel("weights in attention and MLPs", fontsize=SMALL - 2)
    panels[0].set_ylabel("nats per factor e of tokens", fontsize=SMALL)
    name_groups(figure, list(table.group))
    return figure


def path_turns(table: pd.DataFrame) -> Figure:
    """How much alike two models turn, token by token; a control is a model that did not change. path_turns.csv."""
    rows = table.sort_values(["kind", "correlation"], ascending=[True, True], ignore_index=True)
    figure = Figure(figsize=(8, 1.4 + 0.22 * len(rows)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows.itertuples()):
        colour = INK if row.kind == "turn" else FAINT
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=1.5, alpha=0.6)
        axes.plot(row.correlation, place, "o", color=colour, markerfacecolor=colour if row.kind == "turn" else "white")
    names = [f"{row.run} and {row.other}{' (control)' if row.kind != 'turn' else ''}" for row in rows.itertuples()]
    axes.set_yticks(range(len(rows)), names, fontsize=SMALL - 3)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.set_xlabel("correlation of the turns over tokens, 95% interval", fontsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    entitle(figure, "Do models turn alike? Right of zero: yes. Controls did not change phase")
    return figure

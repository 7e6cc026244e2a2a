"""Figures of `circuits`: DataFrame in, Figure out, in the style of plots.py; columns: <run>/circuits/tables/.

`heads` is heads.csv: layer, head, measure, value, head_type (and step: the last one counts).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from induction_cli.plots.style import (
    FAINT,
    HEAD_COLOURS,
    INK,
    MAXIMUM_LABELS,
    RUN_COLOURS,
    SMALL,
    TEXT,
    End,
    colour_bar,
    entitle,
    finish,
    headline,
    in_words,
    ink_on,
    name_ends,
    new_figure,
)
from induction_cli.words import decimals_for, signed

MAXIMUM_PANELS, COLUMNS = 24, 6  # of eigenvalues
LARGE, MAXIMUM_EDGES = 8, 300  # layers from which heads lose their names; lines of each kind of composition
STRONG = 0.5  # composition edges are labelled from this share of the strongest one on
ON = {"text": "held-out text", "repeats": "random repeated tokens"}


def ov_eigenvalues(table: pd.DataFrame, heads: pd.DataFrame) -> Figure:
    """Eigenvalues of each head's OV circuit in the complex plane, one panel a head.

    Columns layer, head, real, imag. Each head is divided by its largest modulus; the radius shown is its square root,
    so that small eigenvalues can be seen. Right half = raises the logit of what is attended to. At most MAXIMUM_PANELS
    heads: those with the largest sum of moduli.
    """
    types, statistic = _types(heads), _last(heads, "copying_eigenvalues")
    table = table.assign(value=table["real"] + 1j * table["imag"])
    size = table["value"].abs().groupby([table["layer"], table["head"]]).sum()
    chosen = sorted(size.sort_values(ascending=False).index[:MAXIMUM_PANELS])
    per_layer = table["head"].nunique()
    columns = per_layer if per_layer <= COLUMNS else min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(8, 1.3 + 8.2 / columns * rows), dpi=100, layout=_layout())
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    entitle(figure, "Eigenvalues of W_E W_V W_O W_U: right of the line copies, left suppresses")
    for axes, which in zip(grid, chosen, strict=False):
        values = table.loc[(table["layer"] == which[0]) & (table["head"] == which[1]), "value"].to_numpy()
        values = values / max(np.abs(values).max(), 1e-30)
        shown = values / np.sqrt(np.abs(values).clip(1e-30))
        colour = HEAD_COLOURS.get(types.get(which, "other"), FAINT)
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.axhline(0, color="#DDDDDD", linewidth=1)
        axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#DDDDDD", linewidth=1))
        axes.scatter(shown.real, shown.imag, s=14, color=colour, alpha=0.75, linewidth=0, clip_on=False)
        axes.set_xlim(-1.1, 1.1)
        axes.set_ylim(-1.1, 1.1)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(f"{_name(which)}  {statistic[which]:+.2f}", fontsize=SMALL, color=colour, pad=4)
    for axes in grid[len(chosen) :]:
        axes.set_axis_off()
    note = "number: sum over sum of moduli; radius: square root of the share of the largest modulus"
    words = _colours_in_words()
    if len(size) > len(chosen):
        words += f"; {len(size) - len(chosen)} weaker heads are not shown"
    figure.supxlabel(f"{note}\n{words}", x=0.01, ha="left", fontsize=SMALL, color=FAINT)
    return figure


def composition(table: pd.DataFrame, heads: pd.DataFrame) -> Figure:
    """K-, Q- and V-composition of every pair of heads as lines between layers, the random baseline subtracted.

    Columns step, kind, from_layer, from_head, layer, head, above_baseline; the last step is drawn. The panels share one
    scale: width and darkness of a line are its score above the baseline; pairs at or below it have no line.
    """
    types, last = _types(heads), table[table["step"] == table["step"].max()]
    n_layers, n_heads = int(last["layer"].max()) + 1, int(max(last["head"].max(), last["from_head"].max())) + 1
    kinds = [kind for kind in "KQV" if (last["kind"] == kind).any()]  # rotary positions leave V alone
    small = n_layers <= LARGE
    figure = Figure(figsize=(8, 2.6 + min(1.1 * n_layers, 9)), dpi=100, layout=_layout())
    panels = figure.subplots(1, len(kinds), width_ratios=[2] + [1] * (len(kinds) - 1), squeeze=False)[0]
    headline(figure, panels[0], "Which heads read what earlier heads wrote (composition above chance)", "")
    top = max(float(last["above_baseline"].max()), 1e-9)
    size = float(np.clip(30 / n_heads, 4, 8))
    for axes, kind in zip(panels, kinds, strict=True):
        main = kind == kinds[0]
        edges = last[(last["kind"] == kind) & (last["above_baseline"] > 0)].sort_values("above_baseline")
        edges = edges.tail(MAXIMUM_EDGES)
        axes.set_title(f"{kind}-composition", loc="left", fontsize=TEXT, color=INK)
        named: dict[tuple[int, int], int] = {}  # labels on the lines into each head
        for edge in edges.itertuples():
            share = edge.above_baseline / top
            x, y = (edge.from_head, edge.head), (edge.from_layer, edge.layer)
            axes.plot(x, y, color=INK, alpha=float(np.clip(share, 0.06, 1)), linewidth=5 * share, zorder=1)
            if main and small and share >= STRONG and n_heads <= 8:
                into = (edge.layer, edge.head)
                at = 0.8 - 0.14 * (named.setdefault(into, 0) % 2)  # neighbours at different heights
                named[into] += 1
                place = [a + at * (b - a) for a, b in (x, y)]
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                text = f"{edge.above_baseline:.2f}"
                axes.text(*place, text, fontsize=SMALL - 1, color=INK, ha="center", va="center", bbox=box)
        for layer in range(n_layers):
            for head in range(n_heads):
                colour = HEAD_COLOURS.get(types.get((layer, head), "other"), FAINT)
                axes.plot(head, layer, "o", markersize=size * (3 if main and small else 1.3), color=colour, zorder=3)
                if main and small:
                    text = _name((layer, head)) if n_heads <= 4 else str(head)
                    axes.text(
                        head, layer, text, fontsize=SMALL - 2, color="white", ha="center", va="center", zorder=4
                    )  # fmt: skip
            if main and (small or layer % 5 == 0):
                axes.text(-0.45, layer, f"layer {layer}", fontsize=SMALL, color=FAINT, ha="right", va="center")
        axes.set_xlim(-0.5 - 0.2 * n_heads * main, n_heads - 0.5)
        axes.set_ylim(-0.35, n_layers - 0.65)
        axes.set_axis_off()
    figure.supxlabel(
        f"later layers are above; line width: score less that of random matrices, at most {top:.2f}"
        f"{'' if small else f'; the {MAXIMUM_EDGES} strongest pairs'}\n"
        f"{_colours_in_words()}",
        x=0.01, ha="left", fontsize=SMALL, color=FAINT,
    )  # fmt: skip
    return figure


def composition_over_tokens(table: pd.DataFrame, heads: pd.DataFrame) -> Figure:
    """K-composition above the baseline over training, one line per pair; those into induction heads are coloured.

    Columns tokens, kind, from_layer, from_head, layer, head, value, above_baseline. The strongest pairs of the last
    snapshot are named.
    """
    types = _types(heads)
    table = table[(table["kind"] == "K") & table["value"].notna()]  # empty: a head that writes nothing yet
    pairs = table.groupby(["from_layer", "from_head", "layer", "head"])
    figure, axes = new_figure(
        "K-composition during training", "coloured: from a previous-token head to an induction head; grey: other pairs"
    )
    ends = []
    for (from_layer, from_head, layer, head), line in pairs:
        line = line.sort_values("tokens")
        wanted = types.get((from_layer, from_head)) == "previous_token" and types.get((layer, head)) == "induction"
        colour = HEAD_COLOURS["induction"] if wanted else "#BBBBBB"
        width, order = (2, 3) if wanted else (1, 2)
        axes.plot(line["tokens"], line["above_baseline"], color=colour, linewidth=width, zorder=order)
        name = f"{_name((from_layer, from_head))} to {_name((layer, head))}"
        ends.append(End(float(line["above_baseline"].iloc[-1]), name, colour if wanted else FAINT))
    axes.axhline(0, color=FAINT, linewidth=1)
    finish(axes, "K-composition above chance", None)
    name_ends(axes, sorted(ends, key=lambda end: end.y)[-MAXIMUM_LABELS:])
    return figure


def qk_terms(table: pd.DataFrame, heads: pd.DataFrame) -> Figure:
    """The QK trace of every later head (columns) through every earlier head (rows), unweighted.

    Columns from_layer, from_head, layer, head, previous_token, trace. Rows say how much the earlier head attends to the
    previous token.
    """
    types = _types(heads)
    grid = table.pivot_table(index=["from_layer", "from_head"], columns=["layer", "head"], values="trace", dropna=False)
    grid = grid.dropna(how="all").dropna(axis=1, how="all")
    weights = table.groupby(["from_layer", "from_head"])["previous_token"].first()
    values, (rows, columns) = grid.to_numpy(dtype=float), grid.shape
    figure, axes = new_figure(
        "Trace of the QK term through each earlier head",
        "high: the later head's query matches the token that the earlier head moved to the key",
        2.2 + 0.36 * rows,
    )
    top = max(float(np.nanmax(np.abs(values), initial=0)), 1e-9)
    norm = Normalize(-top, top)
    image = axes.pcolormesh(np.ma.masked_invalid(values), cmap="PuOr_r", norm=norm, edgecolors="white", linewidth=1.5)
    if columns <= 12:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                ink, text = ink_on(image.cmap(norm(value))), f"{round(float(value)):,}"
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=SMALL, color=ink)
    every = max(1, columns // 12)
    axes.set_xticks(np.arange(columns)[::every] + 0.5, [_name(which) for which in grid.columns[::every]])
    axes.set_yticks(
        np.arange(rows) + 0.5, [f"{_name(which)}  {weights[which]:.2f}" for which in grid.index],
    )  # fmt: skip
    for tick, which in zip(axes.get_xticklabels(), grid.columns[::every], strict=True):
        tick.set_color(HEAD_COLOURS.get(types.get(which, "other"), FAINT))
    for tick, which in zip(axes.get_yticklabels(), grid.index, strict=True):
        tick.set_color(HEAD_COLOURS.get(types.get(which, "other"), FAINT))
    axes.tick_params(length=0, labelsize=SMALL)
    axes.set_xlabel("later head", fontsize=TEXT, color=INK)
    axes.set_ylabel("earlier head,\nprevious-token score", fontsize=TEXT, color=INK)
    colour_bar(figure, axes, image, "trace (no unit)")
    return figure


def paths(table: pd.DataFrame) -> Figure:
    """What each order of paths takes off the loss, from a uniform guess to the whole model.

    Columns on, path, loss, marginal, marginal_low, marginal_high, share.
    """
    kinds = list(table["on"].unique())
    figure = Figure(figsize=(8, 2.0 + 0.5 * table["path"].nunique()), dpi=100, layout=_layout())
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        rows = table[table["on"] == kind]
        place, decimals = np.arange(len(rows)), decimals_for(rows["marginal"].abs().max())
        ends = [rows[end].fillna(rows["marginal"]) for end in ("marginal_low", "marginal_high")]  # few examples: none
        errors = [rows["marginal"] - ends[0], ends[1] - rows["marginal"]]
        axes.barh(place, rows["marginal"], xerr=errors, color=HEAD_COLOURS["induction"], height=0.55, ecolor=FAINT)
        axes.set_yticks(place, list(rows["path"]))
        low, high = min(float(ends[0].min()), 0), max(float(ends[1].max()), 0)
        axes.set_xlim(low - 0.05 * (high - low), high + 0.55 * (high - low))
        for y, row, end in zip(place, rows.itertuples(), ends[1], strict=True):
            text = signed(row.marginal, decimals)
            text += f", {row.share:.0%}" if np.isfinite(row.share) else ""
            x = max(end, 0) + 0.03 * (high - low)
            axes.text(x, y, text, va="center", fontsize=SMALL, color=INK)
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.set_title(ON.get(kind, kind), loc="left", fontsize=TEXT, color=INK)
        _plain(axes, "taken off the loss (nats)" + (", share of all" if rows["share"].notna().any() else ""))
    panels[0].invert_yaxis()
    entitle(figure, "Loss by order of path, attention patterns frozen")
    return figure


def path_heads(table: pd.DataFrame, heads: pd.DataFrame) -> Figure:
    """What each single head (direct path only) is worth: added to the direct path alone, and taken from the whole.

    Columns on, layer, head (empty for a whole layer), alone, marginal and their intervals.
    """
    types = _types(heads)
    table = table[table["head"].notna()]
    names = sorted({(int(row.layer), int(row.head)) for row in table.itertuples()})
    kinds = list(table["on"].unique())
    figure = Figure(figsize=(8, 1.9 + 0.3 * len(names)), dpi=100, layout=_layout())
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        rows = table[table["on"] == kind].astype({"head": int}).set_index(["layer", "head"]).loc[names]
        colours = [HEAD_COLOURS.get(types.get(which, "other"), FAINT) for which in names]
        for shift, measure, face in ((-0.14, "alone", "white"), (0.14, "marginal", None)):
            for y, (colour, (_, row)) in enumerate(zip(colours, rows.iterrows(), strict=True)):
                axes.plot([row[f"{measure}_low"], row[f"{measure}_high"]], [y + shift] * 2, color=colour, linewidth=1.5)
                axes.plot(row[measure], y + shift, "o", color=colour, markerfacecolor=face or colour, markersize=6)
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.set_yticks(np.arange(len(names)), [_name(which) for which in names])
        for tick, colour in zip(axes.get_yticklabels(), colours, strict=False):
            tick.set_color(colour)
        axes.set_title(ON.get(kind, kind), loc="left", fontsize=TEXT, color=INK)
        _plain(axes, "loss (nats)", keep_colours=True)
    panels[0].invert_yaxis()
    entitle(figure, "What single heads are worth, attention patterns frozen")
    note = "ring: what the head takes off the loss of the direct path; disc: what the whole model loses without it"
    figure.supxlabel(f"{note}\n{_colours_in_words()}", x=0.01, ha="left", fontsize=SMALL, color=FAINT)
    return figure


def ideal_head(table: pd.DataFrame) -> Figure:
    """Share of their effect on the loss that induction heads keep when hard-coded, by variant, with 95% intervals.

    Columns on, role ('induction' | 'induction_together' | 'control'), heads, variant, share, share_low, share_high.
    Controls are in `ideal_head_controls`. A share that does not fit (a wrong pattern can do much harm) is written at
    the edge.
    """
    table = table[table["role"] != "control"]
    variants, names, kinds = (list(table[name].unique()) for name in ("variant", "heads", "on"))
    figure = Figure(figsize=(8, 1.8 + (0.25 + 0.17 * len(names)) * len(variants)), dpi=100, layout=_layout())
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    low, high = -0.6, 1.6
    for axes, kind in zip(panels, kinds, strict=True):
        axes.axvline(0, color=FAINT, linewidth=1)
        axes.axvline(1, color=FAINT, linewidth=1)
        axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=":")
        for place, name in enumerate(names):
            colour = RUN_COLOURS[place % len(RUN_COLOURS)]
            rows = table[(table["on"] == kind) & (table["heads"] == name)].set_index("variant").reindex(variants)
            for y, row in enumerate(rows.itertuples()):
                at = y + 0.8 * ((place + 0.5) / len(names) - 0.5)
                if np.isnan(row.share):
                    axes.text(0.02, at, "no effect to keep", fontsize=SMALL - 2, color=colour, va="center")
                elif low < row.share < high:
                    interval = np.clip([row.share_low, row.share_high], low, high)
                    axes.plot(interval, [at] * 2, color=colour, linewidth=1.5)
                    axes.plot(row.share, at, "o", color=colour, markersize=5)
                else:
                    right = row.share >= high
                    text, side = f"{row.share:.1f}", "right" if right else "left"
                    text = f"{text} >" if right else f"< {text}"
                    x = high if right else low
                    axes.text(x, at, text, fontsize=SMALL - 1, color=colour, va="center", ha=side)
        for y in range(1, len(variants)):
            axes.axhline(y - 0.5, color="#EEEEEE", linewidth=1)
        axes.set_yticks(range(len(variants)), variants)
        axes.set_xlim(low, high)
        axes.set_title(ON.get(kind, kind), loc="left", fontsize=TEXT, color=INK)
        _plain(axes, "share of the effect kept")
    panels[0].set_ylim(len(variants) - 0.5, -0.5)
    entitle(figure, "Induction heads replaced by hard-coded ones (0 = removed, 1 = as the head)")
    handles = [
        Line2D([], [], color=RUN_COLOURS[place % len(RUN_COLOURS)], marker="o", markersize=5, label=name)
        for place, name in enumerate(names)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(4, len(names)), frameon=False, fontsize=SMALL)
    return figure


def ideal_head_controls(table: pd.DataFrame) -> Figure:
    """What removing a head costs and what the ideal head in its place gives back, for induction heads and controls.

    Columns on, role, heads, variant, effect, regained and their intervals; the variants 'ideal' and 'ideal copy'.
    """
    table = table[table["variant"].isin(["ideal", "ideal copy"])]
    names, kinds = list(table["heads"].unique()), list(table["on"].unique())
    roles = table.groupby("heads")["role"].first()
    figure = Figure(figsize=(8, 2.0 + 0.42 * len(names)), dpi=100, layout=_layout())
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    colours = {"effect": INK, "ideal": RUN_COLOURS[0], "ideal copy": RUN_COLOURS[1]}
    for axes, kind in zip(panels, kinds, strict=True):
        axes.axvline(0, color=FAINT, linewidth=1)
        for y, name in enumerate(names):
            rows = table[(table["on"] == kind) & (table["heads"] == name)].set_index("variant")
            points = [("effect", rows.iloc[0], "effect")]
            points += [(variant, rows.loc[variant], "regained") for variant in rows.index]
            for shift, (which, row, column) in zip((-0.24, 0, 0.24), points, strict=False):
                interval = [row[f"{column}_low"], row[f"{column}_high"]]
                axes.plot(interval, [y + shift] * 2, color=colours[which], linewidth=1.5)
                axes.plot(row[column], y + shift, "o", color=colours[which], markersize=5)
        axes.set_yticks(range(len(names)), [f"{name} ({in_words(roles[name]).split()[0]})" for name in names])
        axes.set_title(ON.get(kind, kind), loc="left", fontsize=TEXT, color=INK)
        _plain(axes, "loss (nats)")
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    entitle(figure, "What a head is worth, and what a hard-coded induction head in its place is")
    words = {"effect": "lost by removing it", "ideal": "regained, ideal pattern"}
    words |= {"ideal copy": "regained, ideal copy"} if (table["variant"] == "ideal copy").any() else {}
    handles = [Line2D([], [], color=colours[key], marker="o", markersize=5, label=text) for key, text in words.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=SMALL)
    return figure


# What these figures share.


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)


def _plain(axes: Axes, unit: str, keep_colours: bool = False) -> None:
    axes.set_xlabel(unit, fontsize=TEXT, color=INK)
    axes.tick_params(axis="x", labelsize=SMALL, colors=INK)
    axes.tick_params(axis="y", labelsize=SMALL, length=0, **({} if keep_colours else {"colors": INK}))
    axes.spines[["top", "right", "left"]].set_visible(False)


def _name(which: tuple[int, int]) -> str:
    return f"L{int(which[0])}H{int(which[1])}"


def _types(heads: pd.DataFrame) -> dict[tuple[int, int], str]:
    return heads.groupby(["layer", "head"])["head_type"].last().to_dict()


def _last(heads: pd.DataFrame, measure: str) -> dict[tuple[int, int], float]:
    rows = heads[(heads["measure"] == measure) & (heads["step"] == heads["step"].max())]
    return rows.set_index(["layer", "head"])["value"].to_dict()


def _colours_in_words() -> str:
    return "indigo: induction head; magenta: previous-token head; olive: other"

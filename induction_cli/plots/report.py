"""The paper's one picture, of the runs at hand: the score falls while induction heads form, with two layers only."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from induction_cli.plots.style import FAINT, HEAD_COLOURS, RUN_COLOURS, End, finish, headline, marker, name_ends

SMALLEST = (-0.1, 0.05)  # nats shown at least, so that noise is not drawn large
COLOURS = {"deep": HEAD_COLOURS["induction"], "shallow": RUN_COLOURS[1]}


def opening(table: pd.DataFrame, windows: pd.DataFrame, names: dict[str, str]) -> Figure:
    """In-context learning score above, the best head's prefix matching below, over tokens; a thin line per seed.

    Columns depth ('deep' | 'shallow'), seed, tokens, in_context_learning_score (nats), prefix_matching (largest over
    heads, share of attention). windows: start_tokens, end_tokens of the deep runs. names: of each depth.
    """
    figure = Figure(figsize=(8, 6), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    above, below = figure.subplots(2, 1, sharex=True)
    note = "below: the head that matches prefixes best" + ("; a line a seed" if table["seed"].nunique() > 1 else "")
    headline(figure, above, "In-context learning and induction heads", note)
    panels = ((above, "in_context_learning_score"), (below, "prefix_matching"))
    for axes, column in panels:
        ends = []
        for depth in [depth for depth in ("shallow", "deep") if (table["depth"] == depth).any()]:
            lasts = []
            for _, line in table[table["depth"] == depth].dropna(subset=[column]).groupby("seed"):
                line = line.sort_values("tokens")
                axes.plot(line["tokens"], line[column], color=COLOURS[depth], linewidth=2, marker=marker(line))
                lasts.append(float(line[column].iloc[-1]))
            if lasts:
                ends.append(End(sum(lasts) / len(lasts), names[depth], COLOURS[depth]))
        if axes is above:
            axes.axhline(0, color=FAINT, linewidth=1)
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, SMALLEST[0]), max(high, SMALLEST[1]))
            finish(axes, "in-context learning\nscore (nats)", windows)
            axes.set_xlabel("")
        else:
            axes.set_ylim(0, 1)
            finish(axes, "prefix matching\n(share of attention)", windows, label=False)
        name_ends(axes, ends)
    return figure

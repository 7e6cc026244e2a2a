"""What removing a head does, against what it attends to."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from induction_cli.plots.style import FAINT, HEAD_COLOURS, SMALL, frame, new_figure


def ablation_scatter(heads: pd.DataFrame) -> Figure:
    """Prefix matching of each head against what its removal does to the in-context learning score.

    Columns layer, head, head_type, prefix_matching, in_context_learning_change (nats), low, high.
    """
    figure, axes = new_figure("Removing one head", "above zero: without the head there is less in-context learning")
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
    frame(axes, "prefix matching (share of attention)", "change of the in-context\nlearning score (nats)")
    return figure

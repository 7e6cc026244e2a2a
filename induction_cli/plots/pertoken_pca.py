"""Paths through per-token losses."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from induction_cli.plots.style import End, frame, name_ends, new_figure, runs_of


def pertoken_pca(table: pd.DataFrame, windows: pd.DataFrame, shares: Sequence[float]) -> Figure:
    """One path per run in the plane of the first two principal components of per-token losses.

    Columns run, tokens, pc1, pc2; windows with run, start_tokens, end_tokens: that stretch is drawn thick. shares are
    the explained variances. A ring marks the start of each path, a disc its end.
    """
    thick = "thick: the phase change; " if windows["start_tokens"].notna().any() else ""
    note = f"{thick}ring: first snapshot; disc: last snapshot"
    figure, axes = new_figure("Per-token losses during training", note, height=6.0)
    ends = []
    for run, path, colour in runs_of(table):
        axes.plot(path["pc1"], path["pc2"], color=colour, linewidth=1.2, alpha=0.8)
        for window in windows[windows["run"] == run].itertuples():
            inside = path[path["tokens"].between(window.start_tokens, window.end_tokens)]
            axes.plot(inside["pc1"], inside["pc2"], color=colour, linewidth=5, alpha=0.5, solid_capstyle="round")
        axes.plot(*path[["pc1", "pc2"]].iloc[0], "o", color=colour, markerfacecolor="white", markersize=7)
        axes.plot(*path[["pc1", "pc2"]].iloc[-1], "o", color=colour, markersize=7)
        ends.append(End(float(path["pc2"].iloc[-1]), run, colour))
    first, second = (f"principal component (nats), {share:.0%} of variance" for share in shares[:2])
    frame(axes, f"first {first}", f"second {second}")
    name_ends(axes, ends)
    return figure

"""The tokens whose loss changed most across the phase change, as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from induction_cli.page.template import render
from induction_cli.words import short, signed

WIDTH, TOP, BOTTOM = 200, 4, 60  # of a curve's box


@dataclass(frozen=True)
class Point:
    """One snapshot on a curve: where it is drawn, and what it says when one points at it."""

    x: float
    y: float
    said: str

    @property
    def at(self) -> str:
        return f"{self.x:.1f},{self.y:.1f}"


@dataclass(frozen=True)
class Trace:
    """A token in its context, what happened to it (kind: fell | rose; change in nats), and its loss over training."""

    kind: str
    before: str
    token: str
    index: int
    change: str
    first: str
    last: str
    curve: list[Point]


def curve(tokens: Sequence[float], losses: Sequence[float]) -> list[Point]:
    """Loss over training as points in the box; zero loss lies at its bottom, the largest at its top."""
    most = max(1e-9, *losses)
    return [
        Point(
            WIDTH * seen / max(1, tokens[-1]),
            BOTTOM - (BOTTOM - TOP) * loss / most,
            f"{short(seen)} tokens: {loss:.2f} nats",
        )
        for seen, loss in zip(tokens, losses, strict=True)
    ]


def trace_page(traces: pd.DataFrame) -> str:
    """HTML from tables/traces.csv: each token in its context, coloured by what happened to it, with its loss curve."""
    return render(
        "traces",
        runs={
            str(run): [trace(rows) for _, rows in of_run.groupby(["kind", "example"], sort=False)]
            for run, of_run in traces.groupby("run", sort=False)
        },
    )


def trace(rows: pd.DataFrame) -> Trace:
    """From the rows of one token, one a snapshot."""
    row, losses = rows.iloc[0], rows.loss.tolist()
    return Trace(
        kind=str(row.kind),
        before=str(row.before_text),
        token=str(row.token_text),
        index=int(row["index"]),
        change=signed(row.change),
        first=f"{losses[0]:.1f}",
        last=f"{losses[-1]:.1f}",
        curve=curve(rows.tokens.tolist(), losses),
    )

"""The tokens whose loss changed most across the phase change, as one self-contained page."""

from __future__ import annotations

from html import escape

import pandas as pd

STYLE = """
:root { color-scheme: light dark; --ink: #222; --faint: #666; --paper: #fff;
  --fell: #0b6e4f; --rose: #b3261e; --line: #ddd }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eee; --faint: #aaa; --paper: #161616; --fell: #58d3a5; --rose: #ff8a80; --line: #333 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem } p.note { color: var(--faint) }
article { border-top: 1px solid var(--line); padding: .8rem 0; display: grid;
  grid-template-columns: 1fr 13rem; gap: 1rem }
@media (max-width: 40rem) { article { grid-template-columns: 1fr } }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: 13px/1.45 ui-monospace, monospace }
mark { background: none; font-weight: 700; text-decoration: underline; text-underline-offset: 3px }
.fell mark, .fell b { color: var(--fell) } .rose mark, .rose b { color: var(--rose) }
svg { width: 13rem; height: 4.2rem; overflow: visible } polyline { fill: none; stroke: currentColor; stroke-width: 1.5 }
circle { fill: transparent } circle:hover { fill: currentColor }
figcaption { font-size: .8rem; color: var(--faint) } figure { margin: 0 }
"""


def sparkline(tokens: list[float], losses: list[float]) -> str:
    """Loss over training as a small curve; hovering a point names it."""
    top = max(1e-9, *losses)
    points = [
        (200 * t / max(1, tokens[-1]), 60 - 56 * loss / top, t, loss) for t, loss in zip(tokens, losses, strict=True)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{t / 1e6:.2f} million tokens: {loss:.2f} nats</title></circle>'
        for x, y, t, loss in points
    )
    return (
        f'<svg viewBox="0 0 200 64" role="img" aria-label="loss over training"><polyline points="{line}"/>{dots}</svg>'
    )


def trace_page(traces: pd.DataFrame) -> str:
    """HTML from tables/traces.csv: each token in its context, coloured by what happened to it, with its loss curve."""
    body = []
    for run, of_run in traces.groupby("run", sort=False):
        body.append(f"<h2>{escape(str(run))}</h2>")
        for (kind, _), rows in of_run.groupby(["kind", "example"], sort=False):
            row, losses = rows.iloc[0], rows.loss.tolist()
            body.append(
                f'<article class="{kind}"><pre>{escape(str(row.before_text))}<mark title="{row.change:+.2f} nats">'
                f"{escape(str(row.token_text))}</mark></pre><figure>{sparkline(rows.tokens.tolist(), losses)}"
                f"<figcaption><b>{row.change:+.2f} nats</b> at index {row['index']}: {losses[0]:.1f} at first, "
                f"{losses[-1]:.1f} at last</figcaption></figure></article>"
            )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Tokens that changed most</title><style>{STYLE}</style><h1>Tokens whose loss changed most</h1>"
        '<p class="note">Held-out text up to the token that was predicted (underlined), and its loss over training. '
        "Change: from the start to the end of the phase change; hover a curve for its values.</p>"
        + "".join(body)
        + "</html>"
    )

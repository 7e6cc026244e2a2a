"""Rows of the tables that say what was decided, and by which numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from induction_cli.verdicts.decide import PartVerdict, Verdict

NUMBERS = ("estimate", "low", "high")


def numbers(part: PartVerdict | None) -> dict[str, Any]:
    """The columns that say what was found: of a verdict those of the part that decides."""
    if part is None:
        return {}
    return {
        "part": part.part.name,
        "n": part.n,
        "could_not_say": sum(part.could_not_say.values()),
        "why": "; ".join(f"{count} {reason}" for reason, count in part.could_not_say.items()),
        **{name: getattr(part, name) for name in NUMBERS},
        "unit": part.part.unit,
        "scale": part.scale,
        "above": part.part.above,
        "below": part.part.below,
    }


COLUMNS = ["part", "n", "could_not_say", "why", *NUMBERS, "unit", "scale", "above", "below"]


def verdict_rows(found: Sequence[Verdict]) -> pd.DataFrame:
    """verdicts.csv: a row a claim and class of model."""
    rows = [
        {"id": v.id, "line": v.line, "claim": v.claim.claim, "model_class": v.model_class, "headline": v.headline}
        | {"source": v.source, "kind": v.claim.kind, **numbers(v.decisive), "rule": v.claim.rule}
        | {"verdict": v.verdict, "holm": v.holm, "looks": v.looks, "seen_before": v.seen_before}
        | {"note": v.note, "missing": v.missing}
        for v in found
    ]
    first = ["id", "line", "claim", "model_class", "headline", "source", "kind"]
    last = ["rule", "verdict", "holm", "looks", "seen_before", "note", "missing"]
    return pd.DataFrame(rows, columns=[*first, *COLUMNS, *last])


def part_rows(found: Sequence[Verdict]) -> pd.DataFrame:
    """verdict_parts.csv: every number of every claim over seeds, those too that are shown and not judged."""
    rows = [
        {"id": v.id, "model_class": v.model_class, **numbers(part), "verdict": part.verdict, "note": part.note}
        for v in found
        for part in v.parts
    ]
    return pd.DataFrame(rows, columns=["id", "model_class", *COLUMNS, "verdict", "note"])


def estimate_rows(found: Sequence[Verdict]) -> pd.DataFrame:
    """estimates.csv: every seed's number behind every verdict, or why it has none."""
    columns = ["id", "model_class", "part", "seed", "run", "value", "missing", "note"]
    rows = [
        [v.id, v.model_class, part.part.name, one.seed, one.run, one.value, one.missing, one.note]
        for v in found
        for part in v.parts
        for one in part.estimates
    ]
    return pd.DataFrame(rows, columns=columns).astype({"seed": "Int64"})

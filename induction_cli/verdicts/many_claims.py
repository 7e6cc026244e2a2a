"""What is said of several claims together: Holm's correction over those of a line, and claims about other claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from induction_cli.verdicts.claims import Claim
from induction_cli.verdicts.decide import REFUTED, STRADDLES, SUPPORTED, UNTESTED, Verdict, level_of


def with_holm(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts with `holm`: whether each survives Holm's correction over the claims of its line in its class.

    Headlines of a line are one family, whatever class each is about. Existence claims carry a family-wise error of
    their own.
    """
    families: dict[tuple[int, str], list[Verdict]] = {}
    for one in verdicts:
        if math.isfinite(error_of(one)):
            families.setdefault((one.line, "" if one.headline else one.model_class), []).append(one)
    survive: dict[int, bool] = {}
    for family in families.values():
        alive = True
        for place, one in enumerate(sorted(family, key=error_of)):
            alive = alive and error_of(one) <= (1 - level_of(one.claim)) / (len(family) - place)
            survive[id(one)] = alive
    decided = (SUPPORTED, REFUTED)
    return [replace(one, holm=survive.get(id(one)) if one.verdict in decided else None) for one in verdicts]


def error_of(verdict: Verdict) -> float:
    """The smallest error at which the verdict would be the same; over parts, as all must hold or one must fail."""
    judged = [part for part in verdict.parts if part.verdict]
    if verdict.verdict == UNTESTED or not judged:
        return math.nan
    if verdict.verdict == REFUTED:
        return min(1.0, len(judged) * min(part.p for part in judged if part.verdict == REFUTED))
    return max(part.p for part in judged)


def decide_of_claims(claim: Claim, rows: Sequence[Verdict]) -> Verdict:
    """A claim that others hold in every class of deep model: depths beyond one, without MLPs and with."""
    tested = [row for row in rows if row.verdict != UNTESTED]
    classes = {row.model_class for row in tested}
    depths = {name.split(",")[0] for name in classes}
    lacks = [] if len(depths) > 1 else ["a second depth"]
    lacks += [] if any("MLPs" in name for name in classes) else ["a model with MLPs"]
    said = [row.verdict for row in tested]
    note = ", ".join(f"{row.id} in {row.model_class}: {row.verdict}" for row in tested)
    if lacks and REFUTED not in said:
        return Verdict(claim, claim.model_class, True, UNTESTED, missing=f"{' and '.join(lacks)}: {claim.command}")
    verdict = REFUTED if REFUTED in said else STRADDLES if STRADDLES in said or len(said) < len(rows) else SUPPORTED
    return Verdict(claim, claim.model_class, True, verdict, note=note)

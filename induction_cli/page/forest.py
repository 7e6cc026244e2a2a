"""The forest of verdicts: a row a claim and class of model, each on its own scale with the threshold in the middle.

Right of the middle is the claim's side, whatever the claim asks for: of 'below 0.1' smaller numbers lie further right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from induction_cli.terminal import plural
from induction_cli.verdicts import Part, PartVerdict, Verdict
from induction_cli.words import number

MIDDLE, REACH = 100.0, 92.0  # of a row's picture, 200 wide; the farthest number lies REACH from the middle
STEPS = 20  # an interval is followed in so many steps: of 'between' both of its ends may lie outside


@dataclass(frozen=True)
class Row:
    """One verdict as a row. x: where its numbers lie in the picture; None and empty where there are none."""

    verdict: Verdict
    x: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()

    @property
    def seen(self) -> bool:
        """Whether there is a number, be there enough seeds for a verdict or not."""
        return self.verdict.decisive is not None and math.isfinite(self.verdict.estimate)

    @property
    def leans(self) -> str:
        """On which side of the rule what was seen lies: 'for' or 'against'."""
        part = self.verdict.decisive
        return "" if part is None or not self.seen else "for" if beyond(part.part, part.estimate, "") > 0 else "against"

    @property
    def found(self) -> str:
        """'fall +0.42 nats [+0.31, +0.53]'."""
        return measured(self.verdict.decisive) if self.verdict.decisive else ""

    @property
    def rule(self) -> str:
        part = self.verdict.decisive
        return part.part.rule if part and self.verdict.claim.kind != "existence" else self.verdict.claim.rule

    @property
    def seeds_said(self) -> str:
        """'3 seeds, 1 could not say (no window)'."""
        part = self.verdict.decisive
        if part is None:
            return ""
        said = [plural(part.n, self.verdict.claim.unit_of_evidence)]
        return ", ".join(said + [f"{count} could not say ({why})" for why, count in part.could_not_say.items()])


def measured(part: PartVerdict) -> str:
    """'fall +0.61 nats [+0.38, +0.77]', '100% of seeds [29%, 100%]'."""
    ends = (part.estimate, part.low, part.high)
    value, low, high = (f"{end:.0%}" if part.scale == "share" and part.verdict else number(end) for end in ends)
    said = f"{part.part.name} {value} {part.part.unit}".strip()
    return f"{said} [{low}, {high}]" if math.isfinite(part.low) else said


def beyond(part: Part, value: float, scale: str) -> float:
    """How far a number lies on the claim's side of its threshold; below zero: on the other. Ratios: of logarithms."""

    def on_scale(x: float) -> float:
        return math.log(x) if scale == "log" and x > 0 else x

    distances = [on_scale(value) - on_scale(part.above)] if part.above is not None else []
    distances += [on_scale(part.below) - on_scale(value)] if part.below is not None else []
    return min(distances, default=0.0)


def row_of(verdict: Verdict) -> Row:
    part = verdict.decisive
    if part is None or not part.part.judged or not math.isfinite(part.estimate):
        return Row(verdict)
    values = [one.value for one in part.estimates if math.isfinite(one.value)]
    seeds = [] if part.scale == "share" else [beyond(part.part, value, part.scale) for value in values]
    estimate = beyond(part.part, part.estimate, part.scale)
    interval = [part.low + (part.high - part.low) * i / STEPS for i in range(STEPS + 1)]
    along = [beyond(part.part, value, part.scale) for value in interval if math.isfinite(value)]
    largest = max(map(abs, [estimate, *seeds, *along]))

    def place(distance: float) -> float:
        return round(MIDDLE + REACH * distance / largest, 1) if largest else MIDDLE

    low, high = (place(min(along)), place(max(along))) if along else (None, None)
    return Row(verdict, place(estimate), low, high, tuple(map(place, seeds)))


def rows_of(verdicts: Sequence[Verdict]) -> list[Row]:
    return [row_of(verdict) for verdict in verdicts]

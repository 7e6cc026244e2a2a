"""From one number a seed to a verdict. Every number of a rule comes from its claim (claims.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from scipy import stats

from induction_cli.measures.intervals import SCALES, Estimate, coincide, correlation_scale, over_seeds, share_of_seeds
from induction_cli.verdicts.claims import Claim, Part

SUPPORTED, REFUTED, STRADDLES, UNTESTED = "supported", "not supported", "inconclusive", "not tested"
LEVELS = {1: 0.95, 2: 0.9706}  # by the number of looks: Pocock's, so that the chance of a false verdict stays 5%
HALF = 0.5  # of the seeds: what a share of yes-or-no results is held against


@dataclass(frozen=True)
class SeedEstimate:
    """What one seed says about (a part of) a claim in a class of model: a number, or why there is none."""

    model_class: str  # '2 layers', '3 layers, MLPs', 'pretrained'
    seed: int | None  # None: a pretrained model, a unit of its own
    run: str
    value: float  # nan where it is missing
    missing: str = ""  # why it is
    part: str = ""
    items: int | None = None  # over how many items a correlation is
    note: str = ""  # what it was held against


@dataclass(frozen=True)
class PartVerdict:
    """One number of a claim over seeds, and its place by the rule. estimate, low, high: in the part's unit."""

    part: Part
    estimates: tuple[SeedEstimate, ...]  # one a seed, missing ones too
    estimate: float
    low: float
    high: float
    verdict: str  # '' where the part is shown and not judged
    p: float  # the smallest error at which it would be the same; nan where there is none
    scale: str  # as used: 'share' where estimates that coincide are judged as yes or no
    note: str = ""

    @property
    def n(self) -> int:
        return sum(math.isfinite(one.value) for one in self.estimates)

    @property
    def could_not_say(self) -> dict[str, int]:
        """{why: how many seeds}."""
        reasons = [one.missing for one in self.estimates if not math.isfinite(one.value)]
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


@dataclass(frozen=True)
class Verdict:
    """The verdict of a claim in one class of model: a row of the table.

    Its numbers are those of the part that decides (a claim of one part has only that one); `parts` has all, with those
    that are shown and not judged.
    """

    claim: Claim
    model_class: str
    headline: bool  # of the class that the rule names
    verdict: str  # supported | not supported | inconclusive | not tested
    parts: tuple[PartVerdict, ...] = ()
    holm: bool | None = None  # survives Holm's correction over the claims of its line; None: nothing to correct
    missing: str = ""  # not tested: what is missing, and the command that would supply it
    note: str = ""

    @property
    def decisive(self) -> PartVerdict | None:
        """The judged part that makes the verdict: of those refuted the clearest, of those untested the one with fewest
        seeds, else the one furthest from being held."""
        mine = [part for part in self.parts if part.verdict == self.verdict]
        if self.verdict == UNTESTED:
            return min(mine, key=lambda part: part.n, default=None)
        if self.verdict == REFUTED:
            return min(mine, key=lambda part: part.p, default=None)
        return max(mine, key=lambda part: part.p, default=None)

    @property
    def id(self) -> str:
        return self.claim.id

    @property
    def line(self) -> int:
        return self.claim.line

    @property
    def source(self) -> str:
        return self.claim.source

    @property
    def looks(self) -> int:
        return self.claim.looks

    @property
    def estimates(self) -> tuple[SeedEstimate, ...]:
        return self.decisive.estimates if self.decisive else ()

    @property
    def n(self) -> int:
        return self.decisive.n if self.decisive else 0

    @property
    def estimate(self) -> float:
        return self.decisive.estimate if self.decisive else math.nan

    @property
    def low(self) -> float:
        return self.decisive.low if self.decisive else math.nan

    @property
    def high(self) -> float:
        return self.decisive.high if self.decisive else math.nan

    @property
    def unit(self) -> str:
        return self.decisive.part.unit if self.decisive else ""

    @property
    def scale(self) -> str:
        return self.decisive.scale if self.decisive else ""

    @property
    def side(self) -> str:
        return self.decisive.part.side if self.decisive else ""

    @property
    def threshold(self) -> tuple[float, ...]:
        return self.decisive.part.thresholds if self.decisive else ()

    @property
    def seen_before(self) -> bool:
        """Whether any seed in it had been seen when the rule was fixed: it illustrates, and confirms nothing."""
        return any(one.seed is not None and one.seed < self.claim.first_new_seed for one in self.estimates)


# ------------------------------------------------------------------------------------------------ one number over seeds


def one_a_seed(found: Sequence[SeedEstimate]) -> tuple[SeedEstimate, ...]:
    """One estimate a seed: where several runs of a class have it, their mean. A pretrained model is its own unit."""
    units: dict[object, list[SeedEstimate]] = {}
    for one in found:
        units.setdefault(one.run if one.seed is None else one.seed, []).append(one)
    joined = []
    for same in units.values():
        known = [one for one in same if math.isfinite(one.value)]
        if len(known) < 2:
            joined.append((known or same)[0])
            continue
        runs = ", ".join(dict.fromkeys(one.run for one in known))
        joined.append(replace(known[0], run=runs, value=fmean(one.value for one in known)))
    return tuple(sorted(joined, key=lambda one: (one.seed is None, one.seed or 0, one.run)))


def fitting(scale: str, estimates: Sequence[SeedEstimate]) -> str:
    """The claim's scale, or identity where its numbers do not fit on it."""
    values = [one.value for one in estimates]
    if scale == "fisher":
        few = any(one.items is not None and correlation_scale(one.items) != scale for one in estimates)
        return "identity" if few or max(map(abs, values)) >= 1 else scale
    return "identity" if scale == "log" and min(values) <= 0 else scale


def inside(part: Part, value: float) -> bool:
    """Whether a number lies on the claim's side."""
    return (part.above is None or value > part.above) and (part.below is None or value < part.below)


def side_of(part: Part, low: float, high: float) -> str:
    """Supported: the whole interval lies on the claim's side; not supported: on the other; else inconclusive."""
    if inside(part, low) and inside(part, high):
        return SUPPORTED
    if (part.above is not None and high < part.above) or (part.below is not None and low > part.below):
        return REFUTED
    return STRADDLES


def smallest_error(part: Part, found: Estimate, n: int, level: float, scale: str) -> float:
    """The smallest error, two-sided, at which Student's t gives the same verdict: what Holm's correction orders."""
    mean, low, high, *ends = (float(SCALES[scale][0](np.array(number))) for number in (*found, *part.thresholds))
    error = (high - low) / 2 / float(stats.t.ppf((1 + level) / 2, n - 1))
    # the nearer end of the claim's side is the one that an ever wider interval meets first
    return 2 * float(stats.t.sf(min(abs(mean - end) for end in ends) / error, n - 1))


def over(part: Part, estimates: Sequence[SeedEstimate], claim: Claim, level: float) -> PartVerdict:
    """A part's interval over seeds and its place by the rule; too few seeds are 'not tested'."""
    known = [one for one in estimates if math.isfinite(one.value)]
    values = [one.value for one in known]
    if len(known) < claim.minimum_seeds:
        value, said = fmean(values) if values else math.nan, UNTESTED if part.judged else ""
        return PartVerdict(part, tuple(estimates), value, math.nan, math.nan, said, math.nan, part.scale)
    if claim.kind == "yes_no" or part.scale == "share" or coincide(values):
        return as_shares(part, estimates, values, level, claim.kind == "yes_no")
    scale = fitting(part.scale, known)
    found = over_seeds(values, scale, level)
    verdict = side_of(part, found.low, found.high) if part.judged else ""
    p = smallest_error(part, found, len(values), level, scale) if verdict else math.nan
    notes = "; ".join(dict.fromkeys(one.note for one in known if one.note))
    return PartVerdict(part, tuple(estimates), found.value, found.low, found.high, verdict, p, scale, notes)


def as_shares(
    part: Part, estimates: Sequence[SeedEstimate], values: Sequence[float], level: float, yes_no: bool
) -> PartVerdict:
    """The share of seeds on the claim's side with its Clopper-Pearson interval, against one half.

    So are yes-or-no results judged, and estimates that coincide: they have no spread to judge by.
    """
    yes = [inside(part, value) if part.judged else value > HALF for value in values]
    found, n = share_of_seeds([bool(one) for one in yes], level), len(yes)
    counted = Part(part.estimate, "of seeds", part.name, "share", above=HALF if part.judged else None)
    verdict = side_of(counted, found.low, found.high) if part.judged else ""
    p = min(1.0, 2 * float(stats.binom.sf(max(sum(yes), n - sum(yes)) - 1, n, HALF))) if verdict else math.nan
    why = "" if yes_no or part.scale == "share" else f"all {n} are {values[0]:.3g}: no spread to judge by"
    return PartVerdict(counted, tuple(estimates), found.value, found.low, found.high, verdict, p, "share", why)


# ------------------------------------------------------------------------------------------------ the verdict


def joint(parts: Sequence[PartVerdict]) -> str:
    """All must hold: refuted by one; else not tested, or undecided, where one is; else supported."""
    said = [part.verdict for part in parts if part.verdict]
    for verdict in (REFUTED, UNTESTED, STRADDLES):
        if verdict in said:
            return verdict
    return SUPPORTED


def decide(claim: Claim, found: Sequence[SeedEstimate], model_class: str | None = None) -> Verdict:
    """The verdict of a claim in one class of model (its own where none is named) from the estimates of that class."""
    name = model_class or claim.model_class
    parts = []
    for part in claim.parts:
        mine = [one for one in found if one.model_class == name and one.part == part.name]
        parts.append(over(part, one_a_seed(mine), claim, level_of(claim)))
    verdict = joint(parts)
    missing = what_is_missing(claim, name, parts) if verdict == UNTESTED else ""
    made = Verdict(claim, name, name == claim.model_class, verdict, tuple(parts), missing=missing)
    return replace(made, note=made.decisive.note) if made.decisive else made


def level_of(claim: Claim) -> float:
    if claim.looks not in LEVELS:
        raise ValueError(f"claim {claim.id}: no interval is laid down for {claim.looks} looks, only for 1 and 2")
    return LEVELS[claim.looks]


def what_is_missing(claim: Claim, model_class: str, parts: Sequence[PartVerdict]) -> str:
    """'2 more seeds (has 1): make evidence-1'; with the reasons of those that could not say."""
    worst = min((part for part in parts if part.verdict), key=lambda part: part.n)
    unit, lacking = claim.unit_of_evidence, claim.minimum_seeds - worst.n
    if not worst.estimates:
        return f"no run of {model_class} here, {claim.minimum_seeds} {unit}s are needed: {claim.command}"
    said = [f"has {worst.n}", *(f"{count} could not say: {why}" for why, count in worst.could_not_say.items())]
    return f"{lacking} more {unit}{'s' if lacking > 1 else ''} ({'; '.join(said)}): {claim.command}"

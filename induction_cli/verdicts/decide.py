"""An effect per run, and the verdict of them."""

from __future__ import annotations

from dataclasses import dataclass

from induction_cli.terminal import plural

SEEDS = 3  # fewer give no verdict


@dataclass(frozen=True)
class Effect:
    """One run's number for a claim. holds: True on the claim's side, False on the other, None where it straddles."""

    run: str
    value: float
    low: float
    high: float
    holds: bool | None
    runs: int = 1  # how many runs are pooled in it
    seed: int | None = None  # runs of one seed count once; None counts by itself


@dataclass(frozen=True)
class Verdict:
    id: str
    verdict: str  # supported | not supported | inconclusive | not tested
    effects: list[Effect]
    note: str = ""


def below(threshold: float, low: float, high: float) -> bool | None:
    """On which side of 'below the threshold' an interval lies."""
    return True if high < threshold else False if low > threshold else None


def above(threshold: float, low: float, high: float) -> bool | None:
    return below(-threshold, -high, -low)


def both(*sides: bool | None) -> bool | None:
    return False if False in sides else None if None in sides else True


def decide(claim: str, effects: list[Effect]) -> Verdict:
    """Supported or not where every run agrees, in at least SEEDS seeds; otherwise inconclusive, saying why."""
    n_runs = sum(effect.runs for effect in effects)
    runs = f"{n_runs} runs" if n_runs != 1 else "one run"
    if not effects:
        return Verdict(claim, "not tested", effects, "no run here can test it")
    sides = {effect.holds for effect in effects}
    known = {effect.seed for effect in effects if effect.seed is not None}
    n_seeds = len(known) + sum(effect.runs for effect in effects if effect.seed is None)
    if n_seeds < SEEDS:
        runs += f" of {plural(n_seeds, 'seed')}" if n_seeds < n_runs else ""
        lean = ", for it" if sides == {True} else ", against it" if sides == {False} else ", undecided"
        return Verdict(claim, "inconclusive", effects, runs + lean)
    if sides == {True}:
        return Verdict(claim, "supported", effects, runs)
    if sides == {False}:
        return Verdict(claim, "not supported", effects, runs)
    held = sum(effect.runs for effect in effects if effect.holds)
    return Verdict(claim, "inconclusive", effects, f"holds in {held} of {runs}")

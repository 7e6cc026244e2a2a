"""When a falling curve first passes a level, and of two runs which does so first."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from induction_cli.measures.intervals import FEWEST_UNITS, Estimate, from_resamples


def first_passage(tokens: ArrayLike, curve: ArrayLike, level: float) -> float:
    """The tokens at which a falling curve [snapshot] first passes a level, linear between snapshots; nan where it never
    does, or starts below."""
    time, values = np.asarray(tokens, dtype=np.float64), np.asarray(curve, dtype=np.float64)
    below = values <= level
    if not below.any() or below[0]:
        return math.nan
    later = int(below.argmax())
    part = (values[later - 1] - level) / (values[later - 1] - values[later])
    return float(time[later - 1] + part * (time[later] - time[later - 1]))


def earlier(tokens: ArrayLike, scores: ArrayLike, twin_tokens: ArrayLike, twin_scores: ArrayLike) -> Estimate:
    """When a run's score first passes half of its twin's final fall, over when the twin's does (claims.md 2b).

    scores, twin_scores [snapshot, chain], falling; chains are the same ones and drawn in pairs. One level for both: a
    run that falls deeper passes half of its own fall later though it is never behind. nan where either never does, or
    the twin's fall is below 0.1.
    """
    ours, twins = np.asarray(scores, dtype=np.float64), np.asarray(twin_scores, dtype=np.float64)

    def ratio(run: NDArray[np.float64], twin: NDArray[np.float64]) -> float:
        end = float(np.median(twin[-max(1, len(twin) // 10) :]))
        if twin[0] - end < 0.1:
            return math.nan
        level = (twin[0] + end) / 2
        return first_passage(tokens, run, level) / first_passage(twin_tokens, twin, level)

    n, value = min(ours.shape[1], twins.shape[1]), ratio(ours.mean(1), twins.mean(1))
    draws = np.random.default_rng(0).integers(0, n, (200 if n >= FEWEST_UNITS else 0, n))
    return from_resamples(value, [ratio(ours[:, draw].mean(1), twins[:, draw].mean(1)) for draw in draws], n)

"""The phase change: the window of training in which in-context learning appears, or None where it does not.

The paper selects its band "based on the derivative of the in-context score" and gives no rule (paper.md 1.1). A rule on
a smoothed derivative needs a bandwidth, since the bare one is all noise (200 snapshots, sd 0.03 nats: 0.04 nats a step
of noise against 0.01 at the peak). So the rule here fits the shape instead, which has no bandwidth:

    The window is the middle piece of the best broken line of three pieces: slow, steep fall, slow.

0. Outliers. A snapshot further than OUTLIER noise sds from the median of the five around it counts as that median.
   Noise sd = 1.4826 x median absolute difference between neighbours / sqrt(2).
1. Fit. S(tokens) is fitted by least squares with a continuous line that bends at two snapshots, `start` and `end`. All
   pairs are tried, each with at least two snapshots before `start` and two after `end`.
2. Shape. Only pairs count whose middle piece falls by at least `minimum_fall` nats, is at least `contrast` times as
   steep as either other piece, and leaves at least half of its fall standing at the last snapshot. Among them the
   smallest sum of squares wins. (For a logistic fall the winner spans about its 10% to 90% points.)
3. Evidence. Both bends must be at least `evidence` times their standard error, the noise being the fit's own residual.
4. If no such pair passes, the same is tried with one bend: a steep fall that training did not outlast. It ends at the
   last snapshot and carries finished=False: its end, fall and share are those seen so far.
5. Otherwise None. That is also the answer below MINIMUM_SNAPSHOTS, for a curve that is steepest from its first snapshot
   (nothing is seen before it, so nothing changes), for a straight decline, and for a rise.

Tokens are the time axis of the rule, not their logarithm. Units: tokens and nats; S negative = more in-context
learning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MINIMUM_SNAPSHOTS = 9  # six numbers are fitted (a line, and place and size of two bends), three are left for the noise
MARGIN = 2  # snapshots needed outside the window on each side: one alone may be an outlier
OUTLIER = 4.0
KEPT = 0.5  # share of the fall that must remain at the last snapshot: a dip that recovers is not a change


@dataclass(frozen=True)
class PhaseChange:
    """One window. Tokens; nats; `share` = fall / -(fitted S at the last snapshot), nan where that S is not negative."""

    start_tokens: float
    end_tokens: float
    start_index: int
    end_index: int
    fall: float  # nats, positive: score_before - score_after, both read off the fitted line
    share: float
    score_before: float
    score_after: float
    finished: bool  # False: still falling at the last snapshot


@dataclass(frozen=True)
class Interval:
    """The window of the mean curve; 95% percentile intervals (low, high) over resamples, nan where none was found."""

    window: PhaseChange | None
    start_tokens: tuple[float, float]
    end_tokens: tuple[float, float]
    fall: tuple[float, float]
    share: tuple[float, float]
    found_share: float  # fraction of resamples in which a window was found


@dataclass(frozen=True)
class _Bends:
    """What depends on tokens only: candidate pairs of bends and their normal equations, shared by all curves.

    With a constant and a line projected out, a broken line has two unknowns (the changes of slope), so each pair costs
    one 2 x 2 solve in closed form, and the sums in it are entries of two small tables. One bend = the second one at the
    last snapshot, where its column is zero.
    """

    tokens: Floats  # [snapshot]
    time: Floats  # [snapshot] tokens scaled to 0..1
    first: NDArray[np.intp]  # [pair] index of the bend down
    second: NDArray[np.intp]  # [pair] index of the bend back
    columns: Floats  # [knot, snapshot] hinge max(0, time - knot), constant and line projected out
    slopes: Floats  # [knot] slope of the line that was projected out of each hinge
    gram_first: Floats  # [pair]
    gram_second: Floats
    gram_cross: Floats
    determinant: Floats
    finished: bool


def _bends(tokens: Floats, finished: bool) -> _Bends:
    count = len(tokens)
    time = (tokens - tokens[0]) / (tokens[-1] - tokens[0])
    hinges = np.maximum(time[None, :] - time[:, None], 0.0)
    columns, slopes = _without_line(hinges, time)
    gram = columns @ columns.T
    if finished:
        first, second = np.triu_indices(count, 1)
        allowed = (first >= MARGIN) & (second < count - MARGIN)
        first, second = first[allowed], second[allowed]
        gram_first, gram_second, gram_cross = gram[first, first], gram[second, second], gram[first, second]
    else:
        # A fall that is only begun must span as many snapshots as a margin on both sides of a bend.
        first = np.arange(MARGIN, count - 2 * MARGIN)
        second = np.full_like(first, count - 1)
        gram_first, gram_second, gram_cross = gram[first, first], np.ones(len(first)), np.zeros(len(first))
    determinant = gram_first * gram_second - gram_cross**2
    return _Bends(
        tokens, time, first, second, columns, slopes, gram_first, gram_second, gram_cross, determinant, finished
    )


def _without_outliers(curves: Floats) -> Floats:
    """Step 0 for curves [..., snapshot]. A median of five leaves falls and steps as they are and removes spikes."""
    noise = 1.4826 / np.sqrt(2) * np.median(np.abs(np.diff(curves)), axis=-1, keepdims=True)
    ends = [(0, 0)] * (curves.ndim - 1) + [(2, 2)]
    around = np.lib.stride_tricks.sliding_window_view(np.pad(curves, ends, mode="reflect"), 5, axis=-1)
    middle = np.median(around, axis=-1)
    return np.where(np.abs(curves - middle) > OUTLIER * noise, middle, curves)


def _without_line(rows: Floats, time: Floats) -> tuple[Floats, Floats]:
    """Each row less its own least-squares line over time, and that line's slope."""
    centred = time - time.mean()
    slope = rows @ centred / (centred @ centred)
    return rows - rows.mean(-1, keepdims=True) - slope[..., None] * centred, slope


def _best(bends: _Bends, score: Floats, minimum_fall: float, contrast: float, evidence: float) -> PhaseChange | None:
    """Steps 1 to 3 of the rule for one curve score [snapshot] and one kind of candidate."""
    rest, slope = _without_line(score, bends.time)
    moment = bends.columns @ rest
    one, two = moment[bends.first], moment[bends.second]
    bend_down = (bends.gram_second * one - bends.gram_cross * two) / bends.determinant
    bend_back = (bends.gram_first * two - bends.gram_cross * one) / bends.determinant
    gain = bend_down * one + bend_back * two  # what the bends take off the sum of squares of a straight line

    before = slope - bend_down * bends.slopes[bends.first] - bend_back * bends.slopes[bends.second]
    inside = before + bend_down
    after = inside + bend_back if bends.finished else np.zeros_like(inside)
    fall = -inside * (bends.time[bends.second] - bends.time[bends.first])
    kept = fall - after * (1.0 - bends.time[bends.second])
    fits = (
        (fall >= minimum_fall)
        & (-inside >= contrast * np.abs(before))
        & (-inside >= contrast * np.abs(after))
        & (kept >= KEPT * fall)
    )
    if not fits.any():
        return None
    best = int(np.argmax(np.where(fits, gain, -np.inf)))

    freedom = len(score) - (6 if bends.finished else 4)  # line and bends, and where the bends are
    variance = max(float(rest @ rest - gain[best]), 0.0) / freedom
    error_down = np.sqrt(variance * bends.gram_second[best] / bends.determinant[best])
    error_back = np.sqrt(variance * bends.gram_first[best] / bends.determinant[best])
    if -bend_down[best] < evidence * error_down or (bends.finished and bend_back[best] < evidence * error_back):
        return None

    first, second = int(bends.first[best]), int(bends.second[best])
    hinges = np.maximum(bends.time[None, :] - bends.time[[first, second], None], 0.0)
    line = before[best] * bends.time + bend_down[best] * hinges[0] + bend_back[best] * hinges[1]
    line += (score - line).mean()
    final = float(line[-1])
    return PhaseChange(
        start_tokens=float(bends.tokens[first]),
        end_tokens=float(bends.tokens[second]),
        start_index=first,
        end_index=second,
        fall=float(fall[best]),
        share=float(fall[best]) / -final if final < 0 else float("nan"),
        score_before=float(line[first]),
        score_after=float(line[second]),
        finished=bends.finished,
    )


def detect(
    tokens: ArrayLike,
    score: ArrayLike,
    *,
    minimum_fall: float = 0.1,
    contrast: float = 3.0,
    evidence: float = 4.0,
) -> PhaseChange | None:
    """The window in which the in-context learning score falls, or None: the rule at the head of this file.

    tokens [snapshot], strictly increasing, spacing free; score [snapshot] in nats, negative = more in-context
    learning.
    minimum_fall in nats (claims.md 1a); contrast and evidence are ratios. Measured with noise of sd 0.03 nats: a window
    in at most 0.6% of flat, slowly drifting (-0.1) and straight curves (-0.5) of 9 to 200 snapshots; a logistic fall of
    0.35 nats is found in all of 25 to 200 even snapshots, but in a third of 25 when only three precede it: snapshots
    should be dense where the fall is early. Known weaknesses: an exponential fall of 0.45 nats from the first snapshot
    on is taken for a window in 10% of curves of 200 snapshots, and a decline of 0.4 nats that accelerates to the end
    (quadratic) for an unfinished one. Raises ValueError for shapes that do not match, values that are not finite and
    tokens that do not increase.
    """
    time, curve = _checked(tokens, score)
    if len(time) < MINIMUM_SNAPSHOTS:
        return None
    kinds = (_bends(time, finished=True), _bends(time, finished=False))
    return _detect(kinds, _without_outliers(curve), minimum_fall, contrast, evidence)


def _detect(
    kinds: tuple[_Bends, _Bends], curve: Floats, minimum_fall: float, contrast: float, evidence: float
) -> PhaseChange | None:
    for bends in kinds:
        window = _best(bends, curve, minimum_fall, contrast, evidence)
        if window is not None:
            return window
    return None


def interval(
    tokens: ArrayLike,
    scores: ArrayLike,
    *,
    resamples: int = 200,
    seed: int = 0,
    minimum_fall: float = 0.1,
    contrast: float = 3.0,
    evidence: float = 4.0,
) -> Interval:
    """The window and its 95% confidence interval by bootstrap over held-out examples.

    tokens [snapshot]; scores [snapshot, unit]: the score of every example (or of whatever else was drawn independently)
    at every snapshot, nats. Units are drawn with replacement, the same draw for all snapshots because the held-out set
    is the same; each resample's mean curve goes through `detect`. Says how far the window depends on the examples, not
    on the seed of training. Where the window is found in some resamples only, the limits are those of the ones in which
    it is found: read them with `found_share`. A function of its arguments (numpy's PCG64 from `seed`).
    """
    time, matrix = _checked(tokens, scores)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(f"scores must be [snapshot, unit] with at least one unit, not of shape {matrix.shape}")
    windows: list[PhaseChange | None] = [None] * resamples
    point = None
    if len(time) >= MINIMUM_SNAPSHOTS:
        kinds = (_bends(time, finished=True), _bends(time, finished=False))
        units = matrix.shape[1]
        draws = np.random.default_rng(seed).multinomial(units, np.full(units, 1.0 / units), size=resamples)
        point = _detect(kinds, _without_outliers(matrix.mean(1)), minimum_fall, contrast, evidence)
        curves = _without_outliers(draws @ matrix.T / units)  # [resample, snapshot]
        windows = [_detect(kinds, curve, minimum_fall, contrast, evidence) for curve in curves]
    found = [window for window in windows if window is not None]
    return Interval(
        window=point,
        start_tokens=percentiles([window.start_tokens for window in found]),
        end_tokens=percentiles([window.end_tokens for window in found]),
        fall=percentiles([window.fall for window in found]),
        share=percentiles([window.share for window in found]),
        found_share=len(found) / resamples if resamples else float("nan"),
    )


def percentiles(values: ArrayLike) -> tuple[float, float]:
    """95% percentile interval of the finite values [resample]; nan where there are none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, (2.5, 97.5))
    return float(low), float(high)


def row(result: Interval, score_kind: str) -> dict[str, float | bool | str]:
    """One row of tables/phase_change.csv; the window's own fields are nan where there is none.

    score_kind says which score the curve was: 'exact' (index 500 less index 50) or 'windowed'.
    """
    nan = float("nan")
    window = result.window
    return {
        "start_tokens": window.start_tokens if window else nan,
        "end_tokens": window.end_tokens if window else nan,
        "start_low": result.start_tokens[0],
        "start_high": result.start_tokens[1],
        "end_low": result.end_tokens[0],
        "end_high": result.end_tokens[1],
        "fall": window.fall if window else nan,
        "fall_low": result.fall[0],
        "fall_high": result.fall[1],
        "share": window.share if window else nan,
        "share_low": result.share[0],
        "share_high": result.share[1],
        "score_before": window.score_before if window else nan,
        "score_after": window.score_after if window else nan,
        "finished": window.finished if window else False,
        "found_share": result.found_share,
        "score_kind": score_kind,
    }


def onset(tokens: ArrayLike, curve: ArrayLike, *, minimum_rise: float = 0.1) -> float:
    """The tokens at which a curve first passes half of its final rise (claims.md), or nan.

    tokens, curve [snapshot]; any unit, rising or falling. Final rise = median of the last tenth of the snapshots (at
    least one) less the first snapshot: the end of a run is noisy, its beginning is not (a fresh model predicts the same
    everywhere). Linear interpolation between snapshots. nan if the final rise is smaller than `minimum_rise`, in the
    curve's unit, or if there are fewer than two snapshots. Errors as `detect`.
    """
    time, values = _checked(tokens, curve)
    if len(time) < 2:
        return float("nan")
    rise = float(np.median(values[-max(1, len(values) // 10) :]) - values[0])
    if abs(rise) < minimum_rise or rise == 0:
        return float("nan")
    progress = (values - values[0]) / rise
    later = int(np.argmax(progress >= 0.5))  # at least 1, as the first is 0 and the median of the last ones is 1
    earlier = later - 1
    part = (0.5 - progress[earlier]) / (progress[later] - progress[earlier])
    return float(time[earlier] + part * (time[later] - time[earlier]))


def onset_resamples(tokens: ArrayLike, units: ArrayLike, resamples: int = 200, seed: int = 0) -> Floats:
    """The onset of the mean curve of each bootstrap resample of the units, [resample]; nan where one has none.

    tokens [snapshot]; units [snapshot, unit]. The draws depend on the number of units alone, so two runs measured on
    the same units are resampled in pairs.
    """
    matrix = np.asarray(units, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, matrix.shape[1], (resamples, matrix.shape[1]))
    return np.array([onset(tokens, matrix[:, draw].mean(1)) for draw in draws])


def _checked(tokens: ArrayLike, curve: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64, refused where a fit would be silently wrong."""
    time = np.asarray(tokens, dtype=np.float64)
    values = np.asarray(curve, dtype=np.float64)
    if time.ndim != 1 or values.ndim == 0 or values.shape[0] != len(time):
        raise ValueError(f"tokens {time.shape} and curve {values.shape} must have the same number of snapshots")
    if not (np.isfinite(time).all() and np.isfinite(values).all()):
        raise ValueError("tokens and curve must be finite at every snapshot")
    if (np.diff(time) <= 0).any():
        raise ValueError("tokens must increase from snapshot to snapshot")
    return time, values

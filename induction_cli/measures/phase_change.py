"""The phase change: the windows of training in which in-context learning appears, or none.

The paper selects its band "based on the derivative of the in-context score" and gives no rule (paper.md 1.1). A rule on
a smoothed derivative needs a bandwidth, since the bare one is all noise (200 snapshots, sd 0.03 nats: 0.04 nats a step
of noise against 0.01 at the peak). So the rule here fits the shape instead, which has no bandwidth:

    A window is a steep falling piece of the best broken line: slow, steep fall, slow, and so on for every step.

0. Outliers. A snapshot further than OUTLIER noise sds from the median of the five around it counts as that median.
   Noise sd = 1.4826 x median absolute difference between neighbours / sqrt(2).
1. Fit. S(tokens) is fitted by least squares with a continuous line that bends at two snapshots, `start` and `end`. All
   pairs are tried, each with at least two snapshots before `start` and two after `end`.
2. Shape. Only pairs count whose middle piece falls by at least `minimum_fall` nats, is at least `contrast` times as
   steep as either other piece, and leaves at least half of its fall standing at the last snapshot. Among them the
   smallest sum of squares wins.
3. Evidence. Every bend must be at least `evidence` times its standard error. The noise is the fit's own residual, and
   counts for more where it has a memory: sqrt((1 + r) / (1 - r)), r its lag-1 correlation.
4. More steps. Where the residual is more than half again as large as the noise, or step 3 fails, two falls are fitted
   together (every piece judged by 2 and 3), then a third beside them, up to MOST. All are reported, largest first.
5. If nothing passes, one bend is tried: a steep fall that training did not outlast. It ends at the last snapshot and
   carries finished=False: its end, fall and share are those seen so far.
6. Edges. The bends; of a fall that takes more than 0.35 of training the 10% and 90% points of a logistic unless the
   bends fit better: the outer pieces of a line follow the tails of a slow fall, so its bends stand too close together.
7. Otherwise none. That is also the answer below MINIMUM_SNAPSHOTS, for a curve that is steepest from its first snapshot
   (nothing is seen before it, so nothing changes), for a straight decline, and for a rise.

Over resamples of the held-out chains `found_share` decides: a window from 95% on, none up to 5%, undecided between.

Tokens are the time axis of the rule, not their logarithm. Units: tokens and nats; S negative = more in-context
learning.

Judged on 1,000 simulated curves of 60 snapshots, ten shapes, noise of sd 0.01 (lag-1 correlation 0.29), 0.03 (0) and
0.02 (0.8) nats in turn. `right`: as many steps found as there are. The libraries' bends went through steps 2 and 3.

    share of curves that are right      0.1.0  this rule  ruptures  piecewise-regression
    fast fall, scale 0.02                100%       100%       80%                   94%
    fall, scale 0.05                     100%       100%       57%                   82%
    slow fall, scale 0.12                 98%        92%       25%                   50%
      its width found over true          0.77       0.96      0.74                  0.77
    fast fall with a drift               100%       100%       73%                   91%
    two equal steps, 0.2 + 0.2 nats        0%       100%       97%                   81%
    a fall, a third of it lost again     100%       100%       92%                   97%
    flat                                 100%       100%      100%                  100%
    drift of 0.15 nats                    94%       100%       99%                  100%
    early drop                           100%       100%      100%                  100%
    logarithmic decline                  100%       100%       99%                   99%
    ms a curve                            0.6          3        22                    94
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from induction_cli.measures.broken_line import Bends, Integers, Lines, Shape
from induction_cli.measures.intervals import CHAINS, FEWEST_UNITS, Estimate, from_resamples

Floats = NDArray[np.float64]

MINIMUM_SNAPSHOTS = 9  # six numbers are fitted (a line, and place and size of two bends), three are left for the noise
OUTLIER = 4.0
MOST = 4  # steps of one fall
UNEXPLAINED = 1.5  # variance of the residual over that of the noise, from which on another step is looked for
SURE = 0.95  # share of resamples with a window from which on there is one; 1 - SURE: up to which there is none


@dataclass(frozen=True)
class PhaseChange:
    """One window. Tokens; nats; `share` of the lowest fitted S that was gained in it and is kept, nan where S is not
    negative: fall / -(fitted S at the last snapshot) unless some of it is lost again."""

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
class Step:
    """A window with the 95% intervals of its edges, fall and share over held-out chains."""

    window: PhaseChange
    start_tokens: Estimate
    end_tokens: Estimate
    fall: Estimate
    share: Estimate


@dataclass(frozen=True)
class Interval:
    """The windows of the mean curve, the largest first, and what resamples of the chains say of them."""

    steps: tuple[Step, ...]
    fall: Estimate  # of all steps together, nats; 0 in a resample without one
    share: Estimate
    found_share: float  # fraction of resamples with a window; nan below FEWEST_UNITS chains
    decision: str  # window | none | undecided

    @property
    def window(self) -> PhaseChange | None:
        return self.steps[0].window if self.steps else None


def _without_outliers(curves: Floats) -> Floats:
    """Step 0 for curves [..., snapshot]. A median of five leaves falls and steps as they are and removes spikes."""
    ends = [(0, 0)] * (curves.ndim - 1) + [(2, 2)]
    around = np.lib.stride_tricks.sliding_window_view(np.pad(curves, ends, mode="reflect"), 5, axis=-1)
    middle = np.median(around, axis=-1)
    return np.where(np.abs(curves - middle) > OUTLIER * _noise(curves), middle, curves)


def _noise(curves: Floats) -> Floats:
    """Sd of the noise between snapshots, [..., 1], from differences of neighbours: falls hardly count."""
    return 1.4826 / np.sqrt(2) * np.median(np.abs(np.diff(curves)), axis=-1, keepdims=True)


@dataclass(frozen=True)
class _Fit:
    """The falls of one curve."""

    bends: Integers  # two a fall; one where it is not finished
    curve: Floats
    line: Floats  # [snapshot]
    falls: Floats  # [fall] nats


def _fits(bends: Bends, curves: Floats, shape: Shape, like: _Fit | None = None) -> list[_Fit | None]:
    """Steps 1 to 5 of the rule for curves [curve, snapshot].

    like: the fit of a curve that these are resamples of. Where it has one step and so have they, no more are looked
    for; where it has several, they are looked for from where they stand in it.
    """
    found: list[_Fit | None] = [None] * len(curves)

    def judge(rows: Integers, places: Integers) -> tuple[Integers, Lines]:
        """Keep the falls that are sure; the rows whose falls have the shape, and their lines."""
        rows, places = rows[places[:, 0] >= 0], places[places[:, 0] >= 0]
        lines = bends.fitted(curves[rows], places)
        shaped, sure = bends.judged(curves[rows], lines, shape)
        falls = bends.falls(lines)
        for i in np.flatnonzero(sure):
            found[rows[i]] = _Fit(places[i], curves[rows[i]], lines.line[i], falls[i])
        return rows[shaped], lines.of(shaped)

    rest = bends.without_line(curves)[0]
    shaped, lines = judge(np.arange(len(curves)), bends.one_fall(curves, shape))
    rest[shaped] = curves[shaped] - lines.line
    more = np.array([fit is None for fit in found]) & np.isin(np.arange(len(curves)), shaped)
    if like is None:
        more |= rest.var(1) > UNEXPLAINED * _noise(curves)[:, 0] ** 2
    elif len(like.bends) > 3:
        judge(np.arange(len(curves)), bends.moved(curves, np.tile(like.bends, (len(curves), 1)), shape))
        more[:] = False
    rows = np.flatnonzero(more)
    places = bends.two_falls(curves[rows], shape) if len(rows) else np.empty((0, 4), dtype=np.intp)
    while len(rows) and places.shape[1] <= 2 * MOST:
        rows, lines = judge(rows, places)
        if len(rows):
            another = bends.one_fall(curves[rows] - bends.others(lines), shape)
            places = np.sort(np.concatenate([lines.bends, another], 1), axis=1)
            apart = (another[:, 0] >= 0) & (np.diff(places, axis=1) > 0).all(1)
            rows, places = rows[apart], bends.moved(curves[rows[apart]], places[apart], shape)
    rows = np.array([i for i, fit in enumerate(found) if fit is None], dtype=np.intp)
    if len(rows):
        judge(rows, bends.unfinished_fall(curves[rows], shape))
    return found


def _windows(bends: Bends, tokens: Floats, fits: list[_Fit | None]) -> list[tuple[PhaseChange, ...]]:
    """The windows of each fit, the largest first (step 6)."""
    finished = [(i, number) for i, fit in enumerate(fits) if fit for number in range(len(fit.bends) // 2)]
    edges: dict[tuple[int, int], tuple[int, int]] = {}
    if finished:
        alone, pairs, squares = [], [], []
        for i, number in finished:
            fit = fits[i]
            assert fit is not None
            line = Lines(fit.bends[None], fit.line[None], *[np.empty((1, 0))] * 3)
            alone.append(fit.curve - bends.others(line, number)[0])
            pairs.append(fit.bends[2 * number : 2 * number + 2])
            squares.append(((fit.curve - fit.line) ** 2).sum())
        placed = bends.edges(np.stack(alone), np.array(squares), np.stack(pairs))
        edges = {key: (int(start), int(end)) for key, (start, end) in zip(finished, placed, strict=True)}
    return [_of_fit(fit, tokens, edges, i) if fit else () for i, fit in enumerate(fits)]


def _of_fit(
    fit: _Fit, tokens: Floats, edges: dict[tuple[int, int], tuple[int, int]], which: int
) -> tuple[PhaseChange, ...]:
    line, last = fit.line, len(fit.line) - 1
    bends = [int(bend) for bend in fit.bends] + [last] * (len(fit.bends) % 2)
    lost = max(0.0, float(line[-1] - line[bends[-1]]))
    lowest, kept = float(line.min()), 1.0 - min(1.0, lost / float(fit.falls.sum()))
    found = []
    for number, fall in enumerate(fit.falls.tolist()):
        pair = bends[2 * number], bends[2 * number + 1]
        start, end = edges.get((which, number), pair)
        found.append(
            PhaseChange(
                start_tokens=float(tokens[start]),
                end_tokens=float(tokens[end]),
                start_index=start,
                end_index=end,
                fall=fall,
                share=kept * fall / -lowest if lowest < 0 else math.nan,
                score_before=float(line[pair[0]]),
                score_after=float(line[pair[1]]),
                finished=pair[1] < last,
            )
        )
    return tuple(sorted(found, key=lambda window: -window.fall))


def steps(tokens: ArrayLike, score: ArrayLike, shape: Shape = Shape()) -> tuple[PhaseChange, ...]:  # noqa: B008
    """The windows in which the in-context learning score falls, the largest first: the rule at the head of this file.

    tokens [snapshot], strictly increasing, spacing free; score [snapshot] in nats, negative = more in-context
    learning. Snapshots should be dense where the fall is early. Known weaknesses: an exponential fall of 0.45 nats from
    the first snapshot on may be taken for a window, and a decline of 0.4 nats that accelerates to the end (quadratic)
    for an unfinished one. Raises ValueError for shapes that do not match, values that are not finite and tokens that do
    not increase.
    """
    time, curve = _checked(tokens, score)
    if len(time) < MINIMUM_SNAPSHOTS:
        return ()
    bends = Bends(time)
    return _windows(bends, time, _fits(bends, _without_outliers(curve[None]), shape))[0]


def detect(tokens: ArrayLike, score: ArrayLike, shape: Shape = Shape()) -> PhaseChange | None:  # noqa: B008
    """The largest step, or None."""
    return next(iter(steps(tokens, score, shape)), None)


def interval(
    tokens: ArrayLike,
    scores: ArrayLike,
    *,
    resamples: int = 200,
    seed: int = 0,
    shape: Shape = Shape(),  # noqa: B008
) -> Interval:
    """The windows of the mean curve, and how far they depend on the held-out chains, not on the seed of training.

    tokens [snapshot]; scores [snapshot, unit]: the score of every chain (or of whatever else was drawn independently)
    at every snapshot, nats. Chains are drawn with replacement, the same draw for all snapshots because the held-out set
    is the same; each resample's mean curve goes through the rule. A resample without a step counts as a fall of 0 in
    it; the edges of a step that fewer than 95% of resamples have are not given. Below 8 chains there are no resamples,
    and what is found is undecided. A function of its arguments (numpy's PCG64 from `seed`).
    """
    time, matrix = _checked(tokens, scores)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(f"scores must be [snapshot, unit] with at least one unit, not of shape {matrix.shape}")
    units, nothing = matrix.shape[1], Estimate(0.0, units=CHAINS)
    if len(time) < MINIMUM_SNAPSHOTS:
        return Interval((), nothing, nothing, 0.0, "none")
    bends = Bends(time)
    (mean,) = _fits(bends, _without_outliers(matrix.mean(1)[None]), shape)
    (point,) = _windows(bends, time, [mean])
    if units >= FEWEST_UNITS:
        draws = np.random.default_rng(seed).multinomial(units, np.full(units, 1.0 / units), size=resamples)
        curves = _without_outliers(draws @ matrix.T / units)  # [resample, snapshot]
        again = _windows(bends, time, _fits(bends, curves, shape, mean))
        found_share = sum(map(bool, again)) / resamples if resamples else math.nan
    else:
        again, found_share = [], math.nan

    def total(name: str) -> Estimate:
        draws = [sum(getattr(window, name) for window in windows) for windows in again]
        return from_resamples(sum(getattr(window, name) for window in point), draws, units)

    def one(window: PhaseChange) -> Step:
        same = [_overlapping(window, windows) for windows in again]
        edges = [
            from_resamples(getattr(window, name), [getattr(w, name) if w else math.nan for w in same], units)
            for name in ("start_tokens", "end_tokens")
        ]
        sizes = [
            from_resamples(getattr(window, name), [getattr(w, name) if w else 0.0 for w in same], units)
            for name in ("fall", "share")
        ]
        return Step(window, *edges, *sizes)

    return Interval(
        tuple(map(one, point)), total("fall"), total("share"), found_share, decided(found_share, bool(point))
    )


def decided(found_share: float, found: bool) -> str:
    """window | none | undecided, from the share of resamples with a window; nan (too few chains) decides nothing."""
    if math.isnan(found_share):
        return "undecided" if found else "none"
    if found_share <= 1 - SURE + 1e-9:
        return "none"
    return "window" if found_share >= SURE and found else "undecided"


def _overlapping(window: PhaseChange, others: tuple[PhaseChange, ...]) -> PhaseChange | None:
    """The one of the others that shares the most of training with a window."""

    def shared(other: PhaseChange) -> float:
        return min(window.end_tokens, other.end_tokens) - max(window.start_tokens, other.start_tokens)

    best = max(others, key=shared, default=None)
    return best if best and shared(best) > 0 else None


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


def onset_estimate(tokens: ArrayLike, units: ArrayLike, *, minimum_rise: float = 0.1) -> tuple[Estimate, float]:
    """The onset of the mean curve with its interval over units, and the share of resamples that have one.

    tokens [snapshot]; units [snapshot, unit].
    """
    matrix = np.asarray(units, dtype=np.float64)
    again = onset_resamples(tokens, matrix, minimum_rise=minimum_rise)
    value = onset(tokens, best(matrix.mean(1)), minimum_rise=minimum_rise)
    found = float(np.isfinite(again).mean()) if len(again) else math.nan
    return from_resamples(value, again, matrix.shape[1]), found


def onset_resamples(
    tokens: ArrayLike, units: ArrayLike, resamples: int = 200, seed: int = 0, *, minimum_rise: float = 0.1
) -> Floats:
    """The onset of the mean curve of each bootstrap resample of the units, [resample]; nan where one has none.

    tokens [snapshot]; units [snapshot, unit], or [snapshot, unit, head]: the best head is then taken anew at every
    snapshot of every resample. The draws depend on the number of units alone, so two runs measured on the same units
    are resampled in pairs. No resamples below 8 units.
    """
    matrix = np.asarray(units, dtype=np.float64)
    if matrix.shape[1] < FEWEST_UNITS:
        return np.empty(0)
    draws = np.random.default_rng(seed).integers(0, matrix.shape[1], (resamples, matrix.shape[1]))
    return np.array([onset(tokens, best(matrix[:, draw].mean(1)), minimum_rise=minimum_rise) for draw in draws])


def best(scores: Floats) -> Floats:
    """[snapshot] as it is; of [snapshot, head] the best head at each snapshot."""
    return scores if scores.ndim == 1 else scores.max(1)


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

"""Broken lines with falls in them: the least-squares fits behind the phase change (phase_change.py has the rule).

A curve over time (0 to 1) is a continuous line that bends at snapshots. Two bends, or one and the end of training, make
one fall; more falls are fitted together. Curves are fitted many at a time: curves [curve, snapshot], bends
[curve, bend] (indices of snapshots, in order), and a row that has no answer has bends of -1.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Booleans = NDArray[np.bool_]

MARGIN = 2  # snapshots needed outside a fall on each side: one alone may be an outlier
COARSE = 16  # places tried for the four bends of two falls; each is then moved over all snapshots
AT_ONCE = 20_000  # candidates in memory at once: they stay in cache
ROUNDS = 3  # in which falls are moved
SLOW = 0.35  # share of training that a slow fall takes
TENTHS = 2 * np.log(9)  # from 10% to 90% of a logistic, in its scale


@dataclass(frozen=True)
class Shape:
    """What a fall is: its least size, and how many times as steep as what surrounds it; how sure its bends must be."""

    minimum_fall: float = 0.1
    contrast: float = 3.0
    evidence: float = 4.0
    kept: float = 0.5  # share of the fall that must remain at the last snapshot: a dip that recovers is not a change


@dataclass(frozen=True)
class Lines:
    """Broken lines fitted to curves with given bends."""

    bends: Integers  # [curve, bend]
    line: Floats  # [curve, snapshot]
    slopes: Floats  # [curve, bend + 1] of the pieces
    changes: Floats  # [curve, bend] of slope
    errors: Floats  # [curve, bend] of those, for noise of sd 1

    def of(self, rows: Booleans) -> Lines:
        """Those of some curves."""
        return Lines(self.bends[rows], self.line[rows], self.slopes[rows], self.changes[rows], self.errors[rows])


class Bends:
    """What depends on the snapshots' times only: pairs of bends and their normal equations, shared by all curves.

    With a constant and a line projected out, a broken line has two unknowns (the changes of slope), so each pair costs
    one 2 x 2 solve in closed form, and the sums in it are entries of a small table.
    """

    def __init__(self, tokens: Floats) -> None:
        self.time = (tokens - tokens[0]) / (tokens[-1] - tokens[0])
        self.count = len(tokens)
        self.centred = self.time - self.time.mean()
        self.hinges = np.maximum(self.time[None, :] - self.time[:, None], 0.0)  # [knot, snapshot]
        self.columns, self.slopes = self.without_line(self.hinges)
        self.gram = self.columns @ self.columns.T
        first, second = np.triu_indices(self.count, 1)
        allowed = (first >= MARGIN) & (second < self.count - MARGIN)
        self.first, self.second = first[allowed], second[allowed]
        one, two = self.gram[self.first, self.first], self.gram[self.second, self.second]
        cross = self.gram[self.first, self.second]
        determinant = one * two - cross**2
        self.inverse = two / determinant, one / determinant, -cross / determinant
        self.width = self.time[self.second] - self.time[self.first]
        self.slope_first, self.slope_second = 1 - self.slopes[self.first], self.slopes[self.second]
        self.left = (1.0 - self.time[self.second]) / self.width

    def without_line(self, rows: Floats) -> tuple[Floats, Floats]:
        """Each row less its own least-squares line over time, and that line's slope."""
        slope = np.asarray(rows @ self.centred / (self.centred @ self.centred))
        return rows - rows.mean(-1, keepdims=True) - slope[..., None] * self.centred, slope

    def one_fall(self, curves: Floats, shape: Shape) -> Integers:
        """The pair of bends with the smallest sum of squares among those of the right shape, [curve, 2]."""
        found = np.full((len(curves), 2), -1, dtype=np.intp)
        size = max(1, AT_ONCE // max(1, len(self.first)))
        for i in range(0, len(curves), size) if len(self.first) else ():
            rest, slope = self.without_line(curves[i : i + size])
            moment = rest @ self.columns.T
            one, two = moment.take(self.first, 1), moment.take(self.second, 1)
            inverse_one, inverse_two, inverse_cross = self.inverse
            down = inverse_one * one
            down += inverse_cross * two
            back = inverse_cross * one
            back += inverse_two * two
            steep = back * self.slope_second
            steep -= down * self.slope_first
            steep -= slope[:, None]
            after = back - steep
            fits = steep * self.width >= shape.minimum_fall
            fits &= steep * (1 - shape.kept) >= after * self.left
            around = np.maximum(np.abs(steep + down), np.abs(after))
            around *= shape.contrast
            fits &= steep >= around
            down *= one
            back *= two
            down += back  # what the bends take off the sum of squares of a straight line
            down[~fits] = -np.inf
            best = down.argmax(1)
            pairs = np.stack([self.first[best], self.second[best]], 1)
            found[i : i + size] = np.where(fits.any(1)[:, None], pairs, -1)
        return found

    def unfinished_fall(self, curves: Floats, shape: Shape) -> Integers:
        """One bend to a fall that training did not outlast, [curve, 1]; it spans as many snapshots as two margins."""
        first = np.arange(MARGIN, self.count - 2 * MARGIN)
        rest, slope = self.without_line(curves)
        moment = (rest @ self.columns.T)[:, first]
        down = moment / np.diag(self.gram)[first]
        before = slope[:, None] - down * self.slopes[first]
        steep = -(before + down)
        fits = (steep * (1.0 - self.time[first]) >= shape.minimum_fall) & (steep >= shape.contrast * np.abs(before))
        best = first[np.where(fits, down * moment, -np.inf).argmax(1)]
        return np.where(fits.any(1), best, -1)[:, None]

    @cached_property
    def quadruples(self) -> tuple[Integers, Floats]:
        """Coarse places of four bends [quadruple, 4], and the inverses of their normal equations."""
        places = np.unique(np.linspace(MARGIN, self.count - 1 - MARGIN, COARSE).round().astype(np.intp))
        some = np.array(list(itertools.combinations(places, 4)), dtype=np.intp).reshape(-1, 4)
        inverse = np.linalg.inv(self.gram[some[:, :, None], some[:, None, :]]).astype(np.float64)
        return some, inverse

    def two_falls(self, curves: Floats, shape: Shape) -> Integers:
        """Two falls with a stretch between them that is less steep than either.

        Coarsely placed, where half the contrast will do, and then moved.
        """
        some, inverse = self.quadruples
        found = np.full((len(curves), 4), -1, dtype=np.intp)
        for i, curve in enumerate(curves if len(some) else ()):
            rest, slope = self.without_line(curve)
            moment = (self.columns @ rest)[some]
            changes = (inverse @ moment[:, :, None])[:, :, 0]
            start = slope - (changes * self.slopes[some]).sum(1)
            pieces = np.concatenate([start[:, None], start[:, None] + changes.cumsum(1)], 1)  # [quadruple, 5]
            steep, flat = -pieces[:, 1::2], np.abs(pieces[:, ::2])
            falls = steep * np.diff(self.time[some], axis=1)[:, ::2]
            fits = (falls >= shape.minimum_fall).all(1)
            fits &= (steep >= shape.contrast / 2 * np.maximum(flat[:, :2], flat[:, 1:])).all(1)
            if fits.any():
                found[i] = some[np.where(fits, (changes * moment).sum(1), -np.inf).argmax()]
        return self.moved(curves, found, shape)

    def moved(self, curves: Floats, bends: Integers, shape: Shape) -> Integers:
        """Each fall placed anew with the others taken off, ROUNDS times; -1 where a fall is lost or two meet."""
        bends = bends.copy()
        moving = bends[:, 0] >= 0
        for _ in range(ROUNDS):
            before = bends.copy()
            for number in range(bends.shape[1] // 2):
                alone = curves[moving] - self.others(self.fitted(curves[moving], bends[moving]), number)
                bends[moving, 2 * number : 2 * number + 2] = self.one_fall(alone, shape)
                bends.sort(1)  # one may have moved past another
                lost = (bends < 0).any(1) | (np.diff(bends, axis=1) <= 0).any(1)
                bends[lost] = -1
                moving &= ~lost
            moving &= (bends != before).any(1)
        return bends

    def fitted(self, curves: Floats, bends: Integers) -> Lines:
        """The least-squares line with given bends."""
        rest, slope = self.without_line(curves)
        inverse = np.linalg.inv(self.gram[bends[:, :, None], bends[:, None, :]])
        moment = np.take_along_axis(rest @ self.columns.T, bends, 1)
        changes = (inverse @ moment[:, :, None])[:, :, 0]
        start = slope - (changes * self.slopes[bends]).sum(1)
        slopes = np.concatenate([start[:, None], start[:, None] + changes.cumsum(1)], 1)
        line = start[:, None] * self.time + (changes[:, :, None] * self.hinges[bends]).sum(1)
        line += (curves - line).mean(1, keepdims=True)
        return Lines(bends, line, slopes, changes, np.sqrt(np.diagonal(inverse, axis1=1, axis2=2)))

    def others(self, lines: Lines, number: int = -1) -> Floats:
        """What all falls (but one) add to a line, [curve, snapshot]: to be taken off a curve."""
        added = np.zeros_like(lines.line)
        place = np.arange(self.count)
        for other in range(lines.bends.shape[1] // 2):
            if other != number:
                start, end = lines.bends[:, 2 * other, None], lines.bends[:, 2 * other + 1, None]
                held = np.take_along_axis(lines.line, np.clip(place, start, end), 1)
                added += held - np.take_along_axis(lines.line, start, 1)
        return added

    def falls(self, lines: Lines) -> Floats:
        """The size of each fall, [curve, fall]."""
        edges = np.concatenate([lines.bends, np.full((len(lines.bends), lines.bends.shape[1] % 2), self.count - 1)], 1)
        at = np.take_along_axis(lines.line, edges, 1)
        return at[:, ::2] - at[:, 1::2]

    def judged(self, curves: Floats, lines: Lines, shape: Shape) -> tuple[Booleans, Booleans]:
        """(whether every fall has the shape, whether every bend is beyond its error too), [curve].

        Errors allow for noise that has a memory.
        """
        steep, flat = -lines.slopes[:, 1::2], np.abs(lines.slopes[:, ::2])
        around = np.maximum(flat[:, : steep.shape[1]], np.pad(flat, [(0, 0), (0, 1)])[:, 1 : steep.shape[1] + 1])
        sizes = self.falls(lines)
        total = sizes.sum(1)
        before = np.take_along_axis(lines.line, lines.bends[:, :1], 1)[:, 0]
        shaped = (sizes >= shape.minimum_fall - 1e-12).all(1) & (steep >= shape.contrast * around).all(1)
        shaped &= before - lines.line[:, -1] >= shape.kept * total
        residual = curves - lines.line
        freedom = max(1, self.count - 2 - 2 * lines.bends.shape[1])  # a line; the size and the place of every bend
        noise = np.sqrt((residual**2).sum(1) / freedom) * memory(residual)
        beyond = np.abs(lines.changes) >= shape.evidence * noise[:, None] * lines.errors
        return shaped, shaped & beyond.all(1)

    def edges(self, curves: Floats, squares: Floats, pairs: Integers) -> Integers:
        """Where falls begin and end: their bends, or for SLOW ones 10% and 90% of a logistic, [curve, 2].

        The outer pieces of a line follow the tails of a slow fall, so its bends stand too close together. A logistic
        takes their place unless they fit better (Schwarz's criterion). It
        stands on a level, or on a straight drift where that is beyond twice its error. curves: with all other falls
        taken off; squares [curve]: what the broken line leaves.
        """
        start, end = self.time[pairs[:, 0]], self.time[pairs[:, 1]]
        slow = end - start >= SLOW
        if not slow.any():
            return pairs
        level, drift = (
            logistic(self.time, curves, (start + end) / 2, (end - start) / TENTHS, d) for d in (False, True)
        )
        noise = memory(drift.rest) ** 2 * drift.squares / max(1, self.count - 5)
        flat = level.squares - drift.squares < 4 * noise
        centre, scale = np.where(flat, level.centre, drift.centre), np.where(flat, level.scale, drift.scale)
        saved = np.where(flat, 2, 1)  # numbers that the logistic does without
        better = np.where(flat, level.squares, drift.squares) <= squares + saved * np.log(self.count) * noise
        better &= slow & (np.where(flat, level.fall, drift.fall) > 0)
        ends = centre[:, None] + scale[:, None] * np.array([-TENTHS / 2, TENTHS / 2])
        near = np.abs(self.time - ends[:, :, None]).argmin(2)
        return np.where((better & (near[:, 0] < near[:, 1]))[:, None], near, pairs)


def memory(residual: Floats) -> Floats:
    """By what factor the error of a slow trend exceeds that under white noise: sqrt((1 + r) / (1 - r)), [curve].

    residual [curve, snapshot]; r is its lag-1 correlation, corrected for its bias in short series; 0 to 0.9.
    """
    spread = np.maximum((residual**2).sum(-1), 1e-30)
    lag = (residual[..., 1:] * residual[..., :-1]).sum(-1) / spread
    lag = np.clip(lag + (1 + 4 * lag) / residual.shape[-1], 0.0, 0.9)
    return np.sqrt((1 + lag) / (1 - lag))


@dataclass(frozen=True)
class Logistics:
    """Logistic falls fitted to curves, each [curve]; 10% to 90% of a fall is centre -+ TENTHS / 2 scales."""

    centre: Floats
    scale: Floats
    fall: Floats
    rest: Floats  # [curve, snapshot]
    squares: Floats


def logistic(time: Floats, curves: Floats, centre: Floats, scale: Floats, drift: bool) -> Logistics:
    """A logistic fall on a level, or on a drift, by Gauss-Newton from a centre and a scale, kept near it."""
    low, high = 0.8 * scale, 1.5 * scale
    ones, n = np.ones_like(curves), len(curves)
    kept = [centre, scale, np.zeros(n), curves, np.full(n, np.inf)]
    for _ in range(6):
        z = np.clip((time - centre[:, None]) / scale[:, None], -40.0, 40.0)
        step = 1.0 / (1.0 + np.exp(-z))
        linear = [ones, step, np.broadcast_to(time, curves.shape)] if drift else [ones, step]
        columns = np.stack(linear, 1)
        solved = _solve(columns, curves)
        rest = curves - (solved[:, None] @ columns)[:, 0]
        now = [centre, scale, -solved[:, 1], rest, (rest**2).sum(1)]
        better = now[-1] < kept[-1]
        kept = [np.where(better[:, None] if a.ndim > 1 else better, a, b) for a, b in zip(now, kept, strict=True)]
        slope = -solved[:, 1, None] * step * (1.0 - step)  # per scale
        move = _solve(np.concatenate([columns, slope[:, None], (slope * z)[:, None]], 1), rest)[:, -2:]
        along, wider = np.clip(move[:, 0], -1.0, 1.0), np.clip(move[:, 1], -0.5, 0.5)
        centre, scale = centre + along * scale, np.clip(scale * np.exp(wider), low, high)
    return Logistics(*kept)


def _solve(columns: Floats, curves: Floats) -> Floats:
    """Least squares of each curve on its own columns [curve, column, snapshot], with a trace of a ridge."""
    normal = columns @ columns.transpose(0, 2, 1)
    ridge = 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(columns.shape[1])
    return np.linalg.solve(normal + ridge, columns @ curves[:, :, None])[:, :, 0]

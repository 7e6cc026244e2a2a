"""How far off a number may be: 95% intervals, each over units that are named.

Seeds are what verdicts count: Student's t over at least three, on the scale of the claim (`over_seeds`), or the share
of seeds that say yes (`share_of_seeds`). Chains of held-out text within a run are shown beside its numbers and decide
nothing: Student's t again, and none below FEWEST_UNITS of them. A statistic whose error has no formula takes the
standard deviation of bootstrap resamples for it. Percentiles of resamples are never an interval: of few units they
cover far less than they say (50% at 2 units, 75% at 3, 92% at 16). Heads of a model are no unit: they share a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

SEEDS, CHAINS = "seeds", "chains within a run"
FEWEST_SEEDS = 3
FEWEST_UNITS = 8  # within a run
LEVEL = 0.95
ITEMS = 10  # from as many items on, a correlation is judged on Fisher's scale: of fewer it reaches 1


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, nan where it has none; `units` are what the interval is over: seeds, chains."""

    value: float
    low: float = math.nan
    high: float = math.nan
    units: str = ""

    def __iter__(self) -> Iterator[float]:
        """value, low, high: what tables take."""
        return iter((self.value, self.low, self.high))

    def side(self, threshold: float) -> str | None:
        """'above' or 'below' where the whole interval lies on that side; None where it straddles or is not known."""
        if self.low > threshold:
            return "above"
        return "below" if self.high < threshold else None

    def columns(self, name: str) -> dict[str, float]:
        """The three columns of a table: name, name_low, name_high."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


# ------------------------------------------------------------------------------------------------ seeds

SCALES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "identity": (np.asarray, np.asarray),
    "log": (np.log, np.exp),  # ratios
    "fisher": (np.arctanh, np.tanh),  # correlations over ITEMS items or more
}


def over_seeds(values: ArrayLike, scale: str = "identity", level: float = LEVEL) -> Estimate:
    """The mean over seeds [seed] and Student's t interval around it, both on a scale and brought back from it.

    Missing estimates (nan) are left out. No interval from fewer than three seeds, nor where all seeds say the same:
    see `coincide`. Raises ValueError for a scale that is unknown or that the values do not have.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if scale not in SCALES:
        raise ValueError(f"scale is '{scale}'; there are {', '.join(SCALES)}")
    if scale == "log" and (known <= 0).any():
        raise ValueError(f"ratios are above 0, and one is {known.min():.3g}")
    if scale == "fisher" and (np.abs(known) >= 1).any():
        raise ValueError("a correlation of 1 has no place on Fisher's scale; the scale of few items is identity")
    if not len(known):
        return Estimate(math.nan, units=SEEDS)
    there, back = SCALES[scale]
    value, half = _student(there(known), level)
    if len(known) < FEWEST_SEEDS or coincide(known):
        half = math.nan
    low, high = back(np.array([value - half, value + half]))
    return Estimate(float(back(np.array(value))), float(low), float(high), SEEDS)


def coincide(values: ArrayLike) -> bool:
    """Whether the seeds' known estimates are one number: no spread to judge by, so each is a yes or a no."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return len(known) > 0 and bool(np.ptp(known) <= 1e-12 * max(1.0, float(np.abs(known).max())))


def share_of_seeds(yes: Sequence[bool], level: float = LEVEL) -> Estimate:
    """The share of seeds that say yes with its Clopper-Pearson interval; against one half, six that agree decide."""
    if not len(yes):
        return Estimate(math.nan, units=SEEDS)
    found = stats.binomtest(sum(map(bool, yes)), len(yes)).proportion_ci(level, method="exact")
    return Estimate(sum(map(bool, yes)) / len(yes), found.low, found.high, SEEDS)


def correlation_scale(n_items: int) -> str:
    """The scale on which seeds' correlations over so many items are judged."""
    return "fisher" if n_items >= ITEMS else "identity"


def _student(values: np.ndarray, level: float) -> tuple[float, float]:
    """(mean, half the width of its t interval); nan from one value."""
    if len(values) < 2:
        return float(values.mean()), math.nan
    error = values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(stats.t.ppf((1 + level) / 2, len(values) - 1) * error)


# ------------------------------------------------------------------------------------------------ within a run


def group_means(values: Tensor, size: int) -> Tensor:
    """Means of groups of `size` neighbouring rows, [example, ...] -> [group, ...]; the last group may be smaller.

    Held-out examples come in chains that share tokens; chains are independent of each other and are what an interval
    within a run is over.
    """
    return torch.stack([group.mean(0) for group in values.split(size)])


def mean_interval(units: Tensor, fewest: int = FEWEST_UNITS) -> tuple[Tensor, Tensor]:
    """Student's 95% interval of the mean over units [unit, ...]: (low [...], high [...]); nan below `fewest` units."""
    n, mean = len(units), units.mean(0)
    if n < max(2, fewest):
        nan = torch.full(units.shape[1:], torch.nan)
        return nan, nan
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) / math.sqrt(n) * units.std(0)
    return mean - half, mean + half


def of_mean(units: Tensor) -> Estimate:
    """The mean over chains [chain] with its interval."""
    low, high = mean_interval(units)
    return Estimate(units.mean().item(), low.item(), high.item(), CHAINS)


def resamples(n: int, n_resamples: int = 1000, seed: int = 0) -> Tensor:
    """How often each of n units is drawn in each bootstrap resample, divided by n: weights [n_resamples, n].

    Raises ValueError below FEWEST_UNITS units: too few for their draws to show how units differ.
    """
    if n < FEWEST_UNITS:
        raise ValueError(
            f"{n} units are too few to draw from, {FEWEST_UNITS} are needed: measure on more held-out text, or judge "
            "the numbers of several seeds (over_seeds)"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (n_resamples, n), generator=generator)
    return torch.zeros(n_resamples, n).scatter_add_(1, drawn, torch.ones(n_resamples, n)) / n


def from_resamples(value: float, again: ArrayLike, n: int, units: str = CHAINS) -> Estimate:
    """A statistic of n units with Student's t interval, the sd of its bootstrap resamples [resample] as its error.

    The sd is corrected for what a bootstrap of n units lacks, sqrt(n / (n - 1)). Not given below FEWEST_UNITS units, or
    where more than one resample in twenty has no such number (nan): an interval of those that have is one of success.
    """
    draws = np.asarray(again, dtype=np.float64)
    known = draws[np.isfinite(draws)]
    if n < FEWEST_UNITS or len(known) < 2 or len(known) < 0.95 * len(draws) or not math.isfinite(value):
        return Estimate(value, units=units)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(known.std()) * math.sqrt(n / (n - 1))
    return Estimate(value, value - half, value + half, units)


def of_means(
    units: Tensor, statistic: Callable[[Tensor], Tensor], n_resamples: int = 1000, seed: int = 0, over: str = CHAINS
) -> Estimate:
    """A function of means over units, with its interval. units [unit, ...]; statistic: means [draw, ...] -> [draw]."""
    flat = units.double().flatten(1)
    shape = (-1, *units.shape[1:])
    value = statistic(flat.mean(0).view(shape)).item()
    if len(units) < FEWEST_UNITS:
        return Estimate(value, units=over)
    again = statistic((resamples(len(units), n_resamples, seed).double() @ flat).view(shape))
    return from_resamples(value, again.numpy(), len(units), over)


# ------------------------------------------------------------------------------------------------ correlations


def correlation(x: ArrayLike, y: ArrayLike, ranks: bool = False, units: str = "") -> Estimate:
    """Pearson's correlation of x, y [n], or with `ranks` Spearman's (ties count alike); nan where either is constant.

    Heads of one model are no independent units, so there is an interval only where `units` names some that are, and
    from ITEMS of them on: Fisher's z, for ranks with the factor 1.06 of Fieller, Hartley and Pearson (1957).
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) < 3 or coincide(a) or coincide(b):
        return Estimate(math.nan, units=units)
    found = stats.spearmanr(a, b) if ranks else stats.pearsonr(a, b)
    value = float(found.statistic)
    if not units or len(a) < ITEMS or abs(value) >= 1:
        return Estimate(value, units=units)
    half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt((1.06 if ranks else 1.0) / (len(a) - 3))
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return Estimate(value, float(low), float(high), units)

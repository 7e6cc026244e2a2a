"""How numbers are written for people, in plots, on the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

THOUSANDS = (("", 1), ("k", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12))


def short(count: float) -> str:
    """A count of tokens, steps or weights with three digits: '0', '850', '12.5k', '1.25M', '3B'."""
    if not math.isfinite(count):
        return "unknown"
    for unit, size in THOUSANDS:
        written = f"{count / size:.3g}"
        if abs(float(written)) < 1000 or unit == "T":
            return written + unit
    return written  # not reached: the last unit takes all


def signed(value: float, decimals: int = 2) -> str:
    """'+0.12'; what rounds to nothing has no sign, so '-0.00' is never written."""
    rounded = round(value, decimals)
    return f"{rounded:+.{decimals}f}" if rounded else f"{0:.{decimals}f}"


def plain(value: float, decimals: int = 2) -> str:
    """As `signed`, with a sign for what is below zero only."""
    return signed(value, decimals).removeprefix("+")


def decimals_for(largest: float, least: int = 2, most: int = 5) -> int:
    """How many decimals show two digits of the largest of some numbers."""
    if not math.isfinite(largest) or largest == 0:
        return least
    return min(most, max(least, 1 - math.floor(math.log10(abs(largest)))))


def number(value: float) -> str:
    """With its sign and three digits, at least two decimals; never '-0.00'."""
    if not math.isfinite(value):
        return "none"
    if value == 0:
        return "0"
    return f"{value:+.2f}" if 0.1 <= abs(value) < 100 else f"{value:+.3g}"


def listed(values: Sequence[object]) -> str:
    """'1, 2 and 3'."""
    *before, last = map(str, values)
    return f"{', '.join(before)} and {last}" if before else last


def duration(seconds: float) -> str:
    """'40 seconds', '9 minutes', '2.5 hours'."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"

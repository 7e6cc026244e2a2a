"""How numbers are written for people, in plots, on the terminal and on the page."""

from __future__ import annotations

import math

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

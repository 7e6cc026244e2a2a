"""How often intervals and detectors are right, by simulation: `python tests/simulations.py` (a minute of one core).

Prints coverage of the intervals at the numbers of units they are used with, then false positives of what decides
claims at the noise between snapshots that runs show; beside them what the first edition of the rules had.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from induction_cli.measures.intervals import correlation, of_means, over_seeds
from induction_cli.measures.loss_curve import bend
from induction_cli.measures.phase_change import steps

EXPERIMENTS = 4000
CURVES = 400
SNAPSHOTS = 60
TOKENS = 5e6


def coverage(units: np.ndarray, true: float, scale: str) -> float:
    found = [over_seeds(one, scale) for one in units]
    return float(np.mean([each.low <= true <= each.high for each in found]))


def percentiles(units: np.ndarray, true: float, draws: int = 400) -> float:
    """Coverage of the percentile bootstrap that the first edition used."""
    random, held = np.random.default_rng(1), 0
    for one in units[:1000]:
        means = random.choice(one, (draws, len(one))).mean(1)
        low, high = np.percentile(means, (2.5, 97.5))
        held += low <= true <= high
    return held / 1000


def coverage_table() -> None:
    random = np.random.default_rng(0)
    print("coverage of nominal 95%\n")
    print(f"{'units':34}" + "".join(f"{f'n = {n}':>9}" for n in (3, 5, 10, 16)))
    for name, draw, true, scale in (
        ("normal, identity", lambda n: random.normal(size=(EXPERIMENTS, n)), 0.0, "identity"),
        ("log-normal, logarithm", lambda n: np.exp(0.8 * random.normal(size=(EXPERIMENTS, n))), 1.0, "log"),
        (
            "correlations, Fisher's z",
            lambda n: np.tanh(0.5 + 0.6 * random.normal(size=(EXPERIMENTS, n))),
            None,
            "fisher",
        ),
        ("gamma, skewness 0.8, identity", lambda n: random.gamma(6, size=(EXPERIMENTS, n)), 6.0, "identity"),
        ("exponential, skewness 2, identity", lambda n: random.exponential(size=(EXPERIMENTS, n)), 1.0, "identity"),
    ):
        at = math.tanh(0.5) if true is None else true
        print(f"{name:34}" + "".join(f"{coverage(draw(n), at, scale):9.1%}" for n in (3, 5, 10, 16)))
    first = [percentiles(random.normal(size=(EXPERIMENTS, n)), 0.0) for n in (3, 5, 10, 16)]
    print(f"{'first edition: normal, percentiles':34}" + "".join(f"{share:9.1%}" for share in first))
    print(f"\n{'ratio of means over chains':34}" + "".join(f"{f'n = {n}':>9}" for n in (8, 10, 16)))
    shares = []
    for n in (8, 10, 16):
        both = 0.3 * torch.from_numpy(random.normal(size=(1000, n, 2))) + torch.tensor([1.0, 2.0])
        found = [of_means(one, lambda means: means[:, 0] / means[:, 1], n_resamples=200) for one in both]
        shares.append(np.mean([each.low <= 0.5 <= each.high for each in found]))
    print(f"{'':34}" + "".join(f"{share:9.1%}" for share in shares))


def noise(random: np.random.Generator, sd: float, lag: float) -> np.ndarray:
    """Of snapshots, each keeping a share `lag` of the one before."""
    drawn = random.normal(size=SNAPSHOTS)
    for i in range(1, SNAPSHOTS):
        drawn[i] = lag * drawn[i - 1] + math.sqrt(1 - lag**2) * drawn[i]
    return sd * drawn


def windows(curve: np.ndarray, sd: float, lag: float) -> float:
    """Share of noisy copies of a curve in which a window is found."""
    random, tokens = np.random.default_rng(2), np.linspace(0, TOKENS, SNAPSHOTS)
    return float(np.mean([len(steps(tokens, curve + noise(random, sd, lag))) > 0 for _ in range(CURVES)]))


def false_positives() -> None:
    share = np.linspace(0, 1, SNAPSHOTS)
    print("\nfalse positives: curves in which a window is found that is not there\n")
    settings = ((0.01, 0.29), (0.01, 0.8), (0.03, 0.0), (0.02, 0.8))
    print(f"{'noise: sd, lag-1 correlation':34}" + "".join(f"{f'{sd}, {lag}':>12}" for sd, lag in settings))
    for name, curve in (
        ("flat", 0 * share),
        ("drift of 0.1 nats", -0.1 * share),
        ("drift of 0.15 nats", -0.15 * share),
        ("drift of 0.3 nats", -0.3 * share),
        ("early drop of 0.15 nats", -0.15 * (1 - np.exp(-10 * share))),
        ("logarithmic decline of 0.3 nats", -0.3 * np.log1p(50 * share) / np.log(51)),
    ):
        print(f"{name:34}" + "".join(f"{windows(curve, sd, lag):12.1%}" for sd, lag in settings))


def claims() -> None:
    random = np.random.default_rng(3)
    print("\nfalse positives of claims: supported though nothing is there (nominal 2.5%)\n")
    tokens = torch.logspace(4, 7, 200, dtype=torch.float64)
    convex = 0.05 * (tokens.log() - 16) ** 2
    sides = {3: 0, 5: 0}
    for n in sides:
        for _ in range(CURVES):
            seeds = [
                bend(tokens, convex + 0.02 * torch.from_numpy(random.normal(size=200)), 1e5, 3e5) for _ in range(n)
            ]
            inside = over_seeds([seed.inside.value for seed in seeds])
            outside = over_seeds([seed.outside.value for seed in seeds])
            sides[n] += inside.side(0) == "below" and outside.side(0) == "above"
    said = ", ".join(f"{count / CURVES:.1%} at {n} seeds" for n, count in sides.items())
    print(f"1e, a loss that bends nowhere, sd 0.02 nats: {said} (first edition 16 to 51%)")
    for n in (3, 5, 10):
        held = 0
        for _ in range(CURVES):  # each run has an offset of its own in both, and eight heads
            offsets = random.normal(size=(n, 1))
            x, y = (offsets + random.normal(size=(n, 8)) for _ in range(2))
            found = over_seeds([correlation(a, b, ranks=True).value for a, b in zip(x, y, strict=True)])
            held += found.side(0) == "above"
        print(f"3c and 5c, unrelated heads of {n} runs that differ: {held / CURVES:.1%} (first edition 11 to 25%)")


def both_steps() -> None:
    share, random = np.linspace(0, 1, SNAPSHOTS), np.random.default_rng(4)
    curve = -0.2 / (1 + np.exp(-(share - 0.3) / 0.015)) - 0.2 / (1 + np.exp(-(share - 0.7) / 0.015))
    found = [len(steps(share, curve + noise(random, 0.03, 0.0))) for _ in range(CURVES)]
    print(
        f"\ntwo equal steps (0.2 + 0.2 nats), sd 0.03: both in {np.mean(np.array(found) == 2):.0%} (first edition 0%)"
    )
    curve, widths = -0.35 / (1 + np.exp(-(share - 0.5) / 0.12)), []
    for _ in range(CURVES):
        window = next(iter(steps(TOKENS * share, curve + noise(random, 0.01, 0.29))), None)
        widths += [(window.end_tokens - window.start_tokens) / TOKENS / (4.4 * 0.12)] if window else []
    print(f"a slow fall (scale 0.12 of training): {np.median(widths):.2f} of its width (first edition 0.77)")


if __name__ == "__main__":
    torch.set_num_threads(1)
    coverage_table()
    false_positives()
    claims()
    both_steps()

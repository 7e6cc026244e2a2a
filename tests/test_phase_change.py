"""The window of the phase change on curves whose answer is known, noise included."""

from __future__ import annotations

import time

import numpy as np
import pytest

from induction_cli.evaluation.rows import change_rows, window_row
from induction_cli.measures.first_passage import earlier, first_passage
from induction_cli.measures.phase_change import (
    MINIMUM_SNAPSHOTS,
    decided,
    detect,
    interval,
    onset,
    onset_estimate,
    steps,
)

TOTAL = 5e6
NOISE = 0.03

# paper.md section 9: laptop-scale prototype, one seed each.
PROTOTYPE_TOKENS = np.array([0.5, 1.0, 1.5, 2.0, 2.6, 3.1, 3.6, 4.1, 4.6]) * 1e6
ONE_LAYER = [-0.03, -0.06, -0.04, -0.10, -0.07, -0.09, -0.05, -0.07, -0.06]
TWO_LAYERS = [-0.06, -0.04, -0.02, -0.09, -0.25, -0.39, -0.45, -0.48, -0.45]
PREFIX_MATCHING = [0.03, 0.03, 0.03, 0.08, 0.37, 0.59, 0.70, 0.73, 0.81]


def even(count: int) -> np.ndarray:
    return np.linspace(0, TOTAL, count)


def spaced_by_logarithm(count: int) -> np.ndarray:
    return np.concatenate([[0.0], np.geomspace(2e4, TOTAL, count - 1)])


def logistic(tokens: np.ndarray, centre: float, scale: float, fall: float = 0.35) -> np.ndarray:
    """Falls from -0.05; centre and scale are shares of TOTAL; 10% to 90% is centre -+ 2.2 scale."""
    return -0.05 - fall / (1 + np.exp(-(tokens / TOTAL - centre) / scale))


def noisy(curve: np.ndarray, seed: int, sd: float = NOISE) -> np.ndarray:
    return curve + sd * np.random.default_rng(seed).standard_normal(len(curve))


@pytest.mark.parametrize("spacing", [even, spaced_by_logarithm])
@pytest.mark.parametrize("count", [50, 101, 200])
@pytest.mark.parametrize(("centre", "scale"), [(0.5, 0.05), (0.3, 0.02), (0.4, 0.08), (0.6, 0.03)])
@pytest.mark.parametrize("sd", [0.0, 0.01, NOISE])
def test_window_is_the_middle_of_a_logistic_fall(spacing, count, centre, scale, sd):
    tokens = spacing(count)
    window = detect(tokens, noisy(logistic(tokens, centre, scale), seed=count, sd=sd))
    assert window is not None and window.finished
    for found, true in ((window.start_tokens, centre - 2.2 * scale), (window.end_tokens, centre + 2.2 * scale)):
        gap = np.diff(tokens)[np.searchsorted(tokens, true * TOTAL) - 1]
        assert abs(found - true * TOTAL) <= 1.5 * gap + (0.35 + 30 * sd) * scale * TOTAL
    assert window.fall == pytest.approx(0.32, abs=0.035 + 2 * sd)  # 80% to 97% of the whole fall of 0.35
    assert window.fall == pytest.approx(window.score_before - window.score_after)
    assert window.share == pytest.approx(0.32 / 0.4, abs=0.09 + 5 * sd)
    assert (tokens[window.start_index], tokens[window.end_index]) == (window.start_tokens, window.end_tokens)


@pytest.mark.parametrize("count", [25, 60, 200])
def test_a_phase_change_is_found_in_every_seed(count):
    tokens = even(count)
    found = [detect(tokens, noisy(logistic(tokens, 0.5, 0.05), seed)) for seed in range(100)]
    assert sum(window is not None for window in found) >= 99
    assert all(w is None or w.start_tokens < 0.5 * TOTAL < w.end_tokens for w in found)


def test_a_fall_within_one_interval_between_snapshots():
    tokens = even(30)
    window = detect(tokens, noisy(np.where(tokens < 0.52 * TOTAL, -0.05, -0.4), seed=0))
    assert window is not None and window.end_index - window.start_index <= 2


def test_drift_on_both_sides_is_left_outside():
    tokens = even(80)
    share = tokens / TOTAL
    curve = logistic(tokens, 0.5, 0.02, fall=0.3) - 0.1 * (1 - np.exp(-40 * share)) - 0.1 * np.maximum(share - 0.5, 0)
    window = detect(tokens, noisy(curve, seed=3))
    assert window is not None
    assert 0.4 * TOTAL < window.start_tokens < window.end_tokens < 0.6 * TOTAL


CURVES_WITHOUT = {
    "flat": lambda share: 0 * share,
    "flat, one layer": lambda share: 0 * share - 0.07,
    "slow drift": lambda share: -0.1 * share,
    "early drop": lambda share: -0.1 * (1 - np.exp(-10 * share)),
    "linear decline": lambda share: -0.5 * share,
    "logarithmic decline": lambda share: -0.3 * np.log1p(50 * share) / np.log(51),
    "rise": lambda share: 0.4 / (1 + np.exp(-(share - 0.5) / 0.05)),
}


@pytest.mark.parametrize("name", CURVES_WITHOUT)
@pytest.mark.parametrize("spacing", [even, spaced_by_logarithm])
@pytest.mark.parametrize("count", [MINIMUM_SNAPSHOTS, 25, 80])
def test_no_phase_change_where_there_is_none(name, spacing, count):
    tokens = spacing(count)
    curve = CURVES_WITHOUT[name](tokens / TOTAL)
    assert detect(tokens, curve) is None
    found = sum(detect(tokens, noisy(curve, seed)) is not None for seed in range(200))
    assert found <= 4, f"{found} of 200"


def test_two_hundred_flat_snapshots_rarely_show_a_window():
    tokens = even(200)
    assert sum(detect(tokens, noisy(0 * tokens, seed)) is not None for seed in range(200)) <= 4


def test_one_outlying_snapshot_neither_makes_nor_hides_a_window():
    tokens = even(40)
    for place in range(len(tokens)):
        for size in (-0.4, 0.4):
            flat = noisy(0 * tokens - 0.05, seed=place)
            flat[place] += size
            assert detect(tokens, flat) is None
            change = noisy(logistic(tokens, 0.5, 0.05), seed=place)
            change[place] += size
            window = detect(tokens, change)
            assert window is not None
            assert 0.3 * TOTAL < window.start_tokens < 0.5 * TOTAL < window.end_tokens < 0.7 * TOTAL


def test_a_dip_that_recovers_is_not_a_phase_change():
    tokens = even(60)
    dip = -0.4 * np.exp(-(((tokens / TOTAL - 0.5) / 0.1) ** 2))
    assert not any(detect(tokens, noisy(dip, seed)) for seed in range(50))


def test_a_fall_that_training_did_not_outlast_says_so():
    tokens = even(60)
    window = detect(tokens, noisy(logistic(tokens, 0.97, 0.04), seed=0))
    assert window is not None and not window.finished
    assert window.end_tokens == TOTAL
    assert window.share == pytest.approx(-window.fall / window.score_after)


def test_too_few_snapshots_are_no_answer():
    for count in range(MINIMUM_SNAPSHOTS):
        tokens = np.arange(count, dtype=float)
        assert detect(tokens, -0.4 * (tokens > count / 2)) is None


def test_the_prototype_of_the_reference():
    assert detect(PROTOTYPE_TOKENS, ONE_LAYER) is None
    window = detect(PROTOTYPE_TOKENS, TWO_LAYERS)
    assert window is not None and window.finished
    assert 1.5e6 <= window.start_tokens <= 2.0e6
    assert window.end_tokens == 3.6e6
    assert 0.4 < window.fall < 0.5
    assert window.share > 0.75


def test_time_is_relative_and_inputs_are_untouched():
    tokens = even(50)
    curve = noisy(logistic(tokens, 0.5, 0.05), seed=1)
    curve[7] += 0.4
    copies = tokens.copy(), curve.copy()
    small = detect(tokens, curve)
    large = detect(1000 * tokens + 7, curve)
    assert small is not None and large is not None
    assert (small.start_index, small.end_index) == (large.start_index, large.end_index)
    assert small.fall == pytest.approx(large.fall)
    assert np.array_equal(tokens, copies[0]) and np.array_equal(curve, copies[1])


@pytest.mark.parametrize(
    ("tokens", "score"),
    [
        (np.arange(20.0), np.full(20, np.nan)),
        (np.arange(20.0), np.where(np.arange(20) == 7, np.inf, 0.0)),
        (np.where(np.arange(20) == 7, np.nan, np.arange(20.0)), np.zeros(20)),
        (np.arange(20.0), np.zeros(19)),
        (np.zeros(20), np.zeros(20)),
        (np.arange(20.0)[::-1], np.zeros(20)),
        (np.zeros((4, 5)), np.zeros((4, 5))),
        (np.arange(20.0), 0.0),
    ],
)
def test_bad_input_is_refused(tokens, score):
    for function in (detect, onset, interval):
        with pytest.raises(ValueError):
            function(tokens, score)


def examples(tokens: np.ndarray, curve: np.ndarray, units: int, seed: int = 0, sd: float = 0.5) -> np.ndarray:
    """Scores per example [snapshot, unit]: level of the example, noise of each snapshot."""
    generator = np.random.default_rng(seed)
    level = sd * generator.standard_normal(units)
    return curve[:, None] + level + sd * generator.standard_normal((len(tokens), units))


def test_interval_covers_the_true_window():
    tokens = even(60)
    result = interval(tokens, examples(tokens, logistic(tokens, 0.5, 0.05), units=300), seed=1)
    assert result.window is not None and result.found_share == 1.0
    for limits, point in (
        (result.steps[0].start_tokens, result.window.start_tokens),
        (result.steps[0].end_tokens, result.window.end_tokens),
        (result.steps[0].fall, result.window.fall),
        (result.steps[0].share, result.window.share),
    ):
        assert limits.low <= point <= limits.high
    step = result.steps[0]
    assert step.start_tokens.low <= 0.39 * TOTAL <= step.start_tokens.high
    assert step.end_tokens.low <= 0.61 * TOTAL <= step.end_tokens.high
    assert step.fall.low <= 0.34 <= step.fall.high
    assert step.fall.high - step.fall.low < 0.15


def test_interval_is_a_function_of_its_arguments():
    tokens = even(30)
    scores = examples(tokens, logistic(tokens, 0.5, 0.05), units=53)
    copy = scores.copy()
    first = interval(tokens, scores, resamples=40, seed=5)
    assert first == interval(tokens, scores, resamples=40, seed=5)
    assert first != interval(tokens, scores, resamples=40, seed=6)
    assert np.array_equal(scores, copy)


def test_interval_of_identical_examples_has_no_width():
    tokens = even(40)
    curve = noisy(logistic(tokens, 0.5, 0.05), seed=2)
    result = interval(tokens, np.repeat(curve[:, None], 11, axis=1), resamples=20)
    alone = detect(tokens, curve)
    assert result.window is not None and alone is not None
    assert tuple(result.steps[0].start_tokens) == pytest.approx((alone.start_tokens,) * 3)
    assert tuple(result.steps[0].fall) == pytest.approx((alone.fall,) * 3)


def test_interval_without_a_window():
    tokens = even(40)
    result = interval(tokens, examples(tokens, 0 * tokens - 0.05, units=200), resamples=100)
    assert result.window is None
    assert result.found_share <= 0.05
    few = interval(tokens[:5], np.zeros((5, 3)), resamples=10)
    assert few.window is None and few.found_share == 0.0 and few.decision == "none"


def test_interval_of_a_long_run_is_quick():
    tokens = even(200)
    scores = examples(tokens, logistic(tokens, 0.5, 0.05), units=500)
    began = time.perf_counter()
    interval(tokens, scores, resamples=200)
    assert time.perf_counter() - began < 10  # 0.2 s on one idle core; the limit leaves room for a busy one


def test_row_has_the_columns_of_the_table():
    columns = [
        "start_tokens",
        "end_tokens",
        "start_low",
        "start_high",
        "end_low",
        "end_high",
        "fall",
        "fall_low",
        "fall_high",
        "share",
        "share_low",
        "share_high",
        "score_before",
        "score_after",
        "finished",
        "found_share",
        "score_kind",
        "decision",
    ]
    tokens = even(40)
    result = interval(tokens, examples(tokens, logistic(tokens, 0.5, 0.05), units=300), resamples=30)
    with_window = window_row(result.steps[0], result, "windowed")
    assert list(with_window) == columns
    assert with_window["start_low"] <= with_window["start_tokens"] <= with_window["start_high"]
    assert with_window["score_kind"] == "windowed" and with_window["finished"] is True
    assert with_window["decision"] == "window"
    nothing = change_rows(interval(tokens, np.zeros((40, 8))), "exact").iloc[0]
    assert nothing["decision"] == "none" and nothing["steps"] == 0 and nothing["fall"] == 0.0


def test_onset_is_where_half_of_the_rise_is_passed():
    assert onset([0, 10, 20, 30], [0.0, 0.0, 1.0, 1.0]) == 15.0
    assert onset([0, 10, 20, 30], [1.0, 1.0, 0.0, -1.0]) == 20.0
    assert onset([0, 10, 40], [0.0, 0.2, 0.8]) == pytest.approx(20.0)
    assert onset([0, 10, 20, 30, 40], [0.0, 0.9, 0.1, 0.9, 1.0]) == pytest.approx(10 * 0.5 / 0.9)  # first time
    assert onset(PROTOTYPE_TOKENS, PREFIX_MATCHING) == pytest.approx(2.6e6 + 0.5e6 * (0.42 - 0.37) / (0.59 - 0.37))
    assert 2.0e6 < onset(PROTOTYPE_TOKENS, TWO_LAYERS) < 3.1e6


def test_onset_needs_a_rise_worth_the_name():
    assert np.isnan(onset([0, 10, 20], [0.03, 0.04, 0.05]))
    assert onset([0, 10, 20], [0.03, 0.04, 0.05], minimum_rise=0.01) == pytest.approx(10.0)
    assert np.isnan(onset([0, 10, 20], [0.5, 0.5, 0.5], minimum_rise=0.0))
    assert np.isnan(onset([0], [0.5])) and np.isnan(onset([], []))
    assert np.isnan(onset(PROTOTYPE_TOKENS, ONE_LAYER))


def test_onset_does_not_hang_on_the_last_snapshot():
    curve = np.concatenate([np.zeros(20), np.ones(20)])
    curve[-1] = 0.0
    assert onset(np.arange(40.0), curve) == 19.5


def with_memory(count: int, seed: int, sd: float, lag: float) -> np.ndarray:
    """Noise of which every snapshot keeps a share `lag` of the one before."""
    drawn = np.random.default_rng(seed).standard_normal(count)
    noise = [drawn[0]]
    for one in drawn[1:]:
        noise.append(lag * noise[-1] + np.sqrt(1 - lag**2) * one)
    return sd * np.array(noise)


@pytest.mark.parametrize("sd", [0.01, NOISE])
def test_both_of_two_equal_steps_are_found(sd):
    tokens, both = even(60), 0
    curve = logistic(tokens, 0.3, 0.015, fall=0.2) + logistic(tokens, 0.7, 0.015, fall=0.2)
    for seed in range(30):
        found = steps(tokens, noisy(curve, seed, sd))
        if len(found) == 2:
            both += 1
            first, second = sorted(found, key=lambda window: window.start_tokens)
            assert 0.2 * TOTAL < first.start_tokens < 0.32 * TOTAL and 0.28 * TOTAL < first.end_tokens < 0.42 * TOTAL
            assert 0.6 * TOTAL < second.start_tokens < 0.72 * TOTAL and 0.68 * TOTAL < second.end_tokens < 0.8 * TOTAL
            assert [window.fall for window in found] == pytest.approx([0.19, 0.19], abs=0.03 + 2 * sd)
            assert found[0].fall >= found[1].fall
    assert both >= (30 if sd < NOISE else 28)


def test_three_steps_are_found():
    tokens = even(100)
    curve = sum(logistic(tokens, centre, 0.01, fall=0.2) for centre in (0.2, 0.5, 0.8))
    assert len(steps(tokens, noisy(curve, 0, 0.01))) == 3


def test_the_total_of_two_steps_and_the_interval_of_each():
    tokens = even(60)
    curve = logistic(tokens, 0.3, 0.015, fall=0.25) + logistic(tokens, 0.7, 0.015, fall=0.2)
    found = interval(tokens, examples(tokens, curve, units=32, seed=1, sd=0.1))
    assert found.decision == "window" and len(found.steps) == 2
    assert found.fall.low < 0.45 < found.fall.high and found.fall.high - found.fall.low < 0.2
    assert found.fall.value == pytest.approx(sum(step.fall.value for step in found.steps))
    assert all(step.fall.low < true < step.fall.high for step, true in zip(found.steps, (0.25, 0.2), strict=True))


@pytest.mark.parametrize("sd", [0.0, 0.01, NOISE])
def test_a_slow_fall_keeps_its_width(sd):
    tokens, widths = even(60), []
    for seed in range(20):
        window = detect(tokens, noisy(logistic(tokens, 0.5, 0.12), seed, sd))
        if window:
            widths.append((window.end_tokens - window.start_tokens) / TOTAL)
    assert len(widths) >= 16
    assert np.median(widths) == pytest.approx(4.4 * 0.12, rel=0.08)


def test_a_fall_that_recovers_has_a_share_below_one():
    tokens = even(60)
    share = tokens / TOTAL
    curve = -0.4 / (1 + np.exp(-(share - 0.3) / 0.02)) + 0.12 / (1 + np.exp(-(share - 0.7) / 0.06))
    window = detect(tokens, noisy(curve, 0, 0.01))
    assert window is not None and 0.55 < window.share < 0.75  # 0.28 of 0.4 is kept


@pytest.mark.parametrize(("lag", "allowed"), [(0.29, 2), (0.8, 10)])
@pytest.mark.parametrize("drift", [0.0, 0.1, 0.15, 0.3])
def test_noise_with_a_memory_makes_no_window(lag, allowed, drift):
    """At most 1% (5% where the noise remembers most of itself) of 200 curves; sd as runs show it."""
    tokens = even(60)
    curves = [-drift * tokens / TOTAL + with_memory(60, seed, 0.01, lag) for seed in range(200)]
    assert sum(detect(tokens, curve) is not None for curve in curves) <= allowed


def test_the_share_of_resamples_decides():
    assert [decided(share, True) for share in (0.0, 0.05, 0.06, 0.94, 0.95, 1.0)] == [
        "none",
        "none",
        "undecided",
        "undecided",
        "window",
        "window",
    ]
    assert decided(float("nan"), True) == "undecided" and decided(float("nan"), False) == "none"


def test_a_fall_seen_in_some_resamples_has_an_interval_that_reaches_down():
    """An interval of the resamples in which a fall was found would end at the least fall there is."""
    tokens = even(30)
    share = 0.0
    for seed in range(20):
        found = interval(
            tokens, examples(tokens, logistic(tokens, 0.5, 0.03, fall=0.16), units=16, seed=seed, sd=0.08), seed=1
        )
        if found.steps and 0.2 < found.found_share < 0.8:
            share = found.found_share
            assert found.decision == "undecided"
            assert found.fall.low < 0.1 and np.isnan(found.steps[0].start_tokens.low)
    assert share > 0


def test_few_chains_decide_nothing_and_give_no_interval():
    tokens = even(40)
    found = interval(
        tokens,
        examples(tokens, logistic(tokens, 0.5, 0.05), units=7) * 0.1 + 0.9 * logistic(tokens, 0.5, 0.05)[:, None],
    )
    assert found.window is not None and found.decision == "undecided"
    assert np.isnan(found.found_share) and np.isnan(found.fall.low)


def test_the_best_head_is_taken_anew_at_every_snapshot():
    """Two heads cross: the one that ends highest rises late, the other early; 'best of the time' rises early."""
    tokens = np.arange(0.0, 11.0)
    early = np.where(tokens >= 3, 0.6, 0.0)
    late = np.where(tokens >= 8, 0.7, 0.0)
    units = np.repeat(np.stack([early, late], -1)[:, None], 9, axis=1)  # [snapshot, unit, head]
    estimate, found = onset_estimate(tokens, units)
    assert tuple(estimate) == pytest.approx((2 + 0.35 / 0.6,) * 3) and found == 1.0
    alone, _ = onset_estimate(tokens, units[:, :, 1])
    assert alone.value == pytest.approx(7.5)


def test_first_passage_of_a_level():
    assert first_passage([0, 10, 20], [0.0, -0.1, -0.3], -0.2) == pytest.approx(15.0)
    assert first_passage([0, 10, 20], [0.0, -0.1, -0.1], -0.1) == pytest.approx(10.0)
    assert np.isnan(first_passage([0, 10], [0.0, -0.1], -0.2)) and np.isnan(first_passage([0, 10], [-0.3, -0.4], -0.2))


def test_one_level_for_both_arms():
    """The smeared arm falls twice as deep, at the same pace: it passes the level of the twin earlier."""
    tokens = np.linspace(0, 100, 21)
    twin = -0.4 * np.clip((tokens - 40) / 40, 0, 1)
    smeared = -0.8 * np.clip((tokens - 40) / 40, 0, 1)
    arms = [np.repeat(curve[:, None], 8, axis=1) for curve in (smeared, twin)]
    ratio = earlier(tokens, arms[0], tokens, arms[1])
    assert tuple(ratio) == pytest.approx((50 / 60,) * 3)
    assert np.isnan(earlier(tokens, 0 * arms[0], tokens, arms[1]).value)  # never falls as far
    assert np.isnan(earlier(tokens, arms[0], tokens, 0.1 * arms[1]).value)  # the twin does not fall
    assert np.isnan(earlier(tokens, arms[0][:, :3], tokens, arms[1][:, :3]).low)  # too few chains

"""Intervals and correlations: coverage at the numbers of units used, and the formulas written out."""

import math

import pytest
import torch

from induction_cli.measures.intervals import (
    CHAINS,
    SEEDS,
    Estimate,
    coincide,
    correlation,
    correlation_scale,
    from_resamples,
    group_means,
    mean_interval,
    of_means,
    over_seeds,
    resamples,
    share_of_seeds,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_group_means_by_hand_with_a_smaller_last_group():
    values = torch.tensor([1.0, 3, 5, 7, 100])
    assert group_means(values, 2).tolist() == [2, 6, 100]
    assert group_means(values[:, None].expand(5, 3), 2).shape == (3, 3)


def test_resamples_are_draws_with_replacement():
    weights = resamples(11, 300)
    assert weights.shape == (300, 11)
    assert torch.allclose(weights.sum(1), torch.ones(300))
    counts = weights * 11
    assert torch.allclose(counts, counts.round(), atol=1e-5) and counts.max() > 1
    assert weights.mean().item() == pytest.approx(1 / 11)
    assert torch.equal(weights, resamples(11, 300)) and not torch.equal(weights, resamples(11, 300, seed=1))


def test_mean_interval_of_equal_units_is_a_point():
    low, high = mean_interval(torch.full((11, 2), 3.0))
    assert low.tolist() == pytest.approx([3, 3]) and high.tolist() == pytest.approx([3, 3])


def test_mean_interval_is_about_two_standard_errors_wide():
    units = normal(400)
    low, high = mean_interval(units)
    width = 2 * 1.96 * units.std() / math.sqrt(400)
    assert low < units.mean() < high
    assert (high - low).item() == pytest.approx(width.item(), rel=0.1)


@pytest.mark.parametrize("n", [8, 10, 16, 40])
def test_mean_interval_covers_the_true_mean_as_often_as_it_says(n):
    low, high = mean_interval(normal(n, 4000))  # 4000 experiments at once, true mean 0
    assert 0.94 <= ((low <= 0) & (high >= 0)).double().mean().item() <= 0.96


def test_mean_interval_keeps_the_shape_and_few_units_have_none():
    low, high = mean_interval(normal(8, 2, 3))
    assert low.shape == high.shape == (2, 3)
    assert mean_interval(normal(8))[0].shape == ()
    for n in (1, 2, 7):
        assert all(edge.isnan().all() and edge.shape == (3,) for edge in mean_interval(normal(n, 3)))


def pearson(x: list[float], y: list[float]) -> float:
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def test_pearson_is_the_formula():
    x, y = normal(23), normal(23, seed=1)
    y = y + 0.5 * x
    value, low, high = correlation(x, y, units="models")
    assert value == pytest.approx(pearson(x.tolist(), y.tolist()))
    assert -1 <= low < value < high <= 1


def test_heads_are_no_units():
    """Heads of one model share a seed: their correlation is a number without an interval; so is one over few items."""
    x, y = normal(23), normal(23, seed=1)
    assert math.isnan(correlation(x, y).low)
    assert math.isnan(correlation(x[:9], y[:9], units="models").low)


def test_perfect_correlations():
    x = normal(11)
    assert correlation(x, 3 * x + 1).value == pytest.approx(1)
    assert correlation(x, -x).value == pytest.approx(-1)
    assert correlation(x, x.exp(), ranks=True).value == pytest.approx(1)  # monotonous, not straight
    assert correlation(x, x.exp()).value < 0.999


def test_spearman_with_ties_uses_average_ranks():
    x, y = torch.tensor([1.0, 2, 2, 3, 9]), torch.tensor([5.0, 5, 7, 8, 6])
    ranks_x, ranks_y = [1, 2.5, 2.5, 4, 5], [1.5, 1.5, 4, 5, 3]
    assert correlation(x, y, ranks=True).value == pytest.approx(pearson(ranks_x, ranks_y))


def test_interval_of_a_correlation_is_near_fishers():
    """1.96 / sqrt(n - 3) around atanh(r)."""
    x = normal(200)
    value, low, high = correlation(x, 0.6 * x + 0.8 * normal(200, seed=1), units="models")
    expected = [math.tanh(math.atanh(value) + sign * 1.96 / math.sqrt(197)) for sign in (-1, 1)]
    assert [low, high] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("ranks", [False, True])
def test_nothing_to_correlate_is_nan(ranks):
    assert all(map(math.isnan, correlation(torch.ones(5), normal(5), ranks)))
    assert all(map(math.isnan, correlation(normal(2), normal(2), ranks)))


def test_inputs_untouched():
    x, y = normal(9), normal(9, seed=1)
    before = x.clone(), y.clone()
    correlation(x, y, ranks=True)
    mean_interval(x)
    group_means(x, 2)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_the_side_of_an_estimate():
    assert Estimate(0.3, 0.2, 0.4).side(0.1) == "above"
    assert Estimate(0.3, 0.2, 0.4).side(0.5) == "below"
    assert Estimate(0.3, 0.2, 0.4).side(0.2) is None  # touches
    assert Estimate(0.3).side(0.1) is None


# ------------------------------------------------------------------------------------------------ over seeds

DRAWS = 4000


def covered(units: torch.Tensor, true: float, scale: str = "identity") -> float:
    """Share of experiments [experiment, unit] whose interval over seeds holds the true number."""
    found = [over_seeds(one, scale) for one in units.numpy()]
    return sum(each.low <= true <= each.high for each in found) / len(found)


@pytest.mark.parametrize("n", [3, 5, 10, 16])
def test_coverage_of_normal_units(n):
    assert 0.94 <= covered(normal(DRAWS, n) + 2, 2.0) <= 0.96


@pytest.mark.parametrize("n", [3, 5, 10, 16])
def test_coverage_of_skewed_ratios_on_the_scale_of_ratios(n):
    assert 0.94 <= covered((0.8 * normal(DRAWS, n)).exp(), 1.0, "log") <= 0.96


@pytest.mark.parametrize("n", [3, 5, 10, 16])
def test_coverage_of_correlations_on_fishers_scale(n):
    assert 0.94 <= covered((0.5 + 0.6 * normal(DRAWS, n)).tanh(), math.tanh(0.5), "fisher") <= 0.96


@pytest.mark.parametrize("n", [3, 5, 10, 16])
def test_coverage_of_skewed_units(n):
    """Gamma of shape 6: skewness 0.8, more than the falls and shares of runs show."""
    units = -torch.rand(DRAWS, n, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log()
    assert covered(units.sum(-1), 6.0) >= 0.93


@pytest.mark.parametrize("n", [8, 10, 16])
def test_coverage_of_a_ratio_of_means_within_a_run(n):
    found = 0
    for seed in range(500):
        both = torch.tensor([1.0, 2.0], dtype=torch.float64) + 0.3 * normal(n, 2, seed=seed)
        estimate = of_means(both, lambda means: means[:, 0] / means[:, 1], n_resamples=200)
        found += estimate.low <= 0.5 <= estimate.high
    assert found >= 0.93 * 500


def test_over_seeds_by_hand():
    """1, 2, 3: mean 2, sd 1, t of two degrees of freedom 4.303."""
    found = over_seeds([1.0, 2.0, math.nan, 3.0])
    assert tuple(found) == pytest.approx((2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    assert found.units == SEEDS
    ratios = over_seeds([math.exp(1), math.exp(2), math.exp(3)], "log")
    assert ratios.value == pytest.approx(math.exp(2)) and ratios.low == pytest.approx(math.exp(found.low))
    wider = over_seeds([1.0, 2.0, 3.0], level=0.9706)
    assert wider.low < found.low and wider.high > found.high


def test_two_seeds_and_seeds_that_agree_have_no_interval():
    assert over_seeds([1.0, 2.0]).value == 1.5 and math.isnan(over_seeds([1.0, 2.0]).low)
    assert math.isnan(over_seeds([1.0] * 6).low) and coincide([1.0, 1.0, math.nan]) and not coincide([1.0, 0.9])
    assert math.isnan(over_seeds([]).value) and math.isnan(over_seeds([math.nan]).value)


def test_yes_or_no_takes_six_seeds_to_decide():
    assert [share_of_seeds([True] * n).side(0.5) for n in (3, 5, 6)] == [None, None, "above"]
    assert share_of_seeds([False] * 6).side(0.5) == "below"
    half = share_of_seeds([True, False])
    assert half.value == 0.5 and half.low == pytest.approx(0.0126, abs=1e-3)  # Clopper and Pearson's table
    assert share_of_seeds([True] * 6).low == pytest.approx(0.025 ** (1 / 6))


def test_scales_that_values_do_not_have_are_refused():
    with pytest.raises(ValueError, match="ratios are above 0"):
        over_seeds([1.0, -1.0, 2.0], "log")
    with pytest.raises(ValueError, match="the scale of few items is identity"):
        over_seeds([1.0, 0.5, 0.2], "fisher")
    with pytest.raises(ValueError, match="there are identity, log, fisher"):
        over_seeds([1.0, 0.5, 0.2], "square")
    assert [correlation_scale(n) for n in (9, 10)] == ["identity", "fisher"]


def test_a_bootstrap_of_few_units_says_what_to_do_instead():
    with pytest.raises(ValueError, match="7 units are too few to draw from, 8 are needed: measure on more"):
        resamples(7)
    few = of_means(normal(7, 2), lambda means: means[:, 0])
    assert math.isfinite(few.value) and math.isnan(few.low) and few.units == CHAINS


def test_resamples_without_a_number_are_not_left_out():
    """An interval of the resamples in which something was found is one of success."""
    draws = [1.0, 2.0] * 10
    assert math.isfinite(from_resamples(1.5, draws, 16).low)
    assert math.isnan(from_resamples(1.5, [*draws, math.nan, math.nan], 16).low)


def test_an_estimate_is_three_columns():
    assert list(Estimate(0.3, 0.2, 0.4)) == [0.3, 0.2, 0.4]
    assert Estimate(0.3, 0.2, 0.4).columns("share") == {"share": 0.3, "share_low": 0.2, "share_high": 0.4}

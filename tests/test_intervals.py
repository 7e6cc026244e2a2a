"""Bootstrap intervals and correlations: coverage, and the formulas written out."""

import math

import pytest
import torch

from induction_cli.measures.intervals import Estimate, correlation, group_means, mean_interval, resamples


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_group_means_by_hand_with_a_smaller_last_group():
    values = torch.tensor([1.0, 3, 5, 7, 100])
    assert group_means(values, 2).tolist() == [2, 6, 100]
    assert group_means(values[:, None].expand(5, 3), 2).shape == (3, 3)


def test_resamples_are_draws_with_replacement():
    weights = resamples(7, 300)
    assert weights.shape == (300, 7)
    assert torch.allclose(weights.sum(1), torch.ones(300))
    counts = weights * 7
    assert torch.allclose(counts, counts.round(), atol=1e-5) and counts.max() > 1
    assert weights.mean().item() == pytest.approx(1 / 7)
    assert torch.equal(weights, resamples(7, 300)) and not torch.equal(weights, resamples(7, 300, seed=1))


def test_mean_interval_of_equal_units_is_a_point():
    low, high = mean_interval(torch.full((5, 2), 3.0))
    assert low.tolist() == pytest.approx([3, 3]) and high.tolist() == pytest.approx([3, 3])


def test_mean_interval_is_about_two_standard_errors_wide():
    units = normal(400)
    low, high = mean_interval(units)
    width = 2 * 1.96 * units.std() / math.sqrt(400)
    assert low < units.mean() < high
    assert (high - low).item() == pytest.approx(width.item(), rel=0.1)


def test_mean_interval_covers_the_true_mean_about_as_often_as_it_says():
    low, high = mean_interval(normal(40, 500))  # 500 experiments at once, true mean 0
    covered = ((low <= 0) & (high >= 0)).double().mean().item()
    assert 0.90 <= covered <= 0.98


def test_mean_interval_keeps_the_shape_and_one_unit_has_none():
    low, high = mean_interval(normal(6, 2, 3))
    assert low.shape == high.shape == (2, 3)
    assert mean_interval(normal(6))[0].shape == ()
    assert all(edge.isnan().all() and edge.shape == (3,) for edge in mean_interval(normal(1, 3)))


def pearson(x: list[float], y: list[float]) -> float:
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def test_pearson_is_the_formula():
    x, y = normal(23), normal(23, seed=1)
    y = y + 0.5 * x
    value, low, high = correlation(x, y)
    assert value == pytest.approx(pearson(x.tolist(), y.tolist()))
    assert -1 <= low < value < high <= 1
    assert correlation(x, y) == (value, low, high)


def test_perfect_correlations():
    x = normal(11)
    assert correlation(x, 3 * x + 1) == pytest.approx((1, 1, 1))
    assert correlation(x, -x) == pytest.approx((-1, -1, -1))
    assert correlation(x, x.exp(), ranks=True) == pytest.approx((1, 1, 1))  # monotonous, not straight
    assert correlation(x, x.exp())[0] < 0.999


def test_spearman_with_ties_uses_average_ranks():
    x, y = torch.tensor([1.0, 2, 2, 3, 9]), torch.tensor([5.0, 5, 7, 8, 6])
    ranks_x, ranks_y = [1, 2.5, 2.5, 4, 5], [1.5, 1.5, 4, 5, 3]
    assert correlation(x, y, ranks=True)[0] == pytest.approx(pearson(ranks_x, ranks_y))


def test_interval_of_a_correlation_is_near_fishers():
    """1.96 / sqrt(n - 3) around atanh(r)."""
    x = normal(200)
    value, low, high = correlation(x, 0.6 * x + 0.8 * normal(200, seed=1))
    expected = [math.tanh(math.atanh(value) + sign * 1.96 / math.sqrt(197)) for sign in (-1, 1)]
    assert [low, high] == pytest.approx(expected, abs=0.04)


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

"""The shape of loss curves: lines and parabolas whose slope and curvature are known."""

import math

import pytest
import torch

from induction_cli.config import EvaluationConfig
from induction_cli.evaluation.rows import chain_rows, derivative_rows, index_rows
from induction_cli.measures.loss_curve import bend, curvature, departure, index_slope
from induction_cli.measures.trajectory import angle, principal_components, random_columns, sharpest_turn, turn

times = torch.logspace(3, 7, 81, dtype=torch.float64)  # 20 snapshots a decade
logs = times.log()


# ------------------------------------------------------------------------------------------------ loss by index


def test_index_slope_of_a_straight_line_in_ln_index():
    index = torch.arange(1, 513, dtype=torch.float64)
    losses = torch.stack((5 - 0.25 * index.log(), 3 + 0 * index, 1 + 0.5 * index.log()))
    assert index_slope(losses).tolist() == pytest.approx([-0.25, 0, 0.5])
    assert index_slope(losses[0], 7, 11).item() == pytest.approx(-0.25)


def test_index_slope_reads_the_indices_asked_for_and_no_others():
    """Index i stands in column i - 1: spoil all columns but those of indices 100 to 500."""
    index = torch.arange(1, 513, dtype=torch.float64)
    losses = -0.25 * index.log()
    losses[:99], losses[500:] = 1e6, -1e6
    assert index_slope(losses).item() == pytest.approx(-0.25)
    assert index_slope(losses, 99).item() < -100
    assert abs(index_slope(losses, 100, 501).item()) > 100


def test_index_slope_of_a_shorter_context_ends_with_it():
    index = torch.arange(1, 301, dtype=torch.float64)
    assert index_slope(-0.25 * index.log()).item() == pytest.approx(-0.25)


@pytest.mark.parametrize(("early", "late"), [(8, 60), (40, 60), (30, 60), (59, 60), (1, 2)])
def test_chains_have_a_slope_whatever_the_indices(early, late):
    losses = 4 - 0.5 * torch.arange(1, 65).float().log().repeat(16, 1)
    table = chain_rows(losses, {"step": 0}, EvaluationConfig(early_index=early, late_index=late, half_width=0))
    assert table.index_slope.tolist() == pytest.approx([-0.5, -0.5], rel=0.02)  # single precision, close indices
    assert table.in_context_learning_score.tolist() == pytest.approx([-0.5 * math.log(late / early)] * 2, rel=1e-3)
    assert table.chain.tolist() == [0, 1]


def test_derivative_rows_of_a_straight_line():
    losses = 4 - 0.5 * torch.arange(1, 65).float().log().repeat(3, 1)
    table = derivative_rows(index_rows(losses, {"step": 7, "tokens": 700}))
    assert table.derivative.tolist() == pytest.approx([-0.5] * len(table), rel=1e-3)
    assert list(table.columns) == ["step", "tokens", "index", "derivative"]


# ------------------------------------------------------------------------------------------------ loss over tokens


def test_curvature_of_exact_parabolas():
    for second in (-3.0, 0.0, 0.7):
        loss = 4 - 0.2 * logs + second / 2 * (logs - 9) ** 2
        found = curvature(times, loss, 1e5, 1.0)
        assert found.value == pytest.approx(second, abs=1e-6) and found.error == pytest.approx(0, abs=1e-6)


def test_curvature_is_that_around_the_centre_only():
    kink = torch.where(logs < math.log(1e5), torch.zeros_like(logs), (logs - math.log(1e5)) ** 2)
    assert curvature(times, kink, 1e4, 2.0).value == pytest.approx(0, abs=1e-6)
    assert curvature(times, kink, 1e6, 2.0).value == pytest.approx(2, abs=1e-6)


def test_too_few_snapshots_have_no_curvature():
    assert math.isnan(curvature(times, logs, 1e5, 0.1).value)
    assert math.isnan(curvature(times, logs, 1e5, 0.1).estimate.low)


def test_noise_between_snapshots_is_in_the_error_of_a_curvature():
    """The interval covers the true curvature about as often as it says, at the noise that runs show (sd 0.02 nats)."""
    covered = 0
    for seed in range(300):
        noise = 0.02 * torch.randn(len(times), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = curvature(times, 0.35 * (logs - 11) ** 2 + noise, 1e5, 1.0).estimate
        covered += found.low < 0.7 < found.high
    assert 0.92 * 300 <= covered <= 0.98 * 300


def test_step_zero_is_no_obstacle():
    tokens = torch.cat((torch.zeros(1, dtype=torch.float64), times))
    loss = 4 - tokens.clamp(min=1).log()
    assert curvature(tokens, loss, 1e5, 1.0).value == pytest.approx(0, abs=1e-6)
    assert bend(tokens, loss, 1e5, 2e5).inside.value == pytest.approx(0, abs=1e-6)


def test_bend_at_the_windows_start_against_everywhere_else():
    """Curvature +1 all through, but -4 from half a window's width before the window to its end."""
    start, end = 1e5, 3e5
    second = torch.where((times > start / 3**0.5) & (times < end), -4.0, 1.0).double()
    step = (logs[1] - logs[0]).item()
    loss = (second.cumsum(0) * step).cumsum(0) * step
    found = bend(times, loss, start, end)
    assert found.inside.value == pytest.approx(-4, abs=0.05)
    assert found.outside.value == pytest.approx(1, abs=0.05)
    assert found.difference.value == pytest.approx(-5, abs=0.1)
    assert found.inside.side(0) == "below" and found.outside.side(0) == "above"
    twice = bend(times, 2 * loss, start, end)
    assert twice.inside.value / found.inside.value == pytest.approx(2)


def test_a_loss_that_bends_nowhere_seldom_seems_to():
    """Convex all through, with noise between snapshots: inside is seen below 0 in at most 2.5% of curves."""
    bent = 0
    for seed in range(200):
        noise = 0.02 * torch.randn(len(times), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        bent += bend(times, 0.05 * (logs - 16) ** 2 + noise, 1e5, 3e5).inside.side(0) == "below"
    assert bent <= 5


def test_bend_with_nothing_elsewhere_says_so():
    found = bend(times, logs, 3e3, 3e6)
    assert math.isfinite(found.inside.value) and math.isnan(found.outside.value) and math.isnan(found.difference.low)


def test_departure_is_where_the_gap_stays_open():
    tokens = torch.tensor([0.0, 10, 20, 30, 40, 50])
    shallow = torch.full((6,), 3.0)
    gap = torch.tensor([0.0, 0.5, 0.05, 0.2, 0.6, 1.0])  # open at 10, shut again at 20
    assert departure(tokens, shallow - gap, shallow) == 30
    assert departure(tokens, shallow - gap, shallow, share=0.5) == 40
    assert departure(tokens, shallow - 1, shallow) == 0  # apart from the first snapshot on
    assert math.isnan(departure(tokens, shallow, shallow))
    assert math.isnan(departure(tokens, shallow + 1, shallow))


# ------------------------------------------------------------------------------------------------ paths


def test_principal_components_are_those_of_the_singular_value_decomposition():
    vectors = torch.randn(7, 23, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 3, 23)
    coordinates, directions, shares = principal_components(vectors, 3)
    centred = vectors.double() - vectors.double().mean(0)
    u, s, vh = torch.linalg.svd(centred, full_matrices=False)
    assert coordinates.shape == (7, 3) and directions.shape == (3, 23)
    assert torch.allclose(coordinates.abs(), (u * s)[:, :3].abs(), atol=1e-8)
    assert torch.allclose(directions.abs(), vh[:3].abs(), atol=1e-8)
    assert torch.allclose(shares, s[:3] ** 2 / (s**2).sum())
    assert torch.allclose(centred @ directions.T, coordinates, atol=1e-8)  # signs belong together
    assert (coordinates[-1] >= coordinates[0]).all()


def test_principal_components_of_a_plane_explain_everything():
    plane = torch.randn(2, 29, generator=torch.Generator().manual_seed(1))
    vectors = torch.randn(11, 2, generator=torch.Generator().manual_seed(2)) @ plane + 5
    before = vectors.clone()
    assert principal_components(vectors)[2].sum().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(vectors, before)


def test_random_columns_are_fixed_by_the_seed_and_cover_the_context():
    columns = random_columns(500, 13)
    assert torch.equal(columns, random_columns(500, 13)) and not torch.equal(columns, random_columns(500, 13, seed=1))
    assert columns.unique().tolist() == list(range(13))
    assert torch.equal(random_columns(100, 13), columns[:100])  # more examples keep those there were


def test_angles():
    east, north = torch.tensor([2.0, 0]), torch.tensor([0.0, 5])
    pairs = torch.stack((east, east, east)), torch.stack((east, north, -east))
    assert angle(*pairs).tolist() == pytest.approx([0, 90, 180])
    assert angle(east, torch.tensor([3.0, 3])).item() == pytest.approx(45)
    assert angle(east, torch.zeros(2)).isnan()


def corner(legs: int = 12) -> torch.Tensor:
    """East for some snapshots, then north for as many: [snapshot, 2], the corner at index `legs`."""
    east = torch.stack((torch.arange(legs + 1.0), torch.zeros(legs + 1)), 1)
    north = torch.stack((torch.full((legs,), float(legs)), torch.arange(1, legs + 1.0)), 1)
    return torch.cat((east, north)).double()


def test_right_angle_turns_by_ninety_degrees_and_nowhere_else():
    found = turn(corner(), 10, 14)  # the window holds the corner
    assert found.degrees == pytest.approx(90)
    assert found.before.tolist() == pytest.approx([1, 0]) and found.after.tolist() == pytest.approx([0, 1])
    # windows of 4 with 2 snapshots on each side: starts 2 to 6, and 14 to 18
    assert len(found.elsewhere) == 5 + 5
    assert found.elsewhere.tolist() == pytest.approx([0] * 10, abs=1e-5)


def test_straight_path_does_not_turn_and_a_returning_one_turns_back():
    straight = torch.arange(25.0)[:, None].double() * torch.tensor([0.6, 0.8])
    found = turn(straight, 10, 14)
    assert found.degrees == pytest.approx(0, abs=1e-4) and found.elsewhere.max() < 1e-4
    back = torch.cat((torch.arange(13.0), torch.arange(11, -1, -1.0)))[:, None] * torch.tensor([[1.0, 0]])
    assert turn(back, 10, 14).degrees == pytest.approx(180)


def test_window_near_an_end_uses_what_there_is():
    found = turn(corner(3), 1, 5)
    assert found.degrees == pytest.approx(90)
    assert len(found.elsewhere) == 0
    assert math.isnan(turn(corner(3), 2, 6).degrees)  # nothing after it


def test_the_sharpest_turn_is_at_the_corner():
    found = sharpest_turn(corner(), 10, 14)  # the window's two legs are sqrt(8) apart; stretches of half of that
    assert found.degrees == pytest.approx(90)
    assert found.before.tolist() == pytest.approx([1, 0]) and found.after.tolist() == pytest.approx([0, 1])
    assert len(found.elsewhere) > 8 and found.elsewhere.max() < 1e-4


def test_standing_still_is_no_turn():
    """A path that waits before and after it moves: noise there points anywhere and counts for nothing."""
    noise = 0.05 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    still = torch.zeros(18, 2, dtype=torch.float64)
    path = torch.cat((still, corner(12)[:-1], still + torch.tensor([12.0, 11.0]))) + noise
    found = sharpest_turn(path, 28, 32)
    assert found.degrees == pytest.approx(90, abs=15)
    assert found.elsewhere.max() < 60
    assert turn(path, 28, 32).elsewhere.max() > 120  # at equal times there are sharp turns where nothing moves


def test_a_window_in_which_the_path_ends_has_no_turn():
    assert math.isnan(sharpest_turn(corner(3), 5, 6).degrees)

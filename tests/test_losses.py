import math

import pytest
import torch
import torch.nn.functional as F

from induction_cli.measures import losses
from induction_cli.measures.intervals import group_means, mean_interval


def test_chunked_losses_agree_with_whole_logits(monkeypatch):
    residual, W_U, targets = torch.randn(2, 7, 5), torch.randn(5, 11), torch.randint(11, (2, 7))
    whole = F.cross_entropy((residual @ W_U).transpose(1, 2), targets, reduction="none")
    for chunk in (1, 23, 1 << 20):  # rows one by one, in uneven parts, at once
        monkeypatch.setattr(losses, "CHUNK", chunk)
        assert torch.allclose(losses.per_token_loss(residual, W_U, targets), whole, atol=1e-6)


def test_cross_entropy_and_its_gradients_agree_with_torch(monkeypatch):
    residual = torch.randn(2, 7, 5, requires_grad=True)
    W_U = torch.randn(5, 11, requires_grad=True)
    targets = torch.randint(11, (2, 7))
    plain = F.cross_entropy((residual @ W_U).flatten(0, 1), targets.flatten())
    expected = torch.autograd.grad(3 * plain, (residual, W_U))
    for chunk in (1, 23, 1 << 20):
        monkeypatch.setattr(losses, "CHUNK", chunk)
        fast = losses.cross_entropy(residual, W_U, targets)
        assert torch.allclose(fast, plain, atol=1e-6)
        for got, want in zip(torch.autograd.grad(3 * fast, (residual, W_U)), expected, strict=True):
            assert torch.allclose(got, want, atol=1e-6)


def test_score_by_hand():
    ramp = -torch.arange(1.0, 513.0).repeat(3, 1) / 100  # loss at index i is -i / 100
    assert torch.allclose(losses.in_context_learning_score(ramp), torch.tensor(-4.5))
    assert torch.allclose(losses.in_context_learning_score(ramp, half_width=10), torch.tensor(-4.5))
    spike = torch.zeros(1, 512)
    spike[0, 499] = 21.0  # index 500 alone
    assert losses.in_context_learning_score(spike).item() == 21
    assert losses.in_context_learning_score(spike, half_width=10).item() == pytest.approx(1)
    spike = torch.zeros(1, 512)
    spike[0, 49] = 1.0  # index 50 alone
    assert losses.in_context_learning_score(spike).item() == -1


def test_window_is_cut_alike_at_both_ends():
    loss = torch.zeros(1, 505)
    loss[0, 493] = 11.0  # index 494: inside 500 +- 10, outside 500 +- 5, which is what a context of 505 leaves
    assert losses.in_context_learning_score(loss, half_width=10).item() == 0


def test_index_outside_the_context_is_refused():
    with pytest.raises(ValueError, match="index 500 is outside the context of 64 tokens"):
        losses.in_context_learning_score(torch.zeros(1, 64))


def test_derivative_of_a_power_of_e():
    index = torch.arange(1, 513, dtype=torch.float64)
    at, slope = losses.loss_derivative(5 - 0.3 * index.log())
    assert torch.allclose(slope, torch.tensor(-0.3, dtype=torch.float64))
    assert (at.diff() > 0).all() and at[0] >= 1 and at[-1] <= 512
    stacked = torch.stack([5 - 0.3 * index.log(), 2 * index.log()])
    assert torch.allclose(losses.loss_derivative(stacked)[1][1], torch.tensor(2.0, dtype=torch.float64))


def test_bins_cover_every_index_once():
    for n_ctx in (7, 64, 512, 8192):
        edges = losses.log_bins(n_ctx)
        assert edges[0] == 1 and edges[-1] == n_ctx + 1 and (edges.diff() > 0).all()


def test_group_means():
    values = torch.tensor([[1.0], [3.0], [10.0]])
    assert group_means(values, 2).flatten().tolist() == [2, 10]


def test_interval_of_a_mean():
    units = torch.randn(400, generator=torch.Generator().manual_seed(0))
    low, high = mean_interval(units)
    assert high.item() - low.item() == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.15)
    assert low < units.mean() < high
    assert all(end.isnan() for end in mean_interval(torch.ones(1)))
    low, high = mean_interval(torch.stack([units, 2 * units], 1))
    assert torch.allclose(low[1], 2 * low[0])

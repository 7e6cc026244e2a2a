"""Logits scaled until as much is lost: known answers."""

import math

import pytest
import torch

from induction_cli.config import ModelConfig
from induction_cli.evaluation.scores import logits_at
from induction_cli.measures.equal_damage import losses_at_equal_damage, scale_that_loses, scaled_losses
from induction_cli.measures.losses import per_token_loss
from induction_cli.models.transformer import Transformer


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    logits = 3 * torch.randn(5, 7, 11, generator=torch.Generator().manual_seed(0))
    return logits, logits.softmax(-1).flatten(0, 1).multinomial(1, generator=torch.Generator().manual_seed(1)).view(
        5, 7
    )


def test_losses_are_those_of_a_softmax_of_the_scaled_logits(sample):
    logits, targets = sample
    for scale in (0.0, 0.3, 1.0):
        expected = -(scale * logits).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        assert torch.allclose(scaled_losses(logits, targets, scale), expected, atol=1e-5)
    assert torch.allclose(scaled_losses(logits, targets, 0.0), torch.full((5, 7), math.log(11)))


@pytest.mark.parametrize("nats", [0.01, 0.1, 0.5])
def test_as_many_nats_are_lost(sample, nats):
    logits, targets = sample
    lost = losses_at_equal_damage(logits, targets, nats)
    assert (lost.mean() - scaled_losses(logits, targets, 1.0).mean()).item() == pytest.approx(nats, abs=1e-4)


def test_a_model_too_sure_of_itself_is_scaled_past_its_best(sample):
    logits, targets = sample
    logits = 3 * logits  # its loss falls at first when it is scaled down
    scale = scale_that_loses(logits, targets, 0.05)
    assert 0 < scale < 1 / 3


@pytest.mark.parametrize("nats", [0.0, -0.1, 50.0, math.nan])
def test_no_scale_gains_or_loses_more_than_all(sample, nats):
    assert math.isnan(scale_that_loses(*sample, nats)) and losses_at_equal_damage(*sample, nats) is None


def test_logits_are_those_at_the_columns():
    model = Transformer(ModelConfig(2, 3, 15, 5, 0, 17, 23), seed=3)
    windows = torch.randint(23, (5, 18), generator=torch.Generator().manual_seed(0))
    columns = torch.randint(17, (5, 2), generator=torch.Generator().manual_seed(1))
    logits, targets = logits_at(model, windows, columns, batch_size=2)
    with torch.no_grad():
        whole = per_token_loss(model.final_residual(windows[:, :-1]), model.W_U, windows[:, 1:])
    assert torch.allclose(scaled_losses(logits, targets, 1.0), whole.gather(1, columns), atol=1e-5)

"""Heads shuffled between layers: every head is there once, whole, and the model it came from is as it was."""

import pytest
import torch
from test_pretrained import build

from induction_cli.config import ModelConfig
from induction_cli.models.heads import FAMILIES
from induction_cli.models.pretrained import open_pretrained
from induction_cli.models.transformer import Transformer

pytestmark = pytest.mark.slow


def heads_of(model) -> torch.Tensor:
    """Every head's weights as one row, [layer * head, ...]."""
    rows = []
    for layer in range(model.n_layers):
        w = model.head_weights(layer, fold_norm=False)
        parts = [w.W_Q, w.W_K, w.W_V, w.W_O, w.b_Q, w.b_K, w.b_V]
        rows.append(torch.cat([part.flatten(1) for part in parts], 1))
    return torch.cat(rows)


def places(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Where each head of `after` was before."""
    same = (before[None] - after[:, None]).abs().amax(-1) < 1e-6
    assert (same.sum(1) >= 1).all(), "a head that was not there"
    return same.int().argmax(1).tolist()


def test_our_heads_move_whole_with_their_smear_and_bias():
    model = Transformer(ModelConfig(3, 5, 15, 3, 0, 17, 23, positions="relative", smeared_keys=True), seed=1)
    with torch.no_grad():
        for i, block in enumerate(model.blocks):
            block.attention.smear_alpha.copy_(torch.arange(5.0) + 5 * i)
            block.attention.distance_bias.copy_((torch.arange(5.0) + 5 * i)[:, None].expand(5, 17))
            block.attention.W_O.normal_()
    before = heads_of(model).clone()
    made = model.shuffled(seed=0)
    order = places(before, heads_of(made))
    assert sorted(order) == list(range(15)) and order != list(range(15))
    assert torch.cat([block.attention.smear_alpha for block in made.blocks]).tolist() == order
    assert torch.cat([block.attention.distance_bias[:, 0] for block in made.blocks]).tolist() == order
    assert torch.equal(heads_of(model), before)
    assert torch.equal(heads_of(model.shuffled(seed=0)), heads_of(made))
    assert not torch.equal(heads_of(model.shuffled(seed=1)), heads_of(made))


@pytest.mark.parametrize("kind", FAMILIES)
def test_heads_of_every_family_move_whole(kind, tmp_path):
    model = open_pretrained(str(build(kind, tmp_path / kind)))
    before = heads_of(model).clone()
    made = model.shuffled(seed=0)
    order = places(before, heads_of(made))
    assert sorted(order) == list(range(len(before))) and order != list(range(len(before)))
    assert torch.equal(heads_of(model), before)
    tokens = torch.arange(7)[None]
    assert not torch.allclose(made(tokens), model(tokens), atol=1e-3)

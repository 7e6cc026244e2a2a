"""The same weights in TransformerLens 3.9.0 give the same patterns, losses and scores. Runs where it is installed."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformer_lens", reason="parity needs transformer-lens==3.9.0, in an environment of its own")
sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from ablate import to_transformer_lens

from induction_cli.config import InitConfig, ModelConfig
from induction_cli.evaluation.scores import held_out_losses, pattern_scores, repeated_tokens
from induction_cli.measures import attention
from induction_cli.models.transformer import Transformer


@pytest.fixture(scope="module")
def pair():
    init = InitConfig(output_gain=1.0, unembedding_std=0.3, attention_gain=2.0)
    ours = Transformer(ModelConfig(3, 5, 65, 13, 0, 101, 211, init=init), seed=1)
    return ours, to_transformer_lens(ours)


def test_patterns_losses_and_scores_agree(pair):
    ours, theirs = pair
    tokens = repeated_tokens(torch.ones(211, dtype=torch.long), 4)
    _, kept = ours(tokens, record=("pattern",))
    with torch.no_grad():
        logits, cache = theirs.run_with_cache(tokens)
        losses = theirs(tokens, return_type="loss", loss_per_token=True)
    assert torch.allclose(ours(tokens), logits, atol=1e-4)
    assert torch.allclose(held_out_losses(ours, tokens), losses, atol=1e-4)
    for layer, pattern in enumerate(kept.pattern):
        assert torch.allclose(pattern, cache["pattern", layer], atol=1e-4)
    scores = pattern_scores(ours, tokens, {"prefix_matching": attention.prefix_matching})["prefix_matching"]
    stripes = torch.stack([attention.prefix_matching(cache["pattern", layer]) for layer in range(3)], 1)
    assert torch.allclose(scores, stripes, atol=1e-4)

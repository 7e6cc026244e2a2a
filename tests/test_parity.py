"""A model exported to TransformerLens 3.9.0 has the same patterns, losses and scores there."""

import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from induction_cli.config import InitConfig, ModelConfig, TrainConfig
from induction_cli.evaluation.scores import held_out_losses, pattern_scores, repeated_tokens
from induction_cli.export import export
from induction_cli.measures import attention
from induction_cli.models.transformer import Transformer
from induction_cli.runs.run_dir import RunDir

pytestmark = pytest.mark.slow

N_LAYERS = 3
THEIRS = f"""
import json, torch
from safetensors.torch import load_file, save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig
model = HookedTransformer(HookedTransformerConfig(**json.load(open("config.json")))).eval()
model.load_state_dict(load_file("model.safetensors"), strict=False)
tokens = load_file("tokens.safetensors")["tokens"]
with torch.no_grad():
    logits, cache = model.run_with_cache(tokens)
    losses = model(tokens, return_type="loss", loss_per_token=True)
patterns = torch.stack([cache["pattern", layer] for layer in range({N_LAYERS})])
save_file(dict(logits=logits, losses=losses, patterns=patterns), "theirs.safetensors")
"""


@pytest.fixture(scope="module")
def ours() -> Transformer:
    init = InitConfig(output_gain=1.0, unembedding_std=0.3, attention_gain=2.0)
    return Transformer(ModelConfig(N_LAYERS, 5, 65, 13, 0, 101, 211, init=init), seed=1)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return repeated_tokens(torch.ones(211, dtype=torch.long), 4)


@pytest.fixture(scope="module")
def theirs(ours, tokens, tmp_path_factory, transformer_lens_python) -> dict[str, torch.Tensor]:
    """What TransformerLens computes: logits and losses [batch, pos, ...], patterns [layer, batch, head, query, key]."""
    folder = tmp_path_factory.mktemp("parity")
    run = RunDir(folder / "run")
    run.write_config(TrainConfig(model=ours.config))
    run.write_snapshot(ours.state_dict(), 0, 0)
    out = export(run, run.snapshots()[-1], "transformer-lens", folder / "exported")
    save_file({"tokens": tokens}, out / "tokens.safetensors")
    done = subprocess.run([transformer_lens_python, "-c", THEIRS], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(out / "theirs.safetensors")


def test_logits_and_losses_agree(ours, tokens, theirs):
    assert torch.allclose(ours(tokens), theirs["logits"], atol=1e-4)
    assert torch.allclose(held_out_losses(ours, tokens), theirs["losses"], atol=1e-4)


def test_patterns_agree(ours, tokens, theirs):
    _, kept = ours(tokens, record=("pattern",))
    assert torch.allclose(torch.stack(list(kept.pattern)), theirs["patterns"], atol=1e-4)


def test_scores_agree(ours, tokens, theirs):
    scores = pattern_scores(ours, tokens, {"prefix_matching": attention.prefix_matching})["prefix_matching"]
    stripes = torch.stack([attention.prefix_matching(pattern) for pattern in theirs["patterns"]], 1)
    assert torch.allclose(scores, stripes, atol=1e-4)

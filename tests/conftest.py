"""Small models of prime sizes: an axis that is mixed up does not fit. And the tools that tests need beside .venv."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from induction_cli.config import InitConfig, ModelConfig
from induction_cli.models.transformer import Transformer

ROOT = Path(__file__).parents[1]
BATCH, N_POS, N_HEADS, D_HEAD, D_VOCAB = 2, 7, 3, 4, 11  # d_head is even for rotary positions


def small_config(**changes) -> ModelConfig:
    sizes = {"n_layers": 2, "n_heads": N_HEADS, "d_head": D_HEAD, "d_model": 13, "n_ctx": N_POS, "d_vocab": D_VOCAB}
    return ModelConfig(**{**sizes, "init": InitConfig(output_gain=1.0, unembedding_std=0.5), **changes})


KINDS = {
    "attention_only": {},
    "mlp": {"d_mlp": 17},
    "smeared": {"smeared_keys": True, "smear_init": 0.7},
    "learned": {"positions": "learned"},
    "rotary": {"positions": "rotary"},
    "relative": {"positions": "relative"},
    "no_positions": {"positions": "none"},
    "smeared_rotary_mlp": {"smeared_keys": True, "smear_init": -0.4, "positions": "rotary", "d_mlp": 5},
}


@pytest.fixture(params=KINDS)
def model(request) -> Transformer:
    """One of each kind of model, with every parameter away from its initial value."""
    made = Transformer(small_config(**KINDS[request.param]), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(D_VOCAB, (BATCH, N_POS), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def transformer_lens_python() -> str:
    """The Python that has TransformerLens and transformers: `make` gives it an environment of its own."""
    found = os.environ.get("INDUCTION_TRANSFORMER_LENS") or ROOT / ".venv-transformer-lens" / "bin" / "python"
    if not Path(found).exists():
        pytest.fail(
            f"no TransformerLens at {found}; `make test` installs it, INDUCTION_TRANSFORMER_LENS=PYTHON names one",
            pytrace=False,
        )
    return str(found)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = [path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path]
    if not found:
        pytest.fail("no Chromium on the PATH; `make test` installs it", pytrace=False)
    return found[0]

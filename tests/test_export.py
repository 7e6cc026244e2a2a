"""Export: what is written, what is refused, and that the other tools compute the same logits."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import D_VOCAB, N_POS, small_config
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from induction_cli.config import ConfigError, ModelConfig, TrainConfig
from induction_cli.data import START
from induction_cli.export import export
from induction_cli.models.transformer import Transformer
from induction_cli.runs.run_dir import RunDir

EVERYWHERE = {"d_model": 12}  # n_heads * d_head, as GPT-2 and GPT-NeoX want it
LENS = {
    "shortformer": {},
    "shortformer_mlp": {"d_mlp": 17},
    "learned": {"positions": "learned"},
    "rotary_mlp": {"positions": "rotary", "d_mlp": 17},
    "no_positions": {"positions": "none"},
    "one_layer": {"n_layers": 1},
}
FACE = {
    "learned": {"positions": "learned", **EVERYWHERE},
    "learned_mlp": {"positions": "learned", "d_mlp": 17, **EVERYWHERE},
    "no_positions": {"positions": "none", **EVERYWHERE},
    "rotary": {"positions": "rotary", **EVERYWHERE},
    "rotary_mlp": {"positions": "rotary", "d_mlp": 17, **EVERYWHERE},
}


def run_of(folder: Path, config: ModelConfig) -> tuple[RunDir, Transformer]:
    """A run with one snapshot, every parameter away from its initial value."""
    model = Transformer(config, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    run = RunDir(folder)
    run.write_config(TrainConfig(model=config))
    run.write_snapshot(model.state_dict(), 7, 1001)
    run.write_tokenizer(Tokenizer(models.WordLevel({START: 0, "import": 1}, unk_token=START)).to_str())
    return run, model


CASES = [("transformer-lens", name) for name in LENS] + [("huggingface", name) for name in FACE]


@pytest.mark.parametrize(("to", "name"), CASES, ids=lambda value: value)
def test_files_and_provenance(tmp_path, to, name):
    run, model = run_of(tmp_path / "run", small_config(**(LENS if to == "transformer-lens" else FACE)[name]))
    out = export(run, run.snapshots()[-1], to, tmp_path / "out")
    names = {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    names |= {"tokenizer_config.json"} if to == "huggingface" else set()
    assert {path.name for path in out.iterdir()} == names
    state = load_file(out / "model.safetensors")
    embedding = {"transformer-lens": "embed.W_E", "huggingface": "wte|embed_in"}[to]
    (found,) = [tensor for key, tensor in state.items() if re.search(embedding, key)]
    assert torch.equal(found, model.W_E)
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in state.values())
    assert json.loads((out / "config.json").read_text())["n_layers" if to == "transformer-lens" else "vocab_size"]
    text = (out / "README.md").read_text()
    assert "step 7 (1,001 tokens)" in text
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippet.splitlines()) == 5
    compile(snippet, "README.md", "exec")


@pytest.mark.parametrize(
    ("to", "changes", "reason"),
    [
        ("transformer-lens", {"smeared_keys": True}, "no smeared keys"),
        ("transformer-lens", {"positions": "relative"}, "no learned bias per distance"),
        ("huggingface", {}, "queries and keys but not values"),
        ("huggingface", {"smeared_keys": True, "positions": "learned", **EVERYWHERE}, "smeared keys"),
        ("huggingface", {"positions": "relative", **EVERYWHERE}, "bias per distance"),
        ("huggingface", {"positions": "rotary"}, "d_model / n_heads"),
        ("onnx", {}, "there are transformer-lens, huggingface"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_line(tmp_path, to, changes, reason):
    run, _ = run_of(tmp_path / "run", small_config(**changes))
    with pytest.raises(ConfigError, match=reason) as refused:
        export(run, run.snapshots()[-1], to, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_logits_are_equal_in_the_other_tools(tmp_path, transformer_lens_python):
    """Every case in one process: the README's own lines load the model."""
    tokens = torch.randint(D_VOCAB, (2, N_POS), generator=torch.Generator().manual_seed(1))
    script = ["import os, torch", "from safetensors.torch import load_file"]
    for to, name in CASES:
        run, model = run_of(tmp_path / to / name, small_config(**(LENS if to == "transformer-lens" else FACE)[name]))
        out = export(run, run.snapshots()[-1], to, tmp_path / to / name / "out")
        save_file({"tokens": tokens, "logits": model(tokens).detach()}, out / "ours.safetensors")
        (snippet,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
        script += [f"os.chdir({str(out)!r})", snippet, "ours = load_file('ours.safetensors')"]
        script += ["with torch.no_grad():", "    theirs = model(ours['tokens'])"]
        script += ["difference = (getattr(theirs, 'logits', theirs) - ours['logits']).abs().max().item()"]
        script += [f"print({to!r}, {name!r}, 'differs by', difference, flush=True)", "assert difference < 1e-4"]
    done = subprocess.run(
        [transformer_lens_python, "-c", "\n".join(script)], capture_output=True, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("differs by") == len(CASES)

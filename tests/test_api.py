"""`import induction_cli as induction`: lazily, typed, and the same as the commands."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_report import small_run

import induction_cli as induction
from induction_cli.api import typed
from induction_cli.config import ConfigError
from induction_cli.launch import compose
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow

QUICK = dict(n_examples=8, n_sequences=2, threads=1, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("api"), n_layers=2)


def test_importing_brings_nothing_heavy():
    heavy = "{'torch', 'pandas', 'hydra', 'numpy'} & set(sys.modules)"
    code = f"import sys, induction_cli; print({heavy} or 'nothing', 'score' in dir(induction_cli))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "nothing True\n"


def test_what_is_offered_is_there():
    assert all(getattr(induction, name).__doc__ for name in induction.__all__)
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        _ = induction.scores
    assert (Path(induction.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("first", ["import induction_cli.verdicts", "import induction_cli.evidence.report", ""])
def test_verdicts_is_a_function_though_a_package_has_its_name(first):
    code = f"{first}\nimport induction_cli as induction\nprint(induction.verdicts().verdict.unique().tolist())"
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said == "['not tested']\n"


def test_an_open_model(run):
    opened = induction.open_model(run)
    tokens = opened.repeats(2, length=5)
    patterns = opened.patterns(tokens)
    assert tokens.shape == (2, 11) and patterns.shape == (2, 2, 3, 11, 11) and opened.step > 0
    assert torch.allclose(patterns.sum(-1), torch.ones(2, 2, 3, 11))
    logits = opened.model(tokens[:, :-1])
    expected = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
    torch.testing.assert_close(opened.losses(tokens), expected, atol=1e-5, rtol=1e-5)
    assert induction.open_model(run, snapshot=0).step == 0
    with pytest.raises(ConfigError, match="no snapshot '7'"):
        induction.open_model(run, snapshot=7)
    with pytest.raises(RunError, match="no run directory"):
        induction.open_model(run / "missing")


def test_scores_are_those_of_the_command(run, tmp_path):
    kept = induction.score(run, tmp_path / "kept", **QUICK)
    there = RunDir(run / "score").table("head_scores")
    pd.testing.assert_frame_equal(kept.tables["head_scores"], there)
    assert kept.folder == tmp_path / "kept" and (kept.folder / "plots").is_dir()
    gone = induction.score(run, **QUICK)
    assert gone.folder is None and gone.headline == kept.headline and set(gone.tables) == set(kept.tables)


def test_train_ablate_circuits(tmp_path):
    small = dict(n_layers=2, n_heads=3, d_model=12, d_head=4, n_ctx=80, d_vocab=97)
    measured = dict(n_examples=8, early_index=8, late_index=75, half_width=2, n_sequences=2)
    trained = induction.train(
        tmp_path / "run",
        model=small,
        data=dict(source="repeats", repeat_tokens=100_000, cache_dir=str(tmp_path)),
        snapshots=dict(linear=2),
        evaluation=measured,
        tokens=4_000,
        device="cpu",
        threads=1,
    )
    assert trained.folder == tmp_path / "run" and "in_context_learning" in trained.tables
    removed = induction.ablate(tmp_path / "run", recipe="smoke", snapshot="last", threads=1, device="cpu")
    assert removed.folder is None and len(removed.tables["ablation"]) > 0
    found = induction.circuits(tmp_path / "run", recipe="smoke", threads=1, device="cpu")
    assert {"composition", "ov_eigenvalues"} & set(found.tables)
    said = induction.verdicts(tmp_path / "run")
    assert {"id", "claim", "model_class", "n", "estimate", "low", "high", "rule", "verdict"} <= set(said.columns)
    assert said.id[said.headline].is_unique


def test_settings_are_checked_as_on_the_command_line(run):
    with pytest.raises(ConfigError, match="n_exampels"):
        induction.score(run, n_exampels=3)
    with pytest.raises(ConfigError, match="no recipe 'absent'"):
        induction.score(run, recipe="absent")


def test_settings_are_typed_as_one_would():
    asked = {"model": {"n_layers": 1}, "data": {"paths": ["a, b", "it's"]}, "compile": False, "tokens": 3}
    assert typed(asked) == ["model.n_layers=1", "data.paths=['a, b','it\\'s']", "compile=false", "tokens=3"]
    (config,) = compose("train", [[*typed(asked), "data.source=files"]])
    assert config.data.paths == ["a, b", "it's"] and config.model.n_layers == 1

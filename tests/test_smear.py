"""Line 2: the two arms of a pair differ in their keys and in nothing else, and a comparison can be stopped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hand_made import write_table

from induction_cli import training
from induction_cli.config import (
    ConfigError,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
    SmearConfig,
    SmearModelConfig,
    SnapshotConfig,
)
from induction_cli.data import Batches
from induction_cli.evidence import smear
from induction_cli.models.transformer import Transformer
from induction_cli.runs.run_dir import RunDir

pytestmark = pytest.mark.slow

ALPHA = "smear_alpha"


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "write_plot", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> SmearConfig:
    return SmearConfig(
        model=SmearModelConfig(n_layers=[1], n_heads=2, d_head=8, d_model=16, n_ctx=64, d_vocab=61, smear_init=0.7),
        data=DataConfig("repeats", repeat_tokens=60_000, cache_dir=str(tmp_path_factory.mktemp("cache"))),
        snapshots=SnapshotConfig(linear=2),
        evaluation=EvaluationConfig(16, 8, early_index=8, late_index=60, half_width=2, n_sequences=2),
        tokens=2_560,
        smeared_tokens=1_280,
        batch_size=4,
        seeds=[0, 3],
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="module")
def compared(config, tmp_path_factory) -> Path:
    """A whole comparison: one layer, two seeds. Nobody writes into it."""
    path = tmp_path_factory.mktemp("smear") / "pairs"
    smear.run(config, path)
    return path


ARMS = [f"layers_1_seed_{seed}_{kind}" for seed in (0, 3) for kind in ("vanilla", "smeared")]


# ------------------------------------------------------------------------------------------------ pairs


def test_arms_differ_in_keys_and_length_only(config):
    vanilla, smeared = (smear.arm(config, 2, 7, keys) for keys in (False, True))
    assert (vanilla.model.n_layers, vanilla.seed, vanilla.tokens) == (2, 7, 2_560)
    assert not vanilla.model.smeared_keys and smeared.model.smeared_keys
    assert smeared.tokens == 1_280
    assert replace(smeared, tokens=2_560, model=replace(smeared.model, smeared_keys=False)) == vanilla
    assert smear.arm(replace(config, smeared_tokens=0), 2, 7, True).tokens == 2_560


def test_pairs_start_from_equal_weights_but_for_alpha(config, compared):
    for seed in config.seeds:
        vanilla, smeared = (RunDir(compared / f"layers_1_seed_{seed}_{kind}") for kind in ("vanilla", "smeared"))
        one, other = (run.read_snapshot(run.snapshots()[0]) for run in (vanilla, smeared))
        assert set(other) - set(one) == {f"blocks.0.attention.{ALPHA}"} and not set(one) - set(other)
        assert all(torch.equal(weight, other[name]) for name, weight in one.items())
        assert other[f"blocks.0.attention.{ALPHA}"].tolist() == pytest.approx([0.7, 0.7])
    models = [Transformer(smear.arm(config, 1, seed, False).model, seed) for seed in config.seeds]
    assert not torch.equal(models[0].W_E, models[1].W_E)


def test_pairs_see_equal_data_in_equal_order(config, monkeypatch, tmp_path):
    """Every batch that training asks for, by arm."""
    seen: list[torch.Tensor] = []
    batch = Batches.__call__

    def noted(self: Batches, step: int) -> torch.Tensor:
        seen.append(batch(self, step))
        return seen[-1]

    monkeypatch.setattr(Batches, "__call__", noted)
    smear.train_arms(replace(config, smeared_tokens=0, tokens=768), tmp_path)
    assert len(seen) == 2 * 2 * 3  # seeds, arms, steps
    first, second = seen[:6], seen[6:]
    for pair in (first, second):
        assert all(torch.equal(a, b) for a, b in zip(pair[:3], pair[3:], strict=True))
    assert not torch.equal(first[0], second[0])


# ------------------------------------------------------------------------------------------------ tables


def test_tables_of_a_comparison(compared):
    room = RunDir(compared)
    onsets = room.table("onsets")
    assert onsets.run.tolist() == ARMS
    assert onsets["keys"].tolist() == ["vanilla", "smeared"] * 2 and onsets.seed.tolist() == [0, 0, 3, 3]
    assert not onsets.phase_change.any()  # nothing can form in ten steps
    shifts = room.table("shifts")
    assert shifts[["n_layers", "seed"]].to_numpy().tolist() == [[1, 0], [1, 3]]
    assert set(room.table("in_context_learning").run) == set(ARMS)
    weights = room.table("smear_weights")
    assert set(weights.run) == {name for name in ARMS if name.endswith("smeared")}
    assert len(weights) == 2 * 3 * 2  # seeds, snapshots, heads
    first = weights[weights.step == 0]
    assert first.weight.tolist() == pytest.approx([1 / (1 + np.exp(-0.7))] * 4)
    assert weights.prefix_matching.between(0, 1).all()
    last = RunDir(compared / ARMS[1]).read_snapshot(RunDir(compared / ARMS[1]).snapshots()[-1])
    found = weights[(weights.run == ARMS[1]) & (weights.step == weights.step.max())].weight
    assert found.tolist() == pytest.approx(last[f"blocks.0.attention.{ALPHA}"].sigmoid().tolist())


def made(path: Path, config: SmearConfig, smeared: bool, half: float, noise: float = 0.0) -> RunDir:
    """The tables of a run whose score falls by 1 nat in a straight line around `half` tokens."""
    run = RunDir(path)
    run.write_config(smear.arm(config, 2, 0, smeared))
    tokens = np.arange(0, 2001, 50)
    curve = -np.clip((tokens - half + 100) / 200, 0, 1)
    chains = [-noise, 0, noise] * 3
    rows = [
        {"step": t, "tokens": t, "chain": i, "in_context_learning_score": s * (1 + shift)}
        for t, s in zip(tokens, curve, strict=True)
        for i, shift in enumerate(chains)
    ]
    write_table(run, "by_chain", pd.DataFrame(rows))
    write_table(run, "phase_change", pd.DataFrame({"start_tokens": [half - 100]}))
    return run


def test_onset_ratio_by_hand(config, tmp_path):
    """Half of the final fall at 1000 and 600 tokens: 0.6, and no more uncertain than the chains."""
    runs = [
        made(tmp_path / "a", config, False, 1000),
        made(tmp_path / "b", config, True, 600),
    ]
    table, shifts = smear.onset_rows(runs, tmp_path)
    assert table.onset_tokens.tolist() == pytest.approx([1000, 600])
    assert table.path.tolist() == ["a", "b"]
    row = shifts.iloc[0]
    assert [row.ratio, row.low, row.high] == pytest.approx([0.6] * 3)
    assert smear.onset_rows(runs[1:], tmp_path)[1].empty  # no pair, no ratio


def test_intervals_of_pairs_are_paired(config, tmp_path):
    """One chain falls late, so both onsets are uncertain; the other arm does all in half the tokens, so 0.5 is not."""
    vanilla, smeared = made(tmp_path / "a", config, False, 600), made(tmp_path / "b", config, True, 600)
    table = vanilla.table("by_chain")
    late = table.chain >= 6
    table.loc[late, "in_context_learning_score"] = -np.clip(table.tokens[late] / 1800, 0, 1)
    write_table(vanilla, "by_chain", table)
    write_table(smeared, "by_chain", table.assign(tokens=table.tokens / 2))
    onsets, shifts = smear.onset_rows([vanilla, smeared], tmp_path)
    assert (onsets.high - onsets.low > 30).all()  # of nine chains
    assert shifts[["ratio", "low", "high"]].iloc[0].tolist() == pytest.approx([0.5] * 3)


# ------------------------------------------------------------------------------------------------ going on


def no_training(*_):
    raise AssertionError("trained again")


def test_second_call_trains_nothing_again(config, compared, monkeypatch):
    before = {path: path.read_bytes() for path in compared.rglob("*") if path.is_file()}
    monkeypatch.setattr(training, "train", no_training)
    smear.run(config, compared)
    assert {path: path.read_bytes() for path in compared.rglob("*") if path.is_file()} == before


def test_interrupted_comparison_goes_on(config, compared, tmp_path, monkeypatch):
    """Stopped within the third arm: the two before it stay, the rest is trained, the tables are the same in the end."""
    train, train_step, begun, steps = training.train, training.train_step, [], []

    def noted(arm, run, resume):
        begun.append(run.name)
        return train(arm, run, resume)

    def stops(*arguments):
        steps.append(begun[-1])
        if steps.count(ARMS[2]) == 7 and len(begun) == 3:
            raise training.Interrupted(2)
        return train_step(*arguments)

    monkeypatch.setattr(training, "train", noted)
    monkeypatch.setattr(training, "train_step", stops)
    with pytest.raises(training.Interrupted):
        smear.run(config, tmp_path)
    assert not (tmp_path / "tables").exists()
    smear.run(config, tmp_path)
    assert begun == [*ARMS[:3], *ARMS[2:]]
    for table in ("onsets", "shifts", "smear_weights", "in_context_learning"):
        pd.testing.assert_frame_equal(RunDir(tmp_path).table(table), RunDir(compared).table(table))


def test_folder_with_other_settings_is_refused(config, compared):
    slower = replace(config, optimizer=OptimizerConfig(learning_rate=1e-4))
    with pytest.raises(ConfigError, match=r"trained with other settings: optimizer.learning_rate \(0.0001 and 0.003\)"):
        smear.run(slower, compared)
    with pytest.raises(ConfigError, match=r"other settings: tokens \(5120 and 2560\)"):
        smear.run(replace(config, tokens=5120), compared)


# ------------------------------------------------------------------------------------------------ given vanilla runs


def test_existing_vanilla_run_is_used(config, compared, tmp_path):
    """Its folder stays as it is; only the smeared arm is trained."""
    vanilla = shutil.copytree(compared / ARMS[0], tmp_path / "vanilla")
    before = {path: path.stat().st_mtime_ns for path in vanilla.rglob("*")}
    out = tmp_path / "out"
    smear.run(replace(config, seeds=[0], vanilla=str(vanilla)), out)
    assert sorted(path.name for path in out.iterdir() if path.name.startswith("layers")) == [ARMS[1]]
    assert {path: path.stat().st_mtime_ns for path in vanilla.rglob("*")} == before
    onsets = RunDir(out).table("onsets")
    assert onsets.run.tolist() == ["vanilla", ARMS[1]] and onsets.path.tolist() == ["../vanilla", ARMS[1]]


def test_twins_are_found_beside_smeared_runs(config, compared):
    """The folder of an earlier comparison holds both kinds; the smeared twin differs in nothing that counts."""
    given = RunDir.find(compared)
    for seed in (0, 3):
        assert smear.find_vanilla(given, smear.arm(config, 1, seed, False)).name == f"layers_1_seed_{seed}_vanilla"


def test_twin_that_differs_is_refused_by_the_setting(config, compared):
    slower = replace(config, optimizer=OptimizerConfig(learning_rate=1e-4), vanilla=str(compared))
    name = "vanilla: no twin for 1 layers, seed 0; 'layers_1_seed_0_vanilla' differs in optimizer.learning_rate"
    with pytest.raises(ConfigError, match=name):
        smear.run(slower, compared.parent / "never")
    with pytest.raises(ConfigError, match=r"differs in seed \(5 and 0\)"):
        smear.run(replace(config, seeds=[5], vanilla=str(compared)), compared.parent / "never")
    with pytest.raises(ConfigError, match=r"differs in model.n_layers \(2 and 1\)"):
        deeper = replace(config, model=replace(config.model, n_layers=[2]), seeds=[0], vanilla=str(compared))
        smear.run(deeper, compared.parent / "never")
    assert not (compared.parent / "never").exists()


def test_smeared_or_unfinished_twin_is_refused(config, compared, tmp_path):
    with pytest.raises(ConfigError, match="has smeared keys itself"):
        smear.run(replace(config, seeds=[0], vanilla=str(compared / ARMS[1])), tmp_path / "never")
    half = RunDir(shutil.copytree(compared / ARMS[0], tmp_path / "half"))
    half.write_meta(status="interrupted")
    with pytest.raises(ConfigError, match="vanilla: 'half' is interrupted, not done"):
        smear.run(replace(config, seeds=[0], vanilla=str(half.path)), tmp_path / "never")


def test_length_snapshots_and_machine_are_free_to_differ(config):
    one = smear.arm(config, 1, 0, False)
    other = replace(one, tokens=1, threads=3, device="cuda", snapshots=SnapshotConfig(linear=9))
    assert smear.differences(one, other) == []
    assert smear.differences(one, replace(one, batch_size=5)) == ["batch_size (4 and 5)"]


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": [0, 1]}, "model.n_layers has 0; it must be at least 1"),
        ({"n_layers": []}, "model.n_layers is empty"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 1]}, "seeds has one twice"),
        ({"smeared_tokens": -1}, "smeared_tokens is -1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(config, tmp_path, changes, message):
    depths = changes.pop("n_layers", [1])
    wrong = replace(config, model=replace(config.model, n_layers=depths), **changes)
    with pytest.raises(ConfigError, match=message):
        smear.run(wrong, tmp_path / "never")
    assert not (tmp_path / "never").exists()

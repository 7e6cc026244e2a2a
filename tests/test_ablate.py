"""The ablate room: every head of every snapshot, in parts that can be stopped, shared and gone on with."""

import hashlib
from dataclasses import replace

import pandas as pd
import pytest
import torch

from induction_cli import training
from induction_cli.config import (
    AblateConfig,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    SnapshotConfig,
    TrainConfig,
)
from induction_cli.data import open_corpus
from induction_cli.evaluation.scores import load_snapshot, open_held_out
from induction_cli.evidence import ablate
from induction_cli.models import ablation, transformer
from induction_cli.models.protocol import Question
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    folder = tmp_path_factory.mktemp("runs")
    config = TrainConfig(
        model=ModelConfig(2, 3, 15, 5, 0, 64, 61),
        data=DataConfig("repeats", repeat_tokens=60_000, cache_dir=str(folder / "cache")),
        snapshots=SnapshotConfig(linear=2),
        evaluation=EvaluationConfig(16, 8, early_index=8, late_index=60, half_width=2, n_sequences=2),
        tokens=5_000,
        batch_size=4,
        threads=1,
        device="cpu",
    )
    training.run(config, folder / "sweep" / "run")
    return RunDir(folder / "sweep" / "run")


@pytest.fixture
def config(run) -> AblateConfig:
    return AblateConfig(str(run.path), n_examples=16, batch_size=8, random_tokens=3, draws=4, threads=1, device="cpu")


def contents(folder) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_head_of_every_snapshot_and_kind(run, config):
    ablate.run(replace(config, kinds=["pattern_preserving", "full", "mean"]), run.path / "ablate")
    table = run.folder("ablate").table("ablation")
    assert len(table) == 3 * 3 * 6  # kinds, snapshots, heads
    assert not table.in_context_learning_change.isna().any()
    assert table[["low", "high", "loss_low", "loss_high"]].isna().all(axis=None)  # too few chains for an interval


def test_intervals_are_over_chains_of_examples(run, config, capsys):
    ablate.run(replace(config, n_examples=64, kinds=["pattern_preserving"]), run.path / "ablate")
    table = run.folder("ablate").table("ablation")
    assert (table.low <= table.in_context_learning_change).all()
    assert (table.high >= table.in_context_learning_change).all()


def test_two_chains_print_no_interval(run, config, capsys):
    ablate.run(replace(config, n_examples=16, heads=[[1, 0]], snapshot="last"), run.path / "ablate")
    assert "nats (too few chains for an interval)" in " ".join(capsys.readouterr().out.split())
    ablate.run(replace(config, n_examples=64, heads=[[1, 0]], snapshot="last"), run.path / "ablate")
    assert "] over chains" in " ".join(capsys.readouterr().out.split())


def test_parts_are_gone_when_all_is_done(run, config):
    ablate.run(replace(config, snapshot="last"), run.path / "ablate")
    assert not (run.path / "ablate" / "parts").exists()


def test_changes_are_those_of_the_plain_path(run, config):
    ablate.run(replace(config, snapshot="last"), run.path / "ablate")
    table = run.folder("ablate").table("ablation").set_index(["layer", "head"])
    trained = run.config()
    evaluation = replace(trained.evaluation, n_examples=16, seed=0)
    held_out = open_held_out(open_corpus(trained.data, 61), 64, evaluation)
    losses = ablation.plain(load_snapshot(run, run.snapshots()[-1]), Question(held_out.windows))

    def score(values: torch.Tensor) -> torch.Tensor:
        return (values[..., 57:62].mean(-1) - values[..., 5:10].mean(-1)).mean(-1)

    for i, (layer, head) in enumerate((layer, head) for layer in range(2) for head in range(3)):
        expected = (score(losses.ablated[i]) - score(losses.clean)).item()
        assert table.in_context_learning_change[layer, head] == pytest.approx(expected, abs=1e-5)


def test_nothing_outside_its_room_is_touched_and_again_replaces(run, config):
    outside = {p: h for p, h in contents(run.path).items() if "/ablate/" not in p and not p.endswith(".lock")}
    ablate.run(config, run.path / "ablate")
    first = contents(run.path / "ablate")
    ablate.run(config, run.path / "ablate")
    assert contents(run.path / "ablate") == first
    assert {p: h for p, h in contents(run.path).items() if "/ablate/" not in p and not p.endswith(".lock")} == outside


def test_a_stopped_sweep_goes_on_where_it_was(run, config, monkeypatch):
    ablate.run(config, run.path / "ablate")
    whole = run.folder("ablate").table("ablation")
    fast, calls = transformer.fast, 0

    def stopping(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return fast(*arguments, **options)

    monkeypatch.setattr(transformer, "fast", stopping)
    with pytest.raises(KeyboardInterrupt):
        ablate.run(config, run.path / "ablate")
    assert len(list((run.path / "ablate" / "parts").rglob("*.safetensors"))) == 3
    ablate.run(config, run.path / "ablate")
    assert calls == 4 + 3  # six items: three were there, three were left
    pd.testing.assert_frame_equal(run.folder("ablate").table("ablation"), whole)


def test_shards_share_the_work(run, config):
    ablate.run(config, run.path / "ablate")
    whole = run.folder("ablate").table("ablation")
    run.folder("ablate").table_file("ablation").unlink()
    ablate.run(replace(config, shards=2, shard=1), run.path / "ablate")
    assert not run.folder("ablate").table_file("ablation").exists()  # the other half is missing
    ablate.run(replace(config, shards=2, shard=0), run.path / "ablate")
    pd.testing.assert_frame_equal(run.folder("ablate").table("ablation"), whole)


def test_a_set_of_heads_is_removed_together(run, config):
    ablate.run(replace(config, heads=[[0, 1], [1, 2]], snapshot="last"), run.path / "ablate")
    assert len(run.folder("ablate").table("ablation")) == 1


def test_joint_sets():
    types = pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1]})
    types["head_type"] = ["previous_token", "other", "induction", "other"]
    sets = ablate.joint_sets(types, draws=100, seed=0)
    assert sets["induction"] == [[(1, 0)]] and sets["previous_token"] == [[(0, 0)]]
    assert sorted(sets["random"]) == [[(0, 0)], [(0, 1)], [(1, 1)]]  # all there are
    assert len(ablate.joint_sets(types, draws=2, seed=0)["random"]) == 3  # so few that all are tried
    many = pd.DataFrame({"layer": [0] * 12, "head": range(12), "head_type": ["induction"] * 2 + ["other"] * 10})
    assert len(ablate.joint_sets(many, draws=4, seed=0)["random"]) == 4  # of 45
    assert ablate.joint_sets(types.assign(head_type="other"), 100, 0) == {}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"snapshot": "7"}, ConfigError, r"no snapshot '7'; there are all, last and the steps 0, 10, 20"),
        ({"heads": [[5, 0]]}, ConfigError, r"no head 0 in layer 5; the model has layers 0 to 1, heads 0 to 2"),
        ({"heads": [[1]]}, ConfigError, r"pairs, such as"),
        ({"kinds": ["half"]}, ConfigError, r"kinds has 'half'; there are"),
        ({"shard": 3}, ConfigError, r"shard is 3"),
        ({"run_dir": "/nowhere"}, RunError, r"no run directory"),
    ],
)
def test_bad_input(run, config, changes, error, message):
    with pytest.raises(error, match=message):
        ablate.run(replace(config, **changes), run.path / "ablate")


def test_an_unfinished_run_is_refused(run, config):
    run.write_meta(status="interrupted")
    try:
        with pytest.raises(RunError, match="is interrupted; finish it with induction train --resume"):
            ablate.run(config, run.path / "ablate")
    finally:
        run.write_meta(status="done")


def test_control_of_equal_damage_stands_beside_induction_heads_at_the_last_snapshot(run, config, monkeypatch):
    """Logits scaled until the mean loss of the same random tokens is as much higher."""
    types = pd.DataFrame({"layer": [0, 0, 0, 1, 1, 1], "head": [0, 1, 2] * 2, "head_type": "other"})
    types.loc[5, "head_type"] = "induction"
    monkeypatch.setattr(ablate, "final_head_types", lambda *_: types)
    window = pd.DataFrame({"start_tokens": [0.0], "end_tokens": [5_000.0]})
    monkeypatch.setattr(ablate, "phase_changes", lambda _: window)
    ablate.run(replace(config, kinds=["full"]), run.path / "ablate")
    table = run.folder("ablate").table("ablation")
    judged = (table.step == table.step.max()) & (table.head_type == "induction")
    assert table.before_after_control[~judged].isna().all()
    row = table[judged].iloc[0]
    assert (row.loss_change > 0) == pd.notna(row.before_after_control)

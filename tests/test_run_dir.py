import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import small_config

from induction_cli.config import ConfigError, TrainConfig
from induction_cli.runs import files
from induction_cli.runs.run_dir import RunDir, RunError


@pytest.fixture
def run(tmp_path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.write_config(TrainConfig(model=small_config()))
    made.write_meta(status="done")
    return made


def test_config_comes_back_through_the_schema(run):
    assert run.config() == TrainConfig(model=small_config())
    run.config_file.write_text("seed: 7\n")  # written before there were other keys
    assert run.config() == TrainConfig(seed=7)
    run.config_file.write_text("sead: 7\n")
    with pytest.raises(ConfigError, match="sead"):
        run.config()


def test_snapshots_round_trip_in_order(run):
    weights = {"W_E": torch.randn(3, 5), "W_U": torch.randn(5, 3)}
    for step in (20, 0, 3):
        run.write_snapshot(weights, step, step * 100)
    assert [(s.step, s.tokens) for s in run.snapshots()] == [(0, 0), (3, 300), (20, 2000)]
    assert [s.step for s in run.choose_snapshots("last")] == [20]
    assert [s.step for s in run.choose_snapshots("3")] == [3]
    with pytest.raises(RunError, match="no snapshot '4'; there are all, last and the steps 0, 3, 20"):
        run.choose_snapshots("4")
    loaded = run.read_snapshot(run.snapshots()[0])
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_damaged_snapshot_is_named(run):
    run.write_snapshot({"W_E": torch.zeros(64)}, 5, 0)
    path = run.snapshots()[0].path
    good = path.read_bytes()
    path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    with pytest.raises(RunError, match=r"step_000005.safetensors is damaged: its checksum"):
        run.read_snapshot(run.snapshots()[0])
    path.write_bytes(good[:20])
    with pytest.raises(RunError, match=r"step_000005.safetensors is damaged"):
        run.snapshots()


@pytest.mark.slow
def test_lock_is_held_against_other_processes(run):
    take = f"from induction_cli.runs.run_dir import RunDir\nwith RunDir({str(run.path)!r}).lock(): pass"
    with run.lock():
        other = subprocess.run([sys.executable, "-c", take], capture_output=True, text=True)
    assert other.returncode and "is in use by another process" in other.stderr
    assert subprocess.run([sys.executable, "-c", take]).returncode == 0


def test_full_disk_leaves_what_was_there(run, monkeypatch):
    run.write_table("token_counts", pd.DataFrame({"token": [0], "count": [1]}))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match="the disk is full"):
        run.write_table("token_counts", pd.DataFrame({"token": [0], "count": [2]}))
    assert run.table("token_counts")["count"].tolist() == [1]
    assert [path.name for path in (run.path / "tables").iterdir()] == ["token_counts.csv"]  # no half-written file


def training_rows(step: int) -> pd.DataFrame:
    columns = ["step", "tokens", "loss", "learning_rate", "tokens_per_second"]
    return pd.DataFrame([[step, 64 * step, 0.1 * step, 0.01, 99.0]], columns=columns)


def test_growing_table_forgets_the_future(run):
    table = run.growing_table("training")
    for step in range(5):
        table.append(training_rows(step))
        table.flush()
    before = run.table_file("training").read_bytes()
    again = run.growing_table("training", before_step=3)
    for step in (3, 4):
        again.append(training_rows(step))
    again.flush()
    assert run.table_file("training").read_bytes() == before


def test_finding_runs(run, tmp_path):
    assert [found.path for found in RunDir.find(run.path)] == [run.path]
    RunDir(tmp_path / "another").write_meta(status="failed")
    assert [found.name for found in RunDir.find(tmp_path)] == ["another", "run"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="is not a run directory"):
        RunDir.find(tmp_path / "empty")
    with pytest.raises(RunError, match="there is no run directory"):
        RunDir.find(tmp_path / "nothing")


def test_missing_table_is_named(run):
    with pytest.raises(RunError, match=r"tables/nothing.csv is missing"):
        run.table("nothing")

"""Nothing is lost: a run that was stopped or killed anywhere ends bit for bit like one that was not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from induction_cli import training
from induction_cli.config import (
    ConfigError,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    SnapshotConfig,
    TrainConfig,
)
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    """A few dozen steps on synthetic repeats: seconds, and every part of the loop."""
    return TrainConfig(
        model=ModelConfig(n_layers=1, n_heads=2, d_head=8, d_model=16, n_ctx=64, d_vocab=61),
        data=DataConfig("repeats", repeat_tokens=60_000, cache_dir=str(tmp_path_factory.mktemp("cache"))),
        snapshots=SnapshotConfig(linear=5),
        evaluation=EvaluationConfig(16, 8, early_index=8, late_index=60, half_width=2, n_sequences=2),
        tokens=10_000,
        batch_size=4,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory) -> RunDir:
    path = tmp_path_factory.mktemp("whole") / "run"
    training.run(config, path)
    return RunDir(path)


def assert_same(run: RunDir, other: RunDir) -> None:
    """Weights and tables equal byte for byte, but for the speed that a clock measured."""
    assert run.meta()["status"] == other.meta()["status"] == "done"
    assert [s.path.name for s in run.snapshots()] == [s.path.name for s in other.snapshots()]
    for one, two in zip(run.snapshots(), other.snapshots(), strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
    assert run.resume_file.read_bytes() == other.resume_file.read_bytes()
    for path in sorted((run.path / "tables").iterdir()):
        one, two = (pd.read_csv(p, dtype=str) for p in (path, other.table_file(path.stem)))
        pd.testing.assert_frame_equal(*(t.drop(columns="tokens_per_second", errors="ignore") for t in (one, two)))


def test_contract_of_a_run(config, uninterrupted):
    run = uninterrupted
    assert [s.step for s in run.snapshots()] == [0, 8, 16, 24, 32, 40]
    meta = run.meta()
    assert meta["status"] == "done" and meta["data"]["sha256"] and meta["versions"]["torch"]
    assert meta["headline"] == pytest.approx(
        run.table("in_context_learning").query("kind == 'windowed'").in_context_learning_score.iloc[-1]
    )
    assert len(run.table("training")) == 40
    assert len(run.table("loss_by_index")) == 6 * 64
    assert set(run.table("head_scores").measure) == {"prefix_matching", "previous_token"}
    assert len(run.table("phase_change")) == 0  # nothing can form in 40 steps
    assert run.config() == config
    for plot in ("training", "in_context_learning", "loss_by_index", "loss_derivative", "head_scores"):
        assert (run.path / "plots" / f"{plot}.png").stat().st_size > 1000


def test_two_runs_are_the_same(config, uninterrupted, tmp_path):
    training.run(config, tmp_path / "run")
    assert_same(uninterrupted, RunDir(tmp_path / "run"))


class Killed(BaseException):
    """kill -9, as far as this process can feel it: nothing that follows runs."""


@pytest.mark.parametrize("moment", range(6))
def test_killed_anywhere_and_resumed(config, uninterrupted, tmp_path, monkeypatch, moment):
    """Die before the n-th time a file would move into place: during snapshots, tables, resume state or meta."""
    calls, replace_file, at = 0, os.replace, random.Random(moment).randrange(4, 45)

    def dying(*arguments):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        replace_file(*arguments)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(Killed):
        training.run(config, tmp_path / "run")
    monkeypatch.setattr(os, "replace", replace_file)
    training.run(config, tmp_path / "run", resume=True)
    assert_same(uninterrupted, RunDir(tmp_path / "run"))


SCRIPT = """
import sys; from pathlib import Path; from induction_cli import training; from induction_cli.runs.run_dir import RunDir
import torch; torch.set_num_threads(1)
training.run(RunDir(sys.argv[1]).config(), Path(sys.argv[2]), resume=len(sys.argv) > 3)
"""


def test_kill_9_at_random_instants(config, uninterrupted, tmp_path):
    """A real process, killed three times on its way."""
    path, random_times = tmp_path / "run", random.Random(0)
    for attempt in range(3):
        arguments = [sys.executable, "-c", SCRIPT, str(uninterrupted.path), str(path), *["resume"] * (attempt > 0)]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (path / "meta.json").exists():
            time.sleep(0.01)
        time.sleep(random_times.uniform(0, 0.5))
        process.kill()
        process.wait()
    training.run(config, path, resume=True)
    assert_same(uninterrupted, RunDir(path))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")])
def test_signals_save_and_say_so(config, uninterrupted, tmp_path, monkeypatch, number, name):
    step_once = training.train_step
    steps = 0

    def step_then_signal(*arguments):
        nonlocal steps
        steps += 1
        if steps == 11:
            os.kill(os.getpid(), number)
        return step_once(*arguments)

    monkeypatch.setattr(training, "train_step", step_then_signal)
    with pytest.raises(training.Interrupted) as stopped:
        training.run(config, tmp_path / "run")
    assert stopped.value.signal == number
    run = RunDir(tmp_path / "run")
    assert run.meta()["status"] == "interrupted"
    assert run.read_resume()[1] == 11  # the step was finished
    monkeypatch.undo()
    training.run(config, run.path, resume=True)
    assert_same(uninterrupted, run)


def test_loss_that_is_no_number_stops_the_run(config, tmp_path):
    wild = replace(config, optimizer=OptimizerConfig(name="adamw", learning_rate=1e30, clip=1e30, warmup_tokens=0))
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+; lower optimizer.learning_rate"):
        training.run(wild, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    assert run.meta()["status"] == "failed"
    assert all(t.isfinite().all() for t in run.read_snapshot(run.snapshots()[-1]).values())


def test_a_finished_run_is_not_overwritten(config, uninterrupted):
    with pytest.raises(ConfigError, match="already holds a run"):
        training.run(config, uninterrupted.path)
    assert training.run(config, uninterrupted.path, resume=True) == uninterrupted.meta()["headline"]


def test_more_tokens_than_text(config, tmp_path):
    with pytest.raises(ConfigError, match=r"tokens=10000000 is more than this text has .* data.epochs"):
        training.run(replace(config, tokens=10_000_000), tmp_path / "run")


@pytest.mark.parametrize("changes", [{"name": "adamw"}, {"schedule": "cosine"}, {"weight_decay": 0.1}])
def test_other_optimizers_learn_and_resume(config, tmp_path, changes):
    other = replace(config, optimizer=replace(config.optimizer, **changes))
    training.run(other, tmp_path / "run")
    losses = RunDir(tmp_path / "run").table("training").loss
    assert losses.iloc[-1] < losses.iloc[0]


def test_accumulated_parts_equal_one_batch(config, tmp_path):
    training.run(replace(config, batch_size=4, accumulate=1), tmp_path / "whole")
    training.run(replace(config, batch_size=2, accumulate=2), tmp_path / "parts")
    whole, parts = (RunDir(tmp_path / name).table("training").loss for name in ("whole", "parts"))
    assert torch.allclose(torch.tensor(whole), torch.tensor(parts), atol=1e-3)


def test_snapshot_schedule():
    steps = training.snapshot_steps(100, 10, SnapshotConfig(linear=4, log=2, window=[200, 400], window_count=4))
    assert steps == [0, 1, 10, 20, 25, 30, 35, 40, 50, 75, 100]
    assert training.snapshot_steps(100, 10, SnapshotConfig(linear=0)) == [0, 100]


def test_python_needs_no_command_line(config, tmp_path):
    """training.run takes a dataclass and a path; neither typer nor hydra is imported."""
    code = "import sys, induction_cli.training; assert not {'hydra', 'typer'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


@pytest.mark.parametrize("d_mlp", [0, 8])
def test_a_model_without_layers_has_losses_and_no_heads(config, tmp_path, d_mlp):
    training.run(replace(config, model=replace(config.model, n_layers=0, d_mlp=d_mlp)), tmp_path / "run")
    run = RunDir(tmp_path / "run")
    assert run.meta()["status"] == "done" and not len(run.table("head_scores"))
    assert len(run.table("in_context_learning")) and not (run.path / "plots" / "head_scores.png").exists()


# ------------------------------------------------------------------------------------------------ rows that are gone


@pytest.fixture(scope="module")
def stopped(config, tmp_path_factory) -> RunDir:
    """A run that was stopped at step 29, with four snapshots behind it."""
    path, step_once = tmp_path_factory.mktemp("stopped") / "run", training.train_step

    def step_then_signal(state):
        if state.step == 28:
            os.kill(os.getpid(), signal.SIGINT)
        return step_once(state)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(training.Interrupted):
        patch.setattr(training, "train_step", step_then_signal)
        training.run(config, path)
    return RunDir(path)


def without_step(content: bytes, step: int) -> bytes:
    return b"".join(row for row in content.splitlines(keepends=True) if not row.startswith(f"{step},".encode()))


DAMAGES = {
    "missing": None,
    "empty": lambda content: b"",
    "cut within a row": lambda content: content[: len(content) // 2],
    "cut after a row": lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
    "its header alone": lambda content: content.splitlines(keepends=True)[0],
    "without a step": lambda content: without_step(content, 8),
    "without its header": lambda content: b"".join(content.splitlines(keepends=True)[1:]),
}


def damage(run: RunDir, name: str, how) -> None:
    path = run.table_file(name)
    path.unlink() if how is None else path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize("how", DAMAGES)
def test_rows_that_can_be_measured_again_are(config, uninterrupted, stopped, tmp_path, capsys, how):
    shutil.copytree(stopped.path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    for name in ("in_context_learning", "by_chain", "loss_by_index", "head_scores"):
        damage(run, name, DAMAGES[how])
    training.run(config, run.path, resume=True)
    assert_same(uninterrupted, run)
    said = capsys.readouterr().out
    assert said.count("; it is measured again from the snapshots") == 4 and "going on from step 29 of 40" in said


@pytest.mark.parametrize("how", DAMAGES)
def test_rows_that_only_training_gives_are_not_done_without(config, uninterrupted, stopped, tmp_path, how):
    shutil.copytree(stopped.path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    damage(run, "training", DAMAGES[how])
    with pytest.raises(RunError, match=r"training\.csv .*only training gives.*--resume trains again from step 0"):
        training.run(config, run.path, resume=True)
    run.resume_file.unlink()  # as it says
    training.run(config, run.path, resume=True)
    assert_same(uninterrupted, run)


def test_rows_of_a_snapshot_that_is_gone_too(config, stopped, tmp_path):
    shutil.copytree(stopped.path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    run.snapshots()[1].path.unlink()
    damage(run, "by_chain", None)
    with pytest.raises(RunError, match=r"by_chain\.csv must be measured again, and there is no snapshot of step 8"):
        training.run(config, run.path, resume=True)


def test_the_log_says_what_happened(config, tmp_path, caplog):
    with caplog.at_level("INFO"):
        training.run(config, tmp_path / "run")
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("training 1 layer, seed 0 on cpu: 40 steps") and said[-1].startswith("done: ")
    assert sum(line.startswith("step ") for line in said) == 6

"""Every results folder says where it comes from, and a call that fails leaves that of the results before it alone."""

import json
import shutil
from pathlib import Path

import pytest

from induction_cli import cli, training
from induction_cli.config import (
    AblateConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ScoreConfig,
    SnapshotConfig,
    TrainConfig,
)
from induction_cli.evidence import ablate, score
from induction_cli.page import rooms
from induction_cli.runs.results import results_folders, writing
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow

SMALL = {"n_examples": 8, "threads": 1}
TYPED = [f"{key}={value}" for key, value in SMALL.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of one layer."""
    config = TrainConfig(
        model=ModelConfig(n_layers=1, n_heads=2, d_head=8, d_model=16, n_ctx=64, d_vocab=61),
        data=DataConfig("repeats", repeat_tokens=60_000, cache_dir=str(tmp_path_factory.mktemp("cache"))),
        snapshots=SnapshotConfig(linear=1),
        evaluation=EvaluationConfig(16, 8, early_index=8, late_index=60, half_width=2, n_sequences=2),
        tokens=3_000,
        batch_size=4,
        device="cpu",
        threads=1,
    )
    path = tmp_path_factory.mktemp("trained") / "one"
    training.run(config, path)
    return path


@pytest.fixture
def runs(trained, tmp_path, monkeypatch) -> Path:
    """A folder with two runs, in the working folder."""
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return Path("runs")


def tables(folder: Path) -> set[str]:
    return {str(path.parent.parent) for path in folder.rglob("tables/ablation.csv")}


# ------------------------------------------------------------------------------------------------ meta.json


def test_a_failed_call_leaves_what_is_said_of_the_results_before_it(runs, monkeypatch):
    assert cli.run(["score", "runs/one", "n_sequences=2", *TYPED]) == 0
    room = RunDir(runs / "one" / "score")
    said = {path: path.read_bytes() for path in (room.meta_file, *sorted((room.path / ".hydra").iterdir()))}
    assert len(said) == 4 and room.meta()["settings"]["n_sequences"] == 2
    monkeypatch.setattr(score, "head_rows", lambda *_: 1 / 0)
    assert cli.run(["score", "runs/one", "n_sequences=3", *TYPED]) == 1
    assert {path: path.read_bytes() for path in said} == said
    shown = rooms.origin("score", room.path, {})
    assert "n_sequences: 2" in shown.config and "n_sequences=2" in shown.command
    monkeypatch.undo()


def test_what_a_results_folder_says(runs):
    headline = score.run(ScoreConfig("runs/one", n_sequences=2, **SMALL), runs / "one" / "score")
    run, room = RunDir(runs / "one"), RunDir(runs / "one" / "score")
    meta = room.meta()
    assert meta["command"] == "score" and meta["status"] == "done" and meta["headline"] == headline
    assert meta["made_from"] == {"..": run.snapshots_hash()}
    assert meta["settings"]["n_examples"] == 8 and room.settings(ScoreConfig).n_examples == 8
    assert {"version", "sources_sha256", "git_sha", "date", "device", "threads"} <= meta.keys()
    assert meta["device"] == "cpu" and len(meta["sources_sha256"]) == 64


def test_the_same_results_keep_their_date(runs):
    config, room = ScoreConfig("runs/one", n_sequences=2, **SMALL), RunDir(runs / "one" / "score")
    score.run(config, room.path)
    room.replace_meta({**room.meta(), "date": "long ago"})
    score.run(config, room.path)
    assert room.meta()["date"] == "long ago"
    room.replace_meta({**room.meta(), "sources_sha256": "other code"})
    score.run(config, room.path)
    assert room.meta()["date"] != "long ago"


def test_nothing_speaks_for_a_mixture(tmp_path):
    """Neither the old meta.json nor a new one where writing broke off."""
    room = RunDir(tmp_path)
    with writing(room, "score", ScoreConfig("x"), {"x": "hash"}) as meta:
        assert not room.meta_file.exists()
        meta["headline"] = float("nan")
    assert json.loads(room.meta_file.read_text(), parse_constant=pytest.fail)["headline"] is None
    with pytest.raises(ZeroDivisionError), writing(room, "score", ScoreConfig("x"), {}):
        raise ZeroDivisionError
    assert not room.meta_file.exists()


def test_a_results_folder_is_no_run(runs):
    score.run(ScoreConfig("runs", n_sequences=2, **SMALL), runs / "score")
    assert [run.name for run in RunDir.find(runs)] == ["one", "two"]
    for folder in ("runs/score", "runs/one/score"):
        assert RunDir(folder).meta()["command"] == "score" and not RunDir(folder).is_run()
        with pytest.raises(RunError, match="is not a run directory"):
            RunDir.find(folder)
    assert set(RunDir("runs/score").meta()["made_from"]) == {"../one", "../two"}
    found = rooms.find([runs])
    assert [run.dir.name for run in found.runs] == ["one", "two"] and len(found.rooms) == 3


def test_a_run_of_version_0_1_0_is_one(runs):
    """Its meta.json names no command; its results folders have none."""
    run = RunDir(runs / "one")
    run.replace_meta({key: value for key, value in run.meta().items() if key not in ("command", "sources_sha256")})
    assert run.is_run() and RunDir.find(run.path)[0].path == run.path
    run.meta_file.write_text("{")
    assert run.is_run()  # damaged, and named by whoever reads it


# ------------------------------------------------------------------------------------------------ out_dir


def test_results_go_where_they_were_asked_to(runs, capsys):
    assert cli.run(["ablate", "runs/one", "draws=2", "hydra.run.dir=out", *TYPED]) == 0
    assert tables(Path()) == {"out"} and capsys.readouterr().out.splitlines()[-1] == "out"
    assert RunDir("out").meta()["made_from"] == {"../runs/one": RunDir("runs/one").snapshots_hash()}


def test_results_of_a_folder_of_runs(runs):
    config = AblateConfig("runs", draws=2, **SMALL)
    ablate.run(config, runs / "ablate")
    assert tables(Path()) == {"runs/one/ablate", "runs/two/ablate"}
    ablate.run(config, Path("out"))
    assert tables(Path("out")) == {"out/one", "out/two"}
    assert [room.path for room in results_folders([None], Path("out"), "ablate")] == [Path("out")]


def test_shards_of_a_sweep_share_its_folder(runs):
    assert cli.run(["ablate", "runs/one", "draws=2", "shards=2", "shard=0,1", "-m", *TYPED]) == 0
    assert tables(Path()) == {"runs/one/ablate"}
    assert RunDir("runs/one/ablate").meta()["command"] == "ablate"


def test_jobs_of_another_sweep_do_not(runs):
    assert cli.run(["ablate", "runs/one", "draws=2,3", "-m", *TYPED]) == 0
    assert tables(Path()) == {"runs/one/ablate/draws=2", "runs/one/ablate/draws=3"}

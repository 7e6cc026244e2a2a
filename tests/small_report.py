"""A page of two small runs, for tests: one and two layers, trained for seconds, scored; no plot but those it draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from induction_cli import training
from induction_cli.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ReportConfig,
    ScoreConfig,
    SnapshotConfig,
    TrainConfig,
)
from induction_cli.evidence import report, score
from induction_cli.runs.run_dir import RunDir

HEADS = 3  # of each layer


def small_run(folder: Path, n_layers: int, seed: int = 0) -> Path:
    path = folder / f"layers_{n_layers}"
    model = ModelConfig(n_layers=n_layers, n_heads=HEADS, d_model=12, d_head=4, n_ctx=80, d_vocab=97)
    training.run(
        TrainConfig(
            model=model,
            data=DataConfig(source="repeats", repeat_tokens=100_000, cache_dir=str(folder / ".cache")),
            snapshots=SnapshotConfig(linear=3),
            evaluation=EvaluationConfig(n_examples=8, early_index=8, late_index=75, half_width=2, n_sequences=2),
            seed=seed,
            tokens=4_000,
            device="cpu",
            threads=1,
        ),
        path,
    )
    score.run(ScoreConfig(run_dir=str(path), n_examples=8, n_sequences=2, threads=1), path / "score")
    return path


def small_runs(folder: Path) -> Path:
    """A folder of two runs, scored, with a plot in each; made once."""
    if folder.exists():
        return folder
    with pytest.MonkeyPatch.context() as patch:
        drawn = RunDir.write_plot
        patch.setattr(
            RunDir, "write_plot", lambda room, name, figure: drawn(room, name, figure) if name == "co_timing" else None
        )
        for n_layers in (1, 2):
            small_run(folder, n_layers)
    return folder


def small_report(runs: Path, out_dir: Path) -> Path:
    report.run(ReportConfig([str(runs)]), out_dir)
    return out_dir / "report.html"

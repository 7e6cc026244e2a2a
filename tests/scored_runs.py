"""Runs made by hand for the verdicts' tests: tables only, no model. Windows open at 400 tokens and close at 600."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from hand_made import write_table

from induction_cli.config import ModelConfig, TrainConfig
from induction_cli.runs.files import beside
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import Claim, Verdict, load_claims, rows_of

CLAIMS_FILE = load_claims(beside("experiments") / "claims.yaml")
BY_ID: dict[str, Claim] = {claim.id: claim for claim in CLAIMS_FILE}
SNAPSHOTS = range(0, 1200, 50)  # tokens
START, END = 400, 600
WINDOW = {
    "start_tokens": START,
    "end_tokens": END,
    "fall": 0.4,
    "share": 0.8,
    "score_before": -0.05,
    "score_after": -0.45,
    "finished": True,
    "found_share": 1.0,
}
SPREAD = (-0.02, 0.0, 0.02)  # what three seeds differ by


def verdict(claim: str, *paths: Path, model_class: str = "") -> Verdict:
    """The verdict in a class, the headline's where none is named."""
    rows = rows_of(BY_ID[claim], list(paths), CLAIMS_FILE)
    return next(row for row in rows if (row.model_class == model_class if model_class else row.headline))


def values(claim: str, *paths: Path, **which) -> list[float]:
    """The seeds' numbers behind a verdict, missing ones too."""
    return [one.value for one in verdict(claim, *paths, **which).estimates]


def reasons(claim: str, *paths: Path, **which) -> list[str]:
    """Why seeds could not say."""
    return [one.missing for one in verdict(claim, *paths, **which).estimates if one.missing]


def rise(onset: float, top: float, snapshots=SNAPSHOTS) -> np.ndarray:
    """A score that passes half of its rise at `onset`; 0 throughout where that is nan."""
    at = np.array(snapshots, float)
    return np.zeros_like(at) if np.isnan(onset) else top * np.clip((at - onset) / 100 + 0.5, 0, 1)


def scored(
    folder: Path,
    n_layers: int,
    seed: int,
    window: dict | None = None,
    score: float = -0.5,
    induction: float = 500,
    previous_token: float = 300,
    bend: tuple[float, float] | None = (-1.0, 0.2),
    slopes: tuple[float, float] = (0.0, -0.1),
    smeared: bool = False,
    d_mlp: int = 0,
    snapshots=SNAPSHOTS,
) -> Path:
    """A scored run. window: {} for none, and none for one layer; score: the last S; induction, previous_token: onsets;
    bend: curvature inside and outside; slopes: d loss / d ln(index) before and after the middle of the window."""
    name = f"layers_{n_layers}_seed_{seed}{'_mlps' if d_mlp else ''}{'_smeared' if smeared else ''}"
    run = RunDir(folder / name)
    model = ModelConfig(n_layers=n_layers, n_heads=2, smeared_keys=smeared, d_mlp=d_mlp)
    run.write_config(TrainConfig(model=model, seed=seed))
    run.write_meta(status="done")
    room = run.folder("score")
    learning = [
        {"step": t, "tokens": t, "kind": kind, "in_context_learning_score": value}
        for t in snapshots
        for kind, value in (("exact", 9.0), ("windowed", score if t == max(snapshots) else -0.05))
    ]
    write_table(room, "in_context_learning", pd.DataFrame(learning))
    heads = []
    for layer in range(n_layers):
        for head in range(2):
            best = layer == n_layers - 1 and head == 0
            curves = {
                "prefix_matching": rise(induction if best else np.nan, 0.8, snapshots),
                "previous_token": rise(previous_token if layer == 0 and head == 1 else np.nan, 0.9, snapshots),
            }
            for measure, curve in curves.items():
                at = {"layer": layer, "head": head, "measure": measure}
                heads += [{"step": t, "tokens": t, **at, "value": v} for t, v in zip(snapshots, curve, strict=True)]
    write_table(room, "head_scores", pd.DataFrame(heads))
    none = window == {} or (window is None and n_layers == 1)
    windows = pd.DataFrame([{**WINDOW, **(window or {})}])
    write_table(room, "phase_change", windows[:0] if none else windows)
    inside, outside = bend or (np.nan, np.nan)
    write_table(room, "loss_bend", pd.DataFrame([{"inside": inside, "outside": outside}]))
    before, after = slopes
    chains = [
        {"tokens": t, "chain": i, "index_slope": (before if t < (START + END) / 2 else after) + 0.001 * (i - 1.5)}
        for t in snapshots
        for i in range(4)
    ]
    write_table(room, "by_chain", pd.DataFrame(chains))
    return run.path

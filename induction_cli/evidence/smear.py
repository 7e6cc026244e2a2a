"""Line 2: train matched pairs without and with smeared keys; does the phase change move?

A pair has the same seed, so the same data in the same order and the same initial weights; only alpha is added.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from induction_cli import training
from induction_cli.config import ConfigError, ModelConfig, SmearConfig, TrainConfig, require
from induction_cli.measures import phase_change
from induction_cli.measures.first_passage import earlier
from induction_cli.plots import smear as plots
from induction_cli.runs.results import snapshots_behind, writing
from induction_cli.runs.run_dir import RunDir, relative
from induction_cli.terminal import plural, say, within_run
from induction_cli.words import short

RESUMABLE = {"device", "threads", "compile", "data.cache_dir"}  # may change while a run is under way
FREE = RESUMABLE | {"model.smeared_keys", "model.smear_init", "tokens", "snapshots"}


def arm(config: SmearConfig, n_layers: int, seed: int, smeared: bool) -> TrainConfig:
    """The training of one arm of one pair."""
    values = {f.name: getattr(config, f.name) for f in fields(TrainConfig)}
    model = ModelConfig(**{**vars(config.model), "n_layers": n_layers, "smeared_keys": smeared})
    tokens = config.smeared_tokens if smeared and config.smeared_tokens else config.tokens
    return TrainConfig(**{**values, "model": model, "seed": seed, "tokens": tokens})


def flat(value: object, prefix: str = "") -> dict[str, object]:
    """Dotted keys and values of nested dictionaries."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, part in value.items() for k, v in flat(part, f"{prefix}.{key}" if prefix else key).items()}


def differences(one: TrainConfig, other: TrainConfig, free: set[str] = FREE) -> list[str]:
    """Settings in which two runs differ, the free ones aside: smearing, snapshots and the length of training."""
    a, b = flat(asdict(one)), flat(asdict(other))
    return [
        f"{key} ({a[key]} and {b[key]})"
        for key in a
        if a[key] != b[key] and key not in free and key.split(".")[0] not in free
    ]


def find_vanilla(given: list[RunDir], wanted: TrainConfig) -> RunDir:
    """The given run that is the twin of a smeared one. Raises ConfigError naming what differs in the nearest one."""
    nearest = min(
        given,
        key=lambda run: (
            run.config().model.smeared_keys,  # as in the folder of an earlier comparison
            len(differences(wanted, run.config())),
            run.meta()["status"] != "done",
        ),
    )
    require(not nearest.config().model.smeared_keys, f"vanilla: '{nearest.name}' has smeared keys itself")
    if differ := differences(wanted, nearest.config()):
        name = f"{wanted.model.n_layers} layers, seed {wanted.seed}"
        raise ConfigError(f"vanilla: no twin for {name}; '{nearest.name}' differs in {', '.join(differ)}")
    require(nearest.meta()["status"] == "done", f"vanilla: '{nearest.name}' is {nearest.meta()['status']}, not done")
    return nearest


def train_arms(config: SmearConfig, out_dir: Path) -> list[RunDir]:
    """Every arm of every pair, trained; what is done already is left alone, so a stopped comparison goes on."""
    given = RunDir.find(config.vanilla) if config.vanilla else []
    twins = {
        (depth, seed): find_vanilla(given, arm(config, depth, seed, False)) if given else None
        for depth in config.model.n_layers
        for seed in config.seeds
    }
    runs = []
    for (depth, seed), twin in twins.items():
        for smeared in (False, True):
            path = out_dir / f"layers_{depth}_seed_{seed}_{'smeared' if smeared else 'vanilla'}"
            if not smeared and twin:
                runs.append(twin)
                continue
            wanted, there = arm(config, depth, seed, smeared), RunDir(path)
            if there.meta() and (differ := differences(wanted, there.config(), RESUMABLE)):
                raise ConfigError(f"'{path}' was trained with other settings: {', '.join(differ)}; use another folder")
            training.run(wanted, path, resume=bool(there.meta()))
            runs.append(RunDir(path))
    return runs


def label(run: RunDir) -> dict[str, object]:
    """The columns that say which arm of which pair a run is."""
    trained = run.config()
    kind = "smeared" if trained.model.smeared_keys else "vanilla"
    return {"run": run.name, "n_layers": trained.model.n_layers, "seed": trained.seed, "keys": kind}


def curves_by_chain(run: RunDir) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [snapshot], in-context learning score [snapshot, chain])."""
    curve = run.table("by_chain").pivot(index="tokens", columns="chain", values="in_context_learning_score")
    return curve.index.to_numpy(float), curve.to_numpy()


def onset_rows(runs: list[RunDir], out_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """onsets.csv, a row per run, and shifts.csv, a row per pair: smeared / vanilla tokens at which the score first
    passes half of the vanilla twin's fall, one level for both arms. Intervals over chains, paired within a pair."""
    rows, shifts, found = [], [], {}
    for run in runs:
        who, curves = label(run), curves_by_chain(run)
        onset, _ = phase_change.onset_estimate(*curves)
        ends = {"onset_tokens": onset.value, "low": onset.low, "high": onset.high}
        windows, place = run.table("phase_change"), {"path": os.path.relpath(run.path, out_dir)}
        rows.append({**who, **ends, "phase_change": len(windows) > 0, **place})
        found[who["n_layers"], who["seed"], who["keys"]] = curves
    for (depth, seed, keys), smeared in found.items():
        if keys == "smeared" and (depth, seed, "vanilla") in found:
            ratio = earlier(*smeared, *found[depth, seed, "vanilla"])
            shifts.append({"n_layers": depth, "seed": seed, "ratio": ratio.value, "low": ratio.low, "high": ratio.high})
    return pd.DataFrame(rows), pd.DataFrame(shifts, columns=["n_layers", "seed", "ratio", "low", "high"])


def weight_rows(runs: list[RunDir]) -> pd.DataFrame:
    """smear_weights.csv: sigmoid(alpha), the share of its own key a head keeps, beside its prefix matching."""
    parts = []
    for run in runs:
        if not run.config().model.smeared_keys:
            continue
        rows = [
            {**label(run), "step": s.step, "layer": int(name.split(".")[1]), "head": head, "weight": weight}
            for s in run.snapshots()
            for name, alpha in run.read_snapshot(s).items()
            if name.endswith("smear_alpha")
            for head, weight in enumerate(alpha.sigmoid().tolist())
        ]
        scores = run.table("head_scores").query("measure == 'prefix_matching'").drop(columns="measure")
        scores = scores.rename(columns={"value": "prefix_matching"})
        parts.append(pd.DataFrame(rows).merge(scores, on=["step", "layer", "head"]))
    return pd.concat(parts, ignore_index=True)


def run(config: SmearConfig, out_dir: Path) -> float:
    """Train what is missing, compare; returns the median onset ratio smeared / vanilla of the deepest models."""
    config.check()
    runs, room = train_arms(config, out_dir), RunDir(out_dir)
    learning = pd.concat([run.table("in_context_learning").assign(**label(run)) for run in runs], ignore_index=True)
    windows = [run.table("phase_change").assign(**label(run)) for run in runs]
    found = [table for table in windows if len(table)]
    onset_table, shifts = onset_rows(runs, out_dir)
    tables = {
        "in_context_learning": learning,
        "phase_change": pd.concat(found) if found else windows[0],
        "onsets": onset_table,
        "shifts": shifts,
        "smear_weights": weight_rows(runs),
    }
    deepest = shifts[shifts.n_layers == shifts.n_layers.max()].ratio
    headline = float(deepest.median()) if len(deepest.dropna()) else math.nan
    with writing(room, "smear", config, snapshots_behind(runs, room)) as meta:
        for name, rows in tables.items():
            room.write_table(name, rows)
        room.write_plot("in_context_learning", plots.smear_pairs(learning))
        room.write_plot("smear_weights", plots.smear_weights(room.table("smear_weights")))
        meta["headline"] = headline
    show(onset_table, shifts, room)
    return headline


def show(onset_table: pd.DataFrame, shifts: pd.DataFrame, room: RunDir) -> None:
    console = Console()
    for row in onset_table.itertuples():
        name = f"{plural(row.n_layers, 'layer')}, seed {row.seed}, {row.keys}"
        at = f"onset {short(row.onset_tokens)} tokens {within_run(row.low, row.high, short)}"
        window = "" if row.phase_change else "; no window found"
        said = at + window if np.isfinite(row.onset_tokens) else "no phase change"
        say(f"{name:<32} {said}", console)
    for row in shifts[shifts.n_layers > 1].itertuples():
        said = f"{row.ratio:.2f} {within_run(row.low, row.high, '{:.2f}'.format)}"
        name = f"{row.n_layers} layers, seed {row.seed}"
        console.print(f"{name}: half of the vanilla fall, smeared / vanilla {said}", highlight=False, markup=False)
    say(f"plots   {relative(room.path / 'plots')}", console)

"""Line 1: the paths of training runs through the principal components of their per-token losses."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from induction_cli.config import PertokenPcaConfig
from induction_cli.data import CHAIN, Corpus, held_out_windows, open_corpus
from induction_cli.device import choose_device, choose_threads
from induction_cli.evaluation.scores import load_snapshot, losses_at
from induction_cli.measures.intervals import FEWEST_UNITS, from_resamples, group_means, resamples
from induction_cli.measures.trajectory import angle, principal_components, random_columns, sharpest_turn, turn
from induction_cli.measures.trend import likeness
from induction_cli.page.traces import trace_page
from induction_cli.plots.pertoken_pca import pertoken_pca as draw_paths
from induction_cli.runs.results import snapshots_behind, writing
from induction_cli.runs.run_dir import RunDir, RunError, relative
from induction_cli.runs.tensors import tensor_hash
from induction_cli.terminal import say, within_run


def comparable(runs: list[RunDir]) -> None:
    """Raise RunError where the runs' losses are not on the same tokens."""
    for run in runs:
        if len(run.snapshots()) < 2:
            raise RunError(f"'{run.path}' has one snapshot; a path needs at least two")
        if not run.table_file("phase_change").exists():
            status = run.meta().get("status", "not done")
            raise RunError(f"'{run.path}' is {status}: its phase change is not known; induction train --resume ends it")
    tokenizers = [run.tokenizer() for run in runs]
    if None in tokenizers:
        raise RunError(f"{runs[tokenizers.index(None)].tokenizer_file} is missing; --resume the training writes it")
    if len({run.tokenizer_file.read_bytes() for run in runs}) > 1:
        raise RunError("these runs have different tokenizers, so their per-token losses are not on the same tokens")
    contexts = {run.config().model.n_ctx for run in runs}
    if len(contexts) > 1:
        raise RunError(f"these runs have different contexts ({', '.join(map(str, sorted(contexts)))} tokens)")


def vectors_of(run: RunDir, windows: Tensor, columns: Tensor, config: PertokenPcaConfig, out_dir: Path) -> Tensor:
    """Random-token losses at every snapshot, [snapshot, example]; a run's own room keeps them for planes of several."""
    device, room = choose_device(config.device), run.folder("pertoken_pca")
    of = tensor_hash({"windows": windows, "columns": columns}) + "".join(run.snapshot_hashes())
    if kept := room.read_kept(of):
        return kept["losses"]
    shown = track(run.snapshots(), run.name, transient=True, disable=not Console().is_terminal)
    losses = torch.stack([losses_at(load_snapshot(run, s, device), windows, columns, config.batch_size) for s in shown])
    if room.path.resolve() == out_dir.resolve():
        room.write_kept({"losses": losses}, of)
    return losses


def window_of(run: RunDir) -> tuple[int, int] | None:
    """Snapshot indices of the phase change that training found, None where it found none."""
    windows = run.table("phase_change")
    if windows.empty:
        return None
    tokens = np.array([snapshot.tokens for snapshot in run.snapshots()])
    start, end = (
        int(np.abs(tokens - edge).argmin()) for edge in (windows.start_tokens.iloc[0], windows.end_tokens.iloc[0])
    )
    return start, end


def turn_row(name: str, vectors: Tensor, directions: Tensor, centre: Tensor, window: tuple[int, int]) -> dict:
    """Row of turns.csv: the sharpest turn at the window in the plane, with its interval over chains of examples."""
    path = (vectors.double() - centre) @ directions.T
    found = sharpest_turn(path, *window)
    # the plane stays; examples are drawn anew: coordinates are sums over examples, so over chains of them too
    products = (vectors.double() - centre)[:, None] * directions
    chains = group_means(products.permute(2, 0, 1), CHAIN) * CHAIN  # [chain, snapshot, component]
    n, again = len(chains), []
    if n >= FEWEST_UNITS:
        paths = torch.einsum("rc,csk->rsk", resamples(n, 200).double() * n, chains)
        again = [sharpest_turn(one, *window).degrees for one in paths]
    _, low, high = from_resamples(found.degrees, again, n)
    others = found.elsewhere.numpy()
    return {
        "run": name,
        "degrees": found.degrees,
        "low": low,
        "high": high,
        "elsewhere_median": float(np.median(others)) if len(others) else None,
        "elsewhere_95": float(np.percentile(others, 95)) if len(others) else None,
        "places_elsewhere": len(others),
        **{
            f"{when}_pc{i + 1}": value
            for when in ("before", "after")
            for i, value in enumerate(getattr(found, when).tolist())
        },
    }


def turn_pair_rows(vectors: dict[str, Tensor], bounds: dict[str, tuple[int, int] | None]) -> pd.DataFrame:
    """Rows of turn_pairs.csv: are the turns of two runs alike, token by token?

    A run's turn is its path's direction after the window less that before it (unit vectors, as `turn` takes them), in
    the space of all per-token losses and not in the plane. kind 'turn': both runs at their own windows, each pair once.
    kind 'control': the other run did not change phase, and its path is taken over the same snapshots as the first's; so
    much is alike because both train on the same text.
    """

    def bent(name: str, window: tuple[int, int]) -> Tensor:
        found = turn(vectors[name].double(), *window)
        return found.after - found.before

    changed = {name: window for name, window in bounds.items() if window}
    pairs = [("turn", a, b, changed[b]) for a, b in itertools.combinations(changed, 2)]
    still = [name for name in bounds if name not in changed]
    pairs += [("control", a, b, changed[a]) for a in changed for b in still if len(vectors[a]) == len(vectors[b])]
    rows = [[kind, a, b, *likeness(bent(a, changed[a]), bent(b, window), CHAIN)] for kind, a, b, window in pairs]
    return pd.DataFrame(rows, columns=["kind", "run", "other", "correlation", "low", "high"])


def run_row(name: str, run: RunDir, room: RunDir) -> dict:
    """Row of runs.csv: which run a name in this room's tables stands for."""
    return {"run": name, "path": os.path.relpath(run.path.resolve(), room.path.resolve())}


def trace_rows(
    name: str, run: RunDir, vectors: Tensor, windows: Tensor, columns: Tensor, window: tuple[int, int], n: int
) -> pd.DataFrame:
    """Rows of traces.csv: the tokens whose loss fell and rose the most across the window, with their text and curve."""
    tokenizer = run.tokenizer()
    assert tokenizer is not None  # `comparable` has looked
    change = vectors[window[1]] - vectors[window[0]]
    order = change.argsort()
    rows = []
    for kind, examples in (("fell", order[:n]), ("rose", order.flip(0)[:n])):
        for example in examples.tolist():
            column = int(columns[example])
            tokens = windows[example].tolist()
            for snapshot, loss in zip(run.snapshots(), vectors[:, example].tolist(), strict=True):
                rows.append(
                    {
                        "run": name,
                        "kind": kind,
                        "example": example,
                        "index": column + 1,
                        "change": change[example].item(),
                        "before_text": tokenizer.decode(tokens[max(0, column - 60) : column + 1]),
                        "token_text": tokenizer.decode([tokens[column + 1]]),
                        "tokens": snapshot.tokens,
                        "loss": loss,
                    }
                )
    return pd.DataFrame(rows)


def run(config: PertokenPcaConfig, out_dir: Path) -> float:
    """PCA of all snapshots of all runs together; returns the share of variance that two components explain."""
    choose_threads(config.threads)
    found = [run for path in config.run_dirs for run in RunDir.find(path)]
    runs = list({run.path.resolve(): run for run in found}.values())  # a run that is given twice is one run
    comparable(runs)
    trained = runs[0].config()
    corpus: Corpus = open_corpus(trained.data, trained.model.d_vocab)
    shift = trained.evaluation.late_index - trained.evaluation.early_index
    windows = held_out_windows(corpus.tokens("validation"), config.n_examples, trained.model.n_ctx, shift, config.seed)
    columns = random_columns(config.n_examples, trained.model.n_ctx, config.seed)
    names = unique_names(runs)
    vectors = {name: vectors_of(run, windows, columns, config, out_dir) for name, run in zip(names, runs, strict=True)}
    stacked = torch.cat(list(vectors.values()))
    coordinates, directions, shares = principal_components(stacked)
    centre = stacked.double().mean(0)
    places = [(name, s.step, s.tokens) for name, run in zip(names, runs, strict=True) for s in run.snapshots()]
    table = pd.DataFrame(places, columns=["run", "step", "tokens"])
    table["pc1"], table["pc2"] = coordinates.T.numpy()

    bounds = {name: window_of(run) for name, run in zip(names, runs, strict=True)}
    changed = {name: window for name, window in bounds.items() if window}
    turns = [turn_row(name, vectors[name], directions, centre, window) for name, window in changed.items()]
    traces = [
        trace_rows(name, run, vectors[name], windows, columns, changed[name], config.traces)
        for name, run in zip(names, runs, strict=True)
        if name in changed and config.traces > 0
    ]
    windows_table = [
        run.table("phase_change").assign(run=name) for name, run in zip(names, runs, strict=True) if bounds[name]
    ]
    room, changes = RunDir(out_dir), pd.DataFrame(columns=["run", "start_tokens", "end_tokens"])
    tables = {
        "runs": pd.DataFrame([run_row(name, run, room) for name, run in zip(names, runs, strict=True)]),
        "turn_pairs": turn_pair_rows(vectors, bounds),
        "pertoken_pca": table,
        "explained_variance": pd.DataFrame({"component": [1, 2], "share": shares.numpy()}),
        "turns": pd.DataFrame(turns, columns=None if turns else ["run", "degrees", "low", "high"]),
        "phase_change": pd.concat(windows_table) if windows_table else changes,
    }
    with writing(room, "pertoken_pca", config, snapshots_behind(runs, room)) as meta:
        for name, rows in tables.items():
            room.write_table(name, rows)
        figure = draw_paths(room.table("pertoken_pca"), room.table("phase_change"), shares.tolist())
        room.write_plot("pertoken_pca", figure)
        if traces:
            room.write_table("traces", pd.concat(traces))
            room.write_page("traces", trace_page(room.table("traces")))
        meta["headline"] = float(shares.sum())
    show(room, turns, shares)
    return float(shares.sum())


def unique_names(runs: list[RunDir]) -> list[str]:
    """Folder names, with as many parents' as it takes where two are alike."""
    parts = [run.path.resolve().parts for run in runs]
    names, depth = [run.name for run in runs], 1
    while len(set(names)) < len(set(parts)):
        depth += 1
        longer = zip(names, parts, strict=True)
        names = ["/".join(part[-depth:]) if names.count(name) > 1 else name for name, part in longer]
    return names


def show(room: RunDir, turns: list[dict], shares: Tensor) -> None:
    console = Console()
    console.print(f"two components explain {shares.sum():.0%} of the variance over snapshots", highlight=False)
    for row in turns:
        elsewhere = (
            f"95th percentile elsewhere {row['elsewhere_95']:.0f}"
            if row["elsewhere_95"] is not None
            else "nowhere else to compare"
        )
        turn = f"{row['degrees']:.0f} degrees {within_run(row['low'], row['high'], '{:.0f}'.format)}"
        console.print(
            f"{row['run']}: turns by {turn} at the phase change; {elsewhere}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    if not turns:
        console.print("no run went through a phase change, so there is no turn to measure", highlight=False)
    say(f"plots   {relative(room.path / 'plots')}", console)


__all__ = ["angle", "run"]

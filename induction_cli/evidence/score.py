"""Line 1: every head and the in-context learning of every snapshot; definitions and baselines beside the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from induction_cli.config import EvaluationConfig, ScoreConfig
from induction_cli.data import open_corpus
from induction_cli.device import choose_threads
from induction_cli.evaluation.rows import (
    WINDOW,
    chain_rows,
    change_of,
    change_rows,
    composition_rows,
    derivative_rows,
    head_types,
    index_rows,
    learning_rows,
    window_rows,
)
from induction_cli.evaluation.scores import (
    LENGTH,
    HeldOut,
    copying_scores,
    held_out_losses,
    not_applicable,
    pattern_scores,
    random_tokens,
    weight_scores,
)
from induction_cli.evaluation.sources import Source, revision_row, sources_of, weights_behind
from induction_cli.evidence import summary
from induction_cli.measures import attention, phase_change
from induction_cli.measures.copy_rule import copy_benefit
from induction_cli.measures.intervals import correlation
from induction_cli.measures.loss_curve import bend, departure
from induction_cli.measures.losses import in_context_learning_score
from induction_cli.models.protocol import Model
from induction_cli.plots import training as curves
from induction_cli.plots.score import co_timing, head_mosaic, in_steps
from induction_cli.runs.gather import gather
from induction_cli.runs.results import results_folders, writing
from induction_cli.runs.run_dir import RunDir

ON_REPEATS = {
    "prefix_matching": attention.prefix_matching,
    "duplicate_token": attention.duplicate_token,
    "start_token": attention.start_token,
    "entropy": attention.entropy,
}
ON_TEXT = {"previous_token": attention.previous_token}

# measure: (what is measured, offset of the target from the earlier copy, sequence)
DEFINITIONS = {
    "prefix_matching": ("attention to the token after each earlier copy, summed over copies", "+1", "repeats"),
    "duplicate_token": ("attention to earlier copies of the token itself, summed over copies", "0", "repeats"),
    "start_token": ("attention to position 0", "", "repeats"),
    "entropy": ("entropy of attention over the largest possible at each position", "", "repeats"),
    "previous_token": ("attention to the position before", "", "text"),
    "copying": ("ReLU of centred direct-path logits at the attended token, 4 own / (own + all) - 1", "", "random"),
    "copying_eigenvalues": ("sum over sum of moduli of the eigenvalues of W_E W_V W_O W_U", "", "weights"),
    "qk_trace": ("trace of W_E W_Q W_K^T (W_V W_O of earlier heads, weighed by previous_token)^T W_E^T", "", "weights"),
}

PLOTS_OVER_TIME = ("in_context_learning", "co_timing", "loss_by_index", "loss_derivative")
OVER_TIME = (
    "phase_change_total",
    "events",
    "loss_bend",
    "before_after",
    "loss_derivative",
)  # tables that one snapshot does not give
SEEN = 20_000_000  # training tokens that the bigram model behind the copy rule is counted on, at most
GATHERED = (
    "head_scores",
    "in_context_learning",
    "by_chain",
    "phase_change",
    "phase_change_total",
    "events",
    "loss_bend",
    "copy_benefit",
)


def score_heads(model: Model, held_out: HeldOut, counts: Tensor, config: ScoreConfig) -> dict[str, Tensor]:
    """Every score of every head, {measure: [sequence, layer, head]}; scores from weights have one 'sequence'."""
    text = held_out.text(config.n_sequences)
    scores = pattern_scores(model, held_out.repeated, ON_REPEATS) | pattern_scores(model, text, ON_TEXT)
    scores["copying"] = copying_scores(model, random_tokens(counts, config.n_sequences, seed=config.seed))
    weights = weight_scores(model, scores["previous_token"].mean(0))
    return scores | {measure: score[None] for measure, score in weights.items()}


def baselines(source: Source, held_out: HeldOut, counts: Tensor, config: ScoreConfig) -> dict[str, tuple[float, float]]:
    """{measure: (uniform attention, mean over the heads of an untrained model of the same shape)}."""
    seed = source.room.config().seed if source.room else config.seed
    model = source.load(source.snapshots[-1]).untrained(seed)
    random = score_heads(model, held_out, counts, config)
    n_repeated, n_text = held_out.repeated.shape[1], held_out.windows.shape[1] - 1
    uniform = {name: measure(attention.uniform(n_repeated)).item() for name, measure in ON_REPEATS.items()}
    uniform |= {name: measure(attention.uniform(n_text)).item() for name, measure in ON_TEXT.items()}
    return {name: (uniform.get(name, math.nan), score.nanmean().item()) for name, score in random.items()}


def head_rows(
    scores: dict[str, Tensor], base: dict[str, tuple[float, float]], at: dict, why: dict[str, str] | None = None
) -> pd.DataFrame:
    """Rows of head_scores.csv. A score that a head cannot have is empty and says 'not applicable' and why."""
    why = why or {}
    return pd.DataFrame(
        [
            {
                **at,
                "layer": layer,
                "head": head,
                "measure": measure,
                "value": values[:, layer, head].mean().item(),
                "standard_error": values[:, layer, head].std().item() / math.sqrt(len(values))
                if len(values) > 1
                else None,
                "uniform": base[measure][0],
                "random_head": base[measure][1],
                "note": f"not applicable: {why.get(measure, 'no earlier layer')}"
                if values[:, layer, head].isnan().any()
                else "",
            }
            for measure, values in scores.items()
            for layer in range(values.shape[1])
            for head in range(values.shape[2])
        ]
    )


def definition_rows(config: ScoreConfig, held_out: HeldOut, source: Source) -> pd.DataFrame:
    """Rows of definitions.csv: all that another tool would need to get the same numbers."""
    n_repeated, n_text = held_out.repeated.shape[1], held_out.windows.shape[1] - 1
    first = "token 0 first" if source.room else f"token {source.start_token} first"
    text = ("held-out text", "none") if source.room else ("text", first)
    sequences = {
        "repeats": (f"start token, then {LENGTH} random tokens {(n_repeated - 1) // LENGTH} times", first),
        "random": (f"{LENGTH} random tokens", "none"),
        "text": (f"{text[0]}, {n_text} tokens", text[1]),
        "weights": ("none: weights alone, LayerNorm scales folded in", "none"),
    }
    examples = {"text": len(held_out.text(config.n_sequences)), "weights": 0}
    return pd.DataFrame(
        [
            {
                "measure": measure,
                "definition": definition,
                "target_offset": offset,
                "sequence": sequences[kind][0],
                "start_token": sequences[kind][1],
                "examples": examples.get(kind, config.n_sequences),
                "excluded": "" if kind in ("weights", "text") else "specials, unseen, most and least common tenth",
                "seed": config.seed,
            }
            for measure, (definition, offset, kind) in DEFINITIONS.items()
        ]
    )


def grid_rows(losses: Tensor, at: dict, config: EvaluationConfig) -> pd.DataFrame:
    """Rows of in_context_learning_grid.csv: the windowed score at other early and late indices."""
    n_ctx = losses.shape[1]
    indices = sorted({i for i in (5, 10, 20, 50, 100, 200, 300, 400, 500, n_ctx - config.half_width) if 0 < i <= n_ctx})
    return pd.DataFrame(
        [
            {**at, "early_index": early, "late_index": late}
            | {"score": in_context_learning_score(losses, early, late, config.half_width).mean().item()}
            for early in indices
            for late in indices
            if early < late
        ]
    )


def correlation_rows(heads: pd.DataFrame) -> pd.DataFrame:
    """Rows of correlations.csv: weight-only against activation-based scores over the heads at each run's end."""
    keys = [*(["run"] if "run" in heads else []), "layer", "head"]
    ends = heads.groupby("run").step.transform("max") if "run" in heads else heads.step.max()
    last = heads[heads.step == ends]
    wide = last.pivot(index=keys, columns="measure", values="value")
    rows = []
    for activation, weight in (("copying", "copying_eigenvalues"), ("prefix_matching", "qk_trace")):
        if weight in wide:
            both = wide[[activation, weight]].dropna()
            for kind in ("pearson", "spearman"):
                x, y = (torch.tensor(both[name].to_numpy()) for name in (activation, weight))
                rows.append([activation, weight, kind, len(both), *correlation(x, y, ranks=kind == "spearman")])
    return pd.DataFrame(rows, columns=["activation", "weight", "kind", "heads", "correlation", "low", "high"])


def event_rows(by_chain: pd.DataFrame, sequences: pd.DataFrame) -> pd.DataFrame:
    """Rows of events.csv: onset (half of the final rise) of the in-context learning score, of the best prefix matching
    and of the best previous-token attention at each time, in tokens, with 95% intervals over chains or sequences within
    the run. The best head is taken anew at every snapshot of every resample: the one that ends highest may be late."""
    scores = by_chain.pivot(index="tokens", columns="chain", values="in_context_learning_score")
    curves = {"in_context_learning": (scores.index.to_numpy(float), scores.to_numpy())}
    for event, rows in sequences.groupby("event"):
        wide = rows.pivot(index="tokens", columns=["sequence", "layer", "head"], values="value").sort_index(axis=1)
        n = wide.columns.get_level_values("sequence").nunique()
        curves[str(event)] = wide.index.to_numpy(float), wide.to_numpy().reshape(len(wide), n, -1)
    rows = []
    for event, (tokens, units) in curves.items():
        onset, found = phase_change.onset_estimate(tokens, units)
        ends = {"onset_tokens": onset.value, "low": onset.low, "high": onset.high}
        rows.append({"event": event, **ends, "found_share": found})
    return pd.DataFrame(rows).sort_values("onset_tokens")


def bend_rows(by_chain: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Rows of loss_bend.csv: curvature of the loss over ln(tokens) at the opening of the largest step, and elsewhere.

    Intervals are those of the fits: noise between snapshots, not between chains, is what a curvature suffers from.
    """
    ends = [f"{name}{end}" for name in ("inside", "outside") for end in ("_low", "_high")]
    columns = ["inside", "outside", "difference", "low", "high", *ends]
    loss = by_chain.groupby("tokens").loss.mean()
    tokens, curve = torch.tensor(loss.index.to_numpy(float)), torch.tensor(loss.to_numpy(copy=True))
    rows = []
    for window in windows[:1].itertuples():
        found = bend(tokens, curve, window.start_tokens, window.end_tokens)
        row = found.inside.columns("inside") | found.outside.columns("outside")
        rows.append(row | dict(zip(("difference", "low", "high"), found.difference, strict=True)))
    return pd.DataFrame(rows, columns=columns)


def before_after_rows(by_index: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Rows of before_after.csv: loss by index at the start and at the end of the window."""
    if windows.empty:
        return pd.DataFrame(columns=["index", "before", "after", "change"])
    at = by_index.pivot(index="tokens", columns="index", values="loss")
    before, after = at.loc[windows.start_tokens.iloc[0]], at.loc[windows.end_tokens.iloc[0]]
    return pd.DataFrame({"before": before, "after": after, "change": after - before}).reset_index()


def score_source(source: Source, config: ScoreConfig) -> dict[str, pd.DataFrame]:
    """All tables of one source."""
    evaluation, n_ctx = source.evaluation(config, n_sequences=config.n_sequences), source.n_ctx(config)
    held_out, counts = source.held_out(evaluation, n_ctx), source.counts
    base = baselines(source, held_out, counts, config)
    parts: dict[str, list[pd.DataFrame]] = {}
    sequences: list[tuple[dict, dict[str, Tensor]]] = []
    revisions: list[dict] = []
    snapshots = source.choose(config.snapshot)
    for snapshot in track(snapshots, f"scoring {source.name}", transient=True, disable=not Console().is_terminal):
        model, at = source.load(snapshot), source.at(snapshot)
        losses = held_out_losses(
            model, held_out.windows, config.batch_size or model.batch_that_fits(n_ctx, config.memory_gb)
        )
        scores = score_heads(model, held_out, counts, config)
        sequences.append((at, scores))
        if source.room is None:
            revisions.append(revision_row(source, snapshot, model, revisions))
        rows = {
            "head_scores": head_rows(scores, base, at, not_applicable(model)),
            "in_context_learning": learning_rows(losses, at, evaluation, held_out.chain),
            "in_context_learning_grid": grid_rows(losses, at, evaluation),
            "loss_by_index": index_rows(losses, at),
            "by_chain": chain_rows(losses, at, evaluation, held_out.chain),
            "composition": composition_rows(model, at),
        }
        for name, part in rows.items():
            parts.setdefault(name, []).append(part)
    tables = {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}
    types = head_types(tables["head_scores"])
    tables["head_scores"] = tables["head_scores"].merge(types, on=["layer", "head"])
    tables["definitions"] = definition_rows(config, held_out, source)
    tables["correlations"] = correlation_rows(tables["head_scores"])
    if source.room:
        trained = source.room.config()
        seen = np.asarray(open_corpus(trained.data, trained.model.d_vocab).tokens("train")[:SEEN])
        benefit = copy_benefit(seen, held_out.windows.numpy(), trained.model.d_vocab)
        tables["copy_benefit"] = pd.DataFrame([{"d_vocab": trained.model.d_vocab, **benefit}])
    else:
        tables["revisions"] = pd.DataFrame(revisions)
    windows = pd.DataFrame(columns=WINDOW)
    if len(snapshots) > 1:
        change = change_of(tables["by_chain"])
        windows = window_rows(change)
        tables["phase_change_total"] = change_rows(change)
        tables["events"] = event_rows(tables["by_chain"], head_rows_by_sequence(sequences))
        tables["loss_bend"] = bend_rows(tables["by_chain"], windows)
        tables["before_after"] = before_after_rows(tables["loss_by_index"], windows)
        tables["loss_derivative"] = derivative_rows(tables["loss_by_index"])
    tables["phase_change"] = windows
    return tables


def write_scores(room: RunDir, tables: dict[str, pd.DataFrame], indices: tuple[int, int]) -> None:
    """The tables and their plots; indices: as `draw`."""
    for name in OVER_TIME:  # of an earlier call that scored more snapshots
        room.table_file(name).unlink(missing_ok=True)
    for name, table in tables.items():
        room.write_table(name, table)
    draw(room, indices)


def head_rows_by_sequence(sequences: list[tuple[dict, dict[str, Tensor]]]) -> pd.DataFrame:
    """What the heads' onsets are taken from: prefix matching and previous-token attention of every head, by sequence
    and snapshot."""
    rows = []
    for event, measure in (("induction", "prefix_matching"), ("previous_token", "previous_token")):
        for at, scores in sequences:
            rows += [
                {**at, "event": event, "layer": layer, "head": head, "sequence": i, "value": value}
                for i, layers in enumerate(scores[measure].tolist())
                for layer, heads in enumerate(layers)
                for head, value in enumerate(heads)
            ]
    return pd.DataFrame(rows)


def draw(room: RunDir, indices: tuple[int, int]) -> None:
    """The plots of a room, from its tables; indices: the early and the late one of the in-context learning score."""
    heads, windows = room.table("head_scores"), room.table("phase_change")
    over_time = heads.step.nunique() > 1
    for plot in (*DEFINITIONS, *PLOTS_OVER_TIME):  # of an earlier call that scored more snapshots
        for kind in ("png", "svg"):
            (room.path / "plots" / f"{plot}.{kind}").unlink(missing_ok=True)
    there = [measure for measure in DEFINITIONS if heads[heads.measure == measure].value.notna().any()]
    for measure in there:
        room.write_plot(f"mosaic_{measure}", head_mosaic(heads, measure))
    if not over_time:
        return
    learning, loss = room.table("in_context_learning"), room.table("loss_by_index")
    derivative = room.table("loss_derivative")
    figures = {measure: curves.head_scores_over_tokens(heads, measure, windows) for measure in there}
    figures |= {
        "in_context_learning": curves.in_context_learning_score(learning, windows, indices),
        "co_timing": co_timing(learning, heads, windows),
        "loss_by_index": curves.loss_by_index(loss, windows),
        "loss_derivative": curves.loss_derivative(derivative, windows),
    }
    steps = room.table_file("revisions").exists() and (room.table("revisions").time == "steps").all()
    for name, figure in figures.items():
        room.write_plot(name, in_steps(figure) if steps else figure)


def departure_rows(runs: list[RunDir], rooms: dict[str, RunDir]) -> pd.DataFrame:
    """Rows of departures.csv: where each deeper run leaves the loss curve of the one-layer run of its seed and kind."""
    rows, curves = [], {}
    for run in runs:
        trained = run.config()
        loss = rooms[run.name].table("by_chain").groupby("tokens").loss.mean()
        kind = (trained.seed, trained.model.smeared_keys, trained.model.d_mlp > 0)
        curves[trained.model.n_layers, kind] = (run.name, loss)
    for (n_layers, kind), (name, loss) in curves.items():
        shallow = curves.get((1, kind))
        if n_layers > 1 and shallow is not None and loss.index.equals(shallow[1].index):
            tokens = torch.tensor(loss.index.to_numpy(float))
            leaves = departure(tokens, torch.tensor(loss.to_numpy()), torch.tensor(shallow[1].to_numpy()))
            rows.append({"run": name, "one_layer_run": shallow[0], "departure_tokens": leaves})
    return pd.DataFrame(rows, columns=["run", "one_layer_run", "departure_tokens"])


def run(config: ScoreConfig, out_dir: Path) -> float:
    """Score a source, or every run of a folder; returns the best prefix matching of the last snapshot scored."""
    choose_threads(config.threads)
    sources = sources_of(config)
    for source in sources:  # all of them before any work
        source.choose(config.snapshot)
    rooms = results_folders([source.room for source in sources], out_dir, "score")
    rows = []
    for source, room in zip(sources, rooms, strict=True):
        tables, evaluation = score_source(source, config), source.evaluation(config)
        with writing(room, "score", config, weights_behind([source], room)) as meta:
            write_scores(room, tables, (evaluation.early_index, evaluation.late_index))
            rows.append(summary.row(source, room))
            meta["headline"] = float(rows[-1]["prefix_matching"])
    table, room = pd.DataFrame(rows), RunDir(out_dir)
    with writing(room, "score", config, weights_behind(sources, room)) as meta:
        if len(sources) > 1:
            write_together(sources, rooms, room)
        room.write_table("summary", table)
        meta["headline"] = float(table.prefix_matching.iloc[-1])
    summary.show(table, room)
    return meta["headline"]


def write_together(sources: Sequence[Source], found: Sequence[RunDir], room: RunDir) -> None:
    """The runs' tables as one, and what only several runs can show."""
    rooms = {source.name: each for source, each in zip(sources, found, strict=True)}
    gather(rooms, GATHERED, room)
    room.write_table("correlations", correlation_rows(room.table("head_scores")))
    room.write_table("departures", departure_rows([source.room for source in sources if source.room], rooms))
    learning = room.table("in_context_learning")
    room.write_plot("in_context_learning", curves.in_context_learning_score(learning))

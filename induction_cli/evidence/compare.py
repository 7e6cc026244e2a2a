"""Line 6: the same tables of many models side by side; does the story hold from small to large?

Reads what `score`, `ablate` and `pertoken-pca` wrote and runs no model. A column of the paper's model analysis table is
a kind of model (its seeds together), a row one thing that was measured.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from torch import Tensor

from induction_cli.config import CompareConfig, ConfigError, ModelConfig, ScoreConfig, TrainConfig
from induction_cli.evidence.pertoken_pca import unique_names
from induction_cli.measures import phase_change
from induction_cli.measures.intervals import correlation, mean_interval
from induction_cli.measures.trend import log_slope, spread
from induction_cli.plots import compare as plots
from induction_cli.runs.results import tables_behind, writing
from induction_cli.runs.run_dir import RunDir, RunError, relative
from induction_cli.runs.tables import remake
from induction_cli.terminal import new_table, plural, print_table, say, within_run
from induction_cli.words import short, signed

KIND = "pattern_preserving"
N_BINS = 48  # of the loss by index, evenly in ln(index)
QUANTITIES = (
    "score_onset_tokens",
    "induction_onset_tokens",
    "score_onset_loss",
    "induction_onset_loss",
    "score_before",
    "score_after",
    "final_score",
    "induction_share",
    "induction_depth",
)
SIZES = ("parameters", "n_layers")
READ = ("score", "ablate")  # the results of a run that are compared, besides its own tables
WITH_ROWS = ("in_context_learning", "by_chain", "loss_by_index")
TABLES = (*WITH_ROWS, "phase_change", "head_scores", "events", "ablation", "loss_derivative")


# ------------------------------------------------------------------------------------------------ the models


@dataclass(frozen=True)
class Compared:
    """A run, or the room into which a pretrained model was scored."""

    name: str  # tells it from the others here
    run: RunDir
    trained: TrainConfig | None  # None: pretrained

    def table(self, name: str, command: str = "score") -> pd.DataFrame | None:
        """A table of one of its rooms, or None. Where a run is not scored, training's own tables stand in."""
        rooms = [self.run.folder(command), self.run] if self.trained else [self.run]
        for room in rooms[:1] if command != "score" else rooms:
            if room.table_file(name).exists():
                return room.table(name)
        return None

    def window(self) -> pd.Series | None:
        found = self.table("phase_change")
        found = None if found is None else found.dropna(subset="start_tokens")
        return None if found is None or found.empty else found.iloc[0]

    def loss(self) -> pd.Series:
        """Held-out loss, mean over indices, by tokens (nats); empty where there is none."""
        by_index = self.table("loss_by_index")
        return pd.Series(dtype=float) if by_index is None else by_index.groupby("tokens").loss.mean()

    def by_chain(self) -> pd.DataFrame:
        """Windowed in-context learning score [tokens, chain]; empty where there is none."""
        table = self.table("by_chain")
        if table is None:
            return pd.DataFrame()
        return table.pivot(index="tokens", columns="chain", values="in_context_learning_score")


def fault(run: RunDir, rooms: Sequence[str]) -> str:
    """What is wrong with the tables of a run and of its rooms that are compared; empty where nothing is."""
    for room in map(run.folder, rooms):
        problems = room.damaged_tables(TABLES)
        for name in () if problems else WITH_ROWS:
            if room.table_file(name).exists() and room.table(name).empty:
                problems[name] = f"{room.table_file(name)} is damaged: it has no rows; {remake(room.table_file(name))}"
        if problems:
            return next(iter(problems.values()))
    return ""


def found_in(path: Path, damaged: list[str]) -> list[tuple[RunDir, TrainConfig | None]]:
    """Runs, and rooms of pretrained models that were scored, at a path or in the folders of it.

    damaged: is told what is wrong with those that are.
    """
    folders = [path, *sorted(inside for inside in path.iterdir() if inside.is_dir())]
    if RunDir(path).is_run():
        folders = [path]
    found: list[tuple[RunDir, TrainConfig | None]] = []
    for room in map(RunDir, folders):
        try:
            if room.is_run():
                room.meta()
                found.append((room, room.config()))
            elif not room.table_file("head_scores").exists():
                continue
            elif "run" not in room.table("head_scores"):  # not of several runs
                found.append((room, None))
        except (RunError, ConfigError) as error:
            damaged.append(str(error))
            continue
        if found and found[-1][0] is room and (wrong := fault(room, ("", *READ) if found[-1][1] else ("",))):
            damaged.append(wrong)
            found.pop()
    return found


def find_models(run_dirs: Sequence[str], say) -> list[Compared]:
    """Every model once; half-written runs and damaged ones are left out, and `say` is told.

    Raises RunError where none was scored.
    """
    damaged: list[str] = []
    found: dict[Path, tuple[RunDir, TrainConfig | None]] = {}
    for path in map(Path, run_dirs):
        if not path.is_dir():
            raise RunError(f"there is no run directory '{path}'")
        for run, trained in found_in(path, damaged):
            found.setdefault(run.path.resolve(), (run, trained))
    if damaged and not found:
        raise RunError(damaged[0])
    for problem in dict.fromkeys(damaged):
        say(f"left out: {problem}")
    whole = []
    for run, trained in found.values():
        if trained and (status := run.meta().get("status")) != "done":
            say(f"left out: '{relative(run.path)}' is {status}; induction train --resume {relative(run.path)} ends it")
        else:
            whole.append((run, trained))
    if not any(run.folder("score" if trained else "").table_file("head_scores").exists() for run, trained in whole):
        raise RunError(f"no scored run in {', '.join(map(str, run_dirs))}; run induction score RUN first")
    names = unique_names([run for run, _ in whole])
    return [Compared(name, run, trained) for name, (run, trained) in zip(names, whole, strict=True)]


def parameters(model: ModelConfig) -> int:
    """Weights of the matrices inside the blocks; embeddings are not counted, as in the paper's tables."""
    return model.n_layers * model.d_model * (4 * model.n_heads * model.d_head + 2 * model.d_mlp)


def text_of(model: Compared) -> str:
    """Eight digits that are the same for models whose losses are on the same held-out tokens."""
    if model.trained is None:
        return hashlib.sha256(str(model.run.path.resolve()).encode()).hexdigest()[:8]
    tokenizer = model.run.tokenizer_file
    parts = (
        model.run.meta().get("data", {}).get("sha256"),
        tokenizer.read_text() if tokenizer.exists() else "",
        model.trained.model.n_ctx,
        len(model.by_chain().columns),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def shape(model: Compared) -> dict:
    """What kind of model it is: the columns that say in which figure and in which column of it it stands."""
    if model.trained is None:
        heads = model.table("head_scores")
        source = Path(model.run.settings(ScoreConfig).run_dir).name if heads is not None else ""
        n_layers = 0 if heads is None else int(heads.layer.max()) + 1
        n_heads = 0 if heads is None else int(heads["head"].max()) + 1
        return {"group": "pretrained", "column": source, "n_layers": n_layers, "n_heads": n_heads}
    config, seed = model.trained.model, model.trained.seed
    group = "smeared keys" if config.smeared_keys else "with MLPs" if config.d_mlp else "attention-only"
    column = plural(config.n_layers, "layer")
    column += ", MLPs" * (config.smeared_keys and config.d_mlp > 0)
    sizes = {name: getattr(config, name) for name in ("n_layers", "n_heads", "d_model", "d_mlp")}
    return {"group": group, "column": column, **sizes, "seed": seed, "parameters": parameters(config)}


def induction_heads(heads: pd.DataFrame | None) -> dict:
    """How many heads are induction heads, their share, and how deep they sit: 0 the first layer, 1 the last."""
    if heads is None or "head_type" not in heads:
        return {}
    last = heads[heads.step == heads.step.max()].drop_duplicates(["layer", "head"])
    induction, deepest = last[last.head_type == "induction"], last.layer.max()
    depth = (induction.layer / deepest).mean() if deepest > 0 else math.nan
    return {
        "heads": len(last),
        "induction_heads": len(induction),
        "induction_share": len(induction) / len(last),
        "induction_depth": depth,
    }


def amounts(model: Compared) -> dict:
    """When it changes, at what loss, and the score at the window's edges and at the end."""
    found: dict = {}
    score, loss, window, events = model.by_chain(), model.loss(), model.window(), model.table("events")
    onsets = {"score": phase_change.onset(score.index, score.mean(axis=1)) if len(score) > 1 else math.nan}
    if events is not None:
        onsets["induction"] = events.set_index("event").onset_tokens.get("induction", math.nan)
    for name, onset in onsets.items():
        found[f"{name}_onset_tokens"] = onset
        found[f"{name}_onset_loss"] = np.interp(onset, loss.index, loss) if len(loss) and onset > 0 else math.nan
    if window is not None:
        means = score.mean(axis=1)
        edges = {"before": window.start_tokens, "after": window.end_tokens}
        found |= {f"{name}_tokens": window[f"{name}_tokens"] for name in ("start", "end")}
        found |= {f"score_{name}": means.iloc[np.abs(means.index - at).argmin()] for name, at in edges.items()}
    learning = model.table("in_context_learning")
    if learning is not None:
        last = learning[learning.kind == "windowed"].iloc[-1]
        found |= {"final_score": last.in_context_learning_score, "low": last.low, "high": last.high}
        found["tokens"] = last.get("tokens", math.nan)
    return found


MODEL_COLUMNS = (
    *("run", "path", "group", "column", "n_layers", "n_heads", "d_model", "d_mlp", "seed", "parameters", "tokens"),
    *("start_tokens", "end_tokens", "score_onset_tokens", "score_onset_loss", "induction_onset_tokens"),
    *("induction_onset_loss", "score_before", "score_after", "final_score", "low", "high", "heads"),
    *("induction_heads", "induction_share", "induction_depth", "text", "comparable", "note"),
)


def model_rows(models: list[Compared], room: RunDir) -> pd.DataFrame:
    """models.csv, in the order of the figures. `comparable`: its losses may be held against those of others."""
    rows = [
        {
            "run": model.name,
            "path": os.path.relpath(model.run.path.resolve(), room.path.resolve()),
            "text": text_of(model),
        }
        | shape(model)
        | amounts(model)
        | induction_heads(model.table("head_scores"))
        for model in models
    ]
    table = pd.DataFrame(rows).reindex(columns=MODEL_COLUMNS[:-2])
    trained = table.text[table.group != "pretrained"]
    table["comparable"] = (table.text == trained.mode().iloc[0]) if len(trained) else False
    table["note"] = np.where(table.comparable, "", "other text, tokenizer or held-out examples: losses and paths apart")
    many = table.groupby("group")[["d_model", "d_mlp"]].transform("nunique") > 1
    for name in ("d_model", "d_mlp"):
        table.loc[many[name], "column"] += f", {name} " + table[name][many[name]].astype("Int64").astype(str)
    trained_elsewhere = ~table.comparable & (table.group != "pretrained")
    table.loc[trained_elsewhere, "column"] += ", text " + table.text
    table["group"] = pd.Categorical(table["group"], plots.GROUPS, ordered=True)
    order = ["group", "n_layers", "parameters", "column", "seed", "run"]
    return table.sort_values(order, ignore_index=True).astype({"group": str})


# ------------------------------------------------------------------------------------------------ the cells


def head_curves(model: Compared, measure: str) -> pd.DataFrame | str:
    heads = model.table("head_scores")
    found = None if heads is None else heads[heads.measure == measure]
    if found is None or found.empty:
        return "not run: induction score RUN"
    if found.value.isna().all():
        return str(found.note.iloc[0]) if "note" in found else "not applicable"
    return found if "head_type" in found else found.assign(head_type="unknown")


def removals(model: Compared, column: str) -> pd.DataFrame | str:
    table = model.table("ablation", "ablate") if model.trained else None
    if table is None or (table.layer < 0).any():
        return "not run: induction ablate RUN"
    rows = table[table.kind == (KIND if (table.kind == KIND).any() else table.kind.iloc[0])]
    if rows[column].isna().all():
        return "not applicable: no phase change"
    return rows.assign(value=rows[column])


def binned_loss(model: Compared) -> pd.DataFrame | str:
    """Loss by index in bins that are even in ln(index)."""
    table = model.table("loss_by_index")
    if table is None:
        return "not run: induction score RUN"
    edges = np.geomspace(1, table["index"].max() + 1, N_BINS + 1)
    middle = np.exp((np.log(edges[1:]) + np.log(edges[:-1])) / 2)
    at = middle[np.searchsorted(edges, table["index"], side="right") - 1]
    return (
        table.assign(index=at)
        .groupby(["tokens", "index"], as_index=False)
        .loss.mean()
        .rename({"loss": "value"}, axis=1)
    )


def cell(model: Compared, row: str, paths: pd.DataFrame) -> pd.DataFrame | str:
    """What stands in a cell of the model analysis table, or why it is empty."""
    if row == "paths":
        found = paths[paths.model == model.name]
        return found if len(found) else "not run: induction pertoken-pca RUNS"
    if row == "loss":
        loss = model.loss()
        return loss.rename("value").reset_index() if len(loss) else "not run: induction score RUN"
    if row == "loss_by_index":
        return binned_loss(model)
    if row == "loss_derivative":
        table = model.table("loss_derivative")
        return "not run: induction score RUN" if table is None else table.rename({"derivative": "value"}, axis=1)
    if row == "in_context_learning":
        table = model.table("in_context_learning")
        if table is None:
            return "not run: induction score RUN"
        return table[table.kind == "windowed"].rename({"in_context_learning_score": "value"}, axis=1)
    if row in ("prefix_matching", "qk_trace"):
        return head_curves(model, row)
    return removals(model, row)


def cells(models: list[Compared], paths: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """({row of the model analysis table: its data, with a `run` column}, the empty cells and why they are)."""
    found: dict[str, list[pd.DataFrame]] = {row: [] for row in plots.ROWS}
    absent = []
    for row, model in itertools.product(plots.ROWS, models):
        content = cell(model, row, paths)
        if isinstance(content, str):
            absent.append([model.name, row, content])
        else:
            found[row].append(content.assign(run=model.name))
    data = {row: pd.concat(parts, ignore_index=True) for row, parts in found.items() if parts}
    return data, pd.DataFrame(absent, columns=["run", "row", "note"])


# ------------------------------------------------------------------------------------------------ paths


def path_rooms(run_dirs: Sequence[str], models: list[Compared]) -> list[RunDir]:
    """Rooms of `induction pertoken-pca`: given, in a folder given, or in a run; those of most models first."""
    folders = [folder for path in map(Path, run_dirs) for folder in (path, path / "pertoken_pca")]
    folders += [model.run.path / "pertoken_pca" for model in models]
    rooms = {folder.resolve(): RunDir(folder) for folder in folders}
    found = [room for room in rooms.values() if room.table_file("runs").exists() and not room.damaged_tables()]
    return sorted(found, key=lambda room: -len(places(room, models)))


def places(room: RunDir, models: list[Compared]) -> dict[str, str]:
    """{name in the room's tables: name of the model here}."""
    ours = {model.run.path.resolve(): model.name for model in models}
    runs = [(row.run, (room.path / row.path).resolve()) for row in room.table("runs").itertuples()]
    return {name: ours[path] for name, path in runs if path in ours}


def path_rows(rooms: list[RunDir], models: list[Compared]) -> pd.DataFrame:
    """The paths of the room that has most of the models: planes of different rooms are different planes."""
    if not rooms:
        return pd.DataFrame(columns=["model", "tokens", "pc1", "pc2"])
    table = rooms[0].table("pertoken_pca")
    return table.assign(model=table.run.map(places(rooms[0], models))).dropna(subset="model")


def turn_rows(rooms: list[RunDir], models: list[Compared]) -> pd.DataFrame:
    """path_turns.csv: pairs of models whose turns were compared on the same tokens, under the names used here."""
    parts = [pd.DataFrame(columns=["kind", "run", "other", "correlation", "low", "high"])]
    for room in rooms[:1]:
        table, names = room.table("turn_pairs"), places(room, models)
        parts.append(table.assign(**{key: table[key].map(names) for key in ("run", "other")}))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True).dropna()


# ------------------------------------------------------------------------------------------------ continuity


def deep(table: pd.DataFrame) -> pd.DataFrame:
    """Models of two layers or more without smeared keys: those of which the paper says that the story is the same."""
    return table[(table.n_layers > 1) & (table.group != "smeared keys")]


def continuity_rows(table: pd.DataFrame) -> pd.DataFrame:
    """continuity.csv: how each quantity goes with size. Rank correlation with its 95% interval over models."""
    rows = []
    for quantity, size in itertools.product(QUANTITIES, SIZES):
        models = deep(table)
        models = (models[models.comparable] if quantity.endswith("loss") else models).dropna(subset=[quantity, size])
        x, y = (torch.tensor(models[name].to_numpy(float)) for name in (size, quantity))
        low, high = (models[quantity].agg(end) if len(models) else math.nan for end in ("min", "max"))
        rows.append(
            [quantity, size, len(models), *correlation(x, y, ranks=True, units="models"), low, high, high - low]
        )
    columns = ["quantity", "size", "models", "rank_correlation", "low", "high", "smallest", "largest", "spread"]
    return pd.DataFrame(rows, columns=columns)


def spread_rows(table: pd.DataFrame, models: list[Compared]) -> pd.DataFrame:
    """spreads.csv: per seed, largest less smallest score over the models that changed, before and after their windows.

    Models of one seed see the same text in the same order and are judged on the same held-out chains, which are drawn
    together; all seeds in one spread would make it grow with their number.
    """
    of = {model.name: model for model in models}
    changed = deep(table)[deep(table).comparable].dropna(subset="start_tokens")
    rows = []
    for seed, runs in changed.groupby("seed"):
        for when, edge in (("before", "start_tokens"), ("after", "end_tokens")):
            if len(runs) > 1:
                curves = [(of[row.run].by_chain(), getattr(row, edge)) for row in runs.itertuples()]
                at = [curve.iloc[np.abs(curve.index - tokens).argmin()].to_numpy() for curve, tokens in curves]
                values = torch.tensor(np.stack(at))
                rows.append([int(seed), when, " ".join(runs.run), len(runs), *spread(values)])
    return pd.DataFrame(rows, columns=["seed", "when", "runs", "models", "spread", "low", "high"])


def slope_between(curve: pd.DataFrame | pd.Series, start: float, end: float) -> Tensor:
    """d curve / d ln(tokens) over the snapshots from start to end."""
    rows = curve[(curve.index >= max(start, 1)) & (curve.index <= end)]
    return log_slope(torch.tensor(rows.index.to_numpy(float)), torch.tensor(rows.to_numpy(float)))


def speed_rows(table: pd.DataFrame, models: list[Compared]) -> pd.DataFrame:
    """learning_speed.csv: slopes over ln(tokens), for the paper's curiosities.

    score_slope: of the in-context learning score from the end of the window on, with its interval over chains.
    loss_slope_before and _after: of the loss, over the same stretches for all models of a kind: the last factor of two
    of training before the first of them changes, and all after the last one has.
    """
    of, rows = {model.name: model for model in models}, []
    changed = deep(table).dropna(subset="start_tokens")
    for _, kind in changed.groupby(["group", "text"], sort=False):
        start, end, last = kind.start_tokens.min(), kind.end_tokens.max(), kind.tokens.min()
        for row in kind.itertuples():
            model = of[row.run]
            by_chain, loss = slope_between(model.by_chain(), row.end_tokens, math.inf), model.loss()
            low, high = mean_interval(by_chain)
            stretches = {"before": (start / 2, start), "after": (end, last)}
            slopes = {f"loss_slope_{k}": slope_between(loss, *ends).item() for k, ends in stretches.items()}
            rows.append(
                {"run": row.run, "group": row.group, "n_layers": row.n_layers, "parameters": row.parameters}
                | {"seed": row.seed, "score_slope": by_chain.mean().item(), "low": low.item(), "high": high.item()}
                | slopes
                | {
                    f"{when}_{end}": at
                    for when, ends in stretches.items()
                    for end, at in zip(("from", "to"), ends, strict=True)
                }
            )
    columns = ["run", "group", "n_layers", "parameters", "seed", "score_slope", "low", "high"]
    columns += ["loss_slope_before", "loss_slope_after", "before_from", "before_to", "after_from", "after_to"]
    return pd.DataFrame(rows, columns=columns)


# ------------------------------------------------------------------------------------------------ the room


def show(table: pd.DataFrame, continuity: pd.DataFrame, room: RunDir) -> None:
    """The summary on the terminal."""
    console = Console()
    title = "Models compared (heads: how many are induction heads; scores in nats)"
    names = ("kind", "model", "seed", "window,\ntokens", "score\nbefore", "after", "end", "heads")
    shown = new_table(title, names, left=("kind", "model"))
    for kind, rows in table.groupby("group", sort=False):
        for place, row in enumerate(rows.itertuples()):
            found = pd.notna(row.start_tokens)
            shown.add_row(
                "" if place else str(kind),
                str(row.column),
                f"{row.seed:.0f}" if pd.notna(row.seed) else "-",
                f"{short(row.start_tokens)}-{short(row.end_tokens)}" if found else "none",
                signed(row.score_before) if found else "-",
                signed(row.score_after) if found else "-",
                signed(row.final_score) if pd.notna(row.final_score) else "-",
                f"{row.induction_heads:.0f}/{row.heads:.0f}" if pd.notna(row.heads) else "-",
            )
    print_table(shown, console)
    for row in continuity[continuity["size"] == "parameters"].dropna(subset="rank_correlation").itertuples():
        say(
            f"{plots.QUANTITIES[row.quantity]}: {row.smallest:.3g} to {row.largest:.3g} over {row.models} models; rank "
            f"correlation with size {row.rank_correlation:+.2f} {within_run(row.low, row.high, signed, 'models')}",
            console,
        )
    for row in table[~table.comparable].itertuples():
        say(f"{row.run}: {row.note}", console)
    for kind in ("tables", "plots"):
        say(f"{kind:<7} {relative(room.path / kind)}", console)


def run(config: CompareConfig, out_dir: Path) -> float:
    """Compare runs from their tables; returns in how many a phase change was found."""
    config.check()
    room = RunDir(out_dir)
    models = find_models(config.run_dirs, say)
    table, rooms = model_rows(models, room), path_rooms(config.run_dirs, models)
    data, absent = cells(models, path_rows(rooms, models))
    tables = {
        "models": table,
        "absent": absent,
        "continuity": continuity_rows(table),
        "spreads": spread_rows(table, models),
        "learning_speed": speed_rows(table, models),
        "path_turns": turn_rows(rooms, models),
    }
    read = [folder for model in models for folder in (model.run, *map(model.run.folder, READ))]
    with writing(room, "compare", config, tables_behind([*read, *rooms], room)) as meta:
        for name, rows in tables.items():
            room.write_table(name, rows)
        for drawn in (room.path / "plots").glob("*"):  # of an earlier call, which may have had more to show
            drawn.unlink()
        for name, figure in plots.figures(table, data, absent, config.columns):
            room.write_plot(name, figure)
        if deep(table)[list(plots.QUANTITIES)].notna().any(axis=None):
            room.write_plot("continuity", plots.continuity(deep(table), tables["continuity"]))
        if len(tables["learning_speed"]):
            room.write_plot("learning_speed", plots.learning_speed(tables["learning_speed"]))
        if len(tables["path_turns"]):
            room.write_plot("path_turns", plots.path_turns(tables["path_turns"]))
        meta["headline"] = float(table.start_tokens.notna().sum())
    show(table, tables["continuity"], room)
    return meta["headline"]

"""Line 3: remove heads, one by one and together, at every snapshot; does in-context learning go?

The work is a list of (snapshot, kind, batch) items. Each writes a small file below <run>/ablate/parts/, so a stopped
sweep goes on where it was and several jobs can share one; whoever finds all parts there makes the tables.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from induction_cli.config import AblateConfig, ConfigError, EvaluationConfig, require
from induction_cli.device import choose_threads
from induction_cli.evaluation.rows import score_rows
from induction_cli.evaluation.scores import HeldOut, final_head_types, head_scores, logits_at, mean_z
from induction_cli.evaluation.sources import Moment, Source, sources_of, weights_behind
from induction_cli.measures.equal_damage import losses_at_equal_damage, scaled_losses
from induction_cli.measures.intervals import correlation, group_means, mean_interval
from induction_cli.models.protocol import Model, Question, check_ablations, single_heads
from induction_cli.plots.ablate import ablation_scatter
from induction_cli.plots.score import head_mosaic, in_steps
from induction_cli.plots.training import head_scores_over_tokens
from induction_cli.runs.results import results_folders, writing
from induction_cli.runs.run_dir import RunDir, RunError, relative
from induction_cli.runs.tensors import read_tensors, write_tensors
from induction_cli.terminal import say, within_run

SIZES = ("n_examples", "batch_size", "random_tokens", "draws", "n_ctx")
FEW_SETS = 19  # so few random sets are all tried, however few were asked for (claims, fixed beforehand)
TIED_TO_THE_RESULT = ("kinds", "heads", "early_index", "late_index", "seed", *SIZES)


@dataclass(frozen=True)
class Item:
    snapshot: Moment
    kind: str
    batch: int

    @property
    def name(self) -> str:
        return f"step_{self.snapshot.step:06d}_{self.kind}_{self.batch:03d}.safetensors"


@dataclass(frozen=True)
class Columns:
    """Which columns of an example are evaluated: those around both indices, then random ones; [example, column]."""

    at: Tensor
    width: int  # of the window around each index, 2 * half_width + 1

    def score(self, losses: Tensor) -> Tensor:
        """Windowed in-context learning score [..., example] from losses [..., example, column]."""
        late, early = losses[..., self.width : 2 * self.width], losses[..., : self.width]
        return late.mean(-1) - early.mean(-1)

    def exact_score(self, losses: Tensor) -> Tensor:
        middle = self.width // 2
        return losses[..., self.width + middle] - losses[..., middle]

    def random(self, losses: Tensor) -> Tensor:
        """The random tokens' losses [..., example, token]."""
        return losses[..., 2 * self.width :]


def choose_columns(evaluation: EvaluationConfig, n_ctx: int, config: AblateConfig) -> Columns:
    early, late = evaluation.early_index, evaluation.late_index
    half = min(evaluation.half_width, early - 1, n_ctx - late)
    around = torch.arange(-half, half + 1)
    fixed = torch.cat((early - 1 + around, late - 1 + around)).expand(config.n_examples, -1)
    generator = torch.Generator().manual_seed(config.seed)
    drawn = torch.randint(n_ctx, (config.n_examples, config.random_tokens), generator=generator)
    return Columns(torch.cat((fixed, drawn), 1), 2 * half + 1)


def joint_sets(types: pd.DataFrame, draws: int, seed: int) -> dict[str, list[list[tuple[int, int]]]]:
    """All induction heads, all previous-token heads, and random sets of as many of the other heads as the first has.

    All such sets where there are no more than `draws`, and in any case where there are no more than FEW_SETS.
    """
    of = {
        kind: list(rows[["layer", "head"]].itertuples(index=False, name=None))
        for kind, rows in types.groupby("head_type")
    }
    induction = of.get("induction", [])
    others = [head for kind, heads in of.items() if kind != "induction" for head in heads]
    size = min(len(induction), len(others))
    if not size:
        return {}
    random = np.random.default_rng(seed)
    if math.comb(len(others), size) <= max(draws, FEW_SETS):
        sets = [list(some) for some in itertools.combinations(others, size)]
    else:
        sets = [[others[i] for i in random.choice(len(others), size, replace=False)] for _ in range(draws)]
    named = {"induction": [induction], "random": sets}
    return named | ({"previous_token": [of["previous_token"]]} if "previous_token" in of else {})


def ablations_of(item_snapshot: Moment, last: Moment, model: Model, config: AblateConfig, joint: dict) -> list:
    """What is removed at a snapshot: the set asked for, or each head, and at the last snapshot the joint sets too."""
    if config.heads:
        return [[(layer, head) for layer, head in config.heads]]
    alone = single_heads(model.n_layers, model.n_heads)
    together = [some for sets in joint.values() for some in sets] if item_snapshot.step == last.step else []
    return [*alone, *together]


def key_of(source: Source, config: AblateConfig) -> str:
    """Parts made under other settings, or of other weights, are not ours."""
    settings = {name: asdict(config)[name] for name in TIED_TO_THE_RESULT}
    runs = source.room.snapshots() if source.room else []
    weights = [(s.step, s.path.stat().st_size, s.path.stat().st_mtime_ns) for s in runs]
    return hashlib.sha256(json.dumps([settings, weights]).encode()).hexdigest()[:16]


def heads_seen(source: Source, chosen: list[Moment], held_out: HeldOut, n_sequences: int) -> pd.DataFrame:
    """step, tokens, layer, head, measure, value of the chosen snapshots and the last: training saw a run's already."""
    if source.room:
        return source.room.table("head_scores")
    moments = {moment.step: moment for moment in [*chosen, source.snapshots[-1]]}.values()
    rows = [score_rows(head_scores(source.load(m), held_out, n_sequences), source.at(m)) for m in moments]
    return pd.concat(rows, ignore_index=True)


def sweep(source: Source, room: RunDir, config: AblateConfig) -> None:
    """Compute this shard's items; when all are there, write tables and plots."""
    evaluation, n_ctx = source.evaluation(config), source.n_ctx(config)
    held_out = source.held_out(evaluation, n_ctx)
    columns = choose_columns(evaluation, n_ctx, config)
    chosen, last = source.choose(config.snapshot), source.snapshots[-1]
    final = source.load(last)
    try:
        check_ablations(final, [[(layer, head) for layer, head in config.heads]], "full", None)
    except ValueError as error:
        raise ConfigError(f"heads: {error}") from error
    seen = heads_seen(source, chosen, held_out, evaluation.n_sequences)
    types = final_head_types(seen, final)
    joint = {} if config.heads else joint_sets(types, config.draws, config.seed)

    parts = room.path / "parts" / key_of(source, config)
    asked, config = config, replace(config, batch_size=config.batch_size or (64 if source.room else 1))
    batches = range(-(-config.n_examples // config.batch_size))
    items = [Item(snapshot, kind, batch) for snapshot in chosen for kind in config.kinds for batch in batches]
    mine = [item for i, item in enumerate(items) if i % config.shards == config.shard]
    todo = [item for item in mine if not (parts / item.name).exists()]
    for (snapshot, kind), group in itertools.groupby(
        track(todo, f"ablating {source.name}", transient=True, disable=not Console().is_terminal),
        lambda item: (item.snapshot, item.kind),
    ):
        model = source.load(snapshot)
        size = model.batch_that_fits(n_ctx, config.memory_gb, own=config.batch_size)
        means = mean_z(model, held_out.windows[:, :-1], size) if kind == "mean" else None
        removed = ablations_of(snapshot, last, model, config, joint)
        for item in group:
            rows = slice(item.batch * config.batch_size, (item.batch + 1) * config.batch_size)
            question = Question(held_out.windows[rows], removed, kind, columns.at[rows], means)
            losses = model.losses_without(question, config.memory, config.memory_gb)
            write_tensors(parts / item.name, {"clean": losses.clean, "ablated": losses.ablated}, {})
    if all((parts / item.name).exists() for item in items):
        with writing(room, "ablate", asked, weights_behind([source], room)) as meta:
            write_results(Sweep(source, room, config, columns, held_out, chosen, parts, types, joint), seen)
            meta["headline"] = headline(room.table("ablation"))
        shutil.rmtree(parts.parent, ignore_errors=True)


@dataclass(frozen=True)
class Sweep:
    """What the tables are made from, besides the parts."""

    source: Source
    room: RunDir
    config: AblateConfig
    columns: Columns
    held_out: HeldOut
    chosen: list[Moment]
    parts: Path
    types: pd.DataFrame
    joint: dict[str, list[list[tuple[int, int]]]]

    def losses(self, snapshot: Moment, kind: str) -> tuple[Tensor, Tensor]:
        """(clean [example, column], ablated [ablation, example, column]) of one snapshot and kind."""
        batches = range(-(-self.config.n_examples // self.config.batch_size))
        found = [read_tensors(self.parts / Item(snapshot, kind, batch).name) for batch in batches]
        return torch.cat([part["clean"] for part in found]), torch.cat([part["ablated"] for part in found], 1)

    def change(self, units: Tensor) -> tuple[float, float, float]:
        """Mean over examples [example] and its paired 95% interval over chains."""
        low, high = mean_interval(group_means(units, self.held_out.chain))
        return units.mean().item(), low.item(), high.item()

    def sum(self, products: Tensor) -> tuple[float, float, float]:
        """Sum over examples [example] and its 95% interval over chains."""
        mean, low, high = self.change(products)
        return mean * len(products), low * len(products), high * len(products)


def phase_changes(source: Source) -> pd.DataFrame:
    """The windows that training found; a pretrained model has none here."""
    return source.room.table("phase_change") if source.room else pd.DataFrame(columns=["start_tokens", "end_tokens"])


def before_after_vector(found: Sweep, kind: str) -> Tensor | None:
    """Random-token losses at the phase change's end minus its start, unit length, [example, token]; paper.md 4.8."""
    windows = phase_changes(found.source)
    if windows.empty or len(found.chosen) < 2:
        return None
    edges = (windows.start_tokens.iloc[0], windows.end_tokens.iloc[0])
    start, end = (
        found.columns.random(found.losses(min(found.chosen, key=lambda s: abs(s.tokens - edge)), kind)[0])
        for edge in edges
    )
    difference = end - start
    return difference / difference.norm() if difference.norm() > 0 else None


@dataclass(frozen=True)
class Changes:
    """What each ablation of one snapshot and kind changed, in nats; examples are columns."""

    score: Tensor  # of the windowed in-context learning score, [ablation, example]
    exact: Tensor  # of the exact one, [ablation, example]
    random: Tensor  # of the random tokens' losses, [ablation, example, token]
    score_before: float  # windowed, of the whole model


def changes_of(found: Sweep, snapshot: Moment, kind: str) -> Changes:
    (clean, ablated), columns = found.losses(snapshot, kind), found.columns
    return Changes(
        columns.score(ablated) - columns.score(clean),
        columns.exact_score(ablated) - columns.exact_score(clean),
        columns.random(ablated) - columns.random(clean),
        columns.score(clean).mean().item(),
    )


def removed_first(found: Sweep) -> list[dict[str, int]]:
    """layer and head of the ablations that come first: the set that was asked for (-1), or every head alone."""
    if found.config.heads:
        return [{"layer": -1, "head": -1}]
    return [{"layer": layer, "head": head} for layer, head in found.types[["layer", "head"]].itertuples(index=False)]


def ablation_rows(found: Sweep, changes: Changes, at: dict, direction: Tensor | None) -> list[dict]:
    """Rows of ablation.csv: each change with its interval; before_after along `direction`, where there is one."""
    rows, loss = [], changes.random.mean(-1)
    for i, who in enumerate(removed_first(found)):
        back = (math.nan, math.nan, math.nan)
        if direction is not None:
            back = found.sum((changes.random[i] * direction).sum(-1))
        columns = {
            ("in_context_learning_change", "low", "high"): found.change(changes.score[i]),
            ("exact_change", "exact_low", "exact_high"): found.change(changes.exact[i]),
            ("loss_change", "loss_low", "loss_high"): found.change(loss[i]),
            ("before_after", "before_after_low", "before_after_high"): back,
        }
        row = at | who
        for names, numbers in columns.items():
            row |= dict(zip(names, numbers, strict=True))
        rows.append(row)
    return rows


def equal_damage(found: Sweep, direction: Tensor | None) -> Callable[[float], float]:
    """Of nats lost: the dot product with the before-and-after vector that scaled logits have when they lose as many.

    nan where there is no vector, or no such scale.
    """
    if direction is None:
        return lambda nats: math.nan
    last, at = found.chosen[-1], found.columns.random(found.columns.at)
    windows = found.held_out.windows[: found.config.n_examples]
    logits, targets = logits_at(found.source.load(last), windows, at, found.config.batch_size)
    clean = scaled_losses(logits, targets, 1.0)

    def product(nats: float) -> float:
        scaled = losses_at_equal_damage(logits, targets, nats)
        return math.nan if scaled is None else ((scaled - clean) * direction).sum().item()

    return product


def control_rows(found: Sweep, heads: list[dict], direction: Tensor | None) -> list[dict]:
    """The rows of ablation.csv with the control of each induction head at the last snapshot; nan for all others."""
    types = found.types.set_index(["layer", "head"]).head_type
    product = equal_damage(found, direction)

    def judged(row: dict) -> bool:
        who = (row["layer"], row["head"])
        return row["step"] == found.chosen[-1].step and types.get(who) == "induction"

    return [row | {"before_after_control": product(row["loss_change"]) if judged(row) else math.nan} for row in heads]


def chain_rows(found: Sweep, changes: Changes, at: dict) -> list[dict]:
    """Rows of ablation_by_chain.csv: the change of the score in each chain of examples."""
    return [
        at | who | {"chain": chain, "in_context_learning_change": value}
        for i, who in enumerate(removed_first(found))
        for chain, value in enumerate(group_means(changes.score[i], found.held_out.chain).tolist())
    ]


def set_rows(found: Sweep, changes: Changes, at: dict) -> list[dict]:
    """Rows of sets.csv: heads removed together, which is done at the last snapshot only."""
    together = changes.score[len(removed_first(found)) :]
    named = [(name, heads) for name, sets in found.joint.items() for heads in sets]
    rows = []
    for (name, heads), change in zip(named, together, strict=False):  # none together at earlier snapshots
        value, low, high = found.change(change)
        label = " ".join(f"L{layer}H{head}" for layer, head in heads)
        rows.append(
            {**at, "set": name, "heads": label, "n_heads": len(heads), "score": changes.score_before}
            | {"in_context_learning_change": value, "low": low, "high": high}
        )
    return rows


SETS = ["step", "tokens", "kind", "set", "heads", "n_heads", "score", "in_context_learning_change", "low", "high"]


def write_results(found: Sweep, seen: pd.DataFrame) -> None:
    """Tables from the parts, plots from the tables."""
    types, room = found.types, found.room
    heads, chains, sets = [], [], []
    for kind in found.config.kinds:
        direction, alone = before_after_vector(found, kind), []
        for snapshot in found.chosen:
            changes, at = changes_of(found, snapshot, kind), found.source.at(snapshot) | {"kind": kind}
            alone += ablation_rows(found, changes, at, direction)
            chains += chain_rows(found, changes, at)
            sets += set_rows(found, changes, at)
        heads += control_rows(found, alone, direction)
    scores = seen.query("measure == 'prefix_matching'")[["step", "layer", "head", "value"]]
    scores = scores.rename(columns={"value": "prefix_matching"})
    table = pd.DataFrame(heads).merge(types, on=["layer", "head"], how="left")
    room.write_table("ablation", table.merge(scores, on=["step", "layer", "head"], how="left"))
    room.write_table("ablation_by_chain", pd.DataFrame(chains).merge(types, on=["layer", "head"], how="left"))
    room.write_table("sets", pd.DataFrame(sets, columns=SETS))
    room.write_table("head_types", types)
    if not found.config.heads:
        room.write_table("correlations", correlation_rows(room.table("ablation")))
        draw(found.source, room)


def correlation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation over heads of prefix matching with the change, at the last snapshot, per kind."""
    last = table[table.step == table.step.max()]
    rows = []
    for kind, heads in last.groupby("kind"):
        x, y = (torch.tensor(heads[name].to_numpy()) for name in ("prefix_matching", "in_context_learning_change"))
        value, low, high = correlation(x, y, ranks=True)
        rows.append({"kind": kind, "heads": len(heads), "rank_correlation": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def draw(source: Source, room: RunDir) -> None:
    table, windows = room.table("ablation"), phase_changes(source)
    for kind, rows in table.groupby("kind"):
        if rows.step.nunique() > 1:
            for column in ("in_context_learning_change", "before_after"):
                if rows[column].notna().any():
                    lines = rows.assign(measure=column, value=rows[column])
                    figure = head_scores_over_tokens(lines, column, windows)
                    room.write_plot(f"{column}_{kind}", in_steps(figure) if source.time == "steps" else figure)
        last = rows[rows.step == rows.step.max()]
        mosaic = last.assign(measure="in_context_learning_change", value=last.in_context_learning_change)
        room.write_plot(f"mosaic_{kind}", head_mosaic(mosaic, "in_context_learning_change"))
        room.write_plot(f"prefix_matching_{kind}", ablation_scatter(last))


def carried(heads: pd.DataFrame) -> float:
    """Share of the positive changes of the heads, removed one by one, that is the induction heads'; nan: none."""
    positive = heads.in_context_learning_change.clip(lower=0)
    return positive[heads.head_type == "induction"].sum() / positive.sum() if positive.sum() > 0 else math.nan


def headline(table: pd.DataFrame) -> float:
    """`carried` at the last snapshot, of the last kind; nan where heads were removed together."""
    if (table.layer < 0).any():
        return math.nan
    last = table[table.step == table.step.max()]
    return float([carried(heads) for _, heads in last.groupby("kind")][-1])


def count(n: int) -> str:
    return "1 induction head carries" if n == 1 else f"{n} induction heads carry"


def show(source: Source, room: RunDir, config: AblateConfig) -> None:
    """The verdict lines of one source."""
    console, table = Console(), room.table("ablation")
    last = table[table.step == table.step.max()]
    for kind, heads in last.groupby("kind"):
        if config.heads:
            row = heads.iloc[0]
            console.print(
                f"{source.name}, {kind}: without {config.heads} the in-context learning score changes by "
                f"{row.in_context_learning_change:+.3f} nats {within_run(row.low, row.high)}, "
                f"the loss by {row.loss_change:+.3f}",
                highlight=False,
                soft_wrap=True,
            )
            continue
        n_induction, share = int((heads.head_type == "induction").sum()), carried(heads)
        correlated = room.table("correlations").set_index("kind").loc[kind]
        console.print(
            f"{source.name}, {kind}: {count(n_induction)} {share:.0%} of the positive changes; "
            f"rank correlation with prefix matching {correlated.rank_correlation:+.2f}",
            highlight=False,
            soft_wrap=True,
        )
        sets = room.table("sets").query("kind == @kind")
        for name, rows in sets.groupby("set"):
            values = rows.in_context_learning_change
            said = (
                f"{values.mean():+.3f} nats, {len(rows)} sets from {values.min():+.3f} to {values.max():+.3f}"
                if name == "random"
                else f"{values.iloc[0]:+.3f} nats {within_run(rows.low.iloc[0], rows.high.iloc[0])}"
            )
            console.print(
                f"  all {name} heads together: {said}".replace("all random", "as many random other"),
                highlight=False,
                soft_wrap=True,
            )
    say(f"  plots   {relative(room.path / 'plots')}", console)


def shared_folder(config: AblateConfig, out_dir: Path) -> Path:
    """Jobs of a sweep that share the work on a run write into the sweep's folder."""
    swept = (out_dir.parent / "multirun.yaml").exists()  # Hydra's mark of a sweep
    return out_dir.parent if config.shards > 1 and swept else out_dir


def run(config: AblateConfig, out_dir: Path) -> float:
    """Ablate a source, or every run of a folder; returns the headline of the last, nan while other shards are at it."""
    config.check()
    choose_threads(config.threads)
    sources, found = sources_of(config), math.nan
    for source in sources:
        source.choose(config.snapshot)
        if source.room and (status := source.room.meta().get("status")) != "done":
            raise RunError(f"'{source.room.path}' is {status}; finish it with induction train --resume")
        shared = f"shards is {config.shards}; only the work on a run can be shared, {source.name} is no run"
        require(source.room is not None or config.shards == 1, shared)
    rooms = results_folders([source.room for source in sources], shared_folder(config, out_dir), "ablate")
    for source, room in zip(sources, rooms, strict=True):
        sweep(source, room, config)
        if room.table_file("ablation").exists():
            show(source, room, config)
            found = headline(room.table("ablation"))
    return found

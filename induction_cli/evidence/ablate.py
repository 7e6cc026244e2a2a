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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from induction_cli import ablation
from induction_cli.config import AblateConfig, ConfigError, EvaluationConfig
from induction_cli.data import CHAIN, open_corpus
from induction_cli.device import choose_device, choose_threads
from induction_cli.evaluation import final_head_types, load_snapshot, mean_z, open_held_out
from induction_cli.measures.intervals import correlation, group_means, mean_interval
from induction_cli.model import Transformer
from induction_cli.plots.ablate import ablation_scatter
from induction_cli.plots.score import head_mosaic
from induction_cli.plots.training import head_scores_over_tokens
from induction_cli.run_dir import RunDir, RunError, Snapshot, read_tensors, relative, write_tensors

TIED_TO_THE_RESULT = ("kinds", "heads", "n_examples", "batch_size", "random_tokens", "draws", "seed")


@dataclass(frozen=True)
class Item:
    snapshot: Snapshot
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

    All such sets where there are no more than `draws`.
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
    if math.comb(len(others), size) <= draws:
        sets = [list(some) for some in itertools.combinations(others, size)]
    else:
        sets = [[others[i] for i in random.choice(len(others), size, replace=False)] for _ in range(draws)]
    named = {"induction": [induction], "random": sets}
    return named | ({"previous_token": [of["previous_token"]]} if "previous_token" in of else {})


def ablations_of(
    item_snapshot: Snapshot, last: Snapshot, model: Transformer, config: AblateConfig, joint: dict
) -> list:
    """What is removed at a snapshot: the set asked for, or each head, and at the last snapshot the joint sets too."""
    if config.heads:
        return [[(layer, head) for layer, head in config.heads]]
    alone = ablation.single_heads(model.config.n_layers, model.config.n_heads)
    together = [some for sets in joint.values() for some in sets] if item_snapshot.step == last.step else []
    return [*alone, *together]


def key_of(run: RunDir, config: AblateConfig) -> str:
    """Parts made under other settings, or of other weights, are not ours."""
    settings = {name: asdict(config)[name] for name in TIED_TO_THE_RESULT}
    weights = [(s.step, s.path.stat().st_size, s.path.stat().st_mtime_ns) for s in run.snapshots()]
    return hashlib.sha256(json.dumps([settings, weights]).encode()).hexdigest()[:16]


def sweep(run: RunDir, config: AblateConfig) -> None:
    """Compute this shard's items; when all are there, write tables and plots."""
    trained, room = run.config(), run.folder("ablate")
    evaluation = EvaluationConfig(**{**vars(trained.evaluation), "n_examples": config.n_examples, "seed": config.seed})
    corpus = open_corpus(trained.data, trained.model.d_vocab)
    held_out = open_held_out(corpus, trained.model.n_ctx, evaluation)
    columns = choose_columns(evaluation, trained.model.n_ctx, config)
    chosen, last = run.choose_snapshots(config.snapshot), run.choose_snapshots("last")[0]
    device = choose_device(config.device)
    final = load_snapshot(run, last, device)
    try:
        ablation.check(final, [[(layer, head) for layer, head in config.heads]], "full", None)
    except ValueError as error:
        raise ConfigError(f"heads: {error}") from error
    types = final_head_types(run, final)
    joint = {} if config.heads else joint_sets(types, config.draws, config.seed)

    parts = room.path / "parts" / key_of(run, config)
    batches = range(-(-config.n_examples // config.batch_size))
    items = [Item(snapshot, kind, batch) for snapshot in chosen for kind in config.kinds for batch in batches]
    mine = [item for i, item in enumerate(items) if i % config.shards == config.shard]
    todo = [item for item in mine if not (parts / item.name).exists()]
    for (snapshot, kind), group in itertools.groupby(
        track(todo, f"ablating {run.name}", transient=True, disable=not Console().is_terminal),
        lambda item: (item.snapshot, item.kind),
    ):
        model = load_snapshot(run, snapshot, device)
        means = mean_z(model, held_out.windows[:, :-1], config.batch_size) if kind == "mean" else None
        removed = ablations_of(snapshot, last, model, config, joint)
        for item in group:
            rows = slice(item.batch * config.batch_size, (item.batch + 1) * config.batch_size)
            windows, at = held_out.windows[rows].to(device), columns.at[rows].to(device)
            losses = ablation.fast(model, windows, removed, kind, at, means, memory=config.memory)
            write_tensors(parts / item.name, {"clean": losses.clean, "ablated": losses.ablated}, {})
    if all((parts / item.name).exists() for item in items):
        write_results(run, room, config, columns, chosen, parts, types, joint, batches)
        shutil.rmtree(parts.parent, ignore_errors=True)


def gather(parts: Path, snapshot: Snapshot, kind: str, batches: range) -> tuple[Tensor, Tensor]:
    """(clean [example, column], ablated [ablation, example, column]) of one snapshot and kind."""
    found = [read_tensors(parts / Item(snapshot, kind, batch).name) for batch in batches]
    return torch.cat([part["clean"] for part in found]), torch.cat([part["ablated"] for part in found], 1)


def before_after_vector(
    run: RunDir, parts: Path, columns: Columns, snapshots: list[Snapshot], kind: str, batches: range
) -> Tensor | None:
    """Random-token losses at the phase change's end minus its start, unit length, [example, token]; paper.md 4.8."""
    windows = run.table("phase_change")
    if windows.empty or len(snapshots) < 2:
        return None
    edges = (windows.start_tokens.iloc[0], windows.end_tokens.iloc[0])
    start, end = (min(snapshots, key=lambda s: abs(s.tokens - edge)) for edge in edges)
    difference = columns.random(gather(parts, end, kind, batches)[0]) - columns.random(
        gather(parts, start, kind, batches)[0]
    )
    return difference / difference.norm() if difference.norm() > 0 else None


def change_row(change: Tensor) -> tuple[float, float, float]:
    """Mean over examples [example] and its paired 95% interval over chains."""
    low, high = mean_interval(group_means(change, CHAIN))
    return change.mean().item(), low.item(), high.item()


def sum_row(products: Tensor) -> tuple[float, float, float]:
    """Sum over examples [example] and its 95% interval over chains."""
    mean, low, high = change_row(products)
    return mean * len(products), low * len(products), high * len(products)


def write_results(run, room, config, columns, chosen, parts, types, joint, batches) -> None:
    """Tables from the parts, plots from the tables."""
    rows, chain_rows, set_rows = [], [], []
    n_single = 1 if config.heads else len(types)
    for kind in config.kinds:
        direction = before_after_vector(run, parts, columns, chosen, kind, batches)
        for snapshot in chosen:
            clean, ablated = gather(parts, snapshot, kind, batches)
            at = {"step": snapshot.step, "tokens": snapshot.tokens, "kind": kind}
            change = columns.score(ablated) - columns.score(clean)  # [ablation, example]
            exact = columns.exact_score(ablated) - columns.exact_score(clean)
            losses = columns.random(ablated) - columns.random(clean)  # [ablation, example, token]
            for i in range(n_single):
                who = {"layer": -1, "head": -1} if config.heads else types.iloc[i][["layer", "head"]].to_dict()
                score, exactly, loss = (change_row(values[i]) for values in (change, exact, losses.mean(-1)))
                back = sum_row((losses[i] * direction).sum(-1)) if direction is not None else (math.nan,) * 3
                rows.append(
                    {**at, **who}
                    | dict(zip(("in_context_learning_change", "low", "high"), score, strict=True))
                    | dict(zip(("exact_change", "exact_low", "exact_high"), exactly, strict=True))
                    | dict(zip(("loss_change", "loss_low", "loss_high"), loss, strict=True))
                    | dict(zip(("before_after", "before_after_low", "before_after_high"), back, strict=True))
                )
                by_chain = group_means(change[i], CHAIN).tolist()
                chain_rows += [
                    {**at, **who, "chain": c, "in_context_learning_change": v} for c, v in enumerate(by_chain)
                ]
            named = [(name, heads) for name, sets in joint.items() for heads in sets]
            for i, (name, heads) in enumerate(named[: len(ablated) - n_single], n_single):
                value, low, high = change_row(change[i])
                label = " ".join(f"L{layer}H{head}" for layer, head in heads)
                score = columns.score(clean).mean().item()
                set_rows.append(
                    {**at, "set": name, "heads": label, "n_heads": len(heads), "score": score}
                    | {"in_context_learning_change": value, "low": low, "high": high}
                )
    scores = run.table("head_scores").query("measure == 'prefix_matching'")[["step", "layer", "head", "value"]]
    table = pd.DataFrame(rows).merge(types, on=["layer", "head"], how="left")
    table = table.merge(scores.rename(columns={"value": "prefix_matching"}), on=["step", "layer", "head"], how="left")
    room.write_table("ablation", table)
    room.write_table("ablation_by_chain", pd.DataFrame(chain_rows).merge(types, on=["layer", "head"], how="left"))
    names = ["step", "tokens", "kind", "set", "heads", "n_heads", "score", "in_context_learning_change", "low", "high"]
    room.write_table("sets", pd.DataFrame(set_rows, columns=names))
    room.write_table("head_types", types)
    if not config.heads:
        room.write_table("correlations", correlation_rows(room.table("ablation")))
        draw(run, room)


def correlation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation over heads of prefix matching with the change, at the last snapshot, per kind."""
    last = table[table.step == table.step.max()]
    rows = []
    for kind, heads in last.groupby("kind"):
        x, y = (torch.tensor(heads[name].to_numpy()) for name in ("prefix_matching", "in_context_learning_change"))
        value, low, high = correlation(x, y, ranks=True)
        rows.append({"kind": kind, "heads": len(heads), "rank_correlation": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def draw(run: RunDir, room: RunDir) -> None:
    table, windows = room.table("ablation"), run.table("phase_change")
    for kind, rows in table.groupby("kind"):
        if rows.step.nunique() > 1:
            for column in ("in_context_learning_change", "before_after"):
                if rows[column].notna().any():
                    lines = rows.assign(measure=column, value=rows[column])
                    room.write_plot(f"{column}_{kind}", head_scores_over_tokens(lines, column, windows))
        last = rows[rows.step == rows.step.max()]
        mosaic = last.assign(measure="in_context_learning_change", value=last.in_context_learning_change)
        room.write_plot(f"mosaic_{kind}", head_mosaic(mosaic, "in_context_learning_change"))
        room.write_plot(f"prefix_matching_{kind}", ablation_scatter(last))


def count(n: int) -> str:
    return "1 induction head carries" if n == 1 else f"{n} induction heads carry"


def say(run: RunDir, room: RunDir, config: AblateConfig) -> float:
    """The verdict lines of one run; returns the share of the in-context learning carried by induction heads."""
    console, table, share = Console(), room.table("ablation"), math.nan
    last = table[table.step == table.step.max()]
    for kind, heads in last.groupby("kind"):
        if config.heads:
            row = heads.iloc[0]
            console.print(
                f"{run.name}, {kind}: without {config.heads} the in-context learning score changes by "
                f"{row.in_context_learning_change:+.3f} nats [{row.low:+.3f}, {row.high:+.3f}], "
                f"the loss by {row.loss_change:+.3f}",
                highlight=False,
                soft_wrap=True,
            )
            continue
        positive = heads.in_context_learning_change.clip(lower=0)
        induction = heads.head_type == "induction"
        share = positive[induction].sum() / positive.sum() if positive.sum() > 0 else math.nan
        correlated = room.table("correlations").set_index("kind").loc[kind]
        console.print(
            f"{run.name}, {kind}: {count(int(induction.sum()))} {share:.0%} of the positive changes; "
            f"rank correlation with prefix matching {correlated.rank_correlation:+.2f} "
            f"[{correlated.low:+.2f}, {correlated.high:+.2f}]",
            highlight=False,
            soft_wrap=True,
        )
        sets = room.table("sets").query("kind == @kind")
        for name, rows in sets.groupby("set"):
            values = rows.in_context_learning_change
            said = (
                f"{values.mean():+.3f} nats, 95% of {len(rows)} sets within "
                f"[{values.quantile(0.025):+.3f}, {values.quantile(0.975):+.3f}]"
                if name == "random"
                else f"{values.iloc[0]:+.3f} nats [{rows.low.iloc[0]:+.3f}, {rows.high.iloc[0]:+.3f}]"
            )
            console.print(
                f"  all {name} heads together: {said}".replace("all random", "as many random other"),
                highlight=False,
                soft_wrap=True,
            )
    console.print(f"  plots   {relative(room.path / 'plots')}", highlight=False, soft_wrap=True)
    return float(share)


def run(config: AblateConfig, out_dir: Path) -> float:
    """Ablate a run, or every run of a folder, below <run>/ablate/; returns the last run's share (see `say`)."""
    config.check()
    choose_threads(config.threads)
    runs, share = RunDir.find(config.run_dir), math.nan
    for found in runs:
        if found.meta().get("status") != "done":
            raise RunError(f"'{found.path}' is {found.meta().get('status')}; finish it with induction train --resume")
        found.choose_snapshots(config.snapshot)
    for found in runs:
        sweep(found, config)
        if (found.folder("ablate").table_file("ablation")).exists():
            share = say(found, found.folder("ablate"), config)
    return share

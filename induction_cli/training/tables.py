"""The tables that grow while a model trains, and the rows that a run which goes on must have in them already."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import TrainConfig
from induction_cli.data import CHAIN
from induction_cli.evaluation.rows import chain_rows, index_rows, learning_rows, score_rows
from induction_cli.evaluation.scores import HeldOut, head_scores, held_out_losses, load_snapshot
from induction_cli.models.protocol import Model
from induction_cli.runs.run_dir import RunDir, RunError
from induction_cli.runs.tables import Table
from induction_cli.terminal import say

log = logging.getLogger(__name__)

MEASURED = ("in_context_learning", "by_chain", "loss_by_index", "head_scores")  # at every snapshot, of its weights
TABLES = ("training", *MEASURED)
MEASURES = 2  # of every head: prefix matching, previous token


def measured(model: Model, held_out: HeldOut, config: TrainConfig, at: dict) -> tuple[Tensor, dict[str, pd.DataFrame]]:
    """(losses on the held-out windows, the rows of a snapshot by table). at: its step and tokens."""
    losses = held_out_losses(model, held_out.windows, config.evaluation.batch_size)
    scores = head_scores(model, held_out, config.evaluation.n_sequences)
    return losses, {
        "in_context_learning": learning_rows(losses, at, config.evaluation),
        "by_chain": chain_rows(losses, at, config.evaluation),
        "loss_by_index": index_rows(losses, at),
        "head_scores": score_rows(scores, at),
    }


def rows_at_a_step(config: TrainConfig) -> dict[str, int]:
    """How many rows a table gets at once."""
    model, n_examples = config.model, config.evaluation.n_examples
    heads = model.n_layers * model.n_heads
    return {
        "training": 1,
        "in_context_learning": 2,
        "by_chain": -(-n_examples // CHAIN),
        "loss_by_index": model.n_ctx,
        "head_scores": heads * MEASURES,
    }


def wrong_with(run: RunDir, name: str, steps: Iterable[int], at_a_step: int) -> str:
    """What a table lacks of the rows of these steps; empty where it has them all."""
    wanted = [step for step in steps for _ in range(at_a_step)]
    if not wanted:
        return ""
    if not run.table_file(name).exists():
        return "is missing"
    try:
        there = run.table(name).step.tolist()
    except RunError as error:
        return str(error).removeprefix(f"{run.table_file(name)} ").rpartition(";")[0]
    until = max(wanted)
    if [step for step in there if step <= until] == wanted:
        return ""
    first = next((known for known, right in zip(there, wanted, strict=False) if known != right), None)
    return f"has not the rows of step {wanted[len(there)] if first is None else first}"


def tables_until(
    step: int, run: RunDir, config: TrainConfig, held_out: HeldOut, snapshots: set[int], device: torch.device
) -> dict[str, Table]:
    """Those that grow, with all rows of the steps before `step`. snapshots: steps that are measured.

    What can be measured again of the snapshots is, and that is said. Raises RunError for what only training gives.
    """
    before, at_a_step = sorted(known for known in snapshots if known < step), rows_at_a_step(config)
    if wrong := wrong_with(run, "training", range(step), 1):
        raise RunError(
            f"{run.table_file('training')} {wrong}, which only training gives again; put back a copy of it, or delete "
            f"{run.resume_file}, and --resume trains again from step 0"
        )
    damaged = {name: wrong for name in MEASURED if (wrong := wrong_with(run, name, before, at_a_step[name]))}
    again = {name: Table(run.table_file(name)) for name in damaged}
    if again:
        for name, wrong in damaged.items():
            said = f"{run.table_file(name)} {wrong}; it is measured again from the snapshots"
            say(said)
            log.info(said)
        there = {snapshot.step: snapshot for snapshot in run.snapshots()}
        for known in before:
            if known not in there:
                raise RunError(
                    f"{run.table_file(next(iter(again)))} must be measured again, and there is no snapshot of step "
                    f"{known}; put back a copy, or delete {run.resume_file}, and --resume trains again from step 0"
                )
            at = {"step": known, "tokens": there[known].tokens}
            _, rows = measured(load_snapshot(run, there[known], device), held_out, config, at)
            for name, table in again.items():
                table.append(rows[name])
        for table in again.values():
            table.flush()
    return {name: run.growing_table(name, step if step and at_a_step[name] else None) for name in TABLES}

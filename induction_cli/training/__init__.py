"""The training loop: snapshots, live measures, nothing lost, and a resumed run that ends bit for bit the same."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import TrainConfig, require
from induction_cli.device import precision
from induction_cli.evaluation.rows import (
    change_of,
    change_rows,
    derivative_rows,
    window_rows,
)
from induction_cli.plots import training as plots
from induction_cli.runs.process import Interrupted, deferred_signals
from induction_cli.runs.run_dir import RunDir
from induction_cli.terminal import Display, Seen, plural
from induction_cli.training.optimizer import learning_rate_factor
from induction_cli.training.state import State, save, set_up, snapshot_steps
from induction_cli.training.tables import measured

__all__ = ["Interrupted", "run", "snapshot_steps", "train", "train_step"]

log = logging.getLogger(__name__)

GLANCE = 20  # steps between two looks at the loss; each look makes an accelerator wait


def run(config: TrainConfig, out_dir: Path, resume: bool = False) -> float:
    """Train one model into a run directory; returns its last windowed in-context learning score.

    Raises ConfigError for settings that cannot be used, RunError for what is on disk, Interrupted after saving.
    """
    config.check()
    run = RunDir(out_dir)
    require(
        resume or not run.meta(),
        f"'{out_dir}' already holds a run; --resume goes on with it, another folder starts anew",
    )
    if resume and run.meta().get("status") == "done":
        return run.meta()["headline"]
    with run.lock():
        try:
            return train(config, run, resume)
        except Interrupted:
            log.info("interrupted, and saved")
            run.write_meta(status="interrupted")
            raise
        except Exception as error:
            if run.meta():
                run.write_meta(status="failed", error=str(error))
            raise


def train(config: TrainConfig, run: RunDir, resume: bool) -> float:
    """From step 0, or the step that was saved, to the last; returns the score of the last snapshot."""
    state = set_up(config, run, resume)
    log.info("training %s on %s: %d steps, %d tokens", title(config), state.device, state.n_steps, state.all_tokens)
    with deferred_signals() as signals, Display(title(config), state.all_tokens) as display:
        while True:
            if state.step in state.snapshots or signals:
                save(state)
                if signals:
                    raise Interrupted(signals[0])
                seen = measure(state)
                display.snapshot(seen)
            if state.step == state.n_steps:
                break
            train_step(state)
            if state.step % GLANCE == 0:
                display.step(state.tokens, state.log.last_loss())
    return finish(state, seen)  # the last step is always a snapshot


def title(config: TrainConfig) -> str:
    """'2 layers, seed 0, smeared keys'."""
    parts = [plural(config.model.n_layers, "layer"), f"seed {config.seed}"]
    if config.model.smeared_keys:
        parts.append("smeared keys")
    return ", ".join(parts)


def train_step(state: State) -> None:
    """One optimizer step on the next batch, in parts of `batch_size`; its loss is noted, not read."""
    config, tokens = state.config, state.batches(state.step).to(state.device)
    total = torch.zeros((), device=tokens.device)
    for part in tokens.split(config.batch_size):
        with precision(config.dtype, tokens.device):
            loss = state.loss_of(part) / config.accumulate
        loss.backward()
        total += loss.detach()
    tokens_after = state.tokens + state.log.tokens_per_step
    factor = learning_rate_factor(tokens_after, state.all_tokens, config.optimizer)
    update(state, factor)
    state.log.add(state.step, total, factor * config.optimizer.learning_rate)
    state.step += 1


def update(state: State, factor: float) -> None:
    """Move the weights by their gradients, clipped, at `factor` of the full learning rates; clear the gradients."""
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), state.config.optimizer.clip)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def measure(state: State) -> Seen:
    """Measure the model as it is, add its rows to the tables, and say what a person wants to see."""
    at = {"step": state.step, "tokens": state.tokens}
    state.model.eval()
    losses, rows = measured(state.model, state.held_out, state.config, at)
    for name, new in rows.items():
        state.tables[name].append(new)
    for table in state.tables.values():
        table.flush()
    state.log.book("evaluation")
    seen = seen_in(losses, rows["in_context_learning"], rows["head_scores"], at)
    log.info("step %d of %d: loss %.4f, %s", state.step, state.n_steps, seen.loss, Display.numbers(seen))
    return seen


def seen_in(losses: Tensor, learning: pd.DataFrame, heads: pd.DataFrame, at: dict) -> Seen:
    """The few numbers of a snapshot that are shown while it trains; heads may have no row."""
    best = heads[heads.measure == "prefix_matching"].astype({"value": float}).nlargest(1, "value")
    return Seen(
        **at,
        loss=losses.mean().item(),
        in_context_learning_score=learning.in_context_learning_score.iloc[-1],
        prefix_matching=best.value.max() if len(best) else math.nan,
        best_head=f"L{best.layer.iloc[0]}H{best['head'].iloc[0]}" if len(best) else "no heads",
        previous_token=heads[heads.measure == "previous_token"].value.max() if len(heads) else math.nan,
    )


def finish(state: State, seen: Seen) -> float:
    """What follows from the tables, and the word that the run is done; returns its headline."""
    windows = write_conclusions(state.run)
    state.run.write_meta(
        status="done",
        headline=seen.in_context_learning_score,
        tokens=state.all_tokens,
        tokens_per_second=round(state.run.table("training").tokens_per_second.median()),
        seconds={name: round(value, 1) for name, value in state.log.seconds.items()},
        phase_change=bool(len(windows)),
    )
    log.info("done: in-context learning score %+.4f nats", seen.in_context_learning_score)
    return seen.in_context_learning_score


def write_conclusions(run: RunDir) -> pd.DataFrame:
    """The phase-change table and the plots, from the tables alone; returns the windows found, a row a step."""
    learning, change = run.table("in_context_learning"), change_of(run.table("by_chain"))
    windows = window_rows(change)
    run.write_table("phase_change", windows)
    run.write_table("phase_change_total", change_rows(change))
    by_index, heads = run.table("loss_by_index"), run.table("head_scores")
    run.write_table("loss_derivative", derivative_rows(by_index))
    evaluation = run.config().evaluation
    measured_at = (evaluation.early_index, evaluation.late_index)
    figures = {
        "training": plots.training_loss(run.table("training"), windows),
        "in_context_learning": plots.in_context_learning_score(learning, windows, measured_at),
        "loss_by_index": plots.loss_by_index(by_index, windows),
        "loss_derivative": plots.loss_derivative(run.table("loss_derivative"), windows),
    }
    if len(heads):  # a model without layers has none
        figures["head_scores"] = plots.head_scores_over_tokens(heads, "prefix_matching", windows)
    for name, figure in figures.items():
        run.write_plot(name, figure)
    return windows

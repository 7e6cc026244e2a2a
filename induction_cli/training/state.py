"""A training under way: what its loop needs, set up from a configuration or from what was saved."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import SnapshotConfig, TrainConfig, require
from induction_cli.data import Batches, Corpus, open_corpus
from induction_cli.device import choose_device, choose_threads
from induction_cli.evaluation.scores import HeldOut, open_held_out
from induction_cli.measures.losses import cross_entropy
from induction_cli.models.transformer import Transformer
from induction_cli.runs.files import Damaged
from induction_cli.runs.process import provenance
from induction_cli.runs.run_dir import RESTART, RunDir
from induction_cli.runs.tables import Table
from induction_cli.runs.tensors import check_shapes
from induction_cli.terminal import say
from induction_cli.training.log import StepLog
from induction_cli.training.optimizer import build_optimizers, optimizer_tensors, restore_optimizers
from induction_cli.training.tables import tables_until

log = logging.getLogger(__name__)


@dataclass
class State:
    """step: how many are done. loss_of: tokens [batch, n_ctx + 1] -> mean loss. snapshots: steps whose weights are
    kept and measured. tables: those that grow; that of the steps is written through `log`."""

    config: TrainConfig
    run: RunDir
    model: Transformer
    optimizers: list[torch.optim.Optimizer]
    loss_of: Callable[[Tensor], Tensor]
    batches: Batches
    held_out: HeldOut
    snapshots: set[int]
    tables: dict[str, Table]
    log: StepLog
    n_steps: int
    step: int

    @property
    def device(self) -> torch.device:
        return self.model.W_U.device

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.step * self.log.tokens_per_step

    @property
    def all_tokens(self) -> int:
        return self.n_steps * self.log.tokens_per_step


# ------------------------------------------------------------------------------------------------ setting up


def snapshot_steps(n_steps: int, tokens_per_step: int, config: SnapshotConfig) -> list[int]:
    """Steps at which the weights are kept: always 0 and the last, and what the schedule adds."""
    steps = {0, n_steps}
    steps |= {round(n_steps * i / config.linear) for i in range(config.linear + 1)} if config.linear else set()
    steps |= {round(n_steps ** (i / config.log)) for i in range(config.log + 1)} if config.log else set()
    if config.window_count:
        require(len(config.window) == 2, "snapshots.window needs [start, end] in tokens")
        start, end = (edge / tokens_per_step for edge in config.window)
        steps |= {round(start + (end - start) * i / config.window_count) for i in range(config.window_count + 1)}
    return sorted(step for step in steps if 0 <= step <= n_steps)


def set_up(config: TrainConfig, run: RunDir, resume: bool) -> State:
    """Step 0 of a new run, or the step that was saved; the run's folder is brought to that step.

    Raises ConfigError for more tokens than the text has and for a text that has changed, before anything is written.
    """
    choose_threads(config.threads)
    device = choose_device(config.device)
    corpus = open_corpus(config.data, config.model.d_vocab)
    batch_size = config.batch_size * config.accumulate
    tokens_per_step = batch_size * config.model.n_ctx
    n_steps = math.ceil(config.tokens / tokens_per_step)
    batches = Batches(corpus.tokens("train"), config.model.n_ctx, batch_size, config.seed, config.data.epochs)
    require(
        n_steps <= batches.n_steps,
        f"tokens={config.tokens} is more than this text has ({batches.n_steps * tokens_per_step} at "
        f"data.epochs={config.data.epochs}); lower tokens, or let the model see text again with data.epochs",
    )
    if resume:
        same = run.meta().get("data", corpus.manifest)["sha256"] == corpus.manifest["sha256"]
        require(same, f"the text of '{run.path}' has changed since it was started; resume where it was")
    held_out = open_held_out(corpus, config.model.n_ctx, config.evaluation)
    model = Transformer(config.model, config.seed).to(device)
    optimizers = build_optimizers(model, config.optimizer)
    saved = run.read_resume() if resume else None
    step = load(run, model, optimizers, saved, n_steps) if saved else 0
    run.forget_snapshots_after(step)
    snapshots = set(snapshot_steps(n_steps, tokens_per_step, config.snapshots))
    tables = tables_until(step, run, config, held_out, snapshots, device)
    if resume:
        going_on(run, step, n_steps)
    write_beginning(run, config, corpus, device)
    return State(
        config,
        run,
        model,
        optimizers,
        loss_function(model, config.compile),
        batches,
        held_out,
        snapshots,
        tables,
        StepLog(tables["training"], tokens_per_step, run.path),
        n_steps,
        step,
    )


def going_on(run: RunDir, step: int, n_steps: int) -> None:
    said = f"{run.name}: going on from step {step} of {n_steps}"
    say(said)
    log.info(said)


def write_beginning(run: RunDir, config: TrainConfig, corpus: Corpus, device: torch.device) -> None:
    """What is known before the first step: settings, who trains, the tokenizer and how often its tokens occur."""
    if not run.config_file.exists():
        run.write_config(config)
    made_by = provenance("induction_cli.training", str(device))
    made_of = {"dtype": config.dtype, "seed": config.seed, "data": corpus.manifest}
    run.write_meta(command="train", status="running", error=None, **made_by, **made_of)
    run.write_tokenizer(corpus.tokenizer_json)
    counts = corpus.token_counts()
    run.write_table("token_counts", pd.DataFrame({"token": range(len(counts)), "count": counts}))


def loss_function(model: Transformer, compiled: bool) -> Callable[[Tensor], Tensor]:
    """tokens [batch, n_ctx + 1] -> mean next-token loss, nats."""

    def loss_of(tokens: Tensor) -> Tensor:
        return cross_entropy(model.final_residual(tokens[:, :-1]), model.W_U, tokens[:, 1:])

    return torch.compile(loss_of) if compiled else loss_of


# ------------------------------------------------------------------------------------------------ saving


def save(state: State) -> None:
    """All that a bit-exact resume needs, after the rows of the steps behind it; a snapshot where one is due.

    The data's position is the step; nothing is drawn at random after the start.
    """
    state.log.write()
    weights = state.model.state_dict()
    if state.step in state.snapshots:
        state.run.write_snapshot(weights, state.step, state.tokens)
    moments = optimizer_tensors(state.model, state.optimizers)
    tensors = {f"model/{name}": weight for name, weight in weights.items()}
    state.run.write_resume(tensors | {f"optimizer/{name}": value for name, value in moments.items()}, state.step)


def load(
    run: RunDir,
    model: Transformer,
    optimizers: list[torch.optim.Optimizer],
    saved: tuple[dict[str, Tensor], int],
    n_steps: int,
) -> int:
    """Put saved weights and optimizer state in place; returns the step. Raises RunError where they do not fit."""
    tensors, step = saved
    if step > n_steps:
        raise Damaged(run.resume_file, f"it is of step {step}, and config.yaml has {n_steps} steps", RESTART)
    part = {
        kind: {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}
        for kind in ("model/", "optimizer/")
    }
    if strange := sorted(name for name in tensors if not name.startswith(tuple(part))):
        raise Damaged(run.resume_file, f"it has {strange[0]}, which is no part of a training", RESTART)
    check_shapes(run.resume_file, part["model/"], model.state_dict(), RESTART)
    check_moments(run, model, part["optimizer/"], step)
    model.load_state_dict(part["model/"])
    restore_optimizers(model, optimizers, part["optimizer/"])
    return step


def check_moments(run: RunDir, model: Transformer, moments: dict[str, Tensor], step: int) -> None:
    """Raise RunError where the state of the optimizers is not that of this model after so many steps."""
    parameters = dict(model.named_parameters())
    there = {full_name.rpartition("/")[0] for full_name in moments}
    if missing := sorted(parameters.keys() - there if step else []):
        raise Damaged(run.resume_file, f"it has no optimizer state of {missing[0]}", RESTART)
    for full_name, moment in moments.items():
        name = full_name.rpartition("/")[0]
        shape = parameters[name].shape if name in parameters else None
        if shape is None or moment.shape not in (shape, torch.Size([])):
            raise Damaged(run.resume_file, f"its optimizer state {full_name} fits no parameter of config.yaml", RESTART)

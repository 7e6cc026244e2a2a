"""The training loop: snapshots, live measures, nothing lost, and a resumed run that ends bit for bit the same."""

from __future__ import annotations

import math
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import EvaluationConfig, SnapshotConfig, TrainConfig, require
from induction_cli.data import Batches, Corpus, open_corpus
from induction_cli.device import choose_device, choose_threads, precision
from induction_cli.evaluation.rows import (
    chain_rows,
    derivative_rows,
    index_rows,
    learning_rows,
    score_rows,
    window_rows,
)
from induction_cli.evaluation.scores import HeldOut, head_scores, held_out_losses, open_held_out
from induction_cli.measures.losses import cross_entropy
from induction_cli.models.transformer import Transformer
from induction_cli.plots import training as plots
from induction_cli.runs.run_dir import RunDir, RunError, Table
from induction_cli.terminal import Display, Seen
from induction_cli.training.optimizer import (
    build_optimizers,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizers,
)

TABLES = ("training", "in_context_learning", "by_chain", "loss_by_index", "head_scores")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; the run is saved. `signal` is its number."""

    def __init__(self, signal_number: int):
        super().__init__(f"signal {signal_number}")
        self.signal = signal_number


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted in the list instead of striking; a second one strikes. Main thread only."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, _frame: object) -> None:
        if noted:
            raise Interrupted(number)
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def provenance(corpus: Corpus, config: TrainConfig, device: torch.device) -> dict:
    """Who made this run, and of what."""
    inside = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    sha = subprocess.run(inside, capture_output=True, text=True).stdout.strip()
    return {
        "git_sha": sha,
        "versions": {name: version_of(name) for name in ("induction", "torch", "numpy", "tokenizers")}
        | {"python": platform.python_version()},
        "device": str(device),
        "dtype": config.dtype,
        "threads": torch.get_num_threads(),
        "seed": config.seed,
        "data": corpus.manifest,
    }


def measure(
    model: Transformer, held_out: HeldOut, config: EvaluationConfig, at: dict, tables: dict[str, Table]
) -> Seen:
    """Measure one snapshot, add its rows to the tables, and say what a person wants to see."""
    model.eval()
    losses = held_out_losses(model, held_out.windows, config.batch_size)
    scores = head_scores(model, held_out, config.n_sequences)
    learning, heads = learning_rows(losses, at, config), score_rows(scores, at)
    tables["in_context_learning"].append(learning)
    tables["by_chain"].append(chain_rows(losses, at, config))
    tables["loss_by_index"].append(index_rows(losses, at))
    tables["head_scores"].append(heads)
    best = heads[heads.measure == "prefix_matching"].nlargest(1, "value")
    previous = heads[heads.measure == "previous_token"].value.max() if len(heads) else math.nan
    return Seen(
        **at,
        loss=losses.mean().item(),
        in_context_learning_score=learning.in_context_learning_score.iloc[-1],
        prefix_matching=best.value.max() if len(best) else math.nan,
        best_head=f"L{best.layer.iloc[0]}H{best['head'].iloc[0]}" if len(best) else "no heads",
        previous_token=previous,
    )


def finish(run: RunDir) -> pd.DataFrame:
    """The phase-change table and the plots, from the tables alone; returns the windows found (0 or 1 row)."""
    learning, windows = run.table("in_context_learning"), window_rows(run.table("by_chain"))
    run.write_table("phase_change", windows)
    by_index, heads = run.table("loss_by_index"), run.table("head_scores")
    run.write_table("loss_derivative", derivative_rows(by_index))
    figures = {
        "training": plots.training_loss(run.table("training"), windows),
        "in_context_learning": plots.in_context_learning_score(learning, windows),
        "loss_by_index": plots.loss_by_index(by_index, windows),
        "loss_derivative": plots.loss_derivative(run.table("loss_derivative"), windows),
        "head_scores": plots.head_scores_over_tokens(heads, "prefix_matching", windows),
    }
    for name, figure in figures.items():
        run.write_plot(name, figure)
    return windows


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
            run.write_meta(status="interrupted")
            raise
        except Exception as error:
            if run.meta():
                run.write_meta(status="failed", error=str(error))
            raise


def train(config: TrainConfig, run: RunDir, resume: bool) -> float:
    choose_threads(config.threads)
    device = choose_device(config.device)
    corpus = open_corpus(config.data, config.model.d_vocab)
    size = config.batch_size * config.accumulate
    tokens_per_step = size * config.model.n_ctx
    n_steps = math.ceil(config.tokens / tokens_per_step)
    batches = Batches(corpus.tokens("train"), config.model.n_ctx, size, config.seed, config.data.epochs)
    require(
        n_steps <= batches.n_steps,
        f"tokens={config.tokens} is more than this text has ({batches.n_steps * tokens_per_step} at "
        f"data.epochs={config.data.epochs}); lower tokens, or let the model see text again with data.epochs",
    )
    held_out = open_held_out(corpus, config.model.n_ctx, config.evaluation)
    model = Transformer(config.model, config.seed).to(device)
    optimizers = build_optimizers(model, config.optimizer)
    snapshots = set(snapshot_steps(n_steps, tokens_per_step, config.snapshots))

    saved = run.read_resume() if resume else None
    step = load(model, optimizers, saved) if saved else 0
    run.forget_snapshots_after(step)
    tables = {name: run.growing_table(name, step if resume else None) for name in TABLES}
    if not run.config_file.exists():
        run.write_config(config)
    if resume:
        same = run.meta().get("data", corpus.manifest)["sha256"] == corpus.manifest["sha256"]
        require(same, f"the text of '{run.path}' has changed since it was started; resume where it was")
    run.write_meta(status="running", error=None, **provenance(corpus, config, device))
    run.write_tokenizer(corpus.tokenizer_json)
    counts = corpus.token_counts()
    run.write_table("token_counts", pd.DataFrame({"token": range(len(counts)), "count": counts}))

    def loss_of(tokens: Tensor) -> Tensor:
        return cross_entropy(model.final_residual(tokens[:, :-1]), model.W_U, tokens[:, 1:])

    compiled = torch.compile(loss_of) if config.compile else loss_of
    unwritten: list[tuple[int, Tensor, float]] = []  # step, loss, learning rate
    seconds = {"training": 0.0, "evaluation": 0.0}
    title = f"{config.model.n_layers} layer{'s' * (config.model.n_layers != 1)}, seed {config.seed}"
    title += ", smeared keys" * config.model.smeared_keys
    seen: Seen | None = None
    clock = time.perf_counter()

    def flush() -> None:
        """Rows of the steps since the last flush; a loss that is not a number stops the run before it is saved."""
        nonlocal clock
        now = time.perf_counter()
        speed = len(unwritten) * tokens_per_step / max(1e-9, now - clock)
        seconds["training"] += now - clock
        rows = [(s, s * tokens_per_step, loss.item(), rate, speed) for s, loss, rate in unwritten]
        unwritten.clear()
        for at, _, loss, _, _ in rows:
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss is {loss} at step {at}; lower optimizer.learning_rate. "
                    f"Everything up to the last snapshot is in {run.path}"
                )
        columns = ["step", "tokens", "loss", "learning_rate", "tokens_per_second"]
        tables["training"].append(pd.DataFrame(rows, columns=columns))
        clock = time.perf_counter()

    with deferred_signals() as signals, Display(title, n_steps * tokens_per_step) as display:
        while True:
            tokens = step * tokens_per_step
            if step in snapshots or signals:
                flush()
                tables["training"].flush()  # before the resume state: what lies behind a save is on disk
                if step in snapshots:
                    run.write_snapshot(model.state_dict(), step, tokens)
                save(model, optimizers, run, step)
                if signals:
                    raise Interrupted(signals[0])
                seen = measure(model, held_out, config.evaluation, {"step": step, "tokens": tokens}, tables)
                for table in tables.values():
                    table.flush()
                display.snapshot(seen)
                seconds["evaluation"] += time.perf_counter() - clock
                clock = time.perf_counter()
            if step == n_steps:
                break
            factor = learning_rate_factor(tokens + tokens_per_step, n_steps * tokens_per_step, config.optimizer)
            loss = train_step(model, optimizers, compiled, batches(step).to(device), config, factor)
            unwritten.append((step, loss, factor * config.optimizer.learning_rate))
            step += 1
            if step % 20 == 0:
                value = loss.item()
                if not math.isfinite(value):
                    flush()
                display.step(step * tokens_per_step, value)
    assert seen is not None
    windows = finish(run)
    run.write_meta(
        status="done",
        headline=seen.in_context_learning_score,
        tokens=n_steps * tokens_per_step,
        tokens_per_second=round(run.table("training").tokens_per_second.median()),
        seconds={name: round(value, 1) for name, value in seconds.items()},
        phase_change=bool(len(windows)),
    )
    return seen.in_context_learning_score


def train_step(model, optimizers, loss_of, tokens: Tensor, config: TrainConfig, factor: float) -> Tensor:
    """One optimizer step on tokens [batch * accumulate, n_ctx + 1]; returns the mean loss, detached."""
    total = torch.zeros((), device=tokens.device)
    for part in tokens.split(config.batch_size):
        with precision(config.dtype, tokens.device):
            loss = loss_of(part) / config.accumulate
        loss.backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return total


def save(model: Transformer, optimizers: list, run: RunDir, step: int) -> None:
    """All a bit-exact resume needs. The data's position is the step; nothing is drawn at random after the start."""
    weights = {f"model/{name}": weight for name, weight in model.state_dict().items()}
    state = {f"optimizer/{name}": value for name, value in optimizer_tensors(model, optimizers).items()}
    run.write_resume({**weights, **state}, step)


def load(model: Transformer, optimizers: list, saved: tuple[dict[str, Tensor], int]) -> int:
    """Put saved weights and optimizer state in place; returns the step."""
    tensors, step = saved
    part = {
        kind: {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}
        for kind in ("model/", "optimizer/")
    }
    model.load_state_dict(part["model/"])
    restore_optimizers(model, optimizers, part["optimizer/"])
    return step

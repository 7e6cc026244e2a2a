"""A model on the fixed held-out set: losses by token, and head scores on synthetic sequences and text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from induction_cli import ablation
from induction_cli.config import EvaluationConfig, require
from induction_cli.data import CHAIN, Corpus, held_out_windows
from induction_cli.measures import attention
from induction_cli.measures.circuits import copying_eigenvalue_statistic, ov_eigenvalues, qk_trace
from induction_cli.measures.components import copying
from induction_cli.measures.losses import per_token_loss
from induction_cli.model import Transformer
from induction_cli.run_dir import RunDir, RunError, Snapshot
from induction_cli.tables import head_types, score_rows
from induction_cli.weights import head_weights

LENGTH, REPEATS = 25, 4  # the paper's random sequence: 25 tokens, four times
PATTERN = 1 << 21  # entries of attention patterns in memory at once, 8 MB: they stay in cache
EXCLUDED = 0.1  # the most and the least common tenth of the vocabulary stay out of it (the paper gives no cut)


def random_tokens(counts: Tensor, n_sequences: int, length: int = LENGTH, seed: int = 0) -> Tensor:
    """[sequence, length] distinct random tokens, without specials, unseen, and the most and least common tenth.

    Raises ConfigError for a vocabulary in which fewer than `length` are left.
    """
    seen = [int(token) for token in counts.argsort(stable=True) if counts[token] > 0 and token != 0]
    cut = int(len(seen) * EXCLUDED)
    kept = np.sort(seen[cut : len(seen) - cut])
    require(len(kept) >= length, f"{len(kept)} tokens are left of this vocabulary; the measure needs {length} distinct")
    random = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([random.permutation(kept)[:length] for _ in range(n_sequences)]))


def repeated_tokens(counts: Tensor, n_sequences: int, seed: int = 0) -> Tensor:
    """The prefix-matching input [sequence, 1 + 100]: a start token, then 25 random tokens four times."""
    once = random_tokens(counts, n_sequences, seed=seed)
    return torch.cat((torch.zeros(n_sequences, 1, dtype=torch.long), once.repeat(1, REPEATS)), 1)


@dataclass
class HeldOut:
    """What every snapshot, model and family on one corpus is measured on."""

    windows: Tensor  # [example, n_ctx + 1], in overlapping chains
    repeated: Tensor  # [sequence, 101]


def open_held_out(corpus: Corpus, n_ctx: int, config: EvaluationConfig) -> HeldOut:
    shift = config.late_index - config.early_index
    windows = held_out_windows(corpus.tokens("validation"), config.n_examples, n_ctx, shift, config.seed)
    counts = torch.from_numpy(corpus.token_counts())
    require(n_ctx >= 1 + LENGTH * 2, f"model.n_ctx is {n_ctx}; prefix matching needs at least {1 + LENGTH * 2}")
    repeats = min(REPEATS, (n_ctx - 1) // LENGTH)
    repeated = repeated_tokens(counts, config.n_sequences, config.seed)[:, : 1 + LENGTH * repeats]
    return HeldOut(windows, repeated)


@torch.no_grad()
def held_out_losses(model: Transformer, windows: Tensor, batch_size: int = 16) -> Tensor:
    """Per-token loss [example, n_ctx] in nats, on the CPU; column i - 1 is index i."""
    device, losses = model.W_E.device, torch.empty(len(windows), windows.shape[1] - 1)
    for i in range(0, len(windows), batch_size):
        batch = windows[i : i + batch_size].to(device)
        losses[i : i + batch_size] = per_token_loss(model.final_residual(batch[:, :-1]), model.W_U, batch[:, 1:]).cpu()
    return losses


@torch.no_grad()
def pattern_scores(
    model: Transformer, tokens: Tensor, measures: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, Tensor]:
    """Each measure on each head's pattern, {name: [sequence, layer, head]}; patterns are reduced layer by layer."""
    names, device = list(measures), model.W_E.device
    at_once = max(1, PATTERN // (model.config.n_heads * tokens.shape[1] ** 2))

    def reduce(pattern: Tensor) -> Tensor:
        return torch.stack([measures[name](pattern) for name in names])

    kept = [
        torch.stack(model.activations(some.to(device), {"pattern": reduce}).pattern, 2).cpu()
        for some in tokens.split(at_once)
    ]
    scores = torch.cat(kept, 1)  # [measure, sequence, layer, head]
    return {name: scores[i] for i, name in enumerate(names)}


def head_scores(model: Transformer, held_out: HeldOut, n_examples: int) -> dict[str, Tensor]:
    """The two scores watched during training, {measure: [sequence, layer, head]}."""
    text = held_out.windows[::CHAIN, :-1][:n_examples]
    return {
        **pattern_scores(model, held_out.repeated, {"prefix_matching": attention.prefix_matching}),
        **pattern_scores(model, text, {"previous_token": attention.previous_token}),
    }


def load_snapshot(run: RunDir, snapshot: Snapshot, device: torch.device | str = "cpu") -> Transformer:
    """The model as it was at a snapshot. Raises RunError where the file is damaged or does not fit its config."""
    model = Transformer(run.config().model)
    try:
        model.load_state_dict(run.read_snapshot(snapshot))
    except RuntimeError as error:
        raise RunError(
            f"{snapshot.path} does not fit {run.config_file}: {str(error).splitlines()[-1].strip()}"
        ) from error
    return model.to(device).eval()


@torch.no_grad()
def copying_scores(model: Transformer, tokens: Tensor) -> Tensor:
    """The paper's copying score of every head on random tokens [sequence, 25], [sequence, layer, head]."""
    weights = head_weights(model)
    kept = model.activations(tokens.to(model.W_E.device), ("pattern", "z"))
    layers = zip(kept.pattern, kept.z, weights.W_O, strict=True)
    return torch.stack(
        [copying(pattern, z, W_O, weights.W_U, tokens.to(z.device)) for pattern, z, W_O in layers], 1
    ).cpu()


def weight_scores(model: Transformer, previous_token: Tensor) -> dict[str, Tensor]:
    """Scores from weights alone, {measure: [layer, head]}; previous_token [layer, head] weighs the QK trace's terms."""
    w = head_weights(model)
    eigenvalues = torch.stack([ov_eigenvalues(w.W_E, V, O, w.W_U) for V, O in zip(w.W_V, w.W_O, strict=True)])
    traces = [
        qk_trace(
            w.W_E,
            w.W_Q[layer],
            w.W_K[layer],
            w.W_V[:layer].flatten(0, 1),
            w.W_O[:layer].flatten(0, 1),
            previous_token[:layer].flatten().to(w.W_E),
        )
        for layer in range(len(w.W_Q))
    ]
    return {
        "copying_eigenvalues": copying_eigenvalue_statistic(eigenvalues).cpu(),
        "qk_trace": torch.stack(traces).cpu(),
    }


@torch.no_grad()
def losses_at(model: Transformer, windows: Tensor, columns: Tensor, batch_size: int = 32) -> Tensor:
    """Each window's loss at its own column, [example] in nats: only what that token needs is computed.

    Windows of similar length go together and are cut behind their last column.
    """
    losses, device = torch.empty(len(windows)), model.W_E.device
    for some in columns.argsort().split(batch_size):
        batch = windows[some, : int(columns[some].max()) + 2].to(device)
        losses[some] = ablation.fast(model, batch, [], "full", columns[some, None].to(device)).clean[:, 0].cpu()
    return losses


@torch.no_grad()
def mean_z(model: Transformer, tokens: Tensor, batch_size: int = 16) -> Tensor:
    """Each head's mean z over held-out tokens [example, pos], [layer, head, d_head]: what mean ablation fills in."""
    total = torch.zeros(model.config.n_layers, model.config.n_heads, model.config.d_head)
    for batch in tokens.split(batch_size):
        kept = model.activations(batch.to(model.W_E.device), {"z": lambda z: z.sum((0, 1))})
        total += torch.stack(kept.z).cpu()
    return total / tokens.numel()


def final_head_types(run: RunDir, model: Transformer) -> pd.DataFrame:
    """layer,head,head_type of a run's last snapshot (`model`), from what training measured and the weights."""
    heads = run.table("head_scores")
    last = heads[heads.step == heads.step.max()]
    previous = last[last.measure == "previous_token"].pivot(index="layer", columns="head", values="value")
    eigenvalues = weight_scores(model, torch.tensor(previous.to_numpy(copy=True)))["copying_eigenvalues"]
    at = last[["step", "tokens"]].iloc[0].to_dict()
    return head_types(pd.concat([last, score_rows({"copying_eigenvalues": eigenvalues[None]}, at)]))

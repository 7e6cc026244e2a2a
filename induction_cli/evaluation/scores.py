"""A model on the fixed held-out set: losses by token, and head scores on synthetic sequences and text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from induction_cli.config import EvaluationConfig, require
from induction_cli.data import CHAIN, Corpus, held_out_windows
from induction_cli.evaluation.rows import head_types, score_rows
from induction_cli.measures import attention
from induction_cli.measures.circuits import copying_eigenvalue_statistic, ov_eigenvalues, qk_trace
from induction_cli.measures.components import copying
from induction_cli.models.fast_ablation import fast
from induction_cli.models.protocol import Model, Question
from induction_cli.models.transformer import Transformer
from induction_cli.runs.run_dir import LEAVE_OUT, RunDir, Snapshot
from induction_cli.runs.tensors import check_shapes

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
    chain: int = CHAIN  # neighbouring windows that share tokens; 1: none do

    def text(self, n: int) -> Tensor:
        """At most n texts that share no tokens, [text, n_ctx]."""
        return self.windows[:: self.chain, :-1][:n]


def open_held_out(corpus: Corpus, n_ctx: int, config: EvaluationConfig) -> HeldOut:
    shift = config.late_index - config.early_index
    windows = held_out_windows(corpus.tokens("validation"), config.n_examples, n_ctx, shift, config.seed)
    counts = torch.from_numpy(corpus.token_counts())
    require(n_ctx >= 1 + LENGTH * 2, f"model.n_ctx is {n_ctx}; prefix matching needs at least {1 + LENGTH * 2}")
    repeats = min(REPEATS, (n_ctx - 1) // LENGTH)
    repeated = repeated_tokens(counts, config.n_sequences, config.seed)[:, : 1 + LENGTH * repeats]
    return HeldOut(windows, repeated)


@torch.no_grad()
def held_out_losses(model: Model, windows: Tensor, batch_size: int = 16) -> Tensor:
    """Per-token loss [example, n_ctx] in nats, on the CPU; column i - 1 is index i."""
    losses = torch.empty(len(windows), windows.shape[1] - 1)
    for i in range(0, len(windows), batch_size):
        losses[i : i + batch_size] = model.losses(windows[i : i + batch_size]).cpu()
    return losses


@torch.no_grad()
def pattern_scores(
    model: Model, tokens: Tensor, measures: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, Tensor]:
    """Each measure on each head's pattern, {name: [sequence, layer, head]}; patterns are reduced layer by layer."""
    names = list(measures)
    if not model.n_layers:
        return {name: torch.zeros(len(tokens), 0, model.n_heads) for name in names}
    at_once = max(1, PATTERN // (model.n_heads * tokens.shape[1] ** 2))

    def reduce(pattern: Tensor) -> Tensor:
        return torch.stack([measures[name](pattern) for name in names])

    kept = [
        torch.stack(model.activations(some, {"pattern": reduce}).pattern, 2).float().cpu()
        for some in tokens.split(at_once)
    ]
    scores = torch.cat(kept, 1)  # [measure, sequence, layer, head]
    return {name: scores[i] for i, name in enumerate(names)}


def head_scores(model: Model, held_out: HeldOut, n_examples: int) -> dict[str, Tensor]:
    """The two scores watched during training, {measure: [sequence, layer, head]}."""
    return {
        **pattern_scores(model, held_out.repeated, {"prefix_matching": attention.prefix_matching}),
        **pattern_scores(model, held_out.text(n_examples), {"previous_token": attention.previous_token}),
    }


def load_snapshot(run: RunDir, snapshot: Snapshot, device: torch.device | str = "cpu") -> Transformer:
    """The model as it was at a snapshot. Raises RunError where the file is damaged or does not fit its config."""
    model, weights = Transformer(run.config().model), run.read_snapshot(snapshot)
    check_shapes(snapshot.path, weights, model.state_dict(), LEAVE_OUT)
    model.load_state_dict(weights)
    return model.to(device).eval().requires_grad_(False)


def empty_scores(model: Model) -> Tensor:
    """[layer, head] of a score that the model's heads cannot have."""
    return torch.full((model.n_layers, model.n_heads), torch.nan)


@torch.no_grad()
def copying_scores(model: Model, tokens: Tensor) -> Tensor:
    """The paper's copying score of every head on random tokens [sequence, 25], [sequence, layer, head].

    nan where the heads' weights are not known.
    """
    if model.no_weights:
        return empty_scores(model)[None]
    kept, at, W_U = model.activations(tokens, ("pattern", "z")), tokens.to(model.device), model.unembedding()
    W_O = [model.head_weights(layer).W_O for layer in range(model.n_layers)]
    layers = zip(kept.pattern, kept.z, W_O, strict=True)
    return torch.stack([copying(pattern, z, each, W_U, at) for pattern, z, each in layers], 1).cpu()


@torch.no_grad()
def layer_eigenvalues(model: Model) -> Tensor:
    """`measures.circuits.ov_eigenvalues` of every head, [layer, head, d_head]; W_U W_E is made once for all layers."""
    through, one = model.unembedding() @ model.embedding(), torch.eye(model.d_model, device=model.device)
    weights = (model.head_weights(layer) for layer in range(model.n_layers))
    return torch.stack([ov_eigenvalues(through, w.W_V, w.W_O, one) for w in weights]).cpu()


@torch.no_grad()
def weight_scores(model: Model, previous_token: Tensor) -> dict[str, Tensor]:
    """Scores from weights alone, {measure: [layer, head]}; previous_token [layer, head] weighs the QK trace's terms.

    nan where the weights are not known, or do not say what attends to what (`Model.no_qk`).
    """
    found = dict.fromkeys(("copying_eigenvalues", "qk_trace"), empty_scores(model))
    if not model.no_weights:
        found["copying_eigenvalues"] = copying_eigenvalue_statistic(layer_eigenvalues(model))
    if not model.no_qk:
        w = [model.head_weights(layer) for layer in range(model.n_layers)]
        W_V, W_O = torch.cat([each.W_V for each in w]), torch.cat([each.W_O for each in w])
        W_E, n = model.embedding(), model.n_heads
        weight = previous_token.flatten().to(W_E)
        traces = [
            qk_trace(W_E, own.W_Q, own.W_K, W_V[: i * n], W_O[: i * n], weight[: i * n]) for i, own in enumerate(w)
        ]
        found["qk_trace"] = torch.stack(traces).cpu()
    return found


def not_applicable(model: Model) -> dict[str, str]:
    """{measure: why the model's heads cannot have it}."""
    why = dict.fromkeys(("copying", "copying_eigenvalues"), model.no_weights) | {"qk_trace": model.no_qk}
    return {measure: reason for measure, reason in why.items() if reason}


@torch.no_grad()
def losses_at(model: Transformer, windows: Tensor, columns: Tensor, batch_size: int = 32) -> Tensor:
    """Each window's loss at its own column, [example] in nats: only what that token needs is computed.

    Windows of similar length go together and are cut behind their last column.
    """
    losses = torch.empty(len(windows))
    for some in columns.argsort().split(batch_size):
        batch = windows[some, : int(columns[some].max()) + 2]
        question = Question(batch, [], "full", columns[some, None])
        losses[some] = fast(model, question).clean[:, 0].cpu()
    return losses


@torch.no_grad()
def logits_at(model: Model, windows: Tensor, columns: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """(logits [example, token, d_vocab], targets [example, token]) at some columns of windows [example, pos + 1]."""
    parts = []
    for some, at in zip(windows.split(batch_size), columns.split(batch_size), strict=True):
        logits = model(some[:, :-1])
        where = at.to(logits.device)[..., None].expand(-1, -1, logits.shape[-1])
        parts.append(logits.gather(1, where).float().cpu())
    return torch.cat(parts), windows[:, 1:].cpu().gather(1, columns)


@torch.no_grad()
def mean_z(model: Model, tokens: Tensor, batch_size: int = 16) -> Tensor:
    """Each head's mean z over held-out tokens [example, pos], [layer, head, d_head]: what mean ablation fills in."""
    total = torch.zeros(model.n_layers, model.n_heads, model.d_head)
    for batch in tokens.split(batch_size):
        kept = model.activations(batch, {"z": lambda z: z.sum((0, 1))})
        total += torch.stack(kept.z).cpu()
    return total / tokens.numel()


def final_head_types(heads: pd.DataFrame, model: Model) -> pd.DataFrame:
    """layer,head,head_type of the last snapshot (`model`), from what was measured of its heads and the weights."""
    last = heads[heads.step == heads.step.max()]
    previous = last[last.measure == "previous_token"].pivot(index="layer", columns="head", values="value")
    eigenvalues = weight_scores(model, torch.tensor(previous.to_numpy(copy=True)))["copying_eigenvalues"]
    at = last[["step", "tokens"]].iloc[0].to_dict()
    return head_types(pd.concat([last, score_rows({"copying_eigenvalues": eigenvalues[None]}, at)]))

"""Ablations of our own model, fast: the numbers of `ablation.plain`, without repeating what the ablations share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from induction_cli.config import ModelConfig
from induction_cli.models.ablation import gather
from induction_cli.models.layers import Attention, Block
from induction_cli.models.protocol import Ablation, Losses, Model, Question

MEMORY = 1 << 27  # bytes; more is not faster on a CPU, where what fits in cache wins
BLOCK = 64  # queries that share one rectangle of the causal triangle
ROWS, COLUMNS = 512, 1024  # a block of logits of 2 MB stays in cache


class Layered(Model, Protocol):
    """What is taken apart here: a model whose blocks, embedding and unembedding can be run one by one."""

    config: ModelConfig
    blocks: list[Block]
    ln_final: nn.LayerNorm
    W_E: nn.Parameter
    W_U: nn.Parameter

    def embed(self, tokens: Tensor) -> Tensor: ...

    def query_key_positions(self, n_pos: int) -> Tensor | None: ...


def probabilities(attention: Attention, scores: Tensor, at: Tensor) -> Tensor:
    """Attention probabilities from scores [batch, head, query, key], at the positions [batch or 1, query]; in place."""
    distance = at[..., None] - torch.arange(scores.shape[-1], device=scores.device)  # [batch or 1, query, key]
    if attention.distance_bias is not None:
        scores += attention.distance_bias[:, distance.clamp(min=0)].transpose(0, 1)
    return scores.masked_fill_((distance < 0)[:, None], -torch.inf).softmax(-1)


def pattern_blocks(attention: Attention, q: Tensor, k: Tensor) -> list[Tensor]:
    """The pattern as blocks of queries [batch, head, block, key], each with the keys it can see: half the work."""
    q, at = q / math.sqrt(attention.d_head), torch.arange(q.shape[-2], device=q.device)[None]
    blocks = []
    for start in range(0, q.shape[-2], BLOCK):
        rows = slice(start, start + BLOCK)
        scores = q[..., rows, :] @ k[..., : rows.stop, :].mT
        blocks.append(probabilities(attention, scores, at[:, rows]))
    return blocks


def pattern_rows(attention: Attention, x: Tensor, pos: Tensor | None, at: Tensor) -> Tensor:
    """The pattern at few queries, [batch, head, chosen, key]; x [batch, pos, d_model], at [batch, chosen].

    q.(W_K x) = (q W_K^T).x: for few queries no keys are made. Rotary keys are, as each is turned its own way.
    """
    scale, heads = 1 / math.sqrt(attention.d_head), (attention.n_heads, attention.d_head)
    if attention.positions == "rotary":
        q, k, _ = attention.queries_keys_values(x, pos)
        q = gather(q, at[:, None].expand(-1, attention.n_heads, -1))
        return probabilities(attention, q @ k.mT * scale, at)
    x = x if pos is None else x + pos
    q = (gather(x, at) @ attention.W_Q * scale).unflatten(-1, heads)
    folded = torch.einsum("bche,dhe->bhcd", q, attention.W_K.unflatten(-1, heads))
    scores = (folded.flatten(1, 2) @ x.mT).unflatten(1, (attention.n_heads, -1))
    return probabilities(attention, attention.smeared(scores.mT).mT, at)


def attend_rows(attention: Attention, rows: Tensor, x: Tensor) -> Tensor:
    """z [..., batch, chosen, head, d_head]; rows [..., batch, head, chosen, key], x [..., batch, key, d_model].

    (pattern x) W_V costs less than pattern (x W_V) while there are fewer queries than d_head.
    """
    mixed = (rows.flatten(-3, -2) @ x).unflatten(-2, rows.shape[-3:-1])
    return torch.einsum("...hcd,dhe->...che", mixed, attention.W_V.unflatten(-1, (attention.n_heads, -1)))


def attend_blocks(blocks: list[Tensor], v: Tensor) -> Tensor:
    """z [batch, head, query, d] from the pattern's blocks and v [batch, head, key, d]."""
    return torch.cat([block @ v[..., : block.shape[-1], :] for block in blocks], -2)


def attend_stacked(attention: Attention, blocks: list[Tensor], x: Tensor) -> Tensor:
    """z [ablation, batch, query, head, d_head]; x [ablation, batch, key, d_model], one pattern for all ablations.

    The ablations stand side by side along d_head: each pattern is multiplied once, by one wide matrix.
    """
    v = attention.values(x).permute(1, 2, 3, 0, 4)  # [batch, head, key, ablation, d_head]
    return attend_blocks(blocks, v.flatten(-2)).unflatten(-1, v.shape[-2:]).permute(3, 0, 2, 1, 4)


@dataclass
class Clean:
    """What the clean run leaves for its ablations, per layer; the last layer has the chosen positions only."""

    at: Tensor | None  # the chosen positions [batch, chosen]; None: every one
    attended: list[Tensor] = field(default_factory=list)  # residual after attention, [batch, pos, d_model]
    z: list[Tensor] = field(default_factory=list)  # [batch, pos, head, d_head]
    pattern: list[list[Tensor]] = field(default_factory=list)  # blocks of queries; empty where no ablation needs it


def clean_run(model: Layered, inputs: Tensor, at: Tensor | None, first_pattern: int) -> Clean:
    """One run of the model; patterns are kept from layer `first_pattern` on."""
    clean, pos, residual = Clean(at), model.query_key_positions(inputs.shape[1]), model.embed(inputs)
    for layer, block in enumerate(model.blocks):
        attention, x, pattern = block.attention, block.ln_attention(residual), []
        if at is not None and layer == len(model.blocks) - 1:
            pattern = [pattern_rows(attention, x, pos, at)]
            z, residual = attend_rows(attention, pattern[0], x), gather(residual, at)
        elif layer >= first_pattern:
            q, k, v = attention.queries_keys_values(x, pos)
            pattern = pattern_blocks(attention, q, k)
            z = attend_blocks(pattern, v).transpose(1, 2)
        else:
            z = attention(x, pos)
        residual = residual + attention.result(z)
        clean.attended.append(residual)
        clean.z.append(z)
        clean.pattern.append(pattern)
        residual = block.after_attention(residual)
    return clean


def heads_in(ablation: Ablation, layer: int) -> list[int]:
    return sorted({head for at, head in ablation if at == layer})


def without(attention: Attention, attended: Tensor, z: Tensor, heads: list[int], fill: Tensor) -> Tensor:
    """The residual after attention had the heads written W_O fill instead of W_O z; fill [head, d_head]."""
    W_O = attention.W_O.unflatten(0, (attention.n_heads, -1))[heads].flatten(0, 1)
    return attended - (z[..., heads, :] - fill[heads]).flatten(-2) @ W_O


def ablated_run(model: Layered, clean: Clean, ablations: Sequence[Ablation], fill: Tensor, preserve: bool) -> Tensor:
    """Normalised final residual [ablation, batch, chosen, d_model] of ablations with the same lowest layer.

    Nothing below that layer runs. fill [layer, head, d_head] takes a removed head's place; preserve: clean patterns.
    """
    at, last, lowest = clean.at, len(model.blocks) - 1, min(layer for layer, _ in ablations[0])
    attention, attended, z = model.blocks[lowest].attention, clean.attended[lowest], clean.z[lowest]
    streams = torch.stack([without(attention, attended, z, heads_in(a, lowest), fill[lowest]) for a in ablations])
    streams = model.blocks[lowest].after_attention(streams)
    for layer in range(lowest + 1, last + 1):
        block, attention, pattern = model.blocks[layer], model.blocks[layer].attention, clean.pattern[layer]
        x = block.ln_attention(streams)
        each, pos = x.flatten(0, 1), model.query_key_positions(x.shape[-2])  # [ablation * batch, pos, d_model]
        if at is not None and layer == last:
            own = None if preserve else pattern_rows(attention, each, pos, at.repeat(len(x), 1))
            z = attend_rows(attention, pattern[0] if own is None else own.unflatten(0, x.shape[:2]), x)
            streams = gather(streams, at.expand(len(streams), -1, -1))
        elif preserve:
            z = attend_stacked(attention, pattern, x)
        else:
            z = attention(each, pos).unflatten(0, x.shape[:2])
        for i, ablation in enumerate(ablations):  # sets that reach over several layers
            if heads := heads_in(ablation, layer):
                z[i][..., heads, :] = fill[layer, heads]
        streams = block.after_attention(streams + attention.result(z))
    return model.ln_final(streams)


def token_losses(residual: Tensor, W_U: Tensor, targets: Tensor) -> Tensor:
    """Loss of each token in nats, [..., batch, chosen], from the normalised residual [..., batch, chosen, d_model].

    Blocks of rows and of vocabulary, with a running logsumexp: the products stay wide and in cache however large the
    vocabulary, where blocks of rows alone (measures.losses) shrink to a few rows.
    """
    rows, flat = residual.flatten(0, -2), targets.expand(residual.shape[:-1]).flatten()[:, None]
    losses = torch.empty(len(rows), device=rows.device)
    for i in range(0, len(rows), ROWS):
        part, target = rows[i : i + ROWS], flat[i : i + ROWS]
        total = torch.full(target.shape, -torch.inf, device=rows.device)
        own = torch.zeros(target.shape, device=rows.device)
        for start in range(0, W_U.shape[1], COLUMNS):
            logits = (part @ W_U[:, start : start + COLUMNS]).float()
            here = (target - start).clamp(0, logits.shape[1] - 1)
            own = torch.where(here + start == target, logits.gather(1, here), own)
            top = logits.amax(1, keepdim=True)
            total = torch.logaddexp(total, top + logits.sub_(top).exp_().sum(1, keepdim=True).log_())
        losses[i : i + ROWS] = (total - own)[:, 0]
    return losses.view(residual.shape[:-1])


def batch_sizes(model: Layered, n_pos: int, n_kept: int, widest: int, memory: int) -> tuple[int, int]:
    """How many examples and how many ablations at once stay under `memory` bytes; at least one of each.

    An example's share is the patterns of `n_kept` layers, the clean streams and one fused attention; an ablation's is
    the stream, its normalised copy, values, z, and the next stream. `widest`: the most ablations that could be stacked.
    """
    width = max(model.d_model, model.n_heads * model.d_head)
    clean = n_pos * (model.n_heads * (n_kept + 2) * (n_pos + BLOCK) // 2 + (2 * model.n_layers + 8) * width)
    ablated = n_pos * (8 * width + 3 * model.config.d_mlp)
    size = model.W_E.element_size()
    examples = max(1, memory // size // (clean + widest * ablated))
    return examples, max(1, (memory // size - examples * clean) // (examples * ablated))


@torch.no_grad()
def fast(model: Layered, question: Question, memory: int = MEMORY) -> Losses:
    """What `plain` returns, without repeating what the ablations share.

    One clean run per example; each ablation subtracts its heads' result after its lowest layer and runs only the layers
    above, without queries, keys and softmax where patterns are preserved, and with the last layer and the unembedding
    at the chosen positions only. memory: bytes that intermediate results may take at once, beside model and losses.
    """
    tokens, positions = question.tokens.to(model.device), question.positions
    positions = None if positions is None else positions.to(model.device)
    ablations, preserve = question.sets(model), question.kind == "pattern_preserving"
    fill = torch.zeros(model.n_layers, model.n_heads, model.d_head)
    if question.kind == "mean" and question.mean_z is not None:
        fill = question.mean_z
    fill = fill.to(model.W_E)
    by_lowest: dict[int, list[int]] = {}
    for i, ablation in enumerate(ablations):
        if ablation:
            by_lowest.setdefault(min(layer for layer, _ in ablation), []).append(i)
    first_pattern = min(by_lowest, default=model.n_layers) + 1 if preserve else model.n_layers
    widest = max(map(len, by_lowest.values()), default=1)
    n_kept = max(0, model.n_layers - first_pattern - (positions is not None))
    examples, stacked = batch_sizes(model, tokens.shape[1] - 1, n_kept, widest, memory)

    def losses_of(rows: slice) -> tuple[Tensor, Tensor]:
        """The clean and the ablated losses of some of the examples."""
        at = None if positions is None else positions[rows]
        inputs, targets = tokens[rows, :-1], gather(tokens[rows, 1:], at)
        clean = clean_run(model, inputs, at, first_pattern)
        if model.n_layers:
            end = model.blocks[-1].after_attention(clean.attended[-1])
        else:
            end = gather(model.embed(inputs), at)
        losses = token_losses(model.ln_final(end), model.W_U, targets)
        ablated = losses.repeat(len(ablations), 1, 1)  # what removes nothing changes nothing
        for members in by_lowest.values():
            for i in range(0, len(members), stacked):
                part = members[i : i + stacked]
                residual = ablated_run(model, clean, [ablations[j] for j in part], fill, preserve)
                ablated[part] = token_losses(residual, model.W_U, targets)
        return losses, ablated

    groups = [losses_of(slice(i, i + examples)) for i in range(0, len(tokens), examples)]
    return Losses(torch.cat([clean for clean, _ in groups]), torch.cat([ablated for _, ablated in groups], 1))

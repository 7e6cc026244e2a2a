"""The transformer of the paper: decoder-only, attention-only or with MLPs, pre-LayerNorm, untied embeddings.

Interventions and recordings are data: `record` names what to keep, `Patch` says what to change.
Axis order everywhere: pattern [batch, head, query, key]; z [batch, pos, head, d_head]; residual [batch, pos, d_model].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from induction_cli.config import ModelConfig, check_group

RECORDABLE = ("residual", "pattern", "z")
Record = Iterable[str] | Mapping[str, Callable[[Tensor], Tensor]]


@dataclass
class Activations:
    """What was asked for, one entry per layer; `residual` has one more, the stream after the last layer."""

    residual: list[Tensor] = field(default_factory=list)  # [batch, pos, d_model] before each layer, then after the last
    pattern: list[Tensor] = field(default_factory=list)  # [batch, head, query, key]
    z: list[Tensor] = field(default_factory=list)  # [batch, pos, head, d_head], before W_O, before any patch


@dataclass
class Patch:
    """What to change in a forward pass. An empty patch changes nothing.

    head_scale: [layer, head], factor on each head's result; 0 removes the head, 1 leaves it.
    head_fill: [layer, head, d_head], the z that takes the removed share's place (mean ablation).
    patterns: {layer: [batch or 1, head, query, key]}, attention patterns used instead of the model's own.
    """

    head_scale: Tensor | None = None
    head_fill: Tensor | None = None
    patterns: Mapping[int, Tensor] = field(default_factory=dict)

    def check(self, n_layers: int, n_heads: int, d_head: int, batch: int, n_pos: int) -> None:
        """Raise ValueError when a part does not fit the model and tokens it is to be applied to."""
        for name, part, shape in (
            ("head_scale", self.head_scale, (n_layers, n_heads)),
            ("head_fill", self.head_fill, (n_layers, n_heads, d_head)),
        ):
            if part is not None and tuple(part.shape) != shape:
                raise ValueError(f"patch.{name} has shape {tuple(part.shape)}, the model needs {shape}")
        if self.head_fill is not None and self.head_scale is None:
            raise ValueError("patch.head_fill needs patch.head_scale to say which heads it fills")
        for layer, pattern in self.patterns.items():
            if layer not in range(n_layers):
                raise ValueError(f"patch.patterns names layer {layer}, the model has layers 0 to {n_layers - 1}")
            if tuple(pattern.shape) not in {(b, n_heads, n_pos, n_pos) for b in (1, batch)}:
                raise ValueError(
                    f"patch.patterns[{layer}] has shape {tuple(pattern.shape)}, "
                    f"the model needs {(batch, n_heads, n_pos, n_pos)}"
                )

    def apply(self, layer: int, z: Tensor) -> Tensor:
        """z [batch, pos, head, d_head] of one layer with the heads scaled and filled."""
        if self.head_scale is None:
            return z
        scale = self.head_scale[layer].to(z)[:, None]
        fill = 0 if self.head_fill is None else self.head_fill[layer].to(z)
        return z * scale + (1 - scale) * fill


def sinusoids(n_pos: int, d: int) -> Tensor:
    """Sinusoidal position embeddings of amplitude 1, [pos, d]; Vaswani et al. 2017, section 3.5."""
    frequency = torch.exp(torch.arange(0, d, 2) * (-math.log(10_000.0) / d))
    angle = torch.arange(n_pos)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[:, :d]


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) on x [batch, head, pos, d_head], halves convention."""
    n_pos, half = x.shape[-2], x.shape[-1] // 2
    frequency = torch.exp(torch.arange(half, device=x.device) * (-math.log(10_000.0) / half))
    angle = torch.arange(n_pos, device=x.device)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def smear(k: Tensor, alpha: Tensor) -> Tensor:
    """Smeared keys: k_j <- s k_j + (1 - s) k_{j-1}, s = sigmoid(alpha) per head; the first key is unchanged.

    k [batch, head, pos, d_head], alpha [head]. Paper, argument 2.
    """
    weight = alpha.sigmoid().to(k.dtype)[:, None, None]
    return torch.cat((k[..., :1, :], weight * k[..., 1:, :] + (1 - weight) * k[..., :-1, :]), -2)


class Attention(nn.Module):
    """Multi-head causal self-attention without biases; positions enter queries and keys only (unless 'learned')."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.n_heads, self.d_head, self.positions = config.n_heads, config.d_head, config.positions
        width = config.n_heads * config.d_head
        self.W_Q = nn.Parameter(torch.empty(config.d_model, width))
        self.W_K = nn.Parameter(torch.empty(config.d_model, width))
        self.W_V = nn.Parameter(torch.empty(config.d_model, width))
        self.W_O = nn.Parameter(torch.empty(width, config.d_model))
        self.smear_alpha = nn.Parameter(torch.empty(config.n_heads)) if config.smeared_keys else None
        # one bias per head and distance; the table is as long as the context
        self.distance_bias = (
            nn.Parameter(torch.empty(config.n_heads, config.n_ctx)) if config.positions == "relative" else None
        )

    def split(self, x: Tensor) -> Tensor:
        """[batch, pos, head * d_head] -> [batch, head, pos, d_head], a view."""
        return x.unflatten(-1, (self.n_heads, self.d_head)).transpose(-3, -2)

    def queries_keys_values(self, x: Tensor, pos: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Each [batch, head, pos, d_head] from the normalised residual x; pos [pos, d_model] is for W_Q, W_K only."""
        qkv = x @ torch.cat((self.W_Q, self.W_K, self.W_V), 1)
        q, k, v = qkv.split(self.W_Q.shape[1], -1)
        if pos is not None:  # (x + pos) W = x W + pos W, and pos W is shared by the batch
            at_pos = pos.to(x.dtype) @ torch.cat((self.W_Q, self.W_K), 1)
            q, k = q + at_pos[:, : q.shape[-1]], k + at_pos[:, q.shape[-1] :]
        q, k, v = self.split(q), self.split(k), self.split(v)
        if self.positions == "rotary":
            q, k = rotate(q), rotate(k)
        if self.smear_alpha is not None:
            k = smear(k, self.smear_alpha)
        return q, k, v

    def values(self, x: Tensor) -> Tensor:
        """Values alone, [batch, head, pos, d_head]; all that is left to compute when the pattern is given."""
        return self.split(x @ self.W_V)

    def bias(self, n_pos: int) -> Tensor | None:
        """Additive score bias [head, query, key] of the relative scheme (causal mask included), else None."""
        if self.distance_bias is None:
            return None
        index = torch.arange(n_pos, device=self.distance_bias.device)
        distance = index[:, None] - index
        return self.distance_bias[:, distance.clamp(min=0)].masked_fill(distance < 0, -torch.inf)

    def pattern(self, q: Tensor, k: Tensor) -> Tensor:
        """Attention probabilities [batch, head, query, key]."""
        n_pos, bias = q.shape[-2], self.bias(q.shape[-2])
        scores = (q / math.sqrt(self.d_head)) @ k.transpose(-2, -1)
        if bias is None:
            future = torch.ones(n_pos, n_pos, dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill_(future, -torch.inf)
        else:
            scores = scores + bias.to(scores.dtype)
        return scores.softmax(-1)

    def forward(self, x: Tensor, pos: Tensor | None) -> Tensor:
        """Fused attention, z [batch, pos, head, d_head]: for when nobody asks for the pattern."""
        q, k, v = self.queries_keys_values(x, pos)
        bias = self.bias(x.shape[1])
        mask = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)

    def result(self, z: Tensor) -> Tensor:
        """What the heads together write to the residual stream, [batch, pos, d_model]."""
        return z.flatten(-2) @ self.W_O


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(config.d_model, config.d_mlp))
        self.W_out = nn.Parameter(torch.empty(config.d_mlp, config.d_model))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x @ self.W_in) @ self.W_out


class Block(nn.Module):
    """x + attention(LN(x)), then, if the model has MLPs, x + mlp(LN(x))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.ln_attention = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.ln_mlp = nn.LayerNorm(config.d_model) if config.d_mlp else None
        self.mlp = MLP(config) if config.d_mlp else None

    def after_attention(self, residual: Tensor) -> Tensor:
        """The MLP's part of the block, nothing for attention-only models."""
        if self.mlp is None or self.ln_mlp is None:
            return residual
        return residual + self.mlp(self.ln_mlp(residual))


class Transformer(nn.Module):
    """`model(tokens)` gives logits [batch, pos, d_vocab]; see `forward` for recordings and patches."""

    positions: Tensor | None  # [n_ctx, d_model], shortformer only

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        check_group("model", config)
        self.config = config
        self.W_E = nn.Parameter(torch.empty(config.d_vocab, config.d_model))
        self.W_pos = nn.Parameter(torch.empty(config.n_ctx, config.d_model)) if config.positions == "learned" else None
        self.blocks: list[Block] = nn.ModuleList(Block(config) for _ in range(config.n_layers))  # type: ignore
        self.ln_final = nn.LayerNorm(config.d_model)
        self.W_U = nn.Parameter(torch.empty(config.d_model, config.d_vocab))
        shortformer = config.positions == "shortformer"
        self.register_buffer("positions", sinusoids(config.n_ctx, config.d_model) if shortformer else None, False)
        self.initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Weights from the generator alone; smearing draws nothing, so smeared and vanilla twins start equal."""
        config = self.config

        def normal(parameter: Tensor, std: float) -> None:
            parameter.normal_(0, std, generator=generator) if std else parameter.zero_()

        normal(self.W_E, config.init.embedding_std)
        normal(self.W_U, config.init.unembedding_std)
        if self.W_pos is not None:
            normal(self.W_pos, config.init.embedding_std)
        for block in self.blocks:
            attention = block.attention
            for weight in (attention.W_Q, attention.W_K, attention.W_V):
                normal(weight, config.init.attention_gain / math.sqrt(config.d_model))
            normal(attention.W_O, config.init.output_gain / math.sqrt(config.n_heads * config.d_head))
            if attention.smear_alpha is not None:
                attention.smear_alpha.fill_(config.smear_init)
            if attention.distance_bias is not None:
                attention.distance_bias.zero_()
            if block.mlp is not None:
                normal(block.mlp.W_in, 1 / math.sqrt(config.d_model))
                normal(block.mlp.W_out, config.init.output_gain / math.sqrt(config.d_mlp))

    def embed(self, tokens: Tensor) -> Tensor:
        """The residual stream before the first layer, [batch, pos, d_model]."""
        if tokens.shape[1] > self.config.n_ctx:
            raise ValueError(f"{tokens.shape[1]} tokens, but the model's context holds {self.config.n_ctx}")
        residual = F.embedding(tokens, self.W_E)
        return residual if self.W_pos is None else residual + self.W_pos[: tokens.shape[1]]

    def query_key_positions(self, n_pos: int) -> Tensor | None:
        """What the shortformer scheme adds to the inputs of W_Q and W_K, [pos, d_model], else None."""
        return None if self.positions is None else self.positions[:n_pos]

    def final_residual(self, tokens: Tensor) -> Tensor:
        """The stream after the last layer and LayerNorm, ready for W_U; the fused path, [batch, pos, d_model]."""
        pos = self.query_key_positions(tokens.shape[1])
        residual = self.embed(tokens)
        for block in self.blocks:
            z = block.attention(block.ln_attention(residual), pos)
            residual = block.after_attention(residual + block.attention.result(z))
        return self.ln_final(residual)

    def forward(self, tokens: Tensor, record: Record | None = None, patch: Patch | None = None):
        """Logits [batch, pos, d_vocab] of tokens [batch, pos]; with `record`, the pair (logits, Activations).

        record: names out of RECORDABLE, or {name: reduction}; a reduction is applied to each layer's tensor as it
        is made, so a measure that needs one number per head never holds every pattern.
        Raises ValueError for an unknown name, a patch of the wrong shape, or tokens longer than the context.
        """
        if record is None and patch is None:
            return self.final_residual(tokens) @ self.W_U
        residual, kept = self.run(tokens, record or (), patch or Patch())
        logits = self.ln_final(residual) @ self.W_U
        return logits if record is None else (logits, kept)

    def activations(self, tokens: Tensor, record: Record) -> Activations:
        """What `forward` records, without the logits, and no further than the last thing to record."""
        return self.run(tokens, record, Patch(), stop_early=True)[1]

    def run(self, tokens: Tensor, record: Record, patch: Patch, stop_early: bool = False) -> tuple[Tensor, Activations]:
        """The residual stream after the last layer (with stop_early: as far as it was needed), and what was kept."""
        reductions = dict(record) if isinstance(record, Mapping) else {name: lambda kept: kept for name in record}
        if unknown := set(reductions) - set(RECORDABLE):
            raise ValueError(f"cannot record {', '.join(sorted(unknown))}; there are {', '.join(RECORDABLE)}")
        batch, n_pos = tokens.shape
        config, pos, kept = self.config, self.query_key_positions(n_pos), Activations()
        patch.check(config.n_layers, config.n_heads, config.d_head, batch, n_pos)

        def keep(name: str, value: Tensor) -> None:
            if name in reductions:
                getattr(kept, name).append(reductions[name](value))

        residual = self.embed(tokens)
        for layer, block in enumerate(self.blocks):
            keep("residual", residual)
            attention, x = block.attention, block.ln_attention(residual)
            if "pattern" in reductions or layer in patch.patterns:
                if layer in patch.patterns:
                    pattern, v = patch.patterns[layer].to(x), attention.values(x)
                else:
                    q, k, v = attention.queries_keys_values(x, pos)
                    pattern = attention.pattern(q, k)
                keep("pattern", pattern)
                if stop_early and layer == config.n_layers - 1 and set(reductions) == {"pattern"}:
                    break
                z = (pattern @ v).transpose(1, 2)
            else:
                z = attention(x, pos)
            keep("z", z)
            residual = block.after_attention(residual + attention.result(patch.apply(layer, z)))
        else:
            keep("residual", residual)
        return residual, kept

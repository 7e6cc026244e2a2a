"""The parts of our transformer: positions, smeared keys, attention, MLP, block.

Axis order everywhere: pattern [batch, head, query, key]; z [batch, pos, head, d_head]; residual [batch, pos, d_model].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from induction_cli.config import ModelConfig

ByHead = Float[Tensor, "batch head pos d_head"]


def sinusoids(n_pos: int, d: int) -> Float[Tensor, " {n_pos} {d}"]:
    """Sinusoidal position embeddings of amplitude 1; Vaswani et al. 2017, section 3.5."""
    frequency = torch.exp(torch.arange(0, d, 2) * (-math.log(10_000.0) / d))
    angle = torch.arange(n_pos)[:, None] * frequency
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[:, :d]


def rotate(x: Float[Tensor, "*batch pos d_head"]) -> Float[Tensor, "*batch pos d_head"]:
    """Rotary positions (Su et al. 2021), halves convention."""
    n_pos, half = x.shape[-2], x.shape[-1] // 2
    frequency = torch.exp(torch.arange(half, device=x.device) * (-math.log(10_000.0) / half))
    angle = torch.arange(n_pos, device=x.device)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def smear(
    k: Float[Tensor, "*batch head pos d_head"], alpha: Float[Tensor, " head"]
) -> Float[Tensor, "*batch head pos d_head"]:
    """Smeared keys: k_j <- s k_j + (1 - s) k_{j-1}, s = sigmoid(alpha) per head; the first key is unchanged.

    Paper, line 2 of its evidence.
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

    def split(self, x: Float[Tensor, "*batch pos width"]) -> Float[Tensor, "*batch head pos d_head"]:
        """The width, head * d_head, by heads; a view."""
        return x.unflatten(-1, (self.n_heads, self.d_head)).transpose(-3, -2)

    def queries_keys_values(
        self, x: Float[Tensor, "batch pos d_model"], pos: Float[Tensor, "pos d_model"] | None
    ) -> tuple[
        Float[Tensor, "batch head pos d_head"],
        Float[Tensor, "batch head pos d_head"],
        Float[Tensor, "batch head pos d_head"],
    ]:
        """From the normalised residual x; pos is for W_Q, W_K only."""
        qkv = x @ torch.cat((self.W_Q, self.W_K, self.W_V), 1)
        q, k, v = qkv.split(self.W_Q.shape[1], -1)
        if pos is not None:  # (x + pos) W = x W + pos W, and pos W is shared by the batch
            at_pos = pos.to(x.dtype) @ torch.cat((self.W_Q, self.W_K), 1)
            q, k = q + at_pos[:, : q.shape[-1]], k + at_pos[:, q.shape[-1] :]
        q, k, v = self.split(q), self.split(k), self.split(v)
        if self.positions == "rotary":
            q, k = rotate(q), rotate(k)
        return q, self.smeared(k), v

    def smeared(self, k: Float[Tensor, "*batch head pos d_head"]) -> Float[Tensor, "*batch head pos d_head"]:
        """Keys as queries meet them: smeared where the model smears them."""
        return k if self.smear_alpha is None else smear(k, self.smear_alpha)

    def values(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch head pos d_head"]:
        """Values alone; all that is left to compute when the pattern is given."""
        return self.split(x @ self.W_V)

    def bias(self, n_pos: int) -> Float[Tensor, "head {n_pos} {n_pos}"] | None:
        """Additive score bias of the relative scheme (causal mask included), else None."""
        if self.distance_bias is None:
            return None
        index = torch.arange(n_pos, device=self.distance_bias.device)
        distance = index[:, None] - index
        return self.distance_bias[:, distance.clamp(min=0)].masked_fill(distance < 0, -torch.inf)

    def pattern(self, q: ByHead, k: ByHead) -> Float[Tensor, "batch head pos pos"]:
        """Attention probabilities, [batch, head, query, key]."""
        n_pos, bias = q.shape[-2], self.bias(q.shape[-2])
        scores = (q / math.sqrt(self.d_head)) @ k.transpose(-2, -1)
        if bias is None:
            future = torch.ones(n_pos, n_pos, dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill_(future, -torch.inf)
        else:
            scores = scores + bias.to(scores.dtype)
        return scores.softmax(-1)

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], pos: Float[Tensor, "pos d_model"] | None
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Fused attention, z: for when nobody asks for the pattern."""
        q, k, v = self.queries_keys_values(x, pos)
        bias = self.bias(x.shape[1])
        mask = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)

    def result(self, z: Float[Tensor, "*batch head d_head"]) -> Float[Tensor, "*batch d_model"]:
        """What the heads together write to the residual stream."""
        return z.flatten(-2) @ self.W_O


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(config.d_model, config.d_mlp))
        self.W_out = nn.Parameter(torch.empty(config.d_mlp, config.d_model))

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        return F.gelu(x @ self.W_in) @ self.W_out


class Block(nn.Module):
    """x + attention(LN(x)), then, if the model has MLPs, x + mlp(LN(x))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.ln_attention = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.ln_mlp = nn.LayerNorm(config.d_model) if config.d_mlp else None
        self.mlp = MLP(config) if config.d_mlp else None

    def after_attention(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The MLP's part of the block, nothing for attention-only models."""
        if self.mlp is None or self.ln_mlp is None:
            return residual
        return residual + self.mlp(self.ln_mlp(residual))

"""The weights of single heads, ready for circuits: of our own model, and of a pretrained one, whatever its family calls
them.

Every layer reads `attention_input(residual)` = x and writes, before a norm that follows (olmo2, olmo3),
    sum over heads of (pattern @ (x @ W_V + b_V)) @ W_O + b_O.

With `fold_norm` the norm's gain and its shift are part of W_Q, W_K, W_V, so the weights apply to raw directions of the
residual stream, such as rows of W_E, up to a positive scale per position. LayerNorm also takes off the mean: that is
part of what reads (W_Q, W_K, W_V, W_U) in a pretrained model, and in ours of what writes (W_E, W_O), which alone is
read behind it. The gain of a norm after W_O (olmo2, olmo3) is part of W_O, and the gain of a norm of queries and keys
(qwen3, olmo2, olmo3) part of W_Q and W_K; such a norm's division by the length is not linear and is left out, again a
positive scale per position.

Pretrained families are one table, a row each: which modules hold the weights and the norms, and how the heads lie in
them. A family is in the table only if tests/test_pretrained.py rebuilds its heads' outputs and queries from what comes
out of here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from induction_cli.config import require
from induction_cli.models.layers import Block
from induction_cli.models.protocol import HeadWeights

# ------------------------------------------------------------------------------------------------ our own


def centred(x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """Less its mean over d_model: what a LayerNorm that reads it sees of it."""
    return x - x.mean(-1, keepdim=True)


@torch.no_grad()
def block_weights(block: Block, fold_norm: bool = True) -> HeadWeights:
    """The weights of the heads of one block of our own model."""
    attention, norm = block.attention, block.ln_attention
    heads = (attention.n_heads, attention.d_head)

    def reads(W: Tensor) -> tuple[Tensor, Tensor]:
        weight, shift = (norm.weight[:, None] * W, norm.bias @ W) if fold_norm else (W, W.new_zeros(W.shape[1]))
        return weight.unflatten(-1, heads).transpose(0, 1), shift.unflatten(-1, heads)

    (W_Q, b_Q), (W_K, b_K), (W_V, b_V) = reads(attention.W_Q), reads(attention.W_K), reads(attention.W_V)
    W_O = attention.W_O.unflatten(0, heads)
    b_O = W_O.new_zeros(W_O.shape[-1])
    W_O = centred(W_O) if fold_norm else W_O
    return HeadWeights(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O, 1 / math.sqrt(attention.d_head))


# ------------------------------------------------------------------------------------------------ pretrained


@runtime_checkable
class Opened(Protocol):
    """What is read of a `Pretrained`: transformers' own model, and how many heads of what size its layers have."""

    model: Any
    name: str
    n_heads: int
    d_head: int

    def blocks(self) -> nn.ModuleList: ...


@dataclass(frozen=True)
class Family:
    attention: str  # in a layer
    output: str  # W_O, in the attention
    split: Callable[[nn.Module, int, int], list[Tensor]]  # (attention, n_heads, d_head) -> queries, keys, values
    final_norm: str  # in the model
    norm_before: str = ""  # in a layer; "" where there is none
    norm_after: str = ""  # of what W_O gives, in a layer
    rotary: bool = True  # positions turn queries and keys, so W_Q W_K^T alone is not what attends


def matrix(module: Any) -> Float[Tensor, "d_in_and_bias d_out"]:
    """Weight and bias of a linear map as one matrix, the bias last: it splits as the weights do."""
    weight = module.weight.T if isinstance(module, nn.Linear) else module.weight  # GPT-2's Conv1D is [d_in, d_out]
    bias = torch.zeros_like(weight[0]) if module.bias is None else module.bias
    return torch.cat((weight, bias[None]))


def separate(attention: Any, n_heads: int, d_head: int) -> list[Tensor]:
    """q_proj, k_proj, v_proj, heads one after another; a key or value head serves a group of neighbouring queries."""
    parts = [matrix(getattr(attention, name)).unflatten(1, (-1, d_head)) for name in ("q_proj", "k_proj", "v_proj")]
    return [part.repeat_interleave(n_heads // part.shape[1], 1) for part in parts]


def fused_by_kind(attention: Any, n_heads: int, d_head: int) -> list[Tensor]:
    """c_attn: all queries, all keys, all values."""
    return list(matrix(attention.c_attn).unflatten(1, (3, n_heads, d_head)).unbind(1))


def fused_by_head(attention: Any, n_heads: int, d_head: int) -> list[Tensor]:
    """query_key_value: each head's query, key, value."""
    return list(matrix(attention.query_key_value).unflatten(1, (n_heads, 3, d_head)).unbind(2))


LLAMA = Family("self_attn", "o_proj", separate, "model.norm", norm_before="input_layernorm")
OLMO2 = Family("self_attn", "o_proj", separate, "model.norm", norm_after="post_attention_layernorm")
FAMILIES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "smollm3": LLAMA,
    "olmo": LLAMA,
    "olmo2": OLMO2,
    "olmo3": OLMO2,
    "gpt2": Family("attn", "c_proj", fused_by_kind, "transformer.ln_f", norm_before="ln_1", rotary=False),
    "gpt_neox": Family("attention", "dense", fused_by_head, "gpt_neox.final_layer_norm", norm_before="input_layernorm"),
}


def family_of(pretrained: Opened) -> Family:
    """The model's row of the table. Raises ConfigError for a family that is not in it, or whose maps are not linear."""
    config = pretrained.model.config
    require(
        config.model_type in FAMILIES,
        f"{pretrained.name}: single heads' weights are known for {', '.join(FAMILIES)}, not for {config.model_type}",
    )
    require(
        getattr(config, "clip_qkv", None) is None,
        f"{pretrained.name} clips queries, keys and values (clip_qkv); they are not linear in the residual stream",
    )
    return FAMILIES[config.model_type]


def centres(norm: nn.Module) -> bool:
    """Whether a norm subtracts the mean (LayerNorm) or not (RMSNorm)."""
    return "RMS" not in type(norm).__name__


def gain(norm: nn.Module) -> Tensor:
    """A norm's learned factor; 1 where there is none (OLMo's LayerNorm)."""
    weight = getattr(norm, "weight", None)
    return torch.ones(()) if weight is None else weight


def folded(part: Float[Tensor, " d_in_and_bias *d_out"], norm: nn.Module) -> Float[Tensor, " d_in_and_bias *d_out"]:
    """A `matrix` that reads a norm's output -> the same that reads the norm's input, centred and divided only."""
    flat = part.flatten(1)
    weight, bias = flat[:-1], flat[-1:]
    if (shift := getattr(norm, "bias", None)) is not None:
        bias = bias + shift @ weight
    weight = weight * gain(norm).to(weight)[..., None]
    return torch.cat((weight - weight.mean(0) if centres(norm) else weight, bias)).view_as(part)


@torch.no_grad()
def pretrained_weights(pretrained: Opened, layer: int, fold_norm: bool = True) -> HeadWeights:
    """The weights of one layer's heads, copies; with fold_norm the norms' linear parts are in them (module docstring).

    Raises ConfigError for a family that is not in the table.
    """
    family, n_heads, d_head = family_of(pretrained), pretrained.n_heads, pretrained.d_head
    block = pretrained.blocks()[layer]
    attention = getattr(block, family.attention)
    parts, out = family.split(attention, n_heads, d_head), matrix(getattr(attention, family.output))
    if fold_norm:
        if family.norm_before:
            parts = [folded(part, getattr(block, family.norm_before)) for part in parts]
        for index, name in enumerate(("q_norm", "k_norm")):
            if hasattr(attention, name):
                factor = gain(getattr(attention, name)).unflatten(0, (-1, d_head))
                parts[index] = parts[index] * factor.repeat_interleave(n_heads // factor.shape[0], 0)
        if family.norm_after:
            out = out * gain(getattr(block, family.norm_after))
    W_Q, W_K, W_V = (part[:-1].transpose(0, 1) for part in parts)
    b_Q, b_K, b_V = (part[-1] for part in parts)
    W_O = out[:-1].unflatten(0, (n_heads, d_head))
    return HeadWeights(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, out[-1], float(attention.scaling))


def attention_input(
    pretrained: Opened, layer: int, residual: Float[Tensor, "batch pos d_model"], fold_norm: bool = True
) -> Float[Tensor, "batch pos d_model"]:
    """What a layer's W_Q, W_K, W_V read, from the residual stream before that layer.

    fold_norm as in `pretrained_weights`: the norm's gain and shift are in the weights, so they are left out here.
    """
    family = family_of(pretrained)
    norm = getattr(pretrained.blocks()[layer], family.norm_before) if family.norm_before else None
    if norm is None or not fold_norm:
        return residual if norm is None else norm(residual)
    eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", 1e-5))
    return (F.layer_norm if centres(norm) else F.rms_norm)(residual, residual.shape[-1:], eps=eps)


@torch.no_grad()
def embedding(pretrained: Opened) -> Float[Tensor, "d_vocab d_model"]:
    """W_E; a family's position embeddings (GPT-2) are not in it."""
    weight: Tensor = pretrained.model.get_input_embeddings().weight
    return weight.detach()


@torch.no_grad()
def unembedding(pretrained: Opened, fold_norm: bool = True) -> Float[Tensor, "d_model d_vocab"]:
    """W_U; with fold_norm the final norm's gain and centring are in it.

    Left out: a bias, and the logits the final norm's shift gives; both are the same for every input.
    """
    W_U = matrix(pretrained.model.get_output_embeddings())
    norm = pretrained.model.get_submodule(family_of(pretrained).final_norm)
    return (folded(W_U, norm) if fold_norm else W_U)[:-1]

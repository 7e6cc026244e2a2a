"""A snapshot as a checkpoint that other tools load: TransformerLens 3.9.0 or transformers. Writing it needs neither.

What a target has no part for is refused; nothing is approximated. What it has and we do not (biases, an MLP in an
attention-only GPT-2) is written as zeros, which adds exactly nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from induction_cli.config import ModelConfig, require
from induction_cli.data import START
from induction_cli.evaluation.scores import load_snapshot
from induction_cli.models.layers import Block
from induction_cli.models.transformer import Transformer
from induction_cli.runs.files import write_atomic, write_json
from induction_cli.runs.run_dir import RunDir, Snapshot

State = dict[str, Tensor]
EPS = 1e-5  # torch.nn.LayerNorm

TRANSFORMER_LENS = """\
import json
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig
model = HookedTransformer(HookedTransformerConfig(**json.load(open("config.json")))).eval()
model.load_state_dict(load_file("model.safetensors"), strict=False)
"""
HUGGINGFACE = """\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(".", attn_implementation="eager", dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(".")
print(model(**tokenizer("import os", return_tensors="pt")).logits.shape)
"""


# ------------------------------------------------------------------------------------------------ TransformerLens


def transformer_lens_refusal(config: ModelConfig) -> str:
    """Why TransformerLens 3.9.0 cannot express a model; empty if it can."""
    if config.smeared_keys:
        return "TransformerLens has no smeared keys (model.smeared_keys=true)"
    if config.positions == "relative":
        return "TransformerLens has no learned bias per distance (model.positions=relative)"
    return ""


def transformer_lens(model: Transformer) -> tuple[dict[str, Any], State]:
    """(arguments of HookedTransformerConfig, state dict). Models without positions get learned ones of 0."""
    config = model.config
    heads = (config.n_heads, config.d_head)
    settings = {
        name: getattr(config, name) for name in ("n_layers", "n_heads", "d_model", "d_head", "n_ctx", "d_vocab")
    }
    scheme = {"shortformer": "shortformer", "rotary": "rotary"}.get(config.positions, "standard")
    settings |= {"positional_embedding_type": scheme, "normalization_type": "LN", "eps": EPS, "device": "cpu"}
    settings |= {"attn_only": not config.d_mlp, "init_weights": False, "seed": None}
    if config.d_mlp:
        settings |= {"d_mlp": config.d_mlp, "act_fn": "gelu"}
    state = {"embed.W_E": model.W_E, "unembed.W_U": model.W_U, "unembed.b_U": model.W_U.new_zeros(config.d_vocab)}
    state |= {"ln_final.w": model.ln_final.weight, "ln_final.b": model.ln_final.bias}
    if scheme == "rotary":
        settings |= {"rotary_dim": config.d_head, "rotary_base": 10_000, "rotary_adjacent_pairs": False}
    elif model.positions is not None:
        state["pos_embed.W_pos"] = model.positions
    else:
        zeros = torch.zeros(config.n_ctx, config.d_model)
        state["pos_embed.W_pos"] = zeros if model.W_pos is None else model.W_pos
    for layer, block in enumerate(model.blocks):
        attention, at = block.attention, f"blocks.{layer}"
        for name in ("W_Q", "W_K", "W_V"):
            state[f"{at}.attn.{name}"] = getattr(attention, name).unflatten(1, heads).transpose(0, 1)
            state[f"{at}.attn.b_{name[-1]}"] = torch.zeros(heads)
        state[f"{at}.attn.W_O"] = attention.W_O.unflatten(0, heads)
        state[f"{at}.attn.b_O"] = torch.zeros(config.d_model)
        state |= {f"{at}.ln1.w": block.ln_attention.weight, f"{at}.ln1.b": block.ln_attention.bias}
        if block.mlp is not None and block.ln_mlp is not None:
            state |= {f"{at}.ln2.w": block.ln_mlp.weight, f"{at}.ln2.b": block.ln_mlp.bias}
            state |= {f"{at}.mlp.W_in": block.mlp.W_in, f"{at}.mlp.b_in": torch.zeros(config.d_mlp)}
            state |= {f"{at}.mlp.W_out": block.mlp.W_out, f"{at}.mlp.b_out": torch.zeros(config.d_model)}
    return settings, state


# ------------------------------------------------------------------------------------------------ transformers


def huggingface_refusal(config: ModelConfig) -> str:
    """Why no architecture of transformers expresses a model; empty if one does."""
    if config.smeared_keys:
        return "transformers has no architecture with smeared keys (model.smeared_keys=true)"
    if config.positions == "shortformer":
        return (
            "transformers has no decoder whose positions enter queries and keys but not values "
            "(model.positions=shortformer); --to transformer-lens has it"
        )
    if config.positions == "relative":
        return "transformers has no decoder with a learned bias per distance (model.positions=relative)"
    if config.n_heads * config.d_head != config.d_model:
        kind = "GPT-NeoX" if config.positions == "rotary" else "GPT-2"
        return (
            f"{kind} has d_head = d_model / n_heads, "
            f"here model.n_heads * model.d_head is {config.n_heads * config.d_head} and model.d_model {config.d_model}"
        )
    return ""


def huggingface(model: Transformer) -> tuple[dict[str, Any], State]:
    """(config.json, state dict): GPT-NeoX for rotary positions, else GPT-2 (its positions 0 where we have none).

    An attention-only model gets MLPs of width 1 whose weights are all 0.
    """
    return gpt_neox(model) if model.config.positions == "rotary" else gpt2(model)


def mlp_tensors(block: Block) -> tuple[Tensor, ...]:
    """LayerNorm weight and bias [d_model], W_in [d_model, d_mlp], W_out [d_mlp, d_model]; 0 where there is no MLP."""
    if block.mlp is not None and block.ln_mlp is not None:
        return block.ln_mlp.weight, block.ln_mlp.bias, block.mlp.W_in, block.mlp.W_out
    weight = block.ln_attention.weight
    d_model = len(weight)
    return (
        weight.new_ones(d_model),
        weight.new_zeros(d_model),
        weight.new_zeros(d_model, 1),
        weight.new_zeros(1, d_model),
    )


def gpt2(model: Transformer) -> tuple[dict[str, Any], State]:
    """GPT-2 keeps its matrices [in, out], as we do."""
    config, d_model = model.config, model.config.d_model
    settings = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": config.d_vocab,
        "n_positions": config.n_ctx, "n_embd": d_model, "n_layer": config.n_layers, "n_head": config.n_heads,
        "n_inner": config.d_mlp or 1, "activation_function": "gelu", "layer_norm_epsilon": EPS,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    }  # fmt: skip
    W_pos = torch.zeros(config.n_ctx, d_model) if model.W_pos is None else model.W_pos
    state = {"transformer.wte.weight": model.W_E, "transformer.wpe.weight": W_pos, "lm_head.weight": model.W_U.T}
    state |= {"transformer.ln_f.weight": model.ln_final.weight, "transformer.ln_f.bias": model.ln_final.bias}
    for layer, block in enumerate(model.blocks):
        attention, at = block.attention, f"transformer.h.{layer}"
        ln_weight, ln_bias, W_in, W_out = mlp_tensors(block)
        state |= {
            f"{at}.ln_1.weight": block.ln_attention.weight,
            f"{at}.ln_1.bias": block.ln_attention.bias,
            f"{at}.attn.c_attn.weight": torch.cat((attention.W_Q, attention.W_K, attention.W_V), 1),
            f"{at}.attn.c_attn.bias": torch.zeros(3 * d_model),
            f"{at}.attn.c_proj.weight": attention.W_O,
            f"{at}.attn.c_proj.bias": torch.zeros(d_model),
            f"{at}.ln_2.weight": ln_weight,
            f"{at}.ln_2.bias": ln_bias,
            f"{at}.mlp.c_fc.weight": W_in,
            f"{at}.mlp.c_fc.bias": torch.zeros(W_in.shape[1]),
            f"{at}.mlp.c_proj.weight": W_out,
            f"{at}.mlp.c_proj.bias": torch.zeros(d_model),
        }
    return settings, state


def gpt_neox(model: Transformer) -> tuple[dict[str, Any], State]:
    """GPT-NeoX keeps its matrices [out, in], and each head's query, key and value together."""
    config, d_model = model.config, model.config.d_model
    settings = {
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": config.d_vocab,
        "max_position_embeddings": config.n_ctx, "hidden_size": d_model, "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads, "intermediate_size": config.d_mlp or 1, "hidden_act": "gelu",
        "layer_norm_eps": EPS, "rotary_pct": 1.0, "rotary_emb_base": 10_000, "use_parallel_residual": False,
        "attention_bias": False,
    }  # fmt: skip
    state = {"gpt_neox.embed_in.weight": model.W_E, "embed_out.weight": model.W_U.T}
    state |= {"gpt_neox.final_layer_norm.weight": model.ln_final.weight}
    state |= {"gpt_neox.final_layer_norm.bias": model.ln_final.bias}
    for layer, block in enumerate(model.blocks):
        attention, at = block.attention, f"gpt_neox.layers.{layer}"
        ln_weight, ln_bias, W_in, W_out = mlp_tensors(block)
        parts = [W.unflatten(1, (config.n_heads, -1)) for W in (attention.W_Q, attention.W_K, attention.W_V)]
        state |= {
            f"{at}.input_layernorm.weight": block.ln_attention.weight,
            f"{at}.input_layernorm.bias": block.ln_attention.bias,
            f"{at}.attention.query_key_value.weight": torch.stack(parts, 2).flatten(1).T,
            f"{at}.attention.dense.weight": attention.W_O.T,
            f"{at}.post_attention_layernorm.weight": ln_weight,
            f"{at}.post_attention_layernorm.bias": ln_bias,
            f"{at}.mlp.dense_h_to_4h.weight": W_in.T,
            f"{at}.mlp.dense_h_to_4h.bias": torch.zeros(W_in.shape[1]),
            f"{at}.mlp.dense_4h_to_h.weight": W_out.T,
            f"{at}.mlp.dense_4h_to_h.bias": torch.zeros(d_model),
        }
    return settings, state


# ------------------------------------------------------------------------------------------------ writing


@dataclass(frozen=True)
class Target:
    refusal: Callable[[ModelConfig], str]
    express: Callable[[Transformer], tuple[dict[str, Any], State]]
    snippet: str  # five lines, run in the folder, that end with `model`
    needs: str


TARGETS = {
    "transformer-lens": Target(transformer_lens_refusal, transformer_lens, TRANSFORMER_LENS, "transformer-lens==3.9.0"),
    "huggingface": Target(huggingface_refusal, huggingface, HUGGINGFACE, "transformers>=5"),
}


def read_me(run: RunDir, snapshot: Snapshot, config: ModelConfig, target: Target) -> str:
    parts = "attention-only" if not config.d_mlp else "with MLPs"
    return (
        f"# {run.name}, step {snapshot.step} ({snapshot.tokens:,} tokens)\n\n"
        f"{config.n_layers} layers, {config.n_heads} heads, {parts}, {config.positions} positions; trained and "
        f"exported by `induction`. Token 0 stands before every document; give it first for scores like ours.\n\n"
        f"Needs `{target.needs}`. In this folder:\n\n```python\n{target.snippet}```\n"
    )


@torch.no_grad()
def export(run: RunDir, snapshot: Snapshot, to: str, out_dir: Path) -> Path:
    """Write a snapshot as config.json, model.safetensors (float32), the tokenizer and a README; returns out_dir.

    Its logits equal ours within 1e-4. Raises ConfigError in one line for an unknown target and for a model that the
    target cannot express, before anything is written.
    """
    require(to in TARGETS, f"'{to}' is no export target; there are {', '.join(TARGETS)}")
    target, config = TARGETS[to], run.config().model
    refusal = target.refusal(config)
    require(not refusal, f"'{run.path}' cannot be exported: {refusal}")
    settings, state = target.express(load_snapshot(run, snapshot))
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in state.items()}
    if to == "huggingface":
        settings |= {"tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0, "dtype": "float32"}
        names = {"bos_token": START, "eos_token": START}
        write_json(out_dir / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    write_atomic(out_dir / "model.safetensors", save(tensors, {"format": "pt"}))
    write_json(out_dir / "config.json", settings)
    if run.tokenizer_file.exists():
        write_atomic(out_dir / "tokenizer.json", run.tokenizer_file.read_bytes())
    write_atomic(out_dir / "README.md", read_me(run, snapshot, config, target).encode())
    return out_dir

#!/usr/bin/env bash
# transformers 5.23.0 opens a llama GGUF whose header asks for scaled rotary positions, and runs it without the scaling.
#
# Guess: what a reader does not understand of a model's positions is an error, or at least in the loading report.
# Seen (transformers 5.23.0, gguf 0.19.0, torch 2.13.0): with `llama.rope.scaling.type` linear and factor 4, and with a tensor
#   `rope_freqs.weight` of eights (how converted Llama 3 files hold their scaling), the configuration says rope_type
#   'default', missing, unexpected and mismatched keys are empty, and logits equal those of the unscaled file exactly.
# Matters: the model that is measured is not the one in the file, most of all at long contexts.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cat >"$work/show.py" <<'PY'
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

D_MODEL, D_MLP, D_VOCAB, D_HEAD = 32, 64, 40, 16
LINEAR = {"attn_q": 1, "attn_k": 1, "attn_v": 1, "attn_output": 1, "ffn_gate": 2, "ffn_up": 2, "ffn_down": 3}
SHAPES = {1: (D_MODEL, D_MODEL), 2: (D_MLP, D_MODEL), 3: (D_MODEL, D_MLP)}


def logits(folder, scale):
    """Of a one-layer llama with the same weights each time; `scale` adds to its header or tensors."""
    writer, random = gguf.GGUFWriter(folder / "model.gguf", "llama"), np.random.default_rng(0)
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(D_MODEL)
    writer.add_feed_forward_length(D_MLP)
    writer.add_head_count(D_MODEL // D_HEAD)
    writer.add_head_count_kv(D_MODEL // D_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(D_HEAD)
    writer.add_vocab_size(D_VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(D_VOCAB)])
    writer.add_token_types([1] * D_VOCAB)
    writer.add_token_merges([])
    shapes = {"token_embd": (D_VOCAB, D_MODEL), "output": (D_VOCAB, D_MODEL)}
    shapes |= {f"blk.0.{name}": SHAPES[kind] for name, kind in LINEAR.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.5, shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(D_MODEL, np.float32))
    scale(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    assert model.config.rope_parameters["rope_type"] == "default", model.config.rope_parameters
    with torch.no_grad():
        return model(torch.arange(D_VOCAB)[None]).logits


def linear(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def frequencies(writer):
    writer.add_tensor("rope_freqs.weight", np.full(D_HEAD // 2, 8, np.float32))


plain = logits(Path(sys.argv[1]), lambda writer: None)
for name, scale in (("linear, factor 4", linear), ("rope_freqs of 8", frequencies)):
    difference = (logits(Path(sys.argv[1]), scale) - plain).abs().max().item()
    print(f"{name}: rope_type 'default', nothing reported, logits differ from the unscaled file by {difference}")
    assert difference == 0, "this has changed"
PY
mkdir "$work/model"
"$work/venv/bin/python" "$work/show.py" "$work/model" 2>/dev/null || exit 1

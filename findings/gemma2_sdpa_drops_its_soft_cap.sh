#!/usr/bin/env bash
# transformers 5.20.2 runs Gemma 2 through fused attention (sdpa) by itself, and that path leaves the attention soft cap
# out: same weights, same tokens, other logits than its own eager attention, and no warning.
#
# Guess: two attention implementations of one library agree to float tolerance, or the one that cannot do what the
#   configuration asks for is refused.
# Seen (transformers 5.20.2, torch 2.13.0, CPU): 'sdpa' is what a model made without a wish gets; the largest difference
#   of logits from eager is 5.2 with a cap of 0.05, and below 1e-5 with a cap so high that it does nothing. 5.21.0 and
#   later refuse sdpa for this family and take eager.
# Matters: a score of such a model is one of another model; whoever reads attention patterns gets eager's.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.20.2
cat >"$work/show.py" <<'PY'
import torch
from transformers import AutoModelForCausalLM, Gemma2Config


def difference(cap):
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=101, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=1, initializer_range=0.5,
        attn_logit_softcapping=cap, final_logit_softcapping=None,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    chosen, logits = model.config._attn_implementation, {}
    for how in ("eager", "sdpa"):
        model.set_attn_implementation(how)
        with torch.no_grad():
            logits[how] = model(torch.arange(20)[None]).logits
    return chosen, (logits["eager"] - logits["sdpa"]).abs().max().item()


chosen, low = difference(0.05)
_, high = difference(1e6)
print(f"chosen by itself: {chosen}; logits differ by {low:.3g} with a cap of 0.05, by {high:.3g} with one of 1e6")
assert chosen == "sdpa" and low > 1 and high < 1e-4, "this has changed"
PY
"$work/venv/bin/python" "$work/show.py" || exit 1

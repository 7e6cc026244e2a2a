#!/usr/bin/env bash
# TransformerLens 3.9.0: going on from a cached residual stream (start_at_layer) loses shortformer positions without a word.
#
# Guess: the residual stream before layer 1, fed back in at layer 1, gives the logits of the whole run, as it does for
#   standard and rotary positions. Shortformer positions are added to the inputs of W_Q and W_K of every layer, so a
#   restart has to add them again; the call knows the scheme and the length.
# Seen (transformer-lens 3.9.0, torch 2.13.0): largest difference of logits 0 for standard and rotary, 0.65 for
#   shortformer (weights of standard deviation 0.5); right again when `shortformer_pos_embed` is handed in by hand.
# Matters: activation patching and ablation sweeps that restart at a layer measure another model on attention-only
#   shortformer models, which are what this field trains for induction heads.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.20.2 transformer-lens==3.9.0
cat >"$work/show.py" <<'PY'
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

found = {}
for kind in ("standard", "rotary", "shortformer"):
    config = HookedTransformerConfig(
        n_layers=2, d_model=16, d_head=8, n_heads=2, n_ctx=32, d_vocab=40, attn_only=True, normalization_type="LN",
        positional_embedding_type=kind, device="cpu", seed=0, rotary_dim=8 if kind == "rotary" else None,
    )
    model = HookedTransformer(config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        whole, cache = model.run_with_cache(tokens)
        residual = cache["blocks.1.hook_resid_pre"]
        found[kind] = (whole - model(residual, start_at_layer=1)).abs().max().item()
        if kind == "shortformer":
            by_hand = model(residual, start_at_layer=1, shortformer_pos_embed=model.pos_embed(tokens))
            found["shortformer, positions handed in"] = (whole - by_hand).abs().max().item()
for kind, difference in found.items():
    print(f"{kind}: logits of a restart at layer 1 differ by {difference:.3g}")
assert found.pop("shortformer") > 0.05 and max(found.values()) < 1e-4, "this has changed"
PY
"$work/venv/bin/python" "$work/show.py" 2>/dev/null || exit 1

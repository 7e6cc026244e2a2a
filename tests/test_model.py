import pytest
import torch
import torch.nn.functional as F
from conftest import BATCH, D_HEAD, N_HEADS, N_POS, small_config

from induction_cli.models.layers import smear
from induction_cli.models.protocol import Patch
from induction_cli.models.transformer import Transformer

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def test_fused_path_agrees_with_recorded_patterns(model, tokens):
    fused = model(tokens)
    logits, kept = model(tokens, record=("pattern", "z", "residual"))
    assert torch.allclose(fused, logits, **CLOSE)
    assert [p.shape for p in kept.pattern] == [(BATCH, N_HEADS, N_POS, N_POS)] * 2
    assert [z.shape for z in kept.z] == [(BATCH, N_POS, N_HEADS, D_HEAD)] * 2
    assert len(kept.residual) == 3
    for pattern in kept.pattern:
        assert torch.allclose(pattern.sum(-1), torch.ones(()), **CLOSE)
        assert pattern.triu(1).abs().max() == 0


def test_pattern_is_what_torch_attention_uses(model, tokens):
    """With values that name their position, the reference attention's output is the pattern itself."""
    block = model.blocks[0]
    x, pos = block.ln_attention(model.embed(tokens)), model.query_key_positions(N_POS)
    q, k, _ = block.attention.queries_keys_values(x, pos)
    names = torch.eye(N_POS).expand(BATCH, N_HEADS, N_POS, N_POS)
    bias = block.attention.bias(N_POS)
    mask = torch.ones(N_POS, N_POS, dtype=torch.bool).tril() if bias is None else bias
    assert torch.allclose(
        F.scaled_dot_product_attention(q, k, names, attn_mask=mask), block.attention.pattern(q, k), **CLOSE
    )


def test_causal(model, tokens):
    changed = tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    assert torch.allclose(model(tokens)[:, :4], model(changed)[:, :4], **CLOSE)
    assert not torch.allclose(model(tokens)[:, 4:], model(changed)[:, 4:], **CLOSE)


def test_only_what_is_asked_for_is_kept(model, tokens):
    _, kept = model(tokens, record=("z",))
    assert kept.z and not kept.pattern and not kept.residual


def test_reduction_is_applied_layer_by_layer(model, tokens):
    _, whole = model(tokens, record=("pattern",))
    _, reduced = model(tokens, record={"pattern": lambda pattern: pattern.diagonal(-1, -2, -1).mean(-1)})
    for full, small in zip(whole.pattern, reduced.pattern, strict=True):
        assert torch.equal(full.diagonal(-1, -2, -1).mean(-1), small)


@pytest.mark.parametrize("names", [("pattern",), ("z",), ("residual",), ("pattern", "z")])
def test_activations_alone_are_those_of_the_full_pass(model, tokens, names):
    _, whole = model(tokens, record=names)
    alone = model.activations(tokens, names)
    for name in names:
        one, two = getattr(whole, name), getattr(alone, name)
        assert len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_unknown_recording_is_refused(model, tokens):
    with pytest.raises(ValueError, match=r"cannot record patern; there are residual, pattern, z"):
        model(tokens, record=("patern",))


def test_empty_patch_and_scale_one_change_nothing(model, tokens):
    plain = model(tokens)
    assert torch.equal(model(tokens, patch=Patch()), plain)
    assert torch.equal(model(tokens, patch=Patch(head_scale=torch.ones(2, N_HEADS))), plain)


def test_own_patterns_change_nothing(model, tokens):
    plain, kept = model(tokens, record=("pattern",))
    assert torch.allclose(model(tokens, patch=Patch(patterns=dict(enumerate(kept.pattern)))), plain, **CLOSE)


def test_removed_head_equals_zero_rows_of_W_O(model, tokens):
    scale = torch.ones(2, N_HEADS)
    scale[1, 2] = 0
    patched = model(tokens, patch=Patch(head_scale=scale))
    with torch.no_grad():
        model.blocks[1].attention.W_O[2 * D_HEAD : 3 * D_HEAD] = 0
    assert torch.allclose(patched, model(tokens), **CLOSE)


def test_fill_takes_the_place_of_a_removed_head(model, tokens):
    scale, fill = torch.ones(2, N_HEADS), torch.zeros(2, N_HEADS, D_HEAD)
    scale[0, 1], fill[0, 1] = 0, torch.arange(D_HEAD).float()
    _, kept = model(tokens, record=("residual", "z"))
    _, filled = model(tokens, record=("residual",), patch=Patch(head_scale=scale, head_fill=fill))
    block = model.blocks[0]
    z = kept.z[0].clone()
    z[:, :, 1] = fill[0, 1]
    expected = block.after_attention(kept.residual[0] + block.attention.result(z))
    assert torch.allclose(filled.residual[1], expected, **CLOSE)


@pytest.mark.parametrize(
    "patch",
    [
        Patch(head_scale=torch.ones(3, N_HEADS)),
        Patch(head_scale=torch.ones(N_HEADS)),
        Patch(head_fill=torch.zeros(2, N_HEADS, D_HEAD)),
        Patch(patterns={0: torch.zeros(BATCH, N_HEADS, N_POS, N_POS - 1)}),
        Patch(patterns={2: torch.zeros(BATCH, N_HEADS, N_POS, N_POS)}),
    ],
)
def test_wrong_patch_raises(model, tokens, patch):
    with pytest.raises(ValueError, match=r"patch\."):
        model(tokens, patch=patch)


def test_too_many_tokens_raise(model):
    with pytest.raises(ValueError, match="8 tokens, but the model's context holds 7"):
        model(torch.zeros(1, N_POS + 1, dtype=torch.long))


def test_smear_by_hand():
    k = torch.tensor([[1.0], [10.0], [100.0]])[None, None]
    quarter = torch.tensor([0.25]).logit()
    assert torch.allclose(smear(k, quarter).flatten(), torch.tensor([1.0, 3.25, 32.5]))


def test_smear_weight_one_is_vanilla_bit_for_bit(tokens):
    vanilla = Transformer(small_config(), seed=3)
    smeared = Transformer(small_config(smeared_keys=True, smear_init=40.0), seed=3)  # sigmoid(40) is 1 in float32
    assert torch.equal(vanilla(tokens), smeared(tokens))
    assert torch.equal(vanilla(tokens, record=("pattern",))[0], smeared(tokens, record=("pattern",))[0])


def test_smeared_gradients():
    alpha = torch.randn(N_HEADS, dtype=torch.float64, requires_grad=True)
    k = torch.randn(BATCH, N_HEADS, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(smear, (k, alpha))


def test_seed_decides_the_weights(tokens):
    assert torch.equal(Transformer(small_config(), 3)(tokens), Transformer(small_config(), 3)(tokens))
    assert not torch.equal(Transformer(small_config(), 3)(tokens), Transformer(small_config(), 4)(tokens))


def test_shortformer_positions_stay_out_of_values_and_residual(tokens):
    """All tokens alike: values and residual are the same at every position, so the logits are too."""
    logits = Transformer(small_config(), 3)(torch.full_like(tokens, 4))
    assert torch.allclose(logits, logits[:, :1].expand_as(logits), **CLOSE)


def test_no_layers_is_the_bigram_model(tokens):
    model = Transformer(small_config(n_layers=0), 3)
    assert torch.equal(model(tokens), model.ln_final(model.W_E[tokens]) @ model.W_U)


def test_a_single_heads_pattern_is_its_layers_with_that_one_exchanged(model, tokens):
    _, kept = model(tokens, record=("pattern",))
    previous = torch.diag(torch.ones(N_POS - 1), -1)[None]
    previous[:, 0, 0] = 1
    patterns = kept.pattern[1].clone()
    patterns[:, 2] = previous
    found = model(tokens, patch=Patch(head_patterns={(1, 2): previous}))
    assert torch.allclose(found, model(tokens, patch=Patch(patterns={1: patterns})), **CLOSE)
    assert not torch.allclose(found, model(tokens), **CLOSE)


def test_what_is_written_besides_replaces_a_removed_head(model, tokens):
    _, kept = model(tokens, record=("z",))
    scale = torch.ones(2, N_HEADS)
    scale[1, 2] = 0
    itself = kept.z[1][:, :, 2] @ model.head_weights(1, fold_norm=False).W_O[2]
    assert torch.allclose(model(tokens, patch=Patch(scale, written={1: itself})), model(tokens), **CLOSE)


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (
            Patch(head_patterns={(1, N_HEADS): torch.zeros(1, N_POS, N_POS)}),
            "head 3 of layer 1, which the model has not",
        ),
        (Patch(head_patterns={(1, 0): torch.zeros(N_POS, N_POS)}), r"head_patterns\[1, 0\] has shape"),
        (Patch(written={2: torch.zeros(BATCH, N_POS, 13)}), "written names layer 2"),
        (Patch(written={0: torch.zeros(BATCH, N_POS, 12)}), r"written\[0\] has shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(model, tokens, patch, said):
    with pytest.raises(ValueError, match=said):
        model(tokens, patch=patch)


def test_losses_are_those_of_the_logits(model, tokens):
    expected = torch.nn.functional.cross_entropy(model(tokens)[:, :-1].mT, tokens[:, 1:], reduction="none")
    assert torch.allclose(model.losses(tokens), expected, **CLOSE)
    assert torch.allclose(model.losses(tokens, Patch()), expected, **CLOSE)

"""Pretrained models: what is recorded is what ran, a patch does what it says, and nothing unfit is accepted."""

import importlib.util
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
import transformers

from induction_cli.config import ConfigError
from induction_cli.models import pretrained as room
from induction_cli.models.heads import FAMILIES, attention_input, family_of, unembedding
from induction_cli.models.pretrained import (
    Pretrained,
    expand_series,
    is_pretrained,
    open_pretrained,
    repeated_weights,
    same_weights,
    smollm2_path,
)
from induction_cli.models.protocol import Patch

BATCH, POS, LAYERS, D_VOCAB = 2, 7, 3, 53
GROUPED = dict(
    vocab_size=D_VOCAB, hidden_size=48, intermediate_size=31, num_hidden_layers=LAYERS, num_attention_heads=6,
    num_key_value_heads=2, head_dim=10, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    tie_word_embeddings=False,
)  # fmt: skip
EQUAL = GROUPED | dict(hidden_size=30, num_attention_heads=3, num_key_value_heads=3)
CONFIGS = {
    "gpt2": dict(vocab_size=D_VOCAB, n_embd=30, n_head=3, n_layer=LAYERS, n_positions=32, eos_token_id=2),
    "gpt_neox": EQUAL,
    "llama": GROUPED | dict(attention_bias=True),
    "mistral": GROUPED | dict(sliding_window=3),
    "qwen2": GROUPED | dict(hidden_size=60),
    "qwen3": GROUPED,
    "smollm3": GROUPED | dict(hidden_size=60, no_rope_layers=[1, 0, 1]),
    "olmo": GROUPED | dict(hidden_size=60),
    "olmo2": GROUPED | dict(hidden_size=60),
    "olmo3": GROUPED | dict(hidden_size=60, sliding_window=3),
    "gemma2": GROUPED | dict(sliding_window=3, query_pre_attn_scalar=10),  # softcapped: never fused
}
OUTPUT = {"gpt2": "attn.c_proj", "gpt_neox": "attention.dense"}  # else self_attn.o_proj


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(kind: str, folder: Path, **changes) -> Path:
    """A small checkpoint with random weights, none of them 0 or 1, so that every bias and gain counts."""
    config = transformers.AutoConfig.for_model(kind, **(CONFIGS.get(kind, {}) | changes))
    model = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
        parameter.data += 1.0 if "norm" in name and name.endswith("weight") else 0.0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """{family: folder}, made when first asked for."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def folder(kind: str) -> Path:
        return made.setdefault(kind, None) or made.update({kind: build(kind, root / kind)}) or made[kind]

    return folder


@pytest.fixture(scope="session", params=list(CONFIGS))
def model(request, folders) -> Pretrained:
    return open_pretrained(str(folders(request.param)))


@pytest.fixture(scope="session")
def llama(folders) -> Pretrained:
    return open_pretrained(str(folders("llama")))


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    return torch.randint(0, D_VOCAB, (BATCH, POS), generator=torch.Generator().manual_seed(1))


def output_projection(model: Pretrained, layer: int) -> torch.nn.Module:
    return model.blocks()[layer].get_submodule(OUTPUT.get(model.model.config.model_type, "self_attn.o_proj"))


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance * b.abs().max().item(), rtol=0)


# ------------------------------------------------------------------------------------------------ the call


def test_recorded_run_is_the_plain_run(model, folders, tokens):
    kind = model.model.config.model_type
    reference = transformers.AutoModelForCausalLM.from_pretrained(folders(kind), attn_implementation="eager")
    with torch.no_grad():
        expected = reference.eval()(tokens, use_cache=False, output_attentions=True)
    logits, kept = model(tokens, record=["pattern", "z", "residual"])
    assert torch.equal(logits, expected.logits)  # bit for bit
    for pattern, attention in zip(kept.pattern, expected.attentions, strict=True):
        assert torch.equal(pattern, attention)
    close(model(tokens), logits)  # fused
    close(model(tokens, record=["z"])[0], logits)
    assert torch.equal(model.model(tokens, use_cache=False).logits, logits)  # called behind our back
    assert torch.equal(model(tokens, patch=Patch()), model(tokens))


def test_shapes(model, tokens):
    logits, kept = model(tokens, record=("pattern", "z", "residual"))
    grouped = model.model.config.model_type not in ("gpt2", "gpt_neox")
    assert (model.n_layers, model.n_heads, model.d_head) == (LAYERS, 6 if grouped else 3, 10)
    assert (model.d_vocab, model.n_ctx, model.d_model) == (D_VOCAB, 32, model.model.config.hidden_size)
    assert logits.shape == (BATCH, POS, D_VOCAB)
    assert [p.shape for p in kept.pattern] == [(BATCH, model.n_heads, POS, POS)] * LAYERS
    assert [z.shape for z in kept.z] == [(BATCH, POS, model.n_heads, 10)] * LAYERS
    assert [x.shape for x in kept.residual] == [(BATCH, POS, model.d_model)] * (LAYERS + 1)
    assert model(tokens, record=())[1].pattern == []


def test_patterns_are_causal_distributions(model, tokens):
    for pattern in model(tokens, record=["pattern"])[1].pattern:
        torch.testing.assert_close(pattern.sum(-1), torch.ones(BATCH, model.n_heads, POS))
        assert (pattern >= 0).all() and not pattern.triu(1).any()


def test_residual_is_the_hidden_states(model, tokens):
    kept = model(tokens, record=["residual", "pattern"])[1].residual  # recording patterns: bit-equal to eager
    expected = model.model(tokens, use_cache=False, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(kept[:-1], expected[:-1], strict=True))
    norm = next(m for n, m in model.model.base_model.named_children() if n in ("norm", "ln_f", "final_layer_norm"))
    assert torch.equal(norm(kept[-1]), expected[-1])  # transformers has the last one after the norm


@pytest.mark.parametrize("record", [None, ["pattern"]])
def test_scaling_a_head_changes_its_slice_of_the_output_projection(model, tokens, record):
    layer, head = 1, 2
    for scale, filled in ((0.0, False), (0.25, False), (0.0, True)):
        head_scale, head_fill = torch.ones(LAYERS, model.n_heads), torch.randn(LAYERS, model.n_heads, model.d_head)
        head_scale[layer, head] = scale
        result = model(tokens, record, Patch(head_scale=head_scale, head_fill=head_fill if filled else None))

        def oracle(module, args, scale=scale, fill=head_fill[layer, head] if filled else 0):
            z = args[0].unflatten(-1, (model.n_heads, model.d_head)).clone()
            z[..., head, :] = z[..., head, :] * scale + (1 - scale) * fill
            return (z.flatten(-2),)

        hook = output_projection(model, layer).register_forward_pre_hook(oracle)
        expected = model(tokens, record)
        hook.remove()
        assert torch.equal(result if record is None else result[0], expected if record is None else expected[0])
        assert not torch.allclose(expected if record is None else expected[0], model(tokens))


def test_giving_back_the_patterns_changes_nothing(model, tokens):
    logits, kept = model(tokens, record=["pattern", "z"])
    again, same = model(tokens, record=["pattern", "z"], patch=Patch(patterns=dict(enumerate(kept.pattern))))
    close(again, logits)
    assert all(torch.equal(a, b) for a, b in zip(same.pattern, kept.pattern, strict=True))


def test_given_patterns_are_used(model, tokens):
    previous = torch.diag(torch.ones(POS - 1), -1)
    previous[0, 0] = 1
    given = previous.expand(1, model.n_heads, POS, POS)
    logits, kept = model(tokens, record=["pattern", "z"], patch=Patch(patterns={1: given}))
    itself = Patch(patterns={1: torch.eye(POS).expand(1, model.n_heads, POS, POS)})
    values = model(tokens, record=["z"], patch=itself)[1].z[1]
    assert torch.equal(kept.pattern[1], given)
    close(kept.z[1][:, 1:], values[:, :-1])
    close(model(tokens, patch=Patch(patterns={1: given})), logits)


def test_z_is_kept_before_the_patch(llama, tokens):
    z = llama(tokens, record=["z"])[1].z[0]
    patched = llama(tokens, record=["z"], patch=Patch(head_scale=torch.zeros(LAYERS, 6)))[1].z[0]
    assert torch.equal(z, patched)


def test_reductions_are_applied_layer_by_layer(llama, tokens):
    events = []
    hooks = [block.register_forward_hook(lambda *_: events.append("layer")) for block in llama.blocks()]

    def largest(pattern):
        events.append("reduced")
        return pattern.amax((0, 2, 3))

    kept = llama(tokens, record={"pattern": largest})[1]
    for hook in hooks:
        hook.remove()
    assert events == ["reduced", "layer"] * LAYERS
    assert [x.shape for x in kept.pattern] == [(6,)] * LAYERS
    assert kept.z == [] and kept.residual == []


def test_wrong_requests_raise(llama, tokens):
    for patch in (
        Patch(head_scale=torch.ones(LAYERS, 2)),  # key-value heads are not heads
        Patch(head_fill=torch.ones(LAYERS, 6, 10)),
        Patch(patterns={0: torch.ones(BATCH, 2, POS, POS)}),
        Patch(patterns={LAYERS: torch.ones(BATCH, 6, POS, POS)}),
    ):
        with pytest.raises(ValueError, match="patch"):
            llama(tokens, patch=patch)
    with pytest.raises(ValueError, match="cannot record keys"):
        llama(tokens, record=["keys"])
    with pytest.raises(ValueError, match="33 tokens"):
        llama(torch.zeros(1, 33, dtype=torch.long))


def test_gradients_reach_the_patch(llama, tokens):
    scale = torch.ones(LAYERS, 6, requires_grad=True)
    llama(tokens, patch=Patch(head_scale=scale)).sum().backward()
    assert (scale.grad != 0).all()


def test_calls_in_threads_do_not_meet(llama, tokens):
    scales = [torch.full((LAYERS, 6), float(i)) for i in range(4)]
    alone = [llama(tokens, ["residual"], Patch(head_scale=scale)) for scale in scales]
    together = [None] * 4

    def call(i):
        for _ in range(20):
            together[i] = llama(tokens, ["residual"], Patch(head_scale=scales[i]))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (logits, kept), (expected, wanted) in zip(together, alone, strict=True):
        assert torch.equal(logits, expected)
        assert all(torch.equal(a, b) for a, b in zip(kept.residual, wanted.residual, strict=True))


# ------------------------------------------------------------------------------------------------ weights


@pytest.fixture(params=list(FAMILIES))
def family(request, folders) -> Pretrained:
    return open_pretrained(str(folders(request.param)))


@pytest.mark.parametrize("fold_norm", [False, True])
def test_head_weights_rebuild_the_layer(family, tokens, fold_norm, monkeypatch):
    """Heads' results from residual, pattern, W_V and W_O; queries and keys at position 0, where rotary does nothing."""
    model, seen, written = family, [], []
    attention_module = getattr(model.blocks()[0], family_of(model).attention)
    modeling = importlib.import_module(type(attention_module).__module__)
    own = modeling.eager_attention_forward

    def spy(module, query, key, value, mask, **options):
        seen.append((query, key.repeat_interleave(query.shape[1] // key.shape[1], 1)))
        return own(module, query, key, value, mask, **options)

    monkeypatch.setattr(modeling, "eager_attention_forward", spy)
    outputs = [output_projection(model, layer) for layer in range(LAYERS)]
    hooks = [output.register_forward_hook(lambda module, args, out: written.append(out)) for output in outputs]
    kept = model(tokens, record=["residual", "pattern", "z"])[1]
    for hook in hooks:
        hook.remove()
    for layer, (pattern, z) in enumerate(zip(kept.pattern, kept.z, strict=True)):
        w = model.head_weights(layer, fold_norm)
        x = attention_input(model, layer, kept.residual[layer], fold_norm)
        values = torch.einsum("bpm,hmd->bhpd", x, w.W_V) + w.b_V[:, None]
        close((pattern @ values).transpose(1, 2), z)
        result = torch.einsum("bqhd,hdm->bqm", z, w.W_O) + w.b_O
        after = family_of(model).norm_after
        expected = written[layer]
        if fold_norm and after:  # what enters the stream, up to the division by its length
            norm = getattr(model.blocks()[layer], after)
            expected = norm(expected) * (expected.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        close(result, expected)
        for found, W, b, name in zip(seen[layer], (w.W_Q, w.W_K), (w.b_Q, w.b_K), ("q_norm", "k_norm"), strict=True):
            rebuilt = (torch.einsum("bm,hmd->bhd", x[:, 0], W) + b[None])[:, :, None]
            found = found[:, :, :1]
            if hasattr(getattr(model.blocks()[layer], family_of(model).attention), name):  # equal but for the length
                if not fold_norm:
                    continue  # without the gain directions differ; folding is what is claimed
                whole = model.model.config.model_type != "qwen3"
                axes = (1, 2, 3) if whole else (3,)
                found, rebuilt = (v / v.pow(2).sum(axes, keepdim=True).sqrt() for v in (found, rebuilt))
            close(rebuilt, found)


def test_rotary_free_scores_give_the_pattern(folders, tokens):
    model = open_pretrained(str(folders("gpt2")))
    kept = model(tokens, record=["residual", "pattern"])[1]
    w, x = model.head_weights(2), attention_input(model, 2, kept.residual[2])
    q, k = (torch.einsum("bpm,hmd->bhpd", x, W) + b[:, None] for W, b in ((w.W_Q, w.b_Q), (w.W_K, w.b_K)))
    scores = (w.scale * q @ k.mT).masked_fill(torch.ones(POS, POS).triu(1).bool(), -torch.inf)
    close(scores.softmax(-1), kept.pattern[2])


def test_folded_weights_read_raw_directions(folders):
    """Centring is in the weights: a constant added to a LayerNorm model's residual stream is not seen."""
    model = open_pretrained(str(folders("gpt2")))
    w = model.head_weights(0)
    for W in (w.W_Q, w.W_K, w.W_V):
        assert W.sum(1).abs().max() < 1e-4
    assert model.unembedding().sum(0).abs().max() < 1e-4


def test_embedding_and_unembedding(family, tokens):
    model = family
    logits, kept = model(tokens, record=["residual", "pattern"])
    if model.model.config.model_type != "gpt2":  # which adds its positions
        assert torch.equal(model.embedding()[tokens], kept.residual[0])
    norm = model.model.get_submodule(family_of(model).final_norm)
    close(norm(kept.residual[-1]) @ unembedding(model, fold_norm=False), logits)
    shift, factor = (getattr(norm, name, None) for name in ("bias", "weight"))
    x = norm(kept.residual[-1]) - (0 if shift is None else shift)
    close(x / (1 if factor is None else factor) @ model.unembedding(), x @ unembedding(model, fold_norm=False))


def test_head_weights_refuse_unknown_families(folders, tmp_path):
    with pytest.raises(ConfigError, match="not for gemma2"):
        open_pretrained(str(folders("gemma2"))).head_weights(0)
    with pytest.raises(ConfigError, match="clip_qkv"):
        open_pretrained(str(build("olmo", tmp_path, clip_qkv=1.0))).head_weights(0)


def test_weights_hash(folders, tmp_path, llama):
    copy = open_pretrained(str(shutil.copytree(folders("llama"), tmp_path / "copy")))
    assert same_weights(llama, copy)
    changed = open_pretrained(str(folders("llama")))
    next(changed.model.parameters()).data[0, 0] += 1e-3
    assert not same_weights(llama, changed)
    assert repeated_weights({"step0": "a", "step1": "a", "step2": "b", "step4": "a"}) == [("step0", "step1")]


def test_batch_that_fits(llama):
    assert llama.batch_that_fits(7, 1e-9) == 1
    assert llama.batch_that_fits(7, 1) > llama.batch_that_fits(31, 1) > 1  # beside what the libraries take
    assert llama.batch_that_fits(31, 1) > llama.batch_that_fits(31, 1, every_pattern=True)


# ------------------------------------------------------------------------------------------------ sources


def test_expand_series():
    assert expand_series("hf:EleutherAI/pythia-70m@step{0,1, 512}") == [
        f"hf:EleutherAI/pythia-70m@step{step}" for step in (0, 1, 512)
    ]
    for source in ("hf:gpt2", "hf:gpt2@main", "/runs/{a,b}", "model.gguf"):
        assert expand_series(source) == [source]
    for bad in ("hf:a@step{}", "hf:a@step{0,,1}", "hf:a@step{0,0}", "hf:a@step{0", "hf:a{0,1}", "hf:a@{0}{1}"):
        with pytest.raises(ConfigError, match="series"):
            expand_series(bad)


def test_is_pretrained(folders, tmp_path):
    assert is_pretrained("hf:gpt2") and is_pretrained("x/model.gguf") and is_pretrained(str(folders("llama")))
    assert not is_pretrained(str(tmp_path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache and a hub that is not there; returns the cache's folder."""
    from huggingface_hub import HfApi

    def no_network(*args, **options):
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(HfApi, "model_info", no_network)
    return tmp_path / "hub"


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_network_and_not_cached(hub):
    start = time.monotonic()
    with pytest.raises(ConfigError) as error:
        open_pretrained("hf:EleutherAI/pythia-70m@step1")
    assert time.monotonic() - start < 5
    assert "hf download EleutherAI/pythia-70m --revision step1" in one_line(error)


def test_a_hub_that_never_answers(hub, monkeypatch):
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "model_info", lambda *args, **options: time.sleep(3))
    monkeypatch.setattr(room, "HUB_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(ConfigError, match="no answer in 0 s"):
        open_pretrained("hf:gpt2")
    assert time.monotonic() - start < 2


def test_pickled_repositories_are_refused_before_any_download(hub, monkeypatch):
    monkeypatch.setattr(room, "hub_files", lambda *_: ["config.json", "pytorch_model.bin", "onnx/model.safetensors"])
    with pytest.raises(ConfigError, match="allow_pickle=true"):
        open_pretrained("hf:old/model")


def test_cached_revisions_need_no_network(hub, folders):
    repository = hub / "models--owner--name"
    shutil.copytree(folders("llama"), repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "step1").write_text("0" * 40)
    assert open_pretrained("hf:owner/name@step1").name == "hf:owner/name@step1"
    with pytest.raises(ConfigError, match="not in the local cache"):
        open_pretrained("hf:owner/name@step2")


@pytest.mark.parametrize("source", ["hf:", "hf:a/b/c", "hf:no spaces"])
def test_names_that_are_no_repository(hub, source):
    with pytest.raises(ConfigError, match="no repository"):
        open_pretrained(source)


def test_folders(folders, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        open_pretrained(str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_pretrained(str(tmp_path))
    (tmp_path / "inside.gguf").touch()
    with pytest.raises(ConfigError, match=r"name the file inside it: inside\.gguf"):
        open_pretrained(str(tmp_path))
    shutil.copy(folders("llama") / "config.json", tmp_path)
    with pytest.raises(ConfigError, match="no weights"):
        open_pretrained(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((folders("llama") / "model.safetensors").read_bytes()[:999])
    with pytest.raises(ConfigError, match="damaged") as error:
        open_pretrained(str(tmp_path))
    one_line(error)


def test_missing_weights_are_not_made_up(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders("llama"), tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights .*layers\.1\.self_attn\.k_proj"):
        open_pretrained(str(folder))


def test_pickles_only_by_name(folders, tmp_path, llama, tokens):
    from safetensors.torch import load_file

    torch.save(load_file(folders("llama") / "model.safetensors"), tmp_path / "pytorch_model.bin")
    shutil.copy(folders("llama") / "config.json", tmp_path)
    with pytest.raises(ConfigError, match="allow_pickle=true"):
        open_pretrained(str(tmp_path))
    assert torch.equal(open_pretrained(str(tmp_path), allow_pickle=True)(tokens), llama(tokens))


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("mamba", dict(vocab_size=D_VOCAB, hidden_size=16, num_hidden_layers=2), "no attention heads"),
        ("rwkv", dict(vocab_size=D_VOCAB, hidden_size=16, num_hidden_layers=2), "no attention heads"),
        ("gptj", dict(vocab_size=D_VOCAB, n_embd=16, n_layer=2, n_head=2, rotary_dim=4), "gptj.*interface.*llama"),
        ("bert", EQUAL, "later tokens"),
        ("lfm2", GROUPED | dict(layer_types=["conv", "full_attention", "conv"]), r"without .* \(0, 2\)"),
    ],
)
def test_unsupported_architectures(tmp_path, kind, changes, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        open_pretrained(str(build(kind, tmp_path, **changes)))
    assert kind in one_line(error)


@pytest.mark.parametrize("kind", ["t5", "nonsense"])
def test_architectures_that_are_no_language_model(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match=kind) as error:
        open_pretrained(str(tmp_path))
    one_line(error)


def test_gguf_files(tmp_path):
    file = tmp_path / "model.gguf"
    with pytest.raises(ConfigError, match="no such file"):
        open_pretrained(str(file))
    for content in (b"", b"safetensors", b"GGUF", b"GGUF\x03\x00\x00\x00" + bytes(range(256))):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="damaged") as error:
            open_pretrained(str(file))
        one_line(error)


def test_missing_extra(monkeypatch, folders):
    folder = folders("llama")
    monkeypatch.setitem(room.sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'induction\[pretrained\]'"):
        open_pretrained(str(folder))


# ------------------------------------------------------------------------------------------------ tokens


def add_tokenizer(folder: Path, **options) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "<s>": 1, "a": 2, "b": 3, "?": 4}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(folder)
    return folder


def test_tokens_by_name(folders, tmp_path, llama):
    def with_tokenizer(name, start_token=None, **options):
        folder = add_tokenizer(shutil.copytree(folders("llama"), tmp_path / name), **options)
        return open_pretrained(str(folder), start_token=start_token)

    model = with_tokenizer("own", bos_token="<s>", eos_token="<|endoftext|>")
    assert model.start_token_id == 1
    assert model.encode("b a b").tolist() == [3, 2, 3]
    assert model.special_token_ids == {0, 1, *range(5, D_VOCAB)}
    assert with_tokenizer("customary").start_token_id == 0
    assert with_tokenizer("named", start_token="a").start_token_id == 2
    with pytest.raises(ConfigError, match="no token 'c'"):
        with_tokenizer("absent", start_token="c")
    assert llama.tokenizer is None and llama.start_token_id is None and llama.special_token_ids == frozenset()
    with pytest.raises(ConfigError, match="without a tokenizer"):
        llama.encode("a")


# ------------------------------------------------------------------------------------------------ a real model


@pytest.fixture(scope="module")
def smollm2() -> Pretrained:
    return open_pretrained(str(smollm2_path()))


def prefix_matching(pattern: torch.Tensor, length: int) -> torch.Tensor:
    """Attention from the second of two repeats (start token first) to the +1 target, [head]."""
    query = torch.arange(length + 1, 2 * length + 1)
    return pattern[:, :, query, query - length + 1].mean((0, 2))


@pytest.mark.slow
def test_smollm2_has_induction_heads(smollm2):
    generator, length = torch.Generator().manual_seed(0), 25
    ordinary = torch.tensor(sorted(set(range(smollm2.d_vocab)) - smollm2.special_token_ids))
    segment = ordinary[torch.randperm(len(ordinary), generator=generator)[:length]]
    tokens = torch.cat((torch.tensor([smollm2.start_token_id]), segment, segment))[None]
    logits, kept = smollm2(tokens, record={"pattern": lambda pattern: prefix_matching(pattern, length)})
    scores = torch.stack(kept.pattern)
    assert scores.shape == (30, 9)
    assert scores.max() > 0.8 and scores.median() < 0.05
    loss = -logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
    assert loss[: length - 1].mean() > 10 > 5 > loss[length + 1 :].mean()
    assert (smollm2.start_token_id, smollm2.tokenizer.bos_token) == (1, "<|im_start|>")
    assert smollm2.tokenizer.decode(smollm2.encode("An old house.")) == "An old house."


@pytest.mark.slow
def test_smollm2_head_weights(smollm2):
    tokens = smollm2.encode("The mechanism is in the weights, twice: in the weights.")[None]
    kept = smollm2(tokens, record=["pattern", "z", "residual"])[1]
    w, x = smollm2.head_weights(18), attention_input(smollm2, 18, kept.residual[18])
    close((kept.pattern[18] @ torch.einsum("bpm,hmd->bhpd", x, w.W_V)).transpose(1, 2), kept.z[18])


@pytest.mark.slow
def test_truncated_gguf(tmp_path):
    with smollm2_path().open("rb") as file:
        (tmp_path / "cut.gguf").write_bytes(file.read(10_000_000))
    with pytest.raises(ConfigError, match="damaged") as error:
        open_pretrained(str(tmp_path / "cut.gguf"))
    one_line(error)

"""Sources: names lead to the right thing, and a run and a pretrained model have one face."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import N_HEADS, small_config
from hand_made import write_table

from induction_cli.config import AblateConfig, CircuitsConfig, ConfigError, ScoreConfig, TrainConfig
from induction_cli.data import train_tokenizer
from induction_cli.evaluation import sources
from induction_cli.evaluation.scores import copying_scores, held_out_losses, pattern_scores, random_tokens
from induction_cli.evaluation.sources import (
    Encoded,
    Text,
    is_source,
    moment,
    open_source,
    open_sources,
    passages,
    rank_counts,
    real_text,
    repeated_revisions,
)
from induction_cli.evidence import ablate, circuits, score
from induction_cli.measures import attention, paths
from induction_cli.mechanism.ideal_head import IDEAL, Ideal, losses_when
from induction_cli.models.pretrained import Pretrained
from induction_cli.models.protocol import Patch
from induction_cli.models.transformer import Transformer
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow

TEXT = "The quick brown fox jumps over the lazy dog. Größe, naïve, café: 0 1 2 3\n" * 5


@pytest.fixture(autouse=True)
def little_prose(monkeypatch):
    monkeypatch.setattr(sources, "PROSE", 20_000)


@pytest.fixture(scope="session")
def text() -> Text:
    return Text(train_tokenizer(iter([TEXT * 3]), 280))


@pytest.fixture
def run(tmp_path, text) -> RunDir:
    """A run directory as training leaves it, of a random model."""
    made = RunDir(tmp_path / "a_run")
    config = TrainConfig(model=small_config(d_vocab=280, n_ctx=64))
    made.write_config(config)
    made.write_meta(status="done")
    made.write_tokenizer(text.tokenizer.to_str())
    write_table(made, "token_counts", pd.DataFrame({"count": np.arange(280)[::-1] + 1}))
    for step in (0, 5):
        made.write_snapshot(Transformer(config.model, seed=step).state_dict(), step, step * 100)
    return made


# ------------------------------------------------------------------------------------------------ names


def test_which_names_are_sources(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert all(map(is_source, ("hf:a/b", "hf:a/b@step{0,1}", "x.gguf", "smollm2", str(tmp_path))))
    assert not any(map(is_source, ("runs/a", str(tmp_path.parent))))


def test_steps_and_tokens_of_revisions():
    found = moment("hf:EleutherAI/pythia-70m@step3000", 7)
    assert (found.step, found.tokens) == (3000, 3000 * 2_097_152)
    assert (moment("hf:a/b@step12", 7).step, moment("hf:a/b@step12", 7).tokens) == (12, None)
    assert (moment("hf:a/b-70m", 7).step, moment("hf:a/b@main", 2).step) == (7, 2)  # no number in the revision


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(RunError, match="no run directory"):
        open_source(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"no such file|need the extra"):
        open_source(str(tmp_path / "nothing.gguf"))
    with pytest.raises(ConfigError, match=r"no such file|need the extra"):
        real_text(str(tmp_path / "nothing.txt"))


# ------------------------------------------------------------------------------------------------ runs


def test_a_run(run):
    source = open_source(str(run.path))
    assert [(found.step, found.tokens) for found in source.snapshots] == [(0, 0), (5, 500)]
    assert source.choose("last")[0].step == 5 and source.choose("0")[0].step == 0 and len(source.choose("all")) == 2
    with pytest.raises(ConfigError, match="last and the steps 0, 5"):
        source.choose("3")
    model = source.load(source.snapshots[-1])
    assert (model.n_layers, model.n_heads, model.d_head, model.n_ctx) == (2, N_HEADS, 4, 64)
    tokens = source.repeats(3, repeats=2)
    assert tokens.shape == (3, 51) and (tokens[:, 0] == 0).all() and torch.equal(tokens[:, 1:26], tokens[:, 26:])
    expected = Transformer(run.config().model, seed=5)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), expected(tokens))


def test_a_folder_of_runs_is_one_source_each(run):
    again = RunDir(run.path.parent / "b_run")
    again.write_meta(status="done")
    again.write_config(run.config())
    write_table(again, "token_counts", run.table("token_counts"))
    again.write_snapshot(Transformer(run.config().model).state_dict(), 0, 0)
    assert [source.name for source in open_sources(str(run.path.parent))] == ["a_run", "b_run"]
    with pytest.raises(ConfigError, match="holds 2 runs"):
        open_source(str(run.path.parent))


def test_model_records_patches_and_shows_weights(run):
    source = open_source(str(run.path))
    model, tokens = source.load(source.snapshots[-1]), source.repeats(1, repeats=2)
    _, kept = model(tokens, record={"pattern": lambda pattern: pattern.sum(-1)})
    torch.testing.assert_close(kept.pattern[1], torch.ones(1, N_HEADS, 51))
    assert not torch.equal(model(tokens), model(tokens, patch=Patch(head_scale=torch.zeros(2, N_HEADS))))
    assert model.head_weights(1).W_V.shape == (N_HEADS, 13, 4) and model.head_weights(0).W_O.shape == (N_HEADS, 4, 13)
    assert model.embedding().shape == (280, 13) and model.unembedding().shape == (13, 280)
    assert not torch.equal(model.untrained()(tokens), model(tokens))


# ------------------------------------------------------------------------------------------------ text


def test_tokens_and_characters(text):
    encoded = text.encode("Größe: 0")
    assert text.decode(encoded.ids) == "Größe: 0" and len(text.pieces(encoded.ids)) == len(encoded.ids)
    assert "0" in text.pieces(encoded.ids)[encoded.token_of(7)]
    assert len(encoded.tokens_of(0, 8)) == len(set(encoded.ids))


def test_token_of_takes_the_last_byte_and_misses_nothing():
    encoded = Encoded([4, 5, 6], [(0, 1), (0, 1), (2, 4)])
    assert encoded.token_of(0) == 1 and encoded.token_of(3) == 2
    assert encoded.tokens_of(0, 3) == {4, 5, 6}
    with pytest.raises(ValueError, match="character 1"):
        encoded.token_of(1)


def test_passages_stay_within_a_document():
    tokens = np.array([0, 1, 2, 3, 0, 4, 5, 0, 6, 7, 8, 9])
    found = {tuple(row) for row in passages(tokens, 20, 3, seed=0, avoid=0).tolist()}
    assert found == {(1, 2, 3), (6, 7, 8), (7, 8, 9)}
    with pytest.raises(ConfigError, match="no stretch of 5"):
        passages(tokens, 1, 5, seed=0, avoid=0)


def test_ordinary_tokens_of_a_pretrained_model():
    counts = rank_counts(60, frozenset({0, 59}))
    drawn = random_tokens(counts, 4).unique()
    assert counts[0] == counts[59] == 0 and counts[1] > counts[2]
    assert drawn.min() >= 6 and drawn.max() <= 53  # a tenth of 58 cut on each side


def test_python_carries_prose():
    assert len(real_text("")) == sources.PROSE


# ------------------------------------------------------------------------------------------------ series


def test_a_series_reports_identical_neighbours(monkeypatch, caplog, text):
    hashes = {"hf:a/b@step0": "x", "hf:a/b@step1": "y", "hf:a/b@step2": "y"}

    class Fake(SimpleNamespace):
        pass

    def fake(where, **_):
        return Fake(
            name=where, weights_hash=hashes[where], start_token_id=1, special_token_ids=frozenset(), d_vocab=280,
            tokenizer=SimpleNamespace(backend_tokenizer=text.tokenizer),
            n_layers=1, n_heads=1, d_head=1, n_ctx=8, d_model=1,
        )  # fmt: skip

    monkeypatch.setattr(sources, "open_pretrained", fake)
    source = open_source("hf:a/b@step{2,0,1}")
    assert [found.step for found in source.snapshots] == [0, 1, 2]  # in order of training
    with caplog.at_level(logging.WARNING):
        source.load(source.snapshots[0])
        assert not caplog.records
        source.load(source.snapshots[1])
    assert "step1 and hf:a/b@step2 have identical weights" in caplog.text
    assert repeated_revisions(source) == [("hf:a/b@step1", "hf:a/b@step2")]


def test_a_pretrained_folder(tmp_path, text):
    config = transformers.AutoConfig.for_model(
        "gpt2", vocab_size=280, n_embd=12, n_head=3, n_layer=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=text.tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(tmp_path)
    source = open_source(str(tmp_path))
    model = source.load(source.snapshots[0])
    assert isinstance(model, Pretrained) and (model.n_layers, model.n_heads, model.d_head) == (2, 3, 4)
    assert source.start_token == 0 and source.counts[0] == 0 and len(source.snapshots) == 1
    assert source.windows(2, 7, 0).shape == (2, 7) and source.text.decode(source.text.encode("a fox").ids) == "a fox"
    assert model.head_weights(1).W_V.shape == (3, 12, 4) and model(source.repeats(1, repeats=2)).shape == (1, 51, 280)
    assert model.untrained().n_layers == 2
    assert replace(source, name="other").name == "other"


# ------------------------------------------------------------------------------------------------ commands on sources

LLAMA = dict(
    vocab_size=280, hidden_size=24, intermediate_size=13, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=6, max_position_embeddings=64, pad_token_id=0, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
FAMILIES = {
    "gpt2": dict(vocab_size=280, n_embd=12, n_head=3, n_layer=2, n_positions=64, bos_token_id=0, eos_token_id=0),
    "gpt_neox": LLAMA | dict(num_key_value_heads=4),
    "llama": LLAMA,
    "qwen2": LLAMA,
    "olmo": LLAMA,
    "gemma2": LLAMA | dict(query_pre_attn_scalar=6),  # runs, but single heads' weights are not known
}
SMALL = dict(n_examples=4, n_ctx=60, device="cpu", threads=1)


def build(folder, kind: str, text: Text, seed: int = 0):
    """A checkpoint with random weights and a tokenizer, as transformers saves it."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **FAMILIES[kind]))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += torch.empty_like(parameter).normal_(0, 0.1, generator=generator)
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=text.tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request, tmp_path_factory, text):
    return build(tmp_path_factory.mktemp("checkpoints") / request.param, request.param, text)


def table(path, name: str) -> pd.DataFrame:
    return RunDir(path).table(name)


def test_score_of_a_pretrained_folder(folder, tmp_path):
    """Same tables and columns as for a run; what a family cannot have is empty and says why."""
    enough = SMALL | {"n_examples": 8}  # for an interval
    best = score.run(ScoreConfig(str(folder), n_sequences=2, **enough), tmp_path)
    heads = table(tmp_path, "head_scores").fillna({"note": ""})
    columns = ["step", "tokens", "layer", "head", "measure", "value", "standard_error", "uniform", "random_head"]
    assert [*columns, "note", "head_type"] == list(heads.columns)
    assert set(heads.measure) == set(score.DEFINITIONS) and heads.tokens.isna().all()
    assert best == pytest.approx(heads[heads.measure == "prefix_matching"].value.max())
    empty = heads[heads.value.isna()]
    assert empty.note.str.startswith("not applicable: ").all() and (heads[heads.value.notna()].note == "").all()
    missing = {"gpt2": {"qk_trace"}, "gemma2": {"copying", "copying_eigenvalues", "qk_trace"}}
    assert set(empty.measure) == missing.get(folder.name, {"qk_trace"})
    if folder.name == "gpt2":
        assert set(empty.layer) == {0}  # positions are learned, so later layers have a trace
    elif folder.name != "gemma2":
        assert empty.note.str.contains("rotary positions").all()
    composition = table(tmp_path, "composition")
    kinds = {"gpt2": {"Q", "K", "V"}, "gemma2": set()}.get(folder.name, {"V"})
    assert set(composition.kind) == kinds
    learning = table(tmp_path, "in_context_learning").set_index("kind")
    assert learning.low["windowed"] <= learning.in_context_learning_score["windowed"] <= learning.high["windowed"]
    assert len(table(tmp_path, "loss_by_index")) == 60 and len(table(tmp_path, "by_chain")) == 8
    assert table(tmp_path, "phase_change").empty and not RunDir(tmp_path).table_file("copy_benefit").exists()
    assert table(tmp_path, "summary").layers.tolist() == [2]


def test_losses_and_scores_are_those_of_the_model(folder, tmp_path):
    """Against transformers alone: one window, its losses by index, and one head's pattern."""
    source = open_source(str(folder))
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    windows = source.examples(replace(source.evaluation(ScoreConfig(n_examples=4)), seed=3), 60)
    assert windows.shape == (4, 61) and (windows[:, 0] == 0).all()
    with torch.no_grad():
        expected = reference(windows[:, :-1], output_attentions=True, use_cache=False)
    losses = torch.nn.functional.cross_entropy(expected.logits.mT, windows[:, 1:], reduction="none")
    model = source.load(source.snapshots[0])
    torch.testing.assert_close(held_out_losses(model, windows, 3), losses, atol=1e-4, rtol=1e-4)
    found = pattern_scores(model, windows[:, :-1], {"previous_token": attention.previous_token})["previous_token"]
    torch.testing.assert_close(found[:, 1], attention.previous_token(expected.attentions[1]), atol=1e-5, rtol=1e-4)


def test_copying_of_a_pretrained_head_by_definition(text, tmp_path):
    source = open_source(str(build(tmp_path, "llama", text)))
    model, tokens = source.load(source.snapshots[0]), random_tokens(source.counts, 2, seed=1)
    found = copying_scores(model, tokens)
    _, kept = model(tokens, record=("pattern", "z"))
    logits = (kept.z[1][0, :, 2] @ model.head_weights(1).W_O[2]) @ model.unembedding()
    raised = (logits - logits.mean(-1, keepdim=True)).relu()[:, tokens[0]]
    own = (kept.pattern[1][0, 2] * raised).sum(-1)
    assert found[0, 1, 2].item() == pytest.approx((4 * own / (own + raised.sum(-1)) - 1).mean().item(), abs=1e-5)


@pytest.mark.parametrize("kind", ["pattern_preserving", "full", "mean"])
def test_ablation_of_a_pretrained_folder(text, tmp_path, kind):
    """A removed head is its slice of the output projection set to zero; patterns held where they are preserved."""
    place = build(tmp_path / "model", "llama", text)
    config = AblateConfig(str(place), kinds=[kind], early_index=5, late_index=55, draws=2, **SMALL)
    ablate.run(config, tmp_path / "out")
    found = table(tmp_path / "out", "ablation").set_index(["layer", "head"])
    assert len(found) == 8 and found.prefix_matching.notna().all() and found.before_after.isna().all()
    assert {"in_context_learning_change", "low", "high", "loss_change", "head_type"} <= set(found.columns)
    if kind != "full":
        return
    source = open_source(str(place))
    windows = source.examples(source.evaluation(config), 60)
    model = source.load(source.snapshots[0])

    def value() -> float:
        losses = model.losses(windows)  # windows of 21 indices are cut to 9 around 5 and 55
        return (losses[:, 50:59].mean(1) - losses[:, 0:9].mean(1)).mean().item()

    before = value()
    weight = model.blocks()[1].self_attn.o_proj.weight
    weight.data[:, 3 * 6 :] = 0
    assert found.in_context_learning_change[1, 3] == pytest.approx(value() - before, abs=1e-5)


def test_circuits_of_a_pretrained_folder(folder, tmp_path):
    config = CircuitsConfig(str(folder), n_controls=2, **SMALL)
    circuits.run(config, tmp_path)
    ideal = table(tmp_path, "ideal_head")
    assert set(ideal.role) >= {"control"} and (ideal.value != "copy").all()
    left_out = table(tmp_path, "not_applicable").part.str.cat(sep="; ")
    assert "paths" in left_out and "ideal copy" in left_out
    known = folder.name != "gemma2"
    d_head = 4 if folder.name == "gpt2" else 6
    assert len(table(tmp_path, "ov_eigenvalues")) == (
        known * len(table(tmp_path, "heads").query("measure == 'qk_trace'")) * d_head
    )
    assert len(table(tmp_path, "qk_terms")) == (9 if folder.name == "gpt2" else 0)
    assert not RunDir(tmp_path).table_file("paths").exists()


def test_a_replaced_head_is_a_patched_one(folder):
    """Giving one head a pattern is giving its layer all patterns, with that one exchanged."""
    source = open_source(str(folder))
    model, tokens = source.load(source.snapshots[0]), source.windows(2, 31, 0)
    _, kept = model(tokens[:, :-1], record=("pattern",))
    patterns = kept.pattern[1].clone()
    patterns[:, 2] = paths.ideal_pattern(tokens[:, :-1], IDEAL.offset, IDEAL.match, IDEAL.rest)
    expected = model.losses(tokens, Patch(patterns={1: patterns}))
    torch.testing.assert_close(losses_when(model, tokens, [(1, 2)], IDEAL), expected, atol=1e-5, rtol=1e-4)
    scale = torch.ones(2, model.n_heads)
    scale[1, 2] = 0
    torch.testing.assert_close(losses_when(model, tokens, [(1, 2)]), model.losses(tokens, Patch(scale)))
    with pytest.raises(ConfigError, match="nothing else to write"):
        losses_when(model, tokens, [(1, 2)], Ideal("copy", value="copy"))


def test_recording_without_logits_is_the_same(folder):
    source = open_source(str(folder))
    model, tokens = source.load(source.snapshots[0]), source.repeats(2, repeats=2)
    _, kept = model(tokens, record=("pattern", "z"))
    again = model.activations(tokens, ("pattern", "z"))
    assert all(torch.equal(a, b) for a, b in zip(kept.pattern + kept.z, again.pattern + again.z, strict=True))


@pytest.fixture
def series(tmp_path, text, monkeypatch):
    """hf:a/b@step{0,1,2,3} from local folders; the third is the second again."""
    seeds = {"step0": 0, "step1": 1, "step2": 1, "step3": 3}
    for name, seed in seeds.items():
        build(tmp_path / name, "gpt2", text, seed)
    opened = sources.open_pretrained
    monkeypatch.setattr(
        sources, "open_pretrained", lambda where, **options: opened(str(tmp_path / where.split("@")[1]), **options)
    )
    return "hf:a/b@step{0,1,2,3}"


def test_a_series_has_tables_over_time_and_names_what_is_repeated(series, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        score.run(ScoreConfig(series, n_sequences=2, **SMALL), tmp_path / "out")
    assert "step1 and hf:a/b@step2 have identical weights" in caplog.text
    revisions = table(tmp_path / "out", "revisions")
    assert revisions.identical_to_previous.tolist() == [False, False, True, False]
    assert revisions.time.unique().tolist() == ["steps"] and revisions.revision[3] == "hf:a/b@step3"
    heads = table(tmp_path / "out", "head_scores")
    assert heads.step.unique().tolist() == heads.tokens.unique().tolist() == [0, 1, 2, 3]  # nobody knows the tokens
    for name in ("events", "loss_derivative", "phase_change", "before_after"):
        assert RunDir(tmp_path / "out").table_file(name).exists()
    assert (tmp_path / "out" / "plots" / "co_timing.png").stat().st_size > 1000
    assert (table(tmp_path / "out", "summary").run == series).all()


def test_one_snapshot_of_a_series(series, tmp_path):
    ablate.run(AblateConfig(series, snapshot="3", draws=2, **SMALL), tmp_path / "out")
    assert set(table(tmp_path / "out", "ablation").step) == {3}
    with pytest.raises(ConfigError, match="no snapshot '7'; there are all, last and the steps 0, 1, 2, 3"):
        score.run(ScoreConfig(series, snapshot="7", **SMALL), tmp_path / "out")
    with pytest.raises(ConfigError, match="only the work on a run can be shared"):
        ablate.run(AblateConfig(series, shards=2, **SMALL), tmp_path / "out")


def test_windows_that_do_not_fit(tmp_path, text):
    place = str(build(tmp_path, "gpt2", text))
    with pytest.raises(ConfigError, match=r"n_ctx is 65, but the context of .* holds 64 tokens"):
        score.run(ScoreConfig(place, n_ctx=65, threads=1), tmp_path / "out")
    with pytest.raises(ConfigError, match="n_ctx is 50; prefix matching needs at least 51"):
        score.run(ScoreConfig(place, n_ctx=50, threads=1), tmp_path / "out")
    with pytest.raises(ConfigError, match="early_index is 50 and late_index 40"):
        score.run(ScoreConfig(place, early_index=50, late_index=40, threads=1), tmp_path / "out")


def test_batches_follow_the_memory(tmp_path, text, run):
    source = open_source(str(build(tmp_path / "gpt2", "gpt2", text)))
    model = source.load(source.snapshots[0])
    sizes = [model.batch_that_fits(60, gigabytes) for gigabytes in (0.1, 1, 2)]
    assert sizes[0] == 1 and 1 < sizes[1] < sizes[2]
    assert model.batch_that_fits(60, 1, every_pattern=True) < sizes[1]
    own = open_source(str(run.path))
    assert own.load(own.snapshots[0]).batch_that_fits(60, 0.1) == 16  # ours are small

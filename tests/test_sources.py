"""Sources: names lead to the right thing, and a run and a pretrained model have one face."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import N_HEADS, small_config

from induction_cli import sources
from induction_cli.config import ConfigError, TrainConfig
from induction_cli.data import train_tokenizer
from induction_cli.evaluation import random_tokens
from induction_cli.model import Patch, Transformer
from induction_cli.run_dir import RunDir, RunError
from induction_cli.sources import (
    Encoded,
    Model,
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

TEXT = "The quick brown fox jumps over the lazy dog. Größe, naïve, café: 0 1 2 3\n" * 5


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
    made.write_table("token_counts", pd.DataFrame({"count": np.arange(280)[::-1] + 1}))
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
    again.write_table("token_counts", run.table("token_counts"))
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
    assert model.W_V(1).shape == (N_HEADS, 13, 4) and model.W_O(0).shape == (N_HEADS, 4, 13)
    assert model.W_E.shape == (280, 13) and model.W_U.shape == (13, 280)
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
    assert len(real_text("")) > 100_000


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
    monkeypatch.setattr(sources, "Pretrained", Fake)
    source = open_source("hf:a/b@step{2,0,1}")
    assert [found.step for found in source.snapshots] == [0, 1, 2]  # in order of training
    with caplog.at_level(logging.WARNING):
        source.load(source.snapshots[0])
        assert not caplog.records
        source.load(source.snapshots[1])
    assert "step1 and hf:a/b@step2 have identical weights" in caplog.text
    assert repeated_revisions(source) == [("hf:a/b@step1", "hf:a/b@step2")]


def test_a_pretrained_folder(tmp_path, text):
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'induction[pretrained]'")
    config = transformers.AutoConfig.for_model(
        "gpt2", vocab_size=280, n_embd=12, n_head=3, n_layer=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=text.tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(tmp_path)
    source = open_source(str(tmp_path))
    model = source.load(source.snapshots[0])
    assert isinstance(model, Model) and (model.n_layers, model.n_heads, model.d_head) == (2, 3, 4)
    assert source.start_token == 0 and source.counts[0] == 0 and len(source.snapshots) == 1
    assert source.windows(2, 7, 0).shape == (2, 7) and source.text.decode(source.text.encode("a fox").ids) == "a fox"
    assert model.W_V(1).shape == (3, 12, 4) and model(source.repeats(1, repeats=2)).shape == (1, 51, 280)
    assert model.untrained().n_layers == 2
    assert replace(source, name="other").name == "other"

import gzip
import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from induction_cli import data
from induction_cli.config import ConfigError, DataConfig
from induction_cli.data import Batches, held_out_windows, open_corpus, split_of

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "runs",
    "from",
    "seven",
    "small",
    "cats",
    "in",
    "an",
    "old",
    "red",
    "barn",
]


@pytest.fixture
def folder(tmp_path):
    """200 small documents, one of them twice."""
    text = tmp_path / "text"
    text.mkdir()
    random = np.random.default_rng(0)
    for i in range(200):
        (text / f"{i:03d}.txt").write_text(" ".join(random.choice(WORDS, 300)) + f" {i}\n")
    (text / "again.txt").write_bytes((text / "007.txt").read_bytes())
    return text


def config_of(folder, tmp_path, **changes) -> DataConfig:
    return DataConfig(**{"source": "files", "paths": [str(folder)], "cache_dir": str(tmp_path / "cache"), **changes})


def test_corpus_round_trips_and_counts(folder, tmp_path):
    corpus = open_corpus(config_of(folder, tmp_path), 300)
    tokenizer = Tokenizer.from_str(corpus.tokenizer_json)
    assert corpus.manifest["documents"] == 200  # not 201: one came twice
    assert sum(corpus.manifest["tokens"].values()) == sum(len(corpus.tokens(split)) for split in data.SPLITS)
    assert corpus.token_counts().sum() == len(corpus.tokens("train"))
    tokens = corpus.tokens("train")
    starts = np.flatnonzero(tokens == 0)
    first = tokenizer.decode(tokens[1 : starts[1]].tolist())
    assert first in {path.read_text() for path in folder.iterdir()}


def test_split_depends_on_content_alone(folder, tmp_path):
    before = open_corpus(config_of(folder, tmp_path), 300)
    (folder / "000.txt").rename(folder / "zzz.txt")
    after = open_corpus(config_of(folder, tmp_path), 300)
    assert before.manifest["sha256"] == after.manifest["sha256"]
    assert before.folder == after.folder  # same contents, same tokens
    shares = [split_of(bytes([i, j, *[0] * 30])) for i in range(256) for j in range(0, 256, 16)]
    assert shares.count("test") / len(shares) == pytest.approx(0.05, abs=0.01)
    assert shares.count("validation") / len(shares) == pytest.approx(0.05, abs=0.01)


def test_changed_text_is_another_corpus(folder, tmp_path):
    before = open_corpus(config_of(folder, tmp_path), 300)
    (folder / "new.txt").write_text("something else entirely")
    assert open_corpus(config_of(folder, tmp_path), 300).manifest["sha256"] != before.manifest["sha256"]


def test_torn_cache_is_made_anew(folder, tmp_path):
    corpus = open_corpus(config_of(folder, tmp_path), 300)
    whole = corpus.tokens("train").copy()
    (corpus.folder / "manifest.json").unlink()
    (corpus.folder / "train.npy").write_bytes(b"half")
    assert np.array_equal(open_corpus(config_of(folder, tmp_path), 300).tokens("train"), whole)


def test_jsonl_and_gz(tmp_path):
    rows = [{"body": f"{' '.join(WORDS)} {i}"} for i in range(100)]
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    documents = data.open_documents(config_of(tmp_path / "rows.jsonl.gz", tmp_path, field="body"))
    assert list(documents) == [row["body"] for row in rows]
    with pytest.raises(ConfigError, match=r"line 1: no JSON object with a field 'text'"):
        list(data.open_documents(config_of(tmp_path / "rows.jsonl.gz", tmp_path)))


def test_long_files_are_cut_at_line_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PIECE", 100)
    (tmp_path / "long.txt").write_text("".join(f"line {i}\n" for i in range(100)))
    pieces = list(data.open_documents(config_of(tmp_path / "long.txt", tmp_path)))
    assert len(pieces) > 5 and all(piece.endswith("\n") for piece in pieces)
    assert "".join(pieces) == (tmp_path / "long.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": ["/nowhere/at/all"]}, "'/nowhere/at/all', and nothing is there"),
        ({"paths": []}, r"data.paths is empty"),
        ({"source": "wikipedia"}, "there are stdlib, files, huggingface, repeats"),
        ({"epochs": 0}, "data.epochs is 0"),
    ],
)
def test_bad_sources(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        open_corpus(config_of(tmp_path, tmp_path, **changes), 300)


def test_vocabulary_too_small_or_too_large(folder, tmp_path):
    with pytest.raises(ConfigError, match="at least 257"):
        open_corpus(config_of(folder, tmp_path), 200)
    with pytest.raises(ConfigError, match=r"only gives \d+ tokens; lower it"):
        open_corpus(config_of(folder, tmp_path), 60_000)


def test_repeats_come_in_pairs(tmp_path):
    config = DataConfig(source="repeats", repeat_length=5, repeat_tokens=500, cache_dir=str(tmp_path))
    tokens = open_corpus(config, 31).tokens("train")
    assert tokens[0] == 0 and tokens.max() < 31
    assert np.array_equal(tokens[1:6], tokens[6:11])


def test_batches_are_a_function_of_seed_and_step():
    tokens = np.arange(1000)
    one, two = Batches(tokens, 7, 3, seed=5), Batches(tokens, 7, 3, seed=5)
    list(map(one, range(10)))
    assert (one(31) == two(31)).all()
    assert not (one(0) == Batches(tokens, 7, 3, seed=6)(0)).all()


def test_no_token_is_predicted_twice_in_an_epoch():
    batches = Batches(np.arange(1000), 7, 3, seed=0, epochs=2)
    targets = np.concatenate([batches(step)[:, 1:].numpy().ravel() for step in range(batches.steps_per_epoch)])
    assert len(targets) == len(set(targets)) == batches.steps_per_epoch * 21
    assert not (batches(0) == batches(batches.steps_per_epoch)).all()  # another order the second time
    assert batches.n_steps == 2 * batches.steps_per_epoch


def test_held_out_chains_see_the_same_tokens_at_both_indices():
    windows = held_out_windows(np.arange(5000), n_examples=16, n_ctx=101, shift=80)
    assert windows.shape == (16, 102)
    for i in range(7):  # the token that window i predicts at index 90, window i + 1 predicts at index 10
        assert windows[i, 90] == windows[i + 1, 10]
    assert windows[8, 0] != windows[7, 0] + 80  # another chain
    with pytest.raises(ConfigError, match="the held-out text has 500 tokens"):
        held_out_windows(np.arange(500), 16, 101, 80)

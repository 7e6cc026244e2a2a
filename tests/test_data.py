import bz2
import gzip
import hashlib
import io
import json
import lzma
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
from pyarrow import ipc, parquet
from tokenizers import Tokenizer

from induction_cli import data
from induction_cli.config import BEFORE_0_2, ConfigError, DataConfig, TrainConfig
from induction_cli.data import START, Batches, held_out_windows, open_corpus, split_of
from induction_cli.data.files import zstandard
from induction_cli.data.split import Lines, cut_by_position
from induction_cli.runs.run_dir import RunDir

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


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "another kind": lambda path: path.write_bytes(b"[1, 2]"),
}


@pytest.mark.parametrize("harm", DAMAGE)
@pytest.mark.parametrize("name", ["train.npy", "test.npy", "token_counts.npy", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("source", ["files", "repeats"])
def test_damaged_cache_is_made_anew(source, name, harm, folder, tmp_path):
    config = replace(config_of(folder, tmp_path), source=source, repeat_tokens=5000)
    corpus = open_corpus(config, 300)
    before = {path.name: path.read_bytes() for path in corpus.folder.iterdir()}
    DAMAGE[harm](corpus.folder / name)
    open_corpus(config, 300)
    assert {path.name: path.read_bytes() for path in corpus.folder.iterdir()} == before


@pytest.mark.parametrize("harm", DAMAGE)
def test_damaged_index_is_made_anew(harm, folder, tmp_path):
    config = config_of(folder, tmp_path)
    corpus = open_corpus(config, 300)
    (index,) = (corpus.folder.parent / "index").iterdir()
    before = index.read_bytes()
    DAMAGE[harm](index)
    assert open_corpus(config, 300).manifest == corpus.manifest and index.read_bytes() == before


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
    monkeypatch.setattr("induction_cli.data.files.PIECE", 100)
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


# ------------------------------------------------------------------------------------------------ kinds of files


OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstandard().open}


@pytest.mark.parametrize("suffix", OPENERS)
def test_compressed_text_is_read(tmp_path, suffix):
    with OPENERS[suffix](tmp_path / f"rows.jsonl{suffix}", "wt") as file:
        file.write(json.dumps({"text": "täxt"}) + "\n")
    with OPENERS[suffix](tmp_path / f"notes.txt{suffix}", "wb") as file:
        file.write("nötes".encode())
    with OPENERS[suffix](tmp_path / f"notes.txt{suffix}", "ab") as file:  # a second stream behind the first
        file.write(b" and more")
    assert list(data.open_documents(config_of(f"{tmp_path}/rows*", tmp_path))) == ["täxt"]
    assert list(data.open_documents(config_of(f"{tmp_path}/notes*", tmp_path))) == ["nötes and more"]


@pytest.mark.parametrize("suffix", OPENERS)
def test_compressed_text_that_is_cut_short_or_damaged_is_named(tmp_path, suffix):
    path = tmp_path / f"cut.txt{suffix}"
    with OPENERS[suffix](path, "wb") as file:
        file.write(np.random.default_rng(0).integers(97, 123, 5000, np.uint8).tobytes())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=rf"cut.txt\{suffix} is cut short"):
        list(data.open_documents(config_of(path, tmp_path)))
    path.write_text("never packed")
    with pytest.raises(ConfigError, match=rf"cut.txt\{suffix} is no \{suffix} file, or a damaged one"):
        list(data.open_documents(config_of(path, tmp_path)))


@pytest.mark.parametrize("kind", ["parquet", "arrow file", "arrow stream"])
def test_parquet_and_arrow_are_read(tmp_path, kind):
    table = pyarrow.table({"id": [1, 2, 3], "body": ["one", "two", "three"], "holes": ["a", None, "b"]})
    path = tmp_path / f"rows.{kind.split()[0]}"
    if kind == "parquet":
        parquet.write_table(table, path)
    else:
        new = ipc.new_file if kind == "arrow file" else ipc.new_stream
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    assert list(data.open_documents(config_of(path, tmp_path, field="body"))) == ["one", "two", "three"]
    for field, message in {
        "holes": "row 2: the field 'holes' is null; it must be text",
        "id": "row 1: the field 'id' is a number; it must be text",
        "text": r"has no column 'text'; set data.field \(there are id, body, holes\)",
    }.items():
        with pytest.raises(ConfigError, match=message):
            list(data.open_documents(config_of(path, tmp_path, field=field)))
    path.write_bytes(b"none of these")
    with pytest.raises(ConfigError, match="or a damaged one"):
        list(data.open_documents(config_of(path, tmp_path)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON object with a field 'text'"),
        ("[1]", "no JSON object with a field 'text'"),
        ('"text"', "no JSON object with a field 'text'"),
        ('{"body": "x"}', r"no JSON object with a field 'text'; set data.field \(there are body\)"),
        ('{"text": null}', "the field 'text' is null; it must be text"),
        ('{"text": 7}', "the field 'text' is a number; it must be text"),
        ('{"text": true}', "the field 'text' is true or false; it must be text"),
        ('{"text": ["x"]}', "the field 'text' is a list; it must be text"),
        ('{"text": {}}', "the field 'text' is an object; it must be text"),
        ('{"text": "\\ud800"}', "half a surrogate pair"),
        ('{"n": ' + "9" * 5000 + "}", "no JSON object with a field 'text'"),
    ],
)
def test_rows_without_a_text_are_named_with_their_line(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n\n' + line + "\n")
    with pytest.raises(ConfigError, match=f"rows.jsonl, line 3: .*{message}"):
        open_corpus(config_of(tmp_path / "rows.jsonl", tmp_path), 300)


@pytest.mark.parametrize(("row", "message"), [({"text": None}, "is null"), ({"text": 3}, "is a number")])
def test_rows_of_a_data_set_without_a_text_are_named(tmp_path, monkeypatch, row, message):
    rows = [{"text": "good"}, row]
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda *_, **__: iter(rows)))
    config = DataConfig(source="huggingface", name="some/set", cache_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=f"some/set, row 2: the field 'text' {message}"):
        open_corpus(config, 300)


def test_a_data_set_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    def load_dataset(*_, **__):
        raise FileNotFoundError("no such\ndata set")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    config = DataConfig(source="huggingface", name="some/set", cache_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"data.name is 'some/set', which cannot be read: no such data set"):
        open_corpus(config, 300)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("some text".encode("utf-16"), "is no text: NUL bytes are in it"),
        ("some text".encode("utf-16-le"), "is no text: NUL bytes are in it"),
        (bytes(range(256)) * 9, "is no text: NUL bytes are in it"),
        (b"x" * 997 + b"\xff" * 3, r"is no text in UTF-8: 0.3% of its characters"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=f"notes.txt {message}"):
        open_corpus(config_of(tmp_path, tmp_path), 300)
    assert list(data.open_documents(config_of(tmp_path, tmp_path, max_replaced=1.0)))  # if one insists


def test_few_bytes_that_are_no_utf_8_pass(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"x" * 999 + b"\xff")
    assert list(data.open_documents(config_of(tmp_path, tmp_path))) == ["x" * 999 + "\ufffd"]


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("x")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match=r"notes.txt cannot be read: Permission denied"):
        list(data.open_documents(config_of(tmp_path, tmp_path)))


# ------------------------------------------------------------------------------------------------ the split


def test_one_file_is_split_by_position(tmp_path):
    lines = [f"{' '.join(np.random.default_rng(i).choice(WORDS, 12))} {i}\n" for i in range(2000)]
    (tmp_path / "book.txt").write_text("".join(lines))
    corpus = open_corpus(config_of(tmp_path / "book.txt", tmp_path), 300)
    tokenizer = Tokenizer.from_str(corpus.tokenizer_json)
    assert all(corpus.tokens(split)[0] == 0 for split in data.SPLITS)
    texts = [tokenizer.decode(corpus.tokens(split)[1:].tolist()) for split in data.SPLITS]
    assert "".join(texts) == "".join(lines) and all(text.endswith("\n") for text in texts)
    assert len(texts[1]) / len("".join(lines)) == pytest.approx(0.05, abs=0.005)
    assert corpus.manifest["split"] == "each document by position"


def test_a_text_without_lines_is_split_by_position_too():
    assert [len(part) for part in cut_by_position("x" * 1000)] == [900, 50, 50]
    assert "".join(cut_by_position("ab")) == "ab"


def document(random, n_lines):
    return [" ".join(random.choice(WORDS, 8)) + f" {random.integers(10**9)}" for _ in range(n_lines)]


def test_near_duplicates_are_never_held_out(tmp_path):
    """120 pairs that share 6 of 10 long lines, and 400 documents that share 4 of 10 with one other."""
    random, rows = np.random.default_rng(0), []
    for share, n in ((6, 120), (4, 200)):
        for _ in range(n):
            first = document(random, 10)
            rows += [first, first[:share] + document(random, 10 - share)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "\n".join(row)}) + "\n" for row in rows))
    corpus = open_corpus(config_of(tmp_path / "rows.jsonl", tmp_path), 300)
    assert corpus.manifest["near_duplicates"] == 240 and corpus.manifest["documents"] == 640
    assert corpus.manifest["split"] == "whole documents by their hash"
    tokenizer = Tokenizer.from_str(corpus.tokenizer_json)
    held_out = ""
    for split in ("validation", "test"):
        held_out += tokenizer.decode(corpus.tokens(split).tolist())
    assert sum(line in held_out for row in rows[240:] for line in row) > 50
    assert not any(line in held_out for row in rows[:240] for line in row)
    before = open_corpus(config_of(tmp_path / "rows.jsonl", tmp_path, held_out="any"), 300)
    assert before.manifest["sha256"] != corpus.manifest["sha256"] and before.folder != corpus.folder


def test_lines_are_counted_in_chunks_as_at_once(monkeypatch):
    random = np.random.default_rng(0)
    texts = ["\n".join(document(random, 10)) for _ in range(30)]
    texts += [texts[3] + "\nand a short one", "short", ""]
    found = []
    for chunk in (1, 40, 1000):
        monkeypatch.setattr("induction_cli.data.split.CHUNK", chunk)
        lines = Lines(io.BytesIO())
        for text in texts:
            lines.add(text)
        found.append(lines.near_duplicates())
    assert found == [frozenset({3, 30})] * 3


def test_where_all_are_near_duplicates_position_splits(tmp_path):
    (tmp_path / "rows.txt").write_text("the very same line again and again\n" * 3000)
    (tmp_path / "more.txt").write_text("the very same line again and again\n" * 2000)
    corpus = open_corpus(config_of(tmp_path, tmp_path), 260)
    assert corpus.manifest["near_duplicates"] == 2
    assert min(corpus.manifest["tokens"].values()) > 100


# ------------------------------------------------------------------------------------------------ special tokens


def test_a_special_token_in_a_text_is_what_the_setting_says(tmp_path):
    text = " ".join(np.random.default_rng(0).choice(WORDS, 3000))
    (tmp_path / "a.txt").write_text(text[:500] + START + text[500:])
    decoded, starts = {}, {}
    for rule in ("text", "split"):
        corpus = open_corpus(config_of(tmp_path / "a.txt", tmp_path, special_tokens=rule), 300)
        tokens = corpus.tokens("train")
        assert corpus.manifest["special_tokens"] == 1
        decoded[rule] = Tokenizer.from_str(corpus.tokenizer_json).decode(tokens.tolist())
        starts[rule] = int((tokens == 0).sum())
    assert starts == {"text": 1, "split": 2}
    assert START in decoded["text"] and START not in decoded["split"]
    with pytest.raises(ConfigError, match=r"a.txt: '<\|endoftext\|>' is in the text; data.special_tokens=text"):
        open_corpus(config_of(tmp_path / "a.txt", tmp_path, special_tokens="refuse"), 300)


# ------------------------------------------------------------------------------------------------ version 0.1.0


OF_0_1_0 = (
    "565968a942a3a9058c325c3b85c0bb51d480aa998971a77093e496da63724979",
    "222084f09fe451d5e51331cb23d82f55b7bda80395a74914355e5bb1377f1e33",
)


def test_rules_of_0_1_0_give_its_corpus(folder, tmp_path):
    """The hash, which a run checks when it resumes, and the tokens that version 0.1.0 made of this folder."""
    (folder / "special.txt").write_text(f"one {START} two")
    corpus = open_corpus(config_of(folder, tmp_path, **BEFORE_0_2), 300)
    tokens = hashlib.sha256(b"".join(corpus.tokens(split).tobytes() for split in data.SPLITS)).hexdigest()
    assert (corpus.manifest["sha256"], tokens) == OF_0_1_0


def test_a_run_from_before_the_settings_of_the_split_keeps_its_split(tmp_path):
    run = RunDir(tmp_path)
    run.write_config(TrainConfig())
    assert run.config().data == DataConfig()
    settings = [
        line for line in run.config_file.read_text().splitlines() if line.split(":")[0].strip() not in BEFORE_0_2
    ]
    run.config_file.write_text("\n".join(settings))
    run.write_meta(data={"sha256": "0"})
    assert run.config().data == DataConfig(**BEFORE_0_2)
    run.write_config(replace(TrainConfig(), data=DataConfig(held_out="apart")))
    assert run.config().data == DataConfig()

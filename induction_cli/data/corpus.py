"""Documents to tokens on disk, once for every text and size of vocabulary."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from induction_cli.config import DataConfig, check_group, require
from induction_cli.data.documents import Documents, content_hash, open_documents
from induction_cli.data.files import PIECE
from induction_cli.data.split import SPLITS, Lines, Split, choose_split, split_of
from induction_cli.runs.files import write_atomic, write_json

log = logging.getLogger(__name__)

KNOWN_OF_TEXT = {"source", "licence", "sha256"}  # at least
START = "<|endoftext|>"  # token 0: opens every document, and is the start token of every synthetic sequence


def train_tokenizer(texts: Iterator[str], d_vocab: int) -> Tokenizer:
    """A byte-level BPE: any text round-trips exactly. Token 0 is START."""
    require(d_vocab >= 257, f"model.d_vocab is {d_vocab}; a byte-level tokenizer needs at least 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=d_vocab, special_tokens=[START], initial_alphabet=alphabet, show_progress=False),
    )
    require(
        tokenizer.get_vocab_size() == d_vocab,
        f"model.d_vocab is {d_vocab}, but this text only gives {tokenizer.get_vocab_size()} tokens; lower it",
    )
    return tokenizer


def encoded(
    parts: Iterator[tuple[str, str]], tokenizer: Tokenizer, special_tokens: str
) -> Iterator[tuple[str, np.ndarray]]:
    """(split, tokens) of each text, START first; encoded many at a time, which uses every core.

    special_tokens: 'split' makes START of its name in a text, and so opens a document there; else it is text.
    """
    tokenizer.encode_special_tokens = special_tokens != "split"
    held: list[tuple[str, str]] = []

    def flush() -> Iterator[tuple[str, np.ndarray]]:
        texts = [text for _, text in held]
        for (split, _), encoding in zip(
            held, tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True
        ):
            yield split, np.array([0, *encoding.ids], np.int64)
        held.clear()

    size = 0
    for split, text in parts:
        held.append((split, text))
        size += len(text)
        if size > 4 * PIECE:
            yield from flush()
            size = 0
    yield from flush()


def repeats(config: DataConfig, d_vocab: int, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Random tokens, every segment twice in a row: (split, tokens), START first. For tests and teaching."""
    random = np.random.default_rng(seed)
    length, made = config.repeat_length, 0
    require(length >= 1, f"data.repeat_length is {length}; it must be at least 1")
    while made < config.repeat_tokens:
        segments = random.integers(1, d_vocab, (8, length))
        tokens = np.concatenate([[0], np.concatenate([segments, segments], 1).ravel()])
        made += len(tokens)
        yield split_of(content_hash(tokens.tobytes().hex())), tokens


@dataclass
class Corpus:
    """Tokens on disk and what is known of them."""

    folder: Path
    manifest: dict

    @property
    def tokenizer_json(self) -> str:
        return (self.folder / "tokenizer.json").read_text()

    def tokens(self, split: str) -> np.ndarray:
        """Memory-mapped tokens of a split, [n_tokens]."""
        return np.load(self.folder / f"{split}.npy", mmap_mode="r")

    def token_counts(self) -> np.ndarray:
        """How often each token occurs in the training split, [d_vocab]."""
        return np.load(self.folder / "token_counts.npy")

    def is_whole(self) -> bool:
        """Whether every file can be read and fits the manifest."""
        known = self.manifest
        splits = {split: self.tokens(split) for split in SPLITS}
        Tokenizer.from_str(self.tokenizer_json)
        return (
            known.keys() >= KNOWN_OF_TEXT
            and all(tokens.dtype.kind == "u" for tokens in splits.values())
            and {split: tokens.shape for split, tokens in splits.items()} == {s: (known["tokens"][s],) for s in SPLITS}
            and self.token_counts().shape == (known["d_vocab"],)
        )


def prepared(folder: Path) -> Corpus | None:
    """What an earlier call wrote here; None where there is nothing or it is damaged, and is to be made anew."""
    if not (folder / "manifest.json").exists():
        return None
    try:
        corpus = Corpus(folder, json.loads((folder / "manifest.json").read_text()))
        if corpus.is_whole():
            return corpus
    except Exception:  # each library has its own for a file that is none of its kind
        pass
    log.warning("the prepared text in %s is damaged; it is made anew", folder)
    return None


def described_before(index: Path) -> tuple[dict, Split] | None:
    """What an earlier call found out about the documents, and how they are split; None as above."""
    if not index.exists():
        return None
    try:
        known = json.loads(index.read_text())
        described, split = known["described"], known["split"]
        if described.keys() >= KNOWN_OF_TEXT and type(split["by_position"]) is bool:
            return described, Split(frozenset(split["near_duplicates"]), split["by_position"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    log.warning("%s is damaged; it is made anew", index)
    return None


def cache_folder(config: DataConfig) -> Path:
    return Path(
        config.cache_dir or os.environ.get("INDUCTION_CACHE") or Path.home() / ".cache" / "induction"
    ).expanduser()


def open_corpus(config: DataConfig, d_vocab: int) -> Corpus:
    """The corpus as tokens of a vocabulary of d_vocab; the first call makes it (seconds for the standard library).

    Raises ConfigError where the source is missing, empty, or too small for the vocabulary.
    """
    check_group("data", config)
    cache = cache_folder(config)
    if config.source == "repeats":
        key = f"{config.repeat_length}-{config.repeat_tokens}"
        folder = cache / f"repeats-{key}-{d_vocab}"
        if found := prepared(folder):
            return found
        vocabulary = {START: 0} | {f"t{i}": i for i in range(1, d_vocab)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=START))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        write_corpus(
            folder, tokenizer, repeats(config, d_vocab), {"source": "repeats", "licence": "none", "sha256": key}
        )
    else:
        documents = open_documents(config)
        index = cache / "index" / f"{documents.fingerprint()}.json"
        if (before := described_before(index)) is None:
            cache.mkdir(parents=True, exist_ok=True)
            before = describe(documents, cache)
            kept = {**asdict(before[1]), "near_duplicates": sorted(before[1].near_duplicates)}
            write_json(index, {"described": before[0], "split": kept})
        described, split = before
        folder = cache / f"{described['sha256'][:16]}-{d_vocab}"
        if found := prepared(folder):
            return found
        tokenizer = train_tokenizer((text for name, text in parts(documents, split) if name == "train"), d_vocab)
        tokens = encoded(parts(documents, split), tokenizer, config.special_tokens)
        write_corpus(folder, tokenizer, tokens, described)
    return Corpus(folder, json.loads((folder / "manifest.json").read_text()))


def parts(documents: Documents, split: Split) -> Iterator[tuple[str, str]]:
    """(split, text) of all documents."""
    return (part for number, text in enumerate(documents) for part in split.parts(number, text) if part[1])


def describe(documents: Documents, cache: Path) -> tuple[dict, Split]:
    """Source, licence, counts and a hash of the contents that does not depend on their order; and how they are split.

    Raises ConfigError where there is no text, or a special token that is refused.
    """
    config = documents.config
    n_documents = n_bytes = n_special = total = 0
    near_duplicates: frozenset[int] = frozenset()
    with tempfile.TemporaryFile(dir=cache) as file:
        lines = Lines(file)
        for place, text in documents.placed():
            n_documents += 1
            n_bytes += len(text.encode("utf-8", "surrogatepass"))
            total += int.from_bytes(content_hash(text), "big")
            n_special += text.count(START)
            require(
                not n_special or config.special_tokens != "refuse",
                f"{place}: '{START}' is in the text; data.special_tokens=text reads it as any other text, "
                "split opens a document there",
            )
            if config.held_out == "apart":
                lines.add(text)
        if config.held_out == "apart":
            near_duplicates = lines.near_duplicates()
    require(n_documents > 0, "the data source has no text in it")
    split = choose_split(config.held_out, near_duplicates, n_documents)
    return {
        "source": config.name or config.source,
        "note": documents.note,
        "licence": config.licence,
        "documents": n_documents,
        "bytes": n_bytes,
        "sha256": corpus_hash(total, config),
        "split": "each document by position" if split.by_position else "whole documents by their hash",
        "held_out": config.held_out,
        "near_duplicates": len(near_duplicates),
        "special_tokens": n_special,
    }, split


def corpus_hash(total: int, config: DataConfig) -> str:
    """sha256 of a text and its rules. Under those of version 0.1.0 it is the sum of the contents' hashes, as it was."""
    contents, rules = f"{total % 2**256:064x}", [config.held_out, config.special_tokens]
    if rules == ["any", "split"]:
        return contents
    return hashlib.sha256(" ".join([contents, *rules]).encode()).hexdigest()


def write_corpus(
    folder: Path, tokenizer: Tokenizer, documents: Iterator[tuple[str, np.ndarray]], described: dict
) -> None:
    """Stream the documents' tokens into one .npy per split; the manifest comes last, so a torn cache is made anew."""
    d_vocab = tokenizer.get_vocab_size()
    dtype = np.dtype(np.uint16 if d_vocab <= 2**16 else np.uint32)
    folder.mkdir(parents=True, exist_ok=True)
    counts, n_tokens = np.zeros(d_vocab, np.int64), dict.fromkeys(SPLITS, 0)
    parts = {split: folder / f"{split}.{os.getpid()}.part" for split in SPLITS}
    streams = {split: part.open("wb") for split, part in parts.items()}
    try:
        for split, tokens in documents:
            streams[split].write(tokens.astype(dtype).tobytes())
            n_tokens[split] += len(tokens)
            if split == "train":
                counts += np.bincount(tokens, minlength=d_vocab)
        for split, stream in streams.items():
            stream.close()
            mapped = (
                np.memmap(parts[split], dtype, "r", shape=(n_tokens[split],)) if n_tokens[split] else np.empty(0, dtype)
            )
            write_atomic(folder / f"{split}.npy", functools.partial(np.save, arr=mapped))
    finally:
        for split, stream in streams.items():
            stream.close()
            parts[split].unlink(missing_ok=True)
    write_atomic(folder / "token_counts.npy", lambda file: np.save(file, counts))
    write_atomic(folder / "tokenizer.json", tokenizer.to_str().encode())
    write_json(folder / "manifest.json", {**described, "d_vocab": d_vocab, "tokens": n_tokens})

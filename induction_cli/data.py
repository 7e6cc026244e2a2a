"""Text -> documents -> tokens on disk -> windows. Also the synthetic sequences of the measures.

A corpus is read as a stream of documents, so memory stays flat however large it is: one pass finds its hash and counts,
one trains the tokenizer, one writes the tokens. All three are cached. Which split a document falls into is a function
of its content alone.
"""

from __future__ import annotations

import functools
import glob
import gzip
import hashlib
import json
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from induction_cli.config import ConfigError, DataConfig, check_group, require
from induction_cli.runs.files import write_atomic, write_json

START = "<|endoftext|>"  # token 0: opens every document, and is the start token of every synthetic sequence
SPLITS = ("train", "validation", "test")
HELD_OUT = 0.05  # share of the documents in validation, and in test
PIECE = 1 << 20  # a longer file is cut here, at a line end
TEXT_SUFFIXES = {".py", ".txt", ".rst", ".md", ".c", ".h", ".html", ".tex", ".json", ".jsonl", ".js", ".java", ".rs"}
# Debian and slim images ship Python without its tests, a third of the text is left; these make up for it, in this order
TOP_UP = ("torch", "sympy", "pandas", "matplotlib", "numpy", "networkx", "setuptools", "pip")
STDLIB_BYTES = 30_000_000


# ------------------------------------------------------------------------------------------------ documents


def text_files(folder: Path) -> list[Path]:
    """Text below a folder in a fixed order; no caches, no installed packages, no hidden folders."""
    skipped = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skipped and not name.startswith("."))
        found += [Path(root, name) for name in sorted(names) if Path(name.removesuffix(".gz")).suffix in TEXT_SUFFIXES]
    return found


def stdlib_files() -> tuple[list[Path], str]:
    """Python's standard library, and what was added to it where the tests are missing."""
    files = [path for path in text_files(Path(sysconfig.get_paths()["stdlib"])) if path.suffix in {".py", ".txt"}]
    size, added = sum(path.stat().st_size for path in files), []
    for package in TOP_UP:
        folder = Path(sysconfig.get_paths()["purelib"]) / package
        if size < STDLIB_BYTES and folder.is_dir():
            sources = [path for path in text_files(folder) if path.suffix == ".py"]
            files, size = files + sources, size + sum(path.stat().st_size for path in sources)
            added.append(package)
    return files, f"topped up with the sources of {', '.join(added)}" if added else ""


def listed_files(paths: list[str]) -> list[Path]:
    """The files that folders, file names and globs stand for. Raises ConfigError for one that stands for none."""
    found: list[Path] = []
    for given in paths:
        matches = sorted(glob.glob(os.path.expanduser(given), recursive=True))
        require(bool(matches), f"data.paths names '{given}', and nothing is there")
        files = [file for match in matches for file in (text_files(Path(match)) if Path(match).is_dir() else [match])]
        require(bool(files), f"data.paths names '{given}', and no text file is in it")
        found += [Path(file) for file in files]
    return found


def file_documents(path: Path, field: str) -> Iterator[str]:
    """The documents of one file: a line each for .jsonl, else the file, in pieces where it is long."""
    kind = Path(path.name.removesuffix(".gz")).suffix
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as file:
        if kind == ".jsonl":
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield json.loads(line)[field]
                    except (json.JSONDecodeError, KeyError, TypeError):
                        raise ConfigError(
                            f"{path}, line {number}: no JSON object with a field '{field}'; set data.field"
                        )
        else:
            while piece := file.read(PIECE):
                yield piece + (file.readline() if len(piece) == PIECE else "")


def huggingface_documents(config: DataConfig) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise ConfigError("data=huggingface needs the extra: pip install 'induction[huggingface]'")
    stream = load_dataset(config.name, config.subset or None, split=config.split, streaming=True)
    for row in stream.take(config.max_documents) if config.max_documents else stream:
        require(config.field in row, f"data.field is '{config.field}'; this data set has {', '.join(row)}")
        yield row[config.field]


@dataclass
class Documents:
    """A stream of documents that can be read again, and a cheap fingerprint of it."""

    config: DataConfig
    files: list[Path]
    note: str = ""

    def __iter__(self) -> Iterator[str]:
        """Documents in a fixed order, no content twice, no empty one."""
        seen: set[bytes] = set()
        streams = (file_documents(path, self.config.field) for path in self.files)
        for text in huggingface_documents(self.config) if not self.files else (t for s in streams for t in s):
            digest = content_hash(text)
            if text and digest not in seen:
                seen.add(digest)
                yield text

    def fingerprint(self) -> str:
        """Changes when a file's path, size or time changes; saves hashing an unchanged corpus at every start."""
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        c = self.config
        return short_hash(json.dumps([stats, c.field, c.name, c.subset, c.split, c.max_documents]))


def open_documents(config: DataConfig) -> Documents:
    if config.source == "stdlib":
        return Documents(config, *stdlib_files())
    return Documents(config, listed_files(config.paths) if config.source == "files" else [])


def content_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split_of(digest: bytes) -> str:
    """The split of a document, from its content's hash alone: it never moves when others come or go."""
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if share < HELD_OUT else "validation" if share < 2 * HELD_OUT else "train"


# ------------------------------------------------------------------------------------------------ tokens


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


def encoded(documents: Iterator[str], tokenizer: Tokenizer) -> Iterator[tuple[str, np.ndarray]]:
    """(split, tokens) of each document, START first; encoded many at a time, which uses every core."""
    held: list[str] = []

    def flush() -> Iterator[tuple[str, np.ndarray]]:
        for text, encoding in zip(held, tokenizer.encode_batch_fast(held, add_special_tokens=False), strict=True):
            yield split_of(content_hash(text)), np.array([0, *encoding.ids], np.int64)
        held.clear()

    size = 0
    for text in documents:
        held.append(text)
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
        if not (folder / "manifest.json").exists():
            vocabulary = {START: 0} | {f"t{i}": i for i in range(1, d_vocab)}
            tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=START))
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
            write_corpus(
                folder, tokenizer, repeats(config, d_vocab), {"source": "repeats", "licence": "none", "sha256": key}
            )
    else:
        documents = open_documents(config)
        index = cache / "index" / f"{documents.fingerprint()}.json"
        if not index.exists():
            write_json(index, describe(documents))
        described = json.loads(index.read_text())
        folder = cache / f"{described['sha256'][:16]}-{d_vocab}"
        if not (folder / "manifest.json").exists():
            texts = (text for text in documents if split_of(content_hash(text)) == "train")
            tokenizer = train_tokenizer(texts, d_vocab)
            write_corpus(folder, tokenizer, encoded(iter(documents), tokenizer), described)
    return Corpus(folder, json.loads((folder / "manifest.json").read_text()))


def describe(documents: Documents) -> dict:
    """Source, licence, documents, bytes and a hash of the contents that does not depend on their order."""
    n_documents = n_bytes = total = 0
    for text in documents:
        n_documents += 1
        n_bytes += len(text.encode("utf-8", "surrogatepass"))
        total += int.from_bytes(content_hash(text), "big")
    require(n_documents > 0, "the data source has no text in it")
    config = documents.config
    return {
        "source": config.name or config.source,
        "note": documents.note,
        "licence": config.licence,
        "documents": n_documents,
        "bytes": n_bytes,
        "sha256": f"{total % 2**256:064x}",
    }


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


# ------------------------------------------------------------------------------------------------ windows


class Batches:
    """Training batches as a function of (seed, step) alone; no window comes twice within an epoch.

    Windows of n_ctx + 1 tokens start every n_ctx tokens, so no token is predicted twice. Their order is one
    permutation per epoch (4 bytes a window).
    """

    def __init__(self, tokens: np.ndarray, n_ctx: int, batch_size: int, seed: int, epochs: int = 1):
        self.tokens, self.n_ctx, self.batch_size, self.seed = tokens, n_ctx, batch_size, seed
        self.n_windows = max(0, (len(tokens) - 1) // n_ctx)
        self.steps_per_epoch = self.n_windows // batch_size
        self.n_steps = self.steps_per_epoch * epochs
        self.order: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int) -> Tensor:
        """Tokens [batch, n_ctx + 1]; inputs are all but the last, targets all but the first."""
        epoch, step = divmod(step, self.steps_per_epoch)
        if self.order is None or self.order[0] != epoch:
            random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self.order = epoch, random.permutation(self.n_windows).astype(np.uint32)
        windows = self.order[1][step * self.batch_size : (step + 1) * self.batch_size].astype(np.int64) * self.n_ctx
        return torch.from_numpy(np.stack([self.tokens[w : w + self.n_ctx + 1] for w in windows]).astype(np.int64))


CHAIN = 8  # held-out windows in a chain


def held_out_windows(tokens: np.ndarray, n_examples: int, n_ctx: int, shift: int, seed: int = 0) -> Tensor:
    """Held-out examples [n_examples, n_ctx + 1] at random offsets, drawn in chains of CHAIN overlapping windows.

    Each window of a chain (rows CHAIN * i onwards) starts `shift` = late index - early index after the one before, so
    what one sees at its late index the next sees at its early one. Every window is still at a uniformly random offset,
    so the in-context learning score means the same; but most of its losses are differences on the same tokens, which
    removes most of its sampling noise. Intervals resample whole chains.
    """
    length = (CHAIN - 1) * shift + n_ctx + 1
    room = len(tokens) - length
    require(room > 0, f"the held-out text has {len(tokens)} tokens; the measures need more than {length}")
    starts = np.random.default_rng(seed).integers(0, room, -(-n_examples // CHAIN))
    offsets = (starts[:, None] + shift * np.arange(CHAIN)).ravel()[:n_examples]
    return torch.from_numpy(np.stack([tokens[o : o + n_ctx + 1] for o in offsets]).astype(np.int64))

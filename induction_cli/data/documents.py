"""The documents of a source, as a stream that can be read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from induction_cli.config import ConfigError, DataConfig, require
from induction_cli.data.files import file_texts, listed_files, stdlib_files, text_of


def huggingface_texts(config: DataConfig) -> Iterator[tuple[str, str]]:
    """(place, text) of each row of a data set."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise ConfigError("data=huggingface needs the extra: pip install 'induction[huggingface]'")
    try:
        stream = load_dataset(config.name, config.subset or None, split=config.split, streaming=True)
        for number, row in enumerate(stream.take(config.max_documents) if config.max_documents else stream, 1):
            place = f"{config.name}, row {number}"
            require(config.field in row, f"data.field is '{config.field}'; this data set has {', '.join(row)}")
            yield place, text_of(row, config.field, place)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # not there, no network, no such subset or split
        raise ConfigError(f"data.name is '{config.name}', which cannot be read: {' '.join(str(error).split())}")


@dataclass
class Documents:
    """A stream of documents that can be read again, and a cheap fingerprint of it."""

    config: DataConfig
    files: list[Path]
    note: str = ""

    def placed(self) -> Iterator[tuple[str, str]]:
        """(where it stands, text) of each document in a fixed order, no content twice, no empty one."""
        c, seen = self.config, set[bytes]()
        # Python ships some files that are no UTF-8, for its tests
        most = 1 if c.source == "stdlib" else c.max_replaced
        streams = (file_texts(path, c.field, most) for path in self.files)
        for place, text in huggingface_texts(c) if not self.files else (t for s in streams for t in s):
            digest = content_hash(text)
            if text and digest not in seen:
                seen.add(digest)
                yield place, text

    def __iter__(self) -> Iterator[str]:
        """The texts alone."""
        return (text for _, text in self.placed())

    def fingerprint(self) -> str:
        """Changes when a file's path, size or time changes, or a setting that decides on documents and their split;
        saves hashing an unchanged corpus at every start."""
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        c = self.config
        rules = [c.held_out, c.special_tokens, c.max_replaced]
        return short_hash(json.dumps([stats, c.field, c.name, c.subset, c.split, c.max_documents, rules]))


def open_documents(config: DataConfig) -> Documents:
    if config.source == "stdlib":
        return Documents(config, *stdlib_files())
    return Documents(config, listed_files(config.paths) if config.source == "files" else [])


def content_hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

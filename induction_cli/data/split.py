"""Which text is trained on, and which is held out for validation and test.

A document's own hash decides, so it never moves when others come or go; but documents that share their lines with
others are always trained on, as held-out text that was seen in training would make a model look better than it is. Few
documents are each cut by position. Version 0.1.0 had the hash alone: data.held_out=any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from induction_cli.data.documents import content_hash

SPLITS = ("train", "validation", "test")
HELD_OUT = 0.05  # share of the documents in validation, and in test
FEW = 100  # fewer documents than this that could be held out are cut by position instead
LONG_LINE = 20  # characters; shorter lines, such as `return None`, are alike everywhere
BUCKETS = 64  # of the lines on disk; one is in memory at a time
CHUNK = 1 << 20  # lines that are written together
LINE = np.dtype([("line", np.uint64), ("document", np.uint32)])


def split_of(digest: bytes) -> str:
    """The split of a document, from its content's hash alone: it never moves when others come or go."""
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if share < HELD_OUT else "validation" if share < 2 * HELD_OUT else "train"


@dataclass(frozen=True)
class Split:
    """How a corpus is split.

    near_duplicates: numbers of the documents, counted along the stream, that are always trained on. by_position: the
    others are each cut into training, validation and test.
    """

    near_duplicates: frozenset[int] = frozenset()
    by_position: bool = False

    def parts(self, number: int, text: str) -> Iterator[tuple[str, str]]:
        """(split, text) of a document, or of its parts."""
        if number in self.near_duplicates:
            yield "train", text
        elif self.by_position:
            yield from zip(SPLITS, cut_by_position(text), strict=True)
        else:
            yield split_of(content_hash(text)), text


def choose_split(held_out: str, near_duplicates: frozenset[int], n_documents: int) -> Split:
    """The split of a corpus; held_out: the setting."""
    alone = n_documents - len(near_duplicates)
    if held_out == "any":
        return Split()
    if alone == 0:  # one log file in pieces, say: there is nothing but position to go by
        return Split(by_position=True)
    return Split(near_duplicates, by_position=alone < FEW)


def cut_by_position(text: str) -> tuple[str, str, str]:
    """Beginning, middle and end of a text, for training, validation and test; cut at line ends where they are near."""
    start, end = (line_end(text, 1 - share * HELD_OUT) for share in (2, 1))
    return text[:start], text[start:end], text[end:]


def line_end(text: str, share: float) -> int:
    """The first line end behind a share of the text, or that share itself where the line goes on for long."""
    cut = int(len(text) * share)
    found = text.find("\n", cut) + 1
    return found if 0 < found <= cut + len(text) * HELD_OUT / 2 else cut


class Lines:
    """The long lines of a corpus as hashes in a file, to find the documents that share half of theirs with others."""

    def __init__(self, file: IO[bytes]):
        self.file = file  # chunks, each in order of bucket
        self.in_buckets: list[np.ndarray] = []  # of each chunk
        self.held: list[np.ndarray] = []  # of the chunk to come
        self.n_held = 0  # lines and documents
        self.n_lines: list[int] = []  # distinct long ones of each document

    def add(self, text: str) -> None:
        """The next document."""
        lines = {line for line in map(str.strip, text.splitlines()) if len(line) >= LONG_LINE}
        hashed = b"".join(
            hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest() for line in lines
        )
        rows = np.empty(len(lines), LINE)
        rows["line"], rows["document"] = np.frombuffer(hashed, np.uint64), len(self.n_lines)
        self.held.append(rows)
        self.n_lines.append(len(lines))
        self.n_held += 1 + len(rows)
        if self.n_held >= CHUNK:
            self.write()

    def write(self) -> None:
        rows = np.concatenate(self.held)
        bucket = rows["line"] % BUCKETS
        self.file.write(rows[np.argsort(bucket, kind="stable")].tobytes())
        self.in_buckets.append(np.bincount(bucket.astype(np.int64), minlength=BUCKETS))
        self.held.clear()
        self.n_held = 0

    def bucket(self, number: int) -> np.ndarray:
        """Its rows of all chunks."""
        found, start = [np.empty(0, LINE)], 0
        for counts in self.in_buckets:
            self.file.seek((start + int(counts[:number].sum())) * LINE.itemsize)
            found.append(np.frombuffer(self.file.read(int(counts[number]) * LINE.itemsize), LINE))
            start += int(counts.sum())
        return np.concatenate(found)

    def near_duplicates(self) -> frozenset[int]:
        """Numbers of the documents of whose long lines at least half stand in another document too."""
        if self.held:
            self.write()
        n_lines, shared = np.array(self.n_lines), np.zeros(len(self.n_lines), np.int64)
        for rows in map(self.bucket, range(BUCKETS)):
            _, which, times = np.unique(rows["line"], return_inverse=True, return_counts=True)
            shared += np.bincount(rows["document"][times[which] > 1], minlength=len(shared))
        return frozenset(np.flatnonzero((n_lines > 0) & (2 * shared >= n_lines)).tolist())

"""Where the shipped folders stand, and writing files so that a reader finds the old content or the new, never half."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class RunError(RuntimeError):
    """Something on disk or in a run that stops us; the message names it and says what would help."""


@contextmanager
def said_plainly() -> Iterator[None]:
    """Disk errors as RunError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RunError(
                f"the disk is full ({error.filename or 'writing'}); what was saved before is untouched"
            ) from error
        raise


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write beside the target, flush to disk, move into place. `content`: bytes, or a function writing to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def beside(name: str) -> Path:
    """conf/ or experiments/: inside the package in a wheel, one level up in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / name if (package / name).is_dir() else package.parent / name

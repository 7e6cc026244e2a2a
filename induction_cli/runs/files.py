"""Where the shipped folders stand, and files: written so that a reader finds the old content or the new, never half.

What is wrong with one that is read is said in one line. Nothing that a file holds is run or made an object.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import yaml


class RunError(RuntimeError):
    """Something on disk or in a run that stops us; the message names it and says what would help."""


class Damaged(RunError):
    """A file that does not hold what it should; the message names it, what is wrong with it, and what to do."""

    def __init__(self, path: Path, wrong: object, remedy: str):
        super().__init__(f"{path} is damaged: {' '.join(str(wrong).split())[:300]}; {remedy}")


# ------------------------------------------------------------------------------------------------ reading


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What the system says of a file that cannot be opened, as RunError: it is not damaged. A missing one stays so."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def read_text(path: Path, remedy: str, at_most: int = 10**7) -> str:
    """A text file of UTF-8, of at most so many bytes. Raises FileNotFoundError, RunError."""
    with readable(path), path.open("rb") as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise Damaged(path, f"it has more than {at_most} bytes", remedy)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Damaged(path, f"it is not UTF-8 from byte {error.start} on", remedy) from error


def read_json(path: Path, remedy: str) -> Any:
    """Whatever a JSON file holds. Raises FileNotFoundError, RunError."""
    try:
        return json.loads(read_text(path, remedy))
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise Damaged(path, str(error).partition(";")[0], remedy) from error


def read_yaml(path: Path, remedy: str) -> Any:
    """Whatever a YAML file holds: plain values, no tag, no alias. Raises FileNotFoundError, RunError."""
    text = read_text(path, remedy)
    try:
        check_plain(text)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Damaged(path, yaml_fault(error), remedy) from error


def check_plain(text: str) -> None:
    """Raise ValueError for a YAML text with a tag, which makes an object, or an alias, of which few expand to many."""
    for event in yaml.parse(text, yaml.SafeLoader):
        wrong = "an alias" if isinstance(event, yaml.AliasEvent) else "a tag" if getattr(event, "tag", None) else ""
        if wrong and event.start_mark:
            raise ValueError(f"line {event.start_mark.line + 1} has {wrong}, which no file of ours needs")


def yaml_fault(error: Exception) -> str:
    """What is wrong and in which line, without the text around it."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error).partition(";")[0]
    return f"line {mark.line + 1}: {error.problem}"  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ writing


def is_full(error: OSError) -> bool:
    """Whether a file system has no room, or no more of it for this user."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(path: Path) -> str:
    """What to say where there is no room for a file: which file system it is, and how large."""
    place = path.absolute()
    while not place.exists() or not place.is_mount():
        place = place.parent
    room = shutil.disk_usage(place)
    return (
        f"the disk is full: no room for {path} on the file system at {place} ({size(room.free)} of {size(room.total)} "
        "free); what was saved before is untouched, and the same command goes on when there is room"
    )


def size(n_bytes: float) -> str:
    """'4.1 TB', '12 MB'."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB", "EB"):
        if n_bytes < 1000 or unit == "EB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit == "bytes" or n_bytes >= 10 else f"{n_bytes:.1f} {unit}"


@contextmanager
def said_plainly(path: Path) -> Iterator[None]:
    """A full disk as RunError. path: what was to be written."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise RunError(disk_full(path)) from error
        raise


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write beside the target, flush to disk, move into place. `content`: bytes, or a function writing to a file.

    Raises RunError where the disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        with said_plainly(path):
            path.parent.mkdir(parents=True, exist_ok=True)
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
        for folder in new if not path.exists() else ():  # nor an empty folder
            with suppress(OSError):
                folder.rmdir()


def write_json(path: Path, value: object) -> None:
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def beside(name: str) -> Path:
    """conf/ or experiments/: inside the package in a wheel, one level up in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / name if (package / name).is_dir() else package.parent / name

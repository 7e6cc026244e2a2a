"""Files to texts: plain and compressed text, jsonl, parquet and arrow. What cannot be read is one line naming it."""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import lzma
import os
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from induction_cli.config import ConfigError, require

PIECE = 1 << 20  # a longer file is cut here, at a line end
TEXT_SUFFIXES = {".py", ".txt", ".rst", ".md", ".c", ".h", ".html", ".tex", ".json", ".jsonl", ".js", ".java", ".rs"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
TABLES = (".parquet", ".arrow")
# Debian and slim images ship Python without its tests, a third of the text is left; these make up for it, in this order
TOP_UP = ("torch", "sympy", "pandas", "matplotlib", "numpy", "networkx", "setuptools", "pip")
STDLIB_BYTES = 30_000_000


# ------------------------------------------------------------------------------------------------ which files


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
        require(bool(files), f"data.paths names '{given}', and no text file is in it; files of other kinds need a glob")
        found += [Path(file) for file in files]
    return found


# ------------------------------------------------------------------------------------------------ what is in them


def file_texts(path: Path, field: str, max_replaced: float) -> Iterator[tuple[str, str]]:
    """(place, text) of each document of one file: a row each for jsonl, parquet and arrow; else the file, in pieces
    where it is long. Raises ConfigError naming what is damaged, no text, or no row with a text in `field`."""
    with said_of(path):
        if path.suffix in TABLES:
            for number, row in enumerate(table_rows(path, field), 1):
                place = f"{path}, row {number}"
                yield place, text_of(row, field, place)
            return
        with opened(path) as file:
            if Path(path.name.removesuffix(path.suffix) if path.suffix in COMPRESSED else path).suffix == ".jsonl":
                for number, line in enumerate(checked(file, path, max_replaced), 1):
                    place = f"{path}, line {number}"
                    if line.strip():
                        yield place, text_of(parsed(line, field, place), field, place)
            else:
                for piece in checked(pieces(file), path, max_replaced):
                    yield str(path), piece


def opened(path: Path) -> IO[Any]:
    """A file as text in UTF-8, unpacked by its suffix; bytes that are none read as U+FFFD."""
    how: dict[str, Any] = {"mode": "rt", "encoding": "utf-8", "errors": "replace"}
    if path.suffix == ".gz":
        return gzip.open(path, **how)
    if path.suffix == ".bz2":
        return bz2.open(path, **how)
    if path.suffix == ".xz":
        return lzma.open(path, **how)
    return zstandard().open(path, **how) if path.suffix == ".zst" else path.open(**how)


def zstandard() -> Any:
    """Python's own zstd, or what brings it to a Python older than 3.14."""
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, as one line that names it."""
    try:
        yield
    except EOFError:
        raise ConfigError(f"{path} is cut short: its end is missing; fetch it again")
    except OSError as error:
        what = f"cannot be read: {error.strerror}" if error.strerror else f"is no {path.suffix} file, or a damaged one"
        raise ConfigError(f"{path} {what}")
    except (zlib.error, lzma.LZMAError):
        raise ConfigError(f"{path} is no {path.suffix} file, or a damaged one")
    except Exception as error:
        if path.suffix != ".zst" or not isinstance(error, zstandard().ZstdError):
            raise
        raise ConfigError(f"{path} is no .zst file, or a damaged one")


def pieces(file: IO[str]) -> Iterator[str]:
    while piece := file.read(PIECE):
        yield piece + (file.readline() if len(piece) == PIECE else "")


def checked(texts: Iterable[str], path: Path, max_replaced: float) -> Iterator[str]:
    """The same texts. Raises ConfigError where the file turns out to be no text."""
    characters = replaced = 0
    for text in texts:
        nul = "\0" in text and max_replaced < 1
        require(not nul, f"{path} is no text: NUL bytes are in it, as in binary files and UTF-16; only UTF-8 is read")
        characters += len(text)
        replaced += text.count("\ufffd")
        yield text
    require(
        replaced <= max_replaced * characters,
        f"{path} is no text in UTF-8: {replaced / max(characters, 1):.1%} of its characters could not be read; "
        f"convert it, or allow so many with data.max_replaced (now {max_replaced})",
    )


def parsed(line: str, field: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError(f"{place}: no JSON object with a field '{field}'; set data.field")


def text_of(row: Any, field: str, place: str) -> str:
    """The text of a row. Raises ConfigError naming the place of one that has none."""
    require(
        isinstance(row, dict) and field in row,
        f"{place}: no JSON object with a field '{field}'; set data.field"
        + (f" (there are {', '.join(map(str, row))})" if row and isinstance(row, dict) else ""),
    )
    text = row[field]
    kinds = {type(None): "null", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    kind = kinds.get(type(text), "an object")
    require(isinstance(text, str), f"{place}: the field '{field}' is {kind}; it must be text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{place}: the field '{field}' holds half a surrogate pair, which is no text")
    return text


def table_rows(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """Rows of a parquet or arrow file, some at a time; of their columns only the field."""
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError:
        raise ConfigError(f"{path} needs the extra: pip install 'induction[huggingface]'")
    try:
        with path.open("rb") as file:
            if path.suffix == ".parquet":
                table = parquet.ParquetFile(file)
                names, batches = table.schema_arrow.names, lambda: table.iter_batches(1024, columns=[field])
            else:
                names, batches = arrow_batches(file, ipc, pyarrow.ArrowInvalid)
            require(field in names, f"{path} has no column '{field}'; set data.field (there are {', '.join(names)})")
            for batch in batches():
                yield from batch.select([field]).to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError):
        raise ConfigError(f"{path} is no {path.suffix} file, or a damaged one")


def arrow_batches(file: IO[bytes], ipc: Any, invalid: type[Exception]) -> tuple[list[str], Any]:
    """(names of columns, what iterates over the batches) of an arrow file, or of a stream, as `datasets` writes."""
    try:
        table = ipc.open_file(file)
        return table.schema.names, lambda: map(table.get_batch, range(table.num_record_batches))
    except invalid:
        file.seek(0)
        stream = ipc.open_stream(file)
        return stream.schema.names, lambda: stream

"""Tables as files: every table is written and read through its contract in tables.yaml.

Text stays text (a run called `01` or `None`, a token `NA`), numbers come back exactly as they were written, and a file
that does not keep the contract is refused in one line. `python -m induction_cli.runs.tables` prints the reference.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from induction_cli.runs.files import RunError, readable, write_atomic

CONTRACT = Path(__file__).with_name("tables.yaml")
TYPES = ("int", "float", "text", "bool")
EMPTY = {"int": np.int64, "float": np.float64, "text": object, "bool": bool}  # what a column without rows is read as
DIGITS = "%.9g"  # hold a float32 exactly
NUL = "\ufdd0"  # stands for the character 0, at which pandas would end a text; no text has this one


# ------------------------------------------------------------------------------------------------ the contract


@dataclass(frozen=True)
class Column:
    """A column of a table. type: 'int' | 'float' | 'text' | 'bool'; optional: some of its tables do not have it."""

    name: str
    type: str
    meaning: str
    unit: str = ""
    optional: bool = False


@dataclass(frozen=True)
class TableSpec:
    """A table: who writes it, what a row is, the columns that tell its rows apart, all its columns in order."""

    name: str  # as in tables.yaml: NAME or ROOM/NAME
    commands: tuple[str, ...]
    meaning: str
    key: tuple[str, ...]
    columns: Mapping[str, Column] = field(repr=False)

    @property
    def stem(self) -> str:
        """Name of its file without .csv."""
        return self.name.rpartition("/")[2]

    @property
    def required(self) -> list[str]:
        return [name for name, column in self.columns.items() if not column.optional]

    def missing(self, columns: Iterable[str]) -> list[str]:
        """Columns that a table with these columns lacks."""
        there = set(columns)
        return [name for name in self.required if name not in there]

    def unknown(self, columns: Iterable[str]) -> list[str]:
        """Those of the columns that the contract does not know."""
        return [name for name in columns if name not in self.columns]


@cache
def contract() -> dict[str, TableSpec]:
    """tables.yaml, {name: table}, in its order. Raises ValueError naming what is not well formed in it."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where libyaml is there
    found = yaml.load(CONTRACT.read_text(encoding="utf-8"), loader)
    del found["shared"]  # anchors only
    return {name: table_spec(name, **entry) for name, entry in found.items()}


def table_spec(
    name: str, commands: list[str], meaning: str, key: list[str], columns: dict[str, dict[str, Any]]
) -> TableSpec:
    """An entry of tables.yaml. Raises ValueError where it is not well formed."""
    made = {}
    for column, entry in columns.items():
        try:
            made[column] = Column(column, **entry)
        except TypeError as error:
            raise ValueError(f"{CONTRACT.name}: {name}: {column}: {error}") from error
        if made[column].type not in TYPES:
            raise ValueError(f"{CONTRACT.name}: {name}: {column}: its type is not one of {', '.join(TYPES)}")
    if strange := [column for column in key if column not in made]:
        raise ValueError(f"{CONTRACT.name}: {name}: its key names {strange[0]}, which is no column of it")
    return TableSpec(name, tuple(commands), meaning, tuple(key), made)


def spec_of(stem: str, columns: Iterable[str] = ()) -> TableSpec:
    """The table called `stem`; where rooms give one name to different tables, the one that the columns fit best.

    Raises ValueError for a name that is not in tables.yaml.
    """
    columns = list(columns)
    specs = [spec for spec in contract().values() if spec.stem == stem]
    if not specs:
        raise ValueError(f"there is no table '{stem}' in {CONTRACT.name}; describe it there")
    return min(specs, key=lambda spec: len(spec.missing(columns)) + len(spec.unknown(columns)))


# ------------------------------------------------------------------------------------------------ writing


def prepared(stem: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as the contract wants them. A table without rows gets all its columns.

    Raises ValueError for a name, a column or a value that the contract does not allow: a mistake in the code.
    """
    spec = spec_of(stem, rows.columns)
    if unknown := spec.unknown(rows.columns):
        raise ValueError(f"table {stem} has no column '{unknown[0]}' in {CONTRACT.name}; describe it there")
    if missing := spec.missing(rows.columns):
        if len(rows):
            raise ValueError(f"table {stem} lacks the column '{missing[0]}' that {CONTRACT.name} describes")
        rows = rows.reindex(columns=[name for name in spec.columns if name in rows or name in missing])
    return pd.DataFrame({name: fitted(rows[name], spec.columns[name], stem) for name in rows}, rows.index)


def fitted(values: pd.Series, column: Column, stem: str) -> pd.Series:
    """Values of the type that the contract says. Raises ValueError for others."""
    there = values.dropna()
    if column.type == "text":
        good = values.dtype == "category" or all(isinstance(value, str) for value in there)
    elif column.type == "bool":
        good = values.dtype == bool or all(isinstance(value, bool | np.bool_) for value in there)
    elif values.dtype == bool:
        good = False
    elif column.type == "float" and values.dtype.kind in "fiu":
        return values
    else:
        try:
            there = pd.to_numeric(there)
            good = column.type == "float" or bool((there % 1 == 0).all())
        except (TypeError, ValueError):
            good = False
    if not good:
        raise ValueError(f"table {stem}: its column {column.name} is {column.type}, and has '{there.iloc[0]}'")
    if column.type == "int":  # all digits of large ones, also where some are empty
        return values.astype("Int64") if values.dtype.kind not in "iu" else values
    return pd.to_numeric(values) if column.type == "float" else values


def as_csv(rows: pd.DataFrame, header: bool = True) -> bytes:
    """Python's csv quotes the line ends that it writes itself and no others: a lone carriage return needs its own."""
    text = rows.to_csv(index=False, header=header, float_format=DIGITS, lineterminator="\n")
    if "\r" in text:
        text = rows.to_csv(index=False, header=header, float_format=DIGITS, lineterminator="\r\n")
    return text.encode()


def write_table(path: Path, rows: pd.DataFrame) -> None:
    """Write a table whole. Errors as `prepared`; RunError where the disk is full."""
    write_atomic(path, as_csv(prepared(path.stem, rows)))


class Table:
    """A CSV that grows during a run: rows are formatted once, the file is replaced whole at each flush."""

    def __init__(self, path: Path, before_step: int | None = None):
        """Empty, or the rows of the existing file whose step (first column) is below `before_step`."""
        self.path, self.text = path, b""
        if before_step is not None and path.exists():
            header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
            self.text = header + b"".join(row for row in rows if int(row.split(b",", 1)[0]) < before_step)

    def append(self, rows: pd.DataFrame) -> None:
        self.text += as_csv(prepared(self.path.stem, rows), header=not self.text)

    def flush(self) -> None:
        if self.text:
            write_atomic(self.path, self.text)


# ------------------------------------------------------------------------------------------------ reading


def read_table(path: Path) -> pd.DataFrame:
    """A table with its columns of the types that the contract says.

    int: int64, or float64 where some are empty; bool: bool, or object with None where some are empty; text: str, empty
    where there is none. Columns that the contract does not know are text. A table without rows has all its columns.
    Raises RunError, one line that names the file, what is wrong with it and the command that makes it again.
    """
    try:
        with readable(path):
            content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path} is missing; run the command that makes it first") from None
    spec_of(path.stem)  # a name that nobody described is a mistake in the code, not in the file
    try:
        return parsed(path.stem, content)
    except ValueError as error:  # UnicodeDecodeError and those of pandas are among them
        said = " ".join(str(error).split())
        raise RunError(f"{path} is damaged: {said}; {remake(path)}") from error


def remake(path: Path) -> str:
    """'run induction score again': the command of the room that the file is in, or all that write such a table."""
    commands = dict.fromkeys(name for spec in contract().values() if spec.stem == path.stem for name in spec.commands)
    room = [name for name in commands if name.replace("-", "_") == path.parent.parent.name]
    return f"run induction {' or '.join(room or commands)} again"


def parsed(stem: str, content: bytes) -> pd.DataFrame:
    """The rows of a file. Raises ValueError for one that is empty, cut off, ragged, or has values of another type."""
    content.decode()  # raises for what is not UTF-8
    check_shape(content)
    columns = next(csv.reader([content.split(b"\n", 1)[0].decode()]))
    spec = spec_of(stem, columns)
    types = {name: spec.columns[name].type if name in spec.columns else "text" for name in columns}
    missing = spec.missing(columns)
    if content.count(b"\n") == 1:  # an empty table of version 0.1.0 may have few columns
        empty = {name: pd.Series(dtype=EMPTY[types.get(name) or spec.columns[name].type]) for name in columns + missing}
        return pd.DataFrame(empty)
    if missing:
        raise ValueError(f"it has no column '{missing[0]}'")
    rows = pd.read_csv(
        io.BytesIO(content.replace(b"\0", NUL.encode())),
        dtype={name: str for name, kind in types.items() if kind in ("text", "bool")},
        keep_default_na=False,
        na_values={name: [""] for name, kind in types.items() if kind in ("int", "float")},
        float_precision="round_trip",
    )
    for name, read in rows.dtypes.items():
        kind = types[name]
        if kind == "int" and read != np.int64:
            rows[name] = whole(rows[name])
        elif kind == "float" and read != np.float64:
            rows[name] = pd.to_numeric(rows[name]).astype("float64")
        elif kind == "bool":
            rows[name] = truth(rows[name])
        elif kind == "text" and b"\0" in content:
            rows[name] = rows[name].str.replace(NUL, "\0")
    return rows


def check_shape(content: bytes) -> None:
    """Raise ValueError where a row has more or fewer fields than the header, which pandas would shift or fill."""
    if not content.strip():
        raise ValueError("it is empty")
    if not content.endswith(b"\n"):
        raise ValueError("its last row is cut off")
    text = np.frombuffer(content, np.uint8)
    commas, ends, quotes = (np.flatnonzero(text == ord(mark)) for mark in ',\n"')
    if len(quotes):  # outside of quotes an even number of them came before; a doubled one goes out and in again
        commas, ends = (marks[np.searchsorted(quotes, marks) % 2 == 0] for marks in (commas, ends))
    fields = np.diff(np.searchsorted(commas, ends), prepend=0) + 1
    if len(quotes) % 2:
        raise ValueError("a quote is never closed")
    if len(wrong := np.flatnonzero(fields != fields[0])):
        raise ValueError(f"row {wrong[0]} has {fields[wrong[0]]} fields, the header has {fields[0]}")


def whole(values: pd.Series) -> pd.Series:
    """int64, or float64 where some are empty. Raises ValueError for others."""
    numbers = pd.to_numeric(values)
    there = numbers.dropna()
    if len(broken := there[there % 1 != 0]):
        raise ValueError(f"its column '{values.name}' has {broken.iloc[0]}, no whole number")
    return numbers.astype("int64") if len(there) == len(numbers) else numbers.astype("float64")


def truth(values: pd.Series) -> pd.Series:
    """bool, or object with None where some are empty. Raises ValueError for others."""
    said = {"True": True, "False": False, "": None}
    if strange := set(values) - set(said):
        raise ValueError(f"its column '{values.name}' has '{min(strange)}', neither True nor False")
    found = values.map(said)
    return found.astype(bool) if (values != "").all() else found.astype(object).where(values != "", None)


# ------------------------------------------------------------------------------------------------ the reference


def markdown() -> str:
    """The contract as a page of Markdown: a section for every table."""
    parts = ["# Tables", "", "What every file `tables/NAME.csv` of a results folder holds."]
    for spec in contract().values():
        writers = ", ".join(f"`induction {command}`" for command in spec.commands)
        parts += ["", f"## {spec.name}", "", f"{spec.meaning[0].upper()}{spec.meaning[1:]}. Written by {writers}; "]
        parts[-1] += f"a row for each {', '.join(f'`{name}`' for name in spec.key)}."
        parts += ["", "| column | type | unit | meaning |", "|---|---|---|---|"]
        for column in spec.columns.values():
            meaning = column.meaning.replace("|", "\\|") + (" (not in all)" if column.optional else "")
            parts.append(f"| `{column.name}` | {column.type} | {column.unit} | {meaning} |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")

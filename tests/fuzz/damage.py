"""Ways to damage a file, by kind. A rule takes the folder's file, and a generator for what is left to chance."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from safetensors import safe_open
from safetensors.numpy import save

Rule = Callable[[Path, Random], None]
OTHER_VALUES: list[Any] = [None, -1, 0, 10**30, 1.5, "x", "", [], [1], {}, {"a": 1}, True, "\u0000"]

# ------------------------------------------------------------------------------------------------ any file


def empty(path: Path, chance: Random) -> None:
    path.write_bytes(b"")


def missing(path: Path, chance: Random) -> None:
    path.unlink()


def truncated(path: Path, chance: Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content) or 1)])


def last_byte_gone(path: Path, chance: Random) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def one_bit(path: Path, chance: Random) -> None:
    content = bytearray(path.read_bytes() or b"x")
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def noise(path: Path, chance: Random) -> None:
    path.write_bytes(chance.randbytes(500))


def zeros(path: Path, chance: Random) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


def not_utf8(path: Path, chance: Random) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + b"\xff\xfe\xe9" + content[middle:])


def utf16(path: Path, chance: Random) -> None:
    path.write_bytes(path.read_bytes().decode(errors="replace").encode("utf-16"))


def a_folder(path: Path, chance: Random) -> None:
    path.unlink()
    path.mkdir()


def a_broken_link(path: Path, chance: Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def twice(path: Path, chance: Random) -> None:
    path.write_bytes(path.read_bytes() * 2)


ANY: list[Rule] = [empty, missing, truncated, last_byte_gone, one_bit, noise, zeros, a_folder, a_broken_link, twice]
TEXT: list[Rule] = [*ANY, not_utf8, utf16]

# ------------------------------------------------------------------------------------------------ JSON and YAML


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML


def dump(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value) if path.suffix == ".yaml" else json.dumps(value), encoding="utf-8")


def another_value(path: Path, chance: Random) -> None:
    dump(path, chance.choice(OTHER_VALUES))


def another_value_inside(path: Path, chance: Random) -> None:
    value = load(path)
    container, key = chance.choice(places(value))
    container[key] = chance.choice(OTHER_VALUES)
    dump(path, value)


def key_gone(path: Path, chance: Random) -> None:
    value = load(path)
    container, key = chance.choice(places(value))
    del container[key]
    dump(path, value)


def key_too_many(path: Path, chance: Random) -> None:
    value = load(path)
    chance.choice([c for c, _ in places(value) if isinstance(c, dict)])["unheard_of"] = 1
    dump(path, value)


def tab(path: Path, chance: Random) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace("\n", "\n\t", 1), encoding="utf-8")


def key_twice(path: Path, chance: Random) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "seed: 1\nseed: 2\n", encoding="utf-8")


def tag(path: Path, chance: Random) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "tagged: !!python/name:os.system\n", encoding="utf-8")


def interpolation(path: Path, chance: Random) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "other: ${nowhere}\n", encoding="utf-8")


JSON: list[Rule] = [*TEXT, another_value, another_value_inside, another_value_inside, key_gone, key_too_many]
YAML: list[Rule] = [*JSON, tab, key_twice, tag, interpolation]

# ------------------------------------------------------------------------------------------------ tables


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def header_only(path: Path, chance: Random) -> None:
    write_rows(path, rows_of(path)[:1])


def column_gone(path: Path, chance: Random) -> None:
    rows = rows_of(path)
    gone = chance.randrange(len(rows[0]))
    write_rows(path, [row[:gone] + row[gone + 1 :] for row in rows])


def column_renamed(path: Path, chance: Random) -> None:
    rows = rows_of(path)
    rows[0][chance.randrange(len(rows[0]))] = "unheard_of"
    write_rows(path, rows)


def row_gone(path: Path, chance: Random) -> None:
    rows = rows_of(path)
    del rows[chance.randrange(1, len(rows)) if len(rows) > 1 else 0]
    write_rows(path, rows)


def ragged(path: Path, chance: Random) -> None:
    rows = rows_of(path)
    chance.choice(rows).extend(["1", "2"])
    write_rows(path, rows)


def another_cell(path: Path, chance: Random) -> None:
    rows = rows_of(path)
    row = chance.choice(rows[1:] or rows)
    row[chance.randrange(len(row))] = chance.choice(["x", "nan", "inf", "", "-1", "1e400", "0.5", '"', "9" * 40])
    write_rows(path, rows)


TABLE: list[Rule] = [*TEXT, header_only, column_gone, column_renamed, row_gone, ragged, another_cell, another_cell]

# ------------------------------------------------------------------------------------------------ weights


def change_tensors(path: Path, change: Callable[[dict[str, Any], dict[str, str]], object]) -> None:
    with safe_open(path, "numpy") as file:
        tensors, notes = {name: file.get_tensor(name).copy() for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    change(tensors, notes)
    path.write_bytes(save(tensors, notes))


def tensor_gone(path: Path, chance: Random) -> None:
    change_tensors(path, lambda tensors, notes: tensors.pop(chance.choice(sorted(tensors))))


def another_shape(path: Path, chance: Random) -> None:
    def change(tensors: dict[str, Any], notes: dict[str, str]) -> None:
        name = chance.choice(sorted(tensors))
        tensors[name] = np.zeros((2, 3), np.float32)

    change_tensors(path, change)


def another_type(path: Path, chance: Random) -> None:
    def change(tensors: dict[str, Any], notes: dict[str, str]) -> None:
        name = chance.choice(sorted(tensors))
        tensors[name] = tensors[name].astype(np.int16)

    change_tensors(path, change)


def not_a_number(path: Path, chance: Random) -> None:
    def change(tensors: dict[str, Any], notes: dict[str, str]) -> None:
        name = chance.choice([name for name in sorted(tensors) if tensors[name].dtype == np.float32])
        tensors[name] = np.full_like(tensors[name], np.nan)

    change_tensors(path, change)


def no_notes(path: Path, chance: Random) -> None:
    change_tensors(path, lambda tensors, notes: notes.clear())


def another_note(path: Path, chance: Random) -> None:
    def change(tensors: dict[str, Any], notes: dict[str, str]) -> None:
        notes[chance.choice(sorted(notes) or ["step"])] = chance.choice(["x", "", "-1", "[]", "1e9", "null"])

    change_tensors(path, change)


def another_step(path: Path, chance: Random) -> None:
    path.rename(path.with_name(f"step_{chance.choice(['x', '', '-00001', '000001', '9' * 30])}.safetensors"))


WEIGHTS: list[Rule] = [*ANY, tensor_gone, another_shape, another_type, not_a_number, no_notes, another_note]
SNAPSHOT: list[Rule] = [*WEIGHTS, another_step]

# ------------------------------------------------------------------------------------------------ text to train on


def odd_line(path: Path, chance: Random) -> None:
    """A line of jsonl that holds something else."""
    lines = path.read_text(encoding="utf-8").splitlines()
    odd = ['{"text": null}', '{"text": 3}', '{"text": ["a"]}', "[]", "null", '{"other": "x"}', "{", "\ufeff", '"x"']
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(odd))
    path.write_text("\n".join(lines), encoding="utf-8")


def half_compressed(path: Path, chance: Random) -> None:
    whole = gzip.compress(path.read_bytes())
    path.write_bytes(whole[: len(whole) // 2])


def compressed_twice(path: Path, chance: Random) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def an_array(path: Path, chance: Random) -> None:
    buffer = io.BytesIO()
    np.save(buffer, chance.choice([np.zeros(0, np.uint16), np.full(500, 65_535, np.uint16), np.zeros((3, 4))]))
    path.write_bytes(buffer.getvalue())


CORPUS: list[Rule] = [*TEXT, half_compressed, compressed_twice]
JSONL: list[Rule] = [*CORPUS, odd_line, odd_line, odd_line]
ARRAY: list[Rule] = [*ANY, an_array]

RULES: dict[str, Rule] = {rule.__name__: rule for rule in [*YAML, *TABLE, *SNAPSHOT, *JSONL, *ARRAY]}


def apply(folder: Path, name: str, rule: str, seed: int) -> None:
    """Damage the file of this name. One that an earlier rule took away, or made unreadable, stays as it is."""
    with suppress(Exception):
        RULES[rule](folder / name, Random(seed))

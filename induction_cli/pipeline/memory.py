"""The memory of a pipeline: steps.json, and what finished steps left in their folders.

steps.json is rewritten whole after every change, so kill -9 at any instant loses the steps under way and no more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from induction_cli.pipeline.steps import Step, keys_of
from induction_cli.runs.files import Damaged, read_json, write_json

KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}
REMEDY = "delete it, and its steps are done again"
OWN = {".hydra", "tables", "plots", "snapshots", "resume"}  # folders of a step; any other one in it is another step's


@dataclass
class Record:
    """A row of steps.json. status: waiting | running | done | failed | skipped."""

    name: str
    line: int
    command: str
    folder: str
    key: str = ""
    status: str = "waiting"
    seconds: float = 0.0
    error: str = ""


def steps_file(root: Path) -> Path:
    return root / "steps.json"


def read_records(root: Path) -> dict[str, Record]:
    """By name; empty where nothing was started. Raises RunError for a damaged file."""
    try:
        records = [Record(**row) for row in read_json(steps_file(root), REMEDY)]
    except FileNotFoundError:
        return {}
    except TypeError as error:
        raise Damaged(steps_file(root), error, REMEDY) from error
    for record in records:
        for part in fields(Record):
            if not isinstance(getattr(record, part.name), KINDS[str(part.type)]):
                raise Damaged(steps_file(root), f"the {part.name} of a step is no {part.type}", REMEDY)
    return {record.name: record for record in records}


def write_records(root: Path, records: Mapping[str, Record]) -> None:
    write_json(steps_file(root), [asdict(record) for record in records.values()])


def pipelines_in(parent: Path) -> list[Path]:
    """Folders of pipelines, the newest first."""
    return sorted((path.parent for path in parent.glob("*/steps.json")), reverse=True)


def folder_of_same(steps: Sequence[Step], parent: Path) -> Path | None:
    """The newest folder whose steps are these, finished or not."""
    keys = keys_of(steps)
    wanted = {step.name: keys[step.name] for step in steps if not step.after}  # those others depend on what was there
    for folder in pipelines_in(parent):
        there = read_records(folder)
        if there.keys() == keys.keys() and all(there[name].key == key for name, key in wanted.items()):
            return folder
    return None


def done_elsewhere(folders: Iterable[Path]) -> dict[str, Path]:
    """Folders of finished steps of other pipelines, by key."""
    return {
        record.key: folder / record.folder
        for folder in folders
        for record in read_records(folder).values()
        if record.status == "done" and (folder / record.folder).is_dir()
    }


def own_files(folder: Path) -> list[Path]:
    """What a step wrote into its folder, without the rooms of other steps in it; meta.json, which says 'done', last."""
    if not folder.is_dir():
        return []
    mine = [path for path in folder.iterdir() if (path.name in OWN if path.is_dir() else path.name[0] != ".")]
    return sorted(mine, key=lambda path: (path.name == "meta.json", path.name))


def link(source: str, target: str) -> None:
    """A hard link: files are replaced whole, never written into. Logs are, so they are copied."""
    try:
        if source.endswith(".log"):
            raise OSError
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


def take_over(source: Path, target: Path) -> bool:
    """Put the results of a finished step where this pipeline wants them; nothing if there are some already."""
    if own_files(target) or not own_files(source):
        return False
    target.mkdir(parents=True, exist_ok=True)
    for path in own_files(source):
        part = target / f".{path.name}.part"
        if part.is_dir():  # of an attempt that was killed
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
        if path.is_dir():
            shutil.copytree(path, part, copy_function=link)
        else:
            link(str(path), str(part))
        os.replace(part, target / path.name)
    return True


def clear(folder: Path) -> None:
    """Remove what a step wrote, when it is to be done differently."""
    for path in reversed(own_files(folder)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def carried(records: Mapping[str, Record], before: Mapping[str, Record]) -> dict[str, Record]:
    """What to remember: of a step that was not looked at yet, what was known before."""
    untouched = {name for name, record in records.items() if record.status == "waiting" and not record.error}
    return {name: before[name] if name in untouched & before.keys() else record for name, record in records.items()}

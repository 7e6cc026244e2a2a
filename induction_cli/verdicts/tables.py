"""Where verdicts find their tables: the paths given, and the folders in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from induction_cli.runs.run_dir import RunDir

Paths = Sequence[Path]  # runs, folders of runs, rooms of an analysis


def folders_in(paths: Paths) -> list[Path]:
    """The paths and the folders directly in them, in order, each once."""
    found: dict[Path, Path] = {}
    for path in filter(Path.is_dir, paths):
        for folder in (path, *sorted(inside for inside in path.iterdir() if inside.is_dir())):
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def runs_in(paths: Paths) -> list[RunDir]:
    """The training runs among them."""
    return [run for run in map(RunDir, folders_in(paths)) if run.is_run()]


def rooms_in(paths: Paths, command: str, table: str) -> list[RunDir]:
    """The rooms of an analysis that hold a table: of the paths and of the folders in them."""
    rooms = [RunDir(folder / command) for folder in folders_in(paths)]
    return [room for room in rooms if room.table_file(table).exists()]

"""Where verdicts find their tables: the paths given, and the folders in them; and what class of model a run is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from induction_cli.config import ModelConfig
from induction_cli.runs.run_dir import RunDir

Paths = Sequence[Path]  # runs, folders of runs, rooms of an analysis


class Whole(list[Path]):
    """Paths but for the folders in which a table is damaged: those, resolved, are in none of the lists below."""

    def __init__(self, paths: Paths, damaged: Iterable[Path]):
        super().__init__(paths)
        self.damaged = set(damaged)


def is_whole(paths: Paths, folder: Path) -> bool:
    return not isinstance(paths, Whole) or folder.resolve() not in paths.damaged


def damaged_in(paths: Paths, commands: Iterable[str]) -> dict[Path, list[str]]:
    """What is wrong with the tables of the folders in the paths and of the rooms in those, {folder, resolved: lines}.

    A run is damaged where one of its rooms is.
    """
    found: dict[Path, list[str]] = {}
    for folder in folders_in(paths):
        for room in (folder, *(folder / command for command in commands)):
            if problems := list(RunDir(room).damaged_tables().values()):
                found[room.resolve()] = problems
                if RunDir(folder).is_run():
                    found.setdefault(folder.resolve(), [])
    return found


def folders_in(paths: Paths) -> list[Path]:
    """The paths and the folders directly in them, in order, each once."""
    found: dict[Path, Path] = {}
    for path in filter(Path.is_dir, paths):
        for folder in (path, *sorted(inside for inside in path.iterdir() if inside.is_dir())):
            if is_whole(paths, folder):
                found.setdefault(folder.resolve(), folder)
    return list(found.values())


def runs_in(paths: Paths) -> list[RunDir]:
    """The training runs among them."""
    return [run for run in map(RunDir, folders_in(paths)) if run.is_run()]


def rooms_in(paths: Paths, command: str, table: str) -> list[RunDir]:
    """The rooms of an analysis that hold a table: of the paths and of the folders in them."""
    rooms = [RunDir(folder / command) for folder in folders_in(paths)]
    return [room for room in rooms if room.table_file(table).exists() and is_whole(paths, room.path)]


def class_of(model: ModelConfig) -> str:
    """'1 layer', '2 layers', '3 layers, MLPs': what gets a row of its own. Smeared keys are no class but an arm."""
    layers = "1 layer" if model.n_layers == 1 else f"{model.n_layers} layers"
    return f"{layers}, MLPs" if model.d_mlp > 0 else layers

"""What lies in the folders given to the page: training runs, rooms of analyses, steps of a pipeline. Reads only."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from induction_cli.config import ConfigError, TrainConfig
from induction_cli.pipeline.memory import steps_file
from induction_cli.runs.files import read_json, read_text, read_yaml
from induction_cli.runs.run_dir import RunDir, RunError
from induction_cli.terminal import plural
from induction_cli.verdicts.tables import folders_in

COMMANDS = (
    "score", "pertoken_pca", "smear", "ablate", "generalize", "circuits", "compare", "classify", "recall",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A training run. config is None, and problem says why, where its files cannot be read."""

    dir: RunDir
    config: TrainConfig | None
    meta: dict
    problem: str = ""

    @property
    def label(self) -> str:
        """'2 layers, seed 0', with what else sets it apart."""
        if self.config is None:
            return self.dir.name
        model = self.config.model
        parts = [plural(model.n_layers, "layer"), f"seed {self.config.seed}"]
        return ", ".join(parts + ["with MLPs"] * (model.d_mlp > 0) + ["smeared keys"] * model.smeared_keys)

    @property
    def kind(self) -> tuple[bool, bool, int]:
        """What makes two runs the same model but for the seed; vanilla and attention-only ones sort first."""
        assert self.config is not None
        return self.config.model.d_mlp > 0, self.config.model.smeared_keys, self.config.model.n_layers


@dataclass(frozen=True)
class Room:
    """The tables and plots of one command; run is None where it is about several runs, or none."""

    command: str
    dir: RunDir
    run: Run | None = None
    line: int = 0  # the line of evidence it was made for, where a pipeline says so
    one_of_many: bool = False  # a job of a sweep

    @property
    def plots(self) -> dict[str, Path]:
        """SVG files by stem."""
        return {path.stem: path for path in sorted((self.dir.path / "plots").glob("*.svg"))}

    @property
    def pages(self) -> list[Path]:
        """Pages that the command made by itself."""
        return sorted(self.dir.path.glob("*.html"))

    def damaged(self) -> list[str]:
        """Tables that are empty, that break off, or that do not keep their contract."""
        problems = []
        for path in sorted((self.dir.path / "tables").glob("*.csv")):
            try:
                text = path.read_bytes()
                text.decode()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{path.name} cannot be read: {error}")
                continue
            if not text.strip():
                problems.append(f"{path.name} is empty")
            elif not text.endswith(b"\n") or b"\0" in text:
                problems.append(f"{path.name} breaks off")
            elif said := self.dir.damaged_tables([path.stem]):
                problems.append(said[path.stem].removeprefix(f"{path.parent}/"))
        return problems


@dataclass
class Found:
    """typed: the commands that a pipeline ran, by the folders they filled."""

    runs: list[Run] = field(default_factory=list)
    rooms: list[Room] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)
    typed: dict[Path, str] = field(default_factory=dict)

    def of(self, line: int, commands: Sequence[str]) -> list[Room]:
        """The rooms of a line of evidence: made for it, or by one of its commands."""
        mine = [room for room in self.rooms if room.line == line or (not room.line and room.command in commands)]
        place = {command: i for i, command in enumerate(commands)}
        return sorted(mine, key=lambda room: place.get(room.command, len(place)))


def read_steps(path: Path) -> list[dict]:
    """What `induction reproduce` did, or nothing."""
    try:
        steps = read_json(steps_file(path), "delete it")
        return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    except (OSError, RunError):
        return []


def with_steps(paths: Sequence[Path]) -> list[Path]:
    """The paths, and behind each the folders in which its steps put their runs: `train` for a step's `train/one`."""
    folders = {path: [Path(str(step.get("folder") or "")).parts for step in read_steps(path)] for path in paths}
    return list(
        dict.fromkeys(
            folder
            for path in paths
            for folder in (path, *(path / parts[0] for parts in folders[path] if len(parts) == 2))
        )
    )


def read_run(run: RunDir) -> Run:
    problems, meta, config = [], {}, None
    try:
        meta = run.meta()
        config = run.config()
    except (RunError, ConfigError, OSError) as error:
        problems.append(str(error))
    status = meta.get("status", "unknown")
    if status != "done" and not problems:
        problems.append(f"it is not finished: its status is '{status}'")
    return Run(run, config, meta, "; ".join(problems))


def job_name(folder: Path) -> str:
    """The command that Hydra ran in a folder, once or as a sweep, or nothing."""
    for path in (folder / ".hydra" / "hydra.yaml", folder / "multirun.yaml"):
        try:
            return str(read_yaml(path, "delete it")["hydra"]["job"]["name"])
        except (OSError, RunError, KeyError, TypeError):
            continue
    return ""


def command_of(folder: Path) -> str:
    """The command that filled a folder, or nothing. Version 0.1.0 left no meta.json in a results folder."""
    return str(RunDir(folder).kept_meta().get("command", "")) or job_name(folder)


def find(paths: Sequence[Path]) -> Found:
    """Everything in the paths and in the folders directly in them, each once."""
    found, seen = Found(), set()
    made_for: dict[Path, tuple[int, str]] = {}
    for path in dict.fromkeys(path.resolve() for path in paths):
        for step in read_steps(path):
            if str(step.get("name")) == "report":  # which is being made just now
                continue
            folder, typed = (path / str(step.get("folder") or "")).resolve(), str(step.get("command") or "")
            found.steps.append(step)
            found.typed[folder] = typed
            made_for[folder] = int(step.get("line") or 0), [*typed.split(), "", ""][1].replace("-", "_")

    @cache
    def run_at(folder: Path) -> Run | None:
        return read_run(RunDir(folder)) if RunDir(folder).is_run() else None

    for folder in folders_in(with_steps(paths)):
        name = command_of(folder) or made_for.get(folder.resolve(), (0, ""))[1]
        if name in ("", "train") and (run := run_at(folder)):
            found.runs.append(run)
        here = [(name, folder)] if name in COMMANDS else []
        for command, path in [*here, *((command, folder / command) for command in COMMANDS)]:
            filled = any((path / inside).is_dir() for inside in ("tables", "plots"))
            if filled and path.resolve() not in seen:
                seen.add(path.resolve())
                line = made_for.get(path.resolve(), (0, ""))[0]
                swept = (path.parent / "multirun.yaml").exists()
                found.rooms.append(Room(command, RunDir(path), run_at(path.parent), line, swept))
    return found


# ------------------------------------------------------------------------------------------------ how it was made


@dataclass(frozen=True)
class Origin:
    """The command as it was typed, and every setting it ran under (YAML)."""

    command: str
    config: str


def origin(command: str, folder: Path, typed_before: dict[Path, str]) -> Origin | None:
    """From what was kept. A room that a command on a folder of runs made has its origin beside that folder.

    typed_before: `Found.typed`, for what a pipeline ran.
    """
    used = RunDir(folder).kept_meta().get("settings")
    kept = [path for path in (folder, folder.parent.parent / command) if (path / ".hydra" / "config.yaml").exists()]
    if not kept and used is None:
        return None
    place = kept[0] if kept else folder
    try:
        config = place / ".hydra" / "config.yaml"
        settings = yaml.safe_dump(used, sort_keys=False) if used is not None else read_text(config, "delete it")
        overrides = place / ".hydra" / "overrides.yaml"
        typed = read_yaml(overrides, "delete it") if overrides.exists() else []
    except (OSError, RunError):
        return None
    pipeline = typed_before.get(place.resolve())
    typed = typed if isinstance(typed, list) else []
    return Origin(pipeline or as_typed(command, [str(override) for override in typed]), settings)


def as_typed(command: str, overrides: Sequence[str]) -> str:
    """Overrides back into the command line they came from."""
    where: list[str] = []
    options: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("run_dir", "run_dirs"):
            where += [shlex.quote(part.strip("' ")) for part in split_list(value)]
        elif key == f"+{command}":
            options += ["-e", value.strip("'")]
        elif not key.startswith("hydra."):
            options.append(shlex.quote(override))
    return " ".join(["induction", command.replace("_", "-"), *where, *options])


def split_list(value: str) -> list[str]:
    """'[a, 'b,c']' or 'a' as its parts."""
    try:
        parts = yaml.safe_load(value)
    except yaml.YAMLError:
        return [value]
    return [str(part) for part in parts] if isinstance(parts, list) else [str(parts)]

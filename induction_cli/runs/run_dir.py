"""The run directory: the only file that knows file names. README.md draws it.

Every write is atomic; nothing is ever unpickled; paths inside files are relative.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import pandas as pd
import torch
import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tokenizers import Tokenizer
from torch import Tensor

from induction_cli.config import BEFORE_0_2, ConfigError, TrainConfig
from induction_cli.runs.files import (
    Damaged,
    check_plain,
    read_json,
    read_text,
    said_plainly,
    write_atomic,
    write_json,
    yaml_fault,
)
from induction_cli.runs.files import RunError as RunError  # whoever reads a run finds its error here
from induction_cli.runs.tables import Table, read_table, write_table
from induction_cli.runs.tensors import check_finite, read_notes, read_tensors, whole_note, write_tensors

Config = TypeVar("Config")
LEAVE_OUT = "delete it to go on without it, or train this run anew"
RESTART = "delete it, and --resume trains again from step 0"
NOTHING = type(None)
META: dict[str, tuple[type, ...]] = {  # what values of meta.json must be, where they are there
    "command": (str, NOTHING),
    "status": (str, NOTHING),
    "headline": (int, float, NOTHING),
    "data": (dict, NOTHING),
    "settings": (dict, NOTHING),
    "made_from": (dict, NOTHING),
}


@dataclass(frozen=True)
class Snapshot:
    step: int
    tokens: int
    path: Path


def read_config(path: Path, schema: type[Config]) -> Config:
    """A stored configuration through its schema: missing keys take defaults, unknown keys are errors, as are values
    outside their limits. Raises RunError for a file that is no YAML, ConfigError for one with other settings."""
    remedy = "put back a copy of it; overrides.yaml beside it has what was typed"
    try:
        return deepcopy(parse_config(read_text(path, remedy), schema))  # type: ignore[arg-type]
    except FileNotFoundError:
        raise RunError(f"{path} is missing, so this is not a run directory") from None
    except (ConfigError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Damaged(path, yaml_fault(error), remedy) from error


@cache  # verdicts ask for the same ones hundreds of times
def parse_config(text: str, schema: type[Config]) -> Config:
    """Errors as those who read the text, and ValueError for a text that is no table of settings."""
    check_plain(text)
    found = OmegaConf.create(text) if text.strip() else None
    if not isinstance(found, DictConfig) or not found:
        raise ValueError("it is empty" if not found else "it is no table of settings")
    config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), found))
    config.check(together=False)  # whoever uses it checks the rest; a run of an earlier version may only be looked at
    return config


@cache
def names_key(text: str, key: str) -> bool:
    """Whether a stored configuration has a dotted key."""
    return OmegaConf.select(OmegaConf.create(text), key) is not None


class RunDir:
    """One run. Attributes are where things are; methods read and write them."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.config_file = self.path / ".hydra" / "config.yaml"
        self.meta_file = self.path / "meta.json"
        self.tokenizer_file = self.path / "tokenizer.json"
        self.snapshot_folder = self.path / "snapshots"
        self.resume_file = self.path / "resume" / "state.safetensors"
        self.kept_file = self.path / "kept.safetensors"

    # -------------------------------------------------------------------------------- finding runs

    @staticmethod
    def find(path: Path | str) -> list[RunDir]:
        """The run at a path, or the runs in a directory of runs. Raises RunError where there is none."""
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"there is no run directory '{path}'")
        folders = [path, *sorted(p for p in path.iterdir() if p.is_dir())]
        runs = [run for run in map(RunDir, folders) if run.is_run()]
        if runs and runs[0].path == path:
            return runs[:1]
        if not runs:
            raise RunError(
                f"'{path}' is not a run directory: it has no meta.json of a run, and no folder in it has one"
            )
        return runs

    def is_run(self) -> bool:
        """Whether a training was begun here. A results folder has a meta.json too, which names its command."""
        try:
            return self.meta_file.exists() and self.meta().get("command", "train") == "train"
        except RunError:  # damaged: whoever reads it will say so
            return True

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run. Raises RunError when another process does; a killed process holds nothing."""
        lock = FileLock(self.path / ".lock")
        try:
            with said_plainly(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"'{self.path}' is in use by another process; wait for it or stop it") from None
        try:
            yield
        finally:
            lock.release()

    # -------------------------------------------------------------------------------- config and meta

    def config(self) -> TrainConfig:
        """Its settings. What was trained before there were settings of the split keeps the one it had."""
        config = read_config(self.config_file, TrainConfig)
        named = config.data.source == "repeats" or names_key(self.config_file.read_text(), "data.held_out")
        if not named and self.kept_meta().get("data"):
            config.data = replace(config.data, **BEFORE_0_2)
        return config

    def write_config(self, config: Any) -> None:
        write_atomic(self.config_file, OmegaConf.to_yaml(OmegaConf.create(asdict(config))).encode())

    def meta(self) -> dict[str, Any]:
        """What is known of the run or the results; nothing where there is no such file. Raises RunError."""
        remedy = "write {} into it, and the command that made it, for a run --resume, fills it again"
        try:
            meta = read_json(self.meta_file, remedy)
        except FileNotFoundError:
            return {}
        if not isinstance(meta, dict):
            raise Damaged(self.meta_file, f"it holds {json.dumps(meta)[:40]}, not names and values", remedy)
        for name, kinds in META.items():
            if not isinstance(meta.get(name), kinds):
                raise Damaged(self.meta_file, f"its {name} is {json.dumps(meta[name])[:40]}", remedy)
        return meta

    def write_meta(self, **changes: Any) -> None:
        write_json(self.meta_file, {**self.meta(), **changes})

    def kept_meta(self) -> dict[str, Any]:
        """That of a results folder; nothing where there is none, or a damaged one."""
        try:
            return self.meta()
        except RunError:
            return {}

    def settings(self, schema: type[Config]) -> Config:
        """Those under which a results folder was made. Version 0.1.0 kept them in .hydra alone."""
        kept = self.kept_meta().get("settings")
        if kept is None:
            return read_config(self.config_file, schema)
        return deepcopy(parse_config(json.dumps(kept), schema))  # type: ignore[arg-type]

    def replace_meta(self, meta: dict[str, Any]) -> None:
        """All of it, unlike `write_meta`."""
        write_json(self.meta_file, meta)

    # -------------------------------------------------------------------------------- snapshots

    def snapshots(self) -> list[Snapshot]:
        """In order of step; empty where there are none."""
        found: dict[int, Snapshot] = {}
        for path in sorted(self.snapshot_folder.glob("step_*.safetensors")):
            notes = read_notes(path, LEAVE_OUT)
            step, tokens = (whole_note(path, notes, name, LEAVE_OUT) for name in ("step", "tokens"))
            if step in found:
                raise Damaged(path, f"it is of step {step}, as {found[step].path.name} is", "delete the wrong one")
            found[step] = Snapshot(step, tokens, path)
        return [found[step] for step in sorted(found)]

    def choose_snapshots(self, which: str) -> list[Snapshot]:
        """'all', 'last' or a step. Raises RunError that names the steps there are."""
        found = self.snapshots()
        if not found:
            raise RunError(f"'{self.path}' has no snapshots yet")
        if which == "all":
            return found
        if which == "last":
            return found[-1:]
        chosen = [snapshot for snapshot in found if str(snapshot.step) == str(which)]
        if not chosen:
            steps = ", ".join(str(snapshot.step) for snapshot in found)
            raise RunError(f"'{self.path}' has no snapshot '{which}'; there are all, last and the steps {steps}")
        return chosen

    def write_snapshot(self, weights: dict[str, Tensor], step: int, tokens: int) -> None:
        path = self.snapshot_folder / f"step_{step:06d}.safetensors"
        weights = {name: weight.float() for name, weight in weights.items()}
        write_tensors(path, weights, {"step": str(step), "tokens": str(tokens)})

    def read_snapshot(self, snapshot: Snapshot) -> dict[str, Tensor]:
        """Its weights. Raises RunError naming a damaged one, and one whose weights are no numbers."""
        weights = read_tensors(snapshot.path, LEAVE_OUT)
        check_finite(snapshot.path, weights, LEAVE_OUT)
        return weights

    def snapshot_hashes(self) -> list[str]:
        """The checksums that the snapshots carry, in order of step; weights are not read."""
        return [read_notes(snapshot.path).get("sha256", "") for snapshot in self.snapshots()]

    def snapshots_hash(self) -> str:
        """sha256 over the checksums of all snapshots, in order of step."""
        return hashlib.sha256(" ".join(self.snapshot_hashes()).encode()).hexdigest()

    def forget_snapshots_after(self, step: int) -> None:
        """Those of a future that a resumed run will make again."""
        for path in self.snapshot_folder.glob("step_*.safetensors"):
            number = path.stem.removeprefix("step_")
            if not number.isdecimal() or int(number) > step:
                path.unlink()

    # -------------------------------------------------------------------------------- tables, plots, pages

    def folder(self, command: str = "") -> RunDir:
        """The room of an analysis inside the run: same shape, own tables and plots."""
        return RunDir(self.path / command) if command else self

    def table_file(self, name: str) -> Path:
        return self.path / "tables" / f"{name}.csv"

    def table_names(self) -> list[str]:
        return sorted(path.stem for path in (self.path / "tables").glob("*.csv"))

    def tables_hash(self) -> str:
        """sha256 over the names and bytes of all tables."""
        digest = hashlib.sha256()
        for name in self.table_names():
            digest.update(f"{name} {hashlib.sha256(self.table_file(name).read_bytes()).hexdigest()}\n".encode())
        return digest.hexdigest()

    def growing_table(self, name: str, before_step: int | None = None) -> Table:
        return Table(self.table_file(name), before_step)

    def table(self, name: str) -> pd.DataFrame:
        """A table, its columns of the types that tables.yaml says. Raises RunError naming one that is damaged."""
        return read_table(self.table_file(name))

    def damaged_tables(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """{table: what is wrong with it, and what to do} of those there are, or of the ones named."""
        found = {}
        for name in self.table_names() if names is None else names:
            try:
                if self.table_file(name).exists():
                    self.table(name)
            except RunError as error:
                found[name] = str(error)
            except ValueError:  # a table that is none of ours
                continue
        return found

    def write_table(self, name: str, rows: pd.DataFrame) -> Path:
        write_table(self.table_file(name), rows)
        return self.table_file(name)

    def write_plot(self, name: str, figure: Any) -> Path:
        """PNG for the eye, SVG for the page and the paper: its words are text, and it is called by its headline."""
        path = self.path / "plots" / f"{name}.png"
        for kind in ("svg", "png"):
            write_atomic(path.with_suffix(f".{kind}"), draw(figure, name, kind))
        return path

    def write_page(self, name: str, html: str) -> Path:
        write_atomic(self.path / f"{name}.html", html.encode())
        return self.path / f"{name}.html"

    def write_tokenizer(self, tokenizer_json: str) -> None:
        write_atomic(self.tokenizer_file, tokenizer_json.encode())

    def tokenizer(self) -> Tokenizer | None:
        """That of the run's text; None where there is none. Raises RunError naming a damaged one."""
        remedy = "take it from another run on the same text, or --resume the training, which writes it again"
        try:
            return Tokenizer.from_str(read_text(self.tokenizer_file, remedy, at_most=10**9))
        except FileNotFoundError:
            return None
        except RunError:
            raise
        except Exception as error:  # tokenizers raises Exception itself
            raise Damaged(self.tokenizer_file, error, remedy) from error

    def token_counts(self) -> Tensor:
        """How often each token occurs in the training text, [d_vocab]."""
        return torch.tensor(self.table("token_counts")["count"].to_numpy())

    # -------------------------------------------------------------------------------- what is slow to compute again

    def write_kept(self, tensors: dict[str, Tensor], of: str) -> None:
        """Tensors, and what they were computed of."""
        write_tensors(self.kept_file, tensors, {"of": of})

    def read_kept(self, of: str) -> dict[str, Tensor] | None:
        """Those computed of the same; None where there are none, or damaged ones."""
        try:
            return read_tensors(self.kept_file) if read_notes(self.kept_file).get("of") == of else None
        except (RunError, FileNotFoundError):
            return None

    # -------------------------------------------------------------------------------- resuming

    def write_resume(self, tensors: dict[str, Tensor], step: int) -> None:
        write_tensors(self.resume_file, tensors, {"step": str(step)})

    def read_resume(self) -> tuple[dict[str, Tensor], int] | None:
        """(tensors, step), or None where nothing was saved yet."""
        if not self.resume_file.exists():
            return None
        tensors = read_tensors(self.resume_file, RESTART)
        check_finite(self.resume_file, tensors, RESTART)
        return tensors, whole_note(self.resume_file, read_notes(self.resume_file, RESTART), "step", RESTART)


def draw(figure: Any, name: str, kind: str) -> bytes:
    """A figure as a file of a kind ('svg', 'png'), the same bytes every time."""
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        notes = {"Date": None, "Title": figure.get_suptitle()} if kind == "svg" else None
        figure.savefig(drawn, format=kind, dpi=130, metadata=notes)
    return drawn.getvalue()


def relative(path: Path) -> str:
    """A path as a person would type it from here."""
    return os.path.relpath(path)

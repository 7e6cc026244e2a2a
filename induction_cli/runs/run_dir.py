"""The run directory: the only file that knows file names. README.md draws it.

Every write is atomic; nothing is ever unpickled; paths inside files are relative.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import pandas as pd
import torch
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from induction_cli.config import ConfigError, TrainConfig
from induction_cli.runs.files import RunError as RunError  # whoever reads a run finds its error here
from induction_cli.runs.files import said_plainly, write_atomic, write_json
from induction_cli.runs.tables import Table, read_table, write_table

Config = TypeVar("Config")


@dataclass(frozen=True)
class Snapshot:
    step: int
    tokens: int
    path: Path


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """A safetensors file that carries its own checksum beside the notes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with said_plainly():
        # one entry, because safetensors writes several in random order
        write_atomic(path, save(tensors, {"notes": json.dumps({**notes, "sha256": tensor_hash(tensors)})}))


def read_notes(path: Path) -> dict[str, str]:
    """The notes of a tensor file, without its tensors."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get("notes", "{}"))
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged or unreadable: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file whose checksum is right. Raises RunError naming a damaged one."""
    notes = read_notes(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged or unreadable: {error}") from error
    if notes.get("sha256") != tensor_hash(tensors):
        raise RunError(f"{path} is damaged: its checksum does not match; delete it and resume or rerun")
    return tensors


def read_config(path: Path, schema: type[Config]) -> Config:
    """A stored configuration through its schema: missing keys take defaults, unknown keys are errors."""
    if not path.exists():
        raise RunError(f"{path} is missing, so this is not a run directory")
    try:
        return deepcopy(parse_config(path.read_text(), schema))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error


@cache  # verdicts ask for the same ones hundreds of times
def parse_config(text: str, schema: type[Config]) -> Config:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(text)))  # type: ignore


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
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"'{self.path}' is in use by another process; wait for it or stop it") from None
        try:
            yield
        finally:
            lock.release()

    # -------------------------------------------------------------------------------- config and meta

    def config(self) -> TrainConfig:
        return read_config(self.config_file, TrainConfig)

    def write_config(self, config: Any) -> None:
        write_atomic(self.config_file, OmegaConf.to_yaml(OmegaConf.create(asdict(config))).encode())

    def meta(self) -> dict[str, Any]:
        try:
            return json.loads(self.meta_file.read_text())
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError as error:
            raise RunError(f"{self.meta_file} is damaged: {error}") from error

    def write_meta(self, **changes: Any) -> None:
        with said_plainly():
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
        with said_plainly():
            write_json(self.meta_file, meta)

    # -------------------------------------------------------------------------------- snapshots

    def snapshots(self) -> list[Snapshot]:
        """In order of step; empty where there are none."""
        found = []
        for path in sorted(self.snapshot_folder.glob("step_*.safetensors")):
            notes = read_notes(path)
            found.append(Snapshot(int(notes["step"]), int(notes["tokens"]), path))
        return found

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
        """Its weights. Raises RunError naming a damaged one."""
        return read_tensors(snapshot.path)

    def snapshot_hashes(self) -> list[str]:
        """The checksums that the snapshots carry, in order of step; weights are not read."""
        return [read_notes(snapshot.path).get("sha256", "") for snapshot in self.snapshots()]

    def snapshots_hash(self) -> str:
        """sha256 over the checksums of all snapshots, in order of step."""
        return hashlib.sha256(" ".join(self.snapshot_hashes()).encode()).hexdigest()

    def forget_snapshots_after(self, step: int) -> None:
        """Those of a future that a resumed run will make again."""
        for path in self.snapshot_folder.glob("step_*.safetensors"):
            if int(path.stem.split("_")[1]) > step:
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

    def write_table(self, name: str, rows: pd.DataFrame) -> Path:
        write_table(self.table_file(name), rows)
        return self.table_file(name)

    def write_plot(self, name: str, figure: Any) -> Path:
        """PNG for the eye, SVG for the page and the paper: its words are text, and it is called by its headline."""
        path = self.path / "plots" / f"{name}.png"
        for kind in ("svg", "png"):
            drawn = io.BytesIO()
            with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):  # the same bytes every time
                notes = {"Date": None, "Title": figure.get_suptitle()} if kind == "svg" else None
                figure.savefig(drawn, format=kind, dpi=130, metadata=notes)
            with said_plainly():
                write_atomic(path.with_suffix(f".{kind}"), drawn.getvalue())
        return path

    def write_page(self, name: str, html: str) -> Path:
        with said_plainly():
            write_atomic(self.path / f"{name}.html", html.encode())
        return self.path / f"{name}.html"

    def write_tokenizer(self, tokenizer_json: str) -> None:
        write_atomic(self.tokenizer_file, tokenizer_json.encode())

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
        return read_tensors(self.resume_file), int(read_notes(self.resume_file)["step"])


def relative(path: Path) -> str:
    """A path as a person would type it from here."""
    return os.path.relpath(path)

"""This process: signals that wait until all is saved, and who made what it writes."""

from __future__ import annotations

import ast
import hashlib
import platform
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).resolve().parent.parent
DATA = {".yaml", ".json"}  # read by the code beside them; what a page looks like (.html, .css) changes no number
LIBRARIES = ("induction", "torch", "numpy", "tokenizers")


# ------------------------------------------------------------------------------------------------ signals


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; the run is saved. `signal` is its number."""

    def __init__(self, signal_number: int):
        super().__init__(f"signal {signal_number}")
        self.signal = signal_number


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted in the list instead of striking; a second one strikes. Main thread only."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, _frame: object) -> None:
        if noted:
            raise Interrupted(number)
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------------------ who made it


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@cache
def git_sha() -> str:
    """The commit of the checkout that this package is; '' where it is installed, or git is not.

    A repository that merely holds the environment the package is installed in is not asked.
    """
    asked = ["git", "-C", str(PACKAGE), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
    except OSError:
        return ""
    return said[1] if len(said) == 2 and Path(said[0]).resolve() == PACKAGE.parent else ""


@cache
def imported_by(path: Path) -> frozenset[str]:
    """Names of modules in the import statements of a file, wherever in it they stand; `from a import b`: a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def module_file(name: str) -> Path | None:
    """The file of a module of ours; None of any other, and of the package itself, which is a door for others only."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return found[0] if found and path.is_relative_to(PACKAGE) and path != PACKAGE else None


def sources_of(room: str) -> set[Path]:
    """The code that computes what a room does: its module, all of ours that it imports, directly or not, and data files
    beside them. Of a room that is not of this package too."""
    start = module_file(room)
    if start is None:
        spec = find_spec(room)
        if spec is None or spec.origin is None:
            return set()  # to import it will say that it is not there
        start = Path(spec.origin)
    found, open_files = {start}, [start]
    while open_files:
        names = imported_by(open_files.pop())
        names |= {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 1)}
        new = {file for file in map(module_file, names) if file and file not in found}
        found |= new
        open_files += new
    folders = {file.parent for file in found if file.is_relative_to(PACKAGE)}
    return found | {file for folder in folders for file in folder.iterdir() if file.suffix in DATA}


@cache
def sources_hash(room: str) -> str:
    """sha256 over names and contents of the sources of a room, as they were when this process first asked: the same in
    a checkout and in a wheel. A page that changes, say, leaves that of training as it was."""
    digest = hashlib.sha256()
    for path in sorted(sources_of(room)):
        name = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def provenance(room: str, device: str) -> dict[str, Any]:
    """What made a result, to be stored beside it. room: the module that did; device: as torch writes it."""
    return {
        "version": version_of("induction"),
        "sources_sha256": sources_hash(room),
        "git_sha": git_sha(),
        "versions": {name: version_of(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": device,
        "threads": torch.get_num_threads(),
    }

"""Steps that need each other: run side by side in processes of their own, remembered, gone on with after anything.

steps.json is the memory: rewritten whole after every change, so kill -9 at any instant loses the steps under way and
no more, and of those that train only what came after their last save. A step is known by its key, a hash of what it
does and of the keys of the steps it needs; what is done under a key is not done again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import connection
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from induction_cli import training
from induction_cli.config import ConfigError
from induction_cli.runs.files import write_json
from induction_cli.runs.process import Interrupted, deferred_signals, version_of
from induction_cli.runs.run_dir import RunDir, RunError
from induction_cli.terminal import clock, say

TRAINING = training.__name__

# where and how something is computed, not what
PLACES = {"device", "threads", "workers", "compile", "cache_dir", "run_dir", "run_dirs", "vanilla", "reuse", "fresh"}
OWN = {".hydra", "tables", "plots", "snapshots", "resume"}  # folders of a step; any other one in it is another step's
SETTLED = ("done", "failed", "skipped")
PATIENCE = 60  # seconds a worker has to save itself


@dataclass(frozen=True)
class Step:
    """What to do, and where its results go. `needs` and `after` name earlier steps."""

    name: str
    line: int  # of evidence, 1 to 6; 0: of none
    room: str  # the module whose run(config, out_dir) does it
    config: Any
    folder: str  # relative to the pipeline's; of its own, or inside that of a step it needs
    command: str = ""  # what a person would type for the same numbers
    needs: tuple[str, ...] = ()  # where one of these is not done, this one is skipped
    after: tuple[str, ...] = ()  # waited for, whatever becomes of them
    inputs: str = ""  # what else decides the result: the hash of the text
    weight: float = 1.0  # expected seconds on one core; only proportions matter
    always: bool = False  # done again at every start
    missing: str = ""  # why it cannot be done here, and what to install


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


# ------------------------------------------------------------------------------------------------ keys


def without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_places(part) for name, part in value.items() if name not in PLACES}
    return value


def same_settings(one: Any, other: Any) -> bool:
    """Whether two configurations ask for the same, wherever it is computed."""
    return without_places(asdict(one)) == without_places(asdict(other))


def key_of(step: Step, needed: Iterable[str], made_by: str | None = None) -> str:
    """sha256 of the room, its settings, its inputs, the package's version and the keys of the steps it needs."""
    settings = asdict(step.config)
    what = [
        step.room,
        without_places(settings),
        step.inputs,
        made_by or version_of("induction"),
        sorted(needed),
    ]
    if not (step.needs or step.after) and "run_dir" in settings:  # a model by its name
        what.append(settings["run_dir"])
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def keys_of(steps: Sequence[Step]) -> dict[str, str]:
    """The key of every step, were all of them done."""
    keys: dict[str, str] = {}
    for step in steps:
        keys[step.name] = key_of(step, [keys[name] for name in (*step.needs, *step.after)])
    return keys


# ------------------------------------------------------------------------------------------------ memory


def steps_file(root: Path) -> Path:
    return root / "steps.json"


def read_records(root: Path) -> dict[str, Record]:
    """By name; empty where nothing was started. Raises RunError for a damaged file."""
    try:
        records = [Record(**row) for row in json.loads(steps_file(root).read_text())]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{steps_file(root)} is damaged: {error}; delete it, and steps are done again") from error
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


# ------------------------------------------------------------------------------------------------ one step


def do(step: Step, root: Path) -> float:
    """Run a step's room here; training goes on where it was."""
    out_dir = root / step.folder
    if step.room == TRAINING:
        return training.run(step.config, out_dir, resume=bool(RunDir(out_dir).meta()))
    if out_dir != root:
        RunDir(out_dir).write_config(step.config)
    return import_module(step.room).run(step.config, out_dir)


def log_file(root: Path, step: Step) -> Path:
    return root / "logs" / f"{step.name.replace(' ', '_').replace('/', '_')}.log"


def end_with_parent() -> None:
    """Should the parent be killed, ask this process to save itself and end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)


def one_line(error: BaseException) -> str:
    said = str(error) if isinstance(error, ConfigError | RunError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())


def work(step: Step, root: Path, environ: dict[str, str], answer: connection.Connection) -> None:
    """A worker's whole life: one step, everything it says into its log, one word back."""
    os.environ.update(environ)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in the terminal is for the parent, which then asks
    threading.Thread(target=end_with_parent, daemon=True).start()
    log = log_file(root, step)
    with log.open("a", encoding="utf-8") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
        try:
            with FileLock(
                log.with_suffix(".lock"), timeout=2 * PATIENCE
            ):  # the worker of a killed parent may still save
                do(step, root)
            answer.send(("done", ""))
        except KeyboardInterrupt:
            answer.send(("waiting", "interrupted"))
        except BaseException as error:
            traceback.print_exc()
            answer.send(("failed", one_line(error)))
        finally:
            sys.stdout.flush()


@dataclass
class Worker:
    """A step under way in a process of its own."""

    step: Step
    process: Any
    answer: connection.Connection
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def outcome(self) -> tuple[str, str]:
        """(status, error) of a process that has ended."""
        self.process.join()
        try:
            if self.answer.poll():
                return self.answer.recv()
        except (EOFError, OSError):
            pass
        code = self.process.exitcode
        cause = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return "failed", f"its process {cause}" + "; perhaps memory was short" * (code == -signal.SIGKILL)


def start(step: Step, root: Path) -> Worker:
    # one server imports torch once, and forks; it has computed nothing, so its forks are sound
    fork = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if fork else "spawn")
    if fork:
        context.set_forkserver_preload([TRAINING, "induction_cli.evidence.score"])
    log_file(root, step).parent.mkdir(parents=True, exist_ok=True)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(step, root, dict(os.environ), sender), daemon=True)
    process.start()
    sender.close()
    return Worker(step, process, receiver, time.monotonic())


def stop(workers: Iterable[Worker]) -> None:
    """Ask all to save themselves, and wait until they have."""
    workers = list(workers)
    for worker in workers:
        worker.process.terminate()
    until = time.monotonic() + PATIENCE
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))


# ------------------------------------------------------------------------------------------------ time left


def urgencies(steps: Sequence[Step]) -> dict[str, float]:
    """Expected seconds from the start of a step to the end of the longest chain of steps that wait for it."""
    weights = {step.name: step.weight for step in steps}
    found = dict(weights)
    for step in reversed(steps):
        for name in (*step.needs, *step.after):
            found[name] = max(found[name], weights[name] + found[step.name])
    return found


def seconds_left(
    steps: Sequence[Step], records: Mapping[str, Record], spent: Mapping[str, float], here: set[str], workers: int
) -> float:
    """From the steps' weights, corrected by how long those finished here took. spent: seconds of those under way."""
    finished = [step for step in steps if step.name in here and step.weight > 0]
    expected = sum(step.weight for step in finished)
    pace = sum(records[step.name].seconds for step in finished) / expected if expected else 1.0
    open_steps = [step for step in steps if records[step.name].status in ("waiting", "running")]
    urgent = urgencies(steps)
    work_left = sum(max(0.0, step.weight * pace - spent.get(step.name, 0.0)) for step in open_steps)
    chain = max((urgent[step.name] * pace - spent.get(step.name, 0.0) for step in open_steps), default=0.0)
    return max(work_left / workers, chain, 0.0)


def roughly(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


# ------------------------------------------------------------------------------------------------ what a person sees


class Board:
    """A line for every step that ends; in a terminal, below them, what is under way and how long it will take."""

    def __init__(self, root: Path, total: int, console: Console):
        self.root, self.total, self.console, self.settled = root, total, console, 0
        self.kept = 0
        self.live = Live(console=console, refresh_per_second=4, transient=True)

    @contextmanager
    def shown(self) -> Iterator[Board]:
        if not self.console.is_terminal:
            yield self
            return
        with self.live:
            yield self

    def say_kept(self) -> None:
        if self.kept:
            say(f"{self.kept} of {self.total} steps are done already", self.console)
        self.kept = 0

    def settle(self, record: Record, how: str, left: float, log: Path) -> None:
        self.settled += 1
        if how == "kept":
            self.kept += 1
            return
        self.say_kept()
        place = f"{self.settled:>{len(str(self.total))}}/{self.total}"
        if record.status == "done":
            time_left = f", about {roughly(left)} left" if left >= 1 and not self.console.is_terminal else ""
            say(f"{place} {how:<8} {record.name}  {clock(record.seconds)}{time_left}", self.console)
        else:
            where = f" (log: {os.path.relpath(log)})" if log.exists() else ""
            say(f"{place} {record.status:<8} {record.name}: {record.error}{where}", self.console)

    def update(self, under_way: Sequence[Worker], left: float, elapsed: float) -> None:
        if not self.console.is_terminal:
            return
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True, overflow="ellipsis")
        rows.add_column(justify="right", no_wrap=True)
        for worker in under_way:
            rows.add_row(worker.step.name, clock(worker.seconds))
        share = elapsed / (elapsed + left) if elapsed + left else 1.0
        said = f"{self.settled} of {self.total} steps, {clock(elapsed)}, about {roughly(left)} left"
        self.live.update(Group(rows, ProgressBar(total=1.0, completed=share), said))


# ------------------------------------------------------------------------------------------------ all steps


def run(
    steps: Sequence[Step],
    root: Path,
    workers: int = 1,
    elsewhere: Mapping[str, Path] | None = None,
    console: Console | None = None,
) -> list[Record]:
    """Do every step that is not done, at most `workers` at once, and remember each in root/steps.json.

    elsewhere: folders of finished steps by key, taken over instead of being done again. A step that fails stops only
    those that need it. Raises Interrupted after Ctrl-C or SIGTERM, with everything saved.
    """
    root.mkdir(parents=True, exist_ok=True)
    with RunDir(root).lock():
        return run_locked(steps, root, workers, elsewhere or {}, console or Console())


def run_locked(
    steps: Sequence[Step], root: Path, workers: int, elsewhere: Mapping[str, Path], console: Console
) -> list[Record]:
    before, keys = read_records(root), keys_of(steps)
    for record in before.values():
        record.status = "waiting" if record.status == "running" else record.status  # it was killed
    records = {step.name: Record(step.name, step.line, step.command, step.folder, keys[step.name]) for step in steps}
    urgent, began = urgencies(steps), time.monotonic()
    todo = sorted(steps, key=lambda step: -urgent[step.name])
    under_way: dict[str, Worker] = {}
    here: set[str] = set()  # finished in this call, so their seconds say how fast this machine is
    board = Board(root, len(steps), console)
    write_records(root, carried(records, before))

    def left() -> float:
        spent = {name: worker.seconds for name, worker in under_way.items()}
        return seconds_left(steps, records, spent, here, workers)

    def settle(step: Step, status: str, how: str = "", seconds: float = 0.0, error: str = "") -> None:
        record = records[step.name]
        record.status, record.seconds, record.error = status, round(seconds, 1), error
        write_records(root, carried(records, before))
        board.settle(record, how or status, left(), log_file(root, step))

    def begin(step: Step) -> None:
        """Start a step whose inputs are settled, unless it is done, cannot be done, or is done elsewhere."""
        record, old, folder = records[step.name], before.get(step.name), root / step.folder
        inputs = [records[name] for name in (*step.needs, *step.after)]
        lost = [each for each in inputs if each.name in step.needs and each.status != "done"]
        record.key = key_of(step, [each.key for each in inputs if each.status == "done"])
        if lost or step.missing:
            return settle(step, "skipped", error=step.missing or f"needs '{lost[0].name}', which {said(lost[0])}")
        if old and old.key == record.key and old.status == "done" and folder.is_dir() and not step.always:
            return settle(step, "done", "kept", old.seconds)
        if old and old.key != record.key and not step.always:
            clear(folder)
        if record.key in elsewhere and not step.always and take_over(elsewhere[record.key], folder):
            return settle(step, "done", "reused")
        record.status = "running"
        under_way[step.name] = start(step, root)
        write_records(root, carried(records, before))

    try:
        with deferred_signals() as signals, board.shown():
            while todo or under_way:
                stopping = bool(signals)  # looked at once a round: a signal may come at any point of it
                if stopping:
                    stop(under_way.values())
                for name, worker in list(under_way.items()):
                    if worker.process.is_alive():
                        continue
                    status, error = under_way.pop(name).outcome()
                    if stopping and status != "done":
                        records[name].status, records[name].error = "waiting", "interrupted"
                    else:
                        status = "failed" if status == "waiting" else status  # someone else stopped it
                        here |= {name} if status == "done" else set()
                        settle(worker.step, status, seconds=worker.seconds, error=error)
                if stopping:
                    write_records(root, carried(records, before))
                    raise Interrupted(signals[0])
                for step in list(todo):
                    if len(under_way) < workers and all(
                        records[name].status in SETTLED for name in (*step.needs, *step.after)
                    ):
                        todo.remove(step)
                        begin(step)
                board.say_kept()
                board.update(list(under_way.values()), left(), time.monotonic() - began)
                connection.wait([worker.process.sentinel for worker in under_way.values()], timeout=0.25)
    finally:
        for worker in under_way.values():
            worker.process.kill()
    return list(records.values())


def said(record: Record) -> str:
    return {"failed": "failed", "skipped": "was skipped"}.get(record.status, f"is {record.status}")


def carried(records: Mapping[str, Record], before: Mapping[str, Record]) -> dict[str, Record]:
    """What to remember: of a step that was not looked at yet, what was known before."""
    untouched = {name for name, record in records.items() if record.status == "waiting" and not record.error}
    return {name: before[name] if name in untouched & before.keys() else record for name, record in records.items()}

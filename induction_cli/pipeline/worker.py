"""A step in a process of its own: it logs what it says, saves itself when asked to end, and answers in one word."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import connection
from pathlib import Path
from typing import Any

from filelock import FileLock

from induction_cli import training
from induction_cli.config import ConfigError
from induction_cli.pipeline.steps import TRAINING, Step
from induction_cli.runs.run_dir import RunDir, RunError

PATIENCE = 60  # seconds a worker has to save itself


def do(step: Step, root: Path) -> float:
    """Run a step's room here; training goes on where it was."""
    out_dir = root / step.folder
    if step.room == TRAINING:
        return training.run(step.config, out_dir, resume=bool(RunDir(out_dir).meta()))
    headline = import_module(step.room).run(step.config, out_dir)
    if out_dir != root:  # where the settings of the whole are
        RunDir(out_dir).write_config(step.config)
    return headline


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
        if code == -signal.SIGKILL:
            return "failed", f"its process was killed by signal {-code}; perhaps memory was short"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return "failed", f"its process {how}"


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

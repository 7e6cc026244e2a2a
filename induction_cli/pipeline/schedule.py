"""Which step comes next: steps run side by side as soon as what they need is done, those others wait for first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

from rich.console import Console

from induction_cli.pipeline.board import Board
from induction_cli.pipeline.memory import Record, carried, clear, read_records, take_over, write_records
from induction_cli.pipeline.steps import Step, key_of, keys_of
from induction_cli.pipeline.worker import Worker, log_file, start, stop
from induction_cli.runs.process import Interrupted, deferred_signals
from induction_cli.runs.run_dir import RunDir

SETTLED = ("done", "failed", "skipped")


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
        schedule = Schedule(steps, root, workers, elsewhere or {}, Board(root, len(steps), console or Console()))
        schedule.run()
    return list(schedule.records.values())


class Schedule:
    """Steps on their way: `todo`, the urgent first; then `under_way`; then settled, which `records` says.

    before: the records of an earlier start. here: steps finished in this one, whose seconds tell how fast this is.
    """

    def __init__(self, steps: Sequence[Step], root: Path, workers: int, elsewhere: Mapping[str, Path], board: Board):
        self.steps, self.root, self.workers, self.elsewhere, self.board = steps, root, workers, elsewhere, board
        keys, urgent = keys_of(steps), urgencies(steps)
        self.records = {
            step.name: Record(step.name, step.line, step.command, step.folder, keys[step.name]) for step in steps
        }
        self.before = read_records(root)
        for record in self.before.values():
            if record.status == "running":  # it was killed
                record.status = "waiting"
        self.todo = sorted(steps, key=lambda step: -urgent[step.name])
        self.under_way: dict[str, Worker] = {}
        self.here: set[str] = set()
        self.began = time.monotonic()

    def run(self) -> None:
        """Until every step is settled."""
        self.remember()
        try:
            with deferred_signals() as signals, self.board.shown():
                while self.todo or self.under_way:
                    stopping = bool(signals)  # looked at once a round: a signal may come at any point of it
                    if stopping:
                        stop(self.under_way.values())
                    self.collect(stopping)
                    if stopping:
                        self.remember()
                        raise Interrupted(signals[0])
                    self.begin_what_is_ready()
                    self.show()
                    connection.wait([worker.process.sentinel for worker in self.under_way.values()], timeout=0.25)
        finally:
            for worker in self.under_way.values():
                worker.process.kill()

    def remember(self) -> None:
        write_records(self.root, carried(self.records, self.before))

    def seconds_left(self) -> float:
        spent = {name: worker.seconds for name, worker in self.under_way.items()}
        return seconds_left(self.steps, self.records, spent, self.here, self.workers)

    def show(self) -> None:
        self.board.say_kept()
        elapsed = time.monotonic() - self.began
        self.board.update(list(self.under_way.values()), self.seconds_left(), elapsed)

    # ------------------------------------------------------------------------------------------------ the end of a step

    def settle(self, step: Step, status: str, how: str = "", seconds: float = 0.0, error: str = "") -> None:
        """how: the word that is shown, where it is not the status."""
        record = self.records[step.name]
        record.status, record.seconds, record.error = status, round(seconds, 1), error
        self.remember()
        self.board.settle(record, how or status, self.seconds_left(), log_file(self.root, step))

    def collect(self, stopping: bool) -> None:
        """Settle the steps whose processes have ended; one that was asked to stop waits for the next start."""
        for name, worker in list(self.under_way.items()):
            if worker.process.is_alive():
                continue
            status, error = self.under_way.pop(name).outcome()
            if stopping and status != "done":
                self.records[name].status, self.records[name].error = "waiting", "interrupted"
                continue
            if status == "done":
                self.here.add(name)
            else:
                status = "failed"  # also where it says that it waits: someone else stopped it
            self.settle(worker.step, status, seconds=worker.seconds, error=error)

    # ------------------------------------------------------------------------------------------------ its beginning

    def inputs(self, step: Step) -> list[Record]:
        return [self.records[name] for name in (*step.needs, *step.after)]

    def begin_what_is_ready(self) -> None:
        """Steps whose inputs are settled, as long as a worker is free."""
        for step in list(self.todo):
            settled = all(record.status in SETTLED for record in self.inputs(step))
            if settled and len(self.under_way) < self.workers:
                self.todo.remove(step)
                self.begin(step)

    def begin(self, step: Step) -> None:
        """Start it, unless it cannot be done, is done, or is done elsewhere."""
        record, old, folder = self.records[step.name], self.before.get(step.name), self.root / step.folder
        record.key = key_of(step, [each.key for each in self.inputs(step) if each.status == "done"])
        if reason := self.impossible(step):
            return self.settle(step, "skipped", error=reason)
        if not step.always:
            if old and old.key == record.key and old.status == "done" and folder.is_dir():
                return self.settle(step, "done", "kept", old.seconds)
            if old and old.key != record.key:
                clear(folder)
            if record.key in self.elsewhere and take_over(self.elsewhere[record.key], folder):
                return self.settle(step, "done", "reused")
        record.status = "running"
        self.under_way[step.name] = start(step, self.root)
        self.remember()

    def impossible(self, step: Step) -> str:
        """Why a step whose inputs are settled cannot be done; '' where it can."""
        lost = [self.records[name] for name in step.needs if self.records[name].status != "done"]
        if step.missing or not lost:
            return step.missing
        how = {"failed": "failed", "skipped": "was skipped"}[lost[0].status]
        return f"needs '{lost[0].name}', which {how}"

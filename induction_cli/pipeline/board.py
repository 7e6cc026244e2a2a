"""What a person sees of a pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from induction_cli.pipeline.memory import Record
from induction_cli.pipeline.worker import Worker
from induction_cli.terminal import clock, say


def roughly(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


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

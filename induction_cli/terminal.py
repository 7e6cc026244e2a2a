"""What a person reads: a live panel while a model trains, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from induction_cli.words import short


@dataclass
class Seen:
    """One snapshot's numbers."""

    step: int
    tokens: int
    loss: float
    in_context_learning_score: float
    prefix_matching: float
    best_head: str
    previous_token: float


def plural(number: int, noun: str) -> str:
    """'1 layer', '2 layers'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(text: str, console: Console | None = None) -> None:
    """A line as it stands: neither coloured, nor wrapped, nor taken for markup, so a path can be copied."""
    (console or Console()).print(text, highlight=False, soft_wrap=True, markup=False)


def new_table(title: str, names: Sequence[str], left: Collection[str]) -> Table:
    """A table with columns of those names; `left`: which hold words, aligned left."""
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    return table


def print_table(table: Table, console: Console) -> None:
    """Print it as wide as the terminal allows: no word of a header or of a cell breaks while there is room for it.

    rich alone makes all columns equally narrow, and breaks the words of some while others have room to spare.
    """
    texts = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    widths = [max(len(word) for text in column for word in text.split() or [""]) for column in texts]
    wanted = [max(len(line) for text in column for line in text.splitlines() or [""]) for column in texts]
    room = console.width - 2 * len(widths) - 2
    while sum(widths) < room and (short_of := [i for i, width in enumerate(widths) if width < wanted[i]]):
        widths[max(short_of, key=lambda i: wanted[i] / widths[i])] += 1
    if sum(widths) <= room:
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
    console.print(table)


class Display:
    """Use as a context manager; `step` often, `snapshot` at each snapshot."""

    def __init__(self, title: str, total_tokens: int, console: Console | None = None):
        self.console = console or Console()
        self.title, self.total = title, total_tokens
        self.last: Seen | None = None
        self.started = self.drawn = time.monotonic()
        self.first_tokens: int | None = None
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f}%  {task.fields[speed]}  {task.fields[left]}  loss {task.fields[loss]}"),
            console=self.console,
            expand=True,
        )
        self.task = self.progress.add_task(title, total=total_tokens, speed="", left="", loss="-")
        self.live = Live(self.panel(), console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def panel(self) -> Table:
        grid = Table.grid(expand=True)
        grid.add_row(self.progress)
        if self.last:
            grid.add_row("  " + self.numbers(self.last))
        return grid

    @staticmethod
    def numbers(seen: Seen) -> str:
        return (
            f"ICL score {seen.in_context_learning_score:+.3f} nats  "
            f"prefix matching {seen.prefix_matching:.2f} ({seen.best_head})  previous token {seen.previous_token:.2f}"
        )

    def step(self, tokens: int, loss: float) -> None:
        """Cheap to call at every step."""
        now = time.monotonic()
        if self.first_tokens is None:
            self.first_tokens, self.started = tokens, now
        if not self.console.is_terminal or now - self.drawn < 0.25:
            return
        self.drawn = now
        speed = (tokens - self.first_tokens) / max(1e-9, now - self.started)
        left = clock((self.total - tokens) / speed) + " left" if speed else ""
        said = f"{speed / 1e3:.1f}k tokens/s"
        self.progress.update(self.task, completed=tokens, speed=said, left=left, loss=f"{loss:.3f}")
        self.live.update(self.panel())

    def snapshot(self, seen: Seen) -> None:
        self.last = seen
        if self.console.is_terminal:
            self.live.update(self.panel())
        else:
            at = f"{short(seen.tokens):>6} tokens  loss {seen.loss:.3f}  "
            self.console.print(f"{self.title}  {at}{self.numbers(seen)}", soft_wrap=True, highlight=False)


def within_run(
    low: float, high: float, written: Callable[[float], str] = "{:+.3f}".format, over: str = "chains"
) -> str:
    """An interval within a run, marked as one: '[+0.1, +0.2] over chains'; where there is none, that it is missing."""
    if math.isnan(low):
        return f"(too few {over} for an interval)"
    return f"[{written(low)}, {written(high)}] over {over}"

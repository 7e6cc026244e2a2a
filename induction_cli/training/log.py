"""What a run notes of its steps: a row of training.csv for each, and the seconds that training and measuring took."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pandas as pd
from torch import Tensor

from induction_cli.runs.run_dir import RunError
from induction_cli.runs.tables import Table


class StepLog:
    """Steps since the last write, with their losses as tensors: to read each one would make an accelerator wait."""

    def __init__(self, table: Table, tokens_per_step: int, run: Path):
        self.table, self.tokens_per_step, self.run = table, tokens_per_step, run
        self.unwritten: list[tuple[int, Tensor, float]] = []  # step, loss, learning rate
        self.seconds = {"training": 0.0, "evaluation": 0.0}
        self.since = time.perf_counter()

    def add(self, step: int, loss: Tensor, learning_rate: float) -> None:
        self.unwritten.append((step, loss, learning_rate))

    def book(self, kind: str) -> float:
        """The seconds since they were last booked, to 'training' or 'evaluation'; returns them."""
        now = time.perf_counter()
        passed, self.since = now - self.since, now
        self.seconds[kind] += passed
        return passed

    def last_loss(self) -> float:
        """Of the step noted last. Raises RunError where it is not a number."""
        loss = self.unwritten[-1][1].item()
        if not math.isfinite(loss):
            self.write()  # raises, and names the first such step
        return loss

    def write(self) -> None:
        """The steps since the last write, to disk; a loss that is not a number stops the run before it is saved."""
        speed = len(self.unwritten) * self.tokens_per_step / max(1e-9, self.book("training"))
        rows = [
            (step, step * self.tokens_per_step, self.finite(loss.item(), step), rate, speed)
            for step, loss, rate in self.unwritten
        ]
        self.unwritten.clear()
        self.table.append(pd.DataFrame(rows, columns=["step", "tokens", "loss", "learning_rate", "tokens_per_second"]))
        self.table.flush()

    def finite(self, loss: float, step: int) -> float:
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} at step {step}; lower optimizer.learning_rate. "
                f"Everything up to the last snapshot is in {self.run}"
            )
        return loss

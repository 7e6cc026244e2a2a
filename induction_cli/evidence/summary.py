"""One row per run: what was seen of the phase change; and one sentence about all of them."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console

from induction_cli.evaluation.sources import Source
from induction_cli.measures.head_types import INDUCTION
from induction_cli.runs.run_dir import RunDir, relative
from induction_cli.terminal import new_table, plural, print_table, say
from induction_cli.words import short, signed


def row(source: Source, room: RunDir) -> dict:
    """From the tables of a source's room alone; a pretrained model has no seed, and its tokens may not be known."""
    heads = room.table("head_scores")
    last = heads[heads.step == heads.step.max()].set_index("measure").value
    learning = room.table("in_context_learning").query("kind == 'windowed'").iloc[-1]
    windows = room.table("phase_change")
    return {
        "run": source.name,
        "layers": int(heads.layer.max()) + 1,
        "seed": source.room.config().seed if source.room else math.nan,
        "tokens": learning.tokens,
        "in_context_learning_score": learning.in_context_learning_score,
        "low": learning.low,
        "high": learning.high,
        "prefix_matching": last["prefix_matching"].max(),
        "previous_token": last["previous_token"].max(),
        "start_tokens": windows.start_tokens.iloc[0] if len(windows) else math.nan,
        "end_tokens": windows.end_tokens.iloc[0] if len(windows) else math.nan,
    }


def sentence(table: pd.DataFrame) -> str:
    """What was seen, said plainly: which runs changed phase and which did not.

    A pretrained model of which one snapshot was seen has no phase to speak of.
    """
    parts = []
    for layers, rows in table.groupby("layers"):
        one, pretrained = len(rows) == 1, "seed" in rows and bool(rows.seed.isna().all())
        name = "one-layer" if layers == 1 else f"{layers}-layer"
        name += " model" if pretrained else " run"
        changed = int(rows.start_tokens.notna().sum())
        formed = int((rows.prefix_matching >= INDUCTION).sum())
        of = f"the {name}" if one else f"{changed} of {len(rows)} {name}s"
        verb = "went through a phase change" if changed or not one else "shows no phase change"
        heads = ("with" if formed else "without") + " induction heads" if one else f"induction heads in {formed}"
        score = f"in-context learning score {signed(rows.in_context_learning_score.mean())} nats"
        if pretrained and not changed:
            parts.append(
                f"{of} has heads that match prefixes, {score}"
                if formed
                else f"{of} has no heads that match prefixes, {score}"
            )
        else:
            parts.append(f"{of} {verb} ({heads}, {score})")
    return "; ".join(parts) + "."


def names(table: pd.DataFrame) -> list[str]:
    """'2 layers, seed 0', short enough for a narrow terminal; the run's own name where that is not unique."""
    brief = [f"{plural(row.layers, 'layer')}, seed {row.seed}" for row in table.itertuples()]
    return brief if len(set(brief)) == len(brief) and table.seed.notna().all() else table.run.tolist()


def show(table: pd.DataFrame, room: RunDir) -> None:
    """Print the table, where the plots are, and the sentence."""
    console = Console()
    columns = ("run", "score (nats)", "95% interval", "prefix\nmatching", "previous\ntoken", "phase change\n(tokens)")
    shown = new_table("What was seen at the last snapshot", columns, left=("run",))
    for name, found in zip(names(table), table.itertuples(), strict=True):
        window = f"{short(found.start_tokens)} to {short(found.end_tokens)}"
        shown.add_row(
            name,
            signed(found.in_context_learning_score, 3),
            f"{signed(found.low)} to {signed(found.high)}" if pd.notna(found.low) else "-",
            f"{found.prefix_matching:.2f}",
            f"{found.previous_token:.2f}",
            window if pd.notna(found.start_tokens) else "none",
        )
    print_table(shown, console)
    say(f"plots   {relative(room.path / 'plots')}", console)
    console.print(sentence(table), highlight=False)

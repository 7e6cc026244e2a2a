"""One verdict per claim, from the tables that are there, and one page of everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from induction_cli.config import ReportConfig
from induction_cli.page import page
from induction_cli.page.rooms import COMMANDS, with_steps
from induction_cli.runs.files import beside
from induction_cli.runs.results import tables_behind, writing
from induction_cli.runs.run_dir import RunDir, relative
from induction_cli.terminal import say
from induction_cli.verdicts import Effect, Verdict, load_claims, verdicts
from induction_cli.verdicts.tables import Whole, damaged_in, folders_in

COLOURS = {"supported": "green", "not supported": "red", "inconclusive": "yellow", "not tested": "dim"}


def decided(paths: list[Path], claims: list[dict]) -> list[Verdict]:
    """The verdicts of `verdicts`, claim by claim: a damaged table costs the claims that read it the run it is of."""
    found, damaged = [], damaged_in(paths, COMMANDS)
    for claim in claims:
        note = ""
        for asked in (paths, Whole(paths, damaged)) if damaged else (paths,):
            try:
                found += verdicts(asked, [claim])
                break
            except Exception as error:  # whatever is in a damaged table
                note = f"its tables cannot be read: {type(error).__name__}: {one_line(error)}"
        else:
            found.append(Verdict(claim["id"], "not tested", [], note))
    return found


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or "nothing said"


def effect_rows(found: list[Verdict]) -> pd.DataFrame:
    """effects.csv: every run's number behind every verdict."""
    columns = ["id", "run", "value", "low", "high", "holds"]
    return pd.DataFrame(
        [[v.id, e.run, e.value, e.low, e.high, e.holds] for v in found for e in v.effects], columns=columns
    )


def compact(effects: Sequence[Effect]) -> str:
    """'+0.61 [+0.38, +0.77]' of one run; of several the range of their numbers."""
    if not effects:
        return "-"
    if len(effects) == 1 and math.isnan(effects[0].low):  # a count has no interval
        return f"{effects[0].value:+.2f}"
    if len(effects) == 1:
        return f"{effects[0].value:+.2f} [{effects[0].low:+.2f}, {effects[0].high:+.2f}]"
    values = [effect.value for effect in effects]
    return f"{min(values):+.2f} to {max(values):+.2f}"


def show(found: list[Verdict], claims: dict[str, dict]) -> None:
    table = Table(title="Verdicts", title_justify="left", box=SIMPLE, pad_edge=False)
    for name in ("id", "claim", "effect", "rule", "verdict"):
        table.add_column(name, overflow="fold")
    untested: dict[str, list[str]] = {}
    for verdict in found:
        if verdict.verdict == "not tested":
            untested.setdefault(verdict.note, []).append(verdict.id)
            continue
        said = f"[{COLOURS[verdict.verdict]}]{verdict.verdict}[/] ({escape(verdict.note)})"
        claim = claims[verdict.id]
        table.add_row(verdict.id, escape(claim["claim"]), escape(compact(verdict.effects)), escape(claim["rule"]), said)
    console = Console()
    console.print(table)
    for note, ids in untested.items():
        console.print(f"not tested: {', '.join(ids)} ({escape(note)})", highlight=False)


def run(config: ReportConfig, out_dir: Path) -> float:
    """Decide every claim of the chosen argument and write report.html; returns the number supported."""
    claims = load_claims(beside("experiments") / "claims.yaml")
    asked = [claim for claim in claims if config.argument in (0, claim["argument"])]
    paths = with_steps([Path(path) for path in config.run_dirs])
    found = decided(paths, asked)
    room = RunDir(out_dir)
    verdict_rows = pd.DataFrame([[v.id, v.verdict, v.note] for v in found], columns=["id", "verdict", "note"])
    html = page(paths, asked, found, config.argument, config.explorer_runs)
    read = [RunDir(each) for folder in folders_in(paths) for each in (folder, *(folder / name for name in COMMANDS))]
    with writing(room, "report", config, tables_behind(read, room)) as meta:
        room.write_table("effects", effect_rows(found))
        room.write_table("verdicts", verdict_rows)
        written = room.write_page("report", html)
        meta["headline"] = float(sum(verdict.verdict == "supported" for verdict in found))
    show(found, {claim["id"]: claim for claim in claims})
    for problems in damaged_in(paths, COMMANDS).values():
        for problem in problems:
            say(f"left out: {problem}")
    print(f"tables  {relative(room.path / 'tables')}")
    print(f"page    {relative(written)}")
    return meta["headline"]

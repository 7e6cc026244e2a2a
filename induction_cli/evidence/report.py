"""One verdict per claim, from the tables that are there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from induction_cli.config import ReportConfig
from induction_cli.files import beside
from induction_cli.run_dir import RunDir, relative
from induction_cli.verdicts import Verdict, load_claims, verdicts

COLOURS = {"supported": "green", "not supported": "red", "inconclusive": "yellow", "not tested": "dim"}


def effect_rows(found: list[Verdict]) -> pd.DataFrame:
    """effects.csv: every run's number behind every verdict."""
    columns = ["id", "run", "value", "low", "high", "holds"]
    return pd.DataFrame(
        [[v.id, e.run, e.value, e.low, e.high, e.holds] for v in found for e in v.effects], columns=columns
    )


def show(found: list[Verdict], claims: dict[str, dict]) -> None:
    table = Table(title="Verdicts", title_justify="left", box=SIMPLE, pad_edge=False)
    for name in ("id", "claim", "effect and 95% interval, each run", "rule", "verdict"):
        table.add_column(name, overflow="fold")
    for verdict in found:
        effects = "\n".join(f"{e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]" for e in verdict.effects[:8])
        more = f"\nand {len(verdict.effects) - 8} more" if len(verdict.effects) > 8 else ""
        said = f"[{COLOURS[verdict.verdict]}]{verdict.verdict}[/] ({verdict.note})"
        claim = claims[verdict.id]
        table.add_row(verdict.id, claim["claim"], effects + more or "-", claim["rule"], said)
    Console().print(table)


def run(config: ReportConfig, out_dir: Path) -> float:
    """Decide every claim of the chosen argument; returns the number supported."""
    claims = load_claims(beside("experiments") / "claims.yaml")
    found = verdicts([Path(path) for path in config.run_dirs], claims, config.argument)
    room = RunDir(out_dir)
    room.write_table("effects", effect_rows(found))
    room.write_table(
        "verdicts", pd.DataFrame([[v.id, v.verdict, v.note] for v in found], columns=["id", "verdict", "note"])
    )
    show(found, {claim["id"]: claim for claim in claims})
    print(f"tables  {relative(room.path / 'tables')}")
    return float(sum(verdict.verdict == "supported" for verdict in found))

"""One verdict per claim, from the tables that are there, and one page of everything."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from induction_cli.config import ConfigError, ReportConfig
from induction_cli.page import Asked, page, story
from induction_cli.page.forest import measured
from induction_cli.page.rooms import COMMANDS, find, with_steps
from induction_cli.runs.files import beside
from induction_cli.runs.results import tables_behind, writing
from induction_cli.runs.run_dir import RunDir, relative
from induction_cli.terminal import say
from induction_cli.verdicts import Claim, Verdict, load_claims, rows_of, with_holm
from induction_cli.verdicts.rows import estimate_rows, part_rows, verdict_rows
from induction_cli.verdicts.tables import Whole, damaged_in, folders_in

COLOURS = {"supported": "green", "not supported": "red", "inconclusive": "yellow", "not tested": "dim"}


def decided(
    paths: list[Path], asked: Sequence[Claim], claims: Sequence[Claim], damaged: Collection[Path] = ()
) -> list[Verdict]:
    """The verdicts of the claims asked for; a damaged folder costs the claims that read it the run it is of."""
    found: list[Verdict] = []
    for claim in asked:
        why = ""
        for whole in (paths, Whole(paths, damaged)) if damaged else (paths,):
            try:
                found += rows_of(claim, whole, claims)
                break
            except Exception as error:  # whatever is in a damaged table
                said = " ".join(str(error).split()) or "nothing said"
                why = f"its tables cannot be read: {type(error).__name__}: {said}"
        else:
            found.append(Verdict(claim, claim.model_class, True, "not tested", missing=why))
    return with_holm(found)


# ------------------------------------------------------------------------------------------------ the terminal


def counted(verdict: Verdict) -> str:
    """'2 layers, 5 seeds, 2 could not say (no window)'."""
    part, unit = verdict.decisive, verdict.claim.unit_of_evidence
    if part is None or verdict.claim.kind == "existence":
        return verdict.model_class
    said = f"{verdict.model_class}, {part.n} {unit if part.n == 1 else unit + 's'}"
    for why, count in part.could_not_say.items():
        said += f", {count} could not say ({why})"
    return said


def detail(verdict: Verdict) -> str:
    """The line below a claim: class and seeds, what was found, what the rule asks of it."""
    said, part = counted(verdict), verdict.decisive
    if part and verdict.claim.kind != "existence":
        said += f": {measured(part)}"
        said += "; judged as yes or no" if part.scale == "share" else f"; to be {part.part.rule}"
    return "; ".join(filter(None, (said, verdict.note)))


def show(found: Sequence[Verdict]) -> None:
    """Three columns that fit a narrow terminal; then the claims not tested, by what would test them."""
    table = Table(title="Verdicts", title_justify="left", box=SIMPLE, pad_edge=False, expand=True)
    table.add_column("id", no_wrap=True)
    table.add_column("claim, and what was found", overflow="fold", ratio=1)
    table.add_column("verdict", overflow="fold", min_width=13)
    untested: dict[str, list[str]] = {}
    for verdict in found:
        if verdict.verdict == "not tested":
            if verdict.headline:
                part = verdict.decisive
                seen = f" {measured(part)}" if part and math.isfinite(part.estimate) else ""
                untested.setdefault(verdict.missing, []).append(verdict.id + seen)
            continue
        holm = {True: ", also after Holm", False: ", not after Holm", None: ""}[verdict.holm]
        said = f"[{COLOURS[verdict.verdict]}]{verdict.verdict}[/]{holm}"
        words = f"{escape(verdict.claim.claim)}\n" if verdict.headline else ""
        table.add_row(verdict.id if verdict.headline else "", f"{words}[dim]{escape(detail(verdict))}[/]", said)
    console = Console()
    if table.row_count:
        console.print(table)
    for missing, ids in untested.items():
        console.print(f"not tested: {', '.join(ids)}", highlight=False, markup=False)
        console.print(Padding(Text(missing), (0, 0, 0, 4)))
    if any(verdict.seen_before for verdict in found):
        first = max(verdict.claim.first_new_seed for verdict in found)
        console.print(
            f"Seeds below {first} were seen before the rules were fixed: they illustrate, and confirm nothing.",
            highlight=False,
        )


def own_text(config: ReportConfig) -> str:
    """What a pretrained model's heads are shown on. Raises ConfigError where its file cannot be read."""
    if not config.text_file:
        return config.text
    try:
        return Path(config.text_file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"text_file is '{config.text_file}', which cannot be read as text: {error}") from error


def run(config: ReportConfig, out_dir: Path) -> float:
    """Decide every claim of the chosen line and write report.html; returns the number supported."""
    claims = load_claims(beside("experiments") / "claims.yaml")
    asked = [claim for claim in claims if config.argument in (0, claim.line)]
    paths = with_steps([Path(path) for path in config.run_dirs])
    damaged, text = damaged_in(paths, COMMANDS), own_text(config)
    found = decided(paths, asked, claims, damaged)
    room = RunDir(out_dir)
    seen = story.curves(find(paths).runs)
    opening = seen.figure() if seen else None
    html = page(paths, found, Asked(config.argument, config.explorer_runs, text, opening))
    read = [RunDir(each) for folder in folders_in(paths) for each in (folder, *(folder / name for name in COMMANDS))]
    with writing(room, "report", config, tables_behind(read, room)) as meta:
        room.write_table("estimates", estimate_rows(found))
        room.write_table("verdict_parts", part_rows(found))
        room.write_table("verdicts", verdict_rows(found))
        if opening is not None:
            room.write_plot("opening", opening)
        written = room.write_page("report", html)
        meta["headline"] = float(sum(verdict.headline and verdict.verdict == "supported" for verdict in found))
    show(found)
    for problems in damaged.values():
        for problem in problems:
            say(f"left out: {problem}")
    print(f"tables  {relative(room.path / 'tables')}")
    print(f"page    {relative(written)}")
    return meta["headline"]

"""The page's sections: which plots of which runs stand in it, what was claimed, how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from induction_cli.page.figures import Figures
from induction_cli.page.forest import Row
from induction_cli.page.rooms import Found, Origin, Room, Run, origin
from induction_cli.runs.run_dir import relative
from induction_cli.terminal import plural

UNDONE = ("failed", "skipped")  # steps that a section must own up to
LEADING = 2  # pictures of a chapter that are not folded
VERDICTS = ("supported", "not supported", "inconclusive")
UNTESTED = "not tested"
KINDS = 4  # kinds of models whose plots are in full


@dataclass(frozen=True)
class Shown:
    """A plot on the page. drawn: its HTML; about: the run, or ''."""

    drawn: str
    about: str


@dataclass(frozen=True)
class Group:
    """Plots of one kind, and what to look at."""

    look: str
    plots: list[Shown]


@dataclass(frozen=True)
class Fold:
    """What is shown of one run, or one command, when it is unfolded."""

    title: str
    groups: list[Group]

    @property
    def count(self) -> int:
        return sum(len(group.plots) for group in self.groups)


@dataclass
class Section:
    """A chapter: one question, its finding, one or two pictures; all else is folded. rows: the verdicts of its line."""

    line: int
    title: str
    question: str
    make: str
    rows: list[Row]
    ran: bool
    groups: list[Group] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # plots for which there was no room
    problems: list[str] = field(default_factory=list)
    failed: list[dict] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)

    @property
    def decided(self) -> list[Row]:
        """Those with a verdict, and those with something seen that is short of seeds: what the forest shows."""
        return [row for row in self.rows if row.seen or row.verdict.verdict != UNTESTED]

    @property
    def untested(self) -> list[Row]:
        """Those of whose claim nothing was seen, in no class."""
        shown = {row.verdict.id for row in self.decided}
        return [row for row in self.rows if row.verdict.headline and row.verdict.id not in shown]

    @property
    def finding(self) -> str:
        """One sentence: how its first claim came out, or what was seen of it."""
        best = sorted(self.decided, key=lambda row: row.verdict.verdict == UNTESTED)
        if not best:
            return ""
        row = best[0]
        tally = self.tally
        if row.verdict.verdict != UNTESTED:
            found = f": {row.found}" if row.found and row.verdict.claim.kind != "existence" else ""
            return f"{row.verdict.claim.claim.rstrip('.')} ({row.verdict.verdict}{found}). {tally}"
        side = "as the claim says" if row.leans == "for" else "against the claim"
        return (
            f"{row.verdict.claim.claim.rstrip('.')}? Seen in {row.seeds_said}: {row.found}, {side} (rule: {row.rule}); "
            f"a verdict needs {row.verdict.claim.minimum_seeds}. {tally}"
        )

    @property
    def tally(self) -> str:
        """'Of 8 claims 5 are supported and 1 is inconclusive; of 2 something was seen, in too few seeds.'"""
        headlines = [row for row in self.rows if row.verdict.headline]
        said = [row.verdict.verdict for row in headlines]
        parts = [f"{said.count(kind)} {kind}" for kind in VERDICTS if kind in said]
        seen = sum(row.seen and row.verdict.verdict == UNTESTED for row in headlines)
        if seen:
            parts.append(f"{seen} seen in too few seeds for a verdict")
        return f"Of {plural(len(headlines), 'claim')}: {', '.join(parts)}." if parts else ""


def read_lines() -> list[dict[str, Any]]:
    return yaml.safe_load((Path(__file__).parent / "lines.yaml").read_text())


# ------------------------------------------------------------------------------------------------ plots


def representatives(runs: Sequence[Run]) -> list[Run]:
    """The lowest seed of every kind of model, the simplest kinds first, at most KINDS."""
    able = sorted((run for run in runs if run.config is not None), key=lambda run: (run.kind, run.config.seed))  # type: ignore
    firsts = {run.kind: run for run in reversed(able)}
    return [firsts[kind] for kind in sorted(firsts)][:KINDS]


def chosen_one(runs: Sequence[Run]) -> Run | None:
    """The two-layer run among them, else the last."""
    two = [run for run in runs if run.kind[2] == 2]
    return two[0] if two else runs[-1] if runs else None


def placed(rooms: Sequence[Room], plots: Sequence[dict]) -> tuple[list, list]:
    """Every plot there is as (room, stem, look), in the order of `plots`: those in full, and those to fold away.

    Plots of a sweep's single jobs are folded.
    Of a run that stands for no kind of model only what is shown in full of others is kept, to bound the page.
    """
    shown: list[tuple[Room, str, str]] = []
    folded: list[tuple[Room, str, str]] = []
    firsts = representatives([room.run for room in rooms if room.run])
    one = chosen_one(firsts)
    first_paths = {run.dir.path for run in firsts}
    listed = set()
    for plot in plots:
        mine = [
            (room, stem)
            for room in rooms
            if room.command == plot["room"]
            for stem in room.plots
            if fnmatch(stem, plot["plot"])
        ]
        joint = any(room.run is None for room, _ in mine)
        listed |= {(room.command, stem) for room, stem in mine}
        for room, stem in mine:
            item = (room, stem, plot["look"])
            if room.run is None:
                (folded if plot["show"] == "more" or room.one_of_many else shown).append(item)
                continue
            first = room.run.dir.path in first_paths
            alone = one is not None and room.run.dir.path == one.dir.path
            if not (joint or plot["show"] == "more") and (first if plot["show"] == "kinds" else alone):
                shown.append(item)
            elif alone or plot["show"] == "kinds" or (first and plot["show"] == "one"):
                folded.append(item)
    for room in rooms:
        rest = [(room, stem, "") for stem in room.plots if (room.command, stem) not in listed]
        if room.run is None:
            (folded if room.one_of_many else shown).extend(rest)
        elif one is not None and room.run.dir.path == one.dir.path:
            folded += rest
    return shown, folded


def leading(shown: list, folded: list) -> tuple[list, list]:
    """The first pictures of different kinds stay, of one run each; the others are folded too."""
    first: dict[tuple[str, str], tuple] = {}
    for room, stem, look in shown:
        two_layers = room.run is not None and room.run.config is not None and room.run.kind == (False, False, 2)
        if (room.command, stem) not in first or two_layers:
            first.setdefault((room.command, stem), (room, stem, look))
            if two_layers:
                first[room.command, stem] = (room, stem, look)
    lead = list(first.values())[:LEADING]
    return lead, [item for item in shown if item not in lead] + folded


def order(room: Room) -> tuple:
    """By kind of model and seed; what is about several runs first."""
    known = room.run is not None and room.run.config is not None
    return (1, *room.run.kind, room.run.config.seed) if known else (0,)  # type: ignore[union-attr]


def label(room: Room) -> str:
    return room.run.label if room.run else ""


def draw(items: Sequence[tuple[Room, str, str]], figures: Figures, left_out: list[str]) -> list[Group]:
    """Neighbours that are to be looked at for the same thing become one group."""
    groups: list[Group] = []
    for room, stem, look in items:
        html = figures.inline(room.plots[stem])
        if html is None:
            left_out.append(relative(room.plots[stem]))
        elif groups and groups[-1].look == look:
            groups[-1].plots.append(Shown(html, label(room)))
        else:
            groups.append(Group(look, [Shown(html, label(room))]))
    return groups


# ------------------------------------------------------------------------------------------------ sections


def all_sections(found: Found, rows: Sequence[Row], figures: Figures, argument: int = 0) -> list[Section]:
    """One per line of evidence; plots in full are drawn first, so that they are there if the page fills up."""
    made, to_fold = [], []
    for line in read_lines():
        if argument in (0, line["line"]):
            rooms = found.of(line["line"], line["rooms"])
            shown, folded = placed(rooms, line["plots"])
            shown, folded = leading(shown, folded)
            section = Section(
                line["line"],
                line["title"],
                line["question"],
                line["make"],
                [row for row in rows if row.verdict.line == line["line"]],
                bool(rooms),
            )
            section.groups = draw(shown, figures, section.left_out)
            about = {room.dir.path: f"{room.command} of {label(room)}" if room.run else room.command for room in rooms}
            section.problems = [f"{about[room.dir.path]}: {problem}" for room in rooms for problem in room.damaged()]
            section.failed = [
                step for step in found.steps if step.get("line") == line["line"] and step.get("status") in UNDONE
            ]
            section.origins = origins(rooms, found)
            section.pages = [relative(page) for room in rooms for page in room.pages]
            made.append(section)
            to_fold.append(folded)
    for section, folded in zip(made, to_fold, strict=True):
        by_run: dict[str, list[tuple[Room, str, str]]] = {}
        for item in sorted(folded, key=lambda item: order(item[0])):
            by_run.setdefault(label(item[0]) or item[0].dir.name, []).append(item)
        folds = [Fold(title, draw(items, figures, section.left_out)) for title, items in by_run.items()]
        section.folds = [fold for fold in folds if fold.groups]
    return made


def origins(rooms: Sequence[Room], found: Found) -> list[Origin]:
    """The commands that made them, each once."""
    made = [origin(room.command, room.dir.path, found.typed) for room in rooms]
    return list({one.command: one for one in made if one}.values())

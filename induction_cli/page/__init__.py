"""The page: everything that lies in some folders as one HTML file, which needs no network and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from induction_cli.page import explorer, rooms
from induction_cli.page.figures import Figures
from induction_cli.page.sections import UNDONE, Claim, all_sections, number
from induction_cli.page.template import embedded, render
from induction_cli.runs.process import version_of
from induction_cli.verdicts import Verdict

FIGURES = 9_000_000  # bytes of all plots together; the page stays under 15 MB
CHAPTERS = {"Six lines of evidence": range(1, 7), "Minimal systems": range(7, 9)}
BADGES = {  # verdict: (class, sign); the sign and the words say it without colour
    "supported": ("yes", "✓"),
    "not supported": ("no", "✗"),
    "inconclusive": ("unsure", "~"),
    "not tested": ("untested", "-"),
}


def page(paths: Sequence[Path], verdicts: Sequence[Verdict], argument: int = 0, explore: int = 2) -> str:
    """HTML. verdicts: of the claims that were asked for; argument: the one line shown, 0 for all; explore: how many
    runs have their heads' attention in the page."""
    found = rooms.find(paths)
    judged = [Claim(verdict.claim, verdict) for verdict in verdicts if verdict.headline]
    figures = Figures(FIGURES)
    made = all_sections(found, judged, figures, argument)
    explored, problems = explorer.explorer(explorer.choose(found.runs, explore))
    return render(
        "report",
        chapters={name: [s for s in made if s.line in lines] for name, lines in CHAPTERS.items()},
        claims=judged,
        number=number,
        badges=BADGES,
        titles={section.line: section.title for section in made},
        runs=found.runs,
        spans=spans(found.runs),
        definitions=definitions(explored),
        explored=explored,
        explorer_problems=problems,
        explorer_data=embedded(explored),
        failed=[step for step in found.steps if step.get("status") in UNDONE and not step.get("line")],
        sources=sources(found.runs),
        settings=settings(found),
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
        version=version_of("induction"),
    )


def spans(runs: Sequence[rooms.Run]) -> str:
    """' of 1, 2 and 3 layers, seeds 0, 1 and 2'."""
    configs = [run.config for run in runs if run.config is not None]
    if not configs:
        return ""
    depths, seeds = sorted({c.model.n_layers for c in configs}), sorted({c.seed for c in configs})
    layers = "layer" if depths == [1] else "layers"
    return f" of {listed(depths)} {layers}, {'seed' if len(seeds) == 1 else 'seeds'} {listed(seeds)}"


def listed(values: Sequence[int]) -> str:
    *before, last = map(str, values)
    return f"{', '.join(before)} and {last}" if before else last


def definitions(explored: Sequence[dict]) -> dict[str, str]:
    """What each measure is, of all runs together."""
    return {name: text for run in explored for name, text in run["definitions"].items() if text}


def sources(runs: Sequence[rooms.Run]) -> list[str]:
    """Which code, libraries and text the runs come from; more than one line where they differ."""
    said = []
    for run in runs:
        versions, data = run.meta.get("versions") or {}, run.meta.get("data") or {}
        parts = [f"commit {str(run.meta['git_sha'])[:10]}"] if run.meta.get("git_sha") else []
        parts += [f"{name} {number}" for name, number in versions.items() if name in ("induction", "torch", "python")]
        parts += [f"text {data['source']} {str(data.get('sha256', ''))[:10]}"] if data.get("source") else []
        said.append(", ".join(parts))
    return [f"{line} ({said.count(line)} runs)" for line in dict.fromkeys(said) if line]


def settings(within: rooms.Found) -> list[tuple[str, rooms.Origin]]:
    """Each run's command and configuration; runs that another command trained have that one's."""
    found = []
    for run in within.runs:
        above = rooms.job_name(run.dir.path.parent)
        by_another = bool(above) and above != "train" and not rooms.job_name(run.dir.path)
        own = rooms.origin("train", run.dir.path, within.typed)
        other = rooms.origin(above, run.dir.path.parent, within.typed) if by_another else None
        if own:
            found.append((run.label, rooms.Origin(other.command, own.config) if other else own))
    return found

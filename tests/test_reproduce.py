"""Which steps make the six lines, what a person would type for each, and what is not done again."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from induction_cli import cli, config, launch
from induction_cli.config import ConfigError, ReproduceConfig
from induction_cli.evidence import reproduce
from induction_cli.pipeline.steps import TRAINING, Step, keys_of, same_settings
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow

RECIPES = ("smoke", "quick", "laptop", "paper")


def composed(*overrides: str, recipe: str | None = None) -> ReproduceConfig:
    return launch.compose("reproduce", [[*launch.recipe_overrides("reproduce", recipe), *overrides]])[0]


def planned(recipe: str) -> list[Step]:
    return reproduce.steps(replace(composed(recipe=recipe), device="cpu"), Path("root"), "text")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_plan_can_be_done(recipe):
    """Every step is named once, after what it needs, in a folder of its own, for a line of evidence."""
    plan, seen = planned(recipe), set()
    for step in plan:
        assert set(step.needs) | set(step.after) <= seen
        assert step.name not in seen
        seen.add(step.name)
    assert len({step.folder for step in plan}) == len(plan)
    assert {step.line for step in plan} == {0, 1, 2, 3, 4, 5, 6}
    assert plan[-1].name == "report" and plan[-1].always


def test_quick_is_the_default():
    assert composed() == composed(recipe="quick")


def test_laptop_goes_on_from_quick():
    """All that quick trains and measures of single models has the same key in laptop."""
    quick, laptop = (keys_of(planned(recipe)) for recipe in ("quick", "laptop"))
    joint = {"pertoken-pca", "smear", "compare", "report"}
    assert {name: key for name, key in quick.items() if name not in joint}.items() <= laptop.items()


def test_removals_and_circuits_only_where_a_claim_needs_them():
    names = [step.name for step in planned("laptop")]
    assert [name for name in names if name.startswith("ablate")] == [
        f"ablate layers_{depth}_seed_{seed}" for seed in range(3) for depth in (2, 3)
    ]
    assert [name for name in names if name.startswith("circuits")] == [
        f"circuits layers_2_seed_{seed}" for seed in range(3)
    ]
    assert "generalize smollm2" in names


@pytest.mark.parametrize("recipe", ("smoke", "laptop", "paper"))
def test_what_is_typed_asks_for_the_same(recipe, tmp_path, monkeypatch):
    """Each command line, composed as the command line composes it, gives the configuration of its step."""
    monkeypatch.chdir(tmp_path)
    for step in planned(recipe):
        assert shlex.split(step.command)[0] == "induction"
        (tmp_path / "root" / step.folder).mkdir(parents=True, exist_ok=True)
    for step in planned(recipe):
        name, *rest = shlex.split(step.command)[1:]
        places = [text for text in rest if "=" not in text]
        command = name.replace("-", "_")
        schema = launch.schema_of(command)
        overrides = [*launch.run_dir_overrides(schema, places)] if places else []
        asked = launch.compose(command, [[*overrides, *(text for text in rest if "=" in text)]])[0]
        assert same_settings(asked, step.config), step.command


def test_a_missing_extra_is_said(monkeypatch):
    monkeypatch.setattr(reproduce, "find_spec", lambda name: None)
    [step] = [step for step in planned("laptop") if step.name == "generalize smollm2"]
    assert step.missing == "pip install 'induction[pretrained]' first"


def test_workers():
    assert reproduce.n_workers(ReproduceConfig(device="cpu", workers=3)) == 3
    assert reproduce.n_workers(ReproduceConfig(device="cpu")) >= 1
    assert reproduce.threads(ReproduceConfig(device="cpu")) == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("smeared_layers=[5]", "there is no twin to compare"),
        ("seeds=[]", "seeds is empty"),
        ("seeds=[1,1]", "seeds has one twice"),
        ("model.d_mlp=7", "asked for by mlp_layers"),
        ("model.smeared_keys=true", "asked for by smeared_layers"),
        ("workers=-1", "workers is -1"),
        ("score.n_examples=0", "n_examples is 0"),
    ],
)
def test_bad_settings_are_one_line(override, said):
    with pytest.raises(ConfigError, match=said):
        composed(override)


# ------------------------------------------------------------------------------------------------ going on


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The plan of the smoke recipe without its analyses, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INDUCTION_CACHE", str(tmp_path / "cache"))
    whole = reproduce.steps
    monkeypatch.setattr(reproduce, "steps", lambda *a: [step for step in whole(*a) if step.room == TRAINING][:1])
    return composed("tokens=10_000", "snapshots.linear=2", "device=cpu", recipe="smoke")


def test_the_same_folder_is_gone_on_with(small, capsys):
    parent = Path("runs/reproduce")
    assert reproduce.folder_to_go_on_with(small, parent) is None
    reproduce.run(small, parent / "1")
    run = RunDir(parent / "1/train/layers_1_seed_0")
    assert run.meta()["status"] == "done"
    assert reproduce.folder_to_go_on_with(replace(small, workers=3), parent) == parent / "1"
    assert reproduce.folder_to_go_on_with(replace(small, tokens=20_000), parent) is None
    assert reproduce.folder_to_go_on_with(replace(small, fresh=True), parent) is None
    capsys.readouterr()
    reproduce.run(small, parent / "1")
    out = capsys.readouterr().out
    assert "going on with runs/reproduce/1" in out and "1 of 1 steps are done already" in out


def test_finished_runs_are_taken_over(small, tmp_path, capsys):
    reproduce.run(small, tmp_path / "one" / "1")
    weights = "train/layers_1_seed_0/snapshots/step_000000.safetensors"
    for name, more in (("sibling", {}), ("named", {"reuse": [str(tmp_path / "one/1/train")], "fresh": True})):
        out = tmp_path / ("one" if name == "sibling" else "two") / name
        capsys.readouterr()
        reproduce.run(replace(small, **more), out)
        assert "reused" in capsys.readouterr().out
        assert (out / weights).stat().st_ino == (tmp_path / "one/1" / weights).stat().st_ino


def test_a_failed_step_ends_the_command_with_status_1(small, tmp_path, monkeypatch, capsys):
    plan = reproduce.steps

    def broken(*arguments):
        return [replace(step, room="induction_cli.evidence.nowhere", folder="x") for step in plan(*arguments)]

    monkeypatch.setattr(reproduce, "steps", broken)
    with pytest.raises(RunError, match=r"1 of 1 steps failed \(train layers_1_seed_0\)"):
        reproduce.run(small, tmp_path / "out")
    out = capsys.readouterr().out
    assert "failed  train layers_1_seed_0: ModuleNotFoundError" in out


def test_the_command_goes_on(tmp_path, monkeypatch):
    """launch hands the command the folder that the room chose."""
    monkeypatch.chdir(tmp_path)
    begun = tmp_path / "runs" / "reproduce" / "begun"
    begun.mkdir(parents=True)
    seen = []

    class Room:
        @staticmethod
        def folder_to_go_on_with(config, parent):
            return begun

        @staticmethod
        def run(config, out_dir):
            seen.append((config, out_dir))
            return 0.0

    monkeypatch.setattr(launch, "room_of", lambda command: Room)
    assert cli.run(["reproduce", "-e", "smoke"]) == 0
    assert seen[0][1].resolve() == begun and isinstance(seen[0][0], config.ReproduceConfig)


def test_runs_that_other_code_trained_are_not_taken_over(small, tmp_path, capsys):
    reproduce.run(small, tmp_path / "one" / "1")
    run = RunDir(tmp_path / "one/1/train/layers_1_seed_0")
    run.write_meta(sources_sha256="of another day")
    capsys.readouterr()
    reproduce.run(replace(small, reuse=[str(run.path)], fresh=True), tmp_path / "two" / "1")
    out = capsys.readouterr().out
    assert "not reused: other code trained" in out and "done     train layers_1_seed_0" in out

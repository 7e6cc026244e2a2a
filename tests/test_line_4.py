"""Line 4: for each claim models that support it, that do not, that cannot say; and which models are looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table
from scored_runs import SPREAD, reasons, values, verdict

from induction_cli.config import ModelConfig, TrainConfig
from induction_cli.runs.run_dir import RunDir

LITERAL = "literal_copying_less_other_heads_of_the_layers"
ACCURACY, LOST = "pattern_accuracy", "pattern_accuracy_lost_beyond_random"
NAN = float("nan")
BEHAVIOURS = {"4b": "translation", "4c": "pattern_matching", "6d": "prefix_matching"}


def room(
    folder: Path,
    name: str,
    seed: int | None = None,
    literal: float = 0.5,
    accuracy: float = 0.6,
    lost: float = 0.2,
    error: float = 0.0005,
    random: float = 0.4,
    shuffled: float = 0.3,
    induction: bool = True,
    note: str = "",
    null_type: str = "induction",
) -> RunDir:
    """A room of `generalize`: of a run where there is a seed, else of a pretrained model. error: of the first of two
    heads; random, shuffled: of a head of its nulls. note: why nothing applies."""
    made = RunDir(folder)
    claims = [[LITERAL, literal, NAN], [ACCURACY, accuracy, accuracy - 0.05], [LOST, lost, NAN]]
    table = pd.DataFrame(claims, columns=["statistic", "value", "low"])
    write_table(made, "claims", table.assign(remark=np.where(table.value.isna(), "no induction heads", "")))
    heads = [
        {"layer": 0, "head": head, "behaviour": behaviour, "error": NAN if note else value, "note": note}
        | {"head_type": "induction" if induction and head == 0 else "other"}
        for behaviour in BEHAVIOURS.values()
        for head, value in enumerate((error, 0.9))
    ]
    write_table(made, "head_behaviours", pd.DataFrame(heads))
    nulls = [
        {"model": null, "layer": 0, "head": 0, "behaviour": behaviour, "error": value, "head_type": null_type}
        for behaviour in BEHAVIOURS.values()
        for null, value in (("random weights", random), ("shuffled heads", shuffled))
    ]
    write_table(made, "null_behaviours", pd.DataFrame(nulls))
    source = {"source": name, "pretrained": seed is None, "seed": seed, "n_layers": 2}
    write_table(made, "source", pd.DataFrame([source]))
    return made


def run_room(folder: Path, seed: int, **changes) -> RunDir:
    run = RunDir(folder / f"run_{seed}")
    run.write_config(TrainConfig(model=ModelConfig(n_layers=2), seed=seed))
    return room(run.path / "generalize", run.name, seed, **changes)


def models(folder: Path, claim: str, **changes) -> Path:
    """Three runs for 4a, three pretrained models for the others; a number that is given varies a little."""
    for i, by in enumerate(SPREAD):
        varied = {k: v + by if k in ("literal", "lost") else v for k, v in changes.items()}
        if claim == "4a":
            run_room(folder, i, **varied)
        else:
            room(folder / f"2026-01-0{i}", f"model {i}", None, **varied)
    return folder


YES = {"4a": {"literal": 0.5}, "4b": {}, "4c": {}, "4d": {"lost": 0.2}, "6d": {}}
NO = {"4a": {"literal": -0.3}, "4d": {"lost": -0.3}, **{claim: {"error": 0.4} for claim in BEHAVIOURS}}
UNKNOWN = {
    "4a": ({"literal": NAN}, "no induction heads"),
    "4d": ({"accuracy": 0.28}, "no better than chance at the task"),
    "4b": ({"note": "needs 101 tokens"}, "needs 101 tokens"),
    "4c": ({"induction": False}, "no head qualifies as an induction head"),
    "6d": ({"note": "needs 101 tokens"}, "needs 101 tokens"),
}


@pytest.mark.parametrize("claim", YES)
def test_models_that_support_it(tmp_path, claim):
    assert verdict(claim, models(tmp_path, claim, **YES[claim])).verdict == "supported"


@pytest.mark.parametrize("claim", YES)
def test_models_that_do_not(tmp_path, claim):
    assert verdict(claim, models(tmp_path, claim, **NO[claim])).verdict == "not supported"


@pytest.mark.parametrize("claim", YES)
def test_models_that_cannot_say(tmp_path, claim):
    changes, why = UNKNOWN[claim]
    found = verdict(claim, models(tmp_path, claim, **changes))
    assert found.verdict == "not tested" and why in found.missing
    assert reasons(claim, tmp_path) == [why] * 3


# ------------------------------------------------------------------------------------------------ existence


def test_one_model_is_enough_for_what_exists(tmp_path):
    room(tmp_path, "smollm2")
    for claim in BEHAVIOURS:
        found = verdict(claim, tmp_path)
        assert found.verdict == "supported" and found.headline
        assert "0 with random weights, 0 with heads shuffled between layers" in found.note


def test_heads_that_random_weights_have_too_show_nothing(tmp_path):
    room(tmp_path, "smollm2", random=0.0005)
    assert verdict("6d", tmp_path).verdict == "inconclusive"


def test_a_null_counts_against_induction_heads_where_it_has_such_heads(tmp_path):
    """With random weights a head may differ from its control by next to nothing, but clearly: no induction head."""
    room(tmp_path, "smollm2", random=0.0005, null_type="other")
    assert verdict("6d", tmp_path).verdict == "supported"
    assert verdict("4b", tmp_path).verdict == "inconclusive"  # any head that translates without weights is too many


def test_heads_of_shuffled_models_are_counted_and_decide_nothing(tmp_path):
    room(tmp_path, "smollm2", shuffled=0.0005)
    found = verdict("6d", tmp_path)
    assert found.verdict == "supported" and "1 with heads shuffled between layers" in found.note


def test_only_pretrained_models_show_that_pretrained_models_have_such_heads(tmp_path):
    run_room(tmp_path, 0)
    assert verdict("6d", tmp_path).verdict == "not tested" and verdict("4b", tmp_path).verdict == "supported"


def test_rooms_without_nulls_say_what_to_do(tmp_path):
    room(tmp_path, "smollm2").table_file("null_behaviours").unlink()
    assert reasons("4b", tmp_path) == ["measured without its nulls: induction generalize again"]


# ------------------------------------------------------------------------------------------------ which models


def test_runs_and_pretrained_models_are_classes_of_their_own(tmp_path):
    for seed in (4, 4, 5):
        run_room(tmp_path, seed)
    room(tmp_path / "generalize", "smollm2")
    assert values("4a", tmp_path) == [0.5, 0.5]
    assert [one.seed for one in verdict("4a", tmp_path).estimates] == [4, 5]
    assert [one.run for one in verdict("4a", tmp_path, model_class="pretrained").estimates] == ["smollm2"]


def test_a_room_is_found_once_and_the_last_of_a_pretrained_model_counts(tmp_path):
    run_room(tmp_path / "runs", 0)
    run = tmp_path / "runs" / "run_0"
    for paths in ([run], [run.parent], [run / "generalize"], [run, run.parent]):
        assert len(verdict("4a", *paths).estimates) == 1
    room(tmp_path / "made" / "2026-01-01", "smollm2", literal=0.1)
    room(tmp_path / "made" / "2026-01-02", "smollm2")
    assert values("4a", tmp_path / "made", model_class="pretrained") == [0.5]


def test_the_joint_room_of_a_folder_of_runs_is_no_model(tmp_path):
    write_table(RunDir(tmp_path / "generalize"), "head_behaviours", pd.DataFrame({"layer": [0]}))
    assert verdict("4a", tmp_path).estimates == ()

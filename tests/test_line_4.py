"""Verdicts of argument 4 from tables: models in which a claim holds, fails, straddles, and cannot be decided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table

from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import CLAIMS, decide
from induction_cli.verdicts.decide import Effect

HOLDS: dict[str, tuple] = {  # value, low, high of each statistic
    "literal_copying_less_other_heads_of_the_layers": (0.5, 0.4, 0.6),
    "translation_induction_heads_above_control": (3, np.nan, np.nan),
    "pattern_matching_induction_heads_above_control": (2, np.nan, np.nan),
    "pattern_accuracy": (0.6, 0.5, 0.7),
    "pattern_accuracy_lost_beyond_random": (0.2, 0.1, 0.3),
    "induction_heads": (8, np.nan, np.nan),
    "induction_heads_with_random_weights": (0, np.nan, np.nan),
}
NONE = (np.nan, np.nan, np.nan)
LITERAL, TRANSLATION, PATTERN, ACCURACY, LOST, HEADS, CONTROL = HOLDS
CASES = {
    ("4a", False): {LITERAL: (-0.1, -0.2, -0.05)},
    ("4a", None): {LITERAL: (0.1, -0.1, 0.3)},
    ("4b", False): {TRANSLATION: (0, np.nan, np.nan)},
    ("4c", False): {PATTERN: (0, np.nan, np.nan)},
    ("4d", False): {LOST: (-0.2, -0.3, -0.1)},
    ("4d", None): {LOST: (0.1, -0.1, 0.3)},
    ("6d", False): {CONTROL: (8, np.nan, np.nan)},
} | {(claim, True): {} for claim in ("4a", "4b", "4c", "4d", "6d")}
NAMES = {True: "supported", False: "not supported", None: "inconclusive"}


def room(folder: Path, name: str, seed: int | None = None, changes: dict | None = None) -> RunDir:
    """A room of `generalize`: of a run where there is a seed, else of a pretrained model."""
    made = RunDir(folder)
    rows = [[statistic, *numbers] for statistic, numbers in (HOLDS | (changes or {})).items()]
    write_table(made, "claims", pd.DataFrame(rows, columns=["statistic", "value", "low", "high"]))
    write_table(made, "head_behaviours", pd.DataFrame({"layer": [0]}))
    write_table(made, "source", pd.DataFrame([{"source": name, "pretrained": seed is None, "seed": seed}]))
    return made


def pretrained(folder: Path, changes: dict | None = None, count: int = 3) -> None:
    for i in range(count):
        room(folder / f"2026-01-0{i}", f"model {i}", None, changes)


@pytest.mark.parametrize(("claim", "holds"), CASES)
def test_each_claim_holds_fails_and_straddles(tmp_path, claim, holds):
    pretrained(tmp_path, CASES[claim, holds])
    effects = CLAIMS[claim]([tmp_path])
    assert [effect.holds for effect in effects] == [holds] * 3
    assert decide(claim, effects).verdict == NAMES[holds]


def only(effects: list[Effect]) -> Effect:
    (effect,) = effects
    return effect


@pytest.mark.parametrize("claim", ["4a", "4b", "4c", "4d", "6d"])
def test_one_pretrained_model_is_one_seed(tmp_path, claim):
    pretrained(tmp_path, count=1)
    found = decide(claim, CLAIMS[claim]([tmp_path]))
    assert (found.verdict, found.note) == ("inconclusive", "one run, for it")


@pytest.mark.parametrize("claim", ["4a", "4b", "4c", "4d", "6d"])
def test_what_does_not_apply_gives_no_effect(tmp_path, claim):
    pretrained(tmp_path, dict.fromkeys(HOLDS, NONE))
    assert decide(claim, CLAIMS[claim]([tmp_path])).verdict == "not tested"


def test_a_model_no_better_than_chance_cannot_decide_4d(tmp_path):
    pretrained(tmp_path, {ACCURACY: (0.3, 0.25, 0.36)})
    effects = CLAIMS["4d"]([tmp_path])
    assert {effect.holds for effect in effects} == {None} and "no better than chance" in effects[0].run
    assert decide("4d", effects).verdict == "inconclusive"
    pretrained(tmp_path, {ACCURACY: NONE})
    assert CLAIMS["4d"]([tmp_path]) == []


def test_runs_count_by_seed_and_not_as_pretrained_models(tmp_path):
    for seed in (4, 4, 5):
        room(tmp_path / f"run {seed}" / "generalize", f"run {seed}", seed)
    effects = CLAIMS["4a"]([tmp_path])
    assert [effect.seed for effect in effects] == [4, 5]
    assert CLAIMS["6d"]([tmp_path]) == []
    pretrained(tmp_path / "generalize", count=1)
    found = decide("4a", CLAIMS["4a"]([tmp_path, tmp_path / "generalize"]))
    assert (found.verdict, found.note) == ("supported", "3 runs")  # seeds 4 and 5, and one pretrained model


def test_more_random_heads_than_real_ones_fail_6d(tmp_path):
    pretrained(tmp_path, {HEADS: (1, np.nan, np.nan), CONTROL: (1, np.nan, np.nan)}, count=1)
    assert only(CLAIMS["6d"]([tmp_path])).holds is False
    pretrained(tmp_path, {HEADS: (0, np.nan, np.nan)}, count=1)
    assert only(CLAIMS["6d"]([tmp_path])).holds is False


def test_a_room_is_found_once_and_the_last_of_a_pretrained_model_counts(tmp_path):
    run = tmp_path / "runs" / "a"
    room(run / "generalize", "a", 0)
    for path in ([run], [run.parent], [run / "generalize"], [run, run.parent]):
        assert len(CLAIMS["4a"](path)) == 1
    room(tmp_path / "made" / "2026-01-01", "smollm2", None, {LITERAL: (0.1, 0.0, 0.2)})
    room(tmp_path / "made" / "2026-01-02", "smollm2")
    assert only(CLAIMS["4a"]([tmp_path / "made"])).value == 0.5


def test_the_joint_room_of_a_folder_of_runs_is_no_model(tmp_path):
    joint = RunDir(tmp_path / "generalize")
    write_table(joint, "head_behaviours", pd.DataFrame({"layer": [0]}))
    assert CLAIMS["4a"]([tmp_path]) == []

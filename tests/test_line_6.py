"""Line 6: for each claim models that support it, that do not, that cannot say; and the numbers themselves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hand_made import write_table
from scored_runs import SPREAD, reasons, scored, values, verdict

from induction_cli.runs.run_dir import RunDir

SEEDS = (0, 1, 2)
NAN = float("nan")
CLASS = {"c1": "2 layers"}


def runs(folder: Path, mlps: bool = True, depths=(2, 3), **changes) -> Path:
    """Depths, with MLPs and without, in three seeds, and what must not count: one layer, and smeared keys."""
    for seed, by in enumerate(SPREAD):
        varied = {"window": {"fall": 0.4 + by}, "induction": 500 + 100 * by} | changes
        for n_layers in depths:
            for d_mlp in (0, 8) if mlps else (0,):
                scored(folder, n_layers, seed, d_mlp=d_mlp, **varied)
        scored(folder, 1, seed)
        scored(folder, 2, seed, smeared=True, window={})
    return folder


def room(folder: Path, **tables: pd.DataFrame) -> RunDir:
    """A room of compare: models of two depths, with MLPs and one layer, three seeds, and smeared ones."""
    found = RunDir(folder)
    kinds = [("attention-only", 1, 5), ("attention-only", 2, 10), ("attention-only", 3, 15), ("with MLPs", 2, 20)]
    kinds += [("smeared keys", 2, 10)]
    models = [(f"{g} {n} {s}", g, n, s, p) for g, n, p in kinds for s in SEEDS]
    write_table(found, "models", pd.DataFrame(models, columns=["run", "group", "n_layers", "seed", "parameters"]))
    empty = {
        "spreads": ["seed", "when", "spread"],
        "path_turns": ["kind", "run", "other", "correlation"],
        "learning_speed": ["run", "group", "n_layers", "parameters", "seed", "score_slope", *SLOPES],
    }
    for name, columns in empty.items():
        write_table(found, name, tables.get(name, pd.DataFrame(columns=columns)))
    return found


SLOPES = ["loss_slope_before", "loss_slope_after"]


def spreads(before: float, after: float, seeds=SEEDS) -> pd.DataFrame:
    rows = [[s, w, v + SPREAD[s]] for s in seeds for w, v in (("before", before), ("after", after))]
    return pd.DataFrame(rows, columns=["seed", "when", "spread"])


def turns(alike: float, control: float, controls: bool = True) -> pd.DataFrame:
    """Correlations of turns of models of other classes and seeds, and with one-layer controls; all others are 9."""
    deep = [("attention-only", 2), ("attention-only", 3), ("with MLPs", 2)]
    models = [(f"{group} {n} {seed}", (group, n), seed) for group, n in deep for seed in SEEDS]
    rows = []
    for i, (a, kind_a, seed_a) in enumerate(models):
        for b, kind_b, seed_b in models[i + 1 :]:
            counts = kind_a != kind_b and seed_a != seed_b
            rows.append(["turn", a, b, alike + SPREAD[seed_a] if counts else 9])
        for seed in SEEDS if controls else ():
            rows.append(["control", a, f"attention-only 1 {seed}", control if seed != seed_a else -9])
        rows.append(["turn", a, "smeared keys 2 0", -9])
    return pd.DataFrame(rows, columns=["kind", "run", "other", "correlation"])


def speeds(slope: float = 0.0, before=(1, 2), after=(2, 1), sizes=(2, 3)) -> pd.DataFrame:
    """Two sizes in six seeds; before, after: slopes of the smaller and of the larger."""
    rows = [
        [f"attention-only {n} {s}", "attention-only", n, 5 * n, s, slope + SPREAD[s % 3], before[i] + s / 100, after[i]]
        for i, n in enumerate(sizes)
        for s in range(6)
    ]
    return pd.DataFrame(rows, columns=["run", "group", "n_layers", "parameters", "seed", "score_slope", *SLOPES])


CASES = {
    "6b": ("spreads", spreads(0.05, 0.05), spreads(0.05, 0.4)),
    "6c": ("path_turns", turns(0.4, 0.1), turns(0.1, 0.4)),
    "c1": ("learning_speed", speeds(0.0), speeds(-0.3)),
    "c2": ("learning_speed", speeds(), speeds(after=(1, 2))),
}
UNKNOWN = {
    "6c": (turns(0.4, 0.1, controls=False), "no one-layer control of another seed"),
    "c1": (speeds(NAN), "too few snapshots after its window"),
    "c2": (speeds(sizes=(2,)), "fewer than two sizes that changed"),
}


@pytest.mark.parametrize("claim", CASES)
def test_models_that_support_it(tmp_path, claim):
    name, yes, _ = CASES[claim]
    room(tmp_path / "compare", **{name: yes})
    assert verdict(claim, tmp_path).verdict == "supported"


@pytest.mark.parametrize("claim", CASES)
def test_models_that_do_not(tmp_path, claim):
    name, _, no = CASES[claim]
    room(tmp_path / "compare", **{name: no})
    assert verdict(claim, tmp_path).verdict == "not supported"


@pytest.mark.parametrize("claim", UNKNOWN)
def test_models_that_cannot_say(tmp_path, claim):
    table, why = UNKNOWN[claim]
    room(tmp_path / "compare", **{CASES[claim][0]: table})
    assert verdict(claim, tmp_path).verdict == "not tested" and set(reasons(claim, tmp_path)) == {why}


@pytest.mark.parametrize("claim", ["6a", *CASES])
def test_claim_goes_untested_where_there_is_nothing_to_compare(tmp_path, claim):
    assert verdict(claim, tmp_path).verdict == "not tested"
    room(tmp_path / "compare")
    assert verdict(claim, tmp_path).verdict == "not tested"


# ------------------------------------------------------------------------------------------------ 6a


def test_6a_is_supported_where_1a_and_1c_are_in_every_class(tmp_path):
    found = verdict("6a", runs(tmp_path))
    assert found.verdict == "supported"
    for name in ("2 layers", "3 layers", "2 layers, MLPs", "3 layers, MLPs"):
        assert f"1a in {name}: supported" in found.note and f"1c in {name}: supported" in found.note


def test_6a_falls_with_one_class_in_which_heads_form_elsewhere(tmp_path):
    runs(tmp_path)
    for seed, by in enumerate(SPREAD):
        scored(tmp_path, 3, seed, d_mlp=8, window={"fall": 0.4 + by}, induction=900 + 100 * by)
    found = verdict("6a", tmp_path)
    assert found.verdict == "not supported" and "1c in 3 layers, MLPs: not supported" in found.note


def test_6a_needs_two_depths_and_mlps_in_enough_seeds(tmp_path):
    found = verdict("6a", runs(tmp_path / "a", mlps=False))
    assert found.verdict == "not tested" and found.missing == "a model with MLPs: induction reproduce -e laptop"
    assert verdict("6a", runs(tmp_path / "b", depths=(2,))).missing.startswith("a second depth: ")
    scored(tmp_path / "a", 2, 0, d_mlp=8)
    assert verdict("6a", tmp_path / "a").verdict == "not tested"


# ------------------------------------------------------------------------------------------------ the numbers


def test_6b_needs_both_spreads_below(tmp_path):
    room(tmp_path, spreads=spreads(0.4, 0.05))
    found = verdict("6b", tmp_path)
    assert found.verdict == "not supported" and found.decisive.part.name == "before"


def test_6c_is_of_other_classes_and_seeds_less_the_controls(tmp_path):
    room(tmp_path, path_turns=turns(0.4, 0.1))
    assert values("6c", tmp_path) == pytest.approx([0.3, 0.3, 0.3], abs=0.03)


def test_6c_of_one_seed_cannot_be_said(tmp_path):
    table = turns(0.4, 0.1)
    room(tmp_path, path_turns=table[table.run.str.endswith("0") & table.other.str.endswith("0")])
    assert verdict("6c", tmp_path).verdict == "not tested"


def test_c1_has_a_row_for_every_class(tmp_path):
    room(tmp_path, learning_speed=speeds(0.0))
    assert verdict("c1", tmp_path, model_class="3 layers").verdict == "supported"


def test_only_the_largest_comparison_counts(tmp_path):
    """Rooms of the same runs would count them twice."""
    room(tmp_path / "compare", spreads=spreads(0.05, 0.05))
    smaller = room(tmp_path / "runs" / "compare", spreads=spreads(0.9, 0.9))
    write_table(smaller, "models", smaller.table("models").head(2))
    assert values("6b", tmp_path, tmp_path / "runs") == pytest.approx([0.05 + by for by in SPREAD])

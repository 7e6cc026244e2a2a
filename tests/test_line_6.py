"""Verdicts of line 6: every claim can succeed, fail, straddle and go untested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table
from test_verdicts import WINDOW, scored

from induction_cli.config import ModelConfig, TrainConfig
from induction_cli.runs.files import beside
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import CLAIMS, decide, load_claims

IDS = ("6a", "6b", "6c", "c1", "c2")
NAMES = {True: "supported", False: "not supported", None: "inconclusive"}
SEEDS = (0, 1, 2)


def runs(folder: Path, **changes) -> None:
    """Two depths, with MLPs and without, in three seeds, and what must not count: one layer, and smeared keys."""
    for seed in SEEDS:
        for n_layers in (2, 3):
            scored(folder, n_layers, seed, **changes)
            with_mlps(scored(folder / "mlp", n_layers, seed, **changes))
        scored(folder, 1, seed)
        scored(folder, 2, seed, smeared=True, window={})


def with_mlps(path: Path) -> None:
    run = RunDir(path)
    config = run.config()
    run.write_config(TrainConfig(model=ModelConfig(n_layers=config.model.n_layers, d_mlp=7), seed=config.seed))


def room(folder: Path, **tables: pd.DataFrame) -> RunDir:
    """A room of compare: models of two depths, two kinds and three seeds, and smeared ones that must not count."""
    found = RunDir(folder)
    kinds = [("attention-only", 2, 10), ("attention-only", 3, 15), ("with MLPs", 2, 20), ("smeared keys", 2, 10)]
    models = [(f"{g} {n} {s}", g, n, s, p) for g, n, p in kinds for s in SEEDS]
    table = pd.DataFrame(models, columns=["run", "group", "n_layers", "seed", "parameters"])
    empty = {"spreads": ["seed", "when", "spread", "low", "high"], "path_turns": ["kind", "run", "other", *ENDS]}
    empty["learning_speed"] = ["run", "group", "parameters", "seed", "score_slope", "low", "high", *SLOPES]
    for name, columns in empty.items():
        write_table(found, name, tables.get(name, pd.DataFrame(columns=columns)))
    write_table(found, "models", table)
    return found


ENDS = ["correlation", "low", "high"]
SLOPES = ["loss_slope_before", "loss_slope_after"]


def spreads(*rows: tuple[float, float, float]) -> pd.DataFrame:
    """before: small; after: value, low, high of each seed."""
    table = [
        [s, w, *r] for s, row in zip(SEEDS, rows, strict=True) for w, r in (("before", (0.01, 0, 0.02)), ("after", row))
    ]
    return pd.DataFrame(table, columns=["seed", "when", "spread", "low", "high"])


def turns(value: float, low: float, high: float, same_seed: float = 9) -> pd.DataFrame:
    """How much alike pairs of models of other sizes and seeds turn; all other pairs, and controls, do otherwise."""
    names = [("attention-only", 2), ("attention-only", 3), ("smeared keys", 2)]
    models = [(f"{group} {n} {seed}", group, n, seed) for group, n in names for seed in SEEDS]
    rows = []
    for i, (a, group_a, n_a, seed_a) in enumerate(models):
        for b, group_b, n_b, seed_b in models[i + 1 :]:
            other = (group_a, n_a) == (group_b, n_b) or seed_a == seed_b or "smeared keys" in (group_a, group_b)
            rows.append(["turn", a, b, *((same_seed,) * 3 if other else (value, low, high))])
            rows.append(["control", a, b, -9, -9, -9])
    return pd.DataFrame(rows, columns=["kind", "run", "other", *ENDS])


def speeds(slope: tuple[float, float, float] = (0, -0.01, 0.01), before=(1, 2), after=(2, 1)) -> pd.DataFrame:
    """Two sizes in three seeds; before, after: slopes of the smaller and of the larger."""
    rows = [
        [f"attention-only {n} {s}", "attention-only", p, s, *slope, before[i] + s / 100, after[i] + s / 100]
        for i, (n, p) in enumerate(((2, 10), (3, 15)))
        for s in SEEDS
    ]
    columns = ["run", "group", "parameters", "seed", "score_slope", "low", "high", *SLOPES]
    return pd.DataFrame(rows, columns=columns)


def prepare(folder: Path, claim: str, holds: bool | None) -> list[Path]:
    if claim == "6a":
        window = {True: WINDOW, False: {}, None: WINDOW | {"fall_low": 0.05}}[holds]
        runs(folder, window=window)
        return [folder, folder / "mlp"]
    tables = {
        ("6b", True): {"spreads": spreads(*[(0.1, 0.05, 0.14)] * 3)},
        ("6b", False): {"spreads": spreads(*[(0.3, 0.2, 0.4)] * 3)},
        ("6b", None): {"spreads": spreads(*[(0.1, 0.05, 0.16)] * 3)},
        ("6c", True): {"path_turns": turns(0.3, 0.1, 0.5)},
        ("6c", False): {"path_turns": turns(-0.3, -0.5, -0.1)},
        ("6c", None): {"path_turns": turns(0.3, -0.1, 0.7)},
        ("c1", True): {"learning_speed": speeds((-0.01, -0.04, 0.02))},
        ("c1", False): {"learning_speed": speeds((-0.2, -0.3, -0.1))},
        ("c1", None): {"learning_speed": speeds((-0.04, -0.06, 0.02))},
        ("c2", True): {"learning_speed": speeds()},
        ("c2", False): {"learning_speed": speeds(after=(1, 2))},
        ("c2", None): {"learning_speed": speeds(after=(1, 1))},
    }[claim, holds]
    room(folder / "compare", **tables)
    return [folder]


@pytest.mark.parametrize("holds", NAMES)
@pytest.mark.parametrize("claim", IDS)
def test_claim_succeeds_fails_and_straddles(tmp_path, claim, holds):
    found = decide(claim, CLAIMS[claim](prepare(tmp_path, claim, holds)))
    assert found.verdict == NAMES[holds] and {effect.holds for effect in found.effects} == {holds}
    for effect in found.effects:
        assert effect.low <= effect.value <= effect.high or np.isnan(effect.low)


@pytest.mark.parametrize("claim", IDS)
def test_claim_goes_untested_where_there_is_nothing_to_compare(tmp_path, claim):
    assert CLAIMS[claim]([tmp_path]) == []
    room(tmp_path / "compare")
    assert CLAIMS[claim]([tmp_path]) == []


def test_claims_are_in_the_file_with_all_that_a_reader_needs():
    claims = {claim["id"]: claim for claim in load_claims(beside("experiments") / "claims.yaml")}
    for name in IDS:
        assert claims[name]["argument"] == 6
        assert {"claim", "statistic", "rule", "strength", "recipe"} <= set(claims[name])


def test_6a_judges_every_deep_vanilla_run_by_1a_and_1c(tmp_path):
    runs(tmp_path)
    paths = [tmp_path, tmp_path / "mlp"]
    assert len(CLAIMS["6a"](paths)) == 12
    late = scored(tmp_path / "mlp", 3, 1, onsets={"induction": (900, 860, 940)})  # heads form after the window
    with_mlps(late)
    assert [effect.holds for effect in CLAIMS["6a"](paths)].count(False) == 1
    with_mlps(scored(tmp_path / "mlp", 3, 1, window={}))
    assert [effect.value for effect in CLAIMS["6a"](paths)].count(0.0) == 1


def test_6a_needs_two_depths_and_mlps(tmp_path):
    runs(tmp_path)
    assert CLAIMS["6a"]([tmp_path]) == []  # no MLPs: they are one folder down
    one_depth = tmp_path / "other"
    scored(one_depth, 2, 0)
    with_mlps(scored(one_depth / "mlp", 2, 0))
    assert CLAIMS["6a"]([one_depth, one_depth / "mlp"]) == []


def test_6b_takes_the_larger_spread_and_needs_both_below(tmp_path):
    table = spreads(*[(0.1, 0.05, 0.14)] * 3)
    table.loc[0, ["spread", "low", "high"]] = 0.4, 0.3, 0.5
    room(tmp_path, spreads=table)
    effects = CLAIMS["6b"]([tmp_path])
    assert [effect.holds for effect in effects] == [False, True, True]
    assert (effects[0].value, effects[1].value, effects[1].seed) == (0.4, 0.1, 1)


def test_6c_takes_pairs_of_one_seed_where_there_is_but_one(tmp_path):
    table = turns(0.3, 0.1, 0.5, same_seed=0.7)
    one = table[table.run.str.endswith("0") & table.other.str.endswith("0")]
    room(tmp_path, path_turns=one)
    effects = CLAIMS["6c"]([tmp_path])
    assert [effect.value for effect in effects] == [0.7, 0.7]
    assert decide("6c", effects).verdict == "inconclusive"


def test_c2_of_two_seeds_decides_nothing(tmp_path):
    table = speeds()
    room(tmp_path, learning_speed=table[table.seed < 2])
    assert {effect.holds for effect in CLAIMS["c2"]([tmp_path])} <= {None}


def test_only_the_largest_comparison_counts(tmp_path):
    """Rooms of the same runs would count them twice."""
    room(tmp_path / "compare", spreads=spreads(*[(0.1, 0.05, 0.14)] * 3))
    smaller = room(tmp_path / "runs" / "compare", spreads=spreads(*[(0.9, 0.8, 1)] * 3))
    write_table(smaller, "models", smaller.table("models").head(2))
    effects = CLAIMS["6b"]([tmp_path, tmp_path / "runs"])
    assert [effect.value for effect in effects] == [0.1] * 3

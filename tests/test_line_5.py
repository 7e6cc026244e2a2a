"""Verdicts of argument 5 from tables: runs in which a claim holds, fails and straddles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table

from induction_cli.config import ModelConfig, TrainConfig
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import CLAIMS, decide

INDUCTION = {(1, 0), (1, 2)}  # of two layers of three heads
HEADS = [(layer, head) for layer in range(2) for head in range(3)]


def taken_apart(
    folder: Path,
    seed: int = 0,
    eigenvalues: tuple[float, float] = (0.9, 0.8),
    trace: tuple[float, float] = (11.0, 7.0),
    others_trace: float = 2.0,
    ranks: tuple[int, ...] = (1, 1),
    shares: dict[tuple[str, str, str], tuple[float, float, float]] | None = None,
    agree: float = 1.0,
    **model,
) -> RunDir:
    """A run with the tables of `circuits` and `score`: two induction heads, each with a number of the pairs given."""
    run = RunDir(folder / f"run {seed}")
    run.write_config(TrainConfig(model=ModelConfig(**model), seed=seed))
    run.write_meta(status="done")
    room = run.folder("circuits")
    rows = []
    for layer, head in HEADS:
        kind = "induction" if (layer, head) in INDUCTION else "other"
        which = 1 if head == 2 else 0
        values = {
            "copying_eigenvalues": eigenvalues[which] if kind == "induction" else 0.1,
            "qk_trace": np.nan if layer == 0 else trace[which] if kind == "induction" else others_trace,
        }
        for step in (0, 9):  # the last one counts
            rows += [[step, layer, head, measure, value * (step > 0), kind] for measure, value in values.items()]
    write_table(room, "heads", pd.DataFrame(rows, columns=["step", "layer", "head", "measure", "value", "head_type"]))
    write_table(room, "composition_rank", pd.DataFrame({"rank": range(1, 1 + len(ranks)), "rank_apart": ranks}))
    kept = {
        ("text", "induction_together", "ideal copy"): (0.7, 0.6, 0.8),
        ("text", "induction_together", "ideal"): (0.99, 0.98, 1.0),  # with its own OV: not what is judged
        ("text", "induction", "ideal copy"): (0.99, 0.98, 1.0),
        ("repeats", "induction_together", "ideal copy"): (0.99, 0.98, 1.0),
    } | (shares or {})
    table = pd.DataFrame([[*key, *value] for key, value in kept.items()])
    table.columns = pd.Index(["on", "role", "variant", "share", "share_low", "share_high"])
    write_table(room, "ideal_head", table)
    random = np.random.default_rng(seed)
    scores = []
    for layer, head in HEADS:
        for activations, weights in (("copying", "copying_eigenvalues"), ("prefix_matching", "qk_trace")):
            value = random.normal()
            of_weights = agree * value + 0.1 * random.normal()
            scores += [[9, layer, head, activations, value], [0, layer, head, activations, 77.0]]
            scores += [[9, layer, head, weights, np.nan if weights == "qk_trace" and layer == 0 else of_weights]]
            scores += [[0, layer, head, weights, 77.0]]
    made = pd.DataFrame(scores, columns=["step", "layer", "head", "measure", "value"])
    write_table(run.folder("score"), "head_scores", made)
    return run


def share(*interval: float) -> dict:
    return {"shares": {("text", "induction_together", "ideal copy"): interval}}


CASES = {
    ("5a", True): {},
    ("5a", False): {"eigenvalues": (0.9, 0.4)},  # every induction head must
    ("5b", True): {},
    ("5b", False): {"others_trace": 20.0},
    ("5c", True): {},
    ("5c", False): {"agree": -1.0},
    ("5c", None): {"agree": 0.0},
    ("5d", True): {},
    ("5d", False): {"ranks": (1, 2)},
    ("5e", True): {},
    ("5e", False): share(0.4, 0.35, 0.45),
    ("5e", None): share(0.48, 0.45, 0.51),
}
NAMES = {True: "supported", False: "not supported", None: "inconclusive"}


@pytest.mark.parametrize(("claim", "holds"), CASES)
def test_each_claim_holds_fails_and_straddles(tmp_path, claim, holds):
    for seed in range(3):
        taken_apart(tmp_path, seed, **CASES[claim, holds])
    effects = CLAIMS[claim]([tmp_path])
    assert {effect.holds for effect in effects} == {holds}
    assert decide(claim, effects).verdict == NAMES[holds]
    assert sum(effect.runs for effect in effects) == 3


@pytest.mark.parametrize("claim", ["5a", "5b", "5c", "5d", "5e"])
def test_two_seeds_are_too_few_and_other_models_do_not_count(tmp_path, claim):
    for seed in range(2):
        taken_apart(tmp_path, seed)
    taken_apart(tmp_path, 2, d_mlp=64)
    taken_apart(tmp_path, 3, smeared_keys=True)
    taken_apart(tmp_path, 4, n_layers=1)
    found = decide(claim, CLAIMS[claim]([tmp_path]))
    assert (found.verdict, found.note) == ("inconclusive", "2 runs, for it")


def test_known_answers(tmp_path):
    taken_apart(tmp_path)
    (copy,) = CLAIMS["5a"]([tmp_path])
    assert (copy.value, copy.low, copy.high) == (0.8, 0.8, 0.9)
    (trace,) = CLAIMS["5b"]([tmp_path])
    assert (trace.value, trace.low, trace.high) == (9 - 2, 7 - 2, 11 - 2)
    (rank,) = CLAIMS["5d"]([tmp_path])
    assert rank.value == 1
    (kept,) = CLAIMS["5e"]([tmp_path])
    assert (kept.value, kept.low, kept.high) == (0.7, 0.6, 0.8)


def test_5c_is_the_weaker_of_the_two_correlations_over_the_heads_of_all_runs(tmp_path):
    for seed in range(3):
        taken_apart(tmp_path, seed)
    (effect,) = CLAIMS["5c"]([tmp_path])
    assert effect.run in ("copying, 18 heads", "prefix_matching, 9 heads") and effect.value > 0.9


def test_5d_is_of_two_layers(tmp_path):
    taken_apart(tmp_path, n_layers=3)
    assert CLAIMS["5d"]([tmp_path]) == [] and len(CLAIMS["5a"]([tmp_path])) == 1


def test_5e_takes_the_one_head_where_there_is_one_and_nothing_where_it_has_no_effect(tmp_path):
    run = taken_apart(tmp_path)
    room, table = run.folder("circuits"), run.folder("circuits").table("ideal_head")
    write_table(room, "ideal_head", table[table.role == "induction"])
    (effect,) = CLAIMS["5e"]([tmp_path])
    assert effect.value == 0.99
    write_table(room, "ideal_head", table[table.role == "induction"].assign(share=np.nan))
    assert CLAIMS["5e"]([tmp_path]) == []
    write_table(room, "ideal_head", table[:0])
    assert CLAIMS["5e"]([tmp_path]) == []


def test_a_run_without_induction_heads_says_nothing(tmp_path):
    run = taken_apart(tmp_path, ranks=())
    room, heads = run.folder("circuits"), run.folder("circuits").table("heads")
    write_table(room, "heads", heads.assign(head_type="other"))
    assert [CLAIMS[claim]([tmp_path]) for claim in ("5a", "5b", "5d")] == [[], [], []]

"""Line 5: for each claim runs that support it, that do not, that cannot say; and the numbers themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table
from scored_runs import SPREAD, reasons, values, verdict

from induction_cli.config import ModelConfig, TrainConfig
from induction_cli.runs.run_dir import RunDir

N_HEADS = 6
HEADS = [(layer, head) for layer in range(2) for head in range(N_HEADS)]
INDUCTION = [(1, 0), (1, 2)]
NAN = float("nan")


def taken_apart(
    folder: Path,
    seed: int = 0,
    eigenvalues: tuple[float, float] = (0.9, 0.8),
    trace: tuple[float, float] = (11.0, 7.0),
    ranks: tuple[int, int] = (1, 1),
    own: float = 0.8,
    copy: float = 0.7,
    agree: float = 1.0,
    heads: bool = True,
    **model,
) -> RunDir:
    """A run with the tables of `circuits` and `score`: two induction heads, each with a number of the pairs given; the
    others have QK traces 2 to 5. own, copy: share kept by ideal heads. heads=False: none qualifies."""
    run = RunDir(folder / f"run_{seed}")
    run.write_config(TrainConfig(model=ModelConfig(n_heads=N_HEADS, **model), seed=seed))
    run.write_meta(status="done")
    room, rows = run.folder("circuits"), []
    for layer, head in HEADS:
        mine = (layer, head) in INDUCTION
        which = INDUCTION.index((layer, head)) if mine else head
        numbers = {
            "copying_eigenvalues": eigenvalues[which] if mine else 0.1,
            "qk_trace": NAN if layer == 0 else trace[which] if mine else 2.0 + head - (head > 2),
        }
        kind = "induction" if mine and heads else "other"
        for step in (0, 9):  # the last one counts
            rows += [[step, layer, head, measure, value * (step > 0), kind] for measure, value in numbers.items()]
    write_table(room, "heads", pd.DataFrame(rows, columns=["step", "layer", "head", "measure", "value", "head_type"]))
    ranked = pd.DataFrame({"layer": 1, "head": [0, 2], "rank_apart": ranks, "pairs": N_HEADS**2})
    write_table(room, "composition_rank", ranked if heads else ranked[:0])
    kept = [
        ("text", "induction_together", "ideal copy", copy),
        ("text", "induction_together", "ideal", own),
        ("text", "induction", "ideal copy", 0.99),
        ("repeats", "induction_together", "ideal copy", 0.99),
    ]
    table = pd.DataFrame(kept, columns=["on", "role", "variant", "share"])
    write_table(room, "ideal_head", table if heads else table[:0])
    random, scores = np.random.default_rng(seed), []
    for layer, head in HEADS:
        for activations, weights in (("copying", "copying_eigenvalues"), ("prefix_matching", "qk_trace")):
            value = random.normal()
            of_weights = NAN if weights == "qk_trace" and layer == 0 else agree * value + 0.3 * random.normal()
            scores += [[9, layer, head, activations, value], [9, layer, head, weights, of_weights]]
            scores += [[0, layer, head, activations, 77.0], [0, layer, head, weights, 77.0]]
    made = pd.DataFrame(scores, columns=["step", "layer", "head", "measure", "value"])
    write_table(run.folder("score"), "head_scores", made)
    return run


def numbers(claim: str, case: str, by: float) -> dict:
    return {
        "5a": {"yes": {"eigenvalues": (0.9, 0.8 + by)}, "no": {"eigenvalues": (0.9, 0.2 + by)}},
        "5b": {"yes": {}, "no": {"trace": (2.5 + 50 * by, 2.6)}},
        "5c": {"yes": {}, "no": {"agree": -1.0}},
        "5d": {"yes": {}, "no": {"ranks": (1, 15 + round(100 * by))}},
        "5e": {"yes": {"own": 0.8 + by}, "no": {"own": 0.2 + by}},
        "5f": {"yes": {"copy": 0.7 + by}, "no": {"copy": 0.2 + by}},
    }[claim][case]


LINE = ("5a", "5b", "5c", "5d", "5e", "5f")


def six(folder: Path, claim: str, case: str) -> Path:
    """Six seeds: where all heads come first in every one of them, fewer decide nothing."""
    for seed in range(6):
        taken_apart(folder, seed, **numbers(claim, case, SPREAD[seed % 3]))
    return folder


@pytest.mark.parametrize("claim", LINE)
def test_runs_that_support_it(tmp_path, claim):
    found = verdict(claim, six(tmp_path, claim, "yes"))
    assert (found.verdict, found.n) == ("supported", 6)


@pytest.mark.parametrize("claim", LINE)
def test_runs_that_do_not(tmp_path, claim):
    found = verdict(claim, six(tmp_path, claim, "no"))
    assert (found.verdict, found.n) == ("not supported", 6)


@pytest.mark.parametrize("claim", sorted(set(LINE) - {"5c"}))
def test_runs_without_induction_heads_cannot_say(tmp_path, claim):
    for seed in range(3):
        taken_apart(tmp_path, seed, heads=False)
    assert verdict(claim, tmp_path).verdict == "not tested"
    assert reasons(claim, tmp_path) == ["no head qualifies as an induction head"] * 3


def test_5c_cannot_be_said_of_a_run_that_was_not_scored(tmp_path):
    taken_apart(tmp_path).folder("score").table_file("head_scores").unlink()
    assert reasons("5c", tmp_path) == ["not scored: induction score RUN"]


@pytest.mark.parametrize("claim", LINE)
def test_other_models_do_not_count(tmp_path, claim):
    taken_apart(tmp_path, 0, smeared_keys=True)
    taken_apart(tmp_path, 1, n_layers=1)
    taken_apart(tmp_path, 2, d_mlp=64)  # a class of its own
    assert verdict(claim, tmp_path).estimates == ()
    assert len(verdict(claim, tmp_path, model_class="2 layers, MLPs").estimates) == 1


# ------------------------------------------------------------------------------------------------ the numbers


def test_known_answers(tmp_path):
    taken_apart(tmp_path)
    assert values("5a", tmp_path) == [0.8]  # the lower of the two
    assert values("5b", tmp_path) == [1.0] and values("5d", tmp_path) == [1.0]
    assert values("5e", tmp_path) == [0.8] and values("5f", tmp_path) == [0.7]


def test_5b_is_the_share_of_pairs_in_which_the_induction_head_is_higher(tmp_path):
    taken_apart(tmp_path, trace=(11.0, 3.0))  # others: 3, 4, 5, 6 (heads 1, 3, 4, 5 less 0 or 1 and 2)
    others = [2.0 + head - (head > 2) for head in (1, 3, 4, 5)]
    expected = np.mean([(high > low) + (high == low) / 2 for high in (11.0, 3.0) for low in others])
    assert values("5b", tmp_path) == pytest.approx([expected])


def test_5d_is_the_lowest_rank_among_all_pairs_but_the_other_induction_heads(tmp_path):
    taken_apart(tmp_path, ranks=(1, 4))
    rivals = N_HEADS**2 - N_HEADS  # without the pairs of the other induction head
    assert values("5d", tmp_path) == pytest.approx([1 - 3 / (rivals - 1)])


def test_5c_is_the_weaker_of_two_rank_correlations_of_one_run(tmp_path):
    for seed in range(3):
        taken_apart(tmp_path, seed)
    found = verdict("5c", tmp_path)
    assert found.n == 3 and {one.items for one in found.estimates} <= {N_HEADS, 2 * N_HEADS}


def test_5e_takes_the_one_head_where_there_is_one_and_is_missing_where_it_has_no_effect(tmp_path):
    room = taken_apart(tmp_path).folder("circuits")
    table = room.table("ideal_head")
    write_table(room, "ideal_head", table[table.role == "induction"])
    assert values("5f", tmp_path) == [0.99]
    write_table(room, "ideal_head", table[table.role == "induction"].assign(share=np.nan))
    assert reasons("5f", tmp_path) == ["their removal costs nothing"]

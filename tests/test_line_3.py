"""Line 3: for each claim runs that support it, that do not, that cannot say; and the numbers themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table
from scored_runs import SPREAD, WINDOW, reasons, values, verdict

from induction_cli.config import ModelConfig, TrainConfig
from induction_cli.runs.run_dir import RunDir

HEADS = [(layer, head) for layer in range(2) for head in range(6)]
INDUCTION = (1, 0)
FORMED = {0: 0.0, 450: 0.2, 550: 0.8, 1000: 1.0}  # share of what a head carries at the end, by tokens


def ablated(
    folder: Path,
    seed: int,
    induction: float = 0.4,
    others: float = 0.01,
    joint: float = 0.35,
    random: float = 0.02,
    back: float = -5.0,
    control: float = -1.0,
    lost: float = 0.5,
    matches: float = 1.0,
    formed: dict[int, float] | None = None,
    heads: bool = True,
    window: bool = True,
    **model,
) -> Path:
    """A run with ablation tables: what its one induction head carries and what each other does (nats), what all of a
    kind carry together, dot products, nats of loss lost; matches: 1 where what matches more carries more."""
    run = RunDir(folder / f"run_{seed}")
    run.write_config(TrainConfig(model=ModelConfig(**model), seed=seed))
    run.write_meta(status="done")
    found = pd.DataFrame([WINDOW])
    write_table(run, "phase_change", found if window else found[:0])
    rows = []
    for tokens, share in (formed or FORMED).items():
        for place, (layer, head) in enumerate(HEADS):
            mine = (layer, head) == INDUCTION
            change = (induction if mine else others * (1 + place / 10)) * share
            rows.append(
                {"step": tokens, "tokens": tokens, "kind": "pattern_preserving", "layer": layer, "head": head}
                | {"in_context_learning_change": change, "head_type": "induction" if mine and heads else "other"}
                | {"prefix_matching": matches * change, "loss_change": lost if mine else 0.01}
                | {"before_after": back if mine else 1.0, "before_after_control": control}
            )
    room = run.folder("ablate")
    write_table(room, "ablation", pd.DataFrame(rows))
    base = {"kind": "pattern_preserving", "score": -0.45}
    sets = [("induction", joint), *[("random", random + 0.01 * i) for i in (-1, 0, 1)]]
    named = pd.DataFrame([{**base, "set": s, "in_context_learning_change": v} for s, v in sets])
    write_table(room, "sets", named if heads else named[:0])
    return run.path


def three(folder: Path, **changes) -> Path:
    """Three seeds; a number that is given varies a little between them."""
    for seed, by in enumerate(SPREAD):
        numbers = {"induction": 0.4, "joint": 0.35, "back": -5.0, "others": 0.01} | changes
        varied = {k: v * (1 + by) if isinstance(v, float) else v for k, v in numbers.items()}
        formed = varied.pop("formed", {**FORMED, 450: 0.2 + by})
        ablated(folder, seed, formed=formed, **varied)
    return folder


NO = {
    "3a": {"induction": 0.05, "others": 0.1},
    "3b": {"others": 0.3},
    "3c": {"matches": -1.0},
    "3d": {"joint": 0.1},
    "3e": {"back": -0.2},
    "3f": {"formed": {0: 0.0, 450: 0.0, 550: 0.1, 1000: 0.2, 1100: 1.0}},
}


@pytest.mark.parametrize("claim", NO)
def test_runs_that_support_it(tmp_path, claim):
    for seed, by in enumerate((*SPREAD, *SPREAD)):  # six, as correlations of 1 coincide
        ablated(
            tmp_path, seed, induction=0.4 + by, joint=0.35 + by, back=-5 + by, others=0.01 + by / 4,
            formed={**FORMED, 450: 0.2 + by},
        )  # fmt: skip
    found = verdict(claim, tmp_path)
    assert (found.verdict, found.n) == ("supported", 6)


@pytest.mark.parametrize("claim", NO)
def test_runs_that_do_not(tmp_path, claim):
    for seed, by in enumerate((*SPREAD, *SPREAD)):
        varied = {k: v * (1 + by) if isinstance(v, float) else v for k, v in NO[claim].items()}
        if claim == "3f":
            varied["formed"] = {**NO[claim]["formed"], 1000: 0.2 + by}
        ablated(tmp_path, seed, **varied)
    found = verdict(claim, tmp_path)
    assert (found.verdict, found.n) == ("not supported", 6)


@pytest.mark.parametrize("claim", sorted(set(NO) - {"3c"}))
def test_without_an_induction_head_there_is_nothing_to_remove(tmp_path, claim):
    found = verdict(claim, three(tmp_path, heads=False))
    assert (found.verdict, found.n) == ("not tested", 0)
    assert reasons(claim, tmp_path) == ["no head qualifies as an induction head"] * 3


@pytest.mark.parametrize("claim", ["3d", "3e", "3f"])
def test_without_a_window_there_is_no_fall_to_undo(tmp_path, claim):
    assert reasons(claim, three(tmp_path, window=False)) == ["no window"] * 3


def test_3c_cannot_be_said_of_heads_that_are_all_alike(tmp_path):
    path = three(tmp_path)
    for run in path.iterdir():
        room = RunDir(run).folder("ablate")
        write_table(room, "ablation", room.table("ablation").assign(prefix_matching=0.0))
    assert reasons("3c", path) == ["its heads do not differ"] * 3


# ------------------------------------------------------------------------------------------------ the numbers


def test_3a_is_the_induction_heads_share_of_the_positive_changes(tmp_path):
    ablated(tmp_path, 0, induction=0.4, others=0.01)
    others = sum(0.01 * (1 + place / 10) for place, head in enumerate(HEADS) if head != INDUCTION)
    assert values("3a", tmp_path) == pytest.approx([0.4 / (0.4 + others)])


def test_3b_is_a_ratio_of_means(tmp_path):
    ablated(tmp_path, 0, induction=0.4, others=0.01)
    others = np.mean([0.01 * (1 + place / 10) for place, head in enumerate(HEADS) if head != INDUCTION])
    assert values("3b", tmp_path) == pytest.approx([others / 0.4])
    ablated(tmp_path, 0, induction=-0.1)
    assert reasons("3b", tmp_path) == ["its induction heads carry nothing"]


def test_3c_is_one_number_a_run_and_its_heads_are_no_units(tmp_path):
    for seed in range(3):
        ablated(tmp_path, seed)
    found = verdict("3c", tmp_path)
    assert found.n == 3 and all(one.items == len(HEADS) for one in found.estimates)
    assert found.verdict == "inconclusive"  # three correlations of 1 have no spread to judge by


def test_3d_is_less_what_as_many_other_heads_undo(tmp_path):
    ablated(tmp_path, 0, joint=0.3, random=0.1)
    fall = WINDOW["score_before"] + 0.45
    assert values("3d", tmp_path) == pytest.approx([(0.3 - 0.1) / fall])
    assert verdict("3d", tmp_path).estimates[0].note == "against 3 sets of as many other heads"  # of 11 there are


def test_3d_says_where_all_sets_were_tried(tmp_path):
    room = RunDir(ablated(tmp_path, 0)).folder("ablate")
    sets = room.table("sets")
    every = pd.concat([sets[:1], *[sets[1:2]] * (len(HEADS) - 1)])
    write_table(room, "sets", every)
    assert verdict("3d", tmp_path).estimates[0].note == "against all 11 sets of as many other heads"


def test_3e_is_per_nat_and_less_the_control_of_equal_damage(tmp_path):
    ablated(tmp_path, 0, back=-5.0, control=-1.0, lost=0.5)
    assert values("3e", tmp_path) == pytest.approx([(-5 + 1) / 0.5])
    ablated(tmp_path, 0, lost=-0.1)
    assert reasons("3e", tmp_path) == ["their removal loses nothing"]


def test_3e_of_what_any_damage_does_is_not_supported(tmp_path):
    """Scaling all logits by a half gives a dot product nearly as negative as an induction head's."""
    for seed, by in enumerate((0.1, -0.1, 0.3, -0.3, 0.2, -0.2)):
        ablated(tmp_path, seed, back=-5.0 + by, control=-5.0)
    assert verdict("3e", tmp_path).verdict == "inconclusive"


def test_3e_of_tables_without_the_control_cannot_be_said(tmp_path):
    room = RunDir(ablated(tmp_path, 0)).folder("ablate")
    write_table(room, "ablation", room.table("ablation").drop(columns="before_after_control"))
    assert reasons("3e", tmp_path) == ["ablated without the control of equal damage: induction ablate RUN again"]


def test_3f_is_the_onset_of_what_they_carry_as_its_place_in_the_window(tmp_path):
    ablated(tmp_path, 0, formed={0: 0.0, 450: 0.0, 550: 1.0, 1000: 1.0})
    assert values("3f", tmp_path) == pytest.approx([0.5])


def test_smeared_one_layer_and_partly_ablated_runs_do_not_count(tmp_path):
    ablated(tmp_path, 0, smeared_keys=True)
    ablated(tmp_path, 1, n_layers=1)
    room = RunDir(ablated(tmp_path, 2)).folder("ablate")
    write_table(room, "ablation", room.table("ablation").assign(layer=-1))
    for claim in NO:
        assert verdict(claim, tmp_path).estimates == ()

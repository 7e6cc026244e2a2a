"""Line 1: for each claim a run that supports it, one that does not, one that cannot say; and the numbers themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table
from scored_runs import SPREAD, WINDOW, reasons, scored, values, verdict

from induction_cli.runs.run_dir import RunDir

CLASS = {"1b": "1 layer", "1h": "all depths"}
NAN = float("nan")


def turned(folder: Path, rows: dict[str, tuple[float, float]]) -> None:
    """pertoken_pca/tables/turns.csv: degrees, 95th percentile elsewhere, by run."""
    table = pd.DataFrame([(name, *row) for name, row in rows.items()], columns=["run", "degrees", "elsewhere_95"])
    write_table(RunDir(folder / "pertoken_pca"), "turns", table)


def prepare(folder: Path, claim: str, case: str, seeds: int = 3) -> Path:
    """A folder in which a claim is supported, not supported, or cannot be said in so many seeds."""
    turns = {}
    for seed in range(seeds):
        by = SPREAD[seed % 3]
        yes, no, unknown = {
            "1a": ({"window": {"fall": 0.4 + by}}, {"window": {"fall": 0.05 + by}}, {"window": {"found_share": 0.4}}),
            "1b": (
                {"score": -0.05 + by, "window": {"fall": 0.01 + abs(by)}},
                {"score": -0.4 + by},
                {"snapshots": range(8)},
            ),
            "1c": ({"induction": 500 + 100 * by}, {"induction": 900 + 100 * by}, {"window": {}}),
            "1d": (
                {"previous_token": 300 + 100 * by},
                {"previous_token": 700 + 100 * by, "induction": 500},
                {"previous_token": NAN},
            ),
            "1e": ({"bend": (-1 + by, 0.2 + by)}, {"bend": (1 + by, 0.2 + by)}, {"bend": None}),
            "1f": ({}, {}, {}),
            "1g": ({"slopes": (0, -0.1 + by)}, {"slopes": (0, 0.05 + by)}, {"window": {}}),
            "1h": ({"score": -0.5}, {"score": -0.5}, {"score": -0.5, "window": {}}),
        }[claim]
        changes = {"yes": yes, "no": no, "unknown": unknown}[case]
        path = scored(folder, 1 if claim == "1b" else 2, seed, **changes)
        if claim == "1h":
            scored(folder, 3, seed, score=-0.5 - {"yes": 0.05, "no": 0.4, "unknown": 0.1}[case] + by)
        if claim == "1g":
            scored(folder, 1, seed, slopes=(0.0, 0.0))
        turns[path.name] = {"yes": (120 + 50 * by, 60), "no": (40 + 50 * by, 60), "unknown": (120, NAN)}[case]
    if claim == "1f":
        turned(folder, turns)
    return folder


LINE = ("1a", "1b", "1c", "1d", "1e", "1f", "1g", "1h")


@pytest.mark.parametrize("claim", LINE)
def test_runs_that_support_it(tmp_path, claim):
    found = verdict(claim, prepare(tmp_path, claim, "yes"))
    assert (found.verdict, found.n) == ("supported", 3)
    assert found.low <= found.estimate <= found.high


@pytest.mark.parametrize("claim", LINE)
def test_runs_that_do_not(tmp_path, claim):
    found = verdict(claim, prepare(tmp_path, claim, "no"))
    assert (found.verdict, found.n) == ("not supported", 3)


@pytest.mark.parametrize("claim", LINE)
def test_runs_that_cannot_say_are_missing_with_the_reason(tmp_path, claim):
    found = verdict(claim, prepare(tmp_path, claim, "unknown"))
    assert (found.verdict, found.n, len(reasons(claim, tmp_path))) == ("not tested", 0, 3)
    assert found.estimates[0].missing in found.missing and found.missing.endswith(found.claim.command)


@pytest.mark.parametrize("claim", LINE)
def test_two_seeds_test_nothing_and_say_what_is_missing(tmp_path, claim):
    found = verdict(claim, prepare(tmp_path, claim, "yes", seeds=2))
    assert found.verdict == "not tested" and found.missing.startswith("1 more seed (has 2)")


@pytest.mark.parametrize("claim", sorted(set(LINE) - {"1b"}))
def test_one_layer_runs_alone_test_nothing_but_1b(tmp_path, claim):
    prepare(tmp_path, "1b", "yes")
    assert verdict(claim, tmp_path).verdict == "not tested"


# ------------------------------------------------------------------------------------------------ single claims


def test_1a_counts_a_run_without_a_window_as_no_fall(tmp_path):
    scored(tmp_path, 2, 0, window={})
    scored(tmp_path, 2, 1)
    scored(tmp_path, 2, 2, window={"found_share": 0.04})  # found in the mean curve, but in hardly any resample
    assert values("1a", tmp_path) == [0, 0.4, 0]


def test_1a_shows_beside_the_fall_what_its_share_is_and_who_has_a_window(tmp_path):
    for seed in range(3):
        scored(tmp_path, 2, seed, window={} if seed == 2 else {"fall": 0.4 + SPREAD[seed]})
    beside = {part.part.name: part for part in verdict("1a", tmp_path).parts}
    assert beside["share of S"].n == 2 and beside["share of S"].verdict == ""
    assert beside["window"].estimate == pytest.approx(2 / 3)


def test_classes_have_rows_of_their_own(tmp_path):
    for seed in range(3):
        scored(tmp_path, 2, seed, window={"fall": 0.4 + SPREAD[seed]})
        scored(tmp_path, 2, seed, d_mlp=8, window={"fall": 0.01 + abs(SPREAD[seed])})
    assert verdict("1a", tmp_path).verdict == "supported"
    other = verdict("1a", tmp_path, model_class="2 layers, MLPs")
    assert other.verdict == "not supported" and not other.headline


def test_runs_of_one_seed_and_class_count_once_by_their_mean(tmp_path):
    for name, fall in (("a", 0.3), ("b", 0.5)):
        scored(tmp_path / name, 2, 0, window={"fall": fall})
    assert values("1a", tmp_path / "a", tmp_path / "b") == pytest.approx([0.4])


def test_1b_fails_with_a_window_however_small_the_score(tmp_path):
    for seed in range(3):
        scored(tmp_path, 1, seed, window={"fall": 0.4 + SPREAD[seed]}, score=-0.05 + SPREAD[seed])
    found = verdict("1b", tmp_path)
    assert found.verdict == "not supported" and found.decisive.part.name == "fall"


def test_1b_takes_the_windowed_score_of_the_last_snapshot(tmp_path):
    scored(tmp_path, 1, 0, score=-0.07)
    parts = {part.part.name: part for part in verdict("1b", tmp_path).parts}
    assert parts["S at the end"].estimates[0].value == -0.07  # 9 is the exact one's


def test_1c_is_the_place_of_the_onset_in_the_window(tmp_path):
    onsets = {450: 0.25, 360: -0.2, 640: 1.2}
    for seed, onset in enumerate(onsets):
        scored(tmp_path, 2, seed, induction=onset)
    assert values("1c", tmp_path) == pytest.approx(list(onsets.values()))


def test_1c_takes_the_best_head_of_each_time_and_not_the_one_that_ends_highest(tmp_path):
    run = RunDir(scored(tmp_path, 2, 0, induction=700))
    heads = run.folder("score").table("head_scores")
    early = (heads.layer == 1) & (heads["head"] == 1) & (heads.measure == "prefix_matching") & (heads.tokens >= 500)
    heads.loc[early, "value"] = 0.7
    write_table(run.folder("score"), "head_scores", heads)
    assert 0 < values("1c", tmp_path)[0] < 0.6


def test_1c_and_1d_cannot_be_said_of_a_run_in_which_no_such_head_forms(tmp_path):
    scored(tmp_path, 2, 0, induction=NAN)
    scored(tmp_path, 2, 1, previous_token=NAN)
    assert reasons("1c", tmp_path) == ["no head comes to match prefixes"]
    assert "no previous-token head forms" in reasons("1d", tmp_path)


def test_1d_looks_below_the_induction_head_only(tmp_path):
    run = RunDir(scored(tmp_path, 2, 0, previous_token=300, induction=600))
    heads = run.folder("score").table("head_scores")
    heads.loc[(heads.layer == 1) & (heads.measure == "previous_token"), "value"] = 1.0  # beside it: no help
    write_table(run.folder("score"), "head_scores", heads)
    assert values("1d", tmp_path) == pytest.approx([0.5])


def test_1e_needs_both_signs(tmp_path):
    for seed in range(3):
        scored(tmp_path, 2, seed, bend=(-1 + SPREAD[seed], -0.2 + SPREAD[seed]))
    found = verdict("1e", tmp_path)
    assert found.verdict == "not supported" and found.decisive.part.name == "outside"


def test_1f_reads_names_that_look_like_numbers(tmp_path):
    """Sweeps over values with a slash number their folders."""
    scored(tmp_path, 2, 4).rename(tmp_path / "0")
    turned(tmp_path, {"0": (120, 60), "7": (40, 60)})  # there is no run 7
    assert values("1f", tmp_path) == [60]


def test_1g_is_less_the_one_layer_twin_of_its_seed(tmp_path):
    scored(tmp_path, 2, 0, slopes=(0.0, -0.1))
    scored(tmp_path, 1, 0, slopes=(0.0, -0.04))
    scored(tmp_path, 2, 1, slopes=(0.0, -0.1))
    found = verdict("1g", tmp_path).estimates
    assert found[0].value == pytest.approx(-0.06) and found[1].missing == "no scored one-layer run of its seed"


def test_1h_is_the_spread_over_the_depths_of_a_seed_that_have_a_window(tmp_path):
    for n_layers, value in ((2, -0.5), (3, -0.58), (5, -0.54)):
        scored(tmp_path, n_layers, 0, score=value)
    scored(tmp_path, 4, 0, score=-0.1, window={})
    scored(tmp_path, 2, 1)  # one depth has no spread
    found = verdict("1h", tmp_path).estimates
    assert found[0].value == pytest.approx(0.08) and found[1].missing == "depths with a window: 1; a spread takes 2"


def test_an_unfinished_window_has_no_width_to_place_anything_in(tmp_path):
    path = scored(tmp_path, 2, 0, window={"finished": False})
    turned(tmp_path, {path.name: (120, 60)})
    assert values("1a", tmp_path) == [WINDOW["fall"]]
    assert np.isnan(values("1c", tmp_path)).all() and reasons("1c", tmp_path) == ["its window is not finished"]


@pytest.mark.parametrize(
    ("decision", "fall", "why"),
    [
        ("window", 0.4, []),
        ("none", 0.0, []),
        ("undecided", NAN, ["undecided whether it has a window (in 60% of resamples)"]),
    ],
)
def test_the_tables_decision_on_a_window_counts(tmp_path, decision, fall, why):
    """Where a step was seen in the mean curve and where none was."""
    room = RunDir(scored(tmp_path, 2, 0)).folder("score")
    windows = room.table("phase_change")
    total = pd.DataFrame([{"decision": decision, "found_share": {"window": 1.0, "none": 0.01}.get(decision, 0.6)}])
    write_table(room, "phase_change_total", total)
    assert values("1a", tmp_path) == pytest.approx([fall], nan_ok=True) and reasons("1a", tmp_path) == why
    if decision != "window":
        write_table(room, "phase_change", windows[:0])
        assert values("1a", tmp_path) == pytest.approx([fall], nan_ok=True) and reasons("1a", tmp_path) == why


def test_of_several_steps_the_first_row_is_the_largest(tmp_path):
    scored(tmp_path, 2, 0)
    room = RunDir(tmp_path / "layers_2_seed_0").folder("score")
    windows = pd.concat([room.table("phase_change"), room.table("phase_change").assign(fall=0.2, start_tokens=800)])
    write_table(room, "phase_change", windows)
    assert values("1a", tmp_path) == [0.4] and values("1c", tmp_path) == pytest.approx([0.5])


@pytest.mark.parametrize("n_snapshots", [1, 8])
def test_too_few_snapshots_to_see_a_window_are_no_evidence_of_none(tmp_path, n_snapshots):
    for n_layers in (1, 2):
        scored(tmp_path, n_layers, 0, window={}, snapshots=range(n_snapshots))
    for claim in ("1a", "1b"):
        assert reasons(claim, tmp_path)[0].endswith("to see a window takes 9")

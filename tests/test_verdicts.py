"""Verdicts from tables: every claim of argument 1 can succeed, fail, straddle, lack seeds and go untested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table

from induction_cli.config import ModelConfig, ReportConfig, TrainConfig
from induction_cli.evidence import report
from induction_cli.runs.files import beside
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import CLAIMS, Effect, above, below, both, decide, load_claims, verdicts

FILE = load_claims(beside("experiments") / "claims.yaml")
LINE_1 = [claim["id"] for claim in FILE if claim["argument"] == 1]
SNAPSHOTS = range(0, 1200, 100)  # tokens
START, END = 400, 600  # the window
WINDOW = {
    "start_tokens": START,
    "end_tokens": END,
    "fall": 0.4,
    "fall_low": 0.3,
    "fall_high": 0.5,
    "share": 0.8,
    "share_low": 0.7,
    "share_high": 0.9,
    "finished": True,
    "score_kind": "windowed",
}


def scored(
    folder: Path,
    n_layers: int,
    seed: int,
    window: dict | None = None,
    score: tuple[float, float, float] = (-0.5, -0.55, -0.45),
    onsets: dict[str, tuple[float, float, float]] | None = None,
    bend: tuple[float, float, float, float] | None = (-1, 0.2, -1.4, -1.0),
    slopes: tuple[float, float] = (0.0, -0.1),
    noise: float = 0.01,
    smeared: bool = False,
    snapshots=SNAPSHOTS,
) -> Path:
    """A scored run, tables only. score: value, low, high; onsets: the same by event; bend: inside, outside, low, high;
    slopes: d loss / d ln(index) before and after the middle of the window, and their noise over four chains."""
    run = RunDir(folder / f"layers_{n_layers}_seed_{seed}{'_smeared' * smeared}")
    model = ModelConfig(n_layers=n_layers, smeared_keys=smeared)
    run.write_config(TrainConfig(model=model, seed=seed))
    run.write_meta(status="done")
    room = run.folder("score")
    rows = [
        {"step": t, "tokens": t, "kind": kind, "in_context_learning_score": value, "low": low, "high": high}
        for t in snapshots
        for kind, (value, low, high) in (("exact", (9, 9, 9)), ("windowed", score))
    ]
    write_table(room, "in_context_learning", pd.DataFrame(rows))
    write_table(room, "head_scores", pd.DataFrame({"step": [0]}))
    windows = pd.DataFrame([window or WINDOW])
    write_table(room, "phase_change", windows[:0] if (n_layers == 1 and window is None) or window == {} else windows)
    onsets = {"induction": (500, 480, 520), "previous_token": (300, 280, 320), **(onsets or {})}
    events = [{"event": name, "onset_tokens": v, "low": low, "high": high} for name, (v, low, high) in onsets.items()]
    write_table(room, "events", pd.DataFrame(events))
    inside, outside, low, high = bend or (np.nan,) * 4
    bends = {"inside": inside, "outside": outside, "difference": inside - outside, "low": low, "high": high}
    write_table(room, "loss_bend", pd.DataFrame([bends]))
    before, after = slopes
    chain = [
        {"tokens": t, "chain": i, "index_slope": before if t < 500 else after + noise * (i - 1.5)}
        for t in snapshots
        for i in range(4)
    ]
    write_table(room, "by_chain", pd.DataFrame(chain))
    return run.path


def turned(folder: Path, rows: dict[str, tuple[float, float, float, float]]) -> None:
    """pertoken_pca/tables/turns.csv: degrees, low, high, 95th percentile elsewhere, by run."""
    table = pd.DataFrame([(name, *row) for name, row in rows.items()])
    table.columns = pd.Index(["run", "degrees", "low", "high", "elsewhere_95"])
    write_table(RunDir(folder / "pertoken_pca"), "turns", table)


def verdict(folder: Path, claim: str) -> str:
    return decide(claim, CLAIMS[claim]([folder])).verdict


# what to change in a deep run (or, for 1b, a one-layer run) so that the claim holds, fails, or straddles its threshold
CASES = {
    ("1a", True): {},
    ("1a", False): {"window": {}},
    ("1a", None): {"window": WINDOW | {"fall_low": 0.05}},
    ("1b", True): {"score": (-0.05, -0.08, -0.02)},
    ("1b", False): {"score": (-0.3, -0.35, -0.25)},
    ("1b", None): {"score": (-0.12, -0.2, -0.04)},
    ("1c", True): {},
    ("1c", False): {"onsets": {"induction": (900, 860, 940)}},
    ("1c", None): {"onsets": {"induction": (640, 500, 780)}},
    ("1d", True): {},
    ("1d", False): {"onsets": {"previous_token": (700, 680, 720)}},
    ("1d", None): {"onsets": {"previous_token": (500, 450, 560)}},
    ("1e", True): {},
    ("1e", False): {"bend": (1.0, 0.2, 0.6, 1.0)},  # bends more, but the same way
    ("1e", None): {"bend": (-0.1, 0.2, -0.7, 0.1)},
    ("1g", True): {},
    ("1g", False): {"slopes": (0.0, 0.0)},
    ("1g", None): {"slopes": (0.0, -0.03), "noise": 0.02},
}
TURNS = {True: (120, 100, 140, 60), False: (40, 30, 50, 60), None: (70, 50, 90, 60)}
SPREADS = {True: -0.05, False: -0.6, None: -0.2}  # how much more the third layer gains
NAMES = {True: "supported", False: "not supported", None: "inconclusive"}


def prepare(folder: Path, claim: str, holds: bool | None, seeds: int) -> None:
    """A folder in which a claim holds, fails or straddles in so many seeds."""
    for seed in range(seeds):
        changes = CASES.get((claim, holds), {})
        path = scored(folder, 1 if claim == "1b" else 2, seed, **changes)
        if claim == "1h":
            value = -0.5 + SPREADS[holds]
            scored(folder, 3, seed, score=(value, value - 0.05, value + 0.05))
        if claim == "1f":
            room = RunDir(folder / "pertoken_pca")
            before = room.table("turns") if room.table_file("turns").exists() else pd.DataFrame()
            rows = {row.run: (row.degrees, row.low, row.high, row.elsewhere_95) for row in before.itertuples()}
            turned(folder, rows | {path.name: TURNS[holds]})


@pytest.mark.parametrize("holds", NAMES)
@pytest.mark.parametrize("claim", LINE_1)
def test_claim_succeeds_fails_and_straddles(tmp_path, claim, holds):
    prepare(tmp_path, claim, holds, seeds=3)
    found = decide(claim, CLAIMS[claim]([tmp_path]))
    assert found.verdict == NAMES[holds]
    assert len(found.effects) == 3 and {effect.holds for effect in found.effects} == {holds}
    for effect in found.effects:
        assert effect.low <= effect.value <= effect.high or np.isnan(effect.low)


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("claim", LINE_1)
def test_two_seeds_decide_nothing(tmp_path, claim, holds):
    prepare(tmp_path, claim, holds, seeds=2)
    found = decide(claim, CLAIMS[claim]([tmp_path]))
    assert found.verdict == "inconclusive" and found.note == f"2 runs, {'for' if holds else 'against'} it"


@pytest.mark.parametrize("claim", LINE_1)
def test_seeds_that_disagree_decide_nothing(tmp_path, claim):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, holds, seeds in ((one, True, 3), (other, False, 1)):
        folder.mkdir()
        prepare(folder, claim, holds, seeds=seeds)
    effects = [*CLAIMS[claim]([one]), *CLAIMS[claim]([other])]
    found = decide(claim, effects)
    assert found.verdict == "inconclusive" and found.note == "holds in 3 of 4 runs"


@pytest.mark.parametrize("claim", CLAIMS)
def test_claim_goes_untested_where_no_run_can_test_it(tmp_path, claim):
    """A folder that holds nothing but a smeared run, which is not vanilla."""
    scored(tmp_path, 2, 0, smeared=True)
    assert verdict(tmp_path, claim) == "not tested"


def test_every_claim_of_the_file_gets_a_verdict_in_its_order(tmp_path):
    scored(tmp_path, 2, 0, smeared=True)
    found = verdicts([tmp_path], FILE)
    assert [one.id for one in found] == [claim["id"] for claim in FILE]
    assert {one.verdict for one in found} == {"not tested"}


@pytest.mark.parametrize("claim", sorted(set(LINE_1) - {"1b"}))
def test_one_layer_runs_alone_test_nothing_but_1b(tmp_path, claim):
    prepare(tmp_path, "1b", True, seeds=3)
    assert verdict(tmp_path, claim) == "not tested"


@pytest.mark.parametrize("n_snapshots", [1, 8])
def test_too_few_snapshots_to_see_a_window_test_nothing(tmp_path, n_snapshots):
    """No window was looked for, so none was missed: neither against 1a nor for 1b."""
    for seed in range(3):
        for n_layers in (1, 2):
            scored(tmp_path, n_layers, seed, window={}, score=(0, -0.01, 0.01), snapshots=range(n_snapshots))
    assert verdict(tmp_path, "1a") == verdict(tmp_path, "1b") == "not tested"


# ------------------------------------------------------------------------------------------------ single claims


def only(folder: Path, claim: str) -> Effect:
    (effect,) = CLAIMS[claim]([folder])
    return effect


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"fall_low": 0.09}, None),
        ({"fall_low": 0.01, "fall_high": 0.09}, False),
        ({"share_low": 0.4}, None),
        ({"share_low": 0.2, "share_high": 0.4}, False),
        ({"finished": False}, None),  # its end, fall and share are those seen so far
        ({"share_low": np.nan, "share_high": np.nan}, None),
    ],
)
def test_1a_needs_fall_and_share_and_an_end(tmp_path, changes, holds):
    scored(tmp_path, 2, 0, window=WINDOW | changes)
    effect = only(tmp_path, "1a")
    assert effect.holds is holds and effect.value == 0.4


def test_1b_fails_with_a_window_however_small_the_score(tmp_path):
    scored(tmp_path, 1, 0, window=WINDOW, score=(-0.05, -0.08, -0.02))
    assert only(tmp_path, "1b").holds is False


def test_1b_takes_the_windowed_score_of_the_last_snapshot(tmp_path):
    scored(tmp_path, 1, 0, score=(-0.05, -0.08, -0.02))
    assert only(tmp_path, "1b").value == -0.05  # 9 is the exact one's


def test_1c_is_the_place_in_the_window_and_a_quarter_around_it(tmp_path):
    onsets = {450: 0.25, 360: -0.2, 640: 1.2, 340: -0.3, 660: 1.3}
    for seed, onset in enumerate(onsets):
        scored(tmp_path, 2, seed, onsets={"induction": (onset, onset - 2, onset + 2)})
    effects = CLAIMS["1c"]([tmp_path])
    assert [effect.value for effect in effects] == pytest.approx(list(onsets.values()))
    assert [effect.holds for effect in effects] == [True, True, True, False, False]


def test_1c_fails_where_no_induction_head_forms_at_all(tmp_path):
    scored(tmp_path, 2, 0, onsets={"induction": (np.nan,) * 3})
    assert only(tmp_path, "1c").holds is False
    assert CLAIMS["1d"]([tmp_path]) == []  # nothing comes first


def test_1d_interval_is_that_of_the_ends(tmp_path):
    scored(tmp_path, 2, 0, onsets={"previous_token": (300, 200, 400), "induction": (600, 500, 800)})
    effect = only(tmp_path, "1d")
    assert (effect.value, effect.low, effect.high) == pytest.approx((0.5, 200 / 800, 400 / 500))


def test_1e_without_a_bend_or_a_window_says_nothing(tmp_path):
    scored(tmp_path, 2, 0, bend=None)
    scored(tmp_path, 2, 1, window={})
    assert CLAIMS["1e"]([tmp_path]) == []


def test_1f_reads_names_that_look_like_numbers(tmp_path):
    """Sweeps over values with a slash number their folders."""
    scored(tmp_path, 2, 4).rename(tmp_path / "0")
    turned(tmp_path, {"0": TURNS[True], "7": TURNS[False]})  # there is no run 7
    effect = only(tmp_path, "1f")
    assert (effect.run, effect.value, effect.low, effect.high, effect.seed) == ("0", 60, 40, 80, 4)


def test_1f_needs_places_elsewhere(tmp_path):
    path = scored(tmp_path, 2, 0)
    turned(tmp_path, {path.name: (120, 100, 140, np.nan)})
    assert CLAIMS["1f"]([tmp_path]) == []


def test_1g_also_judges_one_layer_runs_at_the_window_of_their_seed(tmp_path):
    scored(tmp_path, 2, 0)
    scored(tmp_path, 1, 0, slopes=(0.0, 0.0))
    scored(tmp_path, 1, 1, slopes=(0.0, 0.0))  # no deep run has its seed
    deep, shallow = sorted(CLAIMS["1g"]([tmp_path]), key=lambda effect: effect.value)
    assert deep.value == pytest.approx(-0.1) and deep.holds is True
    assert shallow.value == pytest.approx(0) and shallow.holds is True
    scored(tmp_path, 1, 0, slopes=(0.0, -0.1))  # a one-layer run that changes like a deep one
    assert sorted(effect.holds for effect in CLAIMS["1g"]([tmp_path])) == [False, True]


def test_1h_is_the_spread_over_depths_of_a_seed(tmp_path):
    for n_layers, value in ((2, -0.5), (3, -0.58), (5, -0.54)):
        scored(tmp_path, n_layers, 0, score=(value, value - 0.01, value + 0.01))
    scored(tmp_path, 2, 1)  # one depth has no spread
    effect = only(tmp_path, "1h")
    assert (effect.value, effect.low, effect.high) == pytest.approx((0.08, 0.06, 0.1)) and effect.holds is True


# ------------------------------------------------------------------------------------------------ deciding


def test_sides_of_a_threshold():
    assert (below(1, 0.2, 0.9), below(1, 1.1, 2), below(1, 0.5, 2), below(1, np.nan, np.nan)) == (
        True,
        False,
        None,
        None,
    )
    assert (above(1, 1.1, 2), above(1, 0.2, 0.9), above(1, 0.5, 2), above(-0.25, -0.2, 3)) == (True, False, None, True)
    assert below(1, 0.5, 1) is None and above(1, 1, 2) is None  # an interval that touches is on neither side


def test_both_is_false_as_soon_as_one_is_and_true_only_if_all_are():
    assert both(True, True) is True and both(True, None) is None
    assert both(None, False) is False and both(False, True) is False


def effects(*holds: bool | None, seeds: list[int | None] | None = None) -> list[Effect]:
    seeds = seeds or list(range(len(holds)))
    return [
        Effect(f"run {i}", 0, -1, 1, side, seed=seed) for i, (side, seed) in enumerate(zip(holds, seeds, strict=True))
    ]


@pytest.mark.parametrize(
    ("given", "verdict", "note"),
    [
        (effects(), "not tested", "no run here can test it"),
        (effects(True), "inconclusive", "one run, for it"),
        (effects(False, False), "inconclusive", "2 runs, against it"),
        (effects(True, False), "inconclusive", "2 runs, undecided"),
        (effects(True, True, True), "supported", "3 runs"),
        (effects(False, False, False), "not supported", "3 runs"),
        (effects(None, None, None), "inconclusive", "holds in 0 of 3 runs"),
        (effects(True, True, True, None), "inconclusive", "holds in 3 of 4 runs"),
        (effects(True, True, True, seeds=[5, 5, 5]), "inconclusive", "3 runs of 1 seed, for it"),
        (effects(False, False, False, seeds=[5, 6, 6]), "inconclusive", "3 runs of 2 seeds, against it"),
        (effects(True, True, True, seeds=[None, None, None]), "supported", "3 runs"),
    ],
)
def test_decisions(given, verdict, note):
    found = decide("1a", given)
    assert (found.verdict, found.note) == (verdict, note)


def test_a_pooled_effect_counts_its_runs():
    pooled = Effect("all heads", 0.5, 0.4, 0.6, True, runs=3)
    assert decide("3c", [pooled]).verdict == "supported"
    assert decide("3c", [Effect("all heads", 0.5, 0.4, 0.6, True, runs=2)]).verdict == "inconclusive"


# ------------------------------------------------------------------------------------------------ the file and the room


def test_claims_file_is_complete():
    """Every claim of argument 1 has its function, and every function its claim and all that a reader needs."""
    ids = [claim["id"] for claim in FILE]
    assert len(set(ids)) == len(ids) and all(isinstance(name, str) for name in ids)
    assert LINE_1 == ["1a", "1b", "1c", "1d", "1e", "1f", "1g", "1h"] and set(LINE_1) <= set(CLAIMS)
    assert set(CLAIMS) <= set(ids)
    for claim in FILE:
        assert {"id", "argument", "claim", "statistic", "rule", "strength", "recipe"} <= set(claim)


def everything(folder: Path) -> None:
    """Two deep depths and one shallow, in three seeds, in which all of argument 1 holds."""
    for seed in range(3):
        scored(folder, 1, seed, score=(-0.05, -0.08, -0.02), slopes=(0.0, 0.0))
        scored(folder, 2, seed)
        scored(folder, 3, seed)
    turned(folder, {f"layers_2_seed_{seed}": TURNS[True] for seed in range(3)})


def test_all_claims_of_argument_1_at_once(tmp_path):
    everything(tmp_path)
    found = verdicts([tmp_path], FILE, argument=1)
    assert [verdict.id for verdict in found] == LINE_1
    assert {verdict.verdict for verdict in found} == {"supported"}


def test_claim_without_a_function_is_not_tested(tmp_path):
    everything(tmp_path)
    (found,) = verdicts([tmp_path], [{"id": "9z", "argument": 9}], argument=9)
    assert found.verdict == "not tested"


def test_report_writes_effects_and_verdicts_and_counts_the_supported(tmp_path, capsys):
    everything(tmp_path)
    (tmp_path / "layers_2_seed_1" / "score" / "tables" / "phase_change.csv").write_text(",".join(WINDOW) + "\n")
    assert report.run(ReportConfig([str(tmp_path)], argument=1), tmp_path / "report") == len(LINE_1) - 1
    room = RunDir(tmp_path / "report")
    table = room.table("verdicts").set_index("id")
    assert table.verdict.drop("1a").unique().tolist() == ["supported"]
    assert table.loc["1a"].tolist() == ["inconclusive", "holds in 5 of 6 runs"]
    effects = room.table("effects")
    assert effects[effects.id == "1a"].run.tolist() == [f"layers_{d}_seed_{s}" for d in (2, 3) for s in range(3)]
    assert list(effects.columns) == ["id", "run", "value", "low", "high", "holds"]
    out = capsys.readouterr().out
    assert "supported" in out and "inconclusive" in out


def test_report_shows_a_number_without_an_interval_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    scored(tmp_path, 2, 0, window={})
    report.run(ReportConfig([str(tmp_path)], argument=1), tmp_path / "report")
    assert "nan" not in capsys.readouterr().out


def test_report_of_an_argument_without_claims_is_an_empty_table(tmp_path):
    everything(tmp_path)
    assert report.run(ReportConfig([str(tmp_path)], argument=99), tmp_path / "report") == 0
    assert RunDir(tmp_path / "report").table("verdicts").empty

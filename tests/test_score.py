"""Line 1, the scores: values on paper for a model built by hand, and the room of a run from end to end."""

import hashlib
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hand_built import BETA, induction_model

from induction_cli import training
from induction_cli.config import (
    ConfigError,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ScoreConfig,
    SnapshotConfig,
    TrainConfig,
)
from induction_cli.evaluation.rows import head_types
from induction_cli.evaluation.scores import HeldOut, repeated_tokens
from induction_cli.evidence import score, summary
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow

TABLES_OVER_TIME = {"phase_change_total", "events", "loss_bend", "before_after", "loss_derivative"}
TABLES = TABLES_OVER_TIME | {
    "head_scores",
    "definitions",
    "in_context_learning",
    "in_context_learning_grid",
    "loss_by_index",
    "by_chain",
    "composition",
    "correlations",
    "copy_benefit",
    "phase_change",
    "summary",
}


# ------------------------------------------------------------------------------------------------ on paper


@pytest.fixture(scope="module")
def hand_built() -> pd.DataFrame:
    """Rows of head_scores.csv of the hand-built model; its 'text' is 41 different tokens."""
    counts = torch.ones(60, dtype=torch.long)
    held_out = HeldOut(torch.arange(1, 43).repeat(16, 1), repeated_tokens(counts, 2))
    found = score.score_heads(induction_model(), held_out, counts, ScoreConfig(n_sequences=2))
    base = dict.fromkeys(found, (math.nan, math.nan))
    return score.head_rows(found, base, {"step": 5, "tokens": 50})


def values(rows: pd.DataFrame, measure: str) -> list[float]:
    """Of L0H0, L0H1, L1H0, L1H1."""
    return rows[rows.measure == measure].sort_values(["layer", "head"]).value.tolist()


def on_paper() -> dict[str, list[float]]:
    """L0H0 looks at the position before; L1H0 at what followed earlier copies, evenly at all before there are any;
    L0H1 and L1H1 look at everything alike and write nothing."""
    later = range(26, 101)  # positions of the second to fourth repeat; position 0 is the start token
    earlier = {i: (i - 1) // 25 for i in later}  # copies before position i
    first_uniform = sum(1 / (i + 1) for i in range(1, 26))
    uniform = {
        "prefix_matching": sum(earlier[i] / (i + 1) for i in later) / 75,
        "start_token": (first_uniform + sum(1 / (i + 1) for i in later)) / 100,
        "previous_token": sum(1 / (i + 1) for i in range(1, 41)) / 40,
    }
    uniform["duplicate_token"] = uniform["prefix_matching"]
    induction_entropy = (25 + sum(math.log(earlier[i]) / math.log(i + 1) for i in later)) / 100
    shrunk = 1 - 60 / 281  # what centring leaves of raising every token alike
    return {
        "prefix_matching": [0, uniform["prefix_matching"], 1, uniform["prefix_matching"]],
        "duplicate_token": [0, uniform["duplicate_token"], 0, uniform["duplicate_token"]],
        "previous_token": [1, uniform["previous_token"], uniform["previous_token"], uniform["previous_token"]],
        "start_token": [0.01, uniform["start_token"], first_uniform / 100, uniform["start_token"]],
        "entropy": [0, 1, induction_entropy, 1],
        "qk_trace": [math.nan, math.nan, BETA * (59 + shrunk**3), 0],
    }


@pytest.mark.parametrize("measure", on_paper())
def test_hand_built_scores(hand_built, measure):
    assert values(hand_built, measure) == pytest.approx(on_paper()[measure], rel=1e-5, abs=1e-4, nan_ok=True)


def test_hand_built_copying(hand_built):
    """No token comes twice, so L1H0 looks at all i + 1 tokens alike and raises each: own is one of them, all are i + 1.

    L0H0 is left out: what it writes is no token's direction, and centring makes that a rounding error.
    """
    _, nothing, copies, also_nothing = values(hand_built, "copying")
    assert copies == pytest.approx(sum(4 / (i + 2) - 1 for i in range(25)) / 25, abs=1e-4)
    assert nothing == also_nothing == -1
    assert values(hand_built, "copying_eigenvalues")[1:] == pytest.approx([0, 1, 0], abs=1e-5)


def test_hand_built_rows(hand_built):
    """A score that a head cannot have says so; every sequence gives the same here, so there is no error; types."""
    assert set(hand_built.measure) == set(score.DEFINITIONS)
    assert len(hand_built) == 4 * len(score.DEFINITIONS)
    not_applicable = hand_built[hand_built.value.isna()]
    assert not_applicable.measure.tolist() == ["qk_trace"] * 2 and not_applicable.layer.tolist() == [0, 0]
    assert (not_applicable.note == "not applicable: no earlier layer").all()
    assert (hand_built.drop(not_applicable.index).note == "").all()
    weights = hand_built.measure.isin(["qk_trace", "copying_eigenvalues"])
    assert hand_built[weights].standard_error.isna().all()
    rounding = (hand_built.measure == "copying") & (hand_built.layer == 0)  # see test_hand_built_copying
    assert hand_built[~weights & ~rounding].standard_error.astype(float).max() < 1e-3
    assert head_types(hand_built).head_type.tolist() == ["previous_token", "other", "induction", "other"]


def test_standard_error_by_hand():
    rows = score.head_rows({"entropy": torch.tensor([1.0, 2, 6])[:, None, None]}, {"entropy": (0, 0)}, {})
    assert rows.value.item() == 3
    assert rows.standard_error.item() == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))


# ------------------------------------------------------------------------------------------------ rows from tables


def test_grid_by_hand():
    """loss = -ln(index): the score of (early, late) is ln(early / late), here without averaging around the indices."""
    losses = -torch.arange(1, 65, dtype=torch.float64).log().repeat(3, 1)
    grid = score.grid_rows(losses, {"step": 1}, EvaluationConfig(half_width=0))
    assert set(zip(grid.early_index, grid.late_index, strict=True)) == {
        (a, b) for a in (5, 10, 20, 50, 64) for b in (5, 10, 20, 50, 64) if a < b
    }
    for row in grid.itertuples():
        assert row.score == pytest.approx(math.log(row.early_index / row.late_index))
    wide = score.grid_rows(losses, {"step": 1}, EvaluationConfig(half_width=70))  # wider than the context
    assert wide.early_index.min() == 5 and wide.late_index.max() == 50


def heads_of(name: str, step: int, qk: list[float], prefix: list[float]) -> pd.DataFrame:
    rows = [
        {"run": name, "step": step, "layer": 1, "head": head, "measure": measure, "value": value}
        for measure, each in (("qk_trace", qk), ("prefix_matching", prefix))
        for head, value in enumerate(each)
    ]
    return pd.DataFrame(rows)


def test_correlations_take_every_runs_own_last_snapshot():
    """The first run ends at step 10, the second at 20; what came before is noise."""
    table = pd.concat(
        [
            heads_of("a", 5, [9, -9], [0.1, 0.9]),
            heads_of("a", 10, [1, 2], [0.1, 0.2]),
            heads_of("b", 10, [7, -7], [0.3, 0.8]),
            heads_of("b", 20, [3, 5], [0.3, 0.5]),
        ]
    )
    table = pd.concat([table, *(table[table.measure == m].assign(measure=n) for m, n in (("qk_trace", "copying"),))])
    found = score.correlation_rows(table).set_index(["activation", "kind"])
    row = found.loc["prefix_matching", "pearson"]
    assert row.heads == 4 and row.correlation == pytest.approx(1)


def chains(values: dict[int, list[float]], column: str) -> pd.DataFrame:
    return pd.DataFrame(
        [{"tokens": t, "chain": i, column: v} for t, each in values.items() for i, v in enumerate(each)]
    )


def test_events_by_hand_and_in_order():
    """Half rise: S falls by 1 between 200 and 300, so at 250; previous-token attention at 50, induction at 150."""
    by_chain = chains({0: [0] * 8, 100: [0] * 8, 200: [0] * 8, 300: [-1] * 8}, "in_context_learning_score")
    previous, induction = {0: 0.0, 100: 1, 200: 1, 300: 1}, {0: 0.0, 100: 0, 200: 1, 300: 1}
    sequences = pd.DataFrame(
        [
            {"tokens": t, "event": event, "layer": 0, "head": 0, "sequence": i, "value": v}
            for event, curve in (("induction", induction), ("previous_token", previous))
            for t, v in curve.items()
            for i in range(8)
        ]
    )
    table = score.event_rows(by_chain, sequences)
    assert table.event.tolist() == ["previous_token", "induction", "in_context_learning"]
    for column in ("onset_tokens", "low", "high"):
        assert table[column].tolist() == pytest.approx([50, 150, 250])
    assert (table.found_share == 1).all()


def test_the_best_head_at_each_time_has_the_onset():
    """One head is high from 100 on, another ends higher and is late: prefix matching forms at 50, not at 250."""
    by_chain = chains({t: [0.0] * 8 for t in (0, 100, 200, 300)}, "in_context_learning_score")
    early, late = {0: 0.0, 100: 0.8, 200: 0.8, 300: 0.8}, {0: 0.0, 100: 0.0, 200: 0.0, 300: 0.9}
    sequences = []
    for t in early:
        scores = torch.tensor([[early[t], 0.0], [0.0, late[t]]]).expand(8, 2, 2)
        sequences.append(({"tokens": t}, {"prefix_matching": scores, "previous_token": 0 * scores}))
    table = score.event_rows(by_chain, score.head_rows_by_sequence(sequences)).set_index("event")
    assert table.onset_tokens["induction"] == pytest.approx(100 * 0.45 / 0.8)
    assert table.low["induction"] == pytest.approx(table.high["induction"])
    assert math.isnan(table.onset_tokens["previous_token"])


def test_before_and_after_by_index():
    by_index = pd.DataFrame(
        [{"step": t, "tokens": t, "index": i, "loss": 10 * t + i} for t in (0, 5, 9) for i in (1, 2, 3)]
    )
    windows = pd.DataFrame({"start_tokens": [5.0], "end_tokens": [9.0]})
    found = score.before_after_rows(by_index, windows)
    assert found["index"].tolist() == [1, 2, 3]
    assert found.before.tolist() == [51, 52, 53] and found.after.tolist() == [91, 92, 93]
    assert found.change.tolist() == [40, 40, 40]
    assert score.before_after_rows(by_index, windows[:0]).columns.tolist() == found.columns.tolist()


def test_loss_bend_row_has_the_difference_of_inside_and_outside_with_its_interval():
    tokens = [0, *(round(1000 * 1.2**i) for i in range(50))]
    curve = {t: [6 - 0.1 * math.log(max(1, t)) + noise for noise in (-0.1, 0, 0.1)] for t in tokens}
    windows = pd.DataFrame({"start_tokens": [float(tokens[20])], "end_tokens": [float(tokens[28])]})
    row = score.bend_rows(chains(curve, "loss"), windows).iloc[0]
    assert row.difference == pytest.approx(row.inside - row.outside, abs=1e-9)
    assert row[["inside", "outside", "low", "high"]].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-3)
    assert score.bend_rows(chains(curve, "loss"), windows[:0]).empty


def seen(*rows: tuple) -> str:
    columns = ["layers", "start_tokens", "prefix_matching", "in_context_learning_score"]
    return summary.sentence(pd.DataFrame(rows, columns=columns))


def test_sentence_says_plainly_what_changed():
    assert seen((1, math.nan, 0.1, -0.05)) == (
        "the one-layer run shows no phase change (without induction heads, in-context learning score -0.05 nats)."
    )
    assert "the 2-layer run went through a phase change (with induction heads" in seen((2, 1e6, 0.9, -0.4))
    several = seen((1, math.nan, 0.1, 0), (1, math.nan, 0.1, 0), (2, 1e6, 0.9, -0.4), (2, math.nan, 0.1, 0))
    assert "0 of 2 one-layer runs went through a phase change (induction heads in 0" in several
    assert "1 of 2 2-layer runs went through a phase change (induction heads in 1" in several


# ------------------------------------------------------------------------------------------------ the room of a run


def tiny(cache: Path, n_layers: int = 2) -> TrainConfig:
    return TrainConfig(
        model=ModelConfig(n_layers=n_layers, n_heads=2, d_head=8, d_model=16, n_ctx=64, d_vocab=61),
        data=DataConfig("repeats", repeat_tokens=60_000, cache_dir=str(cache)),
        snapshots=SnapshotConfig(linear=2),
        evaluation=EvaluationConfig(16, 8, early_index=8, late_index=60, half_width=2, n_sequences=2),
        tokens=2_560,
        batch_size=4,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of two trained runs, one and two layers, not scored."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "write_plot", lambda *_: None)
        for name, n_layers in (("one", 1), ("two", 2)):
            training.run(tiny(folder / ".cache", n_layers), folder / name)
    return folder


@pytest.fixture
def no_plots(monkeypatch):
    """Tables alone; nobody looks at the pictures."""
    monkeypatch.setattr(score, "draw", lambda *_: None)
    monkeypatch.setattr(RunDir, "write_plot", lambda *_: None)


@pytest.fixture
def copied(runs, tmp_path) -> Path:
    """The folder again, free to be changed; the cache stays where it is."""
    return shutil.copytree(runs, tmp_path / "runs", ignore=shutil.ignore_patterns(".cache"))


def settings(path: Path, **changes) -> ScoreConfig:
    return ScoreConfig(str(path), n_examples=16, n_sequences=2, device="cpu", threads=1, **changes)


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def tables_of(room: Path) -> set[str]:
    return {path.stem for path in (room / "tables").iterdir()}


def test_room_of_a_run(copied):
    """Tables, columns and plots; nothing outside the room is touched."""
    run, before = RunDir(copied / "two"), hashes(copied)
    headline = score.run(settings(run.path), run.path / "score")
    after = hashes(copied)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("two/score/") for name in set(after) - set(before))

    room = run.folder("score")
    assert tables_of(room.path) == TABLES
    heads = room.table("head_scores")
    assert list(heads.columns[:6]) == ["step", "tokens", "layer", "head", "measure", "value"]
    assert {"standard_error", "uniform", "random_head", "note", "head_type"} <= set(heads.columns)
    assert len(heads) == 3 * 4 * len(score.DEFINITIONS)
    assert heads.value.isna().sum() == 3 * 2  # the QK trace of the first layer
    best = heads[(heads.step == 10) & (heads.measure == "prefix_matching")].value.max()
    assert headline == pytest.approx(best)
    definitions = room.table("definitions").set_index("measure")
    assert set(definitions.index) == set(score.DEFINITIONS)
    assert definitions.sequence["prefix_matching"] == "start token, then 25 random tokens 2 times"  # 64 tokens hold 2
    assert definitions.target_offset["prefix_matching"] == "+1" and definitions.start_token["copying"] == "none"
    assert definitions.examples.to_dict() == dict.fromkeys(definitions.index, 2) | {
        "copying_eigenvalues": 0,
        "qk_trace": 0,
    }
    assert len(room.table("composition")) == 3 * 3 * 4
    assert room.table("phase_change").empty and room.table("loss_bend").empty
    benefit = room.table("copy_benefit").iloc[0]
    assert benefit.benefit > 0.2 and 0.3 < benefit.rule_applies < 0.7  # every segment comes twice
    for plot in ("prefix_matching", "mosaic_qk_trace", "co_timing", "loss_by_index"):
        assert (room.path / "plots" / f"{plot}.png").stat().st_size > 1000


def test_scored_as_in_training(copied, no_plots):
    """Same held-out set, so the score's tables repeat what training measured."""
    run = RunDir(copied / "two")
    score.run(settings(run.path), run.path / "score")
    for name in ("in_context_learning", "loss_by_index", "by_chain"):
        pd.testing.assert_frame_equal(run.folder("score").table(name), run.table(name), rtol=1e-5)
    both = run.table("head_scores").merge(
        run.folder("score").table("head_scores"), on=["step", "layer", "head", "measure"]
    )
    assert len(both) == 3 * 4 * 2
    assert both.value_x.tolist() == pytest.approx(both.value_y.tolist(), abs=1e-6)


def test_running_again_replaces_with_the_same_bytes(copied, no_plots):
    run = RunDir(copied / "two")
    score.run(settings(run.path), run.path / "score")
    before = hashes(run.path)
    score.run(settings(run.path), run.path / "score")
    assert hashes(run.path) == before


def test_plots_are_replaced_with_the_same_bytes(copied):
    run = RunDir(copied / "one")
    pngs = []
    for _ in range(2):
        score.run(settings(run.path, snapshot="last"), run.path / "score")
        pngs.append({name: value for name, value in hashes(run.path).items() if name.endswith(".png")})
    assert pngs[0] == pngs[1] and len(pngs[0]) == len(score.DEFINITIONS) - 1


def test_baselines_stand_beside_the_numbers(copied, no_plots):
    run = RunDir(copied / "two")
    score.run(settings(run.path, snapshot="last"), run.path / "score")
    heads = run.folder("score").table("head_scores")
    assert heads.groupby("measure")[["uniform", "random_head"]].nunique(dropna=False).max().max() == 1
    first = heads.groupby("measure").first()
    expected = sum(((i - 1) // 25) / (i + 1) for i in range(26, 51)) / 25
    assert first.uniform["prefix_matching"] == pytest.approx(expected)
    assert first.uniform["entropy"] == pytest.approx(1)
    for measure in ("prefix_matching", "duplicate_token", "start_token"):  # an untrained head prefers none of them
        assert first.random_head[measure] == pytest.approx(first.uniform[measure], abs=0.1)
    assert 0.5 < first.random_head["entropy"] < 1
    assert -1 < first.random_head["copying"] < 0  # not 0, see paper.md 4.5
    assert first.uniform[["copying", "copying_eigenvalues", "qk_trace"]].isna().all()


def test_one_layer_has_no_qk_trace_and_no_composition(copied, no_plots):
    run = RunDir(copied / "one")
    score.run(settings(run.path), run.path / "score")
    room = run.folder("score")
    traces = room.table("head_scores").query("measure == 'qk_trace'")
    assert len(traces) == 3 * 2 and traces.value.isna().all()
    assert (traces.note == "not applicable: no earlier layer").all()
    composition = room.table("composition")
    assert composition.empty and {"kind", "from_layer", "above_baseline"} <= set(composition.columns)
    correlations = room.table("correlations").set_index("activation")
    assert (correlations.heads["prefix_matching"] == 0).all()
    assert correlations.correlation["prefix_matching"].isna().all()


@pytest.mark.parametrize("which", ["last", "5"])
def test_one_snapshot_replaces_all_and_leaves_nothing_of_them(copied, which):
    run = RunDir(copied / "two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "write_plot", lambda self, name, _: (self.path / "plots").mkdir(exist_ok=True))
        score.run(settings(run.path), run.path / "score")
        (run.path / "score" / "plots" / "co_timing.png").write_bytes(b"of all snapshots")
        score.run(settings(run.path, snapshot=which), run.path / "score")
    room = run.folder("score")
    assert tables_of(room.path) == TABLES - TABLES_OVER_TIME
    step = 10 if which == "last" else 5
    for name in ("head_scores", "in_context_learning", "by_chain", "composition"):
        assert set(room.table(name).step) == {step}
    assert not (room.path / "plots" / "co_timing.png").exists()


def test_folder_of_runs_gains_a_run_column(copied, no_plots):
    before = hashes(copied)
    score.run(settings(copied), copied / "score")
    after, room = hashes(copied), RunDir(copied / "score")
    assert {name: after[name] for name in before} == before
    assert all(name.split("/")[0] == "score" or name.split("/")[1] == "score" for name in set(after) - set(before))
    for name in ("head_scores", "in_context_learning", "by_chain", "events", "copy_benefit"):
        table = room.table(name)
        assert set(table.run) == {"one", "two"}
        own = RunDir(copied / "two" / "score").table(name)
        assert table[table.run == "two"][list(own.columns)].reset_index(drop=True).equals(own)
    assert room.table("summary").layers.tolist() == [1, 2]
    departures = room.table("departures")
    assert departures.run.tolist() == ["two"] and departures.one_layer_run.tolist() == ["one"]
    assert "run" in room.table("phase_change").columns  # empty, but there
    assert room.table("correlations").query("activation == 'copying'").heads.tolist() == [6, 6]


def test_last_snapshot_of_a_folder(copied, no_plots):
    score.run(settings(copied), copied / "score")
    score.run(settings(copied, snapshot="last"), copied / "score")
    room = RunDir(copied / "score")
    assert set(room.table("head_scores").step) == {10}
    assert "events" not in tables_of(room.path)


# ------------------------------------------------------------------------------------------------ mistakes


def interrupt(run: RunDir, keep: int) -> RunDir:
    """As if training had been stopped when there were `keep` snapshots."""
    run.write_meta(status="interrupted")
    for snapshot in run.snapshots()[keep:]:
        snapshot.path.unlink()
    for name in ("phase_change", "loss_derivative"):
        run.table_file(name).unlink()
    return run


def test_interrupted_run_is_scored_as_far_as_it_came(copied, no_plots):
    run = interrupt(RunDir(copied / "two"), keep=2)
    score.run(settings(run.path), run.path / "score")
    assert set(run.folder("score").table("head_scores").step) == {0, 5}
    assert tables_of(run.path / "score") == TABLES


def test_run_with_one_snapshot_is_scored_there(copied, no_plots):
    run = interrupt(RunDir(copied / "two"), keep=1)
    score.run(settings(run.path), run.path / "score")
    assert tables_of(run.path / "score") == TABLES - TABLES_OVER_TIME


def test_nothing_to_score(copied, no_plots):
    run = interrupt(RunDir(copied / "two"), keep=0)
    with pytest.raises(RunError, match="has no snapshots yet"):
        score.run(settings(run.path), run.path / "score")
    with pytest.raises(RunError, match="there is no run directory"):
        score.run(settings(copied / "three"), copied / "three" / "score")
    (copied / "empty").mkdir()
    with pytest.raises(RunError, match="not a run directory"):
        score.run(settings(copied / "empty"), copied / "empty" / "score")
    assert not list(copied.rglob("score"))


def test_wrong_step_names_those_there_are(copied):
    with pytest.raises(ConfigError, match=r"no snapshot '7'; there are all, last and the steps 0, 5, 10"):
        score.run(settings(copied / "two", snapshot="7"), copied / "two" / "score")


def test_one_bad_run_stops_a_folder_before_any_work(copied):
    """No attention layer, or a missing snapshot: said before the runs beside it are scored."""
    bad = RunDir(copied / "two")
    bad.write_config(replace(bad.config(), model=replace(bad.config().model, n_layers=0)))
    with pytest.raises(ConfigError, match="no attention layer; there is nothing to score"):
        score.run(settings(copied), copied / "score")
    interrupt(bad, keep=0)
    with pytest.raises(RunError, match=r"two' has no snapshots yet"):
        score.run(settings(copied), copied / "score")
    assert not list(copied.rglob("score"))


def test_damaged_snapshot_is_named_and_nothing_is_written(copied):
    run = RunDir(copied / "two")
    path = run.snapshots()[1].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"^[^ ]*{path.name} is damaged"):  # not: does not fit its config
        score.run(settings(run.path), run.path / "score")
    assert not (run.path / "score").exists()


@pytest.mark.parametrize(
    "of_another", [{"n_ctx": 64}, {"text_file": "x"}, {"start_token": "x"}, {"allow_pickle": True}]
)
def test_settings_that_a_run_has_no_use_for_are_refused(copied, of_another):
    [name] = of_another
    with pytest.raises(ConfigError, match=f"^{name} is .*is for pretrained models; leave it out"):
        score.run(replace(settings(copied), **of_another), copied / "score")
    assert not list(copied.rglob("score"))


def test_snapshot_of_another_model_is_refused(copied):
    run = RunDir(copied / "two")
    run.write_config(replace(run.config(), model=replace(run.config().model, d_model=18)))
    with pytest.raises(RunError, match="does not fit"):
        score.run(settings(run.path), run.path / "score")
    assert not (run.path / "score").exists()

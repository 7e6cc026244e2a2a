"""Line 6: what compare makes of tables. Synthetic runs, tables only: an in-context score that falls between tokens 400
and 600, induction heads in the last layer, and losses whose slopes are known."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hand_made import write_table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from induction_cli import cli
from induction_cli.config import CompareConfig, ConfigError, ModelConfig, TrainConfig
from induction_cli.evidence import compare
from induction_cli.measures.trend import likeness, log_slope, spread
from induction_cli.plots import compare as plots
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow

TOKENS = np.arange(0, 1200, 100)
START, END = 400, 600
CHAINS = [0.01, -0.02, 0.03, -0.02, 0.04, -0.05, 0.02, -0.01]  # what is hard for all models, sums to 0
N_HEADS, D_MODEL, D_HEAD = 3, 10, 5
MEASURES = ("prefix_matching", "qk_trace")


def score_at(tokens: float, low: float) -> float:
    """0 up to the window, `low` after it, a line in between."""
    return low * float(np.clip((tokens - START) / (END - START), 0, 1))


def scored(
    folder: Path, n_layers: int = 2, seed: int = 0, d_mlp: int = 0, smeared: bool = False, low: float = -0.4,
    slope: float = -0.5, text: str = "one", rooms: tuple[str, ...] = ("score", "ablate"), name: str = "",
) -> RunDir:  # fmt: skip
    """A run with its tables; low: the score after the window; slope: d loss / d ln(tokens); text: hash of its data."""
    kind = f"layers={n_layers},mlp={d_mlp},smeared={smeared},seed={seed}"
    run = RunDir(folder / (name or kind))
    model = ModelConfig(n_layers, N_HEADS, D_MODEL, D_HEAD, d_mlp, smeared_keys=smeared)
    run.write_config(TrainConfig(model=model, seed=seed))
    run.write_meta(status="done", data={"sha256": text})
    changes = n_layers > 1 or smeared
    grid = pd.DataFrame({"step": TOKENS, "tokens": TOKENS})
    by_chain = grid.merge(pd.DataFrame({"chain": range(len(CHAINS)), "shift": CHAINS}), how="cross")
    by_chain["in_context_learning_score"] = [
        (score_at(row.tokens, low) if changes else -0.05) + row.shift for row in by_chain.itertuples()
    ]
    learning = by_chain.groupby(["step", "tokens"], as_index=False).in_context_learning_score.mean()
    learning = learning.assign(kind="windowed", low=learning.in_context_learning_score - 0.05, high=0.0)
    by_index = grid.merge(pd.DataFrame({"index": range(1, 65)}), how="cross")
    by_index["loss"] = 5 + slope * np.log(by_index.tokens.clip(lower=1))
    heads = grid.merge(pd.DataFrame({"layer": range(n_layers)}), how="cross")
    heads = heads.merge(pd.DataFrame({"head": range(N_HEADS)}), how="cross")
    induction = (heads.layer == n_layers - 1) & (heads["head"] == 1) & changes
    heads["head_type"] = np.where(induction, "induction", "other")
    tables = {
        "by_chain": by_chain.drop(columns="shift"),
        "in_context_learning": learning,
        "loss_by_index": by_index,
        "loss_derivative": by_index.rename(columns={"loss": "derivative"}),
        "phase_change": pd.DataFrame({"start_tokens": [START], "end_tokens": [END]})[: int(changes)],
        "events": pd.DataFrame({"event": ["induction"], "onset_tokens": [450.0 if changes else np.nan]}),
        "head_scores": pd.concat(
            [heads.assign(measure=m, value=np.where(induction, heads.tokens / 1e3, 0.1), note="") for m in MEASURES]
        ),
    }
    if "score" in rooms:
        for table, rows in tables.items():
            write_table(run.folder("score"), table, rows)
    if "ablate" in rooms:
        value = np.where(induction, 0.3, 0.0)
        rows = heads.assign(kind="pattern_preserving", in_context_learning_change=value, before_after=-value)
        write_table(run.folder("ablate"), "ablation", rows)
    return run


def paths_room(folder: Path, runs: list[RunDir]) -> RunDir:
    """A room of pertoken-pca over these runs, in which every pair turns alike."""
    room = RunDir(folder)
    names = [f"name {i}" for i in range(len(runs))]
    where = [f"../{run.path.relative_to(folder.parent).as_posix()}" for run in runs]
    write_table(room, "runs", pd.DataFrame({"run": names, "path": where}))
    parts = [
        pd.DataFrame({"run": n, "step": TOKENS, "tokens": TOKENS, "pc1": TOKENS, "pc2": i}) for i, n in enumerate(names)
    ]
    write_table(room, "pertoken_pca", pd.concat(parts))
    pairs = [["turn", a, b, 0.2, 0.1, 0.3] for i, a in enumerate(names) for b in names[i + 1 :]]
    write_table(room, "turn_pairs", pd.DataFrame(pairs, columns=["kind", "run", "other", "correlation", "low", "high"]))
    return room


def compared(*paths: Path | str, out: Path, **changes) -> dict[str, pd.DataFrame]:
    compare.run(CompareConfig([str(path) for path in paths], **changes), out)
    return {path.stem: pd.read_csv(path, dtype={"run": str}) for path in (out / "tables").iterdir()}


@pytest.fixture
def no_plots(monkeypatch):
    monkeypatch.setattr(RunDir, "write_plot", lambda *_: None)
    monkeypatch.setattr(plots, "figures", lambda *_: [])


# ------------------------------------------------------------------------------------------------ measures


def test_log_slope_of_a_logarithm_is_its_factor():
    tokens = torch.tensor([3.0, 7.0, 19.0, 53.0]).double()
    curve = torch.stack((2 * tokens.log() - 1, -0.5 * tokens.log()), 1)
    assert torch.allclose(log_slope(tokens, curve), torch.tensor([2.0, -0.5]).double())
    assert log_slope(tokens[:2], curve[:2]).isnan().all()


def test_spread_is_largest_less_smallest_and_what_all_share_cancels():
    shared = torch.tensor([3.0, -1.0, 10.0, 0.5, 2.0, 7.0, 1.0, -4.0]).double()
    values = torch.stack((shared, shared + 0.1, shared - 0.2))
    assert tuple(spread(values)) == pytest.approx((0.3,) * 3)
    assert math.isnan(spread(values[:, :7]).low)  # too few chains


def test_likeness_is_pearson_over_examples_and_resamples_groups():
    a = torch.tensor([1.0, 2.0, 3.0, 4.0, 7.0, 5.0, 6.0, 2.0, 0.0, 3.0, 4.0, 8.0, 9.0, 1.0, 2.0])
    b = torch.tensor([2.0, 1.0, 4.0, 3.0, 9.0, 5.0, 5.0, 3.0, 1.0, 2.0, 5.0, 7.0, 8.0, 2.0, 1.0])
    value, low, high = likeness(a, b, 2)
    assert value == pytest.approx(np.corrcoef(a, b)[0, 1]) and low < value < high
    assert likeness(a, 5 - 2 * a, 2).value == pytest.approx(-1)
    assert likeness(a, b + 100, 2).value == pytest.approx(value)


# ------------------------------------------------------------------------------------------------ tables


def test_models_table(tmp_path, no_plots):
    for n_layers, d_mlp, smeared in ((3, 0, False), (1, 0, False), (2, 7, False), (1, 0, True)):
        scored(tmp_path, n_layers, 5, d_mlp, smeared)
    table = compared(tmp_path, out=tmp_path / "compare")["models"]
    assert table.group.tolist() == ["attention-only", "attention-only", "with MLPs", "smeared keys"]
    assert table.column.tolist() == ["1 layer", "3 layers", "2 layers", "1 layer"]
    three, mlp = table.iloc[1], table.iloc[2]
    assert three.parameters == 3 * 4 * D_MODEL * N_HEADS * D_HEAD
    assert mlp.parameters == 2 * D_MODEL * (4 * N_HEADS * D_HEAD + 2 * 7)
    assert (three.start_tokens, three.end_tokens, three.tokens) == (START, END, 1100)
    assert (three.score_before, three.score_after, three.final_score) == pytest.approx((0, -0.4, -0.4))
    assert (three.score_onset_tokens, three.induction_onset_tokens) == (500, 450)
    assert three.score_onset_loss == pytest.approx(5 - 0.5 * math.log(500))
    middle = (math.log(400) + math.log(500)) / 2  # between snapshots the loss is read off a line
    assert three.induction_onset_loss == pytest.approx(5 - 0.5 * middle, abs=1e-3)
    assert [three.heads, three.induction_heads, three.induction_share, three.induction_depth] == pytest.approx(
        [9, 1, 1 / 9, 1]
    )
    assert table.induction_heads[0] == 0 and np.isnan(table.induction_depth[0]) and np.isnan(table.start_tokens[0])
    assert table.comparable.all() and (tmp_path / "compare" / table.path[0]).resolve().is_dir()


def test_headline_counts_the_windows(tmp_path, no_plots):
    scored(tmp_path, 1)
    scored(tmp_path, 2)
    assert compare.run(CompareConfig([str(tmp_path)]), tmp_path / "out") == 1


def test_other_text_is_marked_and_left_out_of_losses_and_spreads(tmp_path, no_plots, capsys):
    for n_layers in (2, 3):
        scored(tmp_path, n_layers)
    other = scored(tmp_path, 4, low=-0.9, text="another")
    tables = compared(tmp_path, out=tmp_path / "out")
    models = tables["models"].set_index("run")
    assert not models.comparable[other.name] and models.comparable.sum() == 2
    assert "text" in models.column[other.name]
    assert f"{other.name}: other text" in capsys.readouterr().out
    known = tables["continuity"].query("size == 'parameters'").set_index("quantity")
    assert known.models["score_onset_loss"] == 2 and known.models["score_after"] == 3
    spreads = tables["spreads"].set_index("when")
    assert spreads.models.tolist() == [2, 2] and spreads.spread["after"] == pytest.approx(0, abs=1e-9)


def test_continuity_is_the_rank_correlation_with_size(tmp_path, no_plots):
    for n_layers in (2, 3, 4, 5, 6):
        scored(tmp_path, n_layers, low=-0.1 * n_layers)
    scored(tmp_path, 2, smeared=True, low=-9)
    known = compared(tmp_path, out=tmp_path / "out")["continuity"].query("size == 'n_layers'").set_index("quantity")
    after = known.loc["score_after"]
    assert (after.models, after.rank_correlation) == (5, -1)
    assert (after.smallest, after.largest, after.spread) == pytest.approx((-0.6, -0.2, 0.4))
    assert np.isnan(known.rank_correlation["induction_depth"])  # the last layer in all of them


def test_spreads_are_per_seed_over_models_that_changed(tmp_path, no_plots):
    for seed, deepest in ((3, -0.5), (4, -0.42)):
        scored(tmp_path, 1, seed)
        scored(tmp_path, 2, seed)
        scored(tmp_path, 3, seed, low=deepest)
    scored(tmp_path, 2, 7)  # a seed of one model has no spread
    spreads = compared(tmp_path, out=tmp_path / "out")["spreads"].set_index(["seed", "when"])
    assert len(spreads) == 4 and (spreads.models == 2).all()
    assert spreads.spread[3, "after"] == pytest.approx(0.1) and spreads.spread[4, "after"] == pytest.approx(0.02)
    assert spreads.spread[3, "before"] == pytest.approx(0, abs=1e-9)
    assert (spreads.low[3, "after"], spreads.high[3, "after"]) == pytest.approx((0.1, 0.1))  # chains are paired


def test_learning_speed(tmp_path, no_plots):
    scored(tmp_path, 2, slope=-0.5)
    scored(tmp_path, 3, slope=-0.25)
    scored(tmp_path, 1, slope=-9)  # did not change
    table = compared(tmp_path, out=tmp_path / "out")["learning_speed"].set_index("n_layers")
    assert table.index.tolist() == [2, 3]
    for when in ("before", "after"):
        assert table[f"loss_slope_{when}"].tolist() == pytest.approx([-0.5, -0.25])
    assert table.iloc[0][["before_from", "before_to", "after_from", "after_to"]].tolist() == [200, 400, 600, 1100]
    assert table.score_slope.tolist() == pytest.approx([0, 0], abs=1e-6)


def test_paths_come_from_the_room_that_has_most_models_under_the_names_used_here(tmp_path, no_plots):
    runs = [scored(tmp_path / place, 2, name="same") for place in ("a", "b")]
    paths_room(tmp_path / "pca", runs)
    alone = paths_room(tmp_path / "a" / "pertoken_pca", runs[:1])
    tables = compared(tmp_path / "a", tmp_path / "b", tmp_path / "pca", out=tmp_path / "out")
    assert tables["models"].run.tolist() == ["a/same", "b/same"]
    pair = tables["path_turns"].iloc[0]
    assert {pair.run, pair.other} == {"a/same", "b/same"} and pair.correlation == 0.2
    assert not (tables["absent"].row == "paths").any()
    tables = compared(tmp_path / "a", tmp_path / "b", out=tmp_path / "again")
    assert tables["absent"].query("row == 'paths'").run.tolist() == ["b/same"] and alone.path.exists()


def test_what_is_missing_says_which_command_makes_it(tmp_path, no_plots):
    scored(tmp_path, 2, rooms=("score",))
    scored(tmp_path, 1, rooms=())
    notes = compared(tmp_path, out=tmp_path / "out")["absent"].set_index(["run", "row"]).note
    assert notes["layers=2,mlp=0,smeared=False,seed=0", "before_after"] == "not run: induction ablate RUN"
    assert notes["layers=2,mlp=0,smeared=False,seed=0", "paths"] == "not run: induction pertoken-pca RUNS"
    assert notes["layers=1,mlp=0,smeared=False,seed=0", "loss"] == "not run: induction score RUN"


def test_unscored_run_shows_what_training_measured(tmp_path, no_plots):
    scored(tmp_path, 2)
    plain = scored(tmp_path, 1, smeared=True)
    for table in ("loss_by_index", "in_context_learning", "phase_change", "by_chain"):
        plain.folder("score").table_file(table).replace(made(plain.table_file(table)))
    for left in ("head_scores", "events", "loss_derivative"):
        plain.folder("score").table_file(left).unlink()
    tables = compared(tmp_path, out=tmp_path / "out")
    row = tables["models"].set_index("run").loc[plain.name]
    assert row.score_after == pytest.approx(-0.4) and np.isnan(row.induction_heads)
    rows = set(tables["absent"].query("run == @plain.name").row)
    assert {"prefix_matching", "qk_trace", "paths"} <= rows and not {"loss", "in_context_learning"} & rows


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def pretrained(folder: Path) -> RunDir:
    """The room of a model that is no run: one snapshot, no tokens that are known."""
    room = RunDir(folder)
    (room.path / ".hydra").mkdir(parents=True)
    room.config_file.write_text("run_dir: hf:someone/small-model\n")
    heads = pd.DataFrame({"step": 0, "tokens": 0, "layer": [0, 1, 2], "head": [0, 1, 1], "measure": "prefix_matching"})
    write_table(room, "head_scores", heads.assign(value=0.5, head_type=["other", "induction", "other"], note=""))
    learning = {
        "step": 0,
        "tokens": 0,
        "kind": "windowed",
        "in_context_learning_score": -0.6,
        "low": -0.7,
        "high": -0.5,
    }
    write_table(room, "in_context_learning", pd.DataFrame([learning]))
    return room


def test_pretrained_models_stand_beside_runs(tmp_path):
    scored(tmp_path / "runs", 2)
    pretrained(tmp_path / "score" / "now")
    gathered = RunDir(tmp_path / "runs" / "score")  # tables of several runs under each other are no model
    write_table(gathered, "head_scores", pd.DataFrame({"run": ["x"], "layer": [0], "head": [0]}))
    tables = compared(tmp_path / "runs", tmp_path / "score", out=tmp_path / "out")
    assert tables["models"].group.tolist() == ["attention-only", "pretrained"]
    row = tables["models"].iloc[1]
    assert (row.column, row.n_layers, row.n_heads, row.final_score) == ("small-model", 3, 2, -0.6)
    assert (row.induction_heads, row.induction_depth, row.comparable) == (1, 0.5, False)
    assert (tmp_path / "out" / "plots" / "model_analysis_pretrained.png").stat().st_size > 0


# ------------------------------------------------------------------------------------------------ refused


def test_half_written_runs_are_left_out_and_said(tmp_path, no_plots, capsys):
    scored(tmp_path, 2)
    half = scored(tmp_path, 3)
    half.write_meta(status="interrupted")
    assert len(compared(tmp_path, out=tmp_path / "out")["models"]) == 1
    said = capsys.readouterr().out
    assert "is interrupted; induction train --resume" in said and half.name in said


def test_same_run_twice_is_one(tmp_path, no_plots):
    run = scored(tmp_path, 2)
    assert len(compared(tmp_path, run.path, tmp_path / "." / run.name, out=tmp_path / "out")["models"]) == 1


def refused(message: str, *paths: Path) -> None:
    out = paths[0].parent / "out"
    with pytest.raises(RunError, match=message):
        compared(*paths, out=out)
    assert not out.exists()


def test_without_a_scored_run_there_is_nothing_to_compare(tmp_path):
    scored(tmp_path / "runs", 2, rooms=())
    refused("no scored run in .*; run induction score RUN first", tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    refused("no scored run in", tmp_path / "empty")
    refused("there is no run directory", tmp_path / "nowhere")


def test_damaged_table_is_named(tmp_path):
    run = scored(tmp_path / "runs", 2)
    run.folder("score").table_file("by_chain").write_text("")
    refused(r"by_chain.csv is damaged.*run induction score again", tmp_path / "runs")


def test_columns_of_a_figure():
    with pytest.raises(ConfigError, match="columns is 0"):
        CompareConfig(["x"], columns=0).check()


def test_as_a_user_types_it(tmp_path, monkeypatch, no_plots, capsys):
    monkeypatch.chdir(tmp_path)
    scored(tmp_path / "runs", 2)
    assert cli.run(["compare", "runs", "columns=2"]) == 0
    assert RunDir("runs/compare").table_file("models").exists()
    said = capsys.readouterr().out
    assert said.splitlines()[-3:] == ["tables  runs/compare/tables", "plots   runs/compare/plots", "runs/compare"]
    assert cli.run(["compare", "nowhere"]) == 2 and "no run directory 'nowhere'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ figures


def drawn(folder: Path, only: str = "model", columns: int = 6) -> dict[str, Figure]:
    """The figures whose names begin so, drawn: layouts are slow."""
    models = compare.find_models([str(folder)], print)
    table = compare.model_rows(models, RunDir(folder / "out"))
    rooms = compare.path_rooms([str(folder)], models)
    data, absent = compare.cells(models, compare.path_rows(rooms, models))
    found = {name: figure for name, figure in plots.figures(table, data, absent, columns) if name.startswith(only)}
    for figure in found.values():
        FigureCanvasAgg(figure).draw()
    return found


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_one_run_has_its_column_and_every_row(tmp_path):
    paths_room(tmp_path / "pertoken_pca", [scored(tmp_path, 2)])
    found = drawn(tmp_path, only="")
    assert list(found) == ["model_analysis_attention_only", *plots.ROWS]
    whole = found["model_analysis_attention_only"]
    assert titles(whole) == ["2 layers"] and words(whole) == []
    assert [axes.get_ylabel() for axes in whole.axes[: len(plots.ROWS)]] == [unit for _, unit in plots.ROWS.values()]


def test_empty_cells_say_why(tmp_path):
    scored(tmp_path, 2, rooms=("score",))
    scored(tmp_path, 3)
    said = words(drawn(tmp_path)["model_analysis_attention_only"])
    assert said.count("not run:\ninduction ablate RUN") == 2


def test_rows_and_panels_without_data_are_left_out_and_said(tmp_path):
    scored(tmp_path, 2, rooms=("score",))
    found = drawn(tmp_path, only="")
    whole = found["model_analysis_attention_only"]
    assert words(whole) == [] and "before_after" not in found and "paths" not in found
    assert whole.legends[0].get_title().get_text().splitlines() == [
        "not shown: paths; not run: induction pertoken-pca RUNS",
        "not shown: before after; not run: induction ablate RUN",
        "not shown: in context learning change; not run: induction ablate RUN",
    ]
    scored(tmp_path, 3)
    assert titles(drawn(tmp_path, only="before_after")["before_after"]) == ["3 layers, attention-only"]


def test_seeds_share_a_column_and_columns_share_axes(tmp_path):
    for seed in (0, 1):
        scored(tmp_path, 2, seed)
        scored(tmp_path, 3, seed, low=-0.8)
    whole = drawn(tmp_path)["model_analysis_attention_only"]
    assert titles(whole) == ["2 layers\n2 seeds", "3 layers\n2 seeds"]
    cells = np.array(whole.axes[: 2 * (len(plots.ROWS) - 1)]).reshape(-1, 2)  # there are no paths
    for row in cells:
        assert row[0].get_xlim() == row[1].get_xlim() and row[0].get_ylim() == row[1].get_ylim()
    maps = [axes.collections[0] for axes in cells[1]]
    assert maps[0].norm.vmin == maps[1].norm.vmin and maps[0].norm.vmax == maps[1].norm.vmax


@pytest.mark.parametrize("only", ["model", "loss_derivative"])
def test_many_columns_are_split_and_their_titles_do_not_touch(tmp_path, only):
    for n_layers in range(1, 8):
        scored(tmp_path, n_layers, rooms=("score",))
    scored(tmp_path, 1, d_mlp=7, rooms=("score",))
    found = drawn(tmp_path, only)
    names = ["attention_only_1", "attention_only_2", "with_MLPs"]
    assert list(found) == ([f"model_analysis_{name}" for name in names] if only == "model" else [only])
    for figure in found.values():
        rows: dict[int, list] = {}
        for axes in figure.axes:
            if axes.get_title():
                box = axes.title.get_window_extent()
                rows.setdefault(round(box.y0), []).append(box)
        for boxes in rows.values():
            boxes.sort(key=lambda box: box.x0)
            assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_other_figures_are_drawn(tmp_path):
    runs = [scored(tmp_path, n_layers, seed) for n_layers in (2, 3) for seed in (0, 1)]
    paths_room(tmp_path / "pertoken_pca", runs)
    compared(tmp_path, out=tmp_path / "out")
    made = {path.stem for path in (tmp_path / "out" / "plots").glob("*.svg")}
    assert made == {"model_analysis_attention_only", "continuity", "learning_speed", "path_turns", *plots.ROWS}

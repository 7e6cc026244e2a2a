"""Line 1, paths in the space of per-token losses: what may be compared, and what is said of the turn."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_config
from hand_made import write_table

from induction_cli import training
from induction_cli.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PertokenPcaConfig,
    SnapshotConfig,
    TrainConfig,
)
from induction_cli.data import held_out_windows, open_corpus
from induction_cli.evaluation.scores import held_out_losses, load_snapshot, losses_at
from induction_cli.evidence import pertoken_pca
from induction_cli.measures.trajectory import principal_components, random_columns, sharpest_turn
from induction_cli.models.transformer import Transformer
from induction_cli.page.traces import curve, trace_page
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow

SNAPSHOTS = 7
N = 24  # examples


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDir, "write_plot", lambda *_: None)
        yield


def tiny(cache: Path, n_layers: int = 1, **changes) -> TrainConfig:
    model = {"n_layers": n_layers, "n_heads": 2, "d_head": 8, "d_model": 16, "n_ctx": 64, "d_vocab": 61, **changes}
    return TrainConfig(
        model=ModelConfig(**model),
        data=DataConfig("repeats", repeat_tokens=60_000, cache_dir=str(cache)),
        snapshots=SnapshotConfig(linear=SNAPSHOTS - 1),
        evaluation=EvaluationConfig(16, 8, early_index=8, late_index=60, half_width=2, n_sequences=2),
        tokens=256 * 12,
        batch_size=4,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder of two runs, and beside it runs that do not go with them."""
    folder = tmp_path_factory.mktemp("runs")
    for n_layers in (1, 2):
        training.run(tiny(folder / ".cache", n_layers), folder / "runs" / f"layers_{n_layers}")
    training.run(tiny(folder / ".cache", d_vocab=67), folder / "other_tokenizer")
    training.run(tiny(folder / ".cache", n_ctx=66), folder / "other_context")
    return folder


@pytest.fixture
def runs(trained, tmp_path) -> Path:
    """The two runs again, free to be changed; 'training found' a window in the deeper one, snapshots 2 to 4."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    deep = RunDir(tmp_path / "runs" / "layers_2")
    tokens = [snapshot.tokens for snapshot in deep.snapshots()]
    write_table(deep, "phase_change", pd.DataFrame({"start_tokens": [tokens[2]], "end_tokens": [tokens[4]]}))
    return tmp_path / "runs"


def settings(*paths: Path, **changes) -> PertokenPcaConfig:
    changes = {"n_examples": N, "traces": 3, **changes}
    return PertokenPcaConfig([str(path) for path in paths], device="cpu", threads=1, **changes)


# ------------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("changes", [{}, {"d_mlp": 17}, {"positions": "rotary"}, {"n_layers": 0}])
def test_losses_at_agree_with_all_losses_gathered(changes):
    """Every column comes up, in no order, in batches that do not divide the examples."""
    model = Transformer(small_config(**changes), seed=1)
    windows = torch.randint(11, (23, 8), generator=torch.Generator().manual_seed(0))
    columns = torch.randint(7, (23,), generator=torch.Generator().manual_seed(1))
    every = held_out_losses(model, windows)
    for batch_size in (5, 100):
        found = losses_at(model, windows, columns, batch_size)
        assert torch.allclose(found, every.gather(1, columns[:, None])[:, 0], atol=1e-5)


# ------------------------------------------------------------------------------------------------ the room


def test_room_of_two_runs(runs, tmp_path):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    share = pertoken_pca.run(settings(runs), tmp_path / "room")
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
    room = RunDir(tmp_path / "room")
    paths = room.table("pertoken_pca")
    assert list(paths.columns) == ["run", "step", "tokens", "pc1", "pc2"]
    assert paths.run.tolist() == ["layers_1"] * SNAPSHOTS + ["layers_2"] * SNAPSHOTS
    for name in ("layers_1", "layers_2"):
        assert paths[paths.run == name].step.tolist() == [s.step for s in RunDir(runs / name).snapshots()]
    shares = room.table("explained_variance").share
    assert share == pytest.approx(shares.sum()) and 0.5 < share <= 1 and shares[0] >= shares[1]
    assert room.table("phase_change").run.tolist() == ["layers_2"]

    turns = room.table("turns")
    assert turns.run.tolist() == ["layers_2"]
    row = turns.iloc[0]
    at = paths[paths.run == "layers_2"][["pc1", "pc2"]].to_numpy(copy=True)
    found = sharpest_turn(torch.from_numpy(at), 2, 4)
    assert 0 <= row.degrees <= 180 and row.degrees == pytest.approx(found.degrees, abs=0.01)
    assert [row.after_pc1, row.after_pc2] == pytest.approx(found.after.tolist(), abs=1e-4)
    assert np.isnan(row.low) and np.isnan(row.high)  # too few chains


def test_pairs_of_turns_and_where_the_runs_are(runs, tmp_path):
    again = shutil.copytree(runs / "layers_2", tmp_path / "more" / "layers_2")
    pertoken_pca.run(settings(runs, again), tmp_path / "room")
    room = RunDir(tmp_path / "room")
    where = room.table("runs").set_index("run").path
    assert (room.path / where["more/layers_2"]).resolve() == again.resolve()
    pairs = room.table("turn_pairs").set_index(["kind", "run", "other"])
    assert pairs.index.tolist() == [
        ("turn", "runs/layers_2", "more/layers_2"),
        ("control", "runs/layers_2", "layers_1"),
        ("control", "more/layers_2", "layers_1"),
    ]
    assert pairs.correlation.iloc[0] == pytest.approx(1)  # the same run turns as it does
    control = pairs.loc["control"]
    assert (
        control.iloc[0].tolist() == pytest.approx(control.iloc[1].tolist(), nan_ok=True)
        and abs(control.correlation.iloc[0]) < 1
    )


def test_turns_are_compared_in_the_space_of_all_tokens():
    """One run turns from token 0 to token 1, the other from token 0 to token 2: the cosine of e1 - e0 and e2 - e0."""
    e = torch.eye(9)[:3]
    path = [torch.stack([e[0] * min(i, 2) + e[k] * max(i - 2, 0) for i in range(5)]) for k in (1, 2)]
    still = torch.stack([e[0] * i for i in range(5)])
    table = pertoken_pca.turn_pair_rows(
        {"a": path[0], "b": path[1], "c": still}, {"a": (2, 2), "b": (2, 2), "c": None}
    ).set_index(["run", "other"])
    assert table.correlation["a", "b"] == pytest.approx(0.5)
    assert table.kind["a", "c"] == "control" and np.isnan(table.correlation["a", "c"])  # what does not turn


def test_paths_are_the_components_of_the_losses(runs, tmp_path):
    pertoken_pca.run(settings(runs / "layers_1"), tmp_path / "room")
    run = RunDir(runs / "layers_1")
    corpus = open_corpus(run.config().data, 61)
    windows, columns = held_out_windows(corpus.tokens("validation"), N, 64, 52), random_columns(N, 64)
    losses = [
        held_out_losses(load_snapshot(run, s), windows).gather(1, columns[:, None])[:, 0] for s in run.snapshots()
    ]
    coordinates, _, _ = principal_components(torch.stack(losses))
    found = RunDir(tmp_path / "room").table("pertoken_pca")[["pc1", "pc2"]].to_numpy()
    assert np.allclose(np.abs(found), coordinates.abs().numpy(), atol=1e-3)


def test_traces_are_the_tokens_that_changed_most(runs, tmp_path):
    pertoken_pca.run(settings(runs), tmp_path / "room")
    traces = RunDir(tmp_path / "room").table("traces")
    assert traces.groupby(["kind", "example"]).size().tolist() == [SNAPSHOTS] * 6
    tokens = [s.tokens for s in RunDir(runs / "layers_2").snapshots()]
    for (_, _), rows in traces.groupby(["kind", "example"]):
        assert rows.tokens.tolist() == tokens
        assert rows.change.iloc[0] == pytest.approx(rows.loss.iloc[4] - rows.loss.iloc[2], abs=1e-5)
    fell, rose = (traces[traces.kind == kind].change for kind in ("fell", "rose"))
    assert fell.is_monotonic_increasing and rose.is_monotonic_decreasing and fell.max() < rose.min()


def test_tokens_that_look_like_missing_values_are_shown(runs, tmp_path, monkeypatch):
    """Python text is full of None; read back from a CSV it would be nan."""
    silent = type("", (), {"decode": lambda *_: "None"})()
    monkeypatch.setattr(RunDir, "tokenizer", lambda _: silent)
    pertoken_pca.run(settings(runs), tmp_path / "room")
    page = (tmp_path / "room" / "traces.html").read_text()
    assert page.count(">None</mark>") == 6 and ">nan<" not in page


def test_without_a_window_there_is_no_turn_and_no_page(trained, tmp_path):
    pertoken_pca.run(settings(trained / "runs"), tmp_path / "room")
    room = RunDir(tmp_path / "room")
    assert room.table("turns").empty and room.table("phase_change").empty
    assert not (room.path / "traces.html").exists()


def test_running_again_gives_the_same_bytes(runs, tmp_path):
    contents = []
    for _ in range(2):
        pertoken_pca.run(settings(runs), tmp_path / "room")
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "room").rglob("*") if path.is_file()})
    assert contents[0] == contents[1] and "traces.html" in contents[0]


def test_no_traces_asked_for(runs, tmp_path):
    pertoken_pca.run(settings(runs, traces=0), tmp_path / "room")
    assert len(RunDir(tmp_path / "room").table("turns")) == 1
    assert not (tmp_path / "room" / "traces.html").exists()


def test_runs_of_one_name_are_told_apart_and_one_given_twice_is_one(runs, tmp_path):
    again = shutil.copytree(runs / "layers_2", tmp_path / "more" / "layers_2")
    pertoken_pca.run(settings(runs, again, runs / "layers_2"), tmp_path / "room")
    room = RunDir(tmp_path / "room")
    names = ["layers_1", "runs/layers_2", "more/layers_2"]
    assert list(dict.fromkeys(room.table("pertoken_pca").run)) == names
    assert room.table("turns").run.tolist() == names[1:]
    assert set(room.table("traces").run) == set(names[1:])
    assert (tmp_path / "room" / "traces.html").read_text().count("<h2>") == 2


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x", "a/y"], ["x", "y"]),
        (["a/x", "b/x", "b/y"], ["a/x", "b/x", "y"]),
        (["p/a/x", "q/a/x", "q/y"], ["p/a/x", "q/a/x", "y"]),
    ],
)
def test_names_are_as_long_as_it_takes(paths, names):
    assert pertoken_pca.unique_names([RunDir(Path("/runs") / path) for path in paths]) == names


# ------------------------------------------------------------------------------------------------ refused


def refused(message: str, *paths: Path) -> None:
    room = paths[0].parent / "room"
    with pytest.raises(RunError, match=message):
        pertoken_pca.run(settings(*paths), room)
    assert not room.exists()


def test_different_tokenizers_are_refused(trained):
    refused("different tokenizers, so their per-token losses", trained / "runs", trained / "other_tokenizer")


def test_different_contexts_are_refused(trained):
    refused(r"different contexts \(64, 66 tokens\)", trained / "runs", trained / "other_context")


def test_one_snapshot_is_no_path(runs):
    run = RunDir(runs / "layers_2")
    for snapshot in run.snapshots()[1:]:
        snapshot.path.unlink()
    refused("layers_2' has one snapshot; a path needs at least two", runs)


def test_unfinished_run_is_refused_before_any_work(runs, monkeypatch):
    run = RunDir(runs / "layers_2")
    run.write_meta(status="interrupted")
    run.table_file("phase_change").unlink()
    monkeypatch.setattr(pertoken_pca, "losses_at", None)
    refused("layers_2' is interrupted: its phase change is not known", runs)


def test_what_is_no_run_is_refused(runs):
    (runs / "nothing").mkdir()
    refused("not a run directory", runs / "nothing")
    refused("there is no run directory", runs / "nowhere")


# ------------------------------------------------------------------------------------------------ page


@pytest.fixture
def nasty() -> pd.DataFrame:
    rows = [
        {"run": "<b>run & co</b>", "kind": kind, "example": i, "index": 5, "change": change, "tokens": t, "loss": loss}
        | {"before_text": "a<script>alert('x')</script> & b", "token_text": '"</mark><img src=x>'}
        for i, (kind, change) in enumerate((("fell", -1.5), ("rose", 0.5)))
        for t, loss in ((0, 4.0), (1_000_000, 2.5))
    ]
    return pd.DataFrame(rows)


def test_page_escapes_text_and_asks_nobody_for_anything(nasty):
    page = trace_page(nasty)
    assert "<script" not in page and "<img" not in page and "<b>run" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; b" in page
    assert "&lt;b&gt;run &amp; co&lt;/b&gt;" in page
    assert not re.search(
        r"https?:|//|\bsrc=|\bhref=(?!.data:,)|url\(|@import", page.replace("&#34;&lt;/mark&gt;&lt;img src=x&gt;", "")
    )


def test_page_says_what_happened_to_each_token(nasty):
    page = trace_page(nasty)
    assert page.count("<article") == 2
    assert 'class="fell"' in page and "<b>-1.50 nats</b> at index 5: 4.0 at first, 2.5 at last" in page
    assert 'class="rose"' in page and "<b>+0.50 nats</b>" in page


def test_a_curve_spans_its_box_and_names_its_points():
    points = curve([0, 1_000_000, 4_000_000], [4.0, 2.0, 0.0])
    assert [point.at for point in points] == ["0.0,4.0", "50.0,32.0", "200.0,60.0"]
    assert points[1].said == "1M tokens: 2.00 nats"
    assert curve([0], [0.0])[0].at == "0.0,60.0"


def test_random_columns_are_the_same_for_every_run(runs, tmp_path, monkeypatch):
    seen = []

    def noted(model, windows, columns, batch_size):
        seen.append((windows, columns))
        return columns.float() + len(seen)

    monkeypatch.setattr(pertoken_pca, "losses_at", noted)
    pertoken_pca.run(settings(runs), tmp_path / "room")
    assert len(seen) == 2 * SNAPSHOTS
    assert all(torch.equal(w, seen[0][0]) and torch.equal(c, seen[0][1]) for w, c in seen)


def test_losses_kept_in_a_runs_room_serve_planes_of_several(runs, tmp_path, monkeypatch):
    plain = tmp_path / "plain"
    pertoken_pca.run(settings(runs), plain)
    for name in ("layers_1", "layers_2"):
        pertoken_pca.run(settings(runs / name), runs / name / "pertoken_pca")
    monkeypatch.setattr(pertoken_pca, "losses_at", None)  # not computed again
    pertoken_pca.run(settings(runs), tmp_path / "kept")
    for table in ("pertoken_pca", "turns"):
        assert RunDir(tmp_path / "kept").table_file(table).read_bytes() == RunDir(plain).table_file(table).read_bytes()
    monkeypatch.undo()
    RunDir(runs / "layers_2" / "pertoken_pca").kept_file.write_bytes(b"damaged")
    pertoken_pca.run(settings(runs), tmp_path / "again")
    assert RunDir(tmp_path / "again").table_file("turns").read_bytes() == RunDir(plain).table_file("turns").read_bytes()


def test_corpus_of_the_first_run_serves_all(runs, tmp_path):
    """Runs of one tokenizer may come from settings that differ elsewhere."""
    run = RunDir(runs / "layers_2")
    run.write_config(replace(run.config(), seed=5))
    assert pertoken_pca.run(settings(runs), tmp_path / "room") > 0

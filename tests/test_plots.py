"""Figures are made from every table a run can have, say their units, and leave their tables alone."""

from __future__ import annotations

import io
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from induction_cli import words
from induction_cli.plots import classify as minimal
from induction_cli.plots import score as plots
from induction_cli.plots import style
from induction_cli.plots import training as curves
from induction_cli.terminal import new_table, print_table

WINDOW = pd.DataFrame({"start_tokens": [2.0e6], "end_tokens": [3.3e6]})
NO_WINDOW = pd.DataFrame({"start_tokens": [np.nan], "end_tokens": [np.nan]})
TWO_WINDOWS = pd.DataFrame({"start_tokens": [1.0e6, 1.1e6], "end_tokens": [2.0e6, 2.1e6]})
WINDOWS = {"none": None, "empty": WINDOW[:0], "nan": NO_WINDOW, "one": WINDOW, "two": TWO_WINDOWS}


def times(snapshots: int) -> np.ndarray:
    """Uneven spacing, from step 0 on."""
    return np.concatenate([[0.0], np.geomspace(1e5, 5e6, snapshots - 1)]) if snapshots > 1 else np.array([3e6])


def training(snapshots: int) -> pd.DataFrame:
    tokens = times(snapshots)
    return pd.DataFrame({"step": range(len(tokens)), "tokens": tokens, "loss": 6 - tokens / 1e6})


def scores(snapshots: int) -> pd.DataFrame:
    tokens = np.repeat(times(snapshots), 2)
    score = -0.1 * tokens / 1e6
    kind = ["exact", "windowed"] * snapshots
    return pd.DataFrame(
        {"tokens": tokens, "kind": kind, "in_context_learning_score": score, "low": score - 0.02, "high": score + 0.02}
    )


def by_index(snapshots: int, value: str) -> pd.DataFrame:
    tokens, index = (axis.ravel() for axis in np.meshgrid(times(snapshots), np.arange(11), indexing="ij"))
    return pd.DataFrame({"step": 0, "tokens": tokens, "index": index, value: 3.0 - 0.1 * index})


def heads(snapshots: int, layers: int = 2, width: int = 3, measures=("prefix_matching", "previous_token")):
    rows = [
        (step, tokens, layer, head, measure, (layer + head + step) / (layers + width + snapshots))
        for step, tokens in enumerate(times(snapshots))
        for layer in range(layers)
        for head in range(width)
        for measure in measures
    ]
    return pd.DataFrame(rows, columns=["step", "tokens", "layer", "head", "measure", "value"])


def typed(table: pd.DataFrame) -> pd.DataFrame:
    kinds = np.array(["previous_token", "induction", "other"])
    return table.assign(head_type=kinds[(table["layer"] + table["head"]) % 3])


def as_runs(table: pd.DataFrame, names=("a", "b", "c")) -> pd.DataFrame:
    return pd.concat([table.assign(run=name) for name in names], ignore_index=True)


def drawn(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


FIGURES = {
    "training_loss": lambda n, windows: (curves.training_loss, training(n), windows),
    "training_loss, runs": lambda n, windows: (curves.training_loss, as_runs(training(n)), windows),
    "score": lambda n, windows: (curves.in_context_learning_score, scores(n), windows),
    "score, runs": lambda n, windows: (curves.in_context_learning_score, as_runs(scores(n), "abcdefghi"), windows),
    "loss_by_index": lambda n, windows: (curves.loss_by_index, by_index(n, "loss"), windows),
    "loss_derivative": lambda n, windows: (curves.loss_derivative, by_index(n, "derivative"), windows),
    "heads": lambda n, windows: (curves.head_scores_over_tokens, heads(n), "prefix_matching", windows),
    "heads, typed": lambda n, windows: (curves.head_scores_over_tokens, typed(heads(n)), "previous_token", windows),
    "one head": lambda n, windows: (curves.head_scores_over_tokens, heads(n, 1, 1), "prefix_matching", windows),
    "co_timing": lambda n, windows: (plots.co_timing, scores(n), heads(n), windows),
}


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("snapshots", [1, 2, 12])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_with_units_and_leaves_its_tables_alone(name, snapshots, windows):
    function, *arguments = FIGURES[name](snapshots, WINDOWS[windows])
    copies = [a.copy() if isinstance(a, pd.DataFrame) else a for a in arguments]
    figure = function(*arguments)
    drawn(figure)
    assert figure.get_figwidth() * figure.dpi == 800
    assert figure.axes[-2 if "loss_" in name and "training" not in name else -1].get_xlabel() == style.TOKENS
    for axes in figure.axes:
        assert axes.get_ylabel()
    for argument, copy in zip(arguments, copies, strict=True):
        if isinstance(argument, pd.DataFrame):
            pd.testing.assert_frame_equal(argument, copy)
    assert plt.get_fignums() == []


UNITS = {
    "training_loss": "nats",
    "score": "nats",
    "loss_by_index": "token index",
    "loss_derivative": "token index",
    "heads": "share",
    "co_timing": "nats",
}


@pytest.mark.parametrize("name", UNITS)
def test_the_vertical_axis_says_its_unit(name):
    function, *arguments = FIGURES[name](5, WINDOW)
    figure = function(*arguments)
    assert UNITS[name] in figure.axes[0].get_ylabel()
    if UNITS[name] == "token index":
        assert "nats" in figure.axes[1].get_ylabel()  # the colour bar


def labels_of(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_window_is_named_once_and_only_where_there_is_one():
    assert labels_of(curves.training_loss(training(9), WINDOW)) == ["phase change"]
    assert labels_of(curves.training_loss(training(9), TWO_WINDOWS)) == ["phase change"]  # one would cover the other
    apart = pd.DataFrame({"start_tokens": [0.5e6, 4e6], "end_tokens": [1e6, 4.5e6]})
    assert labels_of(curves.training_loss(training(9), apart)) == ["phase change"] * 2
    for windows in (None, NO_WINDOW, WINDOW[:0]):
        assert labels_of(curves.training_loss(training(9), windows)) == []
    assert labels_of(plots.co_timing(scores(9), heads(9), WINDOW)).count("phase change") == 1


def test_a_window_beyond_the_data_does_not_stretch_the_axis():
    far = pd.DataFrame({"start_tokens": [4e6], "end_tokens": [9e6]})
    assert curves.training_loss(training(9), far).axes[0].get_xlim()[1] == pytest.approx(5.0e6)


def test_log_tokens_leave_out_step_zero():
    figure = curves.training_loss(training(9), WINDOW, log_tokens=True)
    drawn(figure)
    assert figure.axes[0].get_xscale() == "log" and figure.axes[0].get_xlim()[0] > 0


def test_head_types_keep_their_colours_and_notable_heads_their_names():
    figure = curves.head_scores_over_tokens(typed(heads(6)), "prefix_matching")
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert colours == set(style.HEAD_COLOURS.values())
    assert any(word.startswith("L1H2 ") for word in labels_of(figure))
    assert figure.axes[0].get_ylim() == (0, 1)
    untyped = curves.head_scores_over_tokens(heads(6), "prefix_matching")
    assert "L1H2" in labels_of(untyped) and len(untyped.axes[0].lines) == 6


def test_a_head_below_a_tenth_is_not_named():
    table = heads(4)
    table["value"] *= 0.05
    assert labels_of(curves.head_scores_over_tokens(table, "prefix_matching")) == []


def test_signed_scores_get_a_signed_axis():
    table = heads(4, measures=("copying",))
    table["value"] = table["value"] * 2 - 1
    assert curves.head_scores_over_tokens(table, "copying").axes[0].get_ylim() == (-1, 1)
    drawn(plots.head_mosaic(table, "copying"))


@pytest.mark.parametrize("names", [("one", "two", "three"), [f"run {n}" for n in range(16)]])
def test_names_of_runs_do_not_overlap(names):
    figure = curves.in_context_learning_score(as_runs(scores(9), names), WINDOW)
    renderer = drawn(figure).get_renderer()
    labels = [text for text in figure.axes[0].texts if text.get_text() in names]
    boxes = sorted((text.get_window_extent(renderer) for text in labels), key=lambda box: box.y0)
    assert len(boxes) == len(names)
    assert all(below.y1 <= above.y0 + 4 for below, above in pairwise(boxes))
    assert max(box.x1 for box in boxes) <= 800


def test_mosaic_writes_the_values_of_the_last_snapshot():
    figure = plots.head_mosaic(heads(3), "prefix_matching")
    drawn(figure)
    last = heads(3).query("measure == 'prefix_matching' and step == 2")
    assert labels_of(figure) == [f"{value:.2f}" for value in last["value"]]
    assert figure.axes[0].get_xlabel().startswith("head") and figure.axes[0].get_ylabel().startswith("layer")
    first = heads(3).query("measure == 'prefix_matching' and step == 0")
    assert labels_of(plots.head_mosaic(heads(3), "prefix_matching", step=0)) == [
        f"{value:.2f}" for value in first["value"]
    ]


def test_mosaic_of_one_head_of_many_and_of_missing_values():
    drawn(plots.head_mosaic(heads(1, 1, 1), "prefix_matching"))
    drawn(plots.head_mosaic(heads(1, 24, 16), "prefix_matching"))
    table = heads(1)
    table.loc[0, "value"] = np.nan
    assert labels_of(plots.head_mosaic(table, "prefix_matching"))[0] == "-"
    assert len(labels_of(plots.head_mosaic(table[4:], "prefix_matching"))) == 6


def test_what_cannot_be_drawn_is_refused_by_name():
    with pytest.raises(ValueError, match="copying"):
        curves.head_scores_over_tokens(heads(3), "copying")
    with pytest.raises(ValueError, match="step 99"):
        plots.head_mosaic(heads(3), "prefix_matching", step=99)
    with pytest.raises(ValueError, match="one run"):
        curves.loss_by_index(as_runs(by_index(3, "loss")))


def test_heatmap_cells_follow_uneven_spacing():
    assert style.cell_edges(np.array([0.0, 1.0, 4.0])).tolist() == [0.0, 0.5, 2.5, 5.5]
    figure = curves.loss_derivative(by_index(5, "derivative"))
    mesh = figure.axes[0].collections[0]
    assert mesh.norm.vmin == -mesh.norm.vmax


def test_spread_keeps_order_and_distance():
    assert style.spread([0.0, 0.5, 1.0], 0.1) == [0.0, 0.5, 1.0]
    assert style.spread([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    places = style.spread([0.1, 0.1, 0.12, 0.9], 0.1)
    assert all(np.diff(places) >= 0.1 - 1e-9) and places[-1] == 0.9


# ---------------------------------------------------------------------------------------------- how numbers are written


@pytest.mark.parametrize(
    ("count", "written"),
    [(0, "0"), (850, "850"), (5_000, "5k"), (40_448, "40.4k"), (999_999, "1M"), (1.25e6, "1.25M"), (3e9, "3B")],
)
def test_counts_are_short_whatever_their_size(count, written):
    assert words.short(count) == written


def test_what_rounds_to_nothing_has_no_sign():
    assert [words.signed(value) for value in (-0.001, 0.004, -0.3, 0.3)] == ["0.00", "0.00", "-0.30", "+0.30"]
    assert words.plain(0.3) == "0.30" and words.plain(-0.0) == "0.00"
    assert [words.decimals_for(largest) for largest in (3.0, 0.2, 0.03, 0.001, 0.0)] == [2, 2, 3, 4, 2]


@pytest.mark.parametrize(("scale", "ticks"), [(1e3, {"1k", "2k"}), (1e6, {"1M", "2M"}), (1, {"1", "2"})])
def test_time_is_written_in_the_size_it_has(scale, ticks):
    table = training(9)
    table["tokens"] = table["tokens"] / 1e6 * scale
    figure = curves.training_loss(table)
    drawn(figure)
    assert ticks <= {tick.get_text() for tick in figure.axes[0].get_xticklabels()}
    steps = plots.in_steps(figure)
    assert steps.axes[0].get_xlabel() == "training steps"


def test_small_changes_are_told_apart_and_look_small():
    table = heads(3, measures=("in_context_learning_change",))
    table["value"] = np.linspace(-0.002, 0.002, len(table))
    figure = plots.head_mosaic(table, "in_context_learning_change")
    drawn(figure)
    assert "-0.00" not in labels_of(figure) and len(set(labels_of(figure))) == len(labels_of(figure))
    assert figure.axes[0].collections[0].norm.vmax == 0.1
    assert figure.axes[1].get_ylabel() == "nats"  # the colour bar


def test_the_title_names_the_indices_that_were_measured():
    title = curves.in_context_learning_score(scores(5), indices=(8, 60)).get_suptitle()
    assert title == "In-context learning score: loss at index 60 less loss at index 8"
    assert "500" not in curves.in_context_learning_score(scores(5)).get_suptitle()


def test_long_titles_take_more_lines():
    figure, _ = style.new_figure("a rather long title " * 8, "")
    box = figure._suptitle.get_window_extent(drawn(figure).get_renderer())
    assert box.x1 <= 800 and "\n" in figure.get_suptitle()


def test_names_of_measures_keep_their_capitals():
    table = heads(3, measures=("qk_trace",))
    assert plots.head_mosaic(table, "qk_trace").get_suptitle() == "QK trace by layer and head"


def test_events_of_a_training_in_which_nothing_rose_say_so():
    onsets = pd.DataFrame({"system": "network", "seed": [0, 1], "event": "in_context", "step": np.nan})
    summary = pd.DataFrame({"event": ["in_context"], "step": np.nan, "step_low": np.nan, "step_high": np.nan})
    figure = minimal.events(onsets, summary)
    drawn(figure)
    assert labels_of(figure) == ["no curve rose, so none has a time at which it did"] and not figure.axes[0].axison


def printed(table: Table, width: int) -> list[str]:
    said = io.StringIO()
    print_table(table, Console(file=said, width=width))
    return said.getvalue().splitlines()


def test_no_word_of_a_table_breaks_on_a_narrow_terminal():
    names = ("run", "score (nats)", "95% interval", "prefix\nmatching", "previous\ntoken", "phase change\n(tokens)")
    table = new_table("What was seen", names, left=("run",))
    table.add_row("2 layers, seed 0", "-0.546", "-0.58 to -0.51", "0.91", "0.88", "1.84M to 2.02M")
    narrow, wide = printed(table, 60), printed(table, 120)
    for word in (*" ".join(names).split(), "layers,", "1.84M", "-0.58"):
        assert word in " ".join(narrow).split()
    assert max(map(len, narrow)) <= 60
    assert any("2 layers, seed 0" in line and "1.84M to 2.02M" in line for line in wide)


def test_a_table_that_fits_nowhere_is_printed_all_the_same():
    table = new_table("", ("a", "b"), left=("a",))
    table.add_row("antidisestablishmentarianism", "1.00")
    assert max(map(len, printed(table, 20))) <= 20

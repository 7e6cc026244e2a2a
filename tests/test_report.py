"""The page: what stands in it, and that nothing on disk keeps it from being made."""

import base64
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from small_report import HEADS, small_report, small_runs

from induction_cli.config import ConfigError, ReportConfig
from induction_cli.evaluation.scores import load_snapshot
from induction_cli.evidence import report
from induction_cli.page import explorer, rooms, sections
from induction_cli.page.figures import Figures
from induction_cli.page.template import embedded
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import Effect, Verdict

SVG = """<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt" height="36pt"
 viewBox="0 0 72 36">
 <title>The &amp; title</title>
 <metadata>who made it</metadata><defs><style type="text/css">*{stroke: red}</style></defs>
 <g id="patch_1"><path d="M 1.23456 2
L 3 4.5" clip-path="url(#box)" style="fill: url(#box)"/></g>
 <!-- small -->
 <text style="font-size: 10px; font-family: 'A', serif; text-anchor: middle" x="1">a <tspan>b</tspan> &lt;c&gt;</text>
 <use xlink:href="#mark"/><image xlink:href="data:image/png;base64,AAAA"/>
 <defs><path id="mark" d="M 0 0"/><clipPath id="box"><rect x="0" y="0"/></clipPath></defs>
</svg>"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return small_runs(tmp_path_factory.getbasetemp() / "small_runs")


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory) -> str:
    return small_report(runs, tmp_path_factory.mktemp("page")).read_text()


@pytest.fixture
def copy(runs, tmp_path) -> Path:
    """The runs, to be damaged."""
    return Path(shutil.copytree(runs, tmp_path / "runs", ignore=shutil.ignore_patterns(".cache")))


def data_of(html: str) -> list[dict]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1])


def shown(path: Path, out_dir: Path, **settings) -> str:
    report.run(ReportConfig([str(path)], explorer_runs=settings.pop("explorer_runs", 0), **settings), out_dir)
    return (out_dir / "report.html").read_text()


# ------------------------------------------------------------------------------------------------ plots


def test_two_plots_share_no_id():
    figures = Figures(10_000)
    first, second = figures.svg(SVG), figures.svg(SVG)
    ids = re.findall(r' id="([^"]+)"', first + second)
    assert sorted(ids) == ["p1-box", "p1-mark", "p2-box", "p2-mark"]
    assert 'href="#p1-mark"' in first and 'href="#p2-mark"' in second
    assert 'clip-path="url(#p2-box)"' in second and "fill: url(#p2-box)" in second
    assert 'href="data:image/png;base64,AAAA"' in first
    assert "who made it" not in first and "<style" not in first and "patch_1" not in first
    assert 'd="M 1.23 2 L 3 4.5"' in first and 'width="72" height="36" viewBox="0 0 72 36"' in first


def test_words_of_a_plot_are_text():
    assert '<text style="font-size: 10px; text-anchor: middle" x="1">a <tspan>b</tspan> &lt;c&gt;</text>' in Figures(
        10_000
    ).svg(SVG)


def test_a_plot_says_what_it_is_called():
    assert 'role="img" aria-label="The &amp; title"' in Figures(1000).svg(SVG)
    nameless = SVG.replace("<title>The &amp; title</title>", "")
    assert 'aria-label="loss by index"' in Figures(1000).svg(nameless, "loss_by_index")


def test_plots_are_written_with_their_words_and_headline(tmp_path):
    figure = Figure(layout="constrained")
    figure.suptitle("Loss & more")
    figure.subplots().set_ylabel("loss (nats)")
    RunDir(tmp_path).write_plot("loss", figure)
    drawn = Figures(100_000).inline(tmp_path / "plots" / "loss.svg")
    assert drawn is not None and 'aria-label="Loss &amp; more"' in drawn
    assert ">loss (nats)</text>" in drawn and ">Loss &amp; more</text>" in drawn


def test_plots_that_are_damaged_or_too_many_are_left_out(tmp_path):
    path = tmp_path / "plot.svg"
    path.write_text("half of a pl")
    assert Figures(10_000).inline(path) is None
    path.write_text(SVG)
    figures = Figures(len(Figures(10_000).inline(path)) + 100)
    assert figures.inline(path) and figures.inline(path) is None


def test_a_large_plot_is_its_png(tmp_path):
    (tmp_path / "many_points.svg").write_text("<svg>" + "x" * 400_000 + "</svg>")
    assert Figures(10_000).inline(tmp_path / "many_points.svg") is None
    (tmp_path / "many_points.png").write_bytes(b"picture")
    drawn = Figures(10_000).inline(tmp_path / "many_points.svg")
    assert base64.b64encode(b"picture").decode() in drawn and 'alt="many points"' in drawn


# ------------------------------------------------------------------------------------------------ words


def effects(*values: float) -> list[Effect]:
    return [Effect(f"run {i}", value, value - 1, value + 1, True, seed=i % 2) for i, value in enumerate(values)]


def test_effects_in_words():
    assert sections.summary([]) == "none"
    assert sections.summary(effects(0.5)) == "+0.50 [-0.50, +1.50]"
    assert sections.summary(effects(-3.0, 0.0123, 7.0)) == "median +0.012, from -3.00 to +7.00"
    assert sections.summary([Effect("a", 0.5, math.nan, math.nan, None)]) == "+0.50"
    assert sections.counted(effects(1, 2, 3)) == "3 runs, 2 seeds"
    assert sections.counted(effects(1)) == "one run"
    assert report.compact(effects(1, 2, -3)) == "-3.00 to +2.00"


def test_a_command_as_it_was_typed():
    typed = ["run_dirs=['runs/a b','runs/c']", "+score='smoke'", "n_examples=3", "hydra.run.dir=x"]
    assert rooms.as_typed("pertoken_pca", typed[:1]) == "induction pertoken-pca 'runs/a b' runs/c"
    assert rooms.as_typed("score", ["run_dir='a'", *typed[1:]]) == "induction score a -e smoke n_examples=3"


def test_untested_claims_take_one_line(capsys):
    found = [Verdict("9a", "not tested", [], "nothing"), Verdict("9b", "not tested", [], "nothing")]
    report.show(found, {})
    assert "not tested: 9a, 9b (nothing)" in capsys.readouterr().out


def test_text_cannot_end_its_script():
    assert "</script" not in embedded([{"tokens": ["</script><script>alert(1)"]}])


# ------------------------------------------------------------------------------------------------ what is found


def test_a_run_given_twice_counts_once(runs):
    found = rooms.find([runs, runs, runs / "layers_1", runs / "." / "layers_2"])
    assert [run.label for run in found.runs] == ["1 layer, seed 0", "2 layers, seed 0"]
    assert [(room.command, room.run.label) for room in found.rooms] == [
        ("score", "1 layer, seed 0"),
        ("score", "2 layers, seed 0"),
    ]


def test_a_room_without_a_run_is_known_by_its_command(tmp_path):
    room = tmp_path / "2026-01-01_00-00-00"
    (room / "plots").mkdir(parents=True)
    (room / "multirun.yaml").write_text("hydra: {job: {name: classify}}")
    (room / "plots" / "grid.svg").write_text(SVG)
    html = shown(room, tmp_path / "out")
    assert "Classification in context" in html and "bursts, classes and variation" in html


def test_explored_runs_are_of_different_kinds(runs):
    found = rooms.find([runs]).runs
    assert [run.label for run in explorer.choose(found, 1)] == ["2 layers, seed 0"]
    assert [run.label for run in explorer.choose([*found, *rooms.find([runs]).runs], 3)] == [
        "2 layers, seed 0",
        "1 layer, seed 0",
        "2 layers, seed 0",
    ]


def test_snapshots_are_spread_from_first_to_last():
    assert explorer.spread(41, 5) == [0, 10, 20, 30, 40]
    assert explorer.spread(3, 24) == [0, 1, 2]
    assert explorer.spread(1, 2) == [0]


def test_pairs_that_return():
    assert explorer.returning([1, 2, 3, 1, 2, 4, 1, 2]) == 1
    assert explorer.returning([1, 2, 1, 2, 1]) == 2


# ------------------------------------------------------------------------------------------------ the page


def test_page_holds_every_claim_and_nothing_from_elsewhere(written):
    for claim in ("1a", "2c", "3f", "7a", "8a"):
        assert f'id="claim-{claim}"' in written
    assert written.count('class="badge') >= 2 * written.count('<article id="claim-')
    assert not re.search(r'(?:src|href|url\()\s*=?\s*["\']?(?:https?:)?//', written)
    assert "default-src 'none'" in written
    assert len(re.findall(r' id="([^"]+)"', written)) == len(set(re.findall(r' id="([^"]+)"', written)))


def test_page_shows_plots_commands_and_what_was_not_run(written):
    assert written.count('<button class="paper"') == 2
    assert 'aria-label="In-context learning and induction heads"' in written
    assert "<b>Not run.</b>" in written and "make evidence-3" in written
    assert "2 training runs of 1 and 2 layers, seed 0" in written


def test_explorer_holds_the_models_own_patterns(runs, written):
    deep, shallow = data_of(written)
    assert (deep["name"], shallow["name"]) == ("2 layers, seed 0", "1 layer, seed 0")
    run = RunDir(runs / "layers_2")
    assert deep["steps"] == [snapshot.step for snapshot in run.snapshots()]
    text, place, head = deep["texts"][0], len(deep["kept"]) - 1, HEADS + 2  # layer 1, head 2
    packed = base64.b64decode(deep["patterns"][place][0][head])
    seen = np.frombuffer(packed, dtype=np.uint8) / 255
    with torch.no_grad():
        model = load_snapshot(run, run.snapshots()[deep["kept"][place]])
        _, kept = model(torch.tensor([text["ids"]]), record=("pattern",))
    rows, columns = np.tril_indices(len(text["ids"]))
    assert seen == pytest.approx(kept.pattern[1][0, 2].numpy()[rows, columns], abs=0.5 / 255 + 1e-6)
    assert len(text["ids"]) == len(text["tokens"]) and text["ids"][0] == 0


def test_explorer_holds_the_scores_of_the_tables(runs, written):
    deep = data_of(written)[0]
    table = RunDir(runs / "layers_2").folder("score").table("head_scores")
    last = table[(table.step == table.step.max()) & (table.measure == "prefix_matching")]
    assert deep["measures"]["prefix_matching"][-1] == pytest.approx(
        last.sort_values(["layer", "head"]).value.tolist(), abs=5e-4
    )
    assert "attention to the token after each earlier copy" in deep["definitions"]["prefix_matching"]
    assert len(deep["kinds"]) == 2 * HEADS
    assert deep["measures"]["qk_trace"][-1][0] is None  # layer 0 has none: no NaN in JSON


def test_one_line_alone(runs, tmp_path):
    html = shown(runs, tmp_path / "out", argument=3)
    assert 'id="line-3"' in html and 'id="line-1"' not in html and 'id="heads"' not in html


def test_nothing_to_show_is_a_page_too(tmp_path):
    (tmp_path / "empty").mkdir()
    html = shown(tmp_path / "empty", tmp_path / "out", explorer_runs=2)
    assert "No training run was found" in html and html.count("<b>Not run.</b>") == 8


def test_a_negative_number_of_runs_is_refused():
    with pytest.raises(ConfigError, match="explorer_runs is -1"):
        ReportConfig(["x"], explorer_runs=-1).check()


# ------------------------------------------------------------------------------------------------ damage


def test_damaged_tables_are_named_and_cost_their_claims_only(copy, tmp_path):
    tables = copy / "layers_2" / "score" / "tables"
    (tables / "phase_change.csv").write_bytes(b"")
    (tables / "by_chain.csv").write_bytes((tables / "by_chain.csv").read_bytes()[:-5])
    html = shown(copy, tmp_path / "out")
    assert "score of 2 layers, seed 0: phase_change.csv is empty" in html and "by_chain.csv breaks off" in html
    assert len(RunDir(tmp_path / "out").table("verdicts")) == html.count('<article id="claim-')


def test_tables_that_cannot_be_read_are_said_in_the_verdict(runs, monkeypatch):
    def broken(*_):
        raise KeyError("column\nx")

    monkeypatch.setattr(report, "verdicts", broken)
    (found,) = report.decided([runs], [{"id": "1a", "argument": 1}])
    assert found.verdict == "not tested" and "its tables cannot be read: KeyError: 'column" in found.note


def test_damaged_scores_fall_back_to_those_of_training(copy, tmp_path):
    (copy / "layers_2" / "score" / "tables" / "head_scores.csv").write_text("nothing\n1\n")
    html = shown(copy / "layers_2", tmp_path / "out", explorer_runs=1)
    (deep,) = data_of(html)
    assert set(deep["measures"]) == {"prefix_matching", "previous_token"} and deep["patterns"]
    assert "head_scores.csv is damaged" in html


def test_runs_that_were_never_scored_have_a_page(copy, tmp_path):
    for scores in copy.glob("*/score"):
        shutil.rmtree(scores)
    assert "prefix matching" in shown(copy, tmp_path / "page", explorer_runs=1)


def test_an_argument_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="argument is 9"):
        ReportConfig(["x"], argument=9).check()


def test_damaged_snapshots_and_configurations_are_said(copy, tmp_path):
    last = sorted((copy / "layers_2" / "snapshots").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-9])
    (copy / "layers_1" / ".hydra" / "config.yaml").write_text("model: {n_layerz: 3}")
    html = shown(copy, tmp_path / "out", explorer_runs=2)
    assert "cannot be explored" in html and last.name in html
    assert "n_layerz" in html


def test_half_written_runs_are_said(copy, tmp_path):
    RunDir(copy / "layers_1").write_meta(status="interrupted")
    shutil.rmtree(copy / "layers_1" / "snapshots")
    html = shown(copy, tmp_path / "out", explorer_runs=2)
    assert "its status is &#39;interrupted&#39;" in html and "no attention is shown" in html
    (copy / "layers_1" / "meta.json").write_text("{")
    assert "meta.json is damaged" in shown(copy, tmp_path / "out")


def test_failed_steps_stand_in_their_section(copy, tmp_path):
    steps = [
        {
            "name": "ablate one",
            "line": 3,
            "command": "induction ablate x",
            "folder": "x/ablate",
            "key": "",
            "seconds": 1,
        }
        | {"status": "failed", "error": "the disk is <full>"},
        {"name": "score", "line": 1, "command": "induction score x", "folder": "x/score", "status": "done"},
    ]
    (copy / "steps.json").write_text(json.dumps(steps))
    html = shown(copy, tmp_path / "out")
    section = html[html.index('id="line-3"') : html.index('id="line-4"')]
    assert "The step ablate one failed:</b> the disk is &lt;full&gt; <code>induction ablate x</code>" in section
    assert html.count("The step ") == 1
    (copy / "steps.json").write_text("half")
    assert "The step " not in shown(copy, tmp_path / "out")


def test_runs_of_a_pipeline_are_found_through_its_steps(copy, tmp_path):
    root = tmp_path / "root"
    (root / "train").mkdir(parents=True)
    shutil.move(copy / "layers_2", root / "train" / "layers_2")
    steps = [{"name": "train", "line": 1, "folder": "train/layers_2", "command": "induction train seed=0"}]
    (root / "steps.json").write_text(json.dumps(steps))
    html = shown(root, tmp_path / "out")
    assert "1 training run of 2 layers, seed 0" in html and "induction train seed=0" in html

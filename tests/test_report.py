"""The page: what stands in it, and that nothing on disk keeps it from being made."""

import base64
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from scored_runs import BY_ID
from small_report import small_report, small_runs

from induction_cli.config import ConfigError, ReportConfig
from induction_cli.evidence import report
from induction_cli.page import rooms, sections
from induction_cli.page.figures import Figures
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import Part, PartVerdict, Verdict

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


def test_estimates_in_words():
    fell = Part("fall", "nats", above=0.1)
    part = PartVerdict(fell, (), 0.5, 0.4, 0.6, "supported", 0.01, "identity")
    assert sections.interval(part) == "+0.50 nats [+0.40, +0.60]"
    assert sections.interval(replace(part, low=math.nan, high=math.nan)) == "+0.50 nats"
    assert report.compact(part) == "+0.50 nats [+0.40, +0.60]"
    share = replace(part, part=Part("rank", "of seeds", above=0.5), estimate=1.0, low=0.54, high=1.0, scale="share")
    assert report.compact(share) == "100% of seeds [54%, 100%]"


def test_a_command_as_it_was_typed():
    typed = ["run_dirs=['runs/a b','runs/c']", "+score='smoke'", "n_examples=3", "hydra.run.dir=x"]
    assert rooms.as_typed("pertoken_pca", typed[:1]) == "induction pertoken-pca 'runs/a b' runs/c"
    assert rooms.as_typed("score", ["run_dir='a'", *typed[1:]]) == "induction score a -e smoke n_examples=3"


def test_untested_claims_are_told_together_with_what_would_test_them(capsys):
    one, two = (replace(BY_ID["1a"], id=name) for name in ("9a", "9b"))
    report.show([Verdict(claim, "2 layers", True, "not tested", missing="no run: make it") for claim in (one, two)])
    assert capsys.readouterr().out.split() == ["not", "tested:", "9a,", "9b", "no", "run:", "make", "it"]


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
    assert RunDir(tmp_path / "out").table("verdicts").headline.sum() == html.count('<article id="claim-')


def test_tables_that_cannot_be_read_are_said_in_the_verdict(runs, monkeypatch):
    def broken(*_):
        raise KeyError("column\nx")

    monkeypatch.setattr(report, "rows_of", broken)
    (found,) = report.decided([runs], [BY_ID["1a"]], [BY_ID["1a"]])
    assert found.verdict == "not tested" and "its tables cannot be read: KeyError: 'column" in found.missing


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

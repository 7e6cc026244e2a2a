"""The page: what stands in it, and that nothing on disk keeps it from being made."""

import base64
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scored_runs import BY_ID
from small_report import HEADS, small_report, small_runs

from induction_cli import words
from induction_cli.config import ConfigError, ReportConfig
from induction_cli.evaluation.scores import load_snapshot
from induction_cli.evidence import report
from induction_cli.page import explorer, forest, pretrained, rooms, sections, story
from induction_cli.page.figures import Figures
from induction_cli.page.template import embedded
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import Part, PartVerdict, SeedEstimate, Verdict

pytestmark = pytest.mark.slow

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


FELL = Part("fall of S", "nats", "fall", above=0.1)
RATIO = Part("ratio of onsets", "", scale="log", below=1)
WITHIN = Part("place in the window", "window widths", above=-0.25, below=1.25)


def estimated(part: Part, *values: float, low: float = math.nan, high: float = math.nan, verdict: str = "supported"):
    """A verdict of one part on seeds of those values; their interval where it is given."""
    seeds = tuple(SeedEstimate("2 layers", seed, f"run {seed}", value) for seed, value in enumerate(values))
    found = PartVerdict(part, seeds, sum(values) / len(values), low, high, verdict, 0.01, part.scale)
    return Verdict(replace(BY_ID["1a"], parts=(part,)), "2 layers", True, verdict, (found,), missing="2 more seeds")


def test_estimates_in_words():
    part = estimated(FELL, 0.4, 0.6, low=0.4, high=0.6).parts[0]
    assert forest.measured(part) == "fall +0.50 nats [+0.40, +0.60]"
    assert forest.measured(replace(part, low=math.nan, high=math.nan)) == "fall +0.50 nats"
    assert forest.measured(replace(part, estimate=-0.001)) == "fall -0.001 nats [+0.40, +0.60]"
    share = replace(part, part=Part("rank", "of seeds", above=0.5), estimate=1.0, low=0.54, high=1.0, scale="share")
    assert forest.measured(share) == "100% of seeds [54%, 100%]"


def test_a_row_has_its_threshold_in_the_middle_and_the_claims_side_at_the_right():
    row = forest.row_of(estimated(FELL, 0.4, 0.6, low=0.2, high=0.8))
    assert row.high == forest.MIDDLE + forest.REACH and forest.MIDDLE < row.low < row.x < row.high
    assert row.seeds[0] < row.x < row.seeds[1] and row.leans == "for"
    assert (row.found, row.rule, row.seeds_said) == (
        "fall +0.50 nats [+0.20, +0.80]",
        "above 0.1 nats",
        "2 seeds",
    )
    against = forest.row_of(estimated(RATIO, 2.0, 8.0, verdict="not tested"))
    assert against.x < forest.MIDDLE and against.low is None and against.leans == "against"
    assert against.seeds[1] == forest.MIDDLE - forest.REACH  # three times as far as the other: by logarithms
    assert against.seeds[0] == pytest.approx(forest.MIDDLE - forest.REACH / 3, abs=0.1)


def test_a_row_between_two_thresholds():
    inside, outside = (forest.row_of(estimated(WITHIN, value, low=value - 1, high=value + 1)) for value in (0.5, 3.0))
    assert inside.x == forest.MIDDLE + forest.REACH and inside.low < forest.MIDDLE  # it reaches over both ends
    assert outside.x < forest.MIDDLE and outside.high < forest.MIDDLE


def test_what_has_no_number_is_no_picture():
    row = forest.row_of(Verdict(BY_ID["1a"], "2 layers", True, "not tested", missing="no run"))
    assert row.x is None and not row.seen and row.leans == "" and row.found == ""


def test_a_chapter_finds_what_was_decided_or_else_what_was_seen():
    def chapter(*verdicts: Verdict) -> sections.Section:
        return sections.Section(1, "title", "question?", "make", forest.rows_of(verdicts), True)

    seen = estimated(FELL, 0.5, verdict="not tested")
    other = Verdict(BY_ID["1b"], "1 layer", True, "not tested", missing="no run of 1 layer")
    said = chapter(seen, other)
    assert "Seen in 1 seed: fall +0.50 nats, as the claim says (rule: above 0.1 nats)" in said.finding
    assert [row.verdict.id for row in said.decided] == ["1a"] and [row.verdict.id for row in said.untested] == ["1b"]
    decided = chapter(other, estimated(FELL, 0.4, 0.5, 0.6, low=0.3, high=0.7))
    assert "(supported: fall +0.50 nats [+0.30, +0.70])" in decided.finding
    assert chapter(other).finding == ""


# ------------------------------------------------------------------------------------------------ the story


def one_curve(depth: str, seed: int, matching: list[float], score: list[float]) -> pd.DataFrame:
    tokens = [1e6 * i for i in range(len(score))]
    columns = {"tokens": tokens, "in_context_learning_score": score, "prefix_matching": matching}
    return pd.DataFrame(columns).assign(depth=depth, seed=seed)


def test_the_sentence_is_made_from_the_numbers():
    deep = one_curve("deep", 0, [0.03, 0.05, 0.8, 0.9], [0.0, -0.02, -0.42, -0.45])
    shallow = one_curve("shallow", 0, [0.03, 0.04, 0.04, 0.05], [0.0, 0.01, -0.01, -0.003])
    windows = pd.DataFrame({"seed": [0], "start_tokens": [1e6], "end_tokens": [2e6]})
    seen = story.Curves(pd.concat([deep, shallow]), windows, {"deep": 2, "shallow": 1})
    assert story.sentence(seen) == (
        "With 2 layers the in-context learning score fell by 0.40 nats between 1M and 2M tokens, and the best head's "
        "prefix matching went from 0.05 to 0.90. With one layer the score ended at 0.00 nats, and no head matched "
        "prefixes above 0.05."
    )
    both = pd.concat([deep, one_curve("deep", 1, [0.03, 0.03, 0.03, 0.04], [0, 0, 0, -0.01])])
    two = story.Curves(both, pd.concat([windows, windows.assign(seed=1, start_tokens=math.nan)]), {"deep": 2})
    assert story.sentence(two).startswith("With 2 layers, in 1 of 2 seeds, the in-context learning score fell by 0.40")
    assert "from 0.05 to 0.90" in story.sentence(two)


def test_a_run_without_a_phase_change_says_so():
    deep = one_curve("deep", 0, [0.03, 0.03], [0.0, -0.004])
    windows = pd.DataFrame({"seed": [0], "start_tokens": [math.nan], "end_tokens": [math.nan]})
    said = story.sentence(story.Curves(deep, windows, {"deep": 2}))
    assert said.startswith("With 2 layers no phase change was seen in 1M tokens") and "by chance (0.03" in said


def test_the_picture_holds_both_depths_and_is_not_stretched_by_noise(runs):
    seen = story.curves(rooms.find([runs]).runs)
    assert seen is not None and seen.layers == {"deep": 2, "shallow": 1}
    above, below = seen.figure().axes
    assert len(above.lines) == 3 and len(below.lines) == 2  # and the line at zero
    assert above.get_ylim()[0] <= -0.1 and below.get_ylim() == (0, 1)


def test_what_more_seeds_would_add(runs):
    found = rooms.find([runs])
    one = estimated(FELL, 0.5, verdict="not tested")
    more = story.more_seeds(found, [one], [runs])
    assert (more.seeds, more.command) == (2, BY_ID["1a"].command) and more.time
    assert story.more_seeds(found, [estimated(FELL, 0.4, 0.5, 0.6)], [runs]) is None
    assert [words.duration(seconds) for seconds in (40, 540, 9000)] == ["40 seconds", "9 minutes", "2.5 hours"]


def test_a_command_as_it_was_typed():
    typed = ["run_dirs=['runs/a b','runs/c']", "+score='smoke'", "n_examples=3", "hydra.run.dir=x"]
    assert rooms.as_typed("pertoken_pca", typed[:1]) == "induction pertoken-pca 'runs/a b' runs/c"
    assert rooms.as_typed("score", ["run_dir='a'", *typed[1:]]) == "induction score a -e smoke n_examples=3"


def test_untested_claims_are_told_together_with_what_would_test_them(capsys):
    one, two = (replace(BY_ID["1a"], id=name) for name in ("9a", "9b"))
    report.show([Verdict(claim, "2 layers", True, "not tested", missing="no run: make it") for claim in (one, two)])
    assert capsys.readouterr().out.split() == ["not", "tested:", "9a,", "9b", "no", "run:", "make", "it"]


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
    assert not re.search(r'(?:src|href|url\()\s*=?\s*["\']?(?:https?:)?//', written)
    assert "default-src 'none'" in written
    assert len(re.findall(r' id="([^"]+)"', written)) == len(set(re.findall(r' id="([^"]+)"', written)))


def test_page_shows_plots_commands_and_what_was_not_run(written):
    assert written.count('<button class="paper"') == 3  # the picture that it opens with, and one a run
    assert 'aria-label="In-context learning and induction heads"' in written
    assert ">Not run</h2>" in written and "make evidence-3" in written
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
    assert "No training run was found" in html and html[html.index('id="not-run"') :].count('<li id="line-') == 8


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
    assert RunDir(tmp_path / "out").table("verdicts").headline.sum() == html.count(' id="claim-')


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


# ------------------------------------------------------------------------------------------------ pretrained models


@pytest.fixture
def scored_elsewhere(runs, tmp_path) -> Path:
    """A results folder of `induction score` that lies in no run, as of a pretrained model."""
    folder = Path(shutil.copytree(runs / "layers_2" / "score", tmp_path / "models" / "score_of_it"))
    (folder / "meta.json").write_text(json.dumps({"command": "score", "settings": {"run_dir": "hf:a/model"}}))
    (folder / "plots" / "mosaic_prefix_matching.svg").write_text(SVG)
    return folder


def test_a_pretrained_model_has_a_page_about_its_heads(scored_elsewhere, tmp_path):
    (model,) = pretrained.models(rooms.find([scored_elsewhere]))
    table = RunDir(scored_elsewhere).table("head_scores")
    last = table[(table.step == table.step.max()) & (table.measure == "prefix_matching")]
    assert (model.name, model.size) == ("hf:a/model", (2, HEADS))
    assert model.heads[0].scores["prefix_matching"] == last.value.max()
    assert model.controls["prefix_matching"] == (last.uniform.iloc[0], last.random_head.iloc[0])
    html = shown(scored_elsewhere, tmp_path / "out")
    assert "<h1>The heads of hf:a/model</h1>" in html and "random weights" in html
    assert "No training run was found" not in html and 'id="runs"' not in html and 'id="story"' not in html
    assert 'id="claim-1a"' not in html and 'id="claim-2a"' not in html


def test_text_of_ones_own_that_cannot_be_read_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.txt', which cannot be read as text"):
        shown(runs, tmp_path / "out", text_file=str(tmp_path / "nowhere.txt"))

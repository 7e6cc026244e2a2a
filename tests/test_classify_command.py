"""`induction classify`: its tables from hand-made curves, whole runs, sweeps, and the verdicts on claims 7a to 7k."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table
from scored_runs import reasons
from scored_runs import verdict as verdict_of

from induction_cli import cli
from induction_cli.config import ClassifyConfig, ConfigError, NestedConfig
from induction_cli.evidence import classify
from induction_cli.minimal.classify_data import EVALUATIONS
from induction_cli.minimal.classify_measures import PROGRESS
from induction_cli.runs.process import Interrupted
from induction_cli.runs.run_dir import RunDir, RunError

pytestmark = pytest.mark.slow


def tiny(**changes) -> ClassifyConfig:
    sizes = {"n_pairs": 2, "max_pairs": 3, "n_labels": 3, "n_classes": 12, "burstiness": 1, "d_content": 5}
    length = {"steps": 7, "measure_every": 3, "n_sequences": 11, "fresh_classes": 6, "batch_size": 4, "seeds": [5, 2]}
    nested = NestedConfig(beta_1=[0.0, 1.0], alpha=[0.5], xi=[1.0], points=3)
    return ClassifyConfig(**{**sizes, **length, "nested_logits": nested, **changes})


# ------------------------------------------------------------------------------------------------ from curves to tables


@pytest.mark.parametrize(
    ("values", "rise", "share"),
    [
        (np.linspace(0, 1, 101), 0.955, 0.1 / 0.955),  # even learning: a tenth in a tenth
        (np.r_[np.zeros(50), np.ones(51)], 1.0, 1.0),  # a jump
        (np.r_[np.zeros(50), np.full(51, 0.2)], 0.2, 0.0),  # too small to count
    ],
)
def test_largest_gain(values, rise, share):
    found = classify.largest_gain(np.arange(101), values)
    assert found == pytest.approx((rise, share))


def curve_table(**events) -> pd.DataFrame:
    """Curves of one system that jump from 0 to 1 halfway before the given step, one per seed."""
    rows = [
        ("network", seed, step, event, float(step >= at))
        for event, ats in events.items()
        for seed, at in enumerate(ats)
        for step in range(0, 110, 10)
    ]
    return pd.DataFrame(rows, columns=["system", "seed", "step", "event", "value"])


def test_onsets_and_the_order_of_events():
    curves = curve_table(in_context=[80, 60, 70], item_label_attention=[40, 40, 40], in_weights=[999, 999, 999])
    onsets = classify.onset_rows(curves)
    by = onsets.set_index(["event", "seed"]).step
    assert by["in_context", 0] == 75 and by["in_context", 1] == 55 and by["item_label_attention", 0] == 35
    assert math.isnan(by["in_weights", 0])  # never learned
    events = classify.event_rows(onsets).set_index("event")
    assert list(events.index[:2]) == ["item_label_attention", "in_context"]
    assert events.step["in_context"] == 65 and events.seeds["in_weights"] == 0
    assert events.relative["item_label_attention"] == pytest.approx((35 / 75 + 35 / 55 + 35 / 65) / 3)
    own = events.loc["item_label_attention"]
    assert own.relative_low < own.relative < own.relative_high
    two = classify.event_rows(onsets[onsets.seed < 2]).set_index("event")
    assert math.isnan(two.relative_low["item_label_attention"])  # two seeds have no interval


def test_a_falling_curve_has_no_onset():
    falling = curve_table(in_weights=[50])
    falling["value"] = 1 - falling["value"]
    assert math.isnan(classify.onset_rows(falling).step[0])


# ------------------------------------------------------------------------------------------------ whole runs


def test_a_run_writes_what_it_says(tmp_path):
    config = tiny(systems=["network", "two_parameter", "nested_logits"])
    headline = classify.run(config, tmp_path)
    room = RunDir(tmp_path)
    accuracy, final = room.table("accuracy"), room.table("final")
    assert list(accuracy.columns) == ["system", "seed", "step", *classify.ACCURACIES] and set(EVALUATIONS) == set(
        classify.ACCURACIES
    )
    assert sorted(accuracy.step.unique()) == [0, 3, 6, 7] and set(accuracy.seed) == {5, 2}
    assert set(PROGRESS) <= set(room.table("progress").columns)
    assert headline == pytest.approx(final.in_context.mean())
    assert final.n_classes.eq(12).all() and final.epsilon.eq(0.1).all() and len(final) == 4
    assert {"onset", "share", *classify.ACCURACIES, *PROGRESS} <= set(room.table("definitions").name)
    made = {path.stem for path in (tmp_path / "plots").glob("*.png")}
    assert made >= {"curves_network", "events_two_parameter", "landscape", "flow", "jump_times"}
    assert not (tmp_path.parent / "plots").exists()  # no sweep


def test_the_same_seed_gives_the_same_numbers_alone_and_together(tmp_path):
    classify.run(tiny(), tmp_path / "both")
    classify.run(tiny(seeds=[2]), tmp_path / "one")
    both, one = (RunDir(tmp_path / name).table("probability") for name in ("both", "one"))
    both = both[both.seed == 2].reset_index(drop=True)
    assert np.allclose(both[list(classify.ACCURACIES)], one[list(classify.ACCURACIES)], atol=1e-5)


def test_nested_logits_alone(tmp_path):
    error = classify.run(tiny(systems=["nested_logits"]), tmp_path)
    times = RunDir(tmp_path).table("jump_times")
    assert len(times) == 2 * 2 and error == pytest.approx((times.predicted / times.simulated - 1).abs().mean())
    assert len(RunDir(tmp_path).table("landscape")) == 9
    assert not RunDir(tmp_path).table_file("accuracy").exists()


def test_interrupted_keeps_its_measurements(tmp_path, monkeypatch):
    def signalled(*_):
        raise Interrupted(2)

    monkeypatch.setattr(classify.Batches, "__call__", signalled)
    with pytest.raises(Interrupted):
        classify.run(tiny(), tmp_path)
    assert RunDir(tmp_path).table("accuracy").step.tolist() == [0, 0]
    assert not RunDir(tmp_path).table_file("final").exists()  # so no grid and no verdict takes it for a whole run


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(RunError, match="lower its learning_rate"):
        classify.run(tiny(learning_rate=1e30), tmp_path)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("n_classes=513", "n_classes is 513; it must be a multiple of n_labels=32"),
        ("burstiness=3", "burstiness is 3; n_pairs=8 must be a multiple of it"),
        ("n_pairs=64", "max_pairs=32 has only 65 positions for 129"),
        ("epsilon=-1", "epsilon is -1"),
        ("alpha=inf", "alpha is inf"),
        ("systems=[nets]", "systems has 'nets'; there are network, two_parameter, nested_logits"),
        ("seeds=[]", "seeds is empty"),
        ("seeds=[1,1]", "seeds has one twice"),
        ("steps=0", "steps is 0"),
        ("two_parameter.xi=nan", "xi is nan"),
        ("nested_logits.n2=-1", "n2 is -1"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_created(override, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["classify", override]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_more_distinct_classes_than_exist():
    with pytest.raises(ConfigError, match="n_classes is 3; n_pairs/burstiness=4 distinct ones are needed"):
        tiny(n_classes=3, n_pairs=4, max_pairs=4).check()


def test_a_sweep_draws_its_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = ["classify", "-e", "smoke", "systems=[network]", "threads=1", "-m"]
    assert cli.run([*where, "n_classes=8,16", "burstiness=1,2", "hydra.sweep.dir=plane"]) == 0
    grid = RunDir(tmp_path / "plane").table("grid")
    assert len(grid) == 2 * 2 * 2 and grid.groupby(["n_classes", "burstiness"]).ngroups == 4
    assert {path.stem for path in (tmp_path / "plane" / "plots").glob("*.png")} == {
        "grid_in_context",
        "grid_swapped_labels",
        "grid_in_weights",
        "grid_over_burstiness",
        "grid_over_n_classes",
    }
    assert cli.run([*where, "alpha=0,1", "hydra.sweep.dir=line"]) == 0
    assert (tmp_path / "line" / "plots" / "grid_over_alpha.png").exists()


# ------------------------------------------------------------------------------------------------ verdicts


def verdict(claim: str, *paths: Path) -> str:
    return verdict_of(claim, *paths).verdict


def jumps(path: Path, shares: list[float], system: str = "network") -> Path:
    write_table(
        RunDir(path),
        "jumps",
        pd.DataFrame({"system": system, "seed": range(len(shares)), "rise": 1.0, "share": shares}),
    )
    return path


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ([0.8, 0.9, 0.7, 0.85, 0.75], "supported"),
        ([0.1, 0.2, 0.15, 0.1, 0.2], "not supported"),
        ([0.9, 0.1, 0.8, 0.2, 0.6], "inconclusive"),
        ([0.9, 0.9], "not tested"),  # too few seeds
    ],
)
def test_abruptness(shares, says, tmp_path):
    jumps(tmp_path / "grid", [0.0, 0.0])  # the run with the most seeds counts
    assert verdict("7a", jumps(tmp_path / "abrupt", shares), tmp_path / "grid") == says
    assert verdict("7i", tmp_path / "abrupt") == "not tested"
    assert verdict("7i", jumps(tmp_path / "reduced", shares, "two_parameter")) == says


def onsets(path: Path, **steps) -> Path:
    rows = [("network", seed, event, step) for event, each in steps.items() for seed, step in enumerate(each)]
    write_table(RunDir(path), "onsets", pd.DataFrame(rows, columns=["system", "seed", "event", "step"]))
    return path


def test_events_before_the_jump(tmp_path):
    jump, early, late = [100, 110, 120, 90, 100], [50, 60, 50, 40, 55], [150, 160, 155, 140, 170]
    attention = {"item_label_attention": early, "target_labels_attention": early, "target_correct_attention": early}
    path = onsets(tmp_path / "a", in_context=jump, context_label_accuracy=early, **attention)
    assert verdict("7b", path) == verdict("7c", path) == "supported"
    attention["target_correct_attention"] = late  # one of three is enough
    path = onsets(tmp_path / "b", in_context=jump, context_label_accuracy=late, **attention)
    assert verdict("7b", path) == verdict("7c", path) == "not supported"
    missing = [*early[:2], math.nan, math.nan, math.nan]
    path = onsets(tmp_path / "c", in_context=jump, context_label_accuracy=missing, **attention)
    assert verdict("7b", path) == "not tested"
    assert reasons("7b", path) == ["one of the two never comes"] * 3


def final(path: Path, *points: dict, system: str = "network", seeds: int = 3, n_sequences: int = 1000) -> Path:
    """Final accuracies, a little different in every seed; probabilities equal them."""
    base = {"burstiness": 2, "n_classes": 512, "epsilon": 0.1, "alpha": 0.0, "n_sequences": n_sequences}
    rows = []
    for point in points:
        settings = {name: point.get(name, value) for name, value in base.items()}
        reached = {name: point[name] for name in ("in_context", "in_weights")}
        scale = sum(map(ord, repr(sorted(settings.items())))) % 7 / 1000  # so that settings' differences vary too
        for seed in range(seeds):
            varied = {name: value + (seed - 1) * scale for name, value in reached.items()}
            varied |= {f"{name}_probability": value for name, value in varied.items()}
            rows.append({**settings, "system": system, "seed": seed, **varied})
    write_table(RunDir(path), "final", pd.DataFrame(rows))
    return path


@pytest.mark.parametrize(
    ("claim", "varied", "values"),
    [("7d", "burstiness", (1, 4)), ("7e", "n_classes", (32, 512)), ("7f", "epsilon", (0.1, 1))],
)
def test_preference(claim, varied, values, tmp_path):
    low, high = ({varied: value} for value in values)
    few, many = {"in_context": 0.3, "in_weights": 0.8}, {"in_context": 0.9, "in_weights": 0.2}
    path = final(tmp_path / "for", low | few, high | many)
    assert verdict(claim, path) == "supported"
    path = final(tmp_path / "against", low | many, high | few)
    assert verdict(claim, path) == "not supported"
    path = final(tmp_path / "half", low | few, high | many | {"in_weights": 0.8})
    assert verdict(claim, path) == "inconclusive"
    assert {part.part.name for part in verdict_of(claim, path).parts if part.verdict == "supported"} == {"in context"}
    assert verdict(claim, final(tmp_path / "one", low | few)) == "not tested"
    parts = [final(tmp_path / "parts" / name, point) for name, point in (("a", low | few), ("b", high | many))]
    assert verdict(claim, *parts) == verdict(claim, tmp_path / "parts") == "supported"  # a point per run, as in sweeps


def alpha_grid(path: Path, *points: tuple[float, float, float]) -> Path:
    return final(path, *({"alpha": a, "in_context": c, "in_weights": w} for a, c, w in points))


def test_coexistence(tmp_path):
    assert verdict("7g", alpha_grid(tmp_path / "a", (0, 0.9, 0.1), (1, 0.8, 0.7), (2, 0.3, 0.9))) == "supported"
    assert verdict("7g", alpha_grid(tmp_path / "b", (0, 0.9, 0.6), (1, 0.8, 0.3), (2, 0.3, 0.9))) == "not supported"
    assert verdict("7g", alpha_grid(tmp_path / "c", (0, 0.9, 0.30), (1, 0.8, 0.30), (2, 0.3, 0.9))) == "inconclusive"
    assert verdict("7g", alpha_grid(tmp_path / "d", (0, 0.9, 0.1), (3, 0.8, 0.7))) == "not tested"  # nothing near 1


def test_two_parameters_against_the_network(tmp_path):
    points = [{"n_classes": 2**i, "in_context": i / 10, "in_weights": 1 - i / 10} for i in range(3, 10)]
    network = final(tmp_path / "network", *points)
    assert verdict("7h", network) == "not tested"
    alike = final(
        tmp_path / "alike", *({**p, "in_context": p["in_context"] ** 2} for p in points), system="two_parameter"
    )
    found = verdict_of("7h", network, alike)
    assert found.verdict == "inconclusive"  # correlations of 1 in three seeds have no spread to judge by
    assert [one.value for one in found.estimates] == pytest.approx([1, 1, 1]) and found.estimates[0].items == 7
    turned = [{**p, "in_context": 1 - p["in_context"], "in_weights": 1 - p["in_weights"]} for p in points]
    against = verdict_of("7h", network, final(tmp_path / "turned", *turned, system="two_parameter"))
    assert [one.value for one in against.estimates] == pytest.approx([-1, -1, -1])
    few = final(tmp_path / "few", *points[:4])
    reduced = final(tmp_path / "few reduced", *points[:4], system="two_parameter")
    assert reasons("7h", few, reduced) == ["4 settings; a correlation takes 6"] * 3


def jump_times(path: Path, predicted: float, outer: float, seeds: int = 3) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        {"seed": seed, "predicted": predicted * time * rng.uniform(0.99, 1.01), "simulated": time}
        | {"context_label": outer * time * rng.uniform(0.99, 1.01), "correct_label_attention": time}
        | {"previous_token_attention": 1.1 * time}
        for seed in range(seeds)
        for time in (10.0, 30.0, 70.0)
    ]
    write_table(RunDir(path), "jump_times", pd.DataFrame(rows))
    return path


def test_nested_logits_claims(tmp_path):
    good, bad = jump_times(tmp_path / "good", 1.03, 0.4), jump_times(tmp_path / "bad", 1.5, 1.4)
    for claim in ("7j", "7k"):
        assert verdict(claim, good) == "supported"
        assert verdict(claim, bad) == "not supported"
        assert verdict(claim, jump_times(tmp_path / f"two {claim}", 1.0, 0.4, seeds=2)) == "not tested"
        assert verdict(claim, tmp_path / "none") == "not tested"
    never = jump_times(tmp_path / "never", 1.0, math.nan)
    assert reasons("7j", never) == ["no start jumps"] * 3

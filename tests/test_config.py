"""Every setting of every schema, given what it should not be: accepted within its stated limits, or refused by name."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args, get_origin

import pytest

from induction_cli import config, launch
from induction_cli.config import ConfigError, EvaluationConfig, ModelConfig, Settings, SnapshotConfig, TrainConfig
from induction_cli.config.settings import MOST, Limits, Setting, settings_of

COMMANDS = sorted(path.stem for path in launch.beside("conf").glob("*.yaml"))
ODD: list[Any] = [
    *(0, 1, -1, 2, 7, 10**6, MOST + 1, 2**63, 10**5000, -(10**400)),
    *(0.0, 0.5, -0.5, 1.0, 1e-300, 1e300, math.nan, math.inf, -math.inf),
    *("", "x", "all", "???", "nul\0", "\udcff", True, False, None, b"x", 1j, {}, {"a": 1}, (), object()),
]


def usable(command: str) -> Settings:
    """Its settings with whatever must be given."""
    made = launch.schema_of(command)()
    for name in ("run_dir", "run_dirs"):
        if hasattr(made, name):
            setattr(made, name, "x" if name == "run_dir" else ["x"])
    return made


def walk(settings: Settings, prefix: str = "") -> list[tuple[str, Settings, Setting]]:
    """(dotted key, the group it is in, what is known of it) of every setting, groups included."""
    schema: Any = type(settings)
    found = []
    for known in settings_of(schema):
        found.append((prefix + known.name, settings, known))
        if known.is_group:
            found += walk(getattr(settings, known.name), f"{prefix}{known.name}.")
    return found


def odd_values(known: Setting) -> list[Any]:
    """Every odd value; where a list is wanted, lists of them too, once and twice and one inside another."""
    if get_origin(known.kind) is not list:
        return [*ODD, [], [1], ["x"]]
    return [
        *ODD,
        [],
        *([value] for value in ODD),
        [1, 1],
        ["x", "x"],
        [[]],
        [[1]],
        [[1, 2]],
        [[0, 0], [0, 0]],
        [[None, 0]],
    ]


def within(known: Setting, value: Any) -> bool:
    """Whether a value is what the documentation of its setting allows, told anew."""
    if known.is_group:
        return type(value) is known.kind
    kind, limits = known.kind, known.limits
    if get_origin(kind) is list:
        if type(value) is not list or (limits.not_empty and not value) or limits.length not in (None, len(value)):
            return False
        inner = replace(
            known, kind=get_args(kind)[0], limits=replace(limits, not_empty=False, length=None, distinct=False)
        )
        twice = limits.distinct and any(value.count(element) > 1 for element in value)
        return all(element != "" and within(inner, element) for element in value) and not twice
    if kind is bool or kind is str:
        if type(value) is not kind or value == "???":
            return False
        return kind is bool or (
            value in limits.one_of if limits.one_of else value.isprintable() and bool(value or not limits.not_empty)
        )
    if type(value) not in ((int,) if kind is int else (int, float)) or not abs(value) < 10**301 or value != value:
        return False
    at_most = limits.at_most if limits.at_most is not None or kind is float else MOST
    return (
        (limits.at_least is None or value >= limits.at_least)
        and (limits.above is None or value > limits.above)
        and (at_most is None or value <= at_most)
        and (limits.below is None or value < limits.below)
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_odd_values_are_within_limits_or_refused_by_name(command):
    settings = usable(command)
    for key, place, known in walk(settings):
        usual = getattr(place, known.name)
        for value in odd_values(known):
            setattr(place, known.name, value)
            try:
                settings.check()
            except ConfigError as error:  # any other exception fails the test
                assert known.name in str(error) and "\n" not in str(error), (key, value, str(error))
                if not within(known, value):
                    assert str(error).startswith(key), (key, value, str(error))
                    assert len(str(error)) < 400
            else:
                assert within(known, value), f"{key}={value!r} is accepted, and its limits are {known.limits}"
            setattr(place, known.name, usual)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_says_what_it_means_and_every_number_has_a_lower_limit(command):
    any_sign = {"smear_init", "beta_1", "alpha", "beta_2", "xi"}  # numbers of formulas
    for key, _, known in walk(usable(command)):
        assert known.meaning and "\n" not in known.meaning, key
        if known.kind in (int, list[int], list[list[int]], float, list[float]) and known.name not in any_sign:
            assert known.limits.at_least is not None or known.limits.above is not None, key


def test_defaults_are_within_their_limits():
    for command in COMMANDS:
        usable(command).check()


def test_lists_are_not_shared():
    one, other = TrainConfig(), TrainConfig()
    one.optimizer.betas.append(0.5)
    assert other.optimizer.betas == [0.9, 0.99]


TOGETHER = [
    (TrainConfig(model=ModelConfig(n_ctx=256)), "evaluation.late_index is 500, but model.n_ctx is 256"),
    (TrainConfig(model=ModelConfig(positions="rotary", d_head=5)), "model.d_head is 5; rotary positions need an even"),
    (TrainConfig(evaluation=EvaluationConfig(half_width=1000)), "evaluation.half_width is 1000; windows around"),
    (TrainConfig(evaluation=EvaluationConfig(early_index=500)), "evaluation.early_index is 500; it must lie between"),
    (TrainConfig(snapshots=SnapshotConfig(window=[5, 5])), r"snapshots.window is \[5, 5\]; it needs two increasing"),
    (TrainConfig(snapshots=SnapshotConfig(window=[-1])), "snapshots.window has -1; it must be at least 0"),
    (TrainConfig(snapshots=SnapshotConfig(window_count=3)), "snapshots.window is empty; window_count needs"),
    (TrainConfig(threads=100_000), "threads is 100000; it must be at most 1024"),
    (TrainConfig(seed=2**63), "seed is 9223372036854775808; it must be at most 9223372036854775807"),
    (TrainConfig(model=ModelConfig(n_heads=0)), "model.n_heads is 0; it must be at least 1"),
    (TrainConfig(model=ModelConfig(smear_init=math.nan)), "model.smear_init is nan; it must be finite"),
    (config.ScoreConfig(), "run_dir must be given"),
    (config.ScoreConfig("x", snapshot="frist"), "snapshot is 'frist'; it must be all, last or a step"),
    (config.GeneralizeConfig("x", snapshot="all"), "snapshot is 'all'; generalize measures one"),
    (config.AblateConfig("x", kinds=["full", "full"]), r"kinds has one twice: \['full', 'full'\]"),
    (config.AblateConfig("x", shards=2, shard=2), "shard is 2; it must lie between 0 and shards - 1"),
]


@pytest.mark.parametrize(("settings", "says"), TOGETHER, ids=[says for _, says in TOGETHER])
def test_what_is_wrong_is_said(settings, says):
    with pytest.raises(ConfigError, match=f"^{says}"):
        settings.check()


def test_limits_in_words():
    assert str(Limits(at_least=0, below=1)) == "at least 0, below 1"
    assert str(Limits(at_least=0, at_most=2**63 - 1)) == "0 to 9.2e+18"
    assert str(Limits(one_of=("a", "b"))) == "a | b"
    assert str(Limits()) == ""

"""Settings that are not as they should be, from the schema; and words of the command line that are no settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any, get_args, get_origin

from cases import COMMANDS, NEW, RUN, STOPPED, Case, changed

from induction_cli import config
from induction_cli.config.settings import MOST, Limits, Setting, settings_of


def schema_of(command: str) -> Any:
    return getattr(config, command.title().replace("_", "") + "Config")


def walk(schema: Any, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Every dotted key of a schema, groups left out."""
    for known in settings_of(schema):
        if known.is_group:
            yield from walk(known.kind, f"{prefix}{known.name}.")
        elif known.name not in ("run_dir", "run_dirs"):
            yield prefix + known.name, known


SETTINGS = [(command, key, known) for command in COMMANDS for key, known in walk(schema_of(command))]


def scalar(known: Setting) -> Any:
    """Its type, or that of a list's innermost elements."""
    kind = known.kind
    while get_origin(kind) is list:
        kind = get_args(kind)[0]
    return kind


def written(known: Setting, value: object) -> str:
    """One value as it is typed, inside as many lists as the setting has."""
    text, kind = str(value), known.kind
    while get_origin(kind) is list:
        text, kind = f"[{text}]", get_args(kind)[0]
    return text


def is_number(known: Setting) -> bool:
    return scalar(known) in (int, float)


def least(limits: Limits) -> float | None:
    return limits.at_least if limits.at_least is not None else limits.above


def most(known: Setting) -> float | None:
    limits = known.limits
    given = limits.at_most if limits.at_most is not None else limits.below
    return MOST if given is None and scalar(known) is int else given


def just_past(known: Setting, chance: Random) -> str | None:
    step = 1 if scalar(known) is int else 1e-9
    low, high = least(known.limits), most(known)
    past = [] if low is None else [low - step]
    past += [] if high is None else [high + (step if scalar(known) is int else abs(high) * 1e-6 + step)]
    return written(known, chance.choice(past)) if is_number(known) and past else None


def boundary(known: Setting, chance: Random) -> str | None:
    limits = known.limits
    ends = [end for end in (limits.at_least, limits.at_most) if end is not None]
    return written(known, chance.choice(ends)) if is_number(known) and ends else None


def small(known: Setting, chance: Random) -> str | None:
    """A value inside the limits that takes no time."""
    kind, limits = scalar(known), known.limits
    if limits.one_of:
        return written(known, chance.choice(limits.one_of))
    if kind is bool:
        return chance.choice(["true", "false"])
    if kind is str:
        return written(known, chance.choice(["last", "x", "stdlib", RUN]))
    values: list[float] = [0, 1, 2, 3, 5, 8] if kind is int else [0.0, 0.1, 0.5, 0.9, 1.0, 2.0, 1e-300]
    fitting = [value for value in values if not limits.broken(value)]
    many = chance.sample(fitting, min(len(fitting), limits.length or chance.randint(1, 2)))
    if get_origin(known.kind) is list and get_origin(get_args(known.kind)[0]) is None:
        return f"[{','.join(map(str, many))}]"
    return written(known, many[0])


def zero(known: Setting, chance: Random) -> str | None:
    return written(known, 0) if is_number(known) and known.limits.broken(0) else None


def negative(known: Setting, chance: Random) -> str | None:
    value = chance.choice([-1, -7, -(10**6)] if scalar(known) is int else [-1.0, -1e-3, -1e30])
    return written(known, value) if is_number(known) and known.limits.broken(value) else None


def huge(known: Setting, chance: Random) -> str | None:
    values = [10**19, 10**30, 10**400] if scalar(known) is int else [10**400]
    return written(known, chance.choice(values)) if is_number(known) else None


def no_number(known: Setting, chance: Random) -> str | None:
    return written(known, chance.choice(["nan", "inf", "-inf"])) if is_number(known) else None


def empty(known: Setting, chance: Random) -> str | None:
    if get_origin(known.kind) is list:
        return "[]" if known.limits.not_empty else "['']" if scalar(known) is str else "[null]"
    return "" if is_number(known) or known.limits.not_empty or known.limits.one_of else None


def wrong_type(known: Setting, chance: Random) -> str:
    if scalar(known) is str and get_origin(known.kind) is not list:
        return chance.choice(["[]", "{a:1}", "[1,2]", "null"])
    choices = ["{a:1}", "null", "text"] + (["[[[1]]]"] if get_origin(known.kind) is list else ["[1,2]", "[]"])
    choices += ["1.5"] if scalar(known) is int else []
    return chance.choice([text for text in choices if not (scalar(known) is str and text == "text")])


REFUSED: dict[str, Callable[[Setting, Random], str | None]] = {
    "just past a limit": just_past,
    "zero": zero,
    "negative": negative,
    "huge": huge,
    "NaN, infinite": no_number,
    "empty": empty,
    "wrong type": wrong_type,
}


def refused_setting(kind: str, chance: Random) -> Case:
    """One value that no documentation allows, among settings that are right."""
    while True:
        command, key, known = chance.choice(SETTINGS)
        value = REFUSED[kind](known, chance)
        if value is not None:
            return changed(COMMANDS[command], f"setting: {kind}", odd={key: value}, refused=True)


def boundary_setting(chance: Random) -> Case:
    """A limit itself, which may be far: only shown."""
    while True:
        command, key, known = chance.choice(SETTINGS)
        value = boundary(known, chance)
        if value is not None:
            base = COMMANDS[command]
            return changed(base, "setting: at a limit", odd={key: value}, flags=(*base.flags, "--print-config"))


def small_settings(chance: Random) -> Case:
    """Some settings, each inside its limits; together they may make no sense, which is to be said."""
    command = chance.choice([name for name in COMMANDS if name != "reproduce"])
    known = {key: setting for name, key, setting in SETTINGS if name == command}
    chosen = chance.sample(sorted(known), min(len(known), chance.randint(1, 4)))
    values = {key: small(known[key], chance) for key in chosen if key not in SLOW}
    odd = {key: value for key, value in values.items() if value is not None}
    return changed(COMMANDS[command], "setting: small", odd=odd)


# what takes minutes or the network, whatever its value
SLOW = {
    "compile",
    "data.source",
    "data.cache_dir",
    "characters",
    "snapshots.linear",
    "snapshots.log",
    "snapshots.window_count",
}


# ------------------------------------------------------------------------------------------------ the command line


def unknown_key(chance: Random) -> Case:
    command, key, _ = chance.choice(SETTINGS)
    middle = chance.randrange(len(key) + 1)
    odd = chance.choice([key[:middle] + "q" + key[middle:], f"{key}.x", f"x.{key}", "unheard_of", "hydra.job.name"])
    return changed(COMMANDS[command], "key", odd={odd: "1"}, refused=True)


ODD_WORDS = (
    *("'", '"', "=", "=1", "a b", "~", "[]", "{}", "--unheard-of", "-x", "\u2028", "é=1", "a" * 5000),
    *("~KEY", "+KEY=1", "++KEY=1", "KEY@x=1", "KEY", "KEY=[1", "KEY='a", "KEY=a,b", "KEY={", "KEY=\\", "KEY=a=b"),
    *("KEY=${x}", "KEY=${oc.env:HOME}", "KEY=glob(*)", "KEY=range(3)"),
)


def odd_word(chance: Random) -> Case:
    """Words that are no setting, or hardly one."""
    command, key, _ = chance.choice(SETTINGS)
    base = COMMANDS[command]
    usual = {name: value for name, value in base.usual.items() if name != key}
    return changed(base, "word", usual=usual, words=(chance.choice(ODD_WORDS).replace("KEY", key),))


def sweep(chance: Random) -> Case:
    """Sweeps of settings that cannot be swept over so, or of none."""
    command = chance.choice(["train", "classify", "recall", "score"])
    known = {key: setting for name, key, setting in SETTINGS if name == command}
    key = chance.choice(sorted(known))
    values = ["glob(*)", "range(0)", "1,1", ",", "1,", "choice()", "range(1,10,0)", "nan,inf", "-1,-2", "interval(0,1)",
              "range(100000)", "shuffle(1,2", "'a,b'", "x,y"]  # fmt: skip
    base = COMMANDS[command]
    usual = {name: value for name, value in base.usual.items() if name != "hydra.run.dir"}
    usual |= {"hydra.sweep.dir": NEW} if command != "score" else {}
    return changed(base, "sweep", flags=(*base.flags, "-m"), usual=usual, odd={key: chance.choice(values)})


def recipe(chance: Random) -> Case:
    name = chance.choice(["", "x", "../train/smoke", "smoke.yaml", "train", "/", "smoke,smoke", "=", "'", "[]", "."])
    command = chance.choice([name for name in COMMANDS if name != "report"])
    return changed(COMMANDS[command], "recipe", flags=("-e", name), refused=True)


NO_RUNS = (
    *("", "nowhere", "seed=0", "a/b=c", "~", "-", "/dev/null", "a" * 300, f"{RUN}\n", "runs/../runs/nowhere"),
    *("cache", "corpus", "corpus/00.txt", "runs/empty", f"{RUN}/meta.json", f"{RUN}/score", f"{RUN}/tables"),
    *(f"{RUN}/.hydra", "hf:", "hf:@", "hf:/nowhere", "x.gguf"),
)


def run_folder(chance: Random) -> Case:
    """Folders that are no run."""
    command = chance.choice([name for name, case in COMMANDS.items() if case.sources])
    sources = [chance.choice(NO_RUNS)]
    if command in ("pertoken_pca", "compare", "report") and chance.random() < 0.5:
        sources.insert(chance.randrange(2), RUN)
    return changed(COMMANDS[command], "run directory", sources=tuple(sources))


def export(chance: Random) -> Case:
    to = chance.choice(["huggingface", "transformer-lens", "x", ""])
    step = chance.choice(["last", "0", "all", "-1", "x", "", "9" * 30, "1e3"])
    source = chance.choice([RUN, RUN, STOPPED, "nowhere", "cache"])
    return Case("export", "export", (source,), ("--to", to, "--snapshot", step))


KINDS: tuple[Callable[[Random], Case], ...] = (
    *(partial(refused_setting, kind) for kind in REFUSED),
    *(boundary_setting, small_settings, small_settings, small_settings),
    *(unknown_key, odd_word, sweep, recipe, run_folder, export),
)

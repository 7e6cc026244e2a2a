"""A setting: a dataclass field that carries its meaning and its limits; and the one loop that checks them all.

    n_layers: int = setting(2, "layers", at_least=0, at_most=1000)

Limits of a list hold for each of its elements. Numbers are finite, and whole ones at most MOST unless their limits say
otherwise. What takes two settings to say is in the `check_together` of their class.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from induction_cli.errors import ConfigError, require

MISSING = "???"  # Hydra's mark for a value that must be given
MOST = 10**9  # of anything that is counted
SEED: dict[str, Any] = {"at_least": 0, "at_most": 2**63 - 1}  # limits of every seed
TOKENS: dict[str, Any] = {"at_least": 1, "at_most": 10**15}  # and of every length of a training
SEVERAL: dict[str, Any] = {"not_empty": True, "distinct": True}  # of a list that is gone through
KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Limits:
    """What a value must be, beside its type.

    not_empty, distinct, length: of a list. not_empty is also said of a text.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()
    not_empty: bool = False
    distinct: bool = False
    length: int | None = None

    def broken(self, value: float) -> str:
        """The bound that a number breaks, in words; empty where it breaks none."""
        if self.at_least is not None and value < self.at_least:
            return f"at least {self.at_least}"
        if self.above is not None and value <= self.above:
            return f"above {self.above}"
        if self.at_most is not None and value > self.at_most:
            return f"at most {self.at_most}"
        if self.below is not None and value >= self.below:
            return f"below {self.below}"
        return ""

    def __str__(self) -> str:
        """All of them in a few words, for --print-config."""
        if self.one_of:
            return " | ".join(self.one_of)
        if self.at_least is not None and self.at_most is not None:
            return f"{in_short(self.at_least)} to {in_short(self.at_most)}"
        bounds = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return ", ".join(f"{words} {in_short(bound)}" for words, bound in bounds.items() if bound is not None)


def in_short(bound: float) -> str:
    return f"{bound:.2g}" if bound > MOST else str(bound)


def setting(default: Any, meaning: str, **limits: Any) -> Any:
    """A field with its meaning in one line, and its limits (see `Limits`)."""
    metadata = {"meaning": meaning, "limits": Limits(**limits)}
    if isinstance(default, list):
        return field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def group(schema: Any, meaning: str, **changes: Any) -> Any:
    """A field that holds further settings: those of `schema`, whose defaults may be changed."""
    return field(default_factory=lambda: schema(**changes), metadata={"meaning": meaning, "limits": Limits()})


@dataclass(frozen=True)
class Setting:
    """What is known of one setting. kind: its type; a dataclass where it is a group."""

    name: str
    kind: Any
    meaning: str
    limits: Limits

    @property
    def is_group(self) -> bool:
        return is_dataclass(self.kind)

    @property
    def wanted(self) -> str:
        """Its type in words."""
        if self.is_group:
            return "a group of settings"
        if get_origin(self.kind) is list:
            return f"a list like [..., ...], each {KINDS.get(get_args(self.kind)[0], 'a list')}"
        return KINDS[self.kind]


@cache
def settings_of(schema: Any) -> tuple[Setting, ...]:
    """The settings of a schema in the order they are written; groups are not opened."""
    kinds = get_type_hints(schema)
    return tuple(
        Setting(f.name, kinds[f.name], f.metadata.get("meaning", ""), f.metadata.get("limits", Limits()))
        for f in fields(schema)
    )


class Settings:
    """A group of settings that can check itself."""

    def check(self, together: bool = True) -> None:
        """Raise ConfigError, one line that begins with the key, for the first setting that cannot be used.

        together: also for those that do not go with each other.
        """
        schema: Any = type(self)
        for known in settings_of(schema):
            value = getattr(self, known.name)
            if known.is_group:
                require(isinstance(value, known.kind), f"{known.name} is {said(value)}; it must be {known.wanted}")
                check_group(known.name, value, together)
            else:
                check_value(known, value)
        if together:
            self.check_together()

    def check_together(self) -> None:
        """What takes more than one setting to say."""


def check_group(name: str, settings: Settings, together: bool = True) -> None:
    """Check a group; errors carry its name, as data.paths."""
    try:
        settings.check(together)
    except ConfigError as error:
        raise ConfigError(f"{name}.{error}") from None


def check_value(known: Setting, value: Any) -> None:
    name, limits = known.name, known.limits
    require(not isinstance(value, str) or value != MISSING, f"{name} must be given: {name}=...")
    if get_origin(known.kind) is not list:
        return check_one(f"{name} is", value, known.kind, known.wanted, limits)
    require(isinstance(value, list), f"{name} is {said(value)}; it must be {known.wanted}")
    require(bool(value) or not limits.not_empty, f"{name} is empty; give at least one")
    for element in value:
        check_element(known, element, get_args(known.kind)[0])
    require(limits.length in (None, len(value)), f"{name} is {said(value)}; it must have {limits.length} elements")
    twice = any(element in value[:i] for i, element in enumerate(value))
    require(not limits.distinct or not twice, f"{name} has one twice: {said(value)}")


def check_element(known: Setting, element: Any, kind: Any) -> None:
    """One element of a list, which may be a list itself."""
    if get_origin(kind) is not list:
        require(element not in ("", MISSING), f"{known.name} has {said(element)}; leave it out, or name something")
        return check_one(f"{known.name} has", element, kind, KINDS[kind], known.limits)
    require(isinstance(element, list), f"{known.name} has {said(element)}; it must be {known.wanted}")
    for inner in element:
        check_element(known, inner, get_args(kind)[0])


def check_one(subject: str, value: Any, kind: type, wanted: str, limits: Limits) -> None:
    """A single value. subject: how the message begins, as 'seed is'."""
    accepted = (int, float) if kind is float else kind
    right = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    require(right, f"{subject} {said(value)}; it must be {wanted}")
    if kind is str:
        require(not limits.not_empty or value != "", f"{subject} empty; it must be {wanted}")
        require(
            not limits.one_of or value in limits.one_of, f"{subject} '{value}'; there are {', '.join(limits.one_of)}"
        )
        require(is_writable(value), f"{subject} {said(value)}; it must be text that UTF-8 can write, without NUL")
    elif kind is int:
        broken = limits.broken(value) or (f"at most {MOST}" if limits.at_most is None and value > MOST else "")
        require(not broken, f"{subject} {said(value)}; it must be {broken}")
    elif kind is float:
        broken = limits.broken(value)
        if not is_finite(value):
            broken = broken or limits.broken(-math.inf)
            raise ConfigError(f"{subject} {said(value)}; it must be finite{' and ' if broken else ''}{broken}")
        require(not broken, f"{subject} {said(value)}; it must be finite and {broken}")


def is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float can hold
        return False


def is_writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def said(value: Any) -> str:
    """A value as messages show it, not longer than a line takes."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."

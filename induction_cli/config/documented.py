"""Settings as YAML that explains itself: every value with its meaning and limits in a comment behind it."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from induction_cli.config.settings import Setting, settings_of


def as_yaml(settings: Any) -> str:
    """A document that reads back as the same values."""
    return "".join(f"{line}\n" for line in lines(settings))


def lines(settings: Any, indent: str = "") -> list[str]:
    schema: Any = type(settings)
    found = []
    for known in settings_of(schema):
        value = getattr(settings, known.name)
        if known.is_group:
            found += [f"{indent}{known.name}:{comment(known)}", *lines(value, f"{indent}  ")]
        else:
            found.append(f"{indent}{known.name}: {written(value)}{comment(known)}")
    return found


def comment(known: Setting) -> str:
    said = "; ".join(part for part in (known.meaning, str(known.limits)) if part)
    return f"  # {said}" if said else ""


def written(value: Any) -> str:
    """On one line. Text is quoted unless it is a plain word, whatever reads it."""
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][\w./-]*", value) and yaml.safe_load(value) == value
        return value if plain else yaml.safe_dump(value, default_style='"', width=math.inf).strip()
    return yaml.safe_dump(value).splitlines()[0]

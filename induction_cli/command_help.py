"""What `induction COMMAND --help` says beyond names and flags: examples, the recipes and the groups made for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from induction_cli.runs.files import beside


def write_help(formatter: Any, command: str, examples: Sequence[str]) -> None:
    """Add to a help page. formatter: Typer's; command: as in conf/ and experiments/."""
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"  {example}\n")
    recipes = sorted((beside("experiments") / command).glob("*.yaml"))
    if recipes:
        with formatter.section("Recipes, chosen by -e NAME"):
            formatter.write_dl([(path.stem, first_words(path)) for path in recipes])
    groups = groups_of(command)
    if groups:
        with formatter.section("Groups of settings, chosen by GROUP=NAME"):
            formatter.write_dl([(name, options(name, usual)) for name, usual in groups.items()])


def first_words(recipe: Path) -> str:
    """The entry of its header that says what it shows: 'Claim: ...' with the lines that go on with it."""
    said = re.search(r"^# Claim: (.*(?:\n#   .*)*)", recipe.read_text(encoding="utf-8"), re.MULTILINE)
    return " ".join(said[1].replace("\n#", " ").split()).removeprefix("none; ") if said else ""


def groups_of(command: str) -> dict[str, str]:
    """The groups that a command takes settings from, and the file of each that it takes unless told otherwise."""
    file = beside("conf") / f"{command}.yaml"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return dict(re.findall(r"^  - (\w+): (\w+)$", text, re.MULTILINE))


def options(group: str, usual: str) -> str:
    names = sorted(path.stem for path in (beside("conf") / group).glob("*.yaml"))
    return ", ".join(f"{name} (default)" if name == usual else name for name in names)

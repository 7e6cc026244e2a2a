"""`make docs`: a page of all settings and one of all tables, in Markdown, from where they are defined."""

from __future__ import annotations

import sys
from pathlib import Path

from induction_cli import config as schemas
from induction_cli.config.settings import settings_of
from induction_cli.runs import tables
from induction_cli.runs.files import beside, write_atomic

HEAD = "| setting | default | what it is | limits |\n|---|---|---|---|\n"


def default_of(schema: type, name: str) -> str:
    value = getattr(schema(), name)
    return "must be given" if value == schemas.MISSING else str(value) or "''"


def rows(schema: type, prefix: str = "") -> list[str]:
    """A line of Markdown per setting; groups are opened, their settings named with dots."""
    lines = []
    for setting in settings_of(schema):
        if setting.is_group:
            lines += rows(setting.kind, f"{prefix}{setting.name}.")
            continue
        said = (setting.meaning, str(setting.limits) or setting.wanted)
        cells = (f"`{prefix}{setting.name}`", f"`{default_of(schema, setting.name)}`", *said)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def settings_page() -> str:
    """Every command's settings, with the defaults of the schema; recipes and conf/ lay others over them."""
    parts = ["# Settings\n\n`induction COMMAND --print-config` shows those of one command, recipes and all.\n"]
    for path in sorted(beside("conf").glob("*.yaml")):
        schema = getattr(schemas, path.stem.title().replace("_", "") + "Config")
        parts.append(f"\n## {path.stem.replace('_', '-')}\n\n{HEAD}" + "\n".join(rows(schema)) + "\n")
    return "".join(parts)


def main(folder: Path) -> None:
    write_atomic(folder / "settings.md", settings_page().encode())
    write_atomic(folder / "tables.md", tables.markdown().encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

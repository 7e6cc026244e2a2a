"""A step of a pipeline, and its key: what it does, by what code, and after what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from induction_cli.runs.process import sources_hash

TRAINING = "induction_cli.training"

# where and how something is computed, not what
PLACES = {"device", "threads", "workers", "compile", "cache_dir", "run_dir", "run_dirs", "vanilla", "reuse", "fresh"}


@dataclass(frozen=True)
class Step:
    """What to do, and where its results go. `needs` and `after` name earlier steps."""

    name: str
    line: int  # of evidence, 1 to 6; 0: of none
    room: str  # the module whose run(config, out_dir) does it
    config: Any
    folder: str  # relative to the pipeline's; of its own, or inside that of a step it needs
    command: str = ""  # what a person would type for the same numbers
    needs: tuple[str, ...] = ()  # where one of these is not done, this one is skipped
    after: tuple[str, ...] = ()  # waited for, whatever becomes of them
    inputs: str = ""  # what else decides the result: the hash of the text
    weight: float = 1.0  # expected seconds on one core; only proportions matter
    always: bool = False  # done again at every start
    missing: str = ""  # why it cannot be done here, and what to install


def without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_places(part) for name, part in value.items() if name not in PLACES}
    return value


def same_settings(one: Any, other: Any) -> bool:
    """Whether two configurations ask for the same, wherever it is computed."""
    return without_places(asdict(one)) == without_places(asdict(other))


def key_of(step: Step, needed: Iterable[str], made_by: str | None = None) -> str:
    """sha256 of the room, its sources, its settings, its inputs and the keys of the steps it needs.

    made_by: hash of the sources behind a result that is there already; None: of those here.
    """
    settings = asdict(step.config)
    what = [
        step.room,
        without_places(settings),
        step.inputs,
        made_by or sources_hash(step.room),
        sorted(needed),
    ]
    if not (step.needs or step.after) and "run_dir" in settings:  # a model by its name
        what.append(settings["run_dir"])
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def keys_of(steps: Sequence[Step]) -> dict[str, str]:
    """The key of every step, were all of them done."""
    keys: dict[str, str] = {}
    for step in steps:
        keys[step.name] = key_of(step, [keys[name] for name in (*step.needs, *step.after)])
    return keys

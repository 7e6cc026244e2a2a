"""A results folder: where a command's results go, and the meta.json that says where they come from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from induction_cli.device import choose_device
from induction_cli.runs.process import Interrupted, deferred_signals, provenance
from induction_cli.runs.run_dir import RunDir


def results_folders(runs: Sequence[RunDir | None], out_dir: Path, command: str) -> list[RunDir]:
    """Where the results of each source go: into out_dir, if there is one source; None is one that is no run.

    Of the runs of a folder each has its own: <run>/<command>/ where out_dir is <folder>/<command>, as if it had been
    analysed alone, and out_dir/<run>/ where the results were asked to go elsewhere.
    """
    if len(runs) == 1:
        return [RunDir(out_dir)]
    several = [run for run in runs if run is not None]
    within = {run.path.resolve().parent / command for run in several} == {out_dir.resolve()}
    return [run.folder(command) if within else RunDir(out_dir / run.name) for run in several]


def snapshots_behind(runs: Iterable[RunDir], room: RunDir) -> dict[str, str]:
    """What results were computed from: runs, by their paths from the room, and the hash of their snapshots."""
    return {path_from(room, run): run.snapshots_hash() for run in runs}


def tables_behind(folders: Iterable[RunDir], room: RunDir) -> dict[str, str]:
    """What results were computed from: other folders, by their paths from the room, and the hash of their tables."""
    found = {path_from(room, each): each for each in folders if each.table_names()}
    return {path: each.tables_hash() for path, each in found.items() if path != "."}


def path_from(room: RunDir, other: RunDir) -> str:
    return os.path.relpath(other.path.resolve(), room.path.resolve())


@contextmanager
def writing(room: RunDir, command: str, config: Any, made_from: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """To be held while a results folder is written, and not while its results are computed.

    It has no meta.json in between: a call that fails before it writes leaves that of the results before it alone, and
    none speaks for a mixture of two. Yields the meta.json to come, whose `headline` is to be filled in. made_from: what
    the results were computed from, {name: sha256}. The same results of the same code keep theirs, date and all.
    """
    before = room.kept_meta()
    device = str(choose_device(getattr(config, "device", "cpu")))
    made = {"command": command, "status": "done", "headline": None, "settings": asdict(config)}
    meta = made | {"made_from": dict(made_from)} | provenance(f"induction_cli.evidence.{command}", device)
    with deferred_signals() as signals:  # all of the new results, or those before them
        room.meta_file.unlink(missing_ok=True)
        yield meta
        if meta["headline"] is not None and not math.isfinite(meta["headline"]):
            meta["headline"] = None  # JSON has no nan
        meta = json.loads(json.dumps(meta))
        same = {**before, "date": meta["date"]} == meta
        room.replace_meta(before if same else meta)
    if signals:
        raise Interrupted(signals[0])

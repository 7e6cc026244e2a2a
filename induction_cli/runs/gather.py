"""Tables of several runs as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from induction_cli.runs.run_dir import RunDir


def gather(folders: Mapping[str, RunDir], tables: Iterable[str], out: RunDir) -> None:
    """The tables of results folders {run: folder} under each other in `out`, with a `run` column.

    A table that no folder has is in `out` no longer: it would be that of an earlier call.
    """
    for name in tables:
        there = {run: folder for run, folder in folders.items() if folder.table_file(name).exists()}
        parts = [folder.table(name).assign(run=run) for run, folder in there.items()]
        out.table_file(name).unlink(missing_ok=True)
        if parts:  # empty ones first would decide on the columns' types
            filled = [part for part in parts if len(part)]
            out.write_table(name, pd.concat(filled or parts[:1], ignore_index=True))

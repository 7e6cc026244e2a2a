"""Tables by hand: a test writes the columns it is about, the contract's others are empty."""

from pathlib import Path

import pandas as pd

from induction_cli.runs.run_dir import RunDir
from induction_cli.runs.tables import spec_of


def write_table(room: RunDir, name: str, rows: pd.DataFrame) -> Path:
    spec = spec_of(name, rows.columns)
    empty = {column: "" if spec.columns[column].type == "text" else None for column in spec.missing(rows.columns)}
    return room.write_table(name, rows.assign(**empty))

"""Tables and their contract: what is written is what is read, and what does not keep to it is refused."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hand_made import write_table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from induction_cli.runs.files import RunError, beside
from induction_cli.runs.run_dir import RunDir
from induction_cli.runs.tables import TYPES, Table, as_csv, contract, markdown, parsed, prepared, spec_of, table_spec

NASTY = [
    "01",
    "1e3",
    "None",
    "NA",
    "nan",
    "NaN",
    "null",
    "true",
    "True",
    "",
    " ",
    "-inf",
    'say "no"',
    "a,b",
    "a\nb\r",
    "é",
]


@pytest.fixture
def room(tmp_path) -> RunDir:
    return RunDir(tmp_path / "score")


def refused(room: RunDir, name: str, content: bytes) -> str:
    room.table_file(name).parent.mkdir(parents=True, exist_ok=True)
    room.table_file(name).write_bytes(content)
    with pytest.raises(RunError) as error:
        room.table(name)
    said = str(error.value)
    assert said.startswith(f"{room.table_file(name)} is damaged: ") and "\n" not in said
    return said.removeprefix(f"{room.table_file(name)} is damaged: ")


# ------------------------------------------------------------------------------------------------ the contract


def test_contract_is_well_formed():
    commands = {path.stem.replace("_", "-") for path in beside("conf").glob("*.yaml")}
    for spec in contract().values():
        assert spec.commands and set(spec.commands) <= commands, spec.name
        assert spec.key and spec.meaning and spec.columns, spec.name
        for column in spec.columns.values():
            assert column.type in TYPES and column.meaning and isinstance(column.unit, str), (spec.name, column)
            assert column.type in ("int", "float") or not column.unit, (spec.name, column)


def test_one_name_for_different_tables_is_told_apart_by_columns():
    by_stem: dict[str, list] = {}
    for spec in contract().values():
        by_stem.setdefault(spec.stem, []).append(spec)
    for specs in by_stem.values():
        assert all(("/" in spec.name) == (len(specs) > 1) for spec in specs) or len(specs) == 1
        for spec in specs:
            assert spec_of(spec.stem, spec.required) is spec


def test_a_contract_that_is_not_well_formed_says_where():
    column = {"type": "int", "meaning": "a"}
    with pytest.raises(ValueError, match="t: a: its type is not one of int, float, text, bool"):
        table_spec("t", ["train"], "a row", ["a"], {"a": column | {"type": "number"}})
    with pytest.raises(ValueError, match="t: its key names b, which is no column"):
        table_spec("t", ["train"], "a row", ["b"], {"a": column})
    with pytest.raises(ValueError, match=r"t: a: .*units"):
        table_spec("t", ["train"], "a row", ["a"], {"a": column | {"units": "nats"}})


def test_reference_names_every_table_and_column():
    page = markdown()
    for spec in contract().values():
        section = page.split(f"\n## {spec.name}\n")[1].split("\n## ")[0]
        assert all(f"| `{name}` | {column.type} |" in section for name, column in spec.columns.items())
    printed = subprocess.run([sys.executable, "-m", "induction_cli.runs.tables"], capture_output=True, text=True)
    assert printed.stdout == page


# ------------------------------------------------------------------------------------------------ round trips


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0"))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT | st.sampled_from(NASTY), TEXT | st.sampled_from(NASTY)), min_size=1, max_size=5))
@example([(text, text) for text in NASTY])
def test_text_stays_text(pairs):
    rows = pd.DataFrame(pairs, columns=["run", "path"])
    read = parsed("runs", as_csv(prepared("runs", rows)))
    assert list(read.itertuples(index=False, name=None)) == pairs


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False) | st.none(), min_size=1, max_size=5))
def test_floats_come_back_exactly(values):
    rows = pd.DataFrame({"component": range(len(values)), "share": np.array(values, np.float32)})
    read = parsed("explained_variance", as_csv(prepared("explained_variance", rows)))
    assert read.share.dtype == np.float64 and read.component.dtype == np.int64
    np.testing.assert_array_equal(read.share.to_numpy(np.float32), rows.share)


def test_whole_numbers_keep_their_digits_also_where_some_are_empty(room):
    rows = pd.DataFrame(
        {"step": [1, 2], "tokens": [12345678901, np.nan], "early_index": 5, "late_index": 9, "score": 0}
    )
    room.write_table("in_context_learning_grid", rows)
    assert "1,12345678901,5,9,0\n2,,5,9,0\n" in room.table_file("in_context_learning_grid").read_text()
    read = room.table("in_context_learning_grid")
    assert read.tokens.iloc[0] == 12345678901 and np.isnan(read.tokens.iloc[1])
    assert read.score.dtype == np.float64


def test_truth_may_be_empty(room):
    known = {"id": ["1a", "1b", "1c"], "model_class": "2 layers", "headline": True, "seen_before": False}
    write_table(room, "verdicts", pd.DataFrame({**known, "holm": [True, False, None]}))
    assert room.table("verdicts").holm.tolist() == [True, False, None]
    write_table(room, "verdicts", pd.DataFrame({**known, "holm": [True, False, True]}))
    assert room.table("verdicts").holm.dtype == bool


def test_whole_or_growing_the_bytes_are_the_same(room):
    rows = pd.DataFrame({"token": [0, 1, 2], "count": [7, 12345678901, 3]})
    room.write_table("token_counts", rows)
    growing = Table(room.path / "grown" / "token_counts.csv")
    for at in range(3):
        growing.append(rows[at : at + 1].astype(float if at else int))
    growing.flush()
    assert growing.path.read_bytes() == room.table_file("token_counts").read_bytes()


def test_a_table_without_rows_has_all_its_columns(room):
    room.write_table("phase_change", pd.DataFrame(columns=["start_tokens"]))
    assert room.table_file("phase_change").read_text().startswith("start_tokens,end_tokens,start_low,")
    room.table_file("phase_change").write_text("run,start_tokens\n")  # as version 0.1.0 did
    read = room.table("phase_change")
    assert read.empty and read.fall.dtype == np.float64 and "run" in read and "keys" not in read


# ------------------------------------------------------------------------------------------------ what is refused


def test_a_mistake_in_writing_is_named(room):
    rows = pd.DataFrame({"run": ["a"], "path": [".."]})
    for name, wrong, said in [
        ("nothing", rows, "there is no table 'nothing' in tables.yaml"),
        ("runs", rows.assign(seed=1), "table runs has no column 'seed'"),
        ("runs", rows[["run"]], "table runs lacks the column 'path'"),
        ("runs", rows.assign(path=1), "its column path is text, and has '1'"),
        ("token_counts", pd.DataFrame({"token": [0], "count": [0.5]}), "its column count is int, and has '0.5'"),
        ("token_counts", pd.DataFrame({"token": [0], "count": ["x"]}), "its column count is int, and has 'x'"),
        ("explained_variance", pd.DataFrame({"component": [1], "share": [True]}), "share is float, and has 'True'"),
    ]:
        with pytest.raises(ValueError, match=said):
            room.write_table(name, wrong)
        assert not room.table_file(name).exists()


def test_a_damaged_table_is_named_with_what_makes_it_again(room):
    good = b"event,onset_tokens,low,high,found_share\ninduction,1,2,3,1\n"
    again = "; run induction score again"
    assert refused(room, "events", b"") == "it is empty" + again
    assert refused(room, "events", good[:-3]) == "its last row is cut off" + again
    assert refused(room, "events", good + b"x,1\n") == "row 2 has 2 fields, the header has 5" + again
    assert refused(room, "events", good + b"x,1,2,3,4,5\n") == "row 2 has 6 fields, the header has 5" + again
    assert refused(room, "events", good + b'"x,1,2,3,4\n') == "a quote is never closed" + again
    assert refused(room, "events", good.replace(b"low", b"lo")) == "it has no column 'low'" + again
    assert "'utf-8' codec" in refused(room, "events", good + b"\xff,1,2,3,1\n")
    assert "one" in refused(room, "events", good.replace(b",1,", b",one,"))
    assert refused(room, "loss_by_index", b"step,tokens,index,loss\n1,2,1.5,3\n").startswith(
        "its column 'index' has 1.5"
    )
    found = "run,path\n"
    assert refused(room, "runs", found.encode() + b"a\n").endswith("run induction pertoken-pca again")


def test_a_missing_table_is_named(room):
    with pytest.raises(RunError, match=r"tables/events.csv is missing; run the command that makes it first"):
        room.table("events")


# ------------------------------------------------------------------------------------------------ names of runs


@pytest.mark.parametrize("name", ["01", "1e3", "None", "NA", "nan", "true"])
def test_a_run_may_be_called_anything(tmp_path, name):
    """Claim 1f finds a run by the name in turns.csv; the report shows it as it is called."""
    from scored_runs import scored
    from test_line_1 import turned

    from induction_cli.config import ReportConfig
    from induction_cli.evidence import report

    scored(tmp_path / "made", 2, 0).rename(tmp_path / name)
    (tmp_path / "made").rmdir()
    turned(tmp_path, {name: (40.0, 20.0)})
    report.run(ReportConfig([str(tmp_path)], explorer_runs=0), tmp_path / "report")
    estimates = RunDir(tmp_path / "report").table("estimates").set_index("id")
    assert estimates.loc["1f", "run"] == name and estimates.loc["1f", "value"] == 20

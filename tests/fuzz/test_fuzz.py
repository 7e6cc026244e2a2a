"""The fuzzer sees what it is to see, makes it smaller, and damages what it says it damages."""

from __future__ import annotations

from random import Random

import damage
import fuzz
import odd_files
import odd_settings
import pytest
from cases import COMMANDS, RUN, Case, Damage, changed
from fuzz import Outcome, faults


def ended(status: int, errors: str = "", said: str = "") -> dict:
    return {"status": status, "errors": errors, "said": said, "seconds": 0.0}


def test_what_ends_well_has_no_faults(tmp_path):
    for status, errors in ((0, ""), (1, "error: x.csv is empty\n"), (2, "error: seed is -1\n")):
        assert faults(COMMANDS["score"], ended(status, errors), {}, tmp_path) == []


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (ended(-9), "killed: 9"),
        (ended(1, "Traceback (most recent call last):\nerror: x"), "traceback"),
        (ended(1, ""), "0 lines on stderr"),
        (ended(1, "error: x\nerror: y"), "2 lines on stderr"),
        (ended(2, "Usage: induction"), "1 lines on stderr"),
        (ended(1, "error: KeyError: 'x' (INDUCTION_DEBUG=1 shows where)"), "a raw exception"),
        (ended(3, "error: x"), "exit code 3"),
        (ended(0, "RuntimeWarning: Mean of empty slice"), "a warning of a library"),
    ],
)
def test_every_bad_end_is_seen(done, said, tmp_path):
    assert said in faults(COMMANDS["score"], done, {}, tmp_path)


def test_what_must_be_refused_and_is_not_is_seen(tmp_path):
    case = changed(COMMANDS["train"], "setting", odd={"batch_size": "-1"}, refused=True)
    assert faults(case, ended(0), {}, tmp_path) == ["accepted"]
    (tmp_path / "meta.json").write_text('{"status": "done", "headline": NaN}')
    assert faults(COMMANDS["train"], ended(0), {}, tmp_path) == ["a headline that is no number"]


def test_what_a_failure_leaves_behind_or_loses_is_seen(tmp_path):
    (tmp_path / "kept.csv").write_text("1")
    before = fuzz.contents(tmp_path)
    (tmp_path / "score" / ".hydra").mkdir(parents=True)
    (tmp_path / "score" / "score.log").write_text("")
    refused, failed = ended(2, "error: x"), ended(1, "error: x")
    assert faults(COMMANDS["score"], failed, before, tmp_path) == ["an empty folder is left: score"]
    assert faults(COMMANDS["score"], refused, before, tmp_path) == ["left behind by what was refused: score"]
    (tmp_path / "score" / ".x.csv.1.part").write_text("")
    assert "half-written files" in faults(COMMANDS["score"], failed, before, tmp_path)
    (tmp_path / "kept.csv").write_text("2")
    assert "changed although it failed: kept.csv" in faults(COMMANDS["score"], failed, before, tmp_path)
    (tmp_path / "kept.csv").unlink()
    assert "gone: kept.csv" in faults(COMMANDS["score"], failed, before, tmp_path)


@pytest.mark.parametrize("kind", odd_settings.REFUSED)
def test_a_case_is_the_same_for_the_same_seed_and_is_data(kind):
    one, other = (odd_settings.refused_setting(kind, Random(3)) for _ in range(2))
    assert one == other == Case.from_json(one.to_json())
    assert one.refused and len(one.odd) == 1


def test_a_failure_is_made_smaller():
    """Only what matters is left: here, that depth is set, and that anything at all is damaged."""

    class Made(fuzz.Fuzzer):
        def __init__(self):
            pass

        def run(self, case):
            return Outcome(case, ("traceback",) if "depth" in case.odd and case.damage else (), "", 0.0)

    harm = (Damage("meta.json", "one_bit"), Damage("x.csv", "column_gone"))
    odd = {"seed": "1", "depth": "0", "width": "3"}
    found = Made().shrink(Outcome(changed(COMMANDS["train"], "x", odd=odd, damage=harm), ("traceback",), "", 0.0)).case
    assert found.odd == {"depth": "0"}
    assert found.damage == (Damage("x.csv", "missing"),)


FILES = {
    "x.csv": b"step,loss\n1,2.5\n2,2.25\n3,2.125\n",
    "x.json": b'{"status": "done", "data": {"tokens": [1, 2]}}\n',
    "x.yaml": b"seed: 0\nmodel:\n  n_layers: 2\n",
    "x.jsonl": b'{"text": "a b c"}\n{"text": "d e f"}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_rules_damage_what_they_fit(name, tmp_path):
    fitting = {"csv": damage.TABLE, "json": damage.JSON, "yaml": damage.YAML, "jsonl": damage.JSONL}
    for rule in fitting[name.partition(".")[2]]:
        path = tmp_path / rule.__name__ / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(FILES[name])
        damage.RULES[rule.__name__](path, Random(1))
        assert not path.is_file() or path.read_bytes() != FILES[name], rule.__name__
        if path.is_dir():
            path.rmdir()


def test_every_kind_of_file_has_rules_and_readers():
    for known in odd_files.FILES.values():
        assert all(rule.__name__ in damage.RULES for rule in known.rules)
        assert all(case.command for case in known.readers)
    assert RUN in COMMANDS["score"].sources

"""The tests themselves: none is skipped."""

import re
from pathlib import Path

TESTS = sorted(path for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__))


def test_no_test_can_be_skipped():
    """What a test needs and does not find is a failure with its reason; `make test` installs it."""
    skipping = re.compile(r"importorskip|\bskip(if)?\(|\.skip\b|\bxfail\b")
    lines = [(f"{path.name}:{n}", line) for path in TESTS for n, line in enumerate(path.read_text().splitlines(), 1)]
    found = [where for where, line in lines if skipping.search(line)]
    assert found == []

"""Do the commands still write what version 0.1.0 wrote? By hand, not in CI: about four minutes on 2 cores.

    python tests/nothing_moved.py [--old REVISION] [--keep FOLDER]

Every smoke recipe is run twice, by a worktree of the old version and by this one, with the same Python and one thread;
tables are compared byte for byte after columns that the old version did not have are dropped, and what was changed on
purpose since (below). Then a training that the old version began and was stopped in is gone on with by either: tables
and snapshots have the same bytes. Exits with 1 where something moved, and names it.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
VERSION_0_1_0 = "1d37bc5"
TRAINED = "runs/train/smoke"
COMMANDS = [
    ["train", "-e", "smoke", "threads=1", f"hydra.run.dir={TRAINED}"],
    ["score", TRAINED, "-e", "smoke", "threads=1"],
    ["pertoken-pca", TRAINED, "-e", "smoke", "threads=1"],
    ["ablate", TRAINED, "-e", "smoke", "threads=1"],
    ["circuits", TRAINED, "-e", "smoke", "threads=1"],
    ["generalize", TRAINED, "-e", "smoke", "threads=1"],
    ["compare", TRAINED, "-e", "smoke"],
    ["report", TRAINED],
    ["smear", "-e", "smoke", "threads=1", "hydra.run.dir=runs/smear/smoke"],
    ["classify", "-e", "smoke", "threads=1", "hydra.run.dir=runs/classify/smoke"],
    ["recall", "-e", "smoke", "threads=1", "hydra.run.dir=runs/recall/smoke"],
    ["reproduce", "-e", "smoke", "hydra.run.dir=runs/reproduce/smoke"],
]
LONGER = ["train", "-e", "smoke", "threads=1", "tokens=200_000", "data.epochs=20", "hydra.run.dir=runs/train/longer"]
# seconds, and what is measured in them
TIMES = {"tokens_per_second", "seconds"}
# what the second edition of the rules changed: every interval, and the tables of verdicts
INTERVALS = ("low", "high", "found_share")  # and whatever ends in _low or _high
ON_PURPOSE = {
    "effects": "its place is taken by estimates and verdict_parts",
    "verdicts": "a row for each class of models",
    "claims": "nulls of line 4 are rows of their own",
    "definitions": "names the intervals",
    "ideal_head": "the scale of an ideal copy is found by scipy: other last digits",
}


def induction(code: Path, arguments: list[str], work: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "INDUCTION_CACHE": str(work / "cache")}
    program = "import sys; from induction_cli.cli import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(
        command, cwd=work, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def run(code: Path, arguments: list[str], work: Path) -> None:
    process = induction(code, arguments, work)
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed in {code}:\n{said}")


def rows(path: Path, columns: list[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """A table's header and rows as text, without times; of `columns` alone, where they are given."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *body = list(csv.reader(file)) or [[]]
    wanted = [name for name in (columns or header) if name not in TIMES and not name.endswith(INTERVALS)]
    at = [header.index(name) for name in wanted if name in header]
    return wanted, [[row[i] for i in at] for row in body]


def differences(old: Path, new: Path) -> list[str]:
    """What of the old tables is not in the new ones, a line each."""
    found = []
    tables = sorted(path.relative_to(old) for path in old.rglob("tables/*.csv") if path.stem not in ON_PURPOSE)
    for table in tables:
        if not (new / table).exists():
            found.append(f"{table}: gone")
            continue
        header, before = rows(old / table)
        _, after = rows(new / table, header)
        if len(before) != len(after):
            found.append(f"{table}: {len(before)} rows, now {len(after)}")
            continue
        moved = [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
        if moved:
            first = moved[0]
            found.append(f"{table}: {len(moved)} of {len(before)} rows, the first: {before[first]} -> {after[first]}")
    print(f"{len(tables)} tables, {len(found)} of them moved", flush=True)
    return found


def stopped_training(code: Path, work: Path) -> None:
    """Begin the longer training and stop it with Ctrl-C after some of its snapshots."""
    process = induction(code, LONGER, work)
    snapshots = work / "runs/train/longer/snapshots"
    while process.poll() is None and len(list(snapshots.glob("step_*"))) < 4:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    if process.returncode != 130:
        sys.exit(f"the training to be resumed ended with {process.returncode}, not with 130")


def files_that_moved(old: Path, new: Path) -> list[str]:
    paths = sorted(path.relative_to(old) for path in old.glob("snapshots/*"))
    return [f"{path}: other bytes" for path in paths if (old / path).read_bytes() != (new / path).read_bytes()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--old", default=VERSION_0_1_0, help="the revision to compare with")
    parser.add_argument("--keep", type=Path, help="work in this empty folder and leave it")
    asked = parser.parse_args()
    work = (asked.keep or Path(tempfile.mkdtemp(prefix="nothing_moved_"))).resolve()
    old_code, old, new = work / "code", work / "old", work / "new"
    subprocess.run(["git", "-C", HERE, "worktree", "add", "--detach", "--force", old_code, asked.old], check=True)
    try:
        for folder in (old, new):
            folder.mkdir(parents=True)
        for command in COMMANDS:
            run(old_code, command, old)
            run(HERE, command, new)
            print(f"ran {' '.join(command)}", flush=True)
        found = differences(old / "runs", new / "runs")

        stopped_training(old_code, old)
        subprocess.run(["cp", "-r", old / "runs/train/longer", new / "runs/train/longer"], check=True)
        for code, folder in ((old_code, old), (HERE, new)):
            run(code, ["train", "--resume", "runs/train/longer"], folder)
        longer = [folder / "runs/train/longer" for folder in (old, new)]
        found += differences(*longer) + files_that_moved(*longer)
    finally:
        subprocess.run(["git", "-C", HERE, "worktree", "remove", "--force", old_code], check=True)
    for line in found:
        print(line)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

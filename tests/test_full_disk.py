"""A full disk: one line names the file system, what was good stays good, the same command goes on when there is room.

Every command that writes runs on a file system of its own (tmpfs) with no room, and with too little of it.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_report import small_run

from induction_cli import cli

FEW = ["n_examples=8", "n_sequences=2", "threads=1"]
COMMANDS = {
    "score": ["score", "run", *FEW],
    "ablate": ["ablate", "run", "n_examples=8", "draws=2", "threads=1"],
    "report": ["report", "run", "explorer_runs=1"],
    "export": ["export", "run", "--to", "transformer-lens"],
    "train": ["train", "hydra.run.dir=new", "-e", "smoke", "tokens=4000", "threads=1"],
    "resume": ["train", "--resume", "run"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs"), 1)


@pytest.fixture
def small_disk(trained, tmp_path, monkeypatch) -> Iterator[Path]:
    """A file system of 12 MB that holds a run, the working folder."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], capture_output=True, text=True)
    if made.returncode:
        pytest.fail(f"no tmpfs can be mounted here, which this test needs: {made.stderr}", pytrace=False)
    try:
        shutil.copytree(trained, place / "run")
        monkeypatch.chdir(place)
        yield place
    finally:
        monkeypatch.chdir(tmp_path)
        subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path, free: int) -> Path:
    """A file that leaves so many bytes."""
    filler = place / "filler"
    with filler.open("wb") as file:
        file.truncate(0)
        left = shutil.disk_usage(place).free - free
        file.write(b"x" * max(0, left))
    return filler


def good(place: Path) -> dict[Path, bytes]:
    kept = {path for name in ("snapshots", "tables") for path in (place / "run").rglob(f"{name}/*")}
    return {path: path.read_bytes() for path in kept}


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 60_000])
@pytest.mark.parametrize("command", COMMANDS)
def test_full_disk(small_disk, capfd, command, free):
    if command == "resume":
        assert cli.run(["train", "--resume", "run"]) == 0
        from induction_cli.runs.run_dir import RunDir

        RunDir("run").write_meta(status="interrupted")
    before, filler = good(small_disk), fill(small_disk, free)
    capfd.readouterr()
    status = cli.run(COMMANDS[command])
    said = capfd.readouterr().err
    if status or not free:  # a little may do
        assert status == 1 and said.startswith("error: the disk is full: no room for ") and said.count("\n") == 1, said
        assert f"on the file system at {small_disk} (" in said and "the same command goes on when there is room" in said
        if command not in ("score", "resume"):  # those replace tables of their own, one by one
            assert before.items() <= good(small_disk).items()
    assert not list(small_disk.rglob("*.part"))
    assert [path for path in small_disk.rglob("*") if path.is_dir() and not any(path.iterdir())] == []
    filler.unlink()
    if command == "train" and Path("new").exists():  # it was begun
        assert cli.run(["train", "--resume", "new"]) == 0
        return
    assert cli.run(COMMANDS[command]) == 0, capfd.readouterr().err

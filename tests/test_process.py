"""Who made a result: the hash of a room's sources changes with them, and with nothing else."""

import subprocess

import pytest

from induction_cli.runs import process

FILES = {
    "__init__.py": "from induction_cli.page import page",
    "room.py": "import torch\nfrom induction_cli import measures\ndef run():\n    import induction_cli.late.deep.file",
    "measures/__init__.py": "from induction_cli.measures.losses import loss",
    "measures/losses.py": "loss = 1",
    "measures/sentences.json": "[]",
    "late/__init__.py": "",
    "late/deep/__init__.py": "from induction_cli import room",
    "late/deep/file.py": "",
    "page/__init__.py": "page = 1",
    "page/page.css": "p {}",
    "torch.py": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in a folder that is no checkout."""
    path = tmp_path / "site-packages" / "induction_cli"
    for name, text in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    monkeypatch.setattr(process, "PACKAGE", path)
    return path


@pytest.fixture(autouse=True)
def forget():
    yield
    process.imported_by.cache_clear()


def fresh_hash() -> str:
    """As a new process finds it."""
    process.imported_by.cache_clear()
    return process.sources_hash.__wrapped__("induction_cli.room")


def test_sources_are_what_is_imported(package):
    """Also within functions, and the packages on the way; not the package itself, a door for others."""
    others = {"__init__.py", "page/__init__.py", "page/page.css", "torch.py"}
    assert process.sources_of("induction_cli.room") == {package / name for name in FILES.keys() - others}


@pytest.mark.parametrize("changed", ["room.py", "measures/losses.py", "measures/sentences.json", "late/__init__.py"])
def test_a_changed_source_changes_the_hash(package, changed):
    before = fresh_hash()
    (package / changed).write_text("[3]")
    assert fresh_hash() != before


@pytest.mark.parametrize("other", ["page/__init__.py", "measures/other.py", "conf/train.yaml", "late/file.html"])
def test_another_file_does_not(package, other):
    before = fresh_hash()
    (package / other).parent.mkdir(exist_ok=True)
    (package / other).write_text("[3]")
    assert fresh_hash() == before


def test_the_place_does_not(package, tmp_path, monkeypatch):
    before = fresh_hash()
    package.parent.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(process, "PACKAGE", tmp_path / "elsewhere" / "induction_cli")
    assert fresh_hash() == before


def commit(folder) -> str:
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_package(package, tmp_path, monkeypatch):
    """Not that of a repository in which its environment happens to lie; and nothing where git is not installed."""
    found = process.git_sha.__wrapped__
    assert found() == ""
    commit(tmp_path)
    assert found() == ""
    sha = commit(package.parent)
    assert found() == sha
    monkeypatch.setenv("PATH", "")
    assert found() == ""

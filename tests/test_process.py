"""Who made a result: the hash of the sources changes with them, and with nothing else."""

import shutil
import subprocess

import pytest

from induction_cli.runs import process


@pytest.fixture
def package(tmp_path):
    """A small package in a folder that is no checkout."""
    path = tmp_path / "site-packages" / "induction_cli"
    for name, text in {
        "a.py": "x = 1",
        "measures/b.py": "y = 2",
        "page/lines.yaml": "1: one",
        "page/page.css": "p {}",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize("changed", ["a.py", "measures/b.py", "page/lines.yaml", "measures/new.py"])
def test_a_changed_source_changes_the_hash(package, changed):
    before = process.hash_of_sources(package)
    (package / changed).write_text("z = 3")
    assert process.hash_of_sources(package) != before


@pytest.mark.parametrize(
    "other", ["page/page.css", "__pycache__/a.cpython-311.pyc", "conf/train.yaml", "experiments/claims.yaml"]
)
def test_what_decides_no_number_does_not(package, other):
    """conf/ and experiments/ lie in the package of a wheel, and beside it in a checkout."""
    before = process.hash_of_sources(package)
    (package / other).parent.mkdir(exist_ok=True)
    (package / other).write_text("new")
    assert process.hash_of_sources(package) == before


def test_a_renamed_source_and_one_elsewhere(package, tmp_path):
    before = process.hash_of_sources(package)
    shutil.copytree(package, tmp_path / "copy")
    assert process.hash_of_sources(tmp_path / "copy") == before
    (package / "a.py").rename(package / "c.py")
    assert process.hash_of_sources(package) != before


def test_the_commit_is_that_of_the_package(package, tmp_path, monkeypatch):
    """Not that of a repository in which its environment happens to lie; and nothing where git is not installed."""

    def commit(folder):
        git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(process, "PACKAGE", package)
    found = process.git_sha.__wrapped__
    assert found() == ""
    commit(tmp_path)
    assert found() == ""
    sha = commit(package.parent)
    assert found() == sha
    monkeypatch.setenv("PATH", "")
    assert found() == ""

"""The README's examples work, its commands exist, and RESULTS.md has every claim of claims.yaml."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer
from small_report import small_run

from induction_cli import cli
from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts import load_claims

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "experiments" / "RESULTS.md").read_text()


def example(first_line: str) -> str:
    """The Python block that opens with a line."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if block.startswith(first_line)]
    return found


def test_added_measure(tmp_path):
    """'To add a measure', to the letter in a copy of the package, each block at the end of the file it names."""
    run = small_run(tmp_path, n_layers=1)
    for folder in ("induction_cli", "conf", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / "copy" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("induction_cli/measures/attention.py", "induction_cli/evidence/score.py"):
        with (tmp_path / "copy" / file).open("a") as end:
            end.write(f"\n\n{example(f'# {file}')}")
    code = """
        import sys, torch
        from induction_cli.config import ScoreConfig
        from induction_cli.evidence import score
        from induction_cli.measures import attention
        pattern = torch.zeros(1, 1, 5, 5)
        pattern[..., [2, 3, 4], [0, 1, 2]] = torch.tensor([1.0, 0.5, 0.0])
        assert attention.two_back(pattern).item() == 0.5
        config = ScoreConfig(run_dir=sys.argv[1], n_examples=8, n_sequences=2, threads=1)
        score.run(config, score.Path(sys.argv[1], "score"))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(run)]
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "copy")})
    room = RunDir(run / "score")
    heads = room.table("head_scores").query("measure == 'two_back'")
    assert len(heads) and heads.value.between(0, 1).all() and heads.random_head.notna().all()
    assert "two_back" in set(room.table("definitions").measure)
    assert (room.path / "plots" / "mosaic_two_back.png").exists()


def test_python_example(tmp_path, monkeypatch):
    """The other example, with fewer tokens."""
    monkeypatch.chdir(tmp_path)
    shorter = example("from pathlib import Path").replace("tokens=500_000", "tokens=20_000, threads=1")
    exec(shorter.replace("n_layers=1", "n_layers=1, d_model=16, d_head=4"), {})
    assert RunDir("runs/mine").meta()["status"] == "done"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"(?m)^(?:\| `)?induction ([a-z-]+)", README))))
def test_named_command_exists(command):
    assert command in typer.main.get_command(cli.app).commands


def test_named_targets_exist():
    named = set(re.findall(r"(?m)(?:^|`)make ([a-z][a-z0-9-]*)", README))
    assert named <= set(re.findall(r"(?m)^([a-z0-9-]+):", (ROOT / "Makefile").read_text()))


def test_results_have_every_claim():
    """One row a claim, with its words and the rule made from its fields."""
    for claim in load_claims(ROOT / "experiments" / "claims.yaml"):
        row = f"| {claim.id} | {claim.claim} | {claim.model_class} | {claim.estimate} | {claim.rule} | {claim.source} |"
        assert row in RESULTS, f"RESULTS.md lacks or misquotes {claim.id}; it should have {row}"

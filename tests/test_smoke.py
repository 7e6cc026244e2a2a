"""Every command once, as a user types it, on the smoke recipes: from nothing to a verdict."""

from pathlib import Path

import pytest

from induction_cli import cli
from induction_cli.run_dir import RunDir


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """An empty folder to work in, with the smoke run in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        assert cli.run(["train", "-e", "smoke", "threads=1"]) == 0
        yield next(Path("runs/train").iterdir())


def test_train(here):
    assert RunDir(here).meta()["status"] == "done"
    assert len(RunDir(here).snapshots()) >= 5


@pytest.mark.parametrize(
    ("arguments", "table"),
    [
        (["score", "-e", "smoke"], "score/tables/head_scores.csv"),
        (["pertoken-pca", "-e", "smoke"], "pertoken_pca/tables/pertoken_pca.csv"),
        (["ablate", "-e", "smoke"], "ablate/tables/ablation.csv"),
        (["circuits", "-e", "smoke"], "circuits/tables/composition.csv"),
        (["generalize", "-e", "smoke"], "generalize/tables/head_behaviours.csv"),
        (["report"], "report/tables/verdicts.csv"),
    ],
)
def test_analysis(here, arguments, table):
    command, *rest = arguments
    threads = [] if command == "report" else ["threads=1"]
    assert cli.run([command, str(here), *rest, *threads]) == 0
    assert (here / table).stat().st_size > 0


def test_smear(here):
    assert cli.run(["smear", "-e", "smoke", "threads=1"]) == 0
    assert (next(Path("runs/smear").iterdir()) / "tables" / "shifts.csv").exists()

"""Every command once, as a user types it, on the smoke recipes: from nothing to a verdict."""

from pathlib import Path

import pytest

from induction_cli import cli
from induction_cli.runs.run_dir import RunDir
from induction_cli.runs.tables import spec_of

pytestmark = pytest.mark.slow


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
        (["compare", "-e", "smoke"], "compare/tables/models.csv"),
        (["report"], "report/tables/verdicts.csv"),
    ],
)
def test_analysis(here, arguments, table):
    command, *rest = arguments
    threads = [] if command in ("compare", "report") else ["threads=1"]
    assert cli.run([command, str(here), *rest, *threads]) == 0
    assert (here / table).stat().st_size > 0


def test_smear(here):
    assert cli.run(["smear", "-e", "smoke", "threads=1"]) == 0
    assert (next(Path("runs/smear").iterdir()) / "tables" / "shifts.csv").exists()


def test_classify(here):
    assert cli.run(["classify", "-e", "smoke", "threads=1"]) == 0
    room = next(Path("runs/classify").iterdir())
    assert {"accuracy", "jump_times"} <= {path.stem for path in (room / "tables").iterdir()}


def test_recall(here):
    assert cli.run(["recall", "-e", "smoke", "threads=1"]) == 0
    assert (next(Path("runs/recall").iterdir()) / "tables" / "order.csv").exists()


def test_reproduce(here):
    """All steps of the pipeline, from training to the page."""
    assert cli.run(["reproduce", "-e", "smoke"]) == 0
    assert (next(Path("runs/reproduce").iterdir()) / "report.html").exists()


def test_every_table_keeps_its_contract(here):
    """Of all that the commands above wrote: columns, their order and types, and keys that tell rows apart."""
    found = set()
    for path in Path("runs").rglob("tables/*.csv"):
        rows = RunDir(path.parent.parent).table(path.stem)  # refuses a value of another type
        spec = spec_of(path.stem, rows.columns)
        found.add(spec.name)
        assert not spec.missing(rows.columns), path
        assert list(rows.columns) == [name for name in spec.columns if name in rows], path
        key = [name for name in spec.key if name in rows]
        assert not rows.duplicated(key).any() if key else len(rows) <= 1, path
    assert found >= {
        "train/training",
        "recall/training",
        "score/events",
        "classify/events",
        "recall/events",
        "verdicts",
    }
    assert len(found) > 70

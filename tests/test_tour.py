"""The notebook runs from top to bottom and shows what it says."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

TOUR = Path(__file__).parents[1] / "experiments" / "tour.ipynb"


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> list[dict]:
    """What each code cell displays, by type."""
    notebook = nbformat.read(TOUR, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    here = {"metadata": {"path": str(tmp_path_factory.mktemp("tour"))}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=here).execute()
    kinds = ("execute_result", "display_data")
    return [
        {kind: data for output in cell.outputs if output.output_type in kinds for kind, data in output.data.items()}
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_every_cell_shows_something(shown):
    assert all(shown)


def test_a_heads_attention_is_drawn(shown):
    assert "image/png" in shown[2]


def test_tables_are_tables(shown):
    learning, scores, _, verdicts = (cell.get("text/html", "") for cell in shown)
    assert "in_context_learning_score" in learning and "prefix_matching" in scores and "not tested" in verdicts

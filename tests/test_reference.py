"""The reference is made from where things are defined, and nothing is missing in it."""

from induction_cli import reference
from induction_cli.config import ReproduceConfig, TrainConfig
from induction_cli.config.settings import settings_of
from induction_cli.runs.files import beside


def test_every_setting_of_every_command_is_explained():
    page = reference.settings_page()
    assert page.count("\n## ") == len(list(beside("conf").glob("*.yaml")))
    rows = reference.rows(TrainConfig)
    assert any(row.startswith("| `model.init.embedding_std` | `0.5` |") for row in rows)
    assert len(reference.rows(ReproduceConfig)) > len(rows) >= len(settings_of(TrainConfig))
    assert all(len(row.replace("\\|", "").split("|")) == 6 for row in rows)
    assert all(row.split("|")[3].strip() for row in rows), "a setting without a meaning"

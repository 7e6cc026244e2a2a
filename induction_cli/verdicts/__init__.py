"""From tables to verdicts. The claims and their rules are data (experiments/claims.yaml); here is how each is decided.

A claim's function gives one Effect per run (or pair of runs): a number, its 95% interval, and on which side of the rule
that interval lies. `decide` makes the verdict of them. Nothing here runs a model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from induction_cli.verdicts import classify, line_1, line_2, line_3, line_4, line_5, line_6, recall
from induction_cli.verdicts.decide import Effect, Verdict, above, below, both, decide
from induction_cli.verdicts.tables import Paths

__all__ = ["CLAIMS", "Effect", "Verdict", "above", "below", "both", "decide", "load_claims", "verdicts"]

CLAIMS: dict[str, Callable[[Paths], list[Effect]]] = {
    name.removeprefix("claim_"): function
    for line in (line_1, line_2, line_3, line_4, line_5, line_6, recall, classify)
    for name, function in vars(line).items()
    if name.startswith("claim_")
}


def load_claims(path: Path) -> list[dict]:
    """experiments/claims.yaml, in order."""
    return yaml.safe_load(path.read_text())


def verdicts(paths: Paths, claims: list[dict], argument: int = 0) -> list[Verdict]:
    """The verdict of every claim of an argument (0: of all) from the tables of runs and folders of runs."""
    asked = [claim["id"] for claim in claims if argument in (0, claim["argument"])]
    return [decide(claim, CLAIMS[claim](paths) if claim in CLAIMS else []) for claim in asked]


class VerdictsPackage(ModuleType):
    """`induction.verdicts(FOLDER)` of the Python API is called by this package's name, so the package can be called."""

    def __call__(self, *folders: str | Path) -> Any:
        from induction_cli import api

        return api.verdicts(*folders)


sys.modules[__name__].__class__ = VerdictsPackage

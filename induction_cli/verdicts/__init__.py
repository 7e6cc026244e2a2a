"""From tables to verdicts. The claims and their rules are data (experiments/claims.yaml); here is how each is decided.

A claim's function, claim_<id> of the module of its line, gives one number a seed (or why a run has none); decide.py
makes the verdict of them by the rule. Nothing here runs a model.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from induction_cli.verdicts import classify, line_1, line_2, line_3, line_4, line_5, line_6, recall
from induction_cli.verdicts.claims import Claim, Part, load_claims
from induction_cli.verdicts.decide import PartVerdict, SeedEstimate, Verdict, decide
from induction_cli.verdicts.existence import Looked, decide_existence
from induction_cli.verdicts.many_claims import decide_of_claims, with_holm
from induction_cli.verdicts.tables import Paths

__all__ = [
    "CLAIMS",
    "EXISTENCE",
    "Claim",
    "Looked",
    "Part",
    "PartVerdict",
    "SeedEstimate",
    "Verdict",
    "decide",
    "load_claims",
    "rows_of",
    "verdicts",
    "with_holm",
]


def functions(prefix: str) -> dict[str, Callable[[Paths], Any]]:
    lines = (line_1, line_2, line_3, line_4, line_5, line_6, recall, classify)
    return {
        name.removeprefix(prefix): function
        for line in lines
        for name, function in vars(line).items()
        if name.startswith(prefix)
    }


CLAIMS: dict[str, Callable[[Paths], list[SeedEstimate]]] = functions("claim_")
EXISTENCE: dict[str, Callable[[Paths], list[Looked]]] = functions("existence_")


def rows_of(claim: Claim, paths: Paths, claims: Sequence[Claim]) -> list[Verdict]:
    """A claim's verdicts: of the class that its rule names, then of every other class that has runs.

    claims: all of them, as one may be about others.
    """
    if claim.of:
        about = [one for one in claims if one.id in claim.of]
        return [decide_of_claims(claim, [row for one in about for row in rows_of(one, paths, claims)])]
    if claim.id in EXISTENCE:
        return [decide_existence(claim, EXISTENCE[claim.id](paths))]
    found = CLAIMS[claim.id](paths) if claim.id in CLAIMS else []
    others = sorted({one.model_class for one in found} - {claim.model_class})
    return [decide(claim, found, name) for name in (claim.model_class, *others)]


def verdicts(paths: Paths, claims: Sequence[Claim], line: int = 0) -> list[Verdict]:
    """The verdicts of every claim of a line (0: of all) from the tables of runs and folders of runs."""
    asked = [claim for claim in claims if line in (0, claim.line)]
    return with_holm([row for claim in asked for row in rows_of(claim, paths, claims)])


class VerdictsPackage(ModuleType):
    """`induction.verdicts(FOLDER)` of the Python API is called by this package's name, so the package can be called."""

    def __call__(self, *folders: str | Path) -> Any:
        from induction_cli import api

        return api.verdicts(*folders)


sys.modules[__name__].__class__ = VerdictsPackage

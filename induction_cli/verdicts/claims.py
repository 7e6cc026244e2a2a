"""The claims and the rules that decide them, as data: experiments/claims.yaml, read into dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from induction_cli.measures import intervals

SCALES = (*intervals.SCALES, "share")
KINDS = ("estimate", "yes_no", "existence", "compound")
SOURCES = ("paper", "replication", "ours")


@dataclass(frozen=True)
class Part:
    """One number that a claim is judged by. above, below: the ends of the claim's side; none: shown, not judged."""

    estimate: str  # what a seed's number is, in words
    unit: str
    name: str = ""  # '' where the claim has one part
    scale: str = "identity"
    above: float | None = None
    below: float | None = None

    @property
    def judged(self) -> bool:
        return self.above is not None or self.below is not None

    @property
    def side(self) -> str:
        """above | below | between, or '' where it is shown only."""
        if self.above is not None and self.below is not None:
            return "between"
        return "above" if self.above is not None else "below" if self.below is not None else ""

    @property
    def thresholds(self) -> tuple[float, ...]:
        return tuple(end for end in (self.above, self.below) if end is not None)

    @property
    def rule(self) -> str:
        """'above 0.1 nats', 'between -0.25 and 1.25'."""
        return f"{self.side} {' and '.join(f'{end:g}' for end in self.thresholds)} {self.unit}".strip()


@dataclass(frozen=True)
class Claim:
    """One claim and its rule."""

    id: str
    line: int
    claim: str
    model_class: str  # the one whose verdict is the headline
    source: str  # paper | replication | ours
    kind: str  # estimate | yes_no | existence | compound
    parts: tuple[Part, ...]
    of: tuple[str, ...]  # compound: the claims that must all hold in every class
    unit_of_evidence: str
    minimum_seeds: int
    looks: int  # how often this verdict is looked at, with ever more seeds
    family_wise_error: float  # existence: over all heads of all models looked at
    first_new_seed: int  # lower ones had been seen when the rule was fixed
    fixed: str  # date
    command: str  # supplies what it is judged by

    @property
    def rule(self) -> str:
        """The rule in words, made from the fields."""
        if self.kind == "existence":
            return (
                f"at least one head of a trained model beyond its control at a family-wise error of "
                f"{self.family_wise_error:.0%}, none with random weights"
            )
        if self.of:
            return f"{' and '.join(self.of)} supported in every class"
        judged = [part for part in self.parts if part.judged]
        words = [f"{part.name} {part.rule}" if part.name else part.rule for part in judged]
        share = "in most seeds: " if self.kind == "yes_no" else ""
        return f"{share}{' and '.join(words)}; {self.minimum_seeds} {self.unit_of_evidence}s or more"

    @property
    def estimate(self) -> str:
        return "; ".join(f"{part.name}: {part.estimate}" if part.name else part.estimate for part in self.parts)


def load_claims(path: Path) -> list[Claim]:
    """The claims of a file, in order. Raises ValueError naming the claim and the field that is wrong."""
    read = yaml.safe_load(path.read_text())
    return [claim_of({**read["defaults"], **row}) for row in read["claims"]]


PART = tuple(field.name for field in fields(Part))
CLAIM = tuple(field.name for field in fields(Claim))


def claim_of(row: dict[str, Any]) -> Claim:
    """A claim from its fields. One with a single part has that part's fields beside its own."""
    name = row.get("id", "a claim without an id")
    own = {key: value for key, value in row.items() if key in CLAIM and key not in ("parts", "of")}
    given = row.get("parts") or ([{key: row[key] for key in PART if key in row}] if "estimate" in row else [])
    unknown = set(row) - set(CLAIM) - (set(PART) if "parts" not in row else set())
    if unknown:
        raise ValueError(f"claim {name}: unknown fields {', '.join(sorted(unknown))}")
    try:
        claim = Claim(**own, parts=tuple(Part(**part) for part in given), of=tuple(row.get("of", ())))
    except TypeError as error:
        raise ValueError(f"claim {name}: {str(error).split('() ')[-1]}") from error
    for field, value, known in (("kind", claim.kind, KINDS), ("source", claim.source, SOURCES)):
        if value not in known:
            raise ValueError(f"claim {name}: {field} is '{value}', not one of {', '.join(known)}")
    for part in claim.parts:
        if part.scale not in SCALES:
            raise ValueError(f"claim {name}: scale is '{part.scale}', not one of {', '.join(SCALES)}")
    if claim.kind != "existence" and not claim.of and not any(part.judged for part in claim.parts):
        raise ValueError(f"claim {name}: no part has a threshold (above, below)")
    return claim

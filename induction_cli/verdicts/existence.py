"""Claims that something exists: decided by instances, whatever the number of seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from induction_cli.verdicts.claims import Claim
from induction_cli.verdicts.decide import (
    REFUTED,
    STRADDLES,
    SUPPORTED,
    UNTESTED,
    PartVerdict,
    SeedEstimate,
    Verdict,
)


@dataclass(frozen=True)
class Looked:
    """A model whose heads were looked at for one that exists. Errors are corrected for all heads of this model."""

    model_class: str
    seed: int | None
    run: str
    errors: tuple[float, ...] = ()  # of each head that could be it
    with_random_weights: tuple[float, ...] = ()  # of each head of the same model with random weights
    with_shuffled_heads: tuple[float, ...] | None = None  # and of the trained one, its heads in other layers
    missing: str = ""


def decide_existence(claim: Claim, looked: Sequence[Looked]) -> Verdict:
    """By instances: a head beyond its control, corrected for all heads of all models, and none with random weights."""
    models = list({(one.run, one.seed): one for one in looked if not one.missing}.values())
    part = claim.parts[0]
    bar = claim.family_wise_error / max(1, len(models))

    def beyond(errors: Sequence[float] | None) -> int:
        return sum(error < bar for error in errors or ())

    estimates = [SeedEstimate(one.model_class, one.seed, one.run, beyond(one.errors)) for one in models]
    estimates += [SeedEstimate(x.model_class, x.seed, x.run, math.nan, x.missing) for x in looked if x.missing]
    if not models:
        reasons = Counter(one.missing for one in looked if one.missing)
        why = "; ".join(f"{count} could not say: {reason}" for reason, count in reasons.items())
        untested = PartVerdict(part, tuple(estimates), math.nan, math.nan, math.nan, UNTESTED, math.nan, part.scale)
        missing = f"no model's heads were looked at{f' ({why})' if why else ''}: {claim.command}"
        return Verdict(claim, claim.model_class, True, UNTESTED, (untested,), missing=missing)
    able = [one for one in models if beyond(one.errors)]
    clean = [one for one in able if not beyond(one.with_random_weights)]
    verdict = SUPPORTED if clean else STRADDLES if able else REFUTED
    random = sum(beyond(one.with_random_weights) for one in models)
    note = f"{sum(one.value for one in estimates if not one.missing):.0f} heads in {len(able)} of {len(models)} models"
    note += f"; {random} with random weights"
    tried = [one for one in models if one.with_shuffled_heads is not None]
    if tried:
        note += f", {sum(beyond(one.with_shuffled_heads) for one in tried)} with heads shuffled between layers"
    most = max(one.value for one in estimates if not one.missing)
    found = PartVerdict(part, tuple(estimates), most, math.nan, math.nan, verdict, math.nan, part.scale)
    return Verdict(claim, claim.model_class, True, verdict, (found,), note=note)

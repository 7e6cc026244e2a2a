"""Claims 2a to 2c, from the tables of `induction smear` and of the runs it compared."""

from __future__ import annotations

from induction_cli.runs.run_dir import RunDir
from induction_cli.verdicts.decide import Effect, below, both
from induction_cli.verdicts.line_1 import Scored, flat_effect, phase_change_effect
from induction_cli.verdicts.tables import Paths, rooms_in


def comparisons(paths: Paths) -> list[RunDir]:
    return rooms_in(paths, "", "shifts")


def claim_2a(paths: Paths) -> list[Effect]:
    """Per seed: the smeared one-layer model by the rule of 1a, its vanilla twin by that of 1b. Value: the fall."""
    effects = []
    for room in comparisons(paths):
        for seed, pair in room.table("onsets").query("n_layers == 1").groupby("seed"):
            arms = {
                row.keys: Scored(row.run, 1, row.seed, row.keys == "smeared", RunDir(room.path / row.path))
                for row in pair.itertuples()
            }
            changed, flat = phase_change_effect(arms["smeared"]), flat_effect(arms["vanilla"])
            effects.append(
                Effect(
                    f"seed {seed}", changed.value, changed.low, changed.high, both(changed.holds, flat.holds), seed=seed
                )
            )
    return effects


def claim_2b(paths: Paths) -> list[Effect]:
    """Per seed of two-layer models: onset of S, smeared / vanilla."""
    return [
        Effect(f"seed {row.seed}", row.ratio, row.low, row.high, below(1, row.low, row.high), seed=row.seed)
        for room in comparisons(paths)
        for row in room.table("shifts").query("n_layers == 2").dropna().itertuples()
    ]


def claim_2c(paths: Paths) -> list[Effect]:
    """Per smeared run: own-key share of the head that ends highest in prefix matching, less the other heads' mean.

    Lower in every seed is the rule, so a number has no interval here: it is on one side or the other.
    """
    effects = []
    for room in comparisons(paths):
        table = room.table("smear_weights")
        for run, rows in table.groupby("run"):
            last = rows[rows.step == rows.step.max()].set_index(["layer", "head"])
            head = last.prefix_matching.idxmax()
            others = last.weight.drop(head)
            value = last.weight[head] - others.mean()
            if len(others):
                effects.append(
                    Effect(
                        str(run),
                        value,
                        last.weight[head] - others.max(),
                        last.weight[head] - others.min(),
                        bool(value < 0),
                        seed=last.seed.iloc[0],
                    )
                )
    return effects

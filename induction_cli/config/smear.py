"""Settings of `induction smear`."""

from __future__ import annotations

from dataclasses import dataclass

from induction_cli.config.settings import SEED, SEVERAL, TOKENS, group, setting
from induction_cli.config.train import DEPTH, ModelConfig, TrainConfig


@dataclass
class SmearModelConfig(ModelConfig):
    """Models that differ in depth."""

    n_layers: list[int] = setting(  # type: ignore[assignment]
        [1, 2], "the depths to compare; smeared keys need a layer", at_least=1, at_most=DEPTH, **SEVERAL
    )


@dataclass
class SmearConfig(TrainConfig):
    """`induction smear`: every depth and seed is trained twice, without and with smeared keys."""

    model: SmearModelConfig = group(SmearModelConfig, "conf/model/ has the kinds")
    seeds: list[int] = setting([0, 1, 2], "one pair for each; `seed` itself is not used", **SEED, **SEVERAL)
    smeared_tokens: int = setting(
        2_000_000,
        "training tokens of the smeared runs, which change early; 0: as many as vanilla",
        at_least=0,
        at_most=TOKENS["at_most"],
    )
    vanilla: str = setting("", "a run, or a folder of runs, to compare with instead of training vanilla ones")

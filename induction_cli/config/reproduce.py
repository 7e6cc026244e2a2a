"""Settings of `induction reproduce`: those of the training, and of every command that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from induction_cli.config.analyses import (
    AblateConfig,
    CircuitsConfig,
    CompareConfig,
    GeneralizeConfig,
    PertokenPcaConfig,
    ScoreConfig,
)
from induction_cli.config.settings import SEED, SEVERAL, TOKENS, group, setting
from induction_cli.config.smear import SmearModelConfig
from induction_cli.config.train import DEPTH, SnapshotConfig, TrainConfig
from induction_cli.errors import require

LAYERS: dict[str, Any] = {"at_least": 1, "at_most": DEPTH, "distinct": True}


@dataclass
class ReproduceConfig(TrainConfig):
    """`induction reproduce`: which models are trained, and how every line of evidence is run on them."""

    model: SmearModelConfig = group(SmearModelConfig, "of all; n_layers: the depths of attention-only models")
    seeds: list[int] = setting([0], "of every kind of model; `seed` itself is not used", **SEED, **SEVERAL)
    mlp_layers: list[int] = setting([], "depths that are trained with MLPs too", **LAYERS)
    mlp_seeds: list[int] = setting([], "of those; []: as seeds", **SEED, distinct=True)
    d_mlp: int = setting(512, "of those", at_least=1, at_most=10**7)
    smeared_layers: list[int] = setting([1, 2], "depths that are trained with smeared keys too", **LAYERS)
    smeared_tokens: int = setting(
        2_000_000, "training tokens of those; 0: as many as the others", at_least=0, at_most=TOKENS["at_most"]
    )
    smeared_snapshots: SnapshotConfig = group(SnapshotConfig, "when the weights of those are kept")
    pretrained: list[str] = setting([], "models that generalize measures too, such as smollm2")
    score: ScoreConfig = group(ScoreConfig, "as in induction score", run_dir="")
    pertoken_pca: PertokenPcaConfig = group(PertokenPcaConfig, "as in induction pertoken-pca", run_dirs=[])
    ablate: AblateConfig = group(AblateConfig, "as in induction ablate", run_dir="")
    circuits: CircuitsConfig = group(CircuitsConfig, "as in induction circuits", run_dir="")
    generalize: GeneralizeConfig = group(GeneralizeConfig, "as in induction generalize", run_dir="")
    compare: CompareConfig = group(CompareConfig, "as in induction compare", run_dirs=[])
    workers: int = setting(
        0, "steps at once; 0: on a CPU one for each core, with one thread each; on a GPU 1", at_least=0, at_most=1024
    )
    reuse: list[str] = setting([], "folders of finished runs that need not be trained again")
    fresh: bool = setting(False, "start anew, whatever was done before")

    def check_together(self) -> None:
        super().check_together()
        model, missing = self.model, sorted(set(self.smeared_layers) - set(self.model.n_layers))
        require(not model.d_mlp, f"model.d_mlp is {model.d_mlp}; models with MLPs are asked for by mlp_layers")
        require(not model.smeared_keys, "model.smeared_keys is true; smeared models are asked for by smeared_layers")
        require(not missing, f"smeared_layers has {missing}, which model.n_layers has not: there is no twin to compare")

"""The schema: every setting of every command, with its type, default, meaning and limits. Recipes live in conf/ and
experiments/."""

from __future__ import annotations

from induction_cli.config.analyses import (
    ABLATIONS,
    AblateConfig,
    CircuitsConfig,
    CompareConfig,
    GeneralizeConfig,
    PertokenPcaConfig,
    ReportConfig,
    ScoreConfig,
    SourceConfig,
    TextConfig,
)
from induction_cli.config.classify import SCALARS, SYSTEMS, ClassifyConfig, NestedConfig, TwoParameterConfig
from induction_cli.config.recall import RecallConfig, RecallNetworkConfig
from induction_cli.config.reproduce import ReproduceConfig
from induction_cli.config.settings import MISSING, Limits, Settings, check_group, setting
from induction_cli.config.smear import SmearConfig, SmearModelConfig
from induction_cli.config.train import (
    BEFORE_0_2,
    DEVICES,
    DTYPES,
    OPTIMIZERS,
    POSITIONS,
    SCHEDULES,
    SOURCES,
    DataConfig,
    EvaluationConfig,
    InitConfig,
    ModelConfig,
    OptimizerConfig,
    SnapshotConfig,
    TrainConfig,
)
from induction_cli.errors import ConfigError, require

__all__ = [
    "ABLATIONS",
    "BEFORE_0_2",
    "DEVICES",
    "DTYPES",
    "MISSING",
    "OPTIMIZERS",
    "POSITIONS",
    "SCALARS",
    "SCHEDULES",
    "SOURCES",
    "SYSTEMS",
    "AblateConfig",
    "CircuitsConfig",
    "ClassifyConfig",
    "CompareConfig",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "GeneralizeConfig",
    "InitConfig",
    "Limits",
    "ModelConfig",
    "NestedConfig",
    "OptimizerConfig",
    "PertokenPcaConfig",
    "RecallConfig",
    "RecallNetworkConfig",
    "ReportConfig",
    "ReproduceConfig",
    "ScoreConfig",
    "Settings",
    "SmearConfig",
    "SmearModelConfig",
    "SnapshotConfig",
    "SourceConfig",
    "TextConfig",
    "TrainConfig",
    "TwoParameterConfig",
    "check_group",
    "require",
    "setting",
]

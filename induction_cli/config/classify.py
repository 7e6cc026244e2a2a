"""Settings of `induction classify`. Symbols of the paper (Reddy 2023) begin the meanings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from induction_cli.config.settings import SEED, SEVERAL, Settings, group, setting
from induction_cli.config.train import THREADS
from induction_cli.errors import require

SYSTEMS = ("network", "two_parameter", "nested_logits")
SCALARS = ("beta_1", "alpha", "beta_2", "xi")  # of the two-parameter model
SHARE: dict[str, Any] = {"at_least": 0, "at_most": 1}


@dataclass
class TwoParameterConfig(Settings):
    """The reduced induction head: its numbers before training, and which of them training moves."""

    beta_1: float = setting(0.0, "before training")
    alpha: float = setting(0.0, "before training")
    beta_2: float = setting(2.0, "before training")
    xi: float = setting(10.0, "before training")
    trained: list[str] = setting(["beta_1", "alpha"], "what training moves", one_of=SCALARS, distinct=True)
    memory_width: int = setting(256, "random features of the in-weights memory; 0: none", at_least=0)
    learning_rate: float = setting(0.01, "of the scalars", at_least=0)
    memory_learning_rate: float = setting(
        20.0, "its ratio to the other says how well weights compete with the context", at_least=0
    )


@dataclass
class NestedConfig(Settings):
    """The loss of three nested logits: how many rivals each has, and the starts (every combination) that are tried.

    For N pairs, L labels: n1 ~ N, n2 = labels of the context less one, n3 the rest.
    """

    n1: float = setting(16.0, "rivals of the first logit, ~ N", above=0)
    n2: float = setting(7.0, "of the second, labels of the context less one", above=0)
    n3: float = setting(24.0, "of the third, all other labels", above=0)
    beta_1: list[float] = setting([-4.0, -3.0, -2.0, -1.0, 0.0], "starts", not_empty=True)
    alpha: list[float] = setting([0.0, 0.5, 1.0], "starts", not_empty=True)
    xi: list[float] = setting([0.1, 2.0], "starts", not_empty=True)
    learning_rate: float = setting(0.05, "of the simulated descent; time = learning_rate * step", above=0)
    noise: float = setting(0.05, "sd of what is added to each gradient, anew for every seed", at_least=0)
    points: int = setting(60, "along each side of the landscape", at_least=2, at_most=10_000)


@dataclass
class ClassifyConfig(Settings):
    """`induction classify`

    Defaults are those of the public code, K and B in the middle of its range.
    """

    systems: list[str] = setting(["network"], "what is trained", one_of=SYSTEMS, **SEVERAL)

    n_pairs: int = setting(8, "N, item-label pairs in the context", at_least=1)
    max_pairs: int = setting(
        32, "N_max: 2 N_max + 1 positions, among which a sequence begins at a random one", at_least=1
    )
    n_labels: int = setting(32, "L", at_least=1)
    n_classes: int = setting(512, "K, a multiple of L", at_least=2)
    burstiness: int = setting(
        2, "B, how often each class occurs in the context of a bursty sequence; N/B is whole", at_least=1
    )
    epsilon: float = setting(0.1, "within-class variation", at_least=0)
    alpha: float = setting(0.0, "Zipf exponent of the classes; 0 is uniform", at_least=0)
    p_bursty: float = setting(1.0, "p_B, share of bursty sequences", **SHARE)
    p_fresh: float = setting(0.0, "p_C, share of sequences of new classes", **SHARE)
    fresh_classes: int = setting(128, "K_c, new means in every batch; a multiple of L", at_least=1)
    distinct_labels: bool = setting(False, "no two classes of one context share a label")
    d_content: int = setting(63, "D; a token is [one-hot position | content]", at_least=1)
    batch_size: int = setting(128, "sequences in a step", at_least=1)
    learning_rate: float = setting(0.01, "of plain gradient descent", above=0)
    weight_decay: float = setting(1e-6, "weights are multiplied by 1 - this in every step", at_least=0, below=1)
    seeds: list[int] = setting([0, 1, 2, 3, 4], "trained together", **SEED, **SEVERAL)
    steps: int = setting(75_000, "of training", at_least=1)
    measure_every: int = setting(500, "steps", at_least=1)
    n_sequences: int = setting(1000, "held-out ones behind every accuracy of a seed", at_least=1)
    two_parameter: TwoParameterConfig = group(TwoParameterConfig, "the reduced induction head")
    nested_logits: NestedConfig = group(NestedConfig, "the loss of three nested logits")
    threads: int = setting(0, "of torch on a CPU; 0: as torch decides", **THREADS)

    @property
    def n_positions(self) -> int:
        """P"""
        return 2 * self.max_pairs + 1

    @property
    def d_token(self) -> int:
        return self.n_positions + self.d_content

    def check_together(self) -> None:
        for name in ("n_classes", "fresh_classes"):
            value = getattr(self, name)
            require(value % self.n_labels == 0, f"{name} is {value}; it must be a multiple of n_labels={self.n_labels}")
        pairs, bursts = self.n_pairs, self.burstiness
        require(pairs % bursts == 0, f"burstiness is {bursts}; n_pairs={pairs} must be a multiple of it")
        labels = ["n_labels"] if self.distinct_labels else []
        for name in ["n_classes", "fresh_classes", *labels]:
            least, value = pairs // bursts, getattr(self, name)
            require(value >= least, f"{name} is {value}; n_pairs/burstiness={least} distinct ones are needed")
        require(
            pairs <= self.max_pairs,
            f"n_pairs is {pairs}; max_pairs={self.max_pairs} has only {self.n_positions} positions for {2 * pairs + 1}",
        )
        require(
            not self.distinct_labels or self.alpha == 0,
            f"alpha is {self.alpha}; distinct_labels draws labels evenly and needs alpha=0",
        )

"""Settings of `induction recall`. Bietti et al. in the meanings where we differ: sizes are for two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass, fields

from induction_cli.config.settings import SEED, SEVERAL, Settings, group, setting
from induction_cli.config.train import DEPTH, THREADS, DataConfig
from induction_cli.errors import require

RECALL_POSITIONS = ("absolute", "relative", "none")


@dataclass
class RecallNetworkConfig(Settings):
    """A recall network and its language."""

    d_vocab: int = setting(65, "characters: the most frequent ones, the last stands for all others", at_least=1)
    n_triggers: int = setting(5, "k", at_least=1)
    fixed_triggers: bool = setting(True, "the k most frequent tokens in every sequence; else drawn from pi_u in each")
    bigram_followers: bool = setting(False, "followers drawn from pi_b instead of uniformly")
    length: int = setting(64, "T; theirs: 256", at_least=2)
    n_positions: int = setting(256, "vectors for positions, or distances", at_least=1)
    positions: str = setting("absolute", "how a token knows its place", one_of=RECALL_POSITIONS)
    embedding: str = setting("random", "of tokens and positions", one_of=("random", "orthonormal"))
    n_layers: int = setting(2, "layers", at_least=2, at_most=DEPTH)
    d_model: int = setting(128, "width of the residual stream", at_least=1, at_most=10**6)
    global_memory: bool = setting(False, "a trained linear map W_F from token to next token: the place of pi_b")
    loss: str = setting("in_context", "from the second occurrence of triggers, or all", one_of=("in_context", "all"))
    batch_size: int = setting(32, "sequences in a step; theirs: 512", at_least=1)
    learning_rate: float = setting(1.0, "theirs is for another scale of embeddings", above=0)
    momentum: float = setting(0.9, "of gradient descent", at_least=0, below=1)
    weight_decay: float = setting(1e-6, "theirs: 1e-4 at a rate of 0.03; what counts is the product", at_least=0)

    @property
    def orthonormal_width(self) -> int:
        """Directions that the construction keeps apart: tokens and positions, each as they are and as layer 1 moves
        them, and outputs."""
        return 2 * (self.d_vocab + self.n_positions) + self.d_vocab

    def check_together(self) -> None:
        d_vocab, least = self.d_vocab, self.orthonormal_width
        require(
            self.positions == "none" or self.length <= self.n_positions,
            f"length is {self.length}; n_positions={self.n_positions} is too few for it",
        )
        require(
            self.n_triggers <= d_vocab, f"n_triggers is {self.n_triggers}; d_vocab={d_vocab} has too few tokens for it"
        )
        require(
            self.embedding != "orthonormal" or self.d_model >= least,
            f"d_model is {self.d_model}; orthonormal embeddings of {d_vocab} tokens need at least {least}",
        )


@dataclass
class RecallConfig(RecallNetworkConfig):
    """`induction recall`: a network for each of `positions` and `n_layers`, each trained from every seed."""

    positions: list[str] = setting(  # type: ignore[assignment]
        ["absolute", "relative"], "how a token knows its place, a network for each", one_of=RECALL_POSITIONS, **SEVERAL
    )
    n_layers: list[int] = setting(  # type: ignore[assignment]
        [2], "layers, a network for each", at_least=2, at_most=DEPTH, **SEVERAL
    )
    data: DataConfig = group(DataConfig, "conf/data/ has the kinds")
    characters: int = setting(2_000_000, "of its text, from which pi_u and pi_b are counted", at_least=1)
    seeds: list[int] = setting([0, 1, 2, 3, 4], "trained together", **SEED, **SEVERAL)
    steps: int = setting(300, "of training", at_least=1)
    measure_every: int = setting(20, "steps", at_least=1)
    n_sequences: int = setting(64, "new sequences behind every number of a seed", at_least=2)
    lengths: list[int] = setting([], "tried after training; triggers stand in the last T places", at_least=2)
    counts: list[int] = setting([], "occurrences of either follower in prompts where they disagree", at_least=0)
    n_prompts: int = setting(32, "for each pair of counts", at_least=1)
    threads: int = setting(0, "of torch on a CPU; 0: as torch decides", **THREADS)

    def networks(self) -> list[RecallNetworkConfig]:
        shared = {f.name: getattr(self, f.name) for f in fields(RecallNetworkConfig)}
        return [
            RecallNetworkConfig(**{**shared, "positions": positions, "n_layers": n_layers})
            for positions in self.positions
            for n_layers in self.n_layers
        ]

    def check_together(self) -> None:
        for network in self.networks():
            network.check()
        require(self.data.source != "repeats", "data.source is 'repeats'; the language is counted in text")
        for length in self.lengths:
            require(length >= self.length, f"lengths has {length}; it must be at least length={self.length}")
            require(
                length <= self.n_positions, f"lengths has {length}; n_positions={self.n_positions} is too few for it"
            )
        if self.counts:
            need = 4 * max(self.counts) + 1
            most = f"counts has {max(self.counts)}; its prompts have {need} tokens, length is {self.length}"
            require(need <= self.length, most)
            require(self.global_memory, "counts asks what the language's memory says; it needs global_memory=true")
            fit = "none" not in self.positions and self.n_layers == [2]
            require(fit, "counts compares with the construction, which has 2 layers and absolute or relative positions")

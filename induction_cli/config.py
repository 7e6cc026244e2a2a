"""The schema: every setting of every command, with its type and default. Recipes live in conf/ and experiments/."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

MISSING = "???"  # Hydra's mark for a value that must be given
POSITIONS = ("shortformer", "learned", "rotary", "relative", "none")
SOURCES = ("stdlib", "files", "huggingface", "repeats")
OPTIMIZERS = ("muon", "adamw")
SCHEDULES = ("constant", "cosine")
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16")
ABLATIONS = ("pattern_preserving", "full", "mean")


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the key and says what would do."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass
class InitConfig:
    """Standard deviations of the initial weights. They decide whether a phase change takes minutes or a night."""

    embedding_std: float = 0.5
    unembedding_std: float = 0.02
    attention_gain: float = 1.0  # W_Q, W_K, W_V ~ N(0, gain^2 / d_model)
    output_gain: float = 0.0  # W_O and W_out ~ N(0, gain^2 / fan_in)


@dataclass
class ModelConfig:
    n_layers: int = 2
    n_heads: int = 4
    d_model: int = 128
    d_head: int = 32
    d_mlp: int = 0  # 0: attention-only
    n_ctx: int = 512
    d_vocab: int = 512
    positions: str = "shortformer"
    smeared_keys: bool = False
    smear_init: float = 0.0  # alpha before training; 0 weighs a key and its predecessor equally
    init: InitConfig = field(default_factory=InitConfig)

    def check(self) -> None:
        for name in ("n_heads", "d_model", "d_head", "n_ctx", "d_vocab"):
            require(getattr(self, name) > 0, f"model.{name} is {getattr(self, name)}; it must be at least 1")
        require(self.n_layers >= 0, f"model.n_layers is {self.n_layers}; it must be at least 0")
        require(self.d_mlp >= 0, f"model.d_mlp is {self.d_mlp}; 0 means attention-only")
        require(self.positions in POSITIONS, f"model.positions is '{self.positions}'; there are {', '.join(POSITIONS)}")
        require(
            self.positions != "rotary" or self.d_head % 2 == 0,
            f"model.d_head is {self.d_head}; rotary positions need an even one",
        )


@dataclass
class DataConfig:
    """Where the text comes from; `conf/data/` has one file per source."""

    source: str = "stdlib"  # stdlib | files | huggingface | repeats
    paths: list[str] = field(default_factory=list)  # files: folders, files or globs
    field: str = "text"  # jsonl and huggingface: the field that holds the text
    name: str = ""  # huggingface: data set
    subset: str = ""
    split: str = "train"
    max_documents: int = 0  # huggingface: 0 reads all
    licence: str = ""  # said in the manifest
    repeat_length: int = 25  # repeats: tokens in a segment
    repeat_tokens: int = 4_000_000  # repeats: tokens generated
    epochs: int = 1  # more than 1 lets the model see text again
    cache_dir: str = ""  # default: $INDUCTION_CACHE, else ~/.cache/induction

    def check(self) -> None:
        require(self.source in SOURCES, f"data.source is '{self.source}'; there are {', '.join(SOURCES)}")
        require(self.source != "files" or bool(self.paths), "data.paths is empty; data=files needs data.paths=[FOLDER]")
        require(self.source != "huggingface" or bool(self.name), "data.name is empty; data=huggingface needs data.name")
        require(self.epochs >= 1, f"data.epochs is {self.epochs}; it must be at least 1")


@dataclass
class OptimizerConfig:
    """`conf/optimizer/` has one file per kind. Muon moves the matrices inside the blocks, AdamW the rest."""

    name: str = "muon"  # muon | adamw
    learning_rate: float = 3e-3
    muon_learning_rate: float = 0.02
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    weight_decay: float = 0.0  # on matrices only
    warmup_tokens: int = 100_000
    schedule: str = "constant"  # constant | cosine
    clip: float = 1.0

    def check(self) -> None:
        require(self.name in OPTIMIZERS, f"optimizer.name is '{self.name}'; there are {', '.join(OPTIMIZERS)}")
        require(
            self.schedule in SCHEDULES, f"optimizer.schedule is '{self.schedule}'; there are {', '.join(SCHEDULES)}"
        )
        for name in ("learning_rate", "muon_learning_rate", "clip"):
            require(getattr(self, name) > 0, f"optimizer.{name} is {getattr(self, name)}; it must be above 0")


@dataclass
class SnapshotConfig:
    """When the weights are kept and measured: evenly, evenly in log(tokens), and denser inside a window."""

    linear: int = 40
    log: int = 0
    window: list[int] = field(default_factory=list)  # [start, end] in tokens
    window_count: int = 0


@dataclass
class EvaluationConfig:
    """The fixed held-out examples behind every loss and score; the same for all runs on one corpus."""

    n_examples: int = 128
    batch_size: int = 16
    early_index: int = 50
    late_index: int = 500
    half_width: int = 10  # the windowed score averages the indices within this of each
    n_sequences: int = 10  # random sequences, and text examples, behind each head score
    seed: int = 0

    def check(self, n_ctx: int) -> None:
        late, width = self.late_index, self.half_width
        require(self.n_examples >= 2, f"evaluation.n_examples is {self.n_examples}; it must be at least 2")
        require(
            0 < self.early_index < self.late_index,
            f"evaluation.early_index is {self.early_index}; it must lie between 1 and evaluation.late_index ({late})",
        )
        require(
            late <= n_ctx,
            f"evaluation.late_index is {late}, but model.n_ctx is {n_ctx}; "
            f"evaluation.early_index={max(1, n_ctx // 10)} and evaluation.late_index={n_ctx - n_ctx // 50} would fit",
        )
        require(width >= 0, f"evaluation.half_width is {width}; it must be at least 0")


@dataclass
class TrainConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    tokens: int = 4_600_000  # training tokens; rounded up to whole steps
    batch_size: int = 2  # sequences in one forward pass
    accumulate: int = 1  # forward passes in one step
    device: str = "auto"  # auto | cpu | cuda | mps
    dtype: str = "auto"  # auto | float32 | bfloat16; auto is bfloat16 autocast on cuda, else float32
    compile: bool = False
    threads: int = 0  # 0: as torch decides

    def check(self) -> None:
        self.model.check()
        self.data.check()
        self.optimizer.check()
        self.evaluation.check(self.model.n_ctx)
        for name in ("tokens", "batch_size", "accumulate"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass
class SourceConfig:
    """What every command that takes any model source needs; sources.py says what can be named."""

    run_dir: str = MISSING  # a run, a folder of runs, hf:NAME[@REVISION], a folder, a .gguf file, smollm2, a series
    snapshot: str = "all"  # all | last | a step
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    start_token: str = ""  # the token that opens a document, where a tokenizer declares none
    text_file: str = ""  # real text for a pretrained model; default: Python's language reference
    allow_pickle: bool = False
    memory_gb: float = 3.0  # what a pretrained model may take, its weights included, where batch_size is 0

    def check(self) -> None:
        require(self.memory_gb > 0, f"memory_gb is {self.memory_gb}; it must be above 0")


@dataclass
class TextConfig(SourceConfig):
    """And what those need that measure losses by index. A run has its own context and indices."""

    n_examples: int = 128  # windows of text
    n_ctx: int = 0  # tokens in a window, of a pretrained model; 0: 512, or all its context where that is shorter
    early_index: int = 0  # 0: the run's own; 50, or a tenth of a shorter window
    late_index: int = 0  # 0: the run's own; 500, or 49 fiftieths of a shorter window

    def check(self) -> None:
        super().check()
        require(self.n_examples >= 2, f"n_examples is {self.n_examples}; it must be at least 2")
        for name in ("n_ctx", "early_index", "late_index"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; 0 leaves it to the model")


@dataclass
class ScoreConfig(TextConfig):
    """`induction score SOURCE`"""

    n_sequences: int = 10  # random sequences, and texts, behind each head score
    batch_size: int = 0  # windows at once; 0: 16 for a run, what memory_gb holds for a pretrained model

    def check(self) -> None:
        super().check()
        require(self.n_sequences >= 1, f"n_sequences is {self.n_sequences}; it must be at least 1")
        require(self.batch_size >= 0, f"batch_size is {self.batch_size}; 0 chooses it")


@dataclass
class PertokenPcaConfig:
    """`induction pertoken-pca RUN_DIR [RUN_DIR ...]`"""

    run_dirs: list[str] = MISSING  # type: ignore[assignment]
    n_examples: int = 2000  # one random token of each; the paper takes 10,000
    batch_size: int = 32
    seed: int = 0
    traces: int = 20  # tokens shown whose loss fell, and rose, the most across the window
    device: str = "auto"
    threads: int = 0

    def check(self) -> None:
        require(self.n_examples >= 2, f"n_examples is {self.n_examples}; it must be at least 2")
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; it must be at least 1")


@dataclass
class CircuitsConfig(TextConfig):
    """`induction circuits SOURCE`; paths and replacements are of the last snapshot chosen"""

    n_examples: int = 96  # text windows that share no tokens, and as many random repeated sequences
    n_controls: int = 6  # heads that are no induction heads, replaced as a control
    batch_size: int = 0  # examples at once; 0: 8 for a run, what memory_gb holds for a pretrained model

    def check(self) -> None:
        super().check()
        require(
            self.n_examples >= 4, f"n_examples is {self.n_examples}; it must be at least 4: half of them fit scales"
        )
        require(self.n_controls >= 0, f"n_controls is {self.n_controls}; it must be at least 0")
        require(self.batch_size >= 0, f"batch_size is {self.batch_size}; 0 chooses it")


@dataclass
class GeneralizeConfig(SourceConfig):
    """`induction generalize SOURCE`"""

    snapshot: str = "last"  # last | a step
    n_sequences: int = 10  # random sequences behind prefix matching and copying
    n_passages: int = 16  # passages of real text behind literal copying
    passage_length: int = 50
    n_pairs: int = 0  # sentences of the translation set; 0: all
    pairs_folder: str = ""  # LibreOffice's help (see parallel_text.py); default: the shipped sentences
    n_prompts: int = 32  # pattern-matching prompts
    n_lines: int = 16  # lines in each
    top_k: int = 20  # at most so many induction heads are removed together
    n_draws: int = 8  # random sets of heads of each kind removed for comparison; 0: no removals
    batch_size: int = 0  # prompts at once; 0: what memory_gb holds

    def check(self) -> None:
        super().check()
        for name in ("n_sequences", "n_passages", "n_prompts"):
            require(getattr(self, name) >= 2, f"{name} is {getattr(self, name)}; an interval needs at least 2")
        for name in ("passage_length", "top_k"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        require(self.batch_size >= 0, f"batch_size is {self.batch_size}; 0 takes what memory_gb holds")
        require(4 <= self.n_lines <= 16, f"n_lines is {self.n_lines}; there are words for 4 to 16")
        require(self.n_pairs == 0 or self.n_pairs >= 2, f"n_pairs is {self.n_pairs}; 0 takes all, else at least 2")
        require(self.n_draws >= 0, f"n_draws is {self.n_draws}; 0 leaves the removals out")


@dataclass
class CompareConfig:
    """`induction compare RUN_DIR [RUN_DIR ...]`"""

    run_dirs: list[str] = MISSING  # type: ignore[assignment]
    columns: int = 6  # kinds of models side by side in one figure, at most

    def check(self) -> None:
        require(self.columns >= 1, f"columns is {self.columns}; it must be at least 1")


@dataclass
class ReportConfig:
    """`induction report RUN_DIR [RUN_DIR ...]`"""

    run_dirs: list[str] = MISSING  # type: ignore[assignment]
    argument: int = 0  # 1 to 8; 0 takes all
    explorer_runs: int = 2  # runs whose heads can be watched on the page; each adds about 2 MB

    def check(self) -> None:
        require(0 <= self.argument <= 8, f"argument is {self.argument}; 1 to 6 are lines, 7 and 8 minimal systems")
        require(self.explorer_runs >= 0, f"explorer_runs is {self.explorer_runs}; 0 leaves the explorer out")


@dataclass
class SmearModelConfig(ModelConfig):
    n_layers: list[int] = field(default_factory=lambda: [1, 2])  # type: ignore[assignment]

    def check(self) -> None:
        require(bool(self.n_layers), "model.n_layers is empty; give the depths to compare, such as [1,2]")
        for depth in self.n_layers:
            require(depth >= 1, f"model.n_layers has {depth}; smeared keys need at least one layer")
            ModelConfig(**{**vars(self), "n_layers": depth}).check()


@dataclass
class SmearConfig(TrainConfig):
    """`induction smear`: every depth and seed is trained twice, without and with smeared keys."""

    model: SmearModelConfig = field(default_factory=SmearModelConfig)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # `seed` itself is not used
    smeared_tokens: int = 2_000_000  # training tokens of the smeared runs, which change early; 0: as many as vanilla
    vanilla: str = ""  # a run, or a folder of runs, to compare with instead of training vanilla ones

    def check(self) -> None:
        super().check()
        require(bool(self.seeds), "seeds is empty; give at least one, such as [0]")
        require(len(set(self.seeds)) == len(self.seeds), f"seeds has one twice: {self.seeds}")
        require(self.smeared_tokens >= 0, f"smeared_tokens is {self.smeared_tokens}; 0 means as many as vanilla")


@dataclass
class AblateConfig(TextConfig):
    """`induction ablate SOURCE`

    A pretrained model runs once for each head and window of text: with all 270 heads of a 135M model, one window of 256
    tokens takes some 5 minutes of one core (64 tokens: 75 seconds). Set n_examples and n_ctx to suit.
    """

    kinds: list[str] = field(default_factory=lambda: ["pattern_preserving"])  # full | mean too
    heads: list[list[int]] = field(default_factory=list)  # [[layer, head], ...] removed together; []: each alone
    batch_size: int = 0  # examples in one item of work; 0: 64 of a run, 1 of a pretrained model
    random_tokens: int = 8  # of each example, behind the change in loss and the before-and-after vector; the paper: 1
    draws: int = 100  # random sets of heads to compare the removal of all induction heads with
    memory: int = 134_217_728  # bytes that intermediate results of a run's model may take at once
    shard: int = 0  # with shards=4 and -m shard=0,1,2,3 four jobs share the work on a run
    shards: int = 1

    def check(self) -> None:
        super().check()
        for kind in self.kinds:
            require(kind in ABLATIONS, f"kinds has '{kind}'; there are {', '.join(ABLATIONS)}")
        require(bool(self.kinds), f"kinds is empty; there are {', '.join(ABLATIONS)}")
        require(all(len(head) == 2 for head in self.heads), "heads must be pairs, such as [[1,0],[1,2]]")
        require(0 <= self.shard < self.shards, f"shard is {self.shard}; it must lie between 0 and shards - 1")
        require(self.batch_size >= 0, f"batch_size is {self.batch_size}; 0 chooses it")
        for name in ("random_tokens", "memory"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass
class RecallNetworkConfig:
    """A recall network and its language. Bietti et al. in the comments where we differ: sizes are for two CPU cores."""

    d_vocab: int = 65  # characters: the most frequent ones, the last stands for all others
    n_triggers: int = 5  # k
    fixed_triggers: bool = True  # the k most frequent tokens in every sequence; else drawn from pi_u in each
    bigram_followers: bool = False  # followers drawn from pi_b instead of uniformly
    length: int = 64  # T; 256
    n_positions: int = 256  # vectors for positions, or distances
    positions: str = "absolute"  # absolute | relative | none
    embedding: str = "random"  # random | orthonormal
    n_layers: int = 2
    d_model: int = 128
    global_memory: bool = False  # a trained linear map W_F from token to next token: the place of pi_b
    loss: str = "in_context"  # in_context: from the second occurrence of triggers | all
    batch_size: int = 32  # 512
    learning_rate: float = 1.0  # theirs is for another scale of embeddings
    momentum: float = 0.9
    weight_decay: float = 1e-6  # 1e-4 at a rate of 0.03: what counts is their product

    @property
    def orthonormal_width(self) -> int:
        """Directions that the construction keeps apart: tokens and positions, each as they are and as layer 1 moves
        them, and outputs."""
        return 2 * (self.d_vocab + self.n_positions) + self.d_vocab

    def check(self) -> None:
        for name in ("d_vocab", "n_triggers", "length", "n_positions", "n_layers", "d_model", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}; it must be at least 1")
        require(self.length >= 2, f"length is {self.length}; it must be at least 2")
        require(self.n_layers >= 2, f"n_layers is {self.n_layers}; it must be at least 2")
        for name, allowed in (
            ("positions", ("absolute", "relative", "none")),
            ("embedding", ("random", "orthonormal")),
            ("loss", ("in_context", "all")),
        ):
            value = getattr(self, name)
            require(value in allowed, f"{name} is '{value}'; there are {', '.join(allowed)}")
        require(
            self.positions == "none" or self.length <= self.n_positions,
            f"length is {self.length}; n_positions={self.n_positions} is too few for it",
        )
        rate, decay = self.learning_rate, self.weight_decay
        require(math.isfinite(rate) and rate > 0, f"learning_rate is {rate}; it must be finite and above 0")
        require(math.isfinite(decay) and decay >= 0, f"weight_decay is {decay}; it must be finite and at least 0")
        require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must be at least 0 and below 1")
        d_vocab, least = self.d_vocab, self.orthonormal_width
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

    positions: list[str] = field(default_factory=lambda: ["absolute", "relative"])  # type: ignore[assignment]
    n_layers: list[int] = field(default_factory=lambda: [2])  # type: ignore[assignment]
    data: DataConfig = field(default_factory=DataConfig)
    characters: int = 2_000_000  # of its text, from which pi_u and pi_b are counted
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    steps: int = 300
    measure_every: int = 20  # steps
    n_sequences: int = 64  # new sequences behind every number of a seed
    lengths: list[int] = field(default_factory=list)  # tried after training; triggers stand in the last T places
    counts: list[int] = field(default_factory=list)  # occurrences of either follower in prompts where they disagree
    n_prompts: int = 32  # for each pair of counts
    threads: int = 0

    def networks(self) -> list[RecallNetworkConfig]:
        shared = {f.name: getattr(self, f.name) for f in fields(RecallNetworkConfig)}
        return [
            RecallNetworkConfig(**{**shared, "positions": positions, "n_layers": n_layers})
            for positions in self.positions
            for n_layers in self.n_layers
        ]

    def check(self) -> None:
        for name in ("positions", "n_layers", "seeds"):
            values = getattr(self, name)
            require(bool(values), f"{name} is empty; give at least one")
            require(len(set(values)) == len(values), f"{name} has one twice: {values}")
        for network in self.networks():
            network.check()
        self.data.check()
        require(self.data.source != "repeats", "data.source is 'repeats'; the language is counted in text")
        for name in ("characters", "steps", "measure_every", "n_prompts"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        require(self.n_sequences >= 2, f"n_sequences is {self.n_sequences}; it must be at least 2")
        for seed in self.seeds:
            require(seed >= 0, f"seeds has {seed}; a seed is at least 0")
        for length in self.lengths:
            require(length >= self.length, f"lengths has {length}; it must be at least length={self.length}")
            require(
                length <= self.n_positions, f"lengths has {length}; n_positions={self.n_positions} is too few for it"
            )
        if self.counts:
            require(min(self.counts) >= 0, f"counts has {min(self.counts)}; it must be at least 0")
            need = 4 * max(self.counts) + 1
            most = f"counts has {max(self.counts)}; its prompts have {need} tokens, length is {self.length}"
            require(need <= self.length, most)
            require(self.global_memory, "counts asks what the language's memory says; it needs global_memory=true")
            fit = "none" not in self.positions and self.n_layers == [2]
            require(fit, "counts compares with the construction, which has 2 layers and absolute or relative positions")


@dataclass
class ReproduceConfig(TrainConfig):
    """`induction reproduce`: which models are trained, and how every line of evidence is run on them."""

    model: SmearModelConfig = field(default_factory=SmearModelConfig)  # n_layers: the depths of attention-only models
    seeds: list[int] = field(default_factory=lambda: [0])  # `seed` itself is not used
    mlp_layers: list[int] = field(default_factory=list)  # depths that are trained with MLPs too
    mlp_seeds: list[int] = field(default_factory=list)  # []: as seeds
    d_mlp: int = 512  # of those
    smeared_layers: list[int] = field(default_factory=lambda: [1, 2])  # depths that are trained with smeared keys too
    smeared_tokens: int = 2_000_000  # 0: as many as the others
    smeared_snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    pretrained: list[str] = field(default_factory=list)  # models that generalize measures too, such as smollm2
    score: ScoreConfig = field(default_factory=lambda: ScoreConfig(run_dir=""))
    pertoken_pca: PertokenPcaConfig = field(default_factory=lambda: PertokenPcaConfig(run_dirs=[]))
    ablate: AblateConfig = field(default_factory=lambda: AblateConfig(run_dir=""))
    circuits: CircuitsConfig = field(default_factory=lambda: CircuitsConfig(run_dir=""))
    generalize: GeneralizeConfig = field(default_factory=lambda: GeneralizeConfig(run_dir=""))
    compare: CompareConfig = field(default_factory=lambda: CompareConfig(run_dirs=[]))
    workers: int = 0  # steps at once; 0: on a CPU one for each core, with one thread each; on a GPU 1
    reuse: list[str] = field(default_factory=list)  # folders of finished runs that need not be trained again
    fresh: bool = False  # start anew, whatever was done before

    def check(self) -> None:
        super().check()
        require(
            not self.model.d_mlp, f"model.d_mlp is {self.model.d_mlp}; models with MLPs are asked for by mlp_layers"
        )
        require(
            not self.model.smeared_keys, "model.smeared_keys is true; smeared models are asked for by smeared_layers"
        )
        require(bool(self.seeds), "seeds is empty; give at least one, such as [0]")
        for name in ("seeds", "mlp_seeds", "mlp_layers", "smeared_layers"):
            given = getattr(self, name)
            require(len(set(given)) == len(given), f"{name} has one twice: {given}")
        require(min([1, *self.mlp_layers]) >= 1, f"mlp_layers is {self.mlp_layers}; a model needs at least one layer")
        require(self.d_mlp >= 1, f"d_mlp is {self.d_mlp}; it must be at least 1")
        require(self.workers >= 0, f"workers is {self.workers}; 0 means one for each core")
        missing = sorted(set(self.smeared_layers) - set(self.model.n_layers))
        require(not missing, f"smeared_layers has {missing}, which model.n_layers has not: there is no twin to compare")
        for part in (self.score, self.pertoken_pca, self.ablate, self.circuits, self.generalize, self.compare):
            part.check()


SYSTEMS = ("network", "two_parameter", "nested_logits")  # of classify
SCALARS = ("beta_1", "alpha", "beta_2", "xi")  # of the two-parameter model


@dataclass
class TwoParameterConfig:
    """The reduced induction head: its numbers before training, and which of them training moves."""

    beta_1: float = 0.0
    alpha: float = 0.0
    beta_2: float = 2.0
    xi: float = 10.0
    trained: list[str] = field(default_factory=lambda: ["beta_1", "alpha"])
    memory_width: int = 256  # random features of the in-weights memory; 0: none
    learning_rate: float = 0.01
    memory_learning_rate: float = 20.0  # its ratio to the other says how well weights compete with the context

    def check(self) -> None:
        for name in SCALARS:
            require(math.isfinite(getattr(self, name)), f"{name} is {getattr(self, name)}; it must be finite")
        for name in ("learning_rate", "memory_learning_rate"):
            rate = getattr(self, name)
            require(math.isfinite(rate) and rate >= 0, f"{name} is {rate}; it must be finite and at least 0")
        require(self.memory_width >= 0, f"memory_width is {self.memory_width}; it must be at least 0")
        unknown = [name for name in self.trained if name not in SCALARS]
        require(not unknown, f"trained names {', '.join(unknown)}; there are {', '.join(SCALARS)}")


@dataclass
class NestedConfig:
    """The loss of three nested logits: how many rivals each has, and the starts (every combination) that are tried.

    For N pairs, L labels: n1 ~ N, n2 = labels of the context less one, n3 the rest.
    """

    n1: float = 16.0
    n2: float = 7.0
    n3: float = 24.0
    beta_1: list[float] = field(default_factory=lambda: [-4.0, -3.0, -2.0, -1.0, 0.0])
    alpha: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0])
    xi: list[float] = field(default_factory=lambda: [0.1, 2.0])
    learning_rate: float = 0.05  # of the simulated descent; time = learning_rate * step
    noise: float = 0.05  # sd of what is added to each gradient, anew for every seed
    points: int = 60  # along each side of the landscape

    def check(self) -> None:
        for name in ("n1", "n2", "n3", "learning_rate"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"{name} is {value}; it must be finite and above 0")
        require(math.isfinite(self.noise) and self.noise >= 0, f"noise is {self.noise}; it must be finite, at least 0")
        require(self.points >= 2, f"points is {self.points}; it must be at least 2")
        for name in ("beta_1", "alpha", "xi"):
            values = getattr(self, name)
            require(bool(values), f"{name} is empty; give at least one start")
            require(all(map(math.isfinite, values)), f"{name} has {values}; starts must be finite")


@dataclass
class ClassifyConfig:
    """`induction classify`. Symbols of the paper (Reddy 2023) in the comments.

    Defaults are those of the public code, K and B in the middle of its range.
    """

    systems: list[str] = field(default_factory=lambda: ["network"])  # two_parameter | nested_logits too

    n_pairs: int = 8  # N, item-label pairs in the context
    max_pairs: int = 32  # N_max: 2 N_max + 1 positions, among which a sequence begins at a random one
    n_labels: int = 32  # L
    n_classes: int = 512  # K, a multiple of L
    burstiness: int = 2  # B, how often each class occurs in the context of a bursty sequence; N/B is whole
    epsilon: float = 0.1  # within-class variation
    alpha: float = 0.0  # Zipf exponent of the classes; 0 is uniform
    p_bursty: float = 1.0  # p_B
    p_fresh: float = 0.0  # p_C
    fresh_classes: int = 128  # K_c, new means in every batch
    distinct_labels: bool = False  # no two classes of one context share a label
    d_content: int = 63  # D; a token is [one-hot position | content]
    batch_size: int = 128
    learning_rate: float = 0.01
    weight_decay: float = 1e-6  # weights are multiplied by 1 - this in every step
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])  # trained together
    steps: int = 75_000
    measure_every: int = 500  # steps
    n_sequences: int = 1000  # held-out ones behind every accuracy of a seed
    two_parameter: TwoParameterConfig = field(default_factory=TwoParameterConfig)
    nested_logits: NestedConfig = field(default_factory=NestedConfig)
    threads: int = 0

    @property
    def n_positions(self) -> int:
        """P"""
        return 2 * self.max_pairs + 1

    @property
    def d_token(self) -> int:
        return self.n_positions + self.d_content

    def check(self) -> None:
        """Raise ConfigError, one line that names the setting."""
        for name in self.systems:
            require(name in SYSTEMS, f"systems has '{name}'; there are {', '.join(SYSTEMS)}")
        for name, values in (("systems", self.systems), ("seeds", self.seeds)):
            require(bool(values), f"{name} is empty; give at least one")
            require(len(set(values)) == len(values), f"{name} has one twice: {values}")
        require(min(self.seeds) >= 0, f"seeds has {min(self.seeds)}; a seed is at least 0")
        counts = "n_pairs max_pairs n_labels n_classes burstiness fresh_classes d_content batch_size"
        for name in f"{counts} steps measure_every n_sequences".split():
            value = getattr(self, name)
            require(value >= 1 and value == int(value), f"{name} is {value}; it must be a whole number, at least 1")
        for name in ("epsilon", "alpha"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"{name} is {value}; it must be finite and at least 0")
        for name in ("p_bursty", "p_fresh"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}; it is a probability, 0 to 1")
        rate, decay = self.learning_rate, self.weight_decay
        require(math.isfinite(rate) and rate > 0, f"learning_rate is {rate}; it must be finite and above 0")
        require(0 <= decay < 1, f"weight_decay is {decay}; it must be at least 0 and below 1")
        for name in ("n_classes", "fresh_classes"):
            value = getattr(self, name)
            require(value % self.n_labels == 0, f"{name} is {value}; it must be a multiple of n_labels={self.n_labels}")
        require(self.n_classes >= 2, f"n_classes is {self.n_classes}; it must be at least 2")
        pairs, bursts = self.n_pairs, self.burstiness
        require(pairs % bursts == 0, f"burstiness is {bursts}; n_pairs={pairs} must be a multiple of it")
        for name in ("n_classes", "fresh_classes") + ("n_labels",) * self.distinct_labels:
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
        self.two_parameter.check()
        self.nested_logits.check()

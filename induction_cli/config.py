"""The schema: every setting of every command, with its type and default. Recipes live in conf/ and experiments/."""

from __future__ import annotations

from dataclasses import dataclass, field

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
class ScoreConfig:
    """`induction score RUN_DIR`"""

    run_dir: str = MISSING
    snapshot: str = "all"  # all | last | a step
    n_examples: int = 128
    n_sequences: int = 10
    batch_size: int = 16
    seed: int = 0
    device: str = "auto"
    threads: int = 0

    def check(self) -> None:
        for name in ("n_examples", "n_sequences", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")


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
class CircuitsConfig:
    """`induction circuits RUN_DIR`"""

    run_dir: str = MISSING
    snapshot: str = "all"  # all | last | a step; paths and replacements are of the last one chosen
    n_examples: int = 96  # text windows that share no tokens, and as many random repeated sequences
    n_controls: int = 6  # heads that are no induction heads, replaced as a control
    batch_size: int = 8
    seed: int = 0
    device: str = "auto"
    threads: int = 0

    def check(self) -> None:
        require(
            self.n_examples >= 4, f"n_examples is {self.n_examples}; it must be at least 4: half of them fit scales"
        )
        require(self.n_controls >= 0, f"n_controls is {self.n_controls}; it must be at least 0")
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; it must be at least 1")


@dataclass
class GeneralizeConfig:
    """`induction generalize SOURCE`"""

    run_dir: str = MISSING  # a run, a folder of runs, or any source of sources.py
    snapshot: str = "last"  # last | a step
    n_sequences: int = 10  # random sequences behind prefix matching and copying
    n_passages: int = 16  # passages of real text behind literal copying
    passage_length: int = 50
    n_pairs: int = 0  # sentences of the translation set; 0: all
    n_prompts: int = 32  # pattern-matching prompts
    n_lines: int = 16  # lines in each
    top_k: int = 20  # at most so many induction heads are removed together
    n_draws: int = 8  # random sets of heads of each kind removed for comparison; 0: no removals
    batch_size: int = 8
    seed: int = 0
    device: str = "auto"
    threads: int = 0
    start_token: str = ""  # the token that opens a document, where a tokenizer declares none
    text_file: str = ""  # real text for a pretrained model; default: Python's language reference
    allow_pickle: bool = False

    def check(self) -> None:
        for name in ("n_sequences", "n_passages", "n_prompts"):
            require(getattr(self, name) >= 2, f"{name} is {getattr(self, name)}; an interval needs at least 2")
        for name in ("passage_length", "top_k", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        require(4 <= self.n_lines <= 16, f"n_lines is {self.n_lines}; there are words for 4 to 16")
        require(self.n_pairs == 0 or self.n_pairs >= 2, f"n_pairs is {self.n_pairs}; 0 takes all, else at least 2")
        require(self.n_draws >= 0, f"n_draws is {self.n_draws}; 0 leaves the removals out")


@dataclass
class ReportConfig:
    """`induction report RUN_DIR [RUN_DIR ...]`"""

    run_dirs: list[str] = MISSING  # type: ignore[assignment]
    argument: int = 0  # 1 to 6; 0 takes all


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
class AblateConfig:
    """`induction ablate RUN_DIR`"""

    run_dir: str = MISSING
    kinds: list[str] = field(default_factory=lambda: ["pattern_preserving"])  # full | mean too
    snapshot: str = "all"  # all | last | a step
    heads: list[list[int]] = field(default_factory=list)  # [[layer, head], ...] removed together; []: each alone
    n_examples: int = 128
    batch_size: int = 64  # examples in one item of work; `memory` bounds what is held at once
    random_tokens: int = 8  # of each example, behind the change in loss and the before-and-after vector; the paper: 1
    draws: int = 100  # random sets of heads to compare the removal of all induction heads with
    memory: int = 134_217_728  # bytes that intermediate results may take at once
    shard: int = 0  # with shards=4 and -m shard=0,1,2,3 four jobs share the work
    shards: int = 1
    seed: int = 0
    device: str = "auto"
    threads: int = 0

    def check(self) -> None:
        for kind in self.kinds:
            require(kind in ABLATIONS, f"kinds has '{kind}'; there are {', '.join(ABLATIONS)}")
        require(bool(self.kinds), f"kinds is empty; there are {', '.join(ABLATIONS)}")
        require(all(len(head) == 2 for head in self.heads), "heads must be pairs, such as [[1,0],[1,2]]")
        require(0 <= self.shard < self.shards, f"shard is {self.shard}; it must lie between 0 and shards - 1")
        for name in ("n_examples", "batch_size", "random_tokens", "memory"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")

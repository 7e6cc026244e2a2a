"""Settings of `induction train`: the model, its text, its optimizer, what is kept and what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from induction_cli.config.settings import SEED, TOKENS, Settings, group, setting
from induction_cli.errors import require

POSITIONS = ("shortformer", "learned", "rotary", "relative", "none")
SOURCES = ("stdlib", "files", "huggingface", "repeats")
OPTIMIZERS = ("muon", "adamw")
SCHEDULES = ("constant", "cosine")
HELD_OUT = ("apart", "any")
SPECIAL_TOKENS = ("text", "split", "refuse")
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16")
THREADS: dict[str, Any] = {"at_least": 0, "at_most": 1024}  # torch starts them all; tens of thousands crash the process
WIDTH: dict[str, Any] = {"at_least": 1, "at_most": 10**6}
DEPTH = 1000  # layers, at most
SNAPSHOTS: dict[str, Any] = {"at_least": 0, "at_most": 100_000}  # each is a file, and is measured


@dataclass
class InitConfig(Settings):
    """Standard deviations of the initial weights. They decide whether a phase change takes minutes or a night."""

    embedding_std: float = setting(0.5, "of W_E and W_pos", at_least=0)
    unembedding_std: float = setting(0.02, "of W_U", at_least=0)
    attention_gain: float = setting(1.0, "W_Q, W_K, W_V ~ N(0, gain^2 / d_model)", at_least=0)
    output_gain: float = setting(0.0, "W_O and W_out ~ N(0, gain^2 / fan_in)", at_least=0)


@dataclass
class ModelConfig(Settings):
    """A transformer's sizes; `conf/model/` has one file per kind."""

    n_layers: int = setting(2, "layers", at_least=0, at_most=DEPTH)
    n_heads: int = setting(4, "attention heads in a layer", at_least=1, at_most=10_000)
    d_model: int = setting(128, "width of the residual stream", **WIDTH)
    d_head: int = setting(32, "width of a head's queries, keys and values", **WIDTH)
    d_mlp: int = setting(0, "hidden width of the MLPs; 0: attention-only", at_least=0, at_most=10**7)
    n_ctx: int = setting(512, "tokens of context", at_least=1, at_most=10**7)
    d_vocab: int = setting(512, "tokens in the vocabulary", at_least=2, at_most=10**7)
    positions: str = setting("shortformer", "how a token knows its place", one_of=POSITIONS)
    smeared_keys: bool = setting(False, "keys mix with those of the token before")
    smear_init: float = setting(0.0, "alpha before training; 0 weighs a key and its predecessor equally")
    init: InitConfig = group(InitConfig, "standard deviations of the initial weights")

    def check_together(self) -> None:
        even = self.positions != "rotary" or self.d_head % 2 == 0
        require(even, f"d_head is {self.d_head}; rotary positions need an even one")


@dataclass
class DataConfig(Settings):
    """Where the text comes from; `conf/data/` has one file per source."""

    source: str = setting("stdlib", "kind of text", one_of=SOURCES)
    paths: list[str] = setting([], "files: folders, files or globs")
    field: str = setting("text", "jsonl and huggingface: the field that holds the text", not_empty=True)
    name: str = setting("", "huggingface: data set")
    subset: str = setting("", "huggingface: its subset, where it has several")
    split: str = setting("train", "huggingface: its split", not_empty=True)
    max_documents: int = setting(0, "huggingface: documents to read; 0 reads all", at_least=0)
    licence: str = setting("", "of the text, for the manifest")
    held_out: str = setting(
        "apart", "apart: no document that shares half of its long lines with others; any: as 0.1.0", one_of=HELD_OUT
    )
    special_tokens: str = setting(
        "text", "what '<|endoftext|>' in a text is: split opens a document there", one_of=SPECIAL_TOKENS
    )
    max_replaced: float = setting(
        0.001,
        "files: share of the characters of one that may be no UTF-8; 1: any bytes are read",
        at_least=0,
        at_most=1,
    )
    repeat_length: int = setting(25, "repeats: tokens in a segment", at_least=1)
    repeat_tokens: int = setting(4_000_000, "repeats: tokens generated", **TOKENS)
    epochs: int = setting(1, "more than 1 lets the model see text again", at_least=1)
    cache_dir: str = setting("", "for prepared text; default: $INDUCTION_CACHE, else ~/.cache/induction")

    def check_together(self) -> None:
        require(self.source != "files" or bool(self.paths), "paths is empty; data=files needs data.paths=[FOLDER]")
        require(self.source != "huggingface" or bool(self.name), "name is empty; data=huggingface needs data.name")


# how 0.1.0, which had no such settings, read its text
BEFORE_0_2: dict[str, Any] = {"held_out": "any", "special_tokens": "split", "max_replaced": 1.0}


@dataclass
class OptimizerConfig(Settings):
    """`conf/optimizer/` has one file per kind. Muon moves the matrices inside the blocks, AdamW the rest."""

    name: str = setting("muon", "kind; adamw moves everything", one_of=OPTIMIZERS)
    learning_rate: float = setting(3e-3, "of AdamW", above=0)
    muon_learning_rate: float = setting(0.02, "of Muon", above=0)
    betas: list[float] = setting([0.9, 0.99], "of AdamW, of each at least 0 and below 1", at_least=0, below=1, length=2)
    weight_decay: float = setting(0.0, "on matrices only", at_least=0)
    warmup_tokens: int = setting(100_000, "the rate rises from 0 over them", at_least=0, at_most=TOKENS["at_most"])
    schedule: str = setting("constant", "of the rate after the warm-up; cosine falls to a tenth", one_of=SCHEDULES)
    clip: float = setting(1.0, "longest gradient", above=0)


@dataclass
class SnapshotConfig(Settings):
    """When the weights are kept and measured: evenly, evenly in log(tokens), and denser inside a window."""

    linear: int = setting(40, "evenly over training", **SNAPSHOTS)
    log: int = setting(0, "evenly in log(tokens)", **SNAPSHOTS)
    window: list[int] = setting([], "[start, end] in tokens", at_least=0, at_most=TOKENS["at_most"])
    window_count: int = setting(0, "evenly inside the window", **SNAPSHOTS)

    def check_together(self) -> None:
        window = self.window
        good = not window or (len(window) == 2 and window[0] < window[1])
        require(good, f"window is {window}; it needs two increasing numbers, [start, end] in tokens")
        require(bool(window) or not self.window_count, "window is empty; window_count needs [start, end] in tokens")


@dataclass
class EvaluationConfig(Settings):
    """The fixed held-out examples behind every loss and score; the same for all runs on one corpus."""

    n_examples: int = setting(128, "windows of held-out text", at_least=2)
    batch_size: int = setting(16, "of them at once", at_least=1)
    early_index: int = setting(50, "of the in-context learning score", at_least=1)
    late_index: int = setting(500, "of the in-context learning score, within model.n_ctx", at_least=2)
    half_width: int = setting(10, "the windowed score averages the indices within this of each", at_least=0)
    n_sequences: int = setting(10, "random sequences, and text examples, behind each head score", at_least=1)
    seed: int = setting(0, "chooses the examples", **SEED)

    def check_together(self) -> None:
        early, late, width = self.early_index, self.late_index, self.half_width
        require(early < late, f"early_index is {early}; it must lie between 1 and evaluation.late_index ({late})")
        most = (late - early - 1) // 2
        require(
            width <= most,
            f"half_width is {width}; windows around early_index={early} and late_index={late} stay apart at {most}",
        )


@dataclass
class TrainConfig(Settings):
    """`induction train`"""

    model: ModelConfig = group(ModelConfig, "conf/model/ has the kinds")
    data: DataConfig = group(DataConfig, "conf/data/ has the kinds")
    optimizer: OptimizerConfig = group(OptimizerConfig, "conf/optimizer/ has the kinds")
    snapshots: SnapshotConfig = group(SnapshotConfig, "when the weights are kept and measured, beside first and last")
    evaluation: EvaluationConfig = group(EvaluationConfig, "the fixed held-out examples behind every loss and score")
    seed: int = setting(0, "of the initial weights and the order of the text", **SEED)
    tokens: int = setting(4_600_000, "training tokens; rounded up to whole steps", **TOKENS)
    batch_size: int = setting(2, "sequences in one forward pass", at_least=1)
    accumulate: int = setting(1, "forward passes in one step", at_least=1)
    device: str = setting("auto", "auto takes what there is", one_of=DEVICES)
    dtype: str = setting("auto", "auto is bfloat16 autocast on cuda, else float32", one_of=DTYPES)
    compile: bool = setting(False, "torch.compile the training step")
    threads: int = setting(0, "of torch on a CPU; 0: as torch decides", **THREADS)

    def check_together(self) -> None:
        late, n_ctx = self.evaluation.late_index, self.model.n_ctx
        require(
            late <= n_ctx,
            f"evaluation.late_index is {late}, but model.n_ctx is {n_ctx}; "
            f"evaluation.early_index={max(1, n_ctx // 10)} and evaluation.late_index={n_ctx - n_ctx // 50} would fit",
        )

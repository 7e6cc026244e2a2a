"""The head explorer's data: scores of every head at every snapshot, attention on three texts at some of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from induction_cli.config import ConfigError
from induction_cli.data import open_corpus
from induction_cli.evaluation.scores import random_tokens
from induction_cli.evaluation.sources import Text, open_sources, passages
from induction_cli.models.transformer import Transformer
from induction_cli.page.pretrained import PretrainedModel
from induction_cli.page.rooms import Run
from induction_cli.page.viewer import packed
from induction_cli.runs.run_dir import LEAVE_OUT, RunDir, RunError, Snapshot
from induction_cli.runs.tensors import check_shapes

log = logging.getLogger(__name__)

LENGTH = 55  # tokens of an example behind its start token
BYTES = 1_500_000  # of one run's patterns; what does not fit is had at fewer snapshots
SNAPSHOTS = 24  # with patterns, at most
MEASURES = ("prefix_matching", "previous_token", "copying_eigenvalues", "qk_trace", "copying", "duplicate_token",
            "start_token", "entropy")  # fmt: skip
RANGES = dict.fromkeys(("prefix_matching", "previous_token", "duplicate_token", "start_token", "entropy"), (0.0, 1.0))
RANGES |= dict.fromkeys(("copying_eigenvalues", "copying"), (-1.0, 1.0))
NAMES = "Harriet Dunsley met Arthur Quill. Then Arthur Quill thanked Harriet Dunsley, and Harriet Dunsley left."


def choose(runs: Sequence[Run], count: int) -> list[Run]:
    """Runs to explore: one of every kind of model in turn, its lowest seed; attention-only two-layer ones first."""
    able = [run for run in runs if run.config is not None and run.config.model.n_layers]
    able.sort(key=lambda run: (run.kind[0], run.kind[1], run.kind[2] != 2, -run.kind[2], run.config.seed))  # type: ignore
    first = {run.kind: run for run in reversed(able)}
    firsts = [run for run in able if first[run.kind] is run]
    return (firsts + [run for run in able if run not in firsts])[:count]


def explorer(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """(data of each run, what could not be had and why)."""
    made, problems = [], []
    for run in runs:
        try:
            data, missing = run_data(run)
            made.append(data)
            problems += [f"{run.label}: {problem}" for problem in missing]
        except (RunError, ConfigError, OSError, ValueError, KeyError) as error:
            problems.append(f"{run.label} cannot be explored: {error}")
    return made, problems


def run_data(run: Run) -> tuple[dict[str, Any], list[str]]:
    """Everything the page needs of one run. Raises RunError where it has no head scores."""
    steps, tokens, measures, problems = scores(run.dir)
    definitions, kinds = described(run.dir)
    model = run.config.model  # type: ignore[union-attr]
    texts, missing = examples(run)
    kept, patterns, damaged = attention(run, [text["ids"] for text in texts], steps)
    return {
        "name": run.label,
        "layers": model.n_layers,
        "heads": model.n_heads,
        "steps": steps,
        "tokens": tokens,
        "measures": measures,
        "scales": {name: scale(name, values) for name, values in measures.items()},
        "definitions": {name: definitions.get(name, "") for name in measures},
        "kinds": kinds,
        "windows": windows(run.dir),
        "texts": texts,
        "kept": kept,
        "patterns": patterns,
    }, problems + missing + damaged


def pretrained_explorer(models: Sequence[PretrainedModel], text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """(data of each pretrained model, what could not be had and why); text: what its heads are shown on."""
    made, problems = [], []
    for model in models:
        try:
            made.append(pretrained_data(model, text))
        except (RunError, ConfigError, OSError, ValueError, KeyError, ImportError) as error:
            problems.append(f"{model.name} cannot be explored: {' '.join(str(error).split())}")
    return made, problems


@torch.no_grad()
def pretrained_data(model: PretrainedModel, text: str) -> dict[str, Any]:
    """As `run_data`, of the last snapshot scored. Attention is had by running the model on each text."""
    _, _, measures, _ = scores(model.score)
    measures = {name: values[-1:] for name, values in measures.items() if any(v is not None for v in values[-1])}
    definitions, kinds = described(model.score)
    n_layers, n_heads = model.size
    source = open_sources(model.name)[-1]
    if source.text is None:
        raise ConfigError("it has no tokenizer")
    loaded = source.load(source.snapshots[-1])
    length = min(LENGTH, loaded.n_ctx - 1, int((BYTES / 2 / (n_layers * n_heads)) ** 0.5))
    words = [("your text", "the text that was given to the page", text)] if text else []
    words.append(("two names", "two names that return, written for this page", NAMES))
    texts, patterns = [], []
    for title, about, written in words:
        ids = source.text.encode(written).ids[:length]
        _, seen = loaded(torch.tensor([[source.start_token, *ids]]), record=("pattern",))
        tokens = ["<start>", *source.text.pieces(ids)]
        texts.append({"title": title, "about": about, "ids": [source.start_token, *ids], "tokens": tokens})
        patterns.append([packed(pattern) for layer in seen.pattern for pattern in layer[0].float()])
    return {
        "name": model.name,
        "layers": n_layers,
        "heads": n_heads,
        "steps": [source.snapshots[-1].step],
        "tokens": [None],
        "measures": measures,
        "scales": {name: scale(name, values) for name, values in measures.items()},
        "definitions": {name: definitions.get(name, "") for name in measures},
        "kinds": kinds,
        "windows": [],
        "texts": texts,
        "kept": [0],
        "patterns": [patterns],
    }


def scores(run: RunDir) -> tuple[list[int], list[int | None], dict[str, list], list[str]]:
    """(steps, tokens, {measure: [snapshot][layer * n_heads + head], None where it has no value}, problems)."""
    problems, table = [], None
    for room in (run.folder("score"), run):
        if room.table_file("head_scores").exists():
            try:
                table = room.table("head_scores")[["step", "tokens", "layer", "head", "measure", "value"]]
                break
            except RunError as error:
                problems.append(str(error))
    if table is None:
        raise RunError("; ".join(problems) or "it has no head scores; induction score makes them")
    at = table[["step", "tokens"]].drop_duplicates().sort_values("step")
    order = [name for name in MEASURES if name in set(table.measure)]
    order += sorted(set(table.measure) - set(order))
    found = {}
    for measure in order:
        wide = table[table.measure == measure].pivot_table(index="step", columns=["layer", "head"], values="value")
        wide = wide.reindex(index=at.step, columns=full_grid(table))
        found[measure] = [[None if pd.isna(v) else round(float(v), 3) for v in row] for row in wide.to_numpy()]
    tokens = [None if pd.isna(seen) else int(seen) for seen in at.tokens]  # of a pretrained model nobody may know
    return at.step.astype(int).tolist(), tokens, found, problems


def scale(measure: str, values: list[list[float | None]]) -> list[float]:
    """[low, high] of the colours: the measure's own range, not what one run happens to reach."""
    if measure in RANGES:
        return list(RANGES[measure])
    known = [value for row in values for value in row if value is not None]
    top = max(1.0, *map(abs, known)) if known else 1.0
    return [-top if min(known, default=0.0) < 0 else 0.0, top]


def full_grid(table: pd.DataFrame) -> pd.MultiIndex:
    sizes = [range(int(table[axis].max()) + 1) for axis in ("layer", "head")]
    return pd.MultiIndex.from_product(sizes, names=["layer", "head"])


def described(run: RunDir) -> tuple[dict[str, str], list[str]]:
    """({measure: its definition}, each head's type at the last snapshot) as `induction score` wrote them."""
    room = run.folder("score")
    definitions, kinds = {}, []
    try:
        table = room.table("definitions")
        definitions = dict(zip(table["measure"], table["definition"], strict=True))
        heads = room.table("head_scores").query("step == step.max() and measure == 'prefix_matching'")
        kinds = heads.sort_values(["layer", "head"]).head_type.tolist()
    except (RunError, ValueError, KeyError, AttributeError, pd.errors.UndefinedVariableError):
        pass  # the explorer does without
    return definitions, kinds


def windows(run: RunDir) -> list[list[float]]:
    """[start, end] of the phase change in tokens, if one was found."""
    try:
        table = run.table("phase_change")
        return table[["start_tokens", "end_tokens"]].dropna().to_numpy(float).tolist()
    except (RunError, ValueError, KeyError):
        return []


def examples(run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """Three texts of at most 1 + LENGTH tokens: {title, about, ids, tokens}; and what could not be had."""
    config = run.config
    assert config is not None
    n_ctx, problems = config.model.n_ctx, []
    text = None
    try:
        tokenizer = run.dir.tokenizer()
        text = None if tokenizer is None else Text(tokenizer)
    except RunError as error:
        problems.append(f"no text: {error}")
    found: list[tuple[str, str, list[int]]] = []
    once = min(18, (n_ctx - 1) // 3)
    try:
        repeated = random_tokens(run.dir.token_counts(), 1, once)[0].tolist()
        found.append(("random tokens", f"{once} random tokens, three times over", repeated * 3))
    except (RunError, ConfigError, ValueError, KeyError) as error:
        problems.append(f"no random tokens: {error}")
    try:
        corpus = open_corpus(config.data, config.model.d_vocab)
        if corpus.manifest.get("sha256") != run.meta.get("data", {}).get("sha256"):
            problems.append("no held-out text: the text on this machine is not the one it was trained on")
        else:
            some = passages(np.asarray(corpus.tokens("validation")), 200, min(LENGTH, n_ctx - 1), 0, avoid=0)
            about = "of 200 random stretches of held-out text the one in which most pairs of tokens return"
            found.append(("held-out text", about, max(some.tolist(), key=returning)))
    except (ConfigError, OSError, ValueError, KeyError) as error:
        problems.append(f"no held-out text: {error}")
    if text is not None and config.data.source != "repeats":
        found.append(
            (
                "two names",
                "two names that return, written for this page",
                text.encode(NAMES).ids[: min(LENGTH, n_ctx - 1)],
            )
        )
    pieces = text.pieces if text is not None else lambda ids: [str(token) for token in ids]
    texts = [
        {"title": title, "about": about, "ids": [0, *ids], "tokens": ["<start>", *pieces(ids)]}
        for title, about, ids in found
    ]
    return texts, problems


def returning(ids: Sequence[int]) -> int:
    """How many different pairs of neighbours occur more than once."""
    pairs = list(pairwise(ids))
    return sum(pairs.count(pair) > 1 for pair in set(pairs))


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 .. count - 1, evenly, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})


@torch.no_grad()
def attention(run: Run, texts: Sequence[Sequence[int]], steps: Sequence[int]) -> tuple[list[int], list, list[str]]:
    """(places among steps, [place][text][head] packed patterns (`viewer.packed`), problems)."""
    model = run.config.model  # type: ignore[union-attr]
    wanted = set(steps)
    snapshots: list[Snapshot] = [snapshot for snapshot in run.dir.snapshots() if snapshot.step in wanted]
    if not snapshots or not texts:
        return [], [], ["it has no snapshots, so no attention is shown"] if not snapshots else []
    cost = sum(len(ids) * (len(ids) + 1) * 2 / 3 for ids in texts) * model.n_layers * model.n_heads
    kept, patterns, problems, loaded = [], [], [], Transformer(model)
    for place in spread(len(snapshots), max(2, min(SNAPSHOTS, int(BYTES / cost)))):
        try:
            weights = run.dir.read_snapshot(snapshots[place])
            check_shapes(snapshots[place].path, weights, loaded.state_dict(), LEAVE_OUT)
            loaded.load_state_dict(weights)
        except RunError as error:
            problems.append(str(error))
            continue
        of_texts = []
        for ids in texts:
            _, seen = loaded(torch.tensor([ids]), record=("pattern",))
            of_texts.append([packed(pattern) for layer in seen.pattern for pattern in layer[0]])
        kept.append(list(steps).index(snapshots[place].step))
        patterns.append(of_texts)
    return kept, patterns, problems

"""Scoring speed: all activation-based head scores of one model, ours against TransformerLens on the same sequences.

Run from the repository root: PYTHONPATH=. python tests/benchmarks/score.py [--threads 2] [--repeats 5]

cache: `run_with_cache`, then the diagonals of every pattern. detect: `detect_head`, once per kind of head. Prefix
matching and previous-token scores agree within 1e-4 first. The ways take turns; ratios are of medians. Peak memory:
what scoring adds to a process that holds the model, for 10 and for 40 sequences, one fresh process each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from ablate import to_transformer_lens  # says how to install TransformerLens where it is missing
from torch import Tensor

from induction_cli.config import InitConfig, ModelConfig
from induction_cli.evaluation.scores import pattern_scores, repeated_tokens
from induction_cli.evidence.score import ON_REPEATS, ON_TEXT
from induction_cli.models.transformer import Transformer

MEASURES = {**ON_REPEATS, **ON_TEXT}


def build() -> Transformer:
    config = ModelConfig(4, 8, 256, 32, 0, 512, 4096, init=InitConfig(output_gain=1.0))
    return Transformer(config)


def sequences(n: int) -> Tensor:
    return repeated_tokens(torch.ones(4096, dtype=torch.long), n)


def ours(model: Transformer, tokens: Tensor) -> dict[str, Tensor]:
    return {name: score.mean(0) for name, score in pattern_scores(model, tokens, MEASURES).items()}


@torch.no_grad()
def cached(model, tokens: Tensor) -> dict[str, Tensor]:
    """The same scores from a cache of every pattern: the way a notebook does it."""
    _, cache = model.run_with_cache(tokens)
    patterns = [cache["pattern", layer] for layer in range(model.cfg.n_layers)]
    return {name: torch.stack([measure(p).mean(0) for p in patterns]) for name, measure in MEASURES.items()}


@torch.no_grad()
def detected(model, tokens: Tensor) -> dict[str, Tensor]:
    """detect_head for each kind it knows, a sequence at a time; its own definitions."""
    from transformer_lens.head_detector import detect_head

    found = {}
    for kind in ("previous_token_head", "duplicate_token_head", "induction_head"):
        scores = []
        for sequence in tokens:
            _, cache = model.run_with_cache(sequence[None], remove_batch_dim=True)
            model.to_str_tokens = lambda *_, **__: [""]  # no tokenizer is loaded
            model.to_tokens = lambda *_, sequence=sequence, **__: sequence[None]
            scores.append(detect_head(model, "x", kind, cache=cache))
        found[kind] = torch.stack(scores).mean(0)
    return found


def peak_of(way: str, n: int) -> float:
    code = (
        "import resource, torch, score; torch.set_num_threads(2); model = score.build();"
        f"model = score.to_transformer_lens(model) if {way!r} != 'ours' else model; tokens = score.sequences({n});"
        "open('/proc/self/clear_refs', 'w').write('5');"  # Linux: forget the peak of importing
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        f"score.{way}(model, tokens); print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {code}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return float(out.stdout.split()[-1]) if out.returncode == 0 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokens = build(), sequences(10)
    other = to_transformer_lens(model)
    mine, theirs = ours(model, tokens), cached(other, tokens)
    for name in ("prefix_matching", "previous_token"):
        assert torch.allclose(mine[name], theirs[name], atol=1e-4), name
    ways = {"ours": (ours, model), "cached": (cached, other), "detected": (detected, other)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repeats):
        for name, (way, which) in ways.items():
            start = time.perf_counter()
            way(which, tokens)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(
        f"ours {medians['ours'] * 1e3:.0f} ms; cache / ours {medians['cached'] / medians['ours']:.1f}; "
        f"detect_head / ours {medians['detected'] / medians['ours']:.1f}"
    )
    for n in (10, 40):
        print(
            f"peak MiB over the model, {n} sequences: ours {peak_of('ours', n):.0f}, cache {peak_of('cached', n):.0f}"
        )


if __name__ == "__main__":
    main()

"""Training speed: tokens per second of our step against TransformerLens, a plain PyTorch loop, and the machine's limit.

Run from the repository root: PYTHONPATH=. python tests/benchmarks/train.py [--threads 2] [--repeats 5] [--sizes 0,1]

theirs: the same weights trained through HookedTransformer 3.9.0 (`return_type="loss"`). plain: nn.MultiheadAttention
with its causal mask, pre-LayerNorm, and cross-entropy over the whole batch. All three: forward, backward, gradient
clipping and fused AdamW on all parameters; ours with its own defaults is the fourth column (Muon on the blocks).
limit: the model's multiply-adds (three times the forward pass, attention counted causally) over the rate of a 1024 x
1024 matrix product measured in between, so both see the same machine. The ways take turns; ratios are of medians.
Peak memory: what training adds to a process that holds the model and the tokens, one fresh process each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from ablate import to_transformer_lens  # says how to install TransformerLens where it is missing
from torch import Tensor, nn

from induction_cli.config import ModelConfig, OptimizerConfig
from induction_cli.measures.losses import cross_entropy
from induction_cli.models.transformer import Transformer
from induction_cli.training.optimizer import build_optimizers

SIZES = (  # layers, heads, d_model, n_ctx, d_vocab, sequences a step
    (2, 4, 128, 512, 512, 2),
    (2, 4, 128, 512, 512, 16),
    (2, 4, 128, 512, 4096, 2),
    (2, 4, 128, 512, 4096, 16),
)
WAYS = ("ours", "theirs", "plain", "ours_muon")


class Plain(nn.Module):
    """What one would write in an afternoon: the same shapes through nn.MultiheadAttention."""

    def __init__(self, layers: int, heads: int, d_model: int, n_ctx: int, d_vocab: int):
        super().__init__()
        self.embed, self.unembed = nn.Embedding(d_vocab, d_model), nn.Linear(d_model, d_vocab, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(layers + 1))
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(d_model, heads, bias=False, batch_first=True) for _ in range(layers)
        )
        self.register_buffer("pos", torch.randn(n_ctx, d_model))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(n_ctx))

    def forward(self, tokens: Tensor) -> Tensor:
        residual = self.embed(tokens)
        for norm, attention in zip(self.norms, self.attention):  # noqa: B905 - one norm more, the last
            x = norm(residual)
            at = x + self.pos
            residual = residual + attention(at, at, x, attn_mask=self.mask, is_causal=True, need_weights=False)[0]
        return self.unembed(self.norms[-1](residual))


def step_of(way: str, size: tuple[int, ...]) -> Callable[[], None]:
    """One optimizer step of one way of training a model of that size."""
    layers, heads, d_model, n_ctx, d_vocab, batch = size
    config = ModelConfig(layers, heads, d_model, d_model // heads, 0, n_ctx, d_vocab)
    tokens = torch.randint(d_vocab, (batch, n_ctx + 1), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    ours = Transformer(config)
    model: nn.Module = ours
    if way == "theirs":
        model = to_transformer_lens(ours).train()
    elif way == "plain":
        model = Plain(layers, heads, d_model, n_ctx, d_vocab)
    optimizers: list[torch.optim.Optimizer] = (
        build_optimizers(ours, OptimizerConfig())
        if way == "ours_muon"
        else [torch.optim.AdamW(model.parameters(), fused=True)]
    )

    def loss() -> Tensor:
        if way == "theirs":
            return model(inputs, return_type="loss")  # one token less is predicted
        if way == "plain":
            return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        return cross_entropy(ours.final_residual(inputs), ours.W_U, targets)

    def step() -> None:
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def multiply_adds(size: tuple[int, ...]) -> float:
    """Of one step: forward and backward, attention over the causal half."""
    layers, _, d_model, n_ctx, d_vocab, batch = size
    per_token = layers * (4 * d_model**2 + n_ctx * d_model) + d_model * d_vocab
    return 3 * batch * n_ctx * per_token


def matrix_rate(a: Tensor, b: Tensor) -> float:
    """Multiply-adds a second of one large product."""
    start = time.perf_counter()
    a @ b
    return a.shape[0] * a.shape[1] * b.shape[1] / (time.perf_counter() - start)


def compare(size: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Medians: seconds a step of each way, and the share of the limit that ours reaches."""
    steps = {way: step_of(way, size) for way in WAYS}
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    rates = []
    for step in steps.values():
        step()
    for _ in range(repeats):
        rates += [matrix_rate(a, b) for _ in range(5)]
        for way, step in steps.items():
            start = time.perf_counter()
            for _ in range(5):
                step()
            seconds[way].append((time.perf_counter() - start) / 5)
    medians = {way: statistics.median(taken) for way, taken in seconds.items()}
    limit = multiply_adds(size) / statistics.median(rates)
    return medians | {"limit": limit / medians["ours"], "muon_limit": limit / medians["ours_muon"]}


def peak_of(way: str, size: int) -> float:
    """MiB that training one way adds to a fresh process."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import resource, torch, train;"
        f"torch.set_num_threads(2); step = train.step_of({way!r}, train.SIZES[{size}]);"
        "open('/proc/self/clear_refs', 'w').write('5');"  # Linux: forget the peak of importing
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; [step() for _ in range(3)];"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return float(out.stdout.split()[-1]) if out.returncode == 0 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sizes", default="0,1,2,3")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("layers heads d_model n_ctx d_vocab batch | tokens/s ours, Muon | theirs/ours plain/ours", end=" | ")
    print("of the limit: ours, Muon | peak MiB: ours theirs plain")
    for i in map(int, given.sizes.split(",")):
        size, found = SIZES[i], compare(SIZES[i], given.repeats)
        speed = [size[5] * size[3] / found[way] for way in ("ours", "ours_muon")]
        peaks = " ".join(f"{peak_of(way, i):6.0f}" for way in ("ours", "theirs", "plain"))
        print(
            f"{size!s:<34} | {speed[0]:8,.0f} {speed[1]:8,.0f} | {found['theirs'] / found['ours']:6.2f}"
            f"  {found['plain'] / found['ours']:6.2f} | {found['limit']:.2f} {found['muon_limit']:.2f} | {peaks}",
            flush=True,
        )


if __name__ == "__main__":
    main()

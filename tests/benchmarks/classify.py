"""Speed of `induction classify`: seeds trained together against a plain PyTorch loop of the same network.

    python tests/benchmarks/classify.py              # about 2 minutes on 2 cores

Both make their batches with the same generator, and their losses are compared first. They take turns, so both see the
same machine; ratios are of medians. A step is one step of one seed.

Five seeds together, one thread, a machine shared with other jobs, so only ratios and processor time mean something:
defaults 2.7 to 3.6 times the plain loop, abrupt 2.7 to 3.6, data_dependence 2.5; a step takes 8.7 and 2.5 ms of
processor time at the first two. So 30 seeds x 5 values of the abrupt recipe are 51 minutes of one core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from induction_cli.config import ClassifyConfig
from induction_cli.launch import compose, recipe_overrides
from induction_cli.minimal import classify_network, replicas
from induction_cli.minimal.classify_data import Batches, Sequences, draw_classes, random_stream, tokens

SIZES = ("defaults", "abrupt", "data_dependence")


class Plain(nn.Module):
    """What one would write in an afternoon: two attention layers and a classifier out of nn.Linear."""

    def __init__(self, d: int, n_labels: int):
        super().__init__()
        self.attention = nn.ModuleList(nn.ModuleList(nn.Linear(d, d, bias=False) for _ in "QKV") for _ in range(2))
        self.hidden = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in range(classify_network.HIDDEN))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(classify_network.HIDDEN))
        self.out = nn.Linear(d, n_labels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for query, key, value in self.attention:  # type: ignore[misc]
            x = x + F.scaled_dot_product_attention(query(x), key(x), value(x), is_causal=True, scale=1.0)
        x = x[:, -1]
        for layer, bias in zip(self.hidden, self.bias, strict=True):
            x = F.relu(layer(x) + bias)
        return self.out(x)

    @torch.no_grad()
    def take(self, weights: dict[str, Tensor]) -> Plain:
        for i, layer in enumerate(self.attention):
            for part, linear in zip("QKV", layer, strict=True):  # type: ignore[call-overload]
                linear.weight.copy_(weights[f"attention_{i}.W_{part}"].T)
        for i, (linear, bias) in enumerate(zip(self.hidden, self.bias, strict=True)):
            linear.weight.copy_(weights[f"classifier_{i}.W"].T)
            bias.copy_(weights[f"classifier_{i}.b"])
        self.out.weight.copy_(weights["W_U"].T)
        return self


def settings(size: str) -> ClassifyConfig:
    return compose("classify", [recipe_overrides("classify", None if size == "defaults" else size)])[0]


def ways(config: ClassifyConfig, seeds: int) -> tuple[Callable[[int], Tensor], Callable[[int], Tensor]]:
    """(ours, plain): functions of a number of steps that train on and return the last loss of the first seed."""
    classes = [draw_classes(config, seed) for seed in range(seeds)]
    vectors = torch.stack([kept.label_vectors for kept in classes])
    sizes = config.d_token, config.d_content, config.n_labels
    singles = [classify_network.initial_weights(*sizes, random_stream(seed, 3)) for seed in range(seeds)]
    plain = Plain(config.d_token, config.n_labels).take(singles[0])
    weights = replicas.stack(singles)
    optimizer = replicas.SGD(weights, config.learning_rate, decay=config.weight_decay)
    theirs = torch.optim.SGD(plain.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    together = [Batches(config, kept, seed) for seed, kept in enumerate(classes)]
    alone = Batches(config, classes[0], 0)
    done = {"ours": 0, "plain": 0}

    def ours(steps: int) -> Tensor:
        at = range(done["ours"], done["ours"] + steps)
        for batch in replicas.ahead(lambda step: Sequences.stack([draw(step) for draw in together]), at):
            losses = classify_network.losses(weights, batch, vectors)
            optimizer.step(losses)
        done["ours"] += steps
        return losses[0].detach()

    def loop(steps: int) -> Tensor:
        for step in range(done["plain"], done["plain"] + steps):
            batch = alone(step)
            loss = F.cross_entropy(plain(tokens(batch, vectors[0], config.n_positions)), batch.target)
            theirs.zero_grad(set_to_none=True)
            loss.backward()
            theirs.step()
        done["plain"] += steps
        return loss.detach()

    return ours, loop


def compare(size: str, seeds: int, repeats: int, steps: int = 32) -> str:
    config = settings(size)
    ours, plain = ways(config, seeds)
    assert abs(ours(1) - plain(1)) < 1e-4, "the two do not compute the same loss"
    taken: dict[str, list[float]] = {"ours": [], "plain": []}
    worked: dict[str, list[float]] = {"ours": [], "plain": []}  # processor seconds, which other jobs disturb less
    for _ in range(repeats):
        for name, train, per_call in (("ours", ours, seeds * steps), ("plain", plain, steps)):
            start, used = time.perf_counter(), time.process_time()
            train(steps)
            taken[name].append((time.perf_counter() - start) / per_call)
            worked[name].append((time.process_time() - used) / per_call)
    each, other = (statistics.median(taken[name]) for name in ("ours", "plain"))
    ours_worked, plain_worked = (statistics.median(worked[name]) for name in ("ours", "plain"))
    minutes = 30 * 5 * config.steps * each / 60
    return (
        f"{size:<16} {1 / each:8,.0f} {1 / other:8,.0f}   {other / each:5.2f}   "
        f"{1e3 * ours_worked:8.2f} {plain_worked / ours_worked:8.2f}   {config.steps:6,} {minutes:10,.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=5, help="trained together")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("                 steps/s  steps/s  plain   processor    plain            minutes for")
    print("size                ours    plain  / ours  ms, ours   / ours    steps  30 seeds x 5 values")
    for size in SIZES:
        print(compare(size, given.seeds, given.repeats), flush=True)


if __name__ == "__main__":
    main()

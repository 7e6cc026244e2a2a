"""Every head removed, patterns preserved: ours against TransformerLens, same weights, tokens, threads and process.

Run from the repository root: PYTHONPATH=. python tests/benchmarks/ablate.py [--threads 2] [--repeats 5] [--sizes 0,1]

naive: the whole model once per head, the pattern of every layer replaced by the clean run's through hooks.
expert: the residual stream before each layer is cached, and each head's run starts at its layer.
Two questions: the in-context learning score (the losses at its two indices and at one random one), and every loss.
Ours and theirs take turns, so that whatever else the machine does hits both; ratios are of the medians. With `--cpu
--threads 1` processor seconds are counted, the fairer clock where other processes keep the threads of one product
waiting for each other.
Peak memory is what a sweep adds to the process that holds only the model and the tokens, one fresh process each.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from induction_cli.config import InitConfig, ModelConfig
from induction_cli.models.fast_ablation import fast
from induction_cli.models.protocol import Question
from induction_cli.models.transformer import Transformer

try:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
except ImportError:
    sys.exit("this benchmark needs TransformerLens beside torch: pip install transformer-lens==3.9.0")

SIZES = (  # layers, heads, d_model, n_ctx, d_vocab, sequences
    (2, 4, 128, 512, 512, 8),
    (2, 8, 256, 512, 4096, 8),
    (4, 8, 256, 512, 4096, 4),
    (2, 8, 512, 1024, 48000, 1),
)
EARLY, LATE = 50, 500
Sweep = Callable[[], Tensor]  # losses [1 + head, sequence, chosen]: the clean model's, then without each head


def to_transformer_lens(model: Transformer) -> HookedTransformer:
    """The same function as a HookedTransformer; attention-only models with shortformer positions."""
    config = model.config
    theirs = HookedTransformer(
        HookedTransformerConfig(
            n_layers=config.n_layers,
            d_model=config.d_model,
            d_head=config.d_head,
            n_heads=config.n_heads,
            n_ctx=config.n_ctx,
            d_vocab=config.d_vocab,
            attn_only=True,
            normalization_type="LN",
            positional_embedding_type="shortformer",
            init_weights=False,
            device="cpu",
        )
    ).eval()
    state = {
        "embed.W_E": model.W_E,
        "pos_embed.W_pos": model.positions,
        "ln_final.w": model.ln_final.weight,
        "ln_final.b": model.ln_final.bias,
        "unembed.W_U": model.W_U,
        "unembed.b_U": torch.zeros(config.d_vocab),
    }
    for layer, block in enumerate(model.blocks):
        here, heads = f"blocks.{layer}.", (config.n_heads, config.d_head)
        state |= {here + "ln1.w": block.ln_attention.weight, here + "ln1.b": block.ln_attention.bias}
        for name in ("Q", "K", "V"):
            weight = getattr(block.attention, f"W_{name}").unflatten(1, heads)
            state |= {here + f"attn.W_{name}": weight.transpose(0, 1), here + f"attn.b_{name}": torch.zeros(heads)}
        state |= {here + "attn.W_O": block.attention.W_O.unflatten(0, heads)}
        state |= {here + "attn.b_O": torch.zeros(config.d_model)}
    missing, unexpected = theirs.load_state_dict({name: value.detach() for name, value in state.items()}, strict=False)
    left = [name for name in missing if not name.endswith((".mask", ".IGNORE"))]
    assert not left and not unexpected, (left, unexpected)
    return theirs


def theirs_losses(logits: Tensor, targets: Tensor, at: Tensor | None) -> Tensor:
    """TransformerLens' own per-token loss, log-softmax then gather; only at the chosen columns, if any are chosen."""
    if at is not None:
        logits, targets = logits.gather(1, at[..., None].expand(-1, -1, logits.shape[-1])), targets.gather(1, at)
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def theirs(model: HookedTransformer, tokens: Tensor, at: Tensor | None, expert: bool) -> Tensor:
    """Every single-head ablation with TransformerLens, patterns frozen through hooks."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook) -> None:
        kept[hook.name] = value

    def frozen(_: Tensor, hook) -> Tensor:
        return kept[hook.name]

    patterns = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    residuals = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.cfg.n_layers)]
    logits = model.run_with_hooks(inputs, fwd_hooks=[(name, keep) for name in patterns + residuals * expert])
    losses = [theirs_losses(logits, targets, at)]
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):

            def remove(z: Tensor, hook, head: int = head) -> Tensor:
                z = z.clone()
                z[:, :, head] = 0
                return z

            first = layer if expert else 0
            hooks = [(name, frozen) for name in patterns[first:]] + [(f"blocks.{layer}.attn.hook_z", remove)]
            if expert:
                positions = model.pos_embed(inputs)
                logits = model.run_with_hooks(
                    kept[residuals[layer]], start_at_layer=layer, shortformer_pos_embed=positions, fwd_hooks=hooks
                )
            else:
                logits = model.run_with_hooks(inputs, fwd_hooks=hooks)
            losses.append(theirs_losses(logits, targets, at))
    return torch.stack(losses)


def sweeps(size: tuple[int, ...], score_only: bool) -> dict[str, Sweep]:
    """The three ways of doing one sweep, on random weights and tokens."""
    n_layers, n_heads, d_model, n_ctx, d_vocab, sequences = size
    config = ModelConfig(n_layers, n_heads, d_model, d_model // n_heads, 0, n_ctx, d_vocab)
    config.init = InitConfig(output_gain=1.0, unembedding_std=0.05)
    model, random = Transformer(config), torch.Generator().manual_seed(0)
    converted = to_transformer_lens(model)
    tokens = torch.randint(d_vocab, (sequences, n_ctx + 1), generator=random)
    at = None
    if score_only:
        at = torch.tensor([EARLY - 1, LATE - 1]).repeat(sequences, 1)
        at = torch.cat((at, torch.randint(n_ctx, (sequences, 1), generator=random)), 1)

    def ours() -> Tensor:
        losses = fast(model, Question(tokens, positions=at))
        return torch.cat((losses.clean[None], losses.ablated))

    return {
        "fast": ours,
        "naive": lambda: theirs(converted, tokens, at, expert=False),
        "expert": lambda: theirs(converted, tokens, at, expert=True),
    }


def compare(size: tuple[int, ...], score_only: bool, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each way, in turns, after one warm-up that checks that the results agree."""
    ways = sweeps(size, score_only)
    results = {name: run() for name, run in ways.items()}
    for name, result in results.items():
        worst = (result - results["fast"]).abs().max().item()
        assert worst < 1e-4, f"{name} and fast differ by {worst}"
    del results
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_of(way: str, arguments: list[str]) -> str:
    """MiB that one sweep adds, from a process of its own."""
    return subprocess.check_output([sys.executable, __file__, *arguments, "--peak", way], text=True).split()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", default="0,1,2,3", help="which rows, from 0")
    parser.add_argument("--questions", default="score,every")
    parser.add_argument("--cpu", action="store_true", help="processor seconds instead of elapsed ones")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", help="one way: print the MiB one sweep adds, and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    clock = time.process_time if arguments.cpu else time.perf_counter
    rows = [int(row) for row in arguments.sizes.split(",")]
    if arguments.peak:
        run = sweeps(SIZES[rows[0]], arguments.questions == "score")[arguments.peak]
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of making the models
        before = peak_mib()
        run()
        return print(round(peak_mib() - before))
    print("layers, heads, d_model, n_ctx, d_vocab, sequences | losses | fast s", end=" | ")
    print("naive/fast | expert/fast | MiB fast / naive / expert")
    for row in rows:
        for question in arguments.questions.split(","):
            took = compare(SIZES[row], question == "score", arguments.repeats, clock)
            common = ["--threads", str(arguments.threads), "--sizes", str(row), "--questions", question]
            peaks = [] if arguments.no_memory else [peak_of(way, common) for way in took]
            print(
                f"{', '.join(map(str, SIZES[row]))} | {question} | {took['fast']:.3f}",
                *(f"{took[way] / took['fast']:.1f}" for way in ("naive", "expert")),
                " / ".join(peaks),
                sep=" | ",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Training batches and held-out examples: windows of the tokens on disk."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from induction_cli.config import require


class Batches:
    """Training batches as a function of (seed, step) alone; no window comes twice within an epoch.

    Windows of n_ctx + 1 tokens start every n_ctx tokens, so no token is predicted twice. Their order is one
    permutation per epoch (4 bytes a window).
    """

    def __init__(self, tokens: np.ndarray, n_ctx: int, batch_size: int, seed: int, epochs: int = 1):
        self.tokens, self.n_ctx, self.batch_size, self.seed = tokens, n_ctx, batch_size, seed
        self.n_windows = max(0, (len(tokens) - 1) // n_ctx)
        self.steps_per_epoch = self.n_windows // batch_size
        self.n_steps = self.steps_per_epoch * epochs
        self.order: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int) -> Tensor:
        """Tokens [batch, n_ctx + 1]; inputs are all but the last, targets all but the first."""
        epoch, step = divmod(step, self.steps_per_epoch)
        if self.order is None or self.order[0] != epoch:
            random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self.order = epoch, random.permutation(self.n_windows).astype(np.uint32)
        windows = self.order[1][step * self.batch_size : (step + 1) * self.batch_size].astype(np.int64) * self.n_ctx
        return torch.from_numpy(np.stack([self.tokens[w : w + self.n_ctx + 1] for w in windows]).astype(np.int64))


CHAIN = 8  # held-out windows in a chain


def held_out_windows(tokens: np.ndarray, n_examples: int, n_ctx: int, shift: int, seed: int = 0) -> Tensor:
    """Held-out examples [n_examples, n_ctx + 1] at random offsets, drawn in chains of CHAIN overlapping windows.

    Each window of a chain (rows CHAIN * i onwards) starts `shift` = late index - early index after the one before, so
    what one sees at its late index the next sees at its early one. Every window is still at a uniformly random offset,
    so the in-context learning score means the same; but most of its losses are differences on the same tokens, which
    removes most of its sampling noise. Intervals resample whole chains.
    """
    length = (CHAIN - 1) * shift + n_ctx + 1
    room = len(tokens) - length
    require(room > 0, f"the held-out text has {len(tokens)} tokens; the measures need more than {length}")
    starts = np.random.default_rng(seed).integers(0, room, -(-n_examples // CHAIN))
    offsets = (starts[:, None] + shift * np.arange(CHAIN)).ravel()[:n_examples]
    return torch.from_numpy(np.stack([tokens[o : o + n_ctx + 1] for o in offsets]).astype(np.int64))

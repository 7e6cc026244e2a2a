"""How much an exact copy rule would gain on a corpus: whether induction can pay there at all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer


def bigram_probability(
    train: Integer[np.ndarray, " n_tokens"], pairs: Integer[np.ndarray, "n 2"], d_vocab: int
) -> Float[np.ndarray, " n"]:
    """P(second | first) of pairs from counts in train, one count added for every follower."""
    codes, counts = np.unique(train[:-1].astype(np.int64) * d_vocab + train[1:], return_counts=True)
    wanted = pairs[:, 0].astype(np.int64) * d_vocab + pairs[:, 1]
    place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    seen = np.where(codes[place] == wanted, counts[place], 0)
    first = np.bincount(train[:-1], minlength=d_vocab)[pairs[:, 0]]
    return (seen + 1) / (first + d_vocab)


def copy_targets(windows: Integer[np.ndarray, "window length"]) -> Integer[np.ndarray, "window length-1"]:
    """What followed the last earlier occurrence of each token; -1 where there is none.

    Position i of the result predicts token i + 1.
    """
    targets = np.full((len(windows), windows.shape[1] - 1), -1, np.int64)
    for row, window in enumerate(windows):
        last: dict[int, int] = {}
        for i, token in enumerate(window[:-1].tolist()):
            if token in last:
                targets[row, i] = window[last[token] + 1]
            last[token] = i
    return targets


def copy_benefit(
    train: Integer[np.ndarray, " n_tokens"], windows: Integer[np.ndarray, "window length"], d_vocab: int
) -> dict[str, float]:
    """Loss of a bigram model, and of its best mixture with the copy rule, on windows; nats a token.

    The mixture gives probability p to the copied token where there is one; p is the best of a grid, fitted on the even
    windows and applied to the odd ones.
    """
    pairs = np.stack((windows[:, :-1].ravel(), windows[:, 1:].ravel()), 1)
    bigram = bigram_probability(train, pairs, d_vocab).reshape(len(windows), -1)
    targets = copy_targets(windows)
    there, right = targets >= 0, targets == windows[:, 1:]

    def loss(p: float, rows: slice) -> float:
        mixed = np.where(there, (1 - p) * bigram + p * right, bigram)
        return float(-np.log(mixed[rows]).mean())

    even, odd = slice(0, None, 2), slice(1 if len(windows) > 1 else 0, None, 2)
    best = min(np.linspace(0, 0.95, 20).tolist(), key=lambda p: loss(p, even))
    return {
        "bigram_loss": loss(0.0, odd),
        "copy_rule_loss": loss(best, odd),
        "benefit": loss(0.0, odd) - loss(best, odd),
        "copy_probability": best,
        "rule_applies": float(there.mean()),
        "rule_is_right": float(right[there].mean()) if there.any() else float("nan"),
    }

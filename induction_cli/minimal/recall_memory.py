"""The memories of the recall network: probes of each matrix, ideal matrices, and what they predict in closed form.

With orthonormal vectors the ideal two-layer network [ours, after the construction of Bietti et al.]

    W_K^1 = lambda_1 sum_t p_t p_{t-1}^T            (relative: lambda_1 sum_k w_E(k) r_1^T)
    W_K^2 = lambda_2 sum_k w_E(k) (w_E(k) W_V^1)^T
    W_O^2 = lambda_3 sum_k (w_E(k) W_V^2)^T w_U(k)
    W_F   = sum_ij G_ij w_E(i)^T w_U(j)

has, with t = 0, 1, ... and a_ts = e^{lambda_1 [s = t-1]} / (e^{lambda_1} + t) for s <= t (a_00 = 1), exactly the logits

    logit_j(t) = lambda_3 sum_{s <= t} b_ts [z_s = j] + G_{z_t, j},
    b_ts = softmax over s <= t of lambda_2 c_s(z_t),   c_s(k) = sum_{r <= s} a_sr [z_r = k].

Place 0 has nothing before it and carries itself: a trigger there matches its later self, once.
So a follower seen n times after q, among m places that do not follow q, holds e^lambda_2 n / (e^lambda_2 n + m) of
lambda_3 against the global G_{q, j}: the two balance at a count that grows with G's lead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from induction_cli.config import require
from induction_cli.minimal.recall_data import Language, RecallSequences
from induction_cli.minimal.recall_network import Weights


@dataclass
class Strengths:
    """How strongly each memory holds what it should."""

    previous: float  # lambda_1
    match: float  # lambda_2
    copy: float  # lambda_3
    bigram: Tensor  # G [V, V], logits


def ideal_weights(weights: Weights, strengths: Strengths, positions: str) -> Weights:
    """A copy of a two-layer network's weights with the ideal memories. Raises ConfigError for other networks."""
    require(positions != "none", "positions is 'none'; the construction needs absolute or relative ones")
    require("layer_2.W_K" not in weights, "n_layers is above 2; the construction has 2 layers")
    W_E, W_pos, W_U = weights["W_E"], weights["W_pos"], weights["W_U"]
    made = {name: weight.detach().clone() for name, weight in weights.items()}
    pairs = W_pos[1:].T @ W_pos[:-1] if positions == "absolute" else W_E.sum(0)[:, None] * W_pos[1]
    made["layer_0.W_K"] = strengths.previous * pairs
    made["layer_1.W_K"] = strengths.match * W_E.T @ (W_E @ weights["layer_0.W_V"])
    made["layer_1.W_O"] = strengths.copy * (W_E @ weights["layer_1.W_V"]).T @ W_U.T
    if "W_F" in weights:
        made["W_F"] = W_E.T @ strengths.bigram.to(W_E) @ W_U.T
    return made


def closed_form_logits(strengths: Strengths, tokens: Tensor) -> Tensor:
    """The construction's logits [sequence, T, V] for tokens [sequence, T], without running the network."""
    d_vocab, length = len(strengths.bigram), tokens.shape[1]
    at = torch.arange(length)
    shown = F.one_hot(tokens, d_vocab).to(strengths.bigram)
    logits_1 = strengths.previous * (at[:, None] == at + 1).to(shown)
    first = logits_1.masked_fill(at > at[:, None], -torch.inf).softmax(-1)
    carried = first @ shown  # c_s(k)
    scores = strengths.match * (shown @ carried.mT)  # [sequence, t, s] = lambda_2 c_s(z_t)
    second = scores.masked_fill(at > at[:, None], -torch.inf).softmax(-1)
    return strengths.copy * second @ shown + strengths.bigram[tokens]


def stored(weights: Weights, positions: str) -> dict[str, Tensor]:
    """Each memory read out in its own terms: what it answers (column) when asked (row).

    previous [P - 1, P - 1] position t = 1.. against position s = 0.. (relative: token against distance; absent without
    positions); match [V, V] current token against the token carried by the key; copy [V, V] attended token against
    output; bigram [V, V] where there is a global memory. Two-layer networks; in deeper ones the last two layers count.
    """
    layers = sum(name.endswith("W_K") for name in weights)
    W_E, W_pos, W_U = weights["W_E"], weights["W_pos"], weights["W_U"]
    last, before = f"layer_{layers - 1}", f"layer_{layers - 2}"
    tables = {
        "match": W_E @ weights[f"{last}.W_K"] @ (W_E @ weights[f"{before}.W_V"]).T,
        "copy": W_E @ weights[f"{last}.W_V"] @ weights[f"{last}.W_O"] @ W_U,
    }
    if positions == "absolute":
        tables["previous"] = W_pos[1:] @ weights["layer_0.W_K"] @ W_pos[:-1].T
    elif positions == "relative":
        tables["previous"] = W_E @ weights["layer_0.W_K"] @ W_pos.T
    if "W_F" in weights:
        tables["bigram"] = W_E @ weights["W_F"] @ W_U
    return tables


@torch.no_grad()
def memory_recall(weights: Weights, positions: str, length: int, triggers: Tensor) -> dict[str, float]:
    """Share of questions to which each memory's largest answer is the right one.

    previous (W_K^1): t - 1, for t = 1 .. length - 1, among all positions before `length` (relative: distance 1, asked
    with every token); previous_early: the same for the first quarter, as in the public code (64 of 256), because what
    late positions store is hardly ever asked for; match (W_K^2): a trigger's own, among the triggers [k]; copy
    (W_O^2): every token's own.
    """
    tables = stored(weights, positions)
    every = torch.arange(len(weights["W_E"]))
    match = tables["match"][triggers][:, triggers].argmax(-1) == torch.arange(len(triggers))
    recall = {"match": match, "copy": tables["copy"].argmax(-1) == every}
    if positions == "absolute":
        asked = tables["previous"][: length - 1, : length - 1]
        recall["previous"] = asked.argmax(-1) == torch.arange(length - 1)
        recall["previous_early"] = recall["previous"][: max(1, length // 4)]
    elif positions == "relative":
        recall["previous"] = tables["previous"][:, :length].argmax(-1) == 1
    return {name: right.float().mean().item() for name, right in recall.items()}


@torch.no_grad()
def bigram_divergence(weights: Weights, positions: str, language: Language, left_out: Tensor) -> float:
    """Mean KL(pi_b || softmax of the global memory's answer) over the tokens that are not left out, nats."""
    rest = torch.ones(language.d_vocab, dtype=torch.bool)
    rest[left_out] = False
    answer = stored(weights, positions)["bigram"][rest].log_softmax(-1)
    p = language.bigram[rest].to(answer)
    return (torch.special.xlogy(p, p) - p * answer).sum(-1).mean().item()


@torch.no_grad()
def strengths(weights: Weights, positions: str, length: int, triggers: Tensor) -> Strengths:
    """lambda_1..3 and G of trained weights: the mean right answer less the mean of the wrong ones; G as stored.

    previous over positions below `length`, match over triggers, copy over all tokens. G is 0 without a global memory.
    """

    def lead(table: Tensor, right: Tensor) -> float:
        yes = table.gather(1, right[:, None]).sum()
        return ((yes / len(table)) - (table.sum() - yes) / (table.numel() - len(table))).item()

    tables = stored(weights, positions)
    require("previous" in tables, "positions is 'none'; there is no memory of the previous position to read")
    if positions == "absolute":
        previous = lead(tables["previous"][: length - 1, : length - 1], torch.arange(length - 1))
    else:
        previous = lead(tables["previous"][:, :length], torch.ones(len(weights["W_E"]), dtype=torch.long))
    match = lead(tables["match"][triggers][:, triggers], torch.arange(len(triggers)))
    every = torch.arange(len(weights["W_E"]))
    bigram = tables.get("bigram", torch.zeros(len(every), len(every)))
    return Strengths(previous, match, lead(tables["copy"], every), bigram)


@torch.no_grad()
def attention_probes(patterns: list[Tensor], sequences: RecallSequences, first_place: int = 1) -> dict[str, float]:
    """Where the heads look. previous_token_attention: mean weight of layer 1 (of three layers: 2) on the place before,
    from `first_place` on. match_attention: at in-context predictions, weight of the last layer on places whose previous
    token is the current one. previous_token_argmax, match_argmax: share of places where the largest weight is there."""
    first, last = patterns[-2], patterns[-1]
    inputs = sequences.tokens[:, :-1]
    asked = sequences.occurrence >= 2
    follows = F.pad(inputs[:, None, :-1] == inputs[:, :, None], (1, 0))  # [sequence, t, s]: z_{s-1} = z_t
    follows = follows.tril()
    places = torch.arange(first_place, inputs.shape[1])
    best = last.argmax(-1, keepdim=True)
    return {
        "previous_token_attention": first.diagonal(-1, -2, -1)[:, places - 1].mean().item(),
        "previous_token_argmax": (first[:, places].argmax(-1) == places - 1).float().mean().item(),
        "match_attention": (last * follows).sum(-1)[asked].mean().item() if asked.any() else math.nan,
        "match_argmax": follows.gather(-1, best)[..., 0][asked].float().mean().item() if asked.any() else math.nan,
    }

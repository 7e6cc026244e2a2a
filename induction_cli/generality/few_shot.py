"""Tasks with heads taken out of a model: the pattern task, and the gain of repeated context. Argument 4."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from induction_cli.config import GeneralizeConfig
from induction_cli.generality.probes import batches, padded, shown
from induction_cli.generality.prompts import PatternPrompt
from induction_cli.measures.intervals import FEWEST_UNITS, Estimate, from_resamples, mean_interval, resamples
from induction_cli.models.ablation import without_heads
from induction_cli.models.protocol import Model, Patch

Heads = list[tuple[int, int]]


def label(head: tuple[int, int]) -> str:
    return f"L{head[0]}H{head[1]}"


def removal(model: Model, heads: Heads) -> Patch | None:
    """The patch that sets the results of these heads to zero; everything after them is computed anew."""
    if not heads:
        return None
    return Patch(head_scale=without_heads(model, heads))


@torch.no_grad()
def pattern_answers(
    model: Model, prompts: list[PatternPrompt], choices: list[int], batch_size: int, patch: Patch | None = None
) -> dict[str, Tensor]:
    """How well the model does the pattern task, each [prompt]: means over the second half of a prompt's lines.

    pattern_accuracy: the answer 0 .. 3 with the largest logit is right; chance 1/4. pattern_log_probability: of the
    right answer among the four, nats; chance -1.39. pattern_accuracy_all: right among all tokens.
    """
    scores = torch.empty(3, len(prompts))
    for places in batches([len(each.prompt.tokens) for each in prompts], batch_size):
        logits = model(padded([prompts[i].prompt.tokens for i in places]), patch=patch).float().cpu()
        for row, i in enumerate(places):
            asked = prompts[i].answers[len(prompts[i].answers) // 2 :]
            query, token, category = (torch.tensor(column) for column in zip(*asked, strict=True))
            every = logits[row, query]
            among = every[:, choices]
            right = (among.argmax(-1) == category).float()
            sure = among.log_softmax(-1).gather(1, category[:, None])[:, 0]
            scores[:, i] = torch.stack([right, sure, (every.argmax(-1) == token).float()]).mean(1)
    return dict(zip(("pattern_accuracy", "pattern_log_probability", "pattern_accuracy_all"), scores, strict=True))


@torch.no_grad()
def repeat_gain(model: Model, doubled: Tensor, batch_size: int, patch: Patch | None = None) -> dict[str, Tensor]:
    """Gain of repeated context, [passage]: loss on a passage's first copy less that on its second, nats a token.

    doubled [passage, 1 + 2 * length]; the first token of each copy is left out.
    """
    length, gains = (doubled.shape[1] - 1) // 2, []
    for part in doubled.split(batch_size):
        logits = model(part, patch=patch).float()
        losses = F.cross_entropy(logits[:, :-1].mT, part[:, 1:].to(logits.device), reduction="none")
        gains.append((losses[:, 1:length].mean(1) - losses[:, 1 + length :].mean(1)).cpu())
    return {"repeat_gain": torch.cat(gains)}


def random_sets(removed: Heads, others: Heads, n_draws: int, same_layers: bool, seed: int) -> list[Heads]:
    """Different sets of as many other heads; with same_layers as many from each layer, as far as it has any left."""
    random = np.random.default_rng(seed)
    found: list[Heads] = []
    for _ in range(20 * n_draws):
        chosen: Heads = []
        if same_layers:
            for layer in sorted({layer for layer, _ in removed}):
                here = [head for head in others if head[0] == layer]
                wanted = sum(head[0] == layer for head in removed)
                chosen += [here[i] for i in random.permutation(len(here))[:wanted]]
        left = [head for head in others if head not in chosen]
        chosen += [left[i] for i in random.permutation(len(left))[: len(removed) - len(chosen)]]
        if len(found) < n_draws and sorted(chosen) not in found:
            found.append(sorted(chosen))
    return found


@dataclass(frozen=True)
class Tasks:
    """What a model is asked to do, whole and with heads removed.

    choices: the tokens of the prompts' answers. doubled: see `repeat_gain`; None where passages do not fit.
    """

    prompts: list[PatternPrompt]
    choices: list[int]
    doubled: Tensor | None
    batch_size: int

    def scores(self, model: Model, patch: Patch | None) -> dict[str, Tensor]:
        """{task: [prompt or passage]}; of those that can be asked."""
        scores: dict[str, Tensor] = {}
        if self.prompts:
            scores |= pattern_answers(model, self.prompts, self.choices, self.batch_size, patch)
        if self.doubled is not None:
            scores |= repeat_gain(model, self.doubled, self.batch_size, patch)
        return scores


def removal_rows(
    model: Model, tasks: Tasks, removed: Heads, others: Heads, config: GeneralizeConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(few_shot.csv, few_shot_effect.csv): the tasks with heads removed, and induction against random heads.

    removed: the induction heads; others: those that random ones are drawn from. few_shot: one row a task and a set of
    heads, mean and 95% interval over prompts. few_shot_effect: what the task loses with the induction heads removed
    less what it loses with random ones; interval over prompts and draws together; `beyond`: share of the draws that
    lose less than the induction heads.
    """
    sets: list[tuple[str, int, Heads]] = [("none", 0, [])]
    if removed and len(others) >= len(removed) and config.n_draws:
        sets.append(("induction", 0, removed))
        for kind, same in (("random", False), ("random_same_layers", True)):
            drawn = random_sets(removed, others, config.n_draws, same, config.seed)
            sets += [(kind, draw, taken) for draw, taken in enumerate(drawn)]
    results: dict[tuple[str, str], list[Tensor]] = {}
    rows = []
    for kind, draw, taken in shown(sets, "removing heads"):
        for task, values in tasks.scores(model, removal(model, taken)).items():
            results.setdefault((task, kind), []).append(values)
            low, high = mean_interval(values)
            row = {"task": task, "removed": kind, "draw": draw, "n_heads": len(taken), "value": values.mean().item()}
            rows.append(row | {"low": low.item(), "high": high.item(), "heads": " ".join(map(label, taken))})
    effects = [
        {"task": task, "against": kind, "n_heads": len(removed)}
        | effect(results[task, "none"][0], results[task, "induction"][0], torch.stack(drawn))
        for (task, kind), drawn in results.items()
        if kind.startswith("random")
    ]
    table = pd.DataFrame(rows, columns=["task", "removed", "draw", "n_heads", "value", "low", "high", "heads"])
    return table, pd.DataFrame(effects, columns=["task", "against", "n_heads", *EFFECT])


EFFECT = ("lost_induction", "lost_random", "difference", "low", "high", "beyond", "draws")


def effect(clean: Tensor, induction: Tensor, random: Tensor) -> dict[str, float]:
    """What induction heads' removal costs beyond random heads': clean, induction [prompt], random [draw, prompt]."""
    lost, lost_random = clean - induction, clean - random
    fewest = min(len(clean), len(random))
    value = (lost.mean() - lost_random.mean()).item()
    found = Estimate(value)
    if fewest >= FEWEST_UNITS:
        over_prompts, over_draws = resamples(len(clean)), resamples(len(random), seed=1)
        again = over_prompts @ lost - torch.einsum("rd,dp,rp->r", over_draws, lost_random, over_prompts)
        found = from_resamples(value, again.numpy(), fewest, "prompts and draws")
    beyond = (lost_random.mean(1) < lost.mean()).float().mean()
    values = (lost.mean(), lost_random.mean(), *found, beyond, len(random))
    return {name: float(value) for name, value in zip(EFFECT, values, strict=True)}

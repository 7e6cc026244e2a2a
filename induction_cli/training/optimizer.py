"""AdamW, or Muon for the matrices inside the blocks with AdamW for the rest; learning rates by tokens seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from induction_cli.config import OptimizerConfig
from induction_cli.models.transformer import Transformer


def block_matrices(model: Transformer) -> dict[str, Tensor]:
    """What Muon moves: W_Q, W_K, W_V, W_O, W_in, W_out of every block."""
    return {
        n: p for n, p in model.named_parameters() if n.startswith("blocks.") and n.rsplit(".", 1)[1].startswith("W_")
    }


def build_optimizers(model: Transformer, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Weight decay is on matrices only; each group remembers its full learning rate as `base`."""
    matrices = block_matrices(model) if config.name == "muon" else {}
    rest = {name: parameter for name, parameter in model.named_parameters() if name not in matrices}
    decayed = [parameter for parameter in rest.values() if parameter.dim() > 1]
    plain = [parameter for parameter in rest.values() if parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    beta1, beta2 = config.betas
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], config.learning_rate, (beta1, beta2), fused=fused)
    ]
    if matrices:
        optimizers.append(
            torch.optim.Muon(list(matrices.values()), config.muon_learning_rate, weight_decay=config.weight_decay)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base"] = group["lr"]
    return optimizers


def learning_rate_factor(tokens: int, total: int, config: OptimizerConfig) -> float:
    """Linear warm-up over warmup_tokens, then constant, or a cosine to a tenth."""
    if tokens < config.warmup_tokens:
        return tokens / config.warmup_tokens
    if config.schedule == "constant":
        return 1.0
    done = (tokens - config.warmup_tokens) / max(1, total - config.warmup_tokens)
    return 0.55 + 0.45 * math.cos(math.pi * min(1.0, done))


def optimizer_tensors(model: Transformer, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """All optimizer state by parameter name and key, ready to be saved as plain tensors."""
    return {
        f"{name}/{key}": value
        for optimizer in optimizers
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizers(model: Transformer, optimizers: list[torch.optim.Optimizer], saved: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    owner = {id(p): optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for full_name, value in saved.items():
        name, key = full_name.rsplit("/", 1)
        parameter = parameters[name]
        device = value.device if key == "step" and not parameter.is_cuda else parameter.device
        owner[id(parameter)].state[parameter][key] = value.to(device)

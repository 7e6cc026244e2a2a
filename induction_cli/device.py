"""Where and how precisely to compute."""

from __future__ import annotations

import contextlib

import torch

from induction_cli.config import DEVICES, DTYPES, require


def choose_device(name: str) -> torch.device:
    """'auto' takes cuda, then mps, then cpu. Raises ConfigError for a device that is not there."""
    require(name in DEVICES, f"device is '{name}'; there are {', '.join(DEVICES)}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    require(available[name], f"device is '{name}', and this machine has none; device=auto takes what there is")
    return torch.device(name)


def choose_threads(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


def precision(dtype: str, device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 autocast where asked for ('auto': on cuda), else nothing: weights are always float32."""
    require(dtype in DTYPES, f"dtype is '{dtype}'; there are {', '.join(DTYPES)}")
    if dtype == "bfloat16" or (dtype == "auto" and device.type == "cuda"):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()

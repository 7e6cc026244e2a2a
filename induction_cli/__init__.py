"""Olsson et al. 2022, 'In-context Learning and Induction Heads', run again; its measures for any causal language model.

    import induction_cli as induction

    heads = induction.score("hf:gpt2", n_examples=16).tables["head_scores"]

The names below are those of api.py, loaded when they are asked for: importing the package brings no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from induction_cli.api import OpenModel, Results, ablate, circuits, open_model, score, train, verdicts

__all__ = ["OpenModel", "Results", "ablate", "circuits", "open_model", "score", "train", "verdicts"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'induction_cli' has no attribute '{name}'")
    from induction_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

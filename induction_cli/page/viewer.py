"""Heads' attention on example texts as one HTML page: no request leaves it, it works from file://, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from induction_cli.page.template import embedded, render


@dataclass(frozen=True)
class Example:
    """One text and some heads' attention on it.

    tokens: as shown, one string each. heads: (label, remark). patterns [head, query, key], shares of attention.
    targets: (query, key) pairs that the example is about; they are underlined.
    """

    title: str
    remark: str
    tokens: list[str]
    heads: list[tuple[str, str]]
    patterns: Tensor
    targets: list[tuple[int, int]]


def packed(pattern: Tensor) -> str:
    """The lower triangle of [query, key], row by row, each share as a whole number 0 .. 255; base64."""
    query, key = torch.tril_indices(*pattern.shape)
    shares = (pattern[query, key].clamp(0, 1) * 255).round().to(torch.uint8)
    return base64.b64encode(shares.cpu().numpy().tobytes()).decode()


def attention_page(title: str, examples: Sequence[Example]) -> str:
    """The page. Hover or tab to a token: what it attends to is shaded; a click holds it; buttons choose the head."""
    data = [
        {
            "title": example.title,
            "remark": example.remark,
            "tokens": example.tokens,
            "heads": [
                {"name": name, "remark": remark, "pattern": packed(pattern)}
                for (name, remark), pattern in zip(example.heads, example.patterns, strict=True)
            ],
            "targets": example.targets,
        }
        for example in examples
    ]
    return render("viewer", title=title, data=embedded(data))

"""Our own Transformer or a pretrained model behind one face: what measures need, whichever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from induction_cli.config import ConfigError, require
from induction_cli.measures.losses import per_token_loss
from induction_cli.models import pretrained_heads as pretrained_weights
from induction_cli.models.heads import HeadWeights, head_weights
from induction_cli.models.pretrained import ATTENTION, Pretrained, import_transformers
from induction_cli.models.transformer import Activations, Patch, Record, Transformer

Head = tuple[int, int]  # (layer, head)
OWN_BATCH = 16  # sequences at once for our own small models, whatever the memory


@dataclass(frozen=True)
class LayerWeights:
    """One layer's heads, norms folded in: W_Q, W_K, W_V [head, d_model, d_head], W_O [head, d_head, d_model]."""

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor


class Model:
    """The call `model(tokens, record, patch)`, losses, sizes, heads' weights, alike for a run and a pretrained model.

    W_E [d_vocab, d_model], W_U [d_model, d_vocab] and `heads(layer)`: norms folded in, as in `weights.HeadWeights` and
    `head_weights.head_weights`. For a family whose weights are not known these raise ConfigError.
    """

    def __init__(self, inner: Transformer | Pretrained):
        self.inner = inner
        sizes: Any = inner.config if isinstance(inner, Transformer) else inner
        self.n_layers, self.n_heads, self.d_head = sizes.n_layers, sizes.n_heads, sizes.d_head
        self.d_vocab, self.n_ctx, self.d_model = sizes.d_vocab, sizes.n_ctx, sizes.d_model

    @property
    def device(self) -> torch.device:
        return self.inner.W_E.device if isinstance(self.inner, Transformer) else self.inner.model.device

    # -------------------------------------------------------------------------------- running it

    @torch.no_grad()
    def __call__(self, tokens: Tensor, record: Record | None = None, patch: Patch | None = None):
        """Logits [batch, pos, d_vocab] of tokens [batch, pos]; with `record`, the pair (logits, Activations)."""
        return self.inner(tokens.to(self.device), record=record, patch=patch)

    @torch.no_grad()
    def activations(self, tokens: Tensor, record: Record) -> Activations:
        """What the call records, without the logits."""
        return self.inner.activations(tokens.to(self.device), record)

    @torch.no_grad()
    def losses(
        self, tokens: Tensor, patch: Patch | None = None, head_patterns: Mapping[Head, Tensor] | None = None
    ) -> Tensor:
        """Per-token losses in nats, [batch, pos], of tokens [batch, pos + 1]; column i - 1 is index i.

        head_patterns: {(layer, head): [batch or 1, query, key]}, given to single heads (pretrained models only).
        """
        tokens = tokens.to(self.device)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        if isinstance(self.inner, Transformer) and patch is None:
            return per_token_loss(self.inner.final_residual(inputs), self.inner.W_U, targets)
        if isinstance(self.inner, Transformer):
            logits = self.inner(inputs, patch=patch)
        else:
            logits = self.inner(inputs, patch=patch, head_patterns=head_patterns)
        # one sequence at a time: a second copy of all logits would be the largest thing in memory
        each = [F.cross_entropy(x.float(), y, reduction="none") for x, y in zip(logits, targets, strict=True)]
        return torch.stack(each)

    def batch_that_fits(self, n_pos: int, memory_gb: float, own: int = OWN_BATCH, every_pattern: bool = False) -> int:
        """Sequences of n_pos tokens in one call: `own` for our models, else what memory_gb holds, weights included.

        every_pattern: the patterns of all layers are kept at once.
        """
        if isinstance(self.inner, Transformer):
            return own
        return self.inner.batch_that_fits(n_pos, memory_gb * 1e9, every_pattern)

    # -------------------------------------------------------------------------------- its weights

    @cached_property
    def _own(self) -> HeadWeights | None:
        return head_weights(self.inner) if isinstance(self.inner, Transformer) else None

    @cached_property
    def W_E(self) -> Tensor:
        return self._own.W_E if self._own else pretrained_weights.embedding(self.inner)  # type: ignore[arg-type]

    @cached_property
    def W_U(self) -> Tensor:
        return self._own.W_U if self._own else pretrained_weights.unembedding(self.inner)  # type: ignore[arg-type]

    def heads(self, layer: int) -> LayerWeights:
        w = self._own
        if w is not None:
            return LayerWeights(w.W_Q[layer], w.W_K[layer], w.W_V[layer], w.W_O[layer])
        found = pretrained_weights.head_weights(self.inner, layer)  # type: ignore[arg-type]
        return LayerWeights(found.W_Q, found.W_K, found.W_V, found.W_O)

    def W_V(self, layer: int) -> Tensor:
        return self.heads(layer).W_V

    def W_O(self, layer: int) -> Tensor:
        return self.heads(layer).W_O

    @cached_property
    def no_weights(self) -> str:
        """Why single heads' weights are not known, '' where they are."""
        try:
            if isinstance(self.inner, Pretrained):
                pretrained_weights.family_of(self.inner)
        except ConfigError as error:
            return str(error)
        return ""

    @cached_property
    def no_qk(self) -> str:
        """Why W_Q W_K^T alone says nothing of what attends to what, '' where it does."""
        if self.no_weights:
            return self.no_weights
        if isinstance(self.inner, Transformer):
            rotary = self.inner.config.positions == "rotary"
        else:
            rotary = pretrained_weights.family_of(self.inner).rotary
        return "rotary positions stand between W_Q and W_K" if rotary else ""

    # -------------------------------------------------------------------------------- its baseline

    @torch.no_grad()
    def untrained(self, seed: int = 0) -> Model:
        """A model of the same shape with random weights, as its architecture draws them; every head writes."""
        if isinstance(self.inner, Transformer):
            fresh, generator = Transformer(self.inner.config, seed=seed + 1), torch.Generator().manual_seed(seed)
            for block in fresh.blocks:  # ours start at 0, and heads that write nothing have no copying score
                block.attention.W_O.normal_(0, 1 / math.sqrt(len(block.attention.W_O)), generator=generator)
            return Model(fresh.to(self.device).eval())
        transformers = import_transformers()
        with torch.random.fork_rng():
            torch.manual_seed(seed + 1)
            config = self.inner.model.config
            made = transformers.AutoModelForCausalLM.from_config(
                config, attn_implementation=ATTENTION, dtype=torch.float32
            )
        return Model(Pretrained(made.to(self.device), self.inner.tokenizer, f"{self.inner.name}, untrained"))


def as_model(model: Model | Transformer | Pretrained) -> Model:
    return model if isinstance(model, Model) else Model(model)


def own_transformer(model: Model | Transformer | Pretrained, what: str) -> Transformer:
    """The Transformer inside. Raises ConfigError that says what needs one."""
    inner = model.inner if isinstance(model, Model) else model
    require(isinstance(inner, Transformer), f"{what} only for models of `induction train`")
    return inner  # type: ignore[return-value]

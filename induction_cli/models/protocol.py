"""What measures may ask of a model, whichever it is; and the data that goes into a call and comes out of it.

Interventions and recordings are data: `record` names what to keep, `Patch` says what to change. Our own `Transformer`
and any `Pretrained` satisfy `Model` as they are: what differs between them is an attribute or a method here.
Axis order everywhere: pattern [batch, head, query, key]; z [batch, pos, head, d_head]; residual [batch, pos, d_model].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from induction_cli.config import ABLATIONS, require

RECORDABLE = ("residual", "pattern", "z")
Record = Iterable[str] | Mapping[str, Callable[[Tensor], Tensor]]
Head = tuple[int, int]  # (layer, head)
Ablation = Sequence[Head]  # the heads that are removed together
OWN_BATCH = 16  # sequences at once for our own small models, whatever the memory


@dataclass
class Activations:
    """What was asked for, one entry per layer; `residual` has one more, the stream after the last layer."""

    residual: list[Tensor] = field(default_factory=list)  # [batch, pos, d_model] before each layer, then after the last
    pattern: list[Tensor] = field(default_factory=list)  # [batch, head, query, key]
    z: list[Tensor] = field(default_factory=list)  # [batch, pos, head, d_head], before W_O, before any patch


class Recorder:
    """Keeps what one call asks for, each layer's tensor reduced as it is made.

    record: names out of RECORDABLE, or {name: reduction}. Raises ValueError for a name that is not there.
    """

    def __init__(self, record: Record = ()):
        self.reductions = dict(record) if isinstance(record, Mapping) else dict.fromkeys(record, unchanged)
        self.kept = Activations()
        if unknown := set(self.reductions) - set(RECORDABLE):
            raise ValueError(f"cannot record {', '.join(sorted(unknown))}; there are {', '.join(RECORDABLE)}")

    def wants(self, name: str) -> bool:
        return name in self.reductions

    def keep(self, name: str, value: Tensor) -> None:
        if self.wants(name):
            getattr(self.kept, name).append(self.reductions[name](value))


def unchanged(value: Tensor) -> Tensor:
    return value


@dataclass
class Patch:
    """What to change in a forward pass. An empty patch changes nothing.

    head_scale: [layer, head], factor on each head's result; 0 removes the head, 1 leaves it.
    head_fill: [layer, head, d_head], the z that takes the removed share's place (mean ablation).
    patterns: {layer: [batch or 1, head, query, key]}, attention patterns used instead of the model's own.
    head_patterns: {(layer, head): [batch or 1, query, key]}, the same for single heads; others do as they would.
    written: {layer: [batch, pos, d_model]}, added to what a layer's heads write; see `Model.no_writing`.
    """

    head_scale: Tensor | None = None
    head_fill: Tensor | None = None
    patterns: Mapping[int, Tensor] = field(default_factory=dict)
    head_patterns: Mapping[Head, Tensor] = field(default_factory=dict)
    written: Mapping[int, Tensor] = field(default_factory=dict)

    def check(self, model: Model, tokens: Tensor) -> None:
        """Raise ValueError when a part does not fit the model and the tokens [batch, pos] it is to be applied to.

        ConfigError for what this kind of model cannot be made to do.
        """
        n_layers, n_heads, (batch, n_pos) = model.n_layers, model.n_heads, tokens.shape
        for name, part, shape in (
            ("head_scale", self.head_scale, (n_layers, n_heads)),
            ("head_fill", self.head_fill, (n_layers, n_heads, model.d_head)),
        ):
            if part is not None and tuple(part.shape) != shape:
                raise ValueError(f"patch.{name} has shape {tuple(part.shape)}, the model needs {shape}")
        if self.head_fill is not None and self.head_scale is None:
            raise ValueError("patch.head_fill needs patch.head_scale to say which heads it fills")
        require(not (self.written and model.no_writing), f"patch.written: {model.no_writing}")
        for name, parts, wanted in (
            ("patterns", self.patterns, (batch, n_heads, n_pos, n_pos)),
            ("written", self.written, (batch, n_pos, model.d_model)),
        ):
            for layer, part in parts.items():
                if layer not in range(n_layers):
                    raise ValueError(f"patch.{name} names layer {layer}, the model has layers 0 to {n_layers - 1}")
                fits(f"patch.{name}[{layer}]", part, wanted)
        for (layer, head), pattern in self.head_patterns.items():
            if layer not in range(n_layers) or head not in range(n_heads):
                raise ValueError(f"patch.head_patterns names head {head} of layer {layer}, which the model has not")
            fits(f"patch.head_patterns[{layer}, {head}]", pattern, (batch, n_pos, n_pos))

    def apply(self, layer: int, z: Tensor) -> Tensor:
        """z [batch, pos, head, d_head] of one layer with the heads scaled and filled."""
        if self.head_scale is None:
            return z
        scale = self.head_scale[layer].to(z)[:, None]
        fill = 0 if self.head_fill is None else self.head_fill[layer].to(z)
        return z * scale + (1 - scale) * fill

    def patterns_of(self, layer: int) -> dict[int, Tensor]:
        """{head: pattern} of the single heads of one layer that are given one."""
        return {head: pattern for (at, head), pattern in self.head_patterns.items() if at == layer}


def fits(name: str, part: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a part of a patch has the shape, or the same for all examples."""
    if tuple(part.shape) not in {(batch, *shape[1:]) for batch in (1, shape[0])}:
        raise ValueError(f"{name} has shape {tuple(part.shape)}, the model needs {shape}")


@dataclass(frozen=True)
class HeadWeights:
    """One layer's heads. Under grouped-query attention W_K, W_V are repeated for every query head."""

    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "head d_model d_head"]
    W_V: Float[Tensor, "head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_Q: Float[Tensor, "head d_head"]
    b_K: Float[Tensor, "head d_head"]
    b_V: Float[Tensor, "head d_head"]
    b_O: Float[Tensor, " d_model"]
    scale: float  # scores are scale * q . k, with positions as the model has them


@dataclass(frozen=True)
class Question:
    """What is removed, how, on which tokens, and where its effect is looked at.

    tokens [batch, n_ctx + 1]; ablations: None is every head alone; positions [batch, chosen]: columns whose losses are
    asked for, None is every one; mean_z [layer, head, d_head], for kind 'mean'.
    """

    tokens: Tensor
    ablations: Sequence[Ablation] | None = None
    kind: str = "pattern_preserving"
    positions: Tensor | None = None
    mean_z: Tensor | None = None

    def sets(self, model: Model) -> Sequence[Ablation]:
        """The sets of heads to remove from a model. Raises ValueError as `check_ablations` does."""
        if self.ablations is None:
            check_ablations(model, [], self.kind, self.mean_z)
            return single_heads(model.n_layers, model.n_heads)
        check_ablations(model, self.ablations, self.kind, self.mean_z)
        return self.ablations

    def split(self, n: int) -> list[Question]:
        """The same of at most n examples each."""
        tokens = self.tokens.split(n)
        if self.positions is None:
            return [replace(self, tokens=some) for some in tokens]
        pairs = zip(tokens, self.positions.split(n), strict=True)
        return [replace(self, tokens=some, positions=at) for some, at in pairs]


@dataclass
class Losses:
    """Per-token losses in nats at the chosen columns."""

    clean: Tensor  # [batch, chosen]
    ablated: Tensor  # [ablation, batch, chosen]


def single_heads(n_layers: int, n_heads: int) -> list[Ablation]:
    """Every head of the model alone, layer by layer."""
    return [[(layer, head)] for layer in range(n_layers) for head in range(n_heads)]


def check_ablations(model: Model, ablations: Sequence[Ablation], kind: str, mean_z: Tensor | None) -> None:
    """Raise ValueError for a head that does not exist, an unknown kind, or means that are missing or do not fit."""
    for layer, head in (pair for ablation in ablations for pair in ablation):
        if layer not in range(model.n_layers) or head not in range(model.n_heads):
            raise ValueError(
                f"there is no head {head} in layer {layer}; the model has "
                f"layers 0 to {model.n_layers - 1}, heads 0 to {model.n_heads - 1}"
            )
    if kind not in ABLATIONS:
        raise ValueError(f"kind is '{kind}'; there are {', '.join(ABLATIONS)}")
    shape = (model.n_layers, model.n_heads, model.d_head)
    if kind == "mean" and (mean_z is None or tuple(mean_z.shape) != shape):
        given = None if mean_z is None else tuple(mean_z.shape)
        raise ValueError(f"mean ablation needs mean_z of shape {shape}, not {given}")


class Model(Protocol):
    """A causal language model with attention heads that can be recorded, changed and read.

    Tokens may lie on any device. Weights are as circuits read them: each norm's gain, and the mean it takes off, are
    part of what reads behind it or writes before it, so they apply to raw directions of the residual stream.
    """

    n_layers: int
    n_heads: int
    d_head: int
    d_model: int
    d_vocab: int
    n_ctx: int  # positions 0 .. n_ctx - 1 can be had; sys.maxsize where the architecture knows no end

    @property
    def device(self) -> torch.device: ...

    # -- running it

    def __call__(
        self, tokens: Int[Tensor, "batch pos"], record: Record | None = None, patch: Patch | None = None
    ) -> Any:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos]; with `record`, the pair (logits, Activations).

        Raises ValueError for an unknown name, a patch that does not fit, or more tokens than n_ctx.
        """

    def activations(self, tokens: Int[Tensor, "batch pos"], record: Record) -> Activations:
        """What the call records, without the logits and without gradients."""

    def losses(self, tokens: Int[Tensor, "batch n_ctx"], patch: Patch | None = None) -> Float[Tensor, "batch n_ctx-1"]:
        """Per-token losses in nats; column i - 1 is index i. No gradients."""

    def losses_without(self, question: Question, memory: int, memory_gb: float) -> Losses:
        """The losses with and without heads that an ablation asks for, the fastest way this model has.

        memory: bytes that a run's model may take for what lies between; memory_gb: all that a pretrained one may take.
        """

    def batch_that_fits(self, n_pos: int, memory_gb: float, own: int = OWN_BATCH, every_pattern: bool = False) -> int:
        """Sequences of n_pos tokens in one call: `own` for a run's model, else what memory_gb holds, weights included.

        every_pattern: the patterns of all layers are kept at once.
        """

    # -- its weights

    def head_weights(self, layer: int, fold_norm: bool = True) -> HeadWeights:
        """One layer's heads; without fold_norm as they are. Raises ConfigError where `no_weights` says why."""

    def embedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """W_E, without positions."""

    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """W_U. Raises ConfigError where `no_weights` says why."""

    @property
    def weights_hash(self) -> str:
        """SHA-256 of all parameters (`parameters_hash`)."""

    # -- what it does not have: a reason in words, '' where it has it

    @property
    def no_weights(self) -> str:
        """Why single heads' weights are not known."""

    @property
    def no_qk(self) -> str:
        """Why W_Q W_K^T alone says nothing of what attends to what."""

    @property
    def no_writing(self) -> str:
        """Why nothing can be written beside what the heads write (`Patch.written`)."""

    # -- its baseline

    def untrained(self, seed: int = 0) -> Model:
        """A model of the same shape with random weights, as its architecture draws them; every head writes."""

    def shuffled(self, seed: int = 0) -> Model:
        """A copy with its heads in other layers, at random. Raises ConfigError where `no_weights` says why."""


def parameters_hash(model: torch.nn.Module) -> str:
    """SHA-256 of every parameter's name, shape and value: equal for equal models, however they were stored."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

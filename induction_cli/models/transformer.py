"""The transformer of the paper: decoder-only, attention-only or with MLPs, pre-LayerNorm, untied embeddings.

It satisfies `protocol.Model`, where recordings, patches and the order of axes are.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from induction_cli.config import ModelConfig, check_group
from induction_cli.measures.losses import per_token_loss
from induction_cli.models.fast_ablation import fast
from induction_cli.models.heads import block_weights, centred
from induction_cli.models.layers import Block, sinusoids
from induction_cli.models.protocol import (
    OWN_BATCH,
    Activations,
    HeadWeights,
    Losses,
    Patch,
    Question,
    Record,
    Recorder,
    parameters_hash,
)
from induction_cli.models.shuffled import exchange, own_heads


class Transformer(nn.Module):
    """`model(tokens)` gives logits [batch, pos, d_vocab]; see `forward` for recordings and patches."""

    positions: Float[Tensor, "n_ctx d_model"] | None  # shortformer only

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        check_group("model", config)
        self.config = config
        self.n_layers, self.n_heads, self.d_head = config.n_layers, config.n_heads, config.d_head
        self.d_model, self.d_vocab, self.n_ctx = config.d_model, config.d_vocab, config.n_ctx
        self.W_E = nn.Parameter(torch.empty(config.d_vocab, config.d_model))
        self.W_pos = nn.Parameter(torch.empty(config.n_ctx, config.d_model)) if config.positions == "learned" else None
        self.blocks: list[Block] = nn.ModuleList(Block(config) for _ in range(config.n_layers))  # type: ignore
        self.ln_final = nn.LayerNorm(config.d_model)
        self.W_U = nn.Parameter(torch.empty(config.d_model, config.d_vocab))
        shortformer = config.positions == "shortformer"
        self.register_buffer("positions", sinusoids(config.n_ctx, config.d_model) if shortformer else None, False)
        self.initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Weights from the generator alone; smearing draws nothing, so smeared and vanilla twins start equal."""
        config = self.config

        def normal(parameter: Tensor, std: float) -> None:
            parameter.normal_(0, std, generator=generator) if std else parameter.zero_()

        normal(self.W_E, config.init.embedding_std)
        normal(self.W_U, config.init.unembedding_std)
        if self.W_pos is not None:
            normal(self.W_pos, config.init.embedding_std)
        for block in self.blocks:
            attention = block.attention
            for weight in (attention.W_Q, attention.W_K, attention.W_V):
                normal(weight, config.init.attention_gain / math.sqrt(config.d_model))
            normal(attention.W_O, config.init.output_gain / math.sqrt(config.n_heads * config.d_head))
            if attention.smear_alpha is not None:
                attention.smear_alpha.fill_(config.smear_init)
            if attention.distance_bias is not None:
                attention.distance_bias.zero_()
            if block.mlp is not None:
                normal(block.mlp.W_in, 1 / math.sqrt(config.d_model))
                normal(block.mlp.W_out, config.init.output_gain / math.sqrt(config.d_mlp))

    @property
    def device(self) -> torch.device:
        return self.W_E.device

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream before the first layer."""
        if tokens.shape[1] > self.n_ctx:
            raise ValueError(f"{tokens.shape[1]} tokens, but the model's context holds {self.n_ctx}")
        residual = F.embedding(tokens.to(self.device), self.W_E)
        return residual if self.W_pos is None else residual + self.W_pos[: tokens.shape[1]]

    def query_key_positions(self, n_pos: int) -> Float[Tensor, "{n_pos} d_model"] | None:
        """What the shortformer scheme adds to the inputs of W_Q and W_K, else None."""
        return None if self.positions is None else self.positions[:n_pos]

    def final_residual(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """The stream after the last layer and LayerNorm, ready for W_U; the fused path."""
        residual = self.embed(tokens)
        pos = self.query_key_positions(tokens.shape[1])
        for block in self.blocks:
            z = block.attention(block.ln_attention(residual), pos)
            residual = block.after_attention(residual + block.attention.result(z))
        return self.ln_final(residual)

    def forward(
        self, tokens: Int[Tensor, "batch pos"], record: Record | None = None, patch: Patch | None = None
    ) -> Any:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos]; with `record`, the pair (logits, Activations).

        record: names out of RECORDABLE, or {name: reduction}; a reduction is applied to each layer's tensor as it
        is made, so a measure that needs one number per head never holds every pattern.
        Raises ValueError for an unknown name, a patch of the wrong shape, or tokens longer than the context.
        """
        if record is None and patch is None:
            return self.final_residual(tokens) @ self.W_U
        recorder = Recorder(record or ())
        logits = self.ln_final(self.run(tokens, recorder, patch or Patch())) @ self.W_U
        return logits if record is None else (logits, recorder.kept)

    @torch.no_grad()
    def activations(self, tokens: Int[Tensor, "batch pos"], record: Record) -> Activations:
        """What `forward` records, without the logits, and no further than the last thing to record."""
        recorder = Recorder(record)
        self.run(tokens, recorder, Patch(), stop_early=True)
        return recorder.kept

    def run(
        self, tokens: Int[Tensor, "batch pos"], recorder: Recorder, patch: Patch, stop_early: bool = False
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after the last layer; with stop_early, as far as the recorder needed it."""
        patch.check(self, tokens)
        residual, pos = self.embed(tokens), self.query_key_positions(tokens.shape[1])
        for layer, block in enumerate(self.blocks):
            recorder.keep("residual", residual)
            attention, x = block.attention, block.ln_attention(residual)
            if recorder.wants("pattern") or layer in patch.patterns:
                if layer in patch.patterns:
                    pattern, v = patch.patterns[layer].to(x), attention.values(x)
                else:
                    q, k, v = attention.queries_keys_values(x, pos)
                    pattern = attention.pattern(q, k)
                recorder.keep("pattern", pattern)
                if stop_early and layer == self.n_layers - 1 and set(recorder.reductions) == {"pattern"}:
                    return residual
                z = (pattern @ v).transpose(1, 2)
            else:
                z = attention(x, pos)
            for head, given in patch.patterns_of(layer).items():
                z = z.clone()
                z[:, :, head] = given.to(x) @ attention.values(x)[:, head]
            recorder.keep("z", z)
            written = attention.result(patch.apply(layer, z))
            if layer in patch.written:
                written = written + patch.written[layer].to(x)
            residual = block.after_attention(residual + written)
        recorder.keep("residual", residual)
        return residual

    @torch.no_grad()
    def losses(self, tokens: Int[Tensor, "batch n_ctx"], patch: Patch | None = None) -> Float[Tensor, "batch n_ctx-1"]:
        """Per-token losses in nats; column i - 1 is index i."""
        tokens = tokens.to(self.device)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        if patch is None:
            return per_token_loss(self.final_residual(inputs), self.W_U, targets)
        return per_token_loss(self.ln_final(self.run(inputs, Recorder(), patch)), self.W_U, targets)

    def losses_without(self, question: Question, memory: int, memory_gb: float) -> Losses:
        """The fast path; memory: bytes for what lies between. Our models fit whatever memory_gb says."""
        return fast(self, question, memory)

    def batch_that_fits(self, n_pos: int, memory_gb: float, own: int = OWN_BATCH, every_pattern: bool = False) -> int:
        """`own`: our models are small."""
        return own

    # ----------------------------------------------------------------------------- its weights, as circuits read them

    def head_weights(self, layer: int, fold_norm: bool = True) -> HeadWeights:
        """One layer's heads; with fold_norm LayerNorm's gain, shift and centring are in them."""
        return block_weights(self.blocks[layer], fold_norm)

    @torch.no_grad()
    def embedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """W_E, centred as LayerNorm does it."""
        return centred(self.W_E)

    @torch.no_grad()
    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """W_U with the gain of the final LayerNorm."""
        return self.ln_final.weight[:, None] * self.W_U

    @property
    def weights_hash(self) -> str:
        return parameters_hash(self)

    @property
    def no_weights(self) -> str:
        return ""

    @property
    def no_qk(self) -> str:
        rotary = self.config.positions == "rotary"
        return "rotary positions stand between W_Q and W_K" if rotary else ""

    @property
    def no_writing(self) -> str:
        return ""

    @torch.no_grad()
    def untrained(self, seed: int = 0) -> Transformer:
        """A model of the same shape with random weights; every head writes."""
        fresh, generator = Transformer(self.config, seed=seed + 1), torch.Generator().manual_seed(seed)
        for block in fresh.blocks:  # ours start at 0, and heads that write nothing have no copying score
            block.attention.W_O.normal_(0, 1 / math.sqrt(len(block.attention.W_O)), generator=generator)
        return fresh.to(self.device).eval()

    def shuffled(self, seed: int = 0) -> Transformer:
        """A copy with its heads in other layers, at random."""
        made = copy.deepcopy(self)
        exchange([own_heads(block.attention) for block in made.blocks], seed)
        return made

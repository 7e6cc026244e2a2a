"""A two-layer model whose weights implement a previous-token head and an induction head exactly.

The residual stream has a one-hot part for the token, one for the previous token, one for the output and one for the
position, so every attention logit is known on paper. L0H0 is the previous-token head, L1H0 the induction head; L0H1 and
L1H1 have zero weights: uniform attention, nothing written. Attention saturates: BETA makes a match win by hundreds.
"""

import torch

from induction_cli.config import ModelConfig
from induction_cli.models.transformer import Transformer

BETA = 300.0


def induction_model(d_vocab: int = 60, n_ctx: int = 101) -> Transformer:
    d_head = max(d_vocab, n_ctx)
    config = ModelConfig(
        n_layers=2, n_heads=2, d_head=d_head, d_model=3 * d_vocab + n_ctx, n_ctx=n_ctx, d_vocab=d_vocab
    )
    model = Transformer(config)
    token, previous, output = (torch.arange(d_vocab) + i * d_vocab for i in range(3))
    at = torch.arange(n_ctx) + 3 * d_vocab
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in (model.ln_final, *(block.ln_attention for block in model.blocks)):
            norm.weight.fill_(1)
        model.W_E[torch.arange(d_vocab), token] = 1
        model.positions.zero_()
        model.positions[torch.arange(n_ctx), at] = BETA

        first, second = (block.attention for block in model.blocks)
        first.W_Q[at[1:], torch.arange(n_ctx - 1)] = 1  # position i asks for i - 1
        first.W_Q[at[0], 0] = 1
        first.W_K[at, torch.arange(n_ctx)] = 1
        first.W_V[token, torch.arange(d_vocab)] = 1
        first.W_O[torch.arange(d_vocab), previous] = 1
        second.W_Q[token, torch.arange(d_vocab)] = BETA  # what I am ...
        second.W_K[previous, torch.arange(d_vocab)] = 1  # ... asks for what came before you
        second.W_V[token, torch.arange(d_vocab)] = 1
        second.W_O[torch.arange(d_vocab), output] = 1
        model.W_U[output, torch.arange(d_vocab)] = 10
    return model

import pytest
import torch
from conftest import BATCH, D_HEAD, D_VOCAB, N_HEADS, N_POS

from induction_cli.config import ABLATIONS
from induction_cli.measures.losses import per_token_loss
from induction_cli.models import ablation, fast_ablation
from induction_cli.models.protocol import Losses, Question, single_heads

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CHOSEN = {"every": None, "chosen": torch.tensor([[2, 6, 0], [5, 1, 5]])}  # columns, in any order, repeats allowed
ACROSS = [(0, 1), (1, 0), (1, 2)]  # a set that reaches over both layers


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randint(D_VOCAB, (BATCH, N_POS + 1), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def mean_z() -> torch.Tensor:
    return torch.randn(2, N_HEADS, D_HEAD, generator=torch.Generator().manual_seed(4))


def assert_same(a: Losses, b: Losses) -> None:
    assert a.ablated.shape == b.ablated.shape
    assert torch.allclose(a.clean, b.clean, **CLOSE)
    assert torch.allclose(a.ablated, b.ablated, **CLOSE)


@pytest.mark.parametrize("chosen", CHOSEN)
@pytest.mark.parametrize("kind", ABLATIONS)
def test_fast_agrees_with_plain(model, windows, mean_z, kind, chosen):
    ablations = [*single_heads(2, N_HEADS), ACROSS, [(0, 0), (0, 2)], [(1, 1)] * 2, []]
    question = Question(windows, ablations, kind, CHOSEN[chosen], mean_z)
    plain, fast = ablation.plain(model, question), fast_ablation.fast(model, question)
    assert plain.ablated.shape == (len(ablations), BATCH, N_POS if chosen == "every" else 3)
    assert_same(plain, fast)


@pytest.mark.parametrize("kind", ["pattern_preserving", "full"])
def test_default_is_every_head_alone_and_kinds_differ_downstream_only(model, windows, kind):
    fast = fast_ablation.fast(model, Question(windows, kind=kind))
    other = fast_ablation.fast(model, Question(windows, kind="pattern_preserving"))
    assert len(fast.ablated) == 2 * N_HEADS
    assert torch.allclose(fast.ablated[N_HEADS:], other.ablated[N_HEADS:], **CLOSE)
    assert kind == "pattern_preserving" or not torch.allclose(fast.ablated[0], other.ablated[0], **CLOSE)


@pytest.mark.parametrize("run", [ablation.plain, fast_ablation.fast])
@pytest.mark.parametrize("kind", ABLATIONS)
def test_removing_nothing_changes_nothing(model, windows, mean_z, run, kind):
    losses = run(model, Question(windows, [[]], kind, CHOSEN["chosen"], mean_z))
    assert torch.allclose(losses.ablated[0], losses.clean, **CLOSE)
    assert run(model, Question(windows, [], kind, None, mean_z)).ablated.shape == (0, BATCH, N_POS)


@pytest.mark.parametrize("run", [ablation.plain, fast_ablation.fast])
def test_last_layer_head_is_subtracted_from_the_residual(model, windows, run):
    """By hand: all that comes after (an MLP, if there is one, and the unembedding) reads less of what it wrote."""
    _, kept = model(windows[:, :-1], record=("residual", "z"))
    block = model.blocks[1]
    written = kept.z[1][:, :, 2] @ block.attention.W_O[2 * D_HEAD : 3 * D_HEAD]
    without = block.after_attention(kept.residual[1] + block.attention.result(kept.z[1]) - written)
    expected = per_token_loss(model.ln_final(without), model.W_U, windows[:, 1:])
    assert torch.allclose(run(model, Question(windows, [[(1, 2)]])).ablated[0], expected, **CLOSE)


@pytest.mark.parametrize("chosen", CHOSEN)
@pytest.mark.parametrize("kind", ABLATIONS)
def test_memory_limit_changes_nothing_but_memory(model, windows, mean_z, kind, chosen):
    question = Question(windows, None, kind, CHOSEN[chosen], mean_z)
    assert fast_ablation.batch_sizes(model, N_POS, 1, N_HEADS, memory=1) == (1, 1)
    assert_same(fast_ablation.fast(model, question, memory=1), fast_ablation.fast(model, question, memory=1 << 30))


def test_pattern_in_several_blocks(model, windows, monkeypatch):
    expected = fast_ablation.fast(model, Question(windows))
    monkeypatch.setattr(fast_ablation, "BLOCK", 3)
    assert_same(fast_ablation.fast(model, Question(windows)), expected)


def test_losses_in_several_blocks_of_rows_and_vocabulary(monkeypatch):
    random = torch.Generator().manual_seed(6)
    residual, W_U = 30 * torch.randn(2, 5, 13, generator=random), torch.randn(13, D_VOCAB, generator=random)
    targets = torch.randint(D_VOCAB, (2, 5), generator=random)
    expected = per_token_loss(residual, W_U, targets)
    monkeypatch.setattr(fast_ablation, "ROWS", 3)
    monkeypatch.setattr(fast_ablation, "COLUMNS", 4)
    assert torch.allclose(fast_ablation.token_losses(residual, W_U, targets), expected, **CLOSE)


@pytest.mark.parametrize("run", [ablation.plain, fast_ablation.fast])
@pytest.mark.parametrize("pair", [(2, 0), (0, N_HEADS), (-1, 0)])
def test_head_that_does_not_exist(model, windows, run, pair):
    with pytest.raises(ValueError, match=f"no head {pair[1]} in layer {pair[0]}; .* layers 0 to 1, heads 0 to 2"):
        run(model, Question(windows, [[(0, 0)], [pair]]))


@pytest.mark.parametrize("run", [ablation.plain, fast_ablation.fast])
def test_bad_kind_and_missing_means(model, windows, run):
    with pytest.raises(ValueError, match="kind is 'zero'; there are pattern_preserving, full, mean"):
        run(model, Question(windows, kind="zero"))
    with pytest.raises(ValueError, match=r"mean_z of shape \(2, 3, 4\), not None"):
        run(model, Question(windows, kind="mean"))
    with pytest.raises(ValueError, match=r"mean_z of shape \(2, 3, 4\), not \(3, 4\)"):
        run(model, Question(windows, kind="mean", mean_z=torch.zeros(3, 4)))


def test_mean_ablation_with_the_heads_own_z_changes_nothing(model, windows):
    """At the first position of one example z is a constant, so filling with it is no change there."""
    _, kept = model(windows[:1, :-1], record=("z",))
    own = torch.stack([z[0, 0] for z in kept.z])
    losses = fast_ablation.fast(model, Question(windows[:1], None, "mean", torch.tensor([[0]]), own))
    assert torch.allclose(losses.ablated, losses.clean.expand_as(losses.ablated), **CLOSE)

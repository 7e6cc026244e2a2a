"""Circuits read from weights and the copying score: against matrices built in full, and against values on paper."""

import math

import pytest
import torch
from hand_built import BETA, induction_model

from induction_cli.evaluation.rows import composition_rows
from induction_cli.evaluation.scores import weight_scores
from induction_cli.measures.circuits import (
    composition,
    composition_baseline,
    copying_eigenvalue_statistic,
    ov_eigenvalues,
    qk_trace,
)
from induction_cli.measures.components import copying

D_VOCAB, D_MODEL, D_HEAD, HEADS, EARLIER = 11, 7, 3, 2, 5
V, D = 60, 281  # vocabulary and width of the hand-built model


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights() -> dict[str, torch.Tensor]:
    shapes = {
        "W_E": (D_VOCAB, D_MODEL),
        "W_Q": (HEADS, D_MODEL, D_HEAD),
        "W_K": (HEADS, D_MODEL, D_HEAD),
        "W_V": (HEADS, D_MODEL, D_HEAD),
        "W_O": (HEADS, D_HEAD, D_MODEL),
        "before_V": (EARLIER, D_MODEL, D_HEAD),
        "before_O": (EARLIER, D_HEAD, D_MODEL),
        "W_U": (D_MODEL, D_VOCAB),
    }
    return {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


# ------------------------------------------------------------------------------------------------ OV


def test_ov_eigenvalues_are_those_of_the_full_circuit():
    w = weights()
    found = ov_eigenvalues(w["W_E"], w["W_V"], w["W_O"], w["W_U"])
    assert found.shape == (HEADS, D_HEAD) and found.is_complex()
    for head in range(HEADS):
        full = torch.linalg.eigvals(w["W_E"] @ w["W_V"][head] @ w["W_O"][head] @ w["W_U"])
        largest = full[full.abs().argsort(descending=True)]
        assert largest[D_HEAD:].abs().max() < 1e-10  # the others are zero
        for value in found[head]:
            assert (largest[:D_HEAD] - value).abs().min() < 1e-9
        assert torch.allclose(found[head].sum(), full.sum())


def test_copying_statistic_is_one_for_copying_and_minus_one_for_anti_copying():
    """A head that writes what it reads, in a model whose unembedding is its embedding."""
    W_E = torch.eye(D_VOCAB)[:, :D_MODEL]
    W_V = torch.eye(D_MODEL)[None, :, :5]
    for sign in (1, -1):
        eigenvalues = ov_eigenvalues(W_E, W_V, sign * W_V.mT, W_E.T)
        assert copying_eigenvalue_statistic(eigenvalues).item() == pytest.approx(sign)


def test_copying_statistic_by_hand():
    eigenvalues = torch.tensor([[3 + 4j, 3 - 4j, -2], [1j, -1j, 0], [0, 0, 0]])
    expected = [4 / 12, 0, 0]  # (3 + 3 - 2) / (5 + 5 + 2); a rotation copies nothing; nor does a head of zeros
    assert copying_eigenvalue_statistic(eigenvalues).tolist() == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------ QK


def test_qk_trace_is_the_trace_of_the_sum_of_explicit_terms():
    w, share = weights(), random(EARLIER, seed=9).abs()
    found = qk_trace(w["W_E"], w["W_Q"], w["W_K"], w["before_V"], w["before_O"], share)
    assert found.shape == (HEADS,)
    for head in range(HEADS):
        explicit = torch.zeros(D_VOCAB, D_VOCAB, dtype=torch.float64)
        for k in range(EARLIER):
            query = w["W_E"] @ w["W_Q"][head]
            key = w["W_E"] @ w["before_V"][k] @ w["before_O"][k] @ w["W_K"][head]
            explicit += share[k] * query @ key.T
        assert found[head].item() == pytest.approx(explicit.trace().item())


def test_qk_trace_does_not_exist_in_the_first_layer():
    w = weights()
    none = w["before_V"][:0], w["before_O"][:0], torch.zeros(0)
    found = qk_trace(w["W_E"], w["W_Q"], w["W_K"], *none)
    assert found.shape == (HEADS,) and found.isnan().all()
    elsewhere = qk_trace(*(w[name].to("meta") for name in ("W_E", "W_Q", "W_K")), *none)
    assert found.dtype == w["W_Q"].dtype and elsewhere.device.type == "meta"  # where the weights are, for stacking


# ------------------------------------------------------------------------------------------------ composition


def test_composition_is_the_frobenius_formula():
    w = weights()
    found = composition(w["W_Q"], w["W_K"], w["W_V"], w["W_O"], w["before_V"], w["before_O"])
    assert set(found) == {"Q", "K", "V"}
    for a in range(HEADS):
        qk, ov = w["W_Q"][a] @ w["W_K"][a].T, w["W_V"][a] @ w["W_O"][a]
        for b in range(EARLIER):
            before = w["before_V"][b] @ w["before_O"][b]
            for kind, product, later in (("Q", before @ qk, qk), ("K", qk @ before.T, qk), ("V", before @ ov, ov)):
                expected = product.norm() / (later.norm() * before.norm())
                assert found[kind].shape == (HEADS, EARLIER)
                assert found[kind][a, b].item() == pytest.approx(expected.item())
                assert 0 <= found[kind][a, b] <= 1


def test_composition_is_one_where_all_that_is_written_is_read_and_zero_where_nothing_is():
    one = torch.zeros(1, D_MODEL, 1)
    one[0, 2] = 1
    other = torch.zeros(1, D_MODEL, 1)
    other[0, 4] = 1
    read = composition(other, one, one, other.mT, other, one.mT)  # the earlier head writes direction 2
    assert {kind: score.item() for kind, score in read.items()} == {"Q": 0, "K": 1, "V": 1}


def test_composition_baseline_is_the_mean_of_random_heads():
    """Over many heads drawn here, not there, and for each of the three kinds."""
    heads = {name: random(40, 23, 5, seed=i) for i, name in enumerate(("W_Q", "W_K", "W_V", "before_V"))}
    W_O, before_O = random(40, 5, 23, seed=7), random(40, 5, 23, seed=8)
    scores = composition(heads["W_Q"], heads["W_K"], heads["W_V"], W_O, heads["before_V"], before_O)
    for score in scores.values():
        assert composition_baseline(23, 5) == pytest.approx(score.mean().item(), rel=0.05)
    assert composition_baseline(23, 5) == composition_baseline(23, 5)
    assert composition_baseline(23, 5, seed=1) != composition_baseline(23, 5)


# ------------------------------------------------------------------------------------------------ hand-built model

SHRUNK = 1 - V / D  # what centring leaves of the direction in which every token is raised alike


def test_hand_built_induction_head_k_composes_with_the_previous_token_head_most():
    table = composition_rows(induction_model(), {"step": 0})
    assert len(table) == 3 * 2 * 2
    first = table.sort_values("value", ascending=False).iloc[0]
    assert (first.kind, first.from_layer, first.from_head, first.layer, first["head"]) == ("K", 0, 0, 1, 0)
    expected = math.sqrt(V - 1 + SHRUNK**2) / (V * math.sqrt(1 - 1 / D))
    assert first.value == pytest.approx(expected, rel=1e-5)
    assert first.above_baseline == pytest.approx(first.value - first.baseline) and first.above_baseline > 0
    others = table.drop(first.name)
    assert others.value.max() < 0.01  # what centring alone leaks; heads of zeros have no composition
    assert others[(others["head"] == 1) | (others.from_head == 1)].value.isna().all()


def test_hand_built_weight_scores():
    """Centred weights: E W_V = W_O U / 10 = I - J / D on the vocabulary, J all ones."""
    scores = weight_scores(induction_model(), torch.tensor([[1.0, 0.04], [0.0, 0.04]]))
    assert scores["copying_eigenvalues"][1, 0].item() == pytest.approx(1, abs=1e-5)
    assert scores["copying_eigenvalues"][:, 1].tolist() == [0, 0]
    assert scores["qk_trace"][0].isnan().all()
    assert scores["qk_trace"][1].tolist() == pytest.approx([BETA * (V - 1 + SHRUNK**3), 0], rel=1e-5)


def test_qk_trace_is_weighed_by_previous_token_attention():
    model = induction_model()
    whole, half = (weight_scores(model, torch.full((2, 2), share))["qk_trace"][1, 0] for share in (1.0, 0.5))
    assert half.item() == pytest.approx(whole.item() / 2)


# ------------------------------------------------------------------------------------------------ copying score

N = 25  # distinct tokens of a sequence


def copying_of(raised: torch.Tensor, pattern: torch.Tensor, tokens: torch.Tensor) -> float:
    """Score of one head that attends by `pattern` [query, key] and turns token t into the logits raised[t] [d_vocab].

    W_O and W_U are identities, so z is the logits.
    """
    z = (pattern @ raised[tokens[0]])[None, :, None]
    identity = torch.eye(raised.shape[1])
    return copying(pattern[None, None], z, identity[None], identity, tokens).item()


@pytest.fixture
def sample() -> torch.Tensor:
    return torch.randperm(47, generator=torch.Generator().manual_seed(0))[None, :N]


SELF, PREVIOUS = torch.eye(N), torch.eye(N).roll(1, 0)


@pytest.mark.parametrize("pattern", [SELF, PREVIOUS])
def test_exact_copying_scores_one_and_anti_copying_minus_one(sample, pattern):
    assert copying_of(torch.eye(47), pattern, sample) == pytest.approx(1)
    assert copying_of(-torch.eye(47), pattern, sample) == pytest.approx(-1)


def test_indifferent_head_scores_minus_eighty_five_percent(sample):
    """It raises every token of the sample alike, wherever it looks: r = 1 / (1 + 25)."""
    alike = torch.zeros(47, 47)
    alike[:, sample[0]] = 1
    for pattern in (SELF, torch.full((N, N), 1 / N)):
        assert copying_of(alike, pattern, sample) == pytest.approx(4 / (N + 1) - 1)


def test_copying_head_that_attends_evenly_raises_each_token_by_its_share(sample):
    """At position i, i + 1 tokens are raised alike: own is one of them, all are i + 1."""
    causal = torch.ones(N, N).tril()
    expected = sum(4 / (i + 2) - 1 for i in range(N)) / N
    assert copying_of(torch.eye(47), causal / causal.sum(-1, keepdim=True), sample) == pytest.approx(expected)


def test_head_that_writes_nothing_or_raises_other_tokens_scores_minus_one(sample):
    outside = next(token for token in range(47) if token not in sample[0].tolist())
    other = torch.zeros(47, 47)
    other[:, outside] = 1
    assert copying_of(torch.zeros(47, 47), SELF, sample) == -1
    assert copying_of(other, SELF, sample) == -1


def test_heads_and_samples_are_kept_apart():
    """Two samples, three heads that copy, anti-copy and do nothing."""
    tokens = torch.stack([torch.randperm(31)[:7], torch.randperm(31)[:7]])
    pattern = torch.eye(7).expand(2, 3, 7, 7)
    z = torch.eye(31)[tokens][:, :, None] * torch.tensor([1.0, -1, 0])[:, None]
    scores = copying(pattern, z, torch.eye(31).expand(3, 31, 31), torch.eye(31), tokens)
    assert torch.allclose(scores, torch.tensor([1.0, -1, -1]).expand(2, 3))


def test_inputs_untouched(sample):
    w, share = weights(), torch.rand(EARLIER, dtype=torch.float64)
    before = {name: weight.clone() for name, weight in w.items()} | {"share": share.clone()}
    copying_eigenvalue_statistic(ov_eigenvalues(w["W_E"], w["W_V"], w["W_O"], w["W_U"]))
    qk_trace(w["W_E"], w["W_Q"], w["W_K"], w["before_V"], w["before_O"], share)
    composition(w["W_Q"], w["W_K"], w["W_V"], w["W_O"], w["before_V"], w["before_O"])
    assert all(torch.equal(value, before[name]) for name, value in (w | {"share": share}).items())
    model = induction_model()
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.head_weights(0), model.head_weights(1), model.embedding(), model.unembedding()
    weight_scores(model, torch.ones(2, 2))
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())

"""Scores from attention patterns: answers known on paper, and a model built by hand."""

import pytest
import torch
from hand_built import induction_model

from induction_cli.evaluation.scores import pattern_scores, random_tokens, repeated_tokens
from induction_cli.measures import attention

ALL = {
    "prefix_matching": attention.prefix_matching,
    "duplicate_token": attention.duplicate_token,
    "previous_token": attention.previous_token,
    "start_token": attention.start_token,
    "entropy": attention.entropy,
}


def pattern_of(target) -> torch.Tensor:
    """One head on a start token and 3 repeats of 5: all of position i's attention goes to target(i)."""
    pattern = torch.zeros(1, 1, 16, 16)
    for i in range(16):
        pattern[0, 0, i, max(0, target(i))] = 1
    return pattern


def test_perfect_heads():
    assert attention.prefix_matching(pattern_of(lambda i: i - 5 + 1), 5).item() == 1
    assert attention.duplicate_token(pattern_of(lambda i: i - 5), 5).item() == 1
    assert attention.previous_token(pattern_of(lambda i: i - 1)).item() == 1
    assert attention.start_token(pattern_of(lambda i: 0)).item() == 1
    assert attention.entropy(pattern_of(lambda i: 0)).item() == 0
    assert attention.entropy(attention.uniform(16)).item() == pytest.approx(1)


def test_off_by_one_heads_score_nothing():
    for wrong in (lambda i: i - 5, lambda i: i - 5 + 2):
        assert attention.prefix_matching(pattern_of(wrong), 5).item() == 0


def test_earlier_repeats_are_summed_and_destinations_averaged():
    """Looking two repeats back counts too, but only the third repeat can: 5 of 10 destinations."""
    assert attention.prefix_matching(pattern_of(lambda i: i - 10 + 1), 5).item() == pytest.approx(0.5)
    split = (pattern_of(lambda i: i - 5 + 1) + pattern_of(lambda i: max(i - 10 + 1, i - 5 + 1 if i < 11 else 0))) / 2
    assert attention.prefix_matching(split, 5).item() == pytest.approx(1)


def test_uniform_attention_on_the_papers_sequence():
    expected = sum(((i - 1) // 25) / (i + 1) for i in range(26, 101)) / 75
    assert attention.prefix_matching(attention.uniform(101)).item() == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(0.031, abs=5e-4)  # paper.md 4.4


def test_hand_built_induction_model():
    model = induction_model()
    tokens = repeated_tokens(torch.ones(60, dtype=torch.long), n_sequences=3)
    scores = {name: score.mean(0) for name, score in pattern_scores(model, tokens, ALL).items()}
    uniform = {name: measure(attention.uniform(101)).item() for name, measure in ALL.items()}
    assert scores["prefix_matching"][1, 0].item() == pytest.approx(1, abs=1e-4)
    assert scores["previous_token"][0, 0].item() == pytest.approx(1, abs=1e-4)
    assert scores["prefix_matching"][0, 0].item() == pytest.approx(0, abs=1e-4)
    assert scores["duplicate_token"][1, 0].item() == pytest.approx(0, abs=1e-4)
    for layer in (0, 1):  # the heads without weights
        for name in ALL:
            assert scores[name][layer, 1].item() == pytest.approx(uniform[name], abs=1e-5)
    logits = model(tokens)
    assert (logits[:, 26:-1].argmax(-1) == tokens[:, 27:]).all()  # knows what follows every second copy


def test_inputs_untouched():
    pattern = torch.rand(2, 3, 101, 101)
    before = pattern.clone()
    for measure in ALL.values():
        measure(pattern)
    assert torch.equal(pattern, before)


def test_random_tokens_are_distinct_and_neither_rare_nor_common():
    counts = torch.arange(100)  # token i occurs i times: 0 is special, the tenths are 1-9 and 91-99
    tokens = random_tokens(counts, 50)
    assert tokens.shape == (50, 25)
    assert all(len(row.unique()) == 25 for row in tokens)
    assert tokens.min() >= 10 and tokens.max() <= 90


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="needs 25 distinct"):
        random_tokens(torch.ones(20), 1)

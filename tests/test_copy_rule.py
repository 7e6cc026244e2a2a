"""What an exact copy rule gains: windows short enough to count by hand."""

import math

import numpy as np
import pytest

from induction_cli.measures.copy_rule import bigram_probability, copy_benefit, copy_targets


def test_copy_targets_by_hand():
    windows = np.array([[3, 5, 3, 5, 7, 3, 2], [1, 1, 1, 2, 1, 2, 4]])
    expected = [
        [-1, -1, 5, 3, -1, 5],  # 3: last followed by 5; 5: by 3; 7 is new; 3: by 5 again
        [-1, 1, 1, -1, 2, 1],  # 1: by 1, by 1; 2 is new; 1: last followed by 2; 2: by 1
    ]
    assert copy_targets(windows).tolist() == expected


def test_copy_targets_do_not_look_across_windows_or_ahead():
    windows = np.array([[1, 2, 3, 4], [2, 1, 5, 6]])
    assert (copy_targets(windows) == -1).all()


def test_bigram_probabilities_by_hand():
    """After 1 came 2, 2 and 3: with one count added for each of 5 followers, 3/8, 2/8 and 1/8 for the others."""
    train = np.array([1, 2, 1, 2, 1, 3, 3], np.uint16)
    pairs = np.array([[1, 2], [1, 3], [1, 0], [2, 1], [3, 3], [4, 4]])
    assert bigram_probability(train, pairs, 5).tolist() == pytest.approx([3 / 8, 2 / 8, 1 / 8, 3 / 7, 2 / 6, 1 / 5])


def test_bigram_probabilities_sum_to_one_also_where_products_exceed_16_bits():
    d_vocab = 1009
    train = np.random.default_rng(0).integers(0, d_vocab, 5000).astype(np.uint16)
    for first in (0, int(train[0]), d_vocab - 1):
        pairs = np.array([[first, second] for second in range(d_vocab)])
        assert bigram_probability(train, pairs, d_vocab).sum() == pytest.approx(1)


TRAIN = np.array([0, 1, 2, 3, 4] * 20, np.uint16)  # 4 of the 10 tokens are not in it: they stay at chance


def test_benefit_by_hand():
    """Windows 6 7 6 7 in which the rule applies to one of three predictions and is right; bigrams are at chance, 1/10.

    The best share of the grid is the largest, 0.95, since the rule is never wrong.
    """
    windows = np.array([[6, 7, 6, 7]] * 4)
    found = copy_benefit(TRAIN, windows, 10)
    copied = 0.05 * 0.1 + 0.95
    assert found["bigram_loss"] == pytest.approx(math.log(10))
    assert found["copy_rule_loss"] == pytest.approx((2 * math.log(10) - math.log(copied)) / 3)
    assert found["benefit"] == pytest.approx((math.log(10) + math.log(copied)) / 3)
    assert found["copy_probability"] == pytest.approx(0.95)
    assert found["rule_applies"] == pytest.approx(1 / 3) and found["rule_is_right"] == 1


def test_rule_that_is_always_wrong_is_not_used():
    found = copy_benefit(TRAIN, np.array([[6, 7, 6, 8]] * 2), 10)
    assert found["copy_probability"] == 0 and found["benefit"] == 0 and found["rule_is_right"] == 0


def test_share_is_fitted_on_even_windows_and_applied_to_odd_ones():
    found = copy_benefit(TRAIN, np.array([[6, 7, 6, 7], [6, 7, 6, 8]]), 10)
    assert found["copy_probability"] == pytest.approx(0.95)
    assert found["benefit"] == pytest.approx(math.log(0.05) / 3)  # it costs there
    assert found["rule_is_right"] == 0.5


def test_text_without_repeats_gives_the_rule_nothing_to_do():
    found = copy_benefit(TRAIN, np.array([[5, 6, 7, 8]]), 10)
    assert found["rule_applies"] == 0 and found["benefit"] == 0 and math.isnan(found["rule_is_right"])


def test_inputs_untouched():
    train, windows = TRAIN.copy(), np.array([[6, 7, 6, 7], [1, 2, 1, 2]])
    before = windows.copy()
    copy_benefit(train, windows, 10)
    assert (train == TRAIN).all() and (windows == before).all()

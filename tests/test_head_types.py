"""The one rule that says which heads are induction heads."""

import numpy as np
import pytest

from induction_cli.measures.head_types import INDUCTION, induction

NAN = np.nan


@pytest.mark.parametrize(
    ("copying", "expected"),
    [
        ([0.5, -0.1, 0.9, 0.3, 0.0], [True, False, False, True, False]),
        ([NAN] * 5, [True, True, False, True, True]),  # weights are not known: prefix matching alone decides
        ([0.5, NAN, NAN, 0.3, 0.1], [True, False, False, True, True]),  # known of this model, but not of these heads
    ],
)
def test_induction_heads_match_prefixes_and_copy(copying, expected):
    prefix_matching = np.array([0.9, 0.8, 0.2, INDUCTION, 0.5])
    assert induction(prefix_matching, np.array(copying)).tolist() == expected


def test_a_head_without_prefix_matching_is_none():
    assert induction(np.array([NAN, 0.9]), np.array([0.5, 0.5])).tolist() == [False, True]

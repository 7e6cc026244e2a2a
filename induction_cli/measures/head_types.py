"""What a head is called: the rule of the claims, fixed beforehand. Nothing else decides it."""

from __future__ import annotations

import numpy as np

INDUCTION = 0.3  # prefix matching from which a head that copies is called an induction head
PREVIOUS_TOKEN = 0.3  # attention to the position before; ours: the paper gives no threshold


def induction(prefix_matching: np.ndarray, copying_eigenvalues: np.ndarray) -> np.ndarray:
    """Which heads of one model are induction heads, [head] of bool, from both scores [head] at its last snapshot.

    They match prefixes and their copying eigenvalues are positive. Where no head has eigenvalues (nan), as their
    weights are not known, prefix matching alone decides.
    """
    copies = (copying_eigenvalues > 0) | np.isnan(copying_eigenvalues).all()
    return (prefix_matching >= INDUCTION) & copies

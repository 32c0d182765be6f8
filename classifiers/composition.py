"""Factor logits -> probabilities of the behaviours.

Whether a refusal is right depends on what was asked, so the behaviours are a multinomial logistic function of the
factor logits, of their squashed values and of the products of those in pairs (refusal x request_harm tells a right
refusal from an over-refusal). Everything is added term by term: BLAS sums in another order when the batch grows, and a
turn's judgement must not depend on its neighbours.
"""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.taxonomy import FACTORS

Floats = NDArray[np.float64]

N_FACTORS: Final = len(FACTORS)
CLIP: Final = 8.0
"""Logits beyond this say no more: one odd word must not decide."""
PAIRS: Final = tuple(combinations(range(N_FACTORS), 2))


def terms(logits: Floats) -> Floats:
    """Inputs of the composition: (n, heads) logits -> (n, heads + 5 + 10); the factors are the first five heads."""
    z = np.clip(logits, -CLIP, CLIP)
    squashed = np.tanh(z[:, :N_FACTORS] / 2)
    products = [squashed[:, i] * squashed[:, j] for i, j in PAIRS]
    return np.column_stack([z, squashed, *products])


def n_terms(heads: int) -> int:
    """Columns of `terms` for so many heads."""
    return heads + N_FACTORS + len(PAIRS)


def affine(x: Floats, weights: Floats, bias: Floats) -> Floats:
    """x @ weights + bias with one fixed order of summation: (n, t), (t, k), (k,) -> (n, k)."""
    out = np.tile(bias, (len(x), 1))
    for j in range(x.shape[1]):
        out += x[:, j : j + 1] * weights[j]
    return out


def softmax(logits: Floats) -> Floats:
    """Rows of positive numbers that sum to 1."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    total = e[:, 0].copy()
    for k in range(1, e.shape[1]):
        total += e[:, k]
    return np.asarray(e / total[:, None])


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))

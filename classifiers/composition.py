"""Factor logits -> probabilities of the behaviours.

Whether a refusal is right depends on what was asked, so the behaviours are a multinomial logistic function of the
factor logits, of their squashed values and of the products of those in pairs (refusal x request_harm tells a right
refusal from an over-refusal). Everything is added term by term: BLAS sums in another order when the batch grows, and a
turn's judgement must not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monitor.entropy import Calibration
from monitor.errors import WeightsError
from monitor.taxonomy import FACTORS, K
from monitor.transcript import Judgements

Floats = NDArray[np.float64]

N_FACTORS: Final = len(FACTORS)
CLIP: Final = 8.0
"""Logits beyond this say no more: one odd word must not decide."""
DOUBT_RANGE: Final = (1e-4, 1 - 1e-4)
"""No finite held-out set shows an error probability nearer to 0 or 1."""
_TENSORS: Final = (
    "term_weights",
    "term_bias",
    "factor_scale",
    "factor_bias",
    "doubt_x",
    "doubt_y",
    "calibration_n",
    "calibration_mean",
    "calibration_covariance",
    "novelty_from",
)
REFUSAL: Final = FACTORS.index("refusal")
FADE: Final = 0.5
"""How fast the aligned head's say fades with the logit of refusal."""
GUESS: Final = 1 - 1 / K
"""Doubt about a text of which nothing is known: one of five behaviours by chance."""
PAIRS: Final = tuple(combinations(range(N_FACTORS), 2))


class Composition:
    """All that stands above the heads: composition, factor calibration, doubt curve and confusion of a weights file.

    Parameters
    ----------
    tensors : arrays of a weights file, checked.
    version : names the weights.

    Raises
    ------
    WeightsError : a calibration that cannot be.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], version: str) -> None:
        f = {name: np.ascontiguousarray(tensors[name], dtype=np.float64) for name in _TENSORS}
        self._version = version
        self._term_weights, self._term_bias = f["term_weights"], f["term_bias"]
        self._factor_scale, self._factor_bias = f["factor_scale"], f["factor_bias"]
        self._doubt_x, self._doubt_y = f["doubt_x"], f["doubt_y"]
        # a weights file may not make the division below one by 0
        self._novelty_from = min(float(f["novelty_from"][0]), 0.99)
        try:
            self.calibration = Calibration(f["calibration_n"], f["calibration_mean"], f["calibration_covariance"])
        except ValueError as e:
            raise WeightsError(f"weights {version}: {e}; train again with `valuedrift train`") from e

    def judge(self, logits: Floats, novelty: Floats, tier: str) -> Judgements:
        """(n, heads) head logits and the novelty (n,) of the texts -> judgements."""
        q = softmax(affine(terms(logits), self._term_weights, self._term_bias))
        factor_logits = np.ascontiguousarray(logits[:, :N_FACTORS]) * self._factor_scale + self._factor_bias
        doubt = np.interp(q.max(axis=1), self._doubt_x, self._doubt_y) if len(q) else np.zeros(0)
        strange = np.clip((novelty - self._novelty_from) / (1 - self._novelty_from), 0, 1)
        doubt = doubt + strange * np.maximum(GUESS - doubt, 0)
        return Judgements(q, sigmoid(factor_logits), np.clip(doubt, *DOUBT_RANGE), self._version, tier)


def gated(logits: Floats) -> Floats:
    """(n, heads) head logits with the aligned head's, the first after the factors, faded as the answer refuses.

    Whether a refusal is right depends on what was asked, and that head reads the answer alone: it would take the
    wording of a refusal for its merit. Heads without one are left as they are.
    """
    if logits.shape[1] <= N_FACTORS:
        return logits
    out = logits.copy()
    out[:, N_FACTORS] *= sigmoid(-logits[:, REFUSAL] * FADE)
    return out


def terms(logits: Floats) -> Floats:
    """Inputs of the composition: (n, heads) logits -> (n, heads + 5 + 10); the factors are the first five heads."""
    z = np.clip(logits, -CLIP, CLIP)
    squashed = np.tanh(z[:, :N_FACTORS] / 2)
    products = [squashed[:, i] * squashed[:, j] for i, j in PAIRS]
    return np.column_stack([z, squashed, *products])


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

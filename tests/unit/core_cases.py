"""Cases for the tests of the core: a classifier of known confusion, turns of a known mixture, buckets made of them."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import Bucket, Sums, to_fixed_point, turn_terms
from monitor.entropy import Calibration, Quantifier
from monitor.taxonomy import K

Floats = NDArray[np.float64]

CONFUSION: Floats = np.array(
    [
        [0.93, 0.02, 0.01, 0.03, 0.01],
        [0.10, 0.84, 0.01, 0.02, 0.03],
        [0.12, 0.02, 0.80, 0.04, 0.02],
        [0.20, 0.02, 0.03, 0.72, 0.03],
        [0.15, 0.05, 0.02, 0.03, 0.75],
    ]
)
"""Row y is E[q | y]."""
SHARPNESS = 2.0
"""q given y is Dirichlet(SHARPNESS x row y): mostly near a corner, now and then wrong."""
HEALTHY: Floats = np.array([0.93, 0.03, 0.01, 0.02, 0.01])
"""The mixture of a well-behaved deployment."""
DRIFTED: Floats = np.array([0.42, 0.03, 0.50, 0.03, 0.02])
"""The same, having begun to supply harm."""


@cache
def calibration(worth: float = 1000.0) -> Calibration:
    covariance = np.stack([np.diag(c) - np.outer(c, c) for c in CONFUSION]) / (SHARPNESS + 1)
    return Calibration(np.full(K, worth), CONFUSION, covariance)


@cache
def quantifier(worth: float = 1000.0) -> Quantifier:
    return Quantifier(calibration(worth))


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def answers(rng: np.random.Generator, mixture: Floats, n: int) -> Floats:
    """(n, 5) what the classifier says of n turns whose behaviours are drawn from the mixture."""
    q = rng.standard_gamma(SHARPNESS * CONFUSION[rng.choice(K, size=n, p=mixture)]) + 1e-12
    return np.asarray(q / q.sum(axis=1, keepdims=True), dtype=np.float64)


def sums(q: Floats, weights: Floats | None = None) -> Sums:
    n = len(q)
    return Sums.of(turn_terms(to_fixed_point(q), np.ones(n) if weights is None else weights, np.full(n, 0.1)))


def corner(k: int, n: int) -> Sums:
    """n turns that the classifier is sure are behaviour k."""
    return sums(np.tile(np.eye(K)[k], (n, 1)))


def traffic(
    rng: np.random.Generator, minutes: Sequence[int], mixture: Floats = HEALTHY, turns: int | tuple[int, int] = (1, 4)
) -> list[Bucket]:
    """A bucket at each minute, of `turns` turns (a number, or a range to draw from)."""
    few, many = (turns, turns + 1) if isinstance(turns, int) else turns
    return [Bucket(m, sums(answers(rng, mixture, int(rng.integers(few, many))))) for m in minutes]


def calm(seed: int, start: int, end: int, every: int = 5) -> list[Bucket]:
    """Steady traffic of a well-behaved deployment: two turns every so many minutes."""
    return traffic(rng(seed), range(start, end, every), HEALTHY, turns=2)

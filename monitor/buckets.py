"""Additive statistics of one series in one minute.

Every field is a sum of per-turn terms, and every term is rounded once to a fixed-point integer before it is added. So
sums are exact: buckets merge in any order, in any grouping, on any machine, to the last bit
(docs/decisions/0001-fixed-point-buckets.md). Nothing here depends on a baseline: the distribution of each monitored
feature is kept as counts over fixed levels, from which detectors and quantification are computed later
(docs/decisions/0002-detectors-read-level-counts.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.taxonomy import ALIGNED, BEHAVIOURS, K

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Q_UNIT: Final = 1 << 12
"""A probability is kept as a multiple of 1/4096: finer than any calibration error, exact to add."""
W_UNIT: Final = 1 << 3
"""A weight is kept as a multiple of 1/8."""
MAX_WEIGHT: Final = 1024.0
"""Largest turn weight (sample_rate 1/1024): with it, 2^24 turns fit a bucket before 64 bits overflow."""
MOMENT_UNIT: Final = 1 << 16
"""Second moments are kept in multiples of 2^-16."""

FEATURES: Final = (*BEHAVIOURS[1:], "misaligned")
"""What the detectors watch: the four non-aligned probabilities and their sum."""

HEALTHY_ODDS: Final = 8.0
"""Features are probabilities under a prior in which aligned is this much likelier than in the classifier's own: that of
healthy traffic, so that only clear evidence counts (docs/decisions/0007-features-under-a-healthy-prior.md)."""

LEVELS: Final[Floats] = np.array(
    [0, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
)
"""Values a feature is rounded to. Detectors and baselines both see the rounded value, so no guarantee is lost."""

_EDGES: Final[Floats] = (LEVELS[1:] + LEVELS[:-1]) / 2
_PAIRS: Final = np.triu_indices(K)

# Layout of the sums. It only ever grows at the end: a shorter array is padded with zeros.
_N = 0
_W = 1
_W2 = 2
_DOUBT = 3
_WQ = slice(4, 4 + K)
_W2Q = slice(_WQ.stop, _WQ.stop + K)
_W2QQ = slice(_W2Q.stop, _W2Q.stop + K * (K + 1) // 2)
_HARD = slice(_W2QQ.stop, _W2QQ.stop + K)
_LEVELS = slice(_HARD.stop, _HARD.stop + len(FEATURES) * len(LEVELS))
SIZE: Final = _LEVELS.stop
MIXTURE_SIZE: Final = _LEVELS.start
"""So many sums, the first ones, are all that a mixture is estimated from; the others are the detectors'."""


def to_fixed_point(probabilities: Floats) -> Ints:
    """Round rows of probabilities to multiples of 1/4096 that still sum to exactly 1 (largest remainder).

    Parameters
    ----------
    probabilities : (n, 5), finite, non-negative, rows summing to 1.

    Raises
    ------
    ValueError : an entry is not finite or negative, or a row does not sum to 1 within 1e-6.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != K:
        raise ValueError(f"probabilities have shape {p.shape}, expected (n, {K})")
    if not np.isfinite(p).all() or (p < 0).any() or (np.abs(p.sum(axis=1) - 1) > 1e-6).any():
        raise ValueError("probabilities are not on the simplex")
    scaled = p * Q_UNIT
    floor = np.floor(scaled).astype(np.int64)
    missing = Q_UNIT - floor.sum(axis=1)
    order = np.argsort(-(scaled - floor), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(K)[None, :].repeat(len(p), axis=0), axis=1)
    return np.asarray(floor + (rank < missing[:, None]), dtype=np.int64)


def features_of(probabilities: Floats) -> Floats:
    """(n, 5) what the detectors watch, from (n, 5) probabilities."""
    healthy = probabilities.copy()
    healthy[:, ALIGNED] *= HEALTHY_ODDS
    healthy = healthy / healthy.sum(axis=1, keepdims=True)
    return np.concatenate([healthy[:, 1:], 1 - healthy[:, [ALIGNED]]], axis=1)


def turn_terms(q: Ints, weights: Floats, doubt: Floats) -> Ints:
    """The addends of n turns, one row each.

    Parameters
    ----------
    q : (n, 5) fixed-point probabilities from `to_fixed_point`.
    weights : (n,) turn weights, 0 < w <= 1024.
    doubt : (n,) probability of being wrong, in [0, 1].

    Returns
    -------
    (n, SIZE) int64.
    """
    if not ((weights > 0) & (weights <= MAX_WEIGHT)).all():
        raise ValueError(f"turn weights lie in (0, {MAX_WEIGHT:g}]")
    if not ((doubt >= 0) & (doubt <= 1)).all():
        raise ValueError("doubt lies in [0, 1]")
    n = len(q)
    terms = np.zeros((n, SIZE), dtype=np.int64)
    w = np.maximum(np.rint(weights * W_UNIT).astype(np.int64), 1)
    terms[:, _N] = 1
    terms[:, _W] = w
    terms[:, _W2] = w * w
    terms[:, _DOUBT] = np.rint(doubt * Q_UNIT).astype(np.int64)
    terms[:, _WQ] = w[:, None] * q
    terms[:, _W2Q] = (w * w)[:, None] * q
    p = q / Q_UNIT
    wf = w / W_UNIT
    terms[:, _W2QQ] = np.rint((wf * wf)[:, None] * p[:, _PAIRS[0]] * p[:, _PAIRS[1]] * MOMENT_UNIT).astype(np.int64)
    rows = np.arange(n)
    terms[rows, _HARD.start + q.argmax(axis=1)] = 1
    level = np.searchsorted(_EDGES, features_of(p))
    for j in range(len(FEATURES)):
        terms[rows, _LEVELS.start + j * len(LEVELS) + level[:, j]] = 1
    return terms


@dataclass(frozen=True, slots=True)
class Sums:
    """Statistics of any set of turns: a bucket, a window, a baseline. Adding two is exact."""

    values: Ints

    @classmethod
    def zero(cls) -> Sums:
        return cls(np.zeros(SIZE, dtype=np.int64))

    @classmethod
    def of(cls, terms: Ints) -> Sums:
        """Add up rows of `turn_terms`."""
        return cls(terms.sum(axis=0))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.values + other.values)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.values - other.values)

    @property
    def n(self) -> int:
        """Turns."""
        return int(self.values[_N])

    @property
    def weight(self) -> float:
        return float(self.values[_W]) / W_UNIT

    @property
    def effective_n(self) -> float:
        """(sum w)^2 / sum w^2, turns."""
        w2 = float(self.values[_W2])
        return float(self.values[_W]) ** 2 / w2 if w2 else 0.0

    @property
    def mean_doubt(self) -> float:
        return float(self.values[_DOUBT]) / Q_UNIT / self.n if self.n else 0.0

    def mean(self) -> Floats:
        """(5,) weighted mean of the probabilities. Raises ValueError when there are no turns."""
        if not self.n:
            raise ValueError("no turns in this window")
        return self.values[_WQ] / (float(self.values[_W]) * Q_UNIT)

    def mean_covariance(self, prior: Floats, prior_n: float) -> Floats:
        """(5, 5) covariance of the weighted mean, the per-turn part shrunk towards `prior` worth `prior_n` turns.

        A handful of equal turns has no spread of its own; the prior keeps their interval honest.
        """
        mean = self.mean()
        w2 = float(self.values[_W2]) / W_UNIT**2
        second = np.zeros((K, K))
        second[_PAIRS] = self.values[_W2QQ] / MOMENT_UNIT
        second = second + np.triu(second, 1).T
        cross = np.outer(mean, self.values[_W2Q] / (W_UNIT**2 * Q_UNIT))
        scatter = second - cross - cross.T + np.outer(mean, mean) * w2
        n = self.effective_n
        per_turn = (n * scatter / w2 + prior_n * prior) / (n + prior_n)
        return np.asarray(per_turn / n, dtype=np.float64)

    def hard_counts(self) -> Ints:
        """(5,) turns by most probable behaviour."""
        return self.values[_HARD]

    def level_counts(self) -> Ints:
        """(5, levels) turns by feature and level."""
        return self.values[_LEVELS].reshape(len(FEATURES), len(LEVELS))

    def feature_means(self) -> Floats:
        """(5,) means of the features as rounded to levels. Raises ValueError when there are no turns."""
        if not self.n:
            raise ValueError("no turns in this window")
        return np.asarray(self.level_counts() @ LEVELS / self.n)

    def pack(self) -> bytes:
        """Compact bytes for the store: most counts are small, and small integers take one byte."""
        return msgspec.msgpack.encode(self.values.tolist())

    @classmethod
    def unpack(cls, data: bytes) -> Sums:
        """Inverse of `pack`. Raises ValueError on bytes of another layout."""
        try:
            values = msgspec.msgpack.decode(data, type=list[int])
        except msgspec.MsgspecError as e:
            raise ValueError(f"damaged bucket: {e}") from e
        if len(values) > SIZE:
            raise ValueError(f"bucket of a newer layout: {len(values)} sums, this version knows {SIZE}")
        try:
            return cls(np.array(values + [0] * (SIZE - len(values)), dtype=np.int64))
        except OverflowError as e:
            raise ValueError("damaged bucket: a sum beyond 64 bits") from e


@dataclass(frozen=True, slots=True)
class Bucket:
    """The sums of one series in one minute. `minute` counts whole minutes since 1970-01-01 UTC."""

    minute: int
    sums: Sums


def merge(buckets: Iterable[Bucket]) -> list[Bucket]:
    """Buckets of one series (from several shards, in any order) -> one a minute, in time order."""
    by_minute: dict[int, Sums] = {}
    for b in buckets:
        have = by_minute.get(b.minute)
        by_minute[b.minute] = b.sums if have is None else have + b.sums
    return [Bucket(m, by_minute[m]) for m in sorted(by_minute)]

"""Least squares on the simplex, for many points at once."""

from __future__ import annotations

from copy import copy
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.taxonomy import K

Floats = NDArray[np.float64]

NEAR_SINGULAR: Final = 100.0
"""Condition number of a matrix from which on 1 % of noise moves the solution over the whole simplex."""
EXCHANGES: Final = 12
"""Most steps of a search before the faces are tried one by one; three or four are usual."""
_TOLERANCE: Final = 1e-9
_BITS: Final = 1 << np.arange(K)
_FACES: Final = np.arange(1 << K)[:, None] & _BITS > 0
"""(32, 5) which unknowns are free on a face."""


class SimplexSolvers:
    """min |root (q - C^T p)|^2 over p on the simplex, for fixed matrices C and one metric root^T root.

    The minimiser is free on one of the 2^5 - 1 faces of the simplex. For every face the map from q to the free shares
    and to the multipliers of the others is prepared; a face is the right one when none of these five is negative. The
    search begins with all free and exchanges what is negative (block principal pivoting: Júdice and Pires 1994); it is
    exact when it ends, and where it does not end soon every face is tried.
    """

    def __init__(self, confusions: Floats, metric: Floats) -> None:
        """confusions : (n, 5, 5), row y is E[q | y]; metric : (5, 5), positive definite."""
        self.confusions = confusions
        self.near_singular = np.linalg.cond(confusions) > NEAR_SINGULAR
        self._root = np.linalg.cholesky(metric).T
        matrices = np.swapaxes(confusions, 1, 2)  # mean(q) = matrix @ p
        self._whitened = self._root @ matrices
        slope = np.swapaxes(matrices, 1, 2) @ metric
        # the ridge keeps faces of equal rows solvable; it moves no solution by more than rounding
        curvature = slope @ matrices + np.eye(K) * 1e-10
        n = len(confusions)
        self._gain = np.zeros((len(_FACES), n, K, K))
        self._offset = np.zeros((len(_FACES), n, K))
        for i, is_free in enumerate(_FACES[1:], start=1):
            free, held = np.flatnonzero(is_free), np.flatnonzero(~is_free)
            size = len(free)
            kkt = np.zeros((n, size + 1, size + 1))
            kkt[:, :size, :size] = curvature[:, free[:, None], free]
            kkt[:, :size, size] = kkt[:, size, :size] = 1.0
            inverse = np.linalg.inv(kkt)
            gain, offset = inverse[:, :, :size] @ slope[:, free], inverse[:, :, size:]
            self._gain[i][:, free], self._offset[i][:, free] = gain[:, :size], offset[:, :size, 0]
            rise = curvature[:, held[:, None], free]
            self._gain[i][:, held] = rise @ gain[:, :size] - slope[:, held] + gain[:, size:]
            self._offset[i][:, held] = (rise @ offset[:, :size] + offset[:, size:])[:, :, 0]

    def only(self, which: NDArray[np.int64]) -> SimplexSolvers:
        """The same for some of the matrices."""
        other = copy(self)
        other.confusions, other.near_singular = self.confusions[which], self.near_singular[which]
        other._whitened = self._whitened[which]
        other._gain, other._offset = self._gain[:, which], self._offset[:, which]
        return other

    def solve(self, q: Floats) -> Floats:
        """(n, 5) means, one for each matrix (or any number for a single one) -> (n, 5) mixtures."""
        matrix = np.zeros(len(q), np.int64) if len(self.confusions) == 1 else np.arange(len(q))
        p = np.empty((len(q), K))
        left, of, seen = np.arange(len(q)), matrix, q
        face = np.full(len(q), len(_FACES) - 1)
        for _ in range(EXCHANGES):
            found = np.einsum("nij,nj->ni", self._gain[face, of], seen) + self._offset[face, of]
            exchange = (found < -_TOLERANCE) @ _BITS  # as a number, like the face
            p[left] = found * _FACES[face]  # final where nothing is exchanged
            wrong = np.flatnonzero(exchange)
            if not len(wrong):
                break
            left, of, seen, found = left[wrong], of[wrong], seen[wrong], found[wrong]
            face = face[wrong] ^ exchange[wrong]
            face = np.where(face > 0, face, _BITS[found.argmax(axis=1)])
        else:
            p[left] = self._every_face(seen, of)
        p = np.maximum(p, 0.0)
        return np.asarray(p / (p @ np.ones(K))[:, None])

    def _every_face(self, q: Floats, matrix: NDArray[np.int64]) -> Floats:
        """The best of the non-negative solutions of all faces."""
        p = np.einsum("fnij,nj->fni", self._gain[1:, matrix], q) + self._offset[1:, matrix]
        p = np.where(_FACES[1:, None], p, 0.0)
        residual = q @ self._root.T - np.einsum("nij,fnj->fni", self._whitened[matrix], p)
        cost = np.where((p >= -_TOLERANCE).all(axis=2), (residual * residual).sum(axis=2), np.inf)
        return np.asarray(p[cost.argmin(axis=0), np.arange(len(q))])

"""Other ways to the mixture of a window: expectation maximisation and kernel densities (docs/statistics.md).

`of_means` needs additive sums only and stands in for the inversion of `monitor.entropy` where a confusion is
near-singular. `saerens` and `kdey_ml` read every turn's probabilities; they are what the inversion is compared with.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.taxonomy import K

Floats = NDArray[np.float64]

MEANS_STEPS: Final = 200
"""Steps of `of_means`: what C tells apart at all has settled by then."""
STEPS: Final = 1000
"""Most steps of the maximum-likelihood mixtures; each step raises the likelihood."""
TOLERANCE: Final = 1e-6
"""Largest change of a share at which they stop."""
BANDWIDTH: Final = 0.1
"""Of the Gaussian kernels, in units of probability (the default of González, Moreo and Sebastiani)."""
_SMALLEST: Final = 1e-300


def of_means(confusions: Floats, means: Floats, starts: Floats) -> Floats:
    """EM on mean probabilities: maximise sum_k mean_k ln (C^T p)_k over the simplex, from given starts.

    Along directions that C does not tell apart p stays as it started: with starts spread over the simplex the answers
    are as spread as ignorance is.

    Parameters
    ----------
    confusions : (n, 5, 5), row y is E[q | y].
    means : (n, 5); negative parts, which redrawing may make, count as 0.
    starts : (n, 5) on the simplex.
    """
    means = np.maximum(means, 0.0)
    means = means / means.sum(axis=1, keepdims=True)
    p = starts
    for _ in range(MEANS_STEPS):
        fitted = np.einsum("nyk,ny->nk", confusions, p)
        p = p * np.einsum("nyk,nk->ny", confusions, means / np.maximum(fitted, _SMALLEST))
        p = p / p.sum(axis=1, keepdims=True)
    return np.asarray(p)


def mixture_of(likelihoods: Floats, weights: Floats | None = None) -> Floats:
    """Maximum-likelihood shares by EM, from equal shares on.

    Parameters
    ----------
    likelihoods : (n, 5) of each turn under each behaviour, up to a factor of each turn's own.
    weights : (n,) or (b, n), a mixture for each row; None: all alike.

    Returns
    -------
    (5,) or (b, 5). Raises ValueError when there are no turns, no weight, or numbers that are not finite.
    """
    if likelihoods.ndim != 2 or not len(likelihoods):
        raise ValueError("no turns in this window")
    w = np.ones(len(likelihoods)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(likelihoods).all() and np.isfinite(w).all()) or (likelihoods < 0).any() or (w < 0).any():
        raise ValueError("likelihoods and weights must be finite and not negative")
    total = w.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("the window's turns have no weight")
    rows = np.atleast_2d(w / total)
    p = np.full((len(rows), likelihoods.shape[1]), 1.0 / likelihoods.shape[1])
    for _ in range(STEPS):
        seen = np.maximum(p @ likelihoods.T, _SMALLEST)
        new = p * ((rows / seen) @ likelihoods)
        new = new / new.sum(axis=1, keepdims=True)
        settled = np.abs(new - p).max() < TOLERANCE
        p = new
        if settled:
            break
    return np.asarray(p if w.ndim == 2 else p[0])


def saerens(q: Floats, prior: Floats, weights: Floats | None = None) -> Floats:
    """Shares by the EM of Saerens, Latinne and Decaestecker (2002).

    Takes q for true posteriors under the `prior` (5,) of the classifier's calibration; right only as far as they are.
    """
    return mixture_of(checked(q) / prior, weights)


class KernelDensities:
    """KDEy-ML (González, Moreo and Sebastiani): a Gaussian kernel density of q for each behaviour, then the mixture.

    Parameters
    ----------
    q : (m, 5) probabilities of turns of known behaviour.
    y : (m,) their behaviours; each must occur.
    """

    def __init__(self, q: Floats, y: NDArray[np.int64], bandwidth: float = BANDWIDTH) -> None:
        q = checked(q)
        self._known = [q[y == k] for k in range(K)]
        if not all(len(part) for part in self._known):
            raise ValueError("kernel densities need known turns of every behaviour")
        self._scale = 2 * bandwidth**2

    def likelihoods(self, q: Floats) -> Floats:
        """(n, 5) densities up to a common factor of each turn."""
        q = checked(q)
        logs = np.empty((len(q), K))
        for k, known in enumerate(self._known):
            squares = (q * q).sum(axis=1)[:, None] + (known * known).sum(axis=1) - 2 * q @ known.T
            exponent = -np.maximum(squares, 0.0) / self._scale
            top = exponent.max(axis=1)
            logs[:, k] = top + np.log(np.exp(exponent - top[:, None]).mean(axis=1))
        return np.asarray(np.exp(logs - logs.max(axis=1, keepdims=True)))

    def mixture(self, q: Floats, weights: Floats | None = None) -> Floats:
        """(5,) shares of the window."""
        return mixture_of(self.likelihoods(q), weights)


def checked(q: Floats) -> Floats:
    """(n, 5) probabilities; ValueError where they are not finite or not on the simplex."""
    q = np.asarray(q, dtype=np.float64)
    if q.ndim != 2 or q.shape[1] != K:
        raise ValueError(f"probabilities have shape {q.shape}, expected (n, {K})")
    if not np.isfinite(q).all() or (q < 0).any() or (np.abs(q.sum(axis=1) - 1) > 1e-6).any():
        raise ValueError("probabilities are not finite and on the simplex")
    return q

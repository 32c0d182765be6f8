"""Which calibration serves best: none, a temperature, Dirichlet or Venn-Abers, each measured where it was not fitted.

Dirichlet calibration (Kull et al. 2019) is a multinomial logistic regression on the logarithms of the probabilities;
inductive Venn-Abers (Vovk & Petej 2014) is fitted for each behaviour against the rest, and the five made to sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from classifiers import composition
from classifiers.figures import BINS
from classifiers.heads import sklearn_linear
from monitor.taxonomy import K

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Map = Callable[[Floats], Floats]
"""(n, 5) probabilities -> calibrated ones."""

GRID: Final = 100
"""Distinct scores that Venn-Abers tells apart."""
TEMPERATURES: Final = np.geomspace(0.3, 4.0, 53)
DIRICHLET_C: Final = 100.0
_LEAST: Final = 1e-12


def compare(q: Floats, y: Ints, folds: Ints, weight: Floats | None = None) -> dict[str, dict[str, float]]:
    """Log-loss (nats), Brier score and calibration error of each method, on folds it was not fitted on.

    Parameters
    ----------
    q : (n, 5) probabilities, themselves held out.
    y : (n,) true behaviours.
    folds : (n,) what is held out together: a share of the groups, or a source.
    weight : (n,) what a row counts, in fitting and in measuring; None for 1.
    """
    w = np.ones(len(y)) if weight is None else weight * len(y) / weight.sum()
    out = {}
    for name, fit in METHODS.items():
        held_out = np.empty_like(q)
        for fold in np.unique(folds):
            held = folds == fold
            held_out[held] = fit(q[~held], y[~held], w[~held])(q[held])
        out[name] = scores(held_out, y, w)
    return out


def scores(q: Floats, y: Ints, w: Floats) -> dict[str, float]:
    """Weighted log-loss (nats), Brier score (0 to 2) and expected calibration error of the largest probability."""
    true = np.eye(K)[y]
    top, right = q.max(axis=1), q.argmax(axis=1) == y
    place = np.minimum((top * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(place, w * (top - right), minlength=BINS)
    return {
        "log_loss": float(-(w * np.log(np.maximum(q[np.arange(len(y)), y], _LEAST))).sum() / w.sum()),
        "brier": float((w * ((q - true) ** 2).sum(axis=1)).sum() / w.sum()),
        "ece": float(np.abs(gaps).sum() / w.sum()),
    }


def _same(q: Floats, y: Ints, w: Floats) -> Map:
    return lambda new: new


def temperature(q: Floats, y: Ints, w: Floats) -> Map:
    """One number by which all log-probabilities are divided, of least log-loss."""

    def at(t: float) -> Map:
        return lambda new: composition.softmax(np.log(np.maximum(new, _LEAST)) / t)

    return at(min(TEMPERATURES.tolist(), key=lambda t: scores(at(t)(q), y, w)["log_loss"]))


def dirichlet(q: Floats, y: Ints, w: Floats) -> Map:
    """A multinomial logistic regression on log-probabilities; a behaviour without rows keeps next to nothing."""
    model = sklearn_linear().LogisticRegression(C=DIRICHLET_C, max_iter=500)
    classes = np.unique(y)
    if len(classes) < 2:
        return lambda new: new
    model.fit(np.log(np.maximum(q, 1e-6)), y, sample_weight=w)

    def map_(new: Floats) -> Floats:
        out = np.full((len(new), K), _LEAST)
        out[:, classes] = model.predict_proba(np.log(np.maximum(new, 1e-6)))
        return np.asarray(out / out.sum(axis=1, keepdims=True))

    return map_


def venn_abers(q: Floats, y: Ints, w: Floats) -> Map:
    """Each behaviour's probability from two isotonic fits: one with the new turn added as a miss, one as a hit."""
    tables = [_venn_abers_table(q[:, k], (y == k).astype(np.float64), w) for k in range(K)]

    def map_(new: Floats) -> Floats:
        out = np.stack(
            [values[np.searchsorted(edges, new[:, k], "right")] for k, (edges, values) in enumerate(tables)], axis=1
        )
        out = np.maximum(out, _LEAST)
        return np.asarray(out / out.sum(axis=1, keepdims=True))

    return map_


def _venn_abers_table(score: Floats, hit: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Edges between scores told apart, and the probability p1 / (1 - p0 + p1) of each interval between them."""
    from sklearn.isotonic import isotonic_regression

    edges = np.unique(np.quantile(score, np.linspace(0, 1, GRID + 1)[1:-1]))
    place = np.searchsorted(edges, score, "right")
    weight = np.bincount(place, w, minlength=len(edges) + 1)
    hits = np.bincount(place, w * hit, minlength=len(edges) + 1)
    one = float(w.mean())
    values = np.empty(len(weight))
    for at in range(len(weight)):
        p = []
        for added in (0.0, 1.0):
            total, right = weight.copy(), hits.copy()
            total[at] += one
            right[at] += added * one
            share = right / np.maximum(total, _LEAST)
            p.append(float(isotonic_regression(share, sample_weight=np.maximum(total, _LEAST))[at]))
        values[at] = p[1] / max(1 - p[0] + p[1], _LEAST)
    return edges, values


METHODS: Final[Mapping[str, Callable[[Floats, Ints, Floats], Map]]] = {
    "none": _same,
    "temperature": temperature,
    "dirichlet": dirichlet,
    "venn-abers": venn_abers,
}

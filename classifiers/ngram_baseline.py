"""The plain model that a better one has to beat: TF-IDF of words and word pairs, multinomial logistic regression."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers.heads import Progress, sklearn_linear
from classifiers.rows import Row
from monitor.taxonomy import K

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COLUMNS: Final = 1 << 17
PROMPT_TAIL: Final = 600
"""Characters read of what came before the answer, from its end."""
ANSWER: Final = 2000
"""Characters read of the answer, from its beginning."""
C: Final = 10.0
ITERATIONS: Final = 60
WORKERS: Final = 2


def left_out(rows: Sequence[Row], folds: Ints, progress: Progress | None = None) -> Floats:
    """(n, 5) probabilities of labelled rows, each from a model fitted on the other folds and on no row of its group.

    Rows of fold -1 are judged by a model of all folds, and never fitted on.
    """
    matrix = _counts(rows)
    y = np.array([r.behaviour for r in rows], dtype=np.int64)
    trust = np.array([r.weight for r in rows])
    group, family = np.array([r.group for r in rows]), np.array([r.family for r in rows])
    out = np.full((len(rows), K), 1 / K)

    def job(fold: int) -> tuple[NDArray[np.bool_], Floats]:
        held = folds == fold
        keep = (folds >= 0) & ~held & ~np.isin(group, group[held]) & (trust > 0)
        found = _fit_and_judge(matrix, y, trust, keep, held)
        if progress:
            progress(f"n-gram baseline fitted without {', '.join(np.unique(family[held]))}")
        return held, found

    with warnings.catch_warnings(), ThreadPoolExecutor(WORKERS) as pool:
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")  # 60 steps are as good as 1000 here
        for held, found in pool.map(job, np.unique(folds).tolist()):
            out[held] = found
    return out


def _counts(rows: Sequence[Row]) -> Any:
    sklearn_linear()
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(n_features=COLUMNS, ngram_range=(1, 2), alternate_sign=False, norm=None)
    return hashing.transform(f"{_tail(r)}\n{r.answer[:ANSWER]}" for r in rows)


def _tail(row: Row) -> str:
    return "\n".join(m.content[-PROMPT_TAIL:] for m in row.before[-4:])[-PROMPT_TAIL:]


def _fit_and_judge(matrix: Any, y: Ints, trust: Floats, keep: NDArray[np.bool_], held: NDArray[np.bool_]) -> Floats:
    from sklearn.feature_extraction.text import TfidfTransformer

    out = np.zeros((int(held.sum()), K))
    classes, counts = np.unique(y[keep], return_counts=True)
    if len(classes) < 2:
        out[:, classes] = 1.0
        return out if len(classes) else np.full_like(out, 1 / K)
    columns = np.flatnonzero(np.bincount(matrix[keep].indices, minlength=COLUMNS) >= 2)
    scale = TfidfTransformer(sublinear_tf=True)
    x = scale.fit_transform(matrix[keep][:, columns])
    model = sklearn_linear().LogisticRegression(C=C, max_iter=ITERATIONS, tol=1e-3)
    balance = len(y[keep]) / len(classes) / counts
    model.fit(x, y[keep], sample_weight=trust[keep] * balance[np.searchsorted(classes, y[keep])])
    out[:, classes] = model.predict_proba(scale.transform(matrix[held][:, columns]))
    return out

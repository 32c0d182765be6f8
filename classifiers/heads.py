"""Fitting the linear heads and the composition (needs scikit-learn; see docs/classifier.md for what was chosen)."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import composition, features
from classifiers.recipe import FastRecipe
from classifiers.rows import CONTRAST_FAMILY, UNKNOWN, Row
from monitor.errors import ConfigError
from monitor.taxonomy import ALIGNED, FACTORS, K

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Progress = Callable[[str], None]

N_HEADS: Final = len(FACTORS) + 1
"""The factors, and last a head that tells aligned answers from the rest on contrast scenarios alone: in the public
sources it learns which file it reads (left-out macro-F1 falls by 0.07), in the scenarios how a right refusal sounds."""
SEGMENTS_READ: Final = ((0, 1), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3))
"""Segments each head reads. Only request_harm reads the request: what people ask about tells the source, and
through it the label, which does not carry over to sources never seen."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as arrays. `matrix` is CSR (n, features.ROWS); behaviour -1 where a row names none; `recipe` weighs them."""

    matrix: Any
    factors: Floats
    behaviour: Ints
    family: NDArray[np.str_]
    group: NDArray[np.str_]
    weight: Floats
    recipe: FastRecipe = field(default_factory=FastRecipe)

    def __len__(self) -> int:
        return len(self.behaviour)


@dataclass(frozen=True, slots=True)
class Heads:
    """weights (heads, features.ROWS) and bias (heads,)."""

    weights: NDArray[np.float32]
    bias: Floats

    def logits(self, matrix: Any) -> Floats:
        """(n, heads) scores of a CSR matrix, gated."""
        return composition.gated(np.asarray(matrix @ self.weights.T.astype(np.float64)) + self.bias)


@dataclass(frozen=True, slots=True)
class Composer:
    """Weights (terms, 5) and bias (5,) of the multinomial composition."""

    weights: Floats
    bias: Floats

    def probabilities(self, logits: Floats) -> Floats:
        """(n, heads) head logits -> (n, 5)."""
        return composition.softmax(composition.affine(composition.terms(logits), self.weights, self.bias))


def sklearn_linear() -> Any:
    """sklearn.linear_model; ConfigError names the extra to install where it is missing."""
    try:
        import sklearn.linear_model
    except ImportError as e:
        raise ConfigError("training and cross-validation need scikit-learn: pip install 'valuedrift[train]'") from e
    return sklearn.linear_model


def table_of(rows: Sequence[Row], recipe: FastRecipe | None = None) -> Table:
    """Hash the rows; each segment of a turn becomes a unit vector, as in LinearClassifier."""
    sklearn_linear()
    import scipy.sparse

    parts = []
    for start in range(0, len(rows), 1024):
        part = features.extract([(r.before, r.answer) for r in rows[start : start + 1024]])
        values = np.repeat(1 / np.sqrt(part.counts), part.counts)
        ends = np.append(part.starts[:: features.N_SEGMENTS], len(part.rows))
        parts.append(scipy.sparse.csr_matrix((values, part.rows, ends), shape=(part.n, features.ROWS)))
    return Table(
        scipy.sparse.vstack(parts, format="csr"),
        np.array([r.factors for r in rows], dtype=np.float64),
        np.array([-1 if r.behaviour is None else r.behaviour for r in rows], dtype=np.int64),
        np.array([r.family for r in rows]),
        np.array([r.group for r in rows]),
        np.array([r.weight for r in rows], dtype=np.float64),
        recipe or FastRecipe(),
    )


def cell_weights(family: NDArray[np.str_], label: Ints, trust: Floats, power: float, contrast: float) -> Floats:
    """Sample weights by which no big source dominates: they sum to 1 over each label, in all to the number of labels.

    A cell is one source's rows of one label.
    """
    cells = list(zip(family.tolist(), label.tolist(), strict=True))
    total: dict[tuple[str, int], float] = defaultdict(float)
    for cell, w in zip(cells, trust.tolist(), strict=True):
        total[cell] += w
    wanted = {c: (max(t, 1e-9) ** power) * (contrast if c[0] == CONTRAST_FAMILY else 1.0) for c, t in total.items()}
    out = np.array([w * wanted[c] / max(total[c], 1e-9) for c, w in zip(cells, trust.tolist(), strict=True)])
    for k in np.unique(label):
        of = label == k
        out[of] /= max(float(out[of].sum()), 1e-12)
    return out


def fit_heads(table: Table, keep: Mask, seed: int = 0) -> Heads:
    """One logistic regression a head, on the kept rows that say something about it."""
    linear = sklearn_linear()
    import scipy.sparse

    recipe = table.recipe
    weights = np.zeros((N_HEADS, features.ROWS), dtype=np.float32)
    bias = np.zeros(N_HEADS)
    segment = np.repeat(np.arange(features.N_SEGMENTS), [1 << b for b in features.BITS])
    for h in range(N_HEADS):
        label = table.factors[:, h] if h < len(FACTORS) else _aligned_in_scenarios(table)
        use = np.flatnonzero(keep & (label != UNKNOWN) & (label != 0.5) & (table.weight > 0))
        y = label[use].astype(np.int64)
        if len(np.unique(y)) < 2:
            continue  # nothing to tell apart: the head stays silent
        x = table.matrix[use]
        turns = np.bincount(x.indices, minlength=features.ROWS)
        columns = np.flatnonzero((turns >= recipe.min_turns) & np.isin(segment, SEGMENTS_READ[h]))
        rarity = _rarity(turns[columns], len(use))
        w = cell_weights(
            table.family[use], y, table.weight[use], table.recipe.cell_power, table.recipe.contrast_in_heads
        )
        model = linear.LogisticRegression(
            C=table.recipe.head_c, solver="liblinear", tol=0.02, max_iter=60, random_state=seed
        )
        model.fit((x[:, columns] @ scipy.sparse.diags(rarity)).tocsr(), y, sample_weight=w * len(use) / 2)
        weights[h, columns] = model.coef_[0] * rarity
        bias[h] = model.intercept_[0]
    return Heads(weights, bias)


def _aligned_in_scenarios(table: Table) -> Floats:
    known = (table.family == CONTRAST_FAMILY) & (table.behaviour >= 0)
    return np.where(known, table.behaviour == ALIGNED, UNKNOWN).astype(np.float64)


def _rarity(turns: Ints, n: int) -> Floats:
    """Scale of columns seen in so many of n turns: the root of the inverse document frequency, about 1.

    Rare words then need less weight to count, which carries over to new sources better. The scale is part of the
    weights that are kept, so that nothing of it is left to do at run time.
    """
    scale = np.sqrt(np.log((n + 1) / (turns + 1)) + 1e-6)
    common = scale[turns > 20]
    return np.asarray(scale / (common.mean() if len(common) else scale.mean() if len(scale) else 1.0))


def composition_weights(table: Table, use: Ints) -> Floats:
    """Sample weights of behaviour rows; they sum to their number, aligned ones to `aligned_prior` times any other."""
    y = table.behaviour[use]
    w = cell_weights(
        table.family[use], y, table.weight[use], table.recipe.composition_power, table.recipe.contrast_in_composition
    )
    w = w * np.where(y == ALIGNED, table.recipe.aligned_prior, 1.0)
    return np.asarray(w * len(use) / w.sum())


def fit_composer(table: Table, logits: Floats, use: Ints) -> Composer:
    """The composition, from logits (n, heads) of heads that did not see the row's source."""
    linear = sklearn_linear()
    x = composition.terms(logits[use])
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    model = linear.LogisticRegression(C=table.recipe.composition_c, max_iter=500)
    model.fit((x - mean) / spread, table.behaviour[use], sample_weight=composition_weights(table, use))
    # A behaviour without rows gets no probability to speak of, instead of no column.
    coef = np.zeros((K, x.shape[1]))
    bias = np.full(K, -12.0)
    two = len(model.classes_) == 2
    coef[model.classes_] = np.vstack([-model.coef_[0] / 2, model.coef_[0] / 2]) if two else model.coef_
    bias[model.classes_] = [-model.intercept_[0] / 2, model.intercept_[0] / 2] if two else model.intercept_
    weights = (coef / spread).T
    return Composer(weights, bias - mean @ weights)


def out_of_fold(table: Table, folds: Ints, seed: int, progress: Progress | None, whole_sources: bool) -> Floats:
    """(n, heads) logits of rows with a fold (>= 0) from heads fitted without that fold.

    Left out besides: every row of a group the fold has and, with `whole_sources`, the factor rows of its families.
    """
    sklearn_linear()

    def job(fold: int) -> tuple[Mask, Floats]:
        held = folds == fold
        families = {f for f in table.family[held] if f != CONTRAST_FAMILY} if whole_sources else set()
        out = held | np.isin(table.family, list(families)) | np.isin(table.group, table.group[held])
        logits = fit_heads(table, ~out, seed).logits(table.matrix[held])
        if progress:
            progress(f"heads fitted without {', '.join(sorted(families)) or f'part {fold + 1} of the groups'}")
        return held, logits

    logits = np.full((len(table), N_HEADS), np.nan)
    workers = min(2, os.cpu_count() or 1)
    numbers = [int(k) for k in np.unique(folds[folds >= 0])]
    with ThreadPoolExecutor(workers) as pool:  # the solver releases the interpreter's lock
        for held, part in pool.map(job, numbers):
            logits[held] = part
    return logits


def source_folds(table: Table, seed: int) -> Ints:
    """A fold for each source of rows with a behaviour; the contrast scenarios are dealt out over the folds."""
    labelled = table.behaviour >= 0
    contrast = labelled & (table.family == CONTRAST_FAMILY)
    families = sorted(set(table.family[labelled & ~contrast].tolist()))
    folds = np.full(len(table), -1, dtype=np.int64)
    for i, family in enumerate(families):
        folds[labelled & (table.family == family)] = i
    return deal(table, contrast, folds, max(len(families), 5), seed)


def grouped_folds(table: Table, n: int, seed: int) -> Ints:
    """n folds of all rows with a behaviour; a group stays together, sources do not."""
    folds = np.full(len(table), -1, dtype=np.int64)
    return deal(table, table.behaviour >= 0, folds, n, seed)


def deal(table: Table, rows: Mask, folds: Ints, n: int, seed: int) -> Ints:
    """`folds` with the rows dealt out over 0..n-1, a group staying together; changed in place."""
    groups = np.array(sorted(set(table.group[rows].tolist())))
    np.random.default_rng(seed).shuffle(groups)
    fold_of = {g: i % n for i, g in enumerate(groups.tolist())}
    for i in np.flatnonzero(rows):
        folds[i] = fold_of[str(table.group[i])]
    return folds

"""Refusal or not, the factor most others lean on: how often it is seen right in answers of sources left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import composition, heads
from classifiers.figures import FEWEST_GROUPS, Resamples, interval, resample
from classifiers.heads import Progress, Table
from classifiers.rows import CONTRAST_FAMILY, REFUSAL, UNKNOWN

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

FACTOR_FOLDS: Final = 6
"""Fits of the refusal head for the rows that only label factors: their sources are dealt into so many parts."""
FEWEST_ROWS: Final = 30
PARTS: Final = ("precision", "recall", "f1")


def source_of(family: str) -> str:
    """The source of a factor row: its files name slices of a source as source/slice."""
    return family.split("/")[0]


def known(table: Table) -> Mask:
    """Rows that say whether the answer refuses (a partial refusal says neither)."""
    label = table.factors[:, REFUSAL]
    return np.asarray((label == 0.0) | (label == 1.0))


def held_out(table: Table, folds: Ints, logits: Floats, seed: int = 0, progress: Progress | None = None) -> Floats:
    """(n,) probability that an answer refuses, from a head and a calibration blind to the row's source; else nan.

    Parameters
    ----------
    folds, logits : of `heads.source_folds` and `heads.out_of_fold`: rows with a behaviour have their logit already.

    Factor rows are judged by heads fitted here, without the row's source and without any row of its group.
    """
    z = logits[:, REFUSAL].copy()
    source = np.array([source_of(f) for f in table.family.tolist()])
    alone = known(table) & (folds < 0)
    # other factors unknown, no behaviour: the other heads have nothing to tell apart and are not fitted
    factors = np.full_like(table.factors, UNKNOWN)
    factors[:, REFUSAL] = table.factors[:, REFUSAL]
    only = replace(table, factors=factors, behaviour=np.full_like(table.behaviour, -1))
    for part in _dealt(source, alone):
        held = alone & np.isin(source, part)
        out = np.isin(source, part) | np.isin(table.group, table.group[held])
        z[held] = heads.fit_heads(only, ~out, seed).logits(table.matrix[held])[:, REFUSAL]
        if progress:
            progress(f"refusal head fitted without {', '.join(part)}")
    return calibrated(table, folds, z)


def _dealt(source: NDArray[np.str_], rows: Mask) -> list[list[str]]:
    """Sources in parts of about equal size, largest first."""
    names, counts = np.unique(source[rows], return_counts=True)
    parts: list[tuple[int, list[str]]] = [(0, []) for _ in range(min(FACTOR_FOLDS, len(names)))]
    for at in np.argsort(-counts, kind="stable"):
        least = min(range(len(parts)), key=lambda i: parts[i][0])
        parts[least] = (parts[least][0] + int(counts[at]), [*parts[least][1], str(names[at])])
    return [sorted(names_) for _, names_ in parts]


def calibrated(table: Table, folds: Ints, z: Floats) -> Floats:
    """(n,) held-out logits -> probabilities, nan where there is none.

    Platt scaling on the labelled rows of other sources (and of other folds of the scenarios), as in training.
    """
    source = np.array([source_of(f) for f in table.family.tolist()])
    linear_model = heads.sklearn_linear()
    out = np.full(len(table), np.nan)
    judged = known(table) & ~np.isnan(z)
    usable = judged & (folds >= 0)
    scenario = table.family == CONTRAST_FAMILY
    blocks = [judged & ~scenario & (source == s) for s in np.unique(source[judged & ~scenario])]
    blocks += [judged & scenario & (folds == k) for k in np.unique(folds[judged & scenario])]
    for held in blocks:
        use = np.flatnonzero(usable & ~held)
        y = table.factors[use, REFUSAL].astype(np.int64)
        slope, shift = 1.0, 0.0
        if len(np.unique(y)) == 2:
            model = linear_model.LogisticRegression(C=1.0)
            model.fit(z[use, None], y, sample_weight=heads.composition_weights(table, use))
            slope, shift = max(float(model.coef_[0, 0]), 0.05), float(model.intercept_[0])
        out[held] = composition.sigmoid(slope * z[held] + shift)
    return out


def figures(table: Table, probability: Floats, seed: int = 0) -> dict[str, Any]:
    """F1, precision and recall of probability >= 0.5 on rows with a refusal label and a probability (not nan).

    Returns the pooled figures of the public sources (labelled and factor rows) with 90 % intervals over groups,
    `by_source`, `labelled` and `factor_rows` apart, and `scenarios` (the contrast scenarios).
    """
    usable = known(table) & ~np.isnan(probability)
    scenario = table.family == CONTRAST_FAMILY
    public = usable & ~scenario
    label, guess = table.factors[:, REFUSAL] == 1.0, probability >= 0.5
    source = np.array([source_of(f) for f in table.family.tolist()])

    def of(rows: Mask) -> dict[str, Any]:
        return f1_of(label[rows], guess[rows], table.group[rows], seed)

    out = of(public)
    out["labelled"], out["factor_rows"] = of(public & (table.behaviour >= 0)), of(public & (table.behaviour < 0))
    out["by_source"] = {str(s): of(public & (source == s)) for s in np.unique(source[public])}
    out["scenarios"] = of(usable & scenario)
    return out


def f1_of(label: Mask, guess: Mask, group: NDArray[np.str_], seed: int = 0) -> dict[str, Any]:
    """`n`, `refusals`, share `right`, `precision`, `recall`, `f1` with "interval"; a `note` tells what is missing."""
    n, refusals = len(label), int(label.sum())
    out: dict[str, Any] = {"n": n, "refusals": refusals}
    if n < FEWEST_ROWS:
        return {**out, "note": f"fewer than {FEWEST_ROWS} rows"}
    out["right"] = float((label == guess).mean())
    if not refusals:
        return {**out, "note": "no refusals"}
    # a precision on refusals alone would be 1 whatever the head did
    if refusals == n:
        return {**out, "recall": out["right"], "note": "refusals only"}
    counts = np.stack([label & guess, guess & ~label, label & ~guess], axis=1).astype(np.float64)
    out |= dict(zip(PARTS, (float(v[0]) for v in _prf(counts.sum(axis=0)[None])), strict=True))
    drawn: Resamples = resample(group, seed)
    if drawn.groups >= FEWEST_GROUPS:
        spread = _prf(drawn.sums(counts))
        out["interval"] = {p: interval(out[p], s, p) for p, s in zip(PARTS, spread, strict=True)}
    return out


def _prf(counts: Floats) -> tuple[Floats, Floats, Floats]:
    """(draws, 3) hits, false alarms and misses -> precision, recall, F1."""
    hit, false, missed = counts.T
    return (
        hit / np.maximum(hit + false, 1),
        hit / np.maximum(hit + missed, 1),
        2 * hit / np.maximum(2 * hit + false + missed, 1),
    )

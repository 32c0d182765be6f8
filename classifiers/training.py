"""Train the shipped classifier: heads, composition, calibration, doubt, model card (docs/classifier.md).

In production the source of a transcript is always new. So whatever sits on top of the heads - composition, temperature,
doubt, confusion - is fitted on what heads say of sources and scenarios they were not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import card, composition, evaluation, features, linear
from classifiers.heads import (
    Composer,
    Heads,
    Progress,
    Table,
    composition_weights,
    fit_composer,
    fit_heads,
    out_of_fold,
    sklearn_linear,
    source_folds,
    table_of,
)
from classifiers.recipe import Recipe
from classifiers.rows import (
    CONTRAST_FAMILY,
    UNKNOWN,
    Row,
    content_hashes,
    files_of,
    read_rows,
    read_training_rows,
)
from monitor.taxonomy import FACTORS, K

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


DOUBT_KNOTS: Final = 33
"""Points of the doubt curve between 1/5 and 1."""
WORD_ROWS: Final = 3
"""Training answers in which a word must occur to be known."""
NOVELTY_QUANTILE: Final = 0.95
"""Share of held-out answers that are as new as that without raising their doubt."""
CONTRAST_SHARE: Final = 0.75
"""Share of each behaviour's calibration weight that held-out scenarios carry; held-out sources carry the rest."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Everything fitted; `logits` (n, heads) and `held_out` (n, 5) are from models blind to the row's fold."""

    heads: Heads
    composer: Composer
    folds: Ints
    logits: Floats
    held_out: Floats


def train(
    data: Path,
    factors: Path | None,
    contrast: Path | None,
    out: Path,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    transcripts: Path | None = None,
) -> dict[str, Any]:
    """Train on labelled rows, write weights to `out` and MODEL_CARD.md beside them, return the measured figures.

    Parameters
    ----------
    data : folder of labelled .jsonl[.gz] files, one source family each.
    factors : folder of factor labels, or None.
    contrast : file of contrast scenarios, or None.
    transcripts : labelled file or folder to measure on, never trained on.
    """
    sklearn_linear()
    recipe = recipe or Recipe()
    seed = recipe.seed
    say = progress or (lambda _: None)
    labelled, rows = read_training_rows(data, factors, contrast)
    held_out = read_rows(transcripts) if transcripts else []
    say(f"{len(rows)} rows read")
    table = table_of(rows, recipe.fast)
    fit = fit_all(table, seed, progress)
    metadata = {"families": ",".join(sorted({r.family for r in labelled})), "seed": str(seed)}
    version = linear.LAYOUT.save(out, tensors_of(table, fit, rows), metadata)
    say(f"{out}: {version}")
    classifier = linear.load(out)
    figures = evaluation.figures_of(table, fit.folds, fit.logits, classifier, rows, seed, progress)
    if held_out:
        figures["transcripts"] = evaluation.evaluate(classifier, held_out)
    names = [p.name for p in files_of(data)]
    (out.parent / "MODEL_CARD.md").write_text(card.render(version, names, rows, figures), encoding="utf-8")
    return figures


def fit_all(table: Table, seed: int, progress: Progress | None) -> Fit:
    """Heads on every row; composition and temperature on held-out logits."""
    folds = source_folds(table, seed)
    logits = out_of_fold(table, folds, seed, progress, whole_sources=True)
    heads = fit_heads(table, np.ones(len(table), dtype=bool), seed)
    use = np.flatnonzero(folds >= 0)
    held_out = evaluation.cross_composed(table, folds, logits)
    t = temperature(held_out[use], table.behaviour[use], composition_weights(table, use))
    composer = fit_composer(table, logits, use)
    cooled = Composer(composer.weights / t, composer.bias / t)
    held_out[use] = composition.softmax(np.log(np.maximum(held_out[use], 1e-12)) / t)
    return Fit(heads, cooled, folds, logits, held_out)


def tensors_of(table: Table, fit: Fit, rows: list[Row]) -> dict[str, NDArray[Any]]:
    """The arrays of a weights file."""
    table8, scale = quantised(fit.heads.weights)
    slope, shift = factor_calibration(table, fit.folds, fit.logits)
    use = np.flatnonzero(fit.folds >= 0)
    y, q, w = table.behaviour[use], fit.held_out[use], blend(table, use)
    doubt_x, doubt_y = doubt_curve(q, y, w)
    n, mean, covariance = confusion(q, y, w, table.family[use])
    words, novelty = vocabulary(rows, fit.folds)
    return {
        "words": words,
        "novelty_from": np.array([np.quantile(novelty[use], NOVELTY_QUANTILE)]),
        "table": table8,
        "scale": scale,
        "bias": fit.heads.bias,
        "factor_scale": slope,
        "factor_bias": shift,
        "term_weights": fit.composer.weights,
        "term_bias": fit.composer.bias,
        "doubt_x": doubt_x,
        "doubt_y": doubt_y,
        "calibration_n": n,
        "calibration_mean": mean,
        "calibration_covariance": covariance,
        "trained_rows": np.unique(content_hashes([r for r in rows if r.behaviour is not None])),
    }


def vocabulary(rows: Sequence[Row], folds: Ints) -> tuple[NDArray[np.uint8], Floats]:
    """The answers' words as packed bits (features.WORD_SLOTS / 8,), and each row's novelty (n,) to the other folds.

    A word is known when it stands in answers of at least WORD_ROWS rows.
    """
    parts = [features.extract([(r.before, r.answer) for r in rows[i : i + 1024]]) for i in range(0, len(rows), 1024)]
    words = np.concatenate([p.words for p in parts])
    lengths = np.concatenate([p.word_counts for p in parts])
    row = np.repeat(np.arange(len(rows)), lengths)
    once = np.unique(row * features.WORD_SLOTS + words)  # a word counts once a row
    row_of, word_of = once // features.WORD_SLOTS, once % features.WORD_SLOTS
    in_all = np.bincount(word_of, minlength=features.WORD_SLOTS)
    novelty = np.zeros(len(rows))
    for fold in np.unique(folds):
        here = np.bincount(word_of[folds[row_of] == fold], minlength=features.WORD_SLOTS)
        strange = (in_all - here < WORD_ROWS)[words] & (folds == fold)[row]
        novelty += np.bincount(row[strange], minlength=len(rows)) / lengths
    return np.packbits(in_all >= WORD_ROWS), novelty


def quantised(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], Floats]:
    """(heads, ROWS) weights -> (ROWS, heads) 8-bit table and (segments, heads) scales."""
    heads = len(weights)
    table = np.zeros((features.ROWS, heads), dtype=np.int8)
    scale = np.zeros((features.N_SEGMENTS, heads))
    for s, (start, bits) in enumerate(zip(features.OFFSETS, features.BITS, strict=True)):
        block = weights[:, start : start + (1 << bits)].T.astype(np.float64)
        scale[s] = np.maximum(np.abs(block).max(axis=0), 1e-12) / 127
        table[start : start + (1 << bits)] = np.rint(block / scale[s])
    return table, scale


def temperature(q: Floats, y: Ints, w: Floats) -> float:
    """The temperature, 0.5 to 3, by which held-out probabilities fit best (weighted log-loss)."""
    logs = np.log(np.maximum(q, 1e-12))
    at = np.arange(len(y))

    def loss(t: float) -> float:
        return float(-(w * np.log(np.maximum(composition.softmax(logs / t)[at, y], 1e-12))).sum())

    return float(min(np.geomspace(0.5, 3.0, 41), key=loss))


def factor_calibration(table: Table, folds: Ints, logits: Floats) -> tuple[Floats, Floats]:
    """Slope and shift (5,) that make held-out factor logits probabilities (Platt 1999)."""
    linear_model = sklearn_linear()
    slope, shift = np.ones(len(FACTORS)), np.zeros(len(FACTORS))
    for h in range(len(FACTORS)):
        label = table.factors[:, h]
        use = np.flatnonzero((folds >= 0) & (label != UNKNOWN) & (label != 0.5))
        y = label[use].astype(np.int64)
        if len(np.unique(y)) == 2:
            model = linear_model.LogisticRegression(C=1.0)
            model.fit(logits[use, h : h + 1], y, sample_weight=composition_weights(table, use))
            # A factor's probability must never fall as its logit rises.
            slope[h], shift[h] = max(float(model.coef_[0, 0]), 0.05), float(model.intercept_[0])
    return slope, shift


def blend(table: Table, use: Ints) -> Floats:
    """Weights of held-out rows for doubt and confusion: of each behaviour, scenarios and sources carry their share.

    Within the sources and over the behaviours as in the composition.
    """
    w = composition_weights(table, use)
    scenario = table.family[use] == CONTRAST_FAMILY
    for k in range(K):
        of = table.behaviour[use] == k
        both = [of & scenario, of & ~scenario]
        if all(part.any() for part in both):
            total = w[of].sum()
            for part, share in zip(both, (CONTRAST_SHARE, 1 - CONTRAST_SHARE), strict=True):
                w[part] *= share * total / w[part].sum()
    return w


def doubt_curve(q: Floats, y: Ints, w: Floats) -> tuple[Floats, Floats]:
    """Knots of a falling curve from the largest probability to the probability that it is wrong (isotonic)."""
    sklearn_linear()
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(increasing=False, y_min=0, y_max=1, out_of_bounds="clip")
    fitted.fit(q.max(axis=1), q.argmax(axis=1) != y, sample_weight=w)
    x = np.linspace(1 / K, 1, DOUBT_KNOTS)
    return x, np.asarray(fitted.predict(x), dtype=np.float64)


def confusion(q: Floats, y: Ints, w: Floats, source: NDArray[np.str_]) -> tuple[Floats, Floats, Floats]:
    """What the rows of each behaviour are worth (5,), mean (5, 5) and covariance (5, 5, 5) of q given it (design 3.2).

    Worth is in independent turns: as many as would make the mean vary as it does from source to source, for a
    deployment is a source never seen (docs/decisions/0005-confusion-varies-by-source.md).
    """
    n, mean, covariance = np.zeros(K), np.zeros((K, K)), np.zeros((K, K, K))
    for k in range(K):
        of = y == k
        share = w[of] / w[of].sum()
        mean[k] = share @ q[of]
        mean[k] /= mean[k].sum()
        centred = q[of] - mean[k]
        covariance[k] = (centred * share[:, None]).T @ centred
        spread = float(np.trace(covariance[k]))
        sampling = spread * float((share**2).sum())
        n[k] = max(spread / max(_between(centred, share, source[of]) + sampling, 1e-12), 1.0)
    return n, mean, covariance


def _between(centred: Floats, share: Floats, source: NDArray[np.str_]) -> float:
    """Variance of a source's mean (trace over the behaviours), less what a source's few rows make of it."""
    part: dict[str, tuple[float, float, float]] = {}
    for name in np.unique(source):
        of = source == name
        weight = float(share[of].sum())
        inner = share[of] / max(weight, 1e-12)
        offset = inner @ centred[of]
        rest = centred[of] - offset
        noise = float((inner[:, None] * rest**2).sum()) * float((inner**2).sum())
        part[str(name)] = (weight, float(offset @ offset), noise)
    if len(part) < 2:
        return 0.0
    scale = 1 - sum(weight**2 for weight, _, _ in part.values())
    return max(sum(weight * (size - noise) for weight, size, noise in part.values()) / max(scale, 1e-12), 0.0)

"""How good a classifier is: on rows it never saw, by groups, and by leaving whole sources out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import heads as fitting
from classifiers import linear
from classifiers.api import Classifier
from classifiers.cascade import Cascade
from classifiers.heads import Progress, Table
from classifiers.rows import CONTRAST_FAMILY, CONTRAST_FILE, Row, content_hashes, read_contrast, read_factors, read_rows
from classifiers.tiers import load_tier
from monitor.errors import InputError
from monitor.taxonomy import ALIGNED, BEHAVIOURS, K
from monitor.transcript import Event, Turn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS: Final = 15
"""Bins of the expected calibration error."""
FOLDS: Final = 5
TIMED_TURNS: Final = 2000
"""Turns that are enough to time."""
SEEN: Final = 0.5
"""A folder of which a larger share was trained on is the training data."""


def per_class(y: Ints, guess: Ints) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each behaviour; 0 where undefined."""
    out = {}
    for k, name in enumerate(BEHAVIOURS):
        hit = int(((guess == k) & (y == k)).sum())
        guessed, true = int((guess == k).sum()), int((y == k).sum())
        precision, recall = hit / guessed if guessed else 0.0, hit / true if true else 0.0
        f1 = 2 * hit / (guessed + true) if guessed + true else 0.0
        out[name] = {"precision": precision, "recall": recall, "f1": f1}
    return out


def macro_f1(y: Ints, guess: Ints) -> float:
    """Mean F1 over the behaviours that occur in y."""
    scores = per_class(y, guess)
    return float(np.mean([scores[BEHAVIOURS[k]]["f1"] for k in np.unique(y)])) if len(y) else 0.0


def auroc(positive: NDArray[np.bool_], score: Floats) -> float | None:
    """Probability that a positive scores above a negative, ties half; None where one kind is missing."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return None
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def ece(y: Ints, q: Floats) -> float:
    """Expected calibration error of the largest probability, over bins of equal width."""
    top, right = q.max(axis=1), q.argmax(axis=1) == y
    place = np.minimum((top * BINS).astype(np.int64), BINS - 1)
    gaps = [abs(float((top[place == b] - right[place == b]).sum())) for b in range(BINS)]
    return sum(gaps) / len(y)


def metrics(y: Ints, q: Floats) -> dict[str, Any]:
    """The figures of judgements q (n, 5) of turns of behaviour y (n,)."""
    guess = q.argmax(axis=1)
    return {
        "n": len(y),
        "per_class": per_class(y, guess),
        "macro_f1": macro_f1(y, guess),
        "auroc_misaligned": auroc(y != ALIGNED, 1 - q[:, ALIGNED]),
        "ece": ece(y, q),
    }


def evaluate(classifier: Classifier, rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of a classifier on labelled rows, each counted once (trust weights are for training)."""
    rows = [r for r in rows if r.behaviour is not None]
    if not rows:
        raise InputError("no labelled rows to evaluate on")
    turns = turns_of_rows(rows)
    start = time.perf_counter()
    judged = classifier.combined(turns) if isinstance(classifier, Cascade) else classifier.classify(turns)
    q = judged.probabilities
    seconds = time.perf_counter() - start
    y = np.array([r.behaviour for r in rows], dtype=np.int64)
    return {**metrics(y, q), "turns_per_second": len(rows) / max(seconds, 1e-9)}


def turns_of_rows(rows: Sequence[Row]) -> list[Turn]:
    """The rows as turns to classify."""
    event = Event("row", datetime(2000, 1, 1, tzinfo=UTC), "evaluation", "evaluation", "row", ())
    return [Turn(event, i, r.before, r.answer) for i, r in enumerate(rows)]


def cross_composed(table: Table, folds: Ints, logits: Floats) -> Floats:
    """(n, 5) probabilities from compositions fitted without the row's fold; nan where a row has none.

    Heads behind the other folds' logits have seen this fold's rows; the composition has too few parameters to profit,
    and refitting the heads for every pair of folds would take hours.
    """
    out = np.full((len(table), K), np.nan)
    for k in np.unique(folds[folds >= 0]):
        held = folds == k
        others = np.flatnonzero((folds >= 0) & ~held)
        out[held] = fitting.fit_composer(table, logits, others).probabilities(logits[held])
    return out


def cross_validate(
    data: Path, factors: Path | None, contrast: Path | None, progress: Progress | None = None, seed: int = 0
) -> dict[str, Any]:
    """Figures by groups (top level), by left-out sources and on held-out contrast scenarios, all models refitted."""
    fitting.sklearn_linear()
    rows = read_rows(data) + (read_factors(factors) if factors else [])
    if contrast is not None and contrast.is_file():
        rows += read_contrast(contrast)
    table = fitting.table_of(rows)
    folds = fitting.source_folds(table, seed)
    logits = fitting.out_of_fold(table, folds, seed, progress, whole_sources=True)
    return figures_of(table, folds, logits, linear.load(), rows, seed, progress)


def figures_of(
    table: Table,
    folds: Ints,
    logits: Floats,
    timed: Classifier,
    rows: Sequence[Row],
    seed: int,
    progress: Progress | None,
) -> dict[str, Any]:
    """The figures of `cross_validate` from held-out logits by source; `timed` is the classifier whose speed is told."""
    by_group = fitting.grouped_folds(table, FOLDS, seed)
    grouped = cross_composed(table, by_group, fitting.out_of_fold(table, by_group, seed, progress, whole_sources=False))
    left_out = cross_composed(table, folds, logits)
    y = table.behaviour
    scenario = table.family == CONTRAST_FAMILY
    sources = (folds >= 0) & ~scenario
    few = turns_of_rows([r for r in rows if r.behaviour is not None][:TIMED_TURNS])
    start = time.perf_counter()
    timed.classify(few)
    speed = len(few) / max(time.perf_counter() - start, 1e-9)
    by_source = {}
    for family in sorted(set(table.family[sources].tolist())):
        of = sources & (table.family == family)
        scores = per_class(y[of], left_out[of].argmax(axis=1))
        by_source[family] = {
            "n": int(of.sum()),
            "recall": {BEHAVIOURS[k]: scores[BEHAVIOURS[k]]["recall"] for k in np.unique(y[of])},
            "auroc_misaligned": auroc(y[of] != ALIGNED, 1 - left_out[of, ALIGNED]),
        }
    out: dict[str, Any] = {
        "how": "grouped cross-validation",
        **metrics(y[sources], grouped[sources]),
        "turns_per_second": speed,
        "leave_one_source_out": {"pooled": metrics(y[sources], left_out[sources]), "by_source": by_source},
    }
    if scenario.any():
        out["held_out_contrast"] = metrics(y[scenario], left_out[scenario])
    return out


def run_evaluation(
    data: Path, weights_only: bool = False, progress: Progress | None = None, tier: str = "fast"
) -> dict[str, Any]:
    """What `valuedrift evaluate` prints.

    With the fast tier, a folder of which most rows were trained on is cross-validated, since the shipped weights know
    its answers; anything else is judged with the shipped weights. Factor labels are looked for in ../factors.
    """
    rows = read_rows(data)
    seen = float(np.isin(content_hashes(rows), linear.load().trained_rows).mean())
    classifier = load_tier(tier)
    if tier == "fast" and data.is_dir() and seen > SEEN and not weights_only:
        factors = data.resolve().parent / "factors"
        return cross_validate(data, factors if factors.is_dir() else None, CONTRAST_FILE, progress)
    return {
        "how": "shipped weights",
        "classifier": classifier.version,
        "tier": tier,
        **evaluate(classifier, rows),
        "seen_in_training": seen,
    }


def table(result: dict[str, Any]) -> str:
    """The figures for a terminal."""
    lines = [f"{result['how']}: {result['n']} turns"]
    lines += [_line("", result), "", f"{'behaviour':20} precision  recall      F1"]
    for name, s in result["per_class"].items():
        lines.append(f"{name:20} {s['precision']:9.3f} {s['recall']:7.3f} {s['f1']:7.3f}")
    if result.get("seen_in_training"):
        lines.append(f"\n{result['seen_in_training']:.0%} of these rows were trained on: the figures flatter")
    if "leave_one_source_out" in result:
        lines += ["", _line("left-out sources: ", result["leave_one_source_out"]["pooled"])]
        for family, s in result["leave_one_source_out"]["by_source"].items():
            recall = ", ".join(f"{k} {v:.2f}" for k, v in s["recall"].items())
            lines.append(f"  {family:18} {s['n']:5}  AUROC {_number(s['auroc_misaligned'])}  recall {recall}")
    if "held_out_contrast" in result:
        lines.append(_line("held-out scenarios: ", result["held_out_contrast"]))
    lines.append(f"{result['turns_per_second']:.0f} turns/s")
    return "\n".join(lines)


def _line(title: str, m: dict[str, Any]) -> str:
    area = _number(m["auroc_misaligned"])
    return f"{title}macro-F1 {m['macro_f1']:.3f}, AUROC of misaligned {area}, calibration error {m['ece']:.3f}"


def _number(x: float | None) -> str:
    return "  -  " if x is None else f"{x:.3f}"

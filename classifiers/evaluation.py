"""How good a classifier is: on rows it never saw, by groups, and by leaving whole sources out.

The figures themselves are computed in `figures`, their slices in `breakdown`; `report` makes tables of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers import calibration_study, linear, ngram_baseline, refusal, reliability
from classifiers import heads as fitting
from classifiers.api import Classifier
from classifiers.breakdown import broken_down, compared_tiers, groups_of
from classifiers.cascade import Cascade
from classifiers.figures import auroc, compared, ece, macro_f1, measured, metrics, per_class
from classifiers.heads import Progress, Table
from classifiers.report import HELD_OUT, table
from classifiers.rows import (
    CONTRAST_FAMILY,
    CONTRAST_FILE,
    REFUSAL,
    Row,
    content_hashes,
    read_contrast,
    read_factors,
    read_rows,
)
from classifiers.tiers import load_tier
from monitor.entropy import Calibration
from monitor.errors import InputError
from monitor.taxonomy import ALIGNED, BEHAVIOURS, K
from monitor.transcript import Event, Judgements, Turn

__all__ = [
    "auroc",
    "cross_composed",
    "cross_validate",
    "ece",
    "evaluate",
    "evaluate_all",
    "figures_of",
    "held_out",
    "macro_f1",
    "measured",
    "metrics",
    "per_class",
    "run_evaluation",
    "table",
    "turns_of_rows",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS: Final = 5
TIMED_TURNS: Final = 2000
"""Turns that are enough to time."""
SEEN: Final = 0.5
"""A folder of which a larger share was trained on is the training data."""
ACCURATE_SHARE: Final = 0.1
RANDOM_SHARE: Final = 0.02
"""Of the cascade that is compared: the shares of the default settings."""
BASELINE: Final = "n-gram"
"""What the baseline is called beside the tiers."""


def evaluate(classifier: Classifier, rows: Sequence[Row], name: str = "judgements") -> dict[str, Any]:
    """Figures of a classifier on labelled rows, each counted once (trust weights are for training).

    `figures.measured`, with slices ("by"), refusal or not ("refusal"), a reliability curve called `name`, and speed.
    """
    rows = _labelled(rows)
    judged, seconds = _judged(classifier, rows)
    y = _behaviours(rows)
    q = judged.probabilities
    return {
        **measured(y, q, groups_of(rows)),
        "by": broken_down(rows, y, q),
        "refusal": _refusal(rows, judged),
        "reliability": {name: reliability.curve(y, q, groups_of(rows))},
        "turns_per_second": len(rows) / max(seconds, 1e-9),
    }


def evaluate_all(fast: Classifier, accurate: Classifier, rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of both tiers and of their cascade on the same labelled rows, with paired differences.

    Each tier judges once; the cascade's speed follows from both tiers' and from how many turns it handed on.
    """
    rows = _labelled(rows)
    first, fast_seconds = _judged(fast, rows)
    second, accurate_seconds = _judged(accurate, rows)
    cascade = Cascade(_Kept(first, fast), _Kept(second, accurate), ACCURATE_SHARE, RANDOM_SHARE)
    turns = turns_of_rows(rows)
    handed_on = cascade.classify(turns).second
    share = 0.0 if handed_on is None else len(handed_on.rows) / len(rows)
    judged = {"fast": first, "accurate": second, "cascade": cascade.combined(turns)}
    seconds = {
        "fast": fast_seconds,
        "accurate": accurate_seconds,
        "cascade": fast_seconds + share * accurate_seconds,
    }
    out = compared_tiers(rows, {tier: j.probabilities for tier, j in judged.items()})
    y, group = _behaviours(rows), groups_of(rows)
    out["reliability"] = {tier: reliability.curve(y, j.probabilities, group) for tier, j in judged.items()}
    for tier, j in judged.items():
        out["tiers"][tier]["turns_per_second"] = len(rows) / max(seconds[tier], 1e-9)
        out["tiers"][tier]["refusal"] = _refusal(rows, j)
    return {**out, "handed_on": share}


class _Kept:
    """A classifier's judgements of `turns_of_rows`, given out again instead of being made twice."""

    def __init__(self, judged: Judgements, classifier: Classifier) -> None:
        self._judged, self._classifier = judged, classifier

    @property
    def version(self) -> str:
        return self._classifier.version

    @property
    def calibration(self) -> Calibration:
        return self._classifier.calibration

    def classify(self, turns: Sequence[Turn]) -> Judgements:
        at = np.array([t.index for t in turns], dtype=np.int64)
        j = self._judged
        return replace(j, probabilities=j.probabilities[at], factors=j.factors[at], doubt=j.doubt[at])


def _labelled(rows: Sequence[Row]) -> list[Row]:
    found = [r for r in rows if r.behaviour is not None]
    if not found:
        raise InputError("no labelled rows to evaluate on")
    return found


def _behaviours(rows: Sequence[Row]) -> Ints:
    return np.array([r.behaviour for r in rows], dtype=np.int64)


def _judged(classifier: Classifier, rows: Sequence[Row]) -> tuple[Judgements, float]:
    turns = turns_of_rows(rows)
    start = time.perf_counter()
    judged = classifier.combined(turns) if isinstance(classifier, Cascade) else classifier.classify(turns)
    return judged, time.perf_counter() - start


def _refusal(rows: Sequence[Row], judged: Judgements) -> dict[str, Any]:
    label = np.array([r.factors[REFUSAL] for r in rows])
    known = (label == 0.0) | (label == 1.0)
    return refusal.f1_of(label[known] == 1.0, judged.factors[known, REFUSAL] >= 0.5, groups_of(rows)[known])


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
    hashed = fitting.table_of(rows)
    folds = fitting.source_folds(hashed, seed)
    logits = fitting.out_of_fold(hashed, folds, seed, progress, whole_sources=True)
    return figures_of(hashed, folds, logits, linear.load(), rows, seed, progress)


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
    sources = (folds >= 0) & (table.family != CONTRAST_FAMILY)
    few = turns_of_rows([r for r in rows if r.behaviour is not None][:TIMED_TURNS])
    start = time.perf_counter()
    timed.classify(few)
    speed = len(few) / max(time.perf_counter() - start, 1e-9)
    parts = held_out(table, folds, {BASELINE: baseline(table, folds, rows, progress), "fast": left_out}, rows, seed)
    left = parts["leave_one_source_out"]
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
        **measured(y[sources], grouped[sources], table.group[sources], seed),
        "turns_per_second": speed,
        "leave_one_source_out": {"pooled": left["tiers"]["fast"], "by_source": by_source},
        "baseline_ngram": left["tiers"][BASELINE],
        "held_out": parts,
        "refusal": refusal.figures(table, refusal.held_out(table, folds, logits, seed, progress), seed),
        "calibration": calibrations(table, folds, left_out, seed),
        "reliability": {
            "grouped folds": reliability.curve(y[sources], grouped[sources], table.group[sources], seed),
            **{HELD_OUT[part]: found["reliability"]["fast"] for part, found in parts.items()},
        },
    }
    if "held_out_contrast" in parts:
        out["held_out_contrast"] = parts["held_out_contrast"]["tiers"]["fast"]
    return out


def held_out(
    table: Table, folds: Ints, tiers: Mapping[str, Floats], rows: Sequence[Row], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Several tiers' held-out judgements side by side: `breakdown.compared_tiers` of left-out sources and of scenarios.

    Parameters
    ----------
    table, folds, rows : the rows (n), and the folds of `heads.source_folds`.
    tiers : name -> (n, 5) held-out probabilities, nan where a row has no fold. Where "fast" and "accurate" are among
        them, their "cascade" is added: the accurate tier's judgement of the turns the fast one is least sure of.

    Returns {"leave_one_source_out": ..., "held_out_contrast": ...}, each with a "reliability" curve by tier; the first
    has `figures.compared` with whole sources resampled as "over_sources", for what the next source will bring.
    """
    scenario = table.family == CONTRAST_FAMILY
    out = {}
    for name, of in (("leave_one_source_out", ~scenario), ("held_out_contrast", scenario)):
        at = np.flatnonzero(of & (folds >= 0))
        if not len(at):
            continue
        part = {tier: q[at] for tier, q in tiers.items()}
        if {"fast", "accurate"} <= set(part):
            part["cascade"] = _cascaded(part["fast"], part["accurate"])
        found = compared_tiers([rows[i] for i in at.tolist()], part, seed)
        curves = {tier: reliability.curve(table.behaviour[at], q, table.group[at], seed) for tier, q in part.items()}
        out[name] = {**found, "reliability": curves}
        if name == "leave_one_source_out":
            out[name]["over_sources"] = compared(table.behaviour[at], part, table.family[at], seed)
    return out


def _cascaded(fast: Floats, accurate: Floats) -> Floats:
    # doubt falls as the largest probability rises; the random slice is left out, it is there to compare tiers by
    out = fast.copy()
    least_sure = np.argsort(fast.max(axis=1), kind="stable")[: round(ACCURATE_SHARE * len(fast))]
    out[least_sure] = accurate[least_sure]
    return out


def baseline(table: Table, folds: Ints, rows: Sequence[Row], progress: Progress | None = None) -> Floats:
    """(n, 5) held-out judgements of the n-gram baseline, trained on public rows alone; nan where a row has no fold."""
    at = np.flatnonzero(folds >= 0)
    public = np.where(table.family[at] == CONTRAST_FAMILY, -1, folds[at])
    out = np.full((len(table), K), np.nan)
    out[at] = ngram_baseline.left_out([rows[i] for i in at.tolist()], public, progress)
    return out


def calibrations(table: Table, folds: Ints, q: Floats, seed: int) -> dict[str, Any]:
    """Methods of calibration compared on held-out judgements: fitted on other groups, and on other sources.

    Rows count as in the composition, so that a method is not praised for learning how many rows a file has.
    """
    at = np.flatnonzero(folds >= 0)
    weight = fitting.composition_weights(table, at)
    by: dict[str, Ints] = {
        "groups held out": fitting.grouped_folds(table, FOLDS, seed)[at],
        "sources held out": folds[at],
    }
    return {name: calibration_study.compare(q[at], table.behaviour[at], f, weight) for name, f in by.items()}


def run_evaluation(
    data: Path, weights_only: bool = False, progress: Progress | None = None, tier: str = "fast"
) -> dict[str, Any]:
    """What `valuedrift evaluate` prints.

    With the fast tier, a folder of which most rows were trained on is cross-validated, since the shipped weights know
    its answers; anything else is judged with the shipped weights. Factor labels are looked for in ../factors. Tier
    "all" compares fast, accurate and cascade.
    """
    rows = read_rows(data)
    seen = float(np.isin(content_hashes(rows), linear.load().trained_rows).mean())
    shipped: dict[str, Any] = {"how": "shipped weights", "tier": tier, "seen_in_training": seen}
    if tier == "all":
        fast, accurate = load_tier("fast"), load_tier("accurate")
        versions = {"fast": fast.version, "accurate": accurate.version}
        return {**shipped, "classifier": versions, **evaluate_all(fast, accurate, rows)}
    classifier = load_tier(tier)
    if tier == "fast" and data.is_dir() and seen > SEEN and not weights_only:
        factors = data.resolve().parent / "factors"
        return cross_validate(data, factors if factors.is_dir() else None, CONTRAST_FILE, progress)
    return {**shipped, "classifier": classifier.version, **evaluate(classifier, rows, tier)}

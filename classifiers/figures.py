"""Figures of a classifier's judgements, with intervals: pure functions of (behaviour, probabilities, group).

Rows that share a prompt or a scenario rise and fall together, so whole groups are resampled, not rows (the cluster
bootstrap; Davison & Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monitor.taxonomy import ALIGNED, BEHAVIOURS, K

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS: Final = 15
"""Bins of the expected calibration error."""
DRAWS: Final = 200
"""Resamples of an interval."""
LEVEL: Final = 0.9
"""What an interval promises to hold."""
FEWEST_GROUPS: Final = 5
"""Fewer say nothing of how much groups differ: no interval."""
SCORES: Final = ("macro_f1", "auroc_misaligned", "ece")
PARTS: Final = ("precision", "recall", "f1")


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


@dataclass(frozen=True, slots=True)
class Resamples:
    """`place` (n,) is the group of each row, `times` (draws, groups) how often each draw has each group."""

    place: Ints
    times: Floats

    @property
    def groups(self) -> int:
        return int(self.times.shape[1])

    def sums(self, values: Floats) -> Floats:
        """(n, m) values of rows -> (draws, m) sums over each draw's rows."""
        total = np.stack([np.bincount(self.place, v, minlength=self.groups) for v in values.T], axis=1)
        return np.asarray(self.times @ total)


def resample(group: NDArray[np.str_], seed: int = 0, draws: int = DRAWS) -> Resamples:
    """Draw as many groups as there are, with replacement, `draws` times over."""
    names, place = np.unique(group, return_inverse=True)
    rng = np.random.default_rng(seed)
    n = len(names)
    times = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(draws)])
    return Resamples(place.astype(np.int64), times.astype(np.float64))


def spread(y: Ints, q: Floats, resamples: Resamples) -> dict[str, Floats]:
    """Every score in every draw; nan where a draw lacks what it needs.

    `macro_f1`, `auroc_misaligned` and `ece` are (draws,), `per_class` is (draws, 5, 3) in the order of PARTS.
    """
    guess = q.argmax(axis=1)
    confusion = resamples.sums(np.eye(K * K)[y * K + guess]).reshape(-1, K, K)
    hit, true, guessed = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2), confusion.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(true > 0, 2 * hit / (true + guessed), np.nan)
        per = np.stack([np.where(guessed > 0, hit / guessed, 0.0), np.where(true > 0, hit / true, np.nan), f1], axis=2)
        per[np.isnan(per[:, :, 1]), 0] = np.nan
    top = q.max(axis=1)
    place = np.minimum((top * BINS).astype(np.int64), BINS - 1)
    gaps = resamples.sums(np.eye(BINS)[place] * (top - (guess == y))[:, None])
    return {
        "macro_f1": np.nansum(f1, axis=1) / np.maximum((true > 0).sum(axis=1), 1),
        "auroc_misaligned": _areas(y != ALIGNED, 1 - q[:, ALIGNED], resamples),
        "ece": np.abs(gaps).sum(axis=1) / np.maximum(true.sum(axis=1), 1),
        "per_class": per,
    }


def _areas(positive: NDArray[np.bool_], score: Floats, resamples: Resamples) -> Floats:
    values, place = np.unique(score, return_inverse=True)
    kinds = [(place[of], resamples.place[of]) for of in (positive, ~positive)]
    out = np.full(len(resamples.times), np.nan)
    for i, times in enumerate(resamples.times):
        above, below = (np.bincount(at, times[group], minlength=len(values)) for at, group in kinds)
        pairs = above.sum() * below.sum()
        if pairs:
            out[i] = above @ (np.cumsum(below) - below / 2) / pairs
    return out


def interval(value: float | None, draws: Floats, score: str) -> list[float] | None:
    """[low, high] of a score from its resamples; None where too many lack it.

    Percentiles, but for the calibration error: a sum of absolute values grows with noise, and resampling adds as much
    again, so its percentiles are mirrored about the measured value (the basic bootstrap).
    """
    known = draws[~np.isnan(draws)]
    if value is None or len(known) < len(draws) * LEVEL:
        return None
    low, high = (float(x) for x in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    if score == "ece":
        low, high = max(min(2 * value - high, value), 0.0), max(2 * value - low, value)
    return [low, high]


def measured(
    y: Ints, q: Floats, group: NDArray[np.str_], seed: int = 0, draws: int = DRAWS, resamples: Resamples | None = None
) -> dict[str, Any]:
    """`metrics`, and under "interval" the [low, high] (90 %) of each, None where the rows cannot say.

    Parameters
    ----------
    y : (n,) true behaviours.
    q : (n, 5) probabilities.
    group : (n,) rows of one group are resampled together.
    resamples : the draws, where several judgements of the same rows are to share them.
    """
    out = metrics(y, q)
    drawn = resamples or resample(group, seed, draws)
    if drawn.groups < FEWEST_GROUPS:
        return {**out, "interval": None}
    found = spread(y, q, drawn)
    bounds: dict[str, Any] = {s: interval(out[s], found[s], s) for s in SCORES}
    bounds["per_class"] = {
        b: {
            part: interval(out["per_class"][b][part], found["per_class"][:, k, i], part) for i, part in enumerate(PARTS)
        }
        for k, b in enumerate(BEHAVIOURS)
        if (y == k).any()
    }
    return {**out, "interval": bounds}


def compared(
    y: Ints, tiers: Mapping[str, Floats], group: NDArray[np.str_], seed: int = 0, draws: int = DRAWS
) -> dict[str, Any]:
    """Several judgements of the same rows: {"tiers": name -> `measured`, "difference": "b - a" -> score -> paired}.

    A difference, of each judgement to each before it, is {"value", "low", "high"}: both are read on the same resamples,
    so what is hard for both cancels.
    """
    drawn = resample(group, seed, draws)
    out: dict[str, Any] = {"tiers": {name: measured(y, q, group, resamples=drawn) for name, q in tiers.items()}}
    spreads = {name: spread(y, q, drawn) for name, q in tiers.items()}
    out["difference"] = {}
    for first, second in combinations(tiers, 2):
        cells = {}
        for s in SCORES:
            a, b = out["tiers"][second][s], out["tiers"][first][s]
            value = None if a is None or b is None else a - b
            bounds = interval(value, spreads[second][s] - spreads[first][s], "difference")
            low, high = bounds if bounds and drawn.groups >= FEWEST_GROUPS else (None, None)
            cells[s] = {"value": value, "low": low, "high": high}
        out["difference"][f"{second} - {first}"] = cells
    return out

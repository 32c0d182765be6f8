"""From sums to the figures of a report: windows, changes and what they are made of. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor import entropy
from monitor.buckets import Sums
from monitor.decomposition import Decomposition, Parts, decompose, entropy_parts
from monitor.entropy import Quantifier
from monitor.estimates import NORMAL_QUANTILE, Refusal, Result
from monitor.label_sums import OTHER, WITHOUT, Split
from monitor.report.model import (
    Change,
    Interval,
    Known,
    LabelSplit,
    LabelTerm,
    Maybe,
    Term,
    Unknown,
    Window,
)
from monitor.report.verdict import chance
from monitor.taxonomy import ALIGNED, BEHAVIOURS

Floats = NDArray[np.float64]

KNOWN_OF_SPLIT: Final = 0.5
"""A label that was followed for less of a window's turns says nothing of it."""


def window(lens: Quantifier, sums: Sums, start: datetime, end: datetime) -> Window:
    """What a series did in [start, end). Raises ValueError when there are no turns."""
    found = lens.estimate(sums)
    shares = {b: _plain(x) for b, x in zip(BEHAVIOURS, found.shares, strict=True)}
    return Window(start, end, found.n, found.effective_n, _plain(found.entropy), _plain(found.misaligned), shares)


def change(before: Floats, now: Floats) -> tuple[Change, tuple[float, float]]:
    """The change between two windows, not yet looked at among others, and the chances that S and the misaligned share
    moved the other way.

    Parameters
    ----------
    before, now : (draws, 5) shares under the same draws of the classifier's errors (Quantifier.pairs).
    """
    of_s = entropy.entropy(now) - entropy.entropy(before)
    moved = now - before
    of_m = -moved[:, ALIGNED]
    chances = chance(of_s), chance(of_m)
    shares = {b: _interval(moved[:, k]) for k, b in enumerate(BEHAVIOURS)}
    return Change(_interval(of_s), _interval(of_m), shares, 1 - chances[0], 1 - chances[1], False), chances


def drivers(before: Floats, now: Floats) -> list[Term]:
    """The changes of S and of the misaligned share by behaviour: they add up. Parameters as of `change`."""
    of_s = entropy_parts(before, now)
    moved = now - before
    moved[:, ALIGNED] = 0.0
    return [Term(b, _interval(of_s[:, k]), _interval(moved[:, k])) for k, b in enumerate(BEHAVIOURS)]


def splits(lens: Quantifier, before: Mapping[str, Split], now: Mapping[str, Split], turns: int) -> list[LabelSplit]:
    """The change of the misaligned share by every label that was followed in both windows, has several values, and was
    known of enough of the compared window.

    Parameters
    ----------
    turns : of the compared window.
    """
    out = []
    for label in sorted(before.keys() & now.keys()):
        counts = [sum(s.n for s in of[label].values()) for of in (before, now)]
        if not all(counts) or counts[0] < KNOWN_OF_SPLIT * turns:
            continue
        found = decompose(lens, before[label], now[label])
        if len(found.values) > 1:
            out.append(_split(label, found))
    return out


def _split(label: str, found: Decomposition) -> LabelSplit:
    terms = [
        LabelTerm(
            {OTHER: "(all others)", WITHOUT: "(none)"}.get(v.value) or str(v.value),
            v.traffic[0],
            v.traffic[1],
            _maybe(v.misaligned_share[0]),
            _maybe(v.misaligned_share[1]),
            _plain(v.misaligned.mixture),
            _plain(v.misaligned.rate),
        )
        for v in found.values
    ]
    m = found.misaligned
    return LabelSplit(label, terms, _plain(m.mixture), _plain(m.rate), _trap(label, m) if found.simpson else "")


def _trap(label: str, m: Parts) -> str:
    rose, within, went = ("rose", "fell", "higher") if m.change.mean > 0 else ("fell", "rose", "lower")
    return (
        f"Simpson's trap: the misaligned share of all turns {rose}, though it {within} within most of the traffic of "
        f"which the rate by {label} is sure; traffic moved to values where it is {went}."
    )


def told(x: Result, unit: str = "") -> Maybe:
    """An estimate, or why there is none."""
    if isinstance(x, Refusal):
        return Unknown(x.reason)
    return Known(Interval(x.value, x.lo, x.hi), unit or x.units)


def with_error(value: float, error: float, unit: str) -> Maybe:
    """A figure of normal error."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return Unknown("its error is not bounded yet")
    return Known(Interval(value, value - NORMAL_QUANTILE * error, value + NORMAL_QUANTILE * error), unit)


def _interval(draws: Floats) -> Interval:
    return _plain(entropy.interval(draws))


def _maybe(x: entropy.Interval | None) -> Interval | None:
    return None if x is None else _plain(x)


def _plain(x: entropy.Interval) -> Interval:
    return Interval(x.mean, x.low, x.high)

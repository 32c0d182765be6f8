"""Where a change comes from: exact additive parts of a change of shares or of S, by label value and by behaviour. Pure.

A window is a mixture of its label values: share_k = sum_v t_v p_vk, with t_v the traffic share of value v and p_v its
mixture. Between two windows either can move. The symmetric form (half of each order of moving them, the Shapley value
of the two) gives parts that add up to the change exactly, whatever moved:

    mixture shift of v   (t'_v - t_v) ((p_vk + p'_vk) / 2 - reference_k)
    rate shift of v      (t_v + t'_v) / 2 (p'_vk - p_vk)

The reference changes no sum (traffic shares sum to 1); it says against what a value that gains traffic is compared: the
mean of both windows, or, where one is the yardstick, that one. S is a sum of five terms -p ln p, one a behaviour, and
its change is the sum of theirs: the integral of -(ln p + 1) along any path, so no order has to be chosen. Divided by
the behaviour's own change it is a slope, and the slopes carry the parts of the shares over to parts of S, exactly.

Intervals come from draws (monitor.entropy.Quantifier.together): the classifier's errors are drawn once for all values
and both windows, sampling and traffic shares for each by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import Sums
from monitor.entropy import Interval, Quantifier, interval
from monitor.label_sums import OTHER, Split
from monitor.taxonomy import ALIGNED, K

Floats = NDArray[np.float64]

FEWEST_TURNS: Final = 20
"""A value is looked at by itself with so many turns in both windows, or if it came or went; the others are one."""
CAME_OR_WENT: Final = 40
"""It did if one window has fewer turns of it than FEWEST_TURNS where by the other's traffic it had so many."""
MOST_STRATA: Final = 20
"""Values looked at by themselves, those of most traffic."""
LEAST_BEYOND: Final = 0.1
"""A value is named as where a change comes from if it carries at least so much more of it than of the traffic."""
MOST_NAMED: Final = 3
"""Label values that are named as where a change comes from."""
SURE: Final = 0.05
"""Chance of naming a label value where none carries more than its part, over all values that are looked at."""


# --- parts that add up, of known shares


def share_parts(
    traffic: tuple[Floats, Floats], shares: tuple[Floats, Floats], reference: Floats | None = None
) -> tuple[Floats, Floats]:
    """Mixture shift and rate shift of each value, which together are the change of the shares.

    Parameters
    ----------
    traffic : (..., V) of both windows, summing to 1.
    shares : (..., V, 5) mixture of each value in both windows.
    reference : (..., 5) what a value is compared with that gains or loses traffic; None: the mean of both windows.

    Returns
    -------
    (..., V, 5) and (..., V, 5).
    """
    t, u = (x[..., None] for x in traffic)
    p, q = shares
    if reference is None:
        reference = ((t * p).sum(axis=-2) + (u * q).sum(axis=-2)) / 2
    mixture = (u - t) * ((p + q) / 2 - reference[..., None, :])
    return np.asarray(mixture), np.asarray((t + u) / 2 * (q - p))


def entropy_slopes(p: Floats, q: Floats) -> Floats:
    """(..., 5) change of -x ln x from p to q, divided by q - p, nats; where they are equal its derivative, or 0 at 0.

    The same whichever comes first, to the last bit.
    """
    high, low = np.maximum(p, q), np.minimum(p, q)
    there = high > 0
    high = np.where(there, high, 1.0)
    x = np.where(there, (low - high) / high, 0.0)
    inside = (x < 0) & (x > -1)
    ratio = np.where(inside, np.log1p(np.where(inside, x, 0.0)) / np.where(inside, x, 1.0), 1.0)
    return np.asarray(np.where(there, -(np.log(high) + np.where(x > -1, (1 + x) * ratio, 0.0)), 0.0))


def entropy_parts(p: Floats, q: Floats) -> Floats:
    """(..., 5) change of each behaviour's own term of S, nats; their sum is S(q) - S(p)."""
    return np.asarray(entropy_slopes(p, q) * (q - p))


# --- two windows, split by a label


@dataclass(frozen=True, slots=True)
class Strata:
    """Draws of two windows that are split by the values of a label.

    Attributes
    ----------
    values : V values, those of most traffic first; OTHER for those too rare to be looked at one by one.
    turns : (V, 2) in the window before and after.
    traffic : (draws, V) traffic shares before and after.
    shares : (draws, V, 5) mixtures before and after. A value that came or went has that of both windows together in
        each: it moved traffic, and whether it moved otherwise is not known.
    """

    values: tuple[str | None, ...]
    turns: NDArray[np.int64]
    traffic: tuple[Floats, Floats]
    shares: tuple[Floats, Floats]

    @classmethod
    def of(cls, quantifier: Quantifier, before: Split, after: Split) -> Strata:
        """Deterministic. Raises ValueError when a window has no turns."""
        windows = _gathered(before, after)
        turns = np.array([[x.n, y.n] for x, y in windows.values()], dtype=np.int64).reshape(-1, 2)
        if not turns.size or not turns.sum(axis=0).all():
            raise ValueError("no turns in one of the windows")
        whole = int(turns[:, 0].sum()), int(turns[:, 1].sum())
        measured = [
            (x + y,) if not (x.n and y.n) or _came_or_went((x.n, y.n), whole) else (x, y) for x, y in windows.values()
        ]
        drawn = iter(quantifier.together([s for group in measured for s in group]))
        of_value = [[next(drawn) for _ in group] for group in measured]
        shares = [np.stack([draws[i * (len(draws) - 1)] for draws in of_value], axis=1) for i in (0, 1)]
        rng = np.random.default_rng(turns.tolist()[0])
        traffic = [_traffic([w[i] for w in windows.values()], len(shares[0]), rng) for i in (0, 1)]
        return cls(tuple(windows), turns, (traffic[0], traffic[1]), (shares[0], shares[1]))

    @property
    def totals(self) -> tuple[Floats, Floats]:
        """(draws, 5) shares of each window as a whole."""
        before, after = ((t[..., None] * p).sum(axis=1) for t, p in zip(self.traffic, self.shares, strict=True))
        return before, after

    @property
    def mean_traffic(self) -> Floats:
        """(V,) of both windows together."""
        return np.asarray((self.traffic[0] + self.traffic[1]).mean(axis=0) / 2)

    def rate(self, v: int, window: int, behaviours: Sequence[int]) -> Interval | None:
        """Share of some behaviours in a value's turns in one window; None where it has too few to say."""
        if self.turns[v, window] < FEWEST_TURNS:
            return None
        return interval(self.shares[window][:, v, list(behaviours)].sum(axis=1))


def _gathered(before: Split, after: Split) -> dict[str | None, tuple[Sums, Sums]]:
    """The values to look at with their sums in both windows, those of most traffic first; the others as OTHER."""
    pairs = {v: (before.get(v, Sums.zero()), after.get(v, Sums.zero())) for v in {**before, **after}}
    pairs = {v: (x, y) for v, (x, y) in pairs.items() if x.n or y.n}
    whole = sum(x.n for x, _ in pairs.values()), sum(y.n for _, y in pairs.values())

    def alone(v: str | None) -> bool:
        x, y = pairs[v]
        return v is not OTHER and (min(x.n, y.n) >= FEWEST_TURNS or _came_or_went((x.n, y.n), whole))

    def traffic(v: str | None) -> float:
        return sum(s.n / max(n, 1) for s, n in zip(pairs[v], whole, strict=True))

    named = sorted(filter(alone, pairs), key=lambda v: (-traffic(v), v or ""))[:MOST_STRATA]
    rest = [v for v in pairs if v not in named]
    out = {v: pairs[v] for v in named}
    if rest:
        both = zip(*(pairs[v] for v in rest), strict=True)
        before_and_after = tuple(reduce(add, sums) for sums in both)
        out[rest[0] if len(rest) == 1 else OTHER] = before_and_after[0], before_and_after[1]
    return out


def _came_or_went(turns: tuple[int, int], whole: tuple[int, int]) -> bool:
    """Whether a value has few turns in one window where many were to be expected by its traffic in the other."""
    return any(
        turns[i] < FEWEST_TURNS and turns[1 - i] * whole[i] >= CAME_OR_WENT * max(whole[1 - i], 1) for i in (0, 1)
    )


def _traffic(sums: Sequence[Sums], draws: int, rng: np.random.Generator) -> Floats:
    """(draws, V) traffic shares, redrawn: a window is a sample of its traffic, worth its effective number of turns."""
    weights = np.array([s.weight for s in sums])
    whole = reduce(add, sums)
    drawn = rng.standard_gamma(weights / weights.sum() * whole.effective_n, size=(draws, len(sums)))
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))


# --- the whole decomposition


@dataclass(frozen=True, slots=True)
class Parts:
    """A change and what it is made of; the means of mixture and rate shift add up to the mean of the change."""

    change: Interval
    mixture: Interval
    rate: Interval

    @classmethod
    def of(cls, mixture: Floats, rate: Floats) -> Parts:
        """From (draws,) mixture shifts and rate shifts."""
        return cls(interval(mixture + rate), interval(mixture), interval(rate))


@dataclass(frozen=True, slots=True)
class ValueParts:
    """What one label value contributes; over all values the means add up to those of the whole.

    Attributes
    ----------
    value : OTHER for all that are too rare to be looked at one by one.
    turns, traffic : before and after; traffic as a share.
    misaligned_share : within the value, before and after; None where it has too few turns.
    shares : contribution to the change of each behaviour's share, in taxonomy order.
    misaligned, entropy : contribution to the change of the misaligned mass, and of S in nats.
    """

    value: str | None
    turns: tuple[int, int]
    traffic: tuple[float, float]
    misaligned_share: tuple[Interval | None, Interval | None]
    shares: tuple[Parts, ...]
    misaligned: Parts
    entropy: Parts


@dataclass(frozen=True, slots=True)
class Decomposition:
    """A change from one window to another, by the values of one label.

    Attributes
    ----------
    values : those of most traffic first.
    shares, misaligned, entropy : of the windows as a whole.
    simpson : Simpson's trap: the misaligned mass surely moved one way, and surely the other way within the values
        (their rate shift as a whole, and most of the traffic whose own change is sure).
    """

    values: tuple[ValueParts, ...]
    shares: tuple[Parts, ...]
    misaligned: Parts
    entropy: Parts
    simpson: bool


def decompose(quantifier: Quantifier, before: Split, after: Split) -> Decomposition:
    """Split the change between two windows by a label. Deterministic.

    Raises
    ------
    ValueError : a window has no turns.
    """
    strata = Strata.of(quantifier, before, after)
    mixture, rate = share_parts(strata.traffic, strata.shares)
    slopes = entropy_slopes(*strata.totals)[:, None, :]
    of_s = (mixture * slopes).sum(axis=2), (rate * slopes).sum(axis=2)
    # misaligned is all that is not aligned
    of_m = -mixture[..., ALIGNED], -rate[..., ALIGNED]
    traffic = [t.mean(axis=0) for t in strata.traffic]
    values = tuple(
        ValueParts(
            value,
            (int(strata.turns[v, 0]), int(strata.turns[v, 1])),
            (float(traffic[0][v]), float(traffic[1][v])),
            (strata.rate(v, 0, _MISALIGNED), strata.rate(v, 1, _MISALIGNED)),
            tuple(Parts.of(mixture[:, v, k], rate[:, v, k]) for k in range(K)),
            Parts.of(of_m[0][:, v], of_m[1][:, v]),
            Parts.of(of_s[0][:, v], of_s[1][:, v]),
        )
        for v, value in enumerate(strata.values)
    )
    shares = tuple(Parts.of(mixture[:, :, k].sum(axis=1), rate[:, :, k].sum(axis=1)) for k in range(K))
    misaligned, of_entropy = (Parts.of(m.sum(axis=1), r.sum(axis=1)) for m, r in (of_m, of_s))
    return Decomposition(values, shares, misaligned, of_entropy, _trapped(misaligned, values, strata.mean_traffic))


_MISALIGNED: Final = tuple(k for k in range(K) if k != ALIGNED)


def _trapped(whole: Parts, values: Sequence[ValueParts], traffic: Floats) -> bool:
    way = surely(whole.change)
    if not way or surely(whole.rate) != -way:
        return False
    ways = [surely(v.misaligned.rate) for v in values]
    with_it, against = (sum(t for t, w in zip(traffic, ways, strict=True) if w == sign) for sign in (way, -way))
    return bool(against > with_it)


def surely(x: Interval) -> int:
    """1 or -1 where all of an interval lies on one side of 0, else 0."""
    return int(x.low > 0) - int(x.high < 0)


# --- where it comes from


@dataclass(frozen=True, slots=True)
class Carrier:
    """A label value that carries more of a change than its part of the traffic.

    Attributes
    ----------
    share : of the change.
    traffic : share of the turns, before and after.
    rate : share of what moved within the value's turns, before and after; None where it has too few.
    """

    label: str
    value: str | None
    share: Interval
    traffic: tuple[float, float]
    rate: tuple[Interval | None, Interval | None]


def likely_where(
    quantifier: Quantifier, before: Mapping[str, Split], after: Mapping[str, Split], behaviours: Sequence[int]
) -> list[Carrier]:
    """The label values that a change of some behaviours' total share comes from: those that are sure, three at most.

    A value's part is what it adds to the total over the mean rate before, now as against then: the parts at the head of
    this module, with the window before as reference. Where nothing is special about a value it carries its part of the
    traffic; named is what surely carries more, over all values of all labels that were looked at (Bonferroni, by the
    normal distribution of the draws). A change that is itself not sure comes from nowhere.

    Parameters
    ----------
    before, after : label -> its split; labels that either lacks are left out.
    """
    which = list(behaviours)
    found: list[Carrier] = []
    certainty: list[tuple[float, Carrier]] = []
    for label in sorted(before.keys() & after.keys()):
        if not all(any(s.n for s in split.values()) for split in (before[label], after[label])):
            continue
        strata = Strata.of(quantifier, before[label], after[label])
        if len(strata.values) < 2:
            continue
        mixture, rate = share_parts(strata.traffic, strata.shares, strata.totals[0])
        parts = (mixture + rate)[..., which].sum(axis=2)
        change = parts.sum(axis=1)
        way = surely(interval(change))
        if not way:
            continue
        beyond = way * (parts - (strata.mean_traffic + LEAST_BEYOND) * change[:, None])
        scores = beyond.mean(axis=0) / np.maximum(beyond.std(axis=0), 1e-12)
        traffic = [t.mean(axis=0).tolist() for t in strata.traffic]
        certainty += [
            (
                float(scores[v]),
                Carrier(
                    label,
                    value,
                    _share(way * parts[:, v], way * change),
                    (traffic[0][v], traffic[1][v]),
                    (strata.rate(v, 0, which), strata.rate(v, 1, which)),
                ),
            )
            for v, value in enumerate(strata.values)
        ]
    if certainty:
        least = NormalDist().inv_cdf(1 - SURE / len(certainty))
        found = [carrier for score, carrier in certainty if score >= least]
    return sorted(found, key=lambda c: (-c.share.mean, c.label, c.value or ""))[:MOST_NAMED]


def _share(part: Floats, whole: Floats) -> Interval:
    """A part's share of a whole that is surely positive; of their means: a draw of next to none makes it anything."""
    there = whole > 0
    x = interval(part[there] / whole[there])
    return Interval(float(np.clip(part.mean() / whole.mean(), x.low, x.high)), x.low, x.high)

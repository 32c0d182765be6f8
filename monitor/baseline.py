"""The frozen reference a series is compared with: its mixture, and an upper bound on the mean of every feature."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.buckets import FEATURES, LEVELS, Ints, Sums
from monitor.errors import ConfigError

Floats = NDArray[np.float64]

BOUND_ERROR: Final = 0.01
"""Chance that one feature's true baseline mean lies above its bound."""
CHANGE_ERROR: Final = 0.01
"""Chance that two windows of one mixture are called different."""
MOST_EXTENSIONS: Final = 3
"""Learning is made twice as long at most so often; what still changes then is frozen with a warning
(docs/decisions/0008-learning-waits-for-steady-traffic.md)."""
_SHUFFLES: Final = 4999
"""Random splits that two windows are compared with."""
_LARGEST_SHUFFLE_BITS: Final = 26
"""Windows of more than 2^26 turns are compared by a fraction of their counts; NumPy's sampler ends at 10^9."""
_BETS: Final[Floats] = np.array([0.02, 0.04, 0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 0.9])


@dataclass(frozen=True, slots=True)
class BaselineRule:
    """When a baseline is complete: `turns` turns and `hours` hours of traffic, or just what lies in [start, end)."""

    turns: int = 300
    hours: float = 24.0
    start: datetime | None = None
    end: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> BaselineRule:
        """Read `300` (turns), `36h`, `7d`, `300+24h` (both), or `2026-01-01..2026-01-08` (UTC, end not included).

        >>> BaselineRule.parse("500+7d")
        BaselineRule(turns=500, hours=168.0, start=None, end=None)
        """
        text = text.strip()
        try:
            if ".." in text:
                start, end = (datetime.fromisoformat(t) for t in text.split(".."))
                start, end = (t if t.tzinfo else t.replace(tzinfo=UTC) for t in (start, end))
                if start >= end:
                    raise ValueError
                return cls(turns=FEWEST, hours=0.0, start=start, end=end)
            turns: int | None = None
            hours: float | None = None
            for part in text.split("+"):
                match = re.fullmatch(r"(\d+)([hd]?)", part.strip())
                if not match or (turns if match[2] == "" else hours) is not None:
                    raise ValueError
                if match[2]:
                    hours = int(match[1]) * (24.0 if match[2] == "d" else 1.0)
                else:
                    turns = int(match[1])
            if turns is not None and turns < FEWEST:
                raise ConfigError(f"a baseline needs at least {FEWEST} turns, not {turns}")
            return cls(turns=turns or FEWEST, hours=hours or 0.0)
        except ValueError:
            raise ConfigError(
                f"baseline {text!r} is not understood; write 300 (turns), 7d, 300+24h, or 2026-01-01..2026-01-08"
            ) from None

    @property
    def text(self) -> str:
        """What `parse` reads as this rule.

        >>> BaselineRule.parse("7d").text
        '50+168h'
        """
        if self.start is not None and self.end is not None:
            return f"{self.start.isoformat()}..{self.end.isoformat()}"
        return f"{self.turns}+{self.hours:g}h" if self.hours else str(self.turns)

    def wants(self, minute: int) -> bool:
        """Whether the traffic of a minute may be learned from."""
        at = _EPOCH + timedelta(minutes=minute)
        return (self.start is None or at >= self.start) and (self.end is None or at < self.end)

    def over(self, minute: int) -> bool:
        """Whether a minute lies behind the range to learn from."""
        return self.end is not None and _EPOCH + timedelta(minutes=minute) >= self.end

    def complete(self, turns: int, minutes: int) -> bool:
        return self.end is None and turns >= self.turns and minutes >= self.hours * 60

    def half_way(self, turns: int, minutes: int, minute: int) -> bool:
        """Whether the first half ends with `minute`: half of the turns and of the hours, or the middle of the range."""
        if self.start is not None and self.end is not None:
            return _EPOCH + timedelta(minutes=minute + 1) >= self.start + (self.end - self.start) / 2
        return 2 * turns >= self.turns and 2 * minutes >= self.hours * 60

    def times(self, factor: int) -> BaselineRule:
        """The rule for a learning so much longer; a range stays as it is."""
        return self if self.end is not None else replace(self, turns=self.turns * factor, hours=self.hours * factor)


FEWEST: Final = 50
"""Fewer turns than this bound nothing worth comparing with."""
FEWEST_COMPARED: Final = FEWEST // 2
"""Turns that each of two windows must have to be compared."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A frozen baseline.

    Attributes
    ----------
    first_minute, last_minute : the traffic it was learned from, both included.
    sums : statistics of its turns.
    bounds : (5,) upper 99 % bounds of the features' means (monitor.buckets.FEATURES).
    """

    first_minute: int
    last_minute: int
    sums: Sums
    bounds: Floats

    @classmethod
    def freeze(cls, first_minute: int, last_minute: int, sums: Sums) -> Baseline:
        """Raises ValueError on fewer than 50 turns."""
        if sums.n < FEWEST:
            raise ValueError(f"not enough turns for a baseline: {sums.n} of {FEWEST}")
        counts = sums.level_counts()
        bounds = np.array([upper_bound(counts[j]) for j in range(len(FEATURES))])
        return cls(first_minute, last_minute, sums, bounds)


def changed_features(before: Sums, after: Sums, error: float = CHANGE_ERROR) -> list[str]:
    """Which features (monitor.buckets.FEATURES) have another mean in one window than in the other.

    A permutation test: were all turns of one kind, any split of them into windows of these sizes would be as likely as
    the one seen, so a difference of means that fewer than `error` of 4,999 random splits reach is called a change (each
    of the five features is given a fifth of `error`). Exact for any distribution and any sizes, as far as turns are
    exchangeable; the splits are drawn with a fixed seed. Fewer than 25 turns in a window show nothing.
    """
    if min(before.n, after.n) < FEWEST_COMPARED:
        return []
    rng = np.random.default_rng(2512_03047)
    shift = max(0, (before.n + after.n).bit_length() - _LARGEST_SHUFFLE_BITS)
    found = []
    for name, a, b in zip(FEATURES, before.level_counts() >> shift, after.level_counts() >> shift, strict=True):
        pooled, n = a + b, int(a.sum())
        expected = n * float(pooled @ LEVELS) / float(pooled.sum())
        splits = rng.multivariate_hypergeometric(pooled, n, size=_SHUFFLES, method="marginals") @ LEVELS
        # the tolerance takes equal sums, added in another order, for equal
        as_far = np.abs(splits - expected) >= abs(float(a @ LEVELS) - expected) - 1e-9
        if (1 + int(as_far.sum())) / (1 + _SHUFFLES) <= error / len(FEATURES):
            found.append(name)
    return found


def unsteady(features: Sequence[str]) -> str:
    """A warning that what a baseline was learned from was changing; nothing when it was not."""
    return f"the traffic it was learned from was changing: {', '.join(features)}" if features else ""


def upper_bound(counts: Ints, error: float = BOUND_ERROR, levels: Floats = LEVELS) -> float:
    """Upper confidence bound of the mean of a variable in [0, 1] known by its counts over `levels`.

    The smaller of two bounds that hold for any distribution and any n, each given half of `error`: Chernoff's,
    n kl(mean, m) <= ln(1/error) (Hoeffding 1963), best for rare events; and a betting bound (Waudby-Smith & Ramdas
    2024, section 4), best for scores of small spread: were the mean m or more, the wealth of a gambler on lower values,
    mean_j prod_i (1 - b_j (x_i - m) / (1 - m)), would exceed 1/error with probability at most `error`.

    >>> counts = np.zeros(len(LEVELS), dtype=np.int64); counts[0] = 300
    >>> round(upper_bound(counts), 3)
    0.018
    """
    n = int(counts.sum())
    mean = float((counts * levels).sum()) / n
    target = np.log(2 / error)
    chernoff = _bisect(mean, lambda m: n * _kl(mean, m) >= target)
    return min(chernoff, _bisect(mean, lambda m: _log_wealth(counts, m, levels) >= target))


def lower_bound(counts: Ints, error: float = BOUND_ERROR) -> float:
    """Lower confidence bound of the mean: 1 less the upper bound of the mean of 1 - X.

    >>> counts = np.zeros(len(LEVELS), dtype=np.int64); counts[-1] = 300
    >>> round(lower_bound(counts), 3)
    0.982
    """
    return 1.0 - upper_bound(counts, error, 1.0 - LEVELS)


def share_bounds(count: int, n: int, error: float) -> tuple[float, float]:
    """Lower and upper bound of a share of which `count` of `n` turns were seen, each with error `error` (Chernoff)."""
    target = np.log(1 / error)
    low = 1.0 - _bisect(1.0 - count / n, lambda m: n * _kl(1.0 - count / n, m) >= target)
    return low, _bisect(count / n, lambda m: n * _kl(count / n, m) >= target)


def _bisect(low: float, excluded: Callable[[float], bool]) -> float:
    high = 1.0
    for _ in range(40):
        m = (low + high) / 2
        if m >= 1.0 or excluded(m):
            high = m
        else:
            low = m
    return high


def _kl(p: float, m: float) -> float:
    inside = p * np.log(p / m) if p > 0 else 0.0
    outside = (1 - p) * np.log((1 - p) / (1 - m)) if p < 1 else 0.0
    return float(inside + outside)


def _log_wealth(counts: Ints, m: float, levels: Floats) -> float:
    steps = np.log1p(-_BETS[:, None] * (levels[None, :] - m) / (1 - m))
    wealth = (steps * counts).sum(axis=1)
    return float(np.logaddexp.reduce(wealth) - np.log(len(_BETS)))

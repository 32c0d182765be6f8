"""What an estimator answers: a figure with its interval, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

LEVEL: Final = 0.90
"""Coverage of every interval."""
NORMAL_QUANTILE: Final = 1.6448536269514722
"""Standard deviations from the centre of a normal to either end of its 90 % interval."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; all three are finite.

    Attributes
    ----------
    value, lo, hi : in `units`.
    units : such as "nats/day".
    method : how value and interval were obtained, for people.
    level : coverage of the interval.
    """

    value: float
    lo: float
    hi: float
    units: str
    method: str
    level: float = LEVEL

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.lo) and math.isfinite(self.hi)) or self.lo > self.hi:
            raise ValueError(f"not an interval: {self.value} [{self.lo}, {self.hi}]")

    def times(self, factor: float, units: str) -> Estimate:
        """The same in other units; `factor` is positive and exactly known."""
        return Estimate(self.value * factor, self.lo * factor, self.hi * factor, units, self.method, self.level)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no figure, such as "not enough turns: 12 of 50"."""

    reason: str


Result = Estimate | Refusal


def normal_estimate(value: float, sd: float, units: str, method: str) -> Estimate:
    """A figure whose error is normal with standard deviation `sd`."""
    return Estimate(value, value - NORMAL_QUANTILE * sd, value + NORMAL_QUANTILE * sd, units, method)


def enough(have: int, need: int, what: str) -> Refusal | None:
    """A refusal when there is less than needed.

    >>> enough(12, 50, "turns")
    Refusal(reason='not enough turns: 12 of 50')
    """
    return None if have >= need else Refusal(f"not enough {what}: {have} of {need}")

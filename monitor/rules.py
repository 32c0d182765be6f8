"""Rules on S and dS/dt that a person sets: on the interval's lower end, never on the figure alone.

They promise nothing about false alarms and see nothing that leaves S where it was; the detectors do both. They are for
whoever has agreed on a level of S with somebody. Off unless set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from monitor.drift import Slope
from monitor.entropy import Interval
from monitor.estimates import NORMAL_QUANTILE

ENTROPY_LEVEL: Final = "entropy_level"
"""The lower end of S is above a level."""
ENTROPY_RATE: Final = "entropy_rate"
"""The lower end of dS/dt is above a rate."""
RULES: Final = (ENTROPY_LEVEL, ENTROPY_RATE)


@dataclass(frozen=True, slots=True)
class Broken:
    """A limit that is exceeded.

    Attributes
    ----------
    figure : S in nats, or dS/dt in nats/day, with its 90 % interval.
    limit : in the same units.
    """

    rule: str
    figure: Interval
    limit: float

    @property
    def reason(self) -> str:
        f = self.figure
        if self.rule == ENTROPY_LEVEL:
            return f"S of 24 h is above {self.limit:g} nats: {f.mean:.2f} ({f.low:.2f}-{f.high:.2f})"
        return f"S rises by more than {self.limit:g} nats/day: {f.mean:+.3f} ({f.low:+.3f} to {f.high:+.3f})"


def broken(entropy: Interval, slope: Slope, *, level_nats: float, rate_nats_per_day: float) -> list[Broken]:
    """Which limits a 24 h window exceeds, with at least 95 % confidence each; a limit of 0 is off.

    >>> [b.rule for b in broken(Interval(1.0, 0.9, 1.1), Slope(0.2, 0.2), level_nats=0.8, rate_nats_per_day=0.05)]
    ['entropy_level']
    """
    error = NORMAL_QUANTILE * slope.error
    rate = Interval(slope.value, slope.value - error, slope.value + error)
    figures = ((ENTROPY_LEVEL, entropy, level_nats), (ENTROPY_RATE, rate, rate_nats_per_day))
    return [Broken(rule, figure, limit) for rule, figure, limit in figures if limit > 0 and figure.low > limit]

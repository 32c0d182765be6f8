"""dS/dt: local linear trend of S by Kalman filtering (design 3.3).

How fast a level and a slope wander is not known beforehand, so a small bank of filters runs side by side and each
counts by how well it predicted: no tuning knob, and the slope's error includes not knowing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEVEL_NOISE: Final = (0.003, 0.03, 0.1)
"""Random-walk step of the level, nats per square-root day."""
_SLOPE_NOISE: Final = (0.003, 0.05, 0.4)
"""Random-walk step of the slope, nats/day per square-root day."""
_BANK: Final[Floats] = np.array([(a, b) for a in _LEVEL_NOISE for b in _SLOPE_NOISE])
_START_SLOPE_SD: Final = 0.3
"""Prior standard deviation of dS/dt, nats/day: S moves by at most 1.6 nats, seldom in less than days."""


@dataclass(frozen=True, slots=True)
class Slope:
    """dS/dt and its standard error, nats/day."""

    value: float
    error: float


@dataclass(slots=True)
class Trend:
    """State of the bank of filters; update it in time order, then read `slope`.

    >>> trend = Trend()
    >>> for day in range(20):
    ...     trend.update(float(day), 0.3 + 0.05 * day, variance=1e-4)
    >>> abs(trend.slope.value - 0.05) < 0.005
    True
    """

    t: float | None = None
    mean: Floats | None = None
    covariance: Floats | None = None
    log_weight: Floats | None = None

    def update(self, t: float, s: float, variance: float) -> None:
        """Take in an estimate of S.

        Parameters
        ----------
        t : time of the estimate, days; not before the last one.
        s : nats.
        variance : its variance, nats^2, positive.

        Raises
        ------
        ValueError : a value is not finite, the variance not positive, or time runs backwards.
        """
        if not (np.isfinite(t) and np.isfinite(s) and np.isfinite(variance)) or variance <= 0:
            raise ValueError("S and its variance must be finite, and the variance positive")
        if self.t is None or self.mean is None or self.covariance is None or self.log_weight is None:
            self.t = t
            self.mean = np.tile([s, 0.0], (len(_BANK), 1))
            self.covariance = np.tile(np.diag([variance, _START_SLOPE_SD**2]), (len(_BANK), 1, 1))
            self.log_weight = np.full(len(_BANK), -np.log(len(_BANK)))
            return
        dt = t - self.t
        if dt < 0:
            raise ValueError(f"time runs backwards by {-dt:g} days")
        self.t = t
        mean, cov = self.mean, self.covariance
        level = mean[:, 0] + dt * mean[:, 1]
        a, b, d = cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]
        level_q, slope_q = _BANK[:, 0] ** 2, _BANK[:, 1] ** 2
        p00 = a + 2 * dt * b + dt * dt * d + level_q * dt + slope_q * dt**3 / 3
        p01 = b + dt * d + slope_q * dt**2 / 2
        p11 = d + slope_q * dt
        spread = p00 + variance
        error = s - level
        k0, k1 = p00 / spread, p01 / spread
        self.mean = np.stack([level + k0 * error, mean[:, 1] + k1 * error], axis=1)
        n00, n01, n11 = p00 * (1 - k0), p01 * (1 - k0), p11 - k1 * p01
        self.covariance = np.stack([np.stack([n00, n01], axis=1), np.stack([n01, n11], axis=1)], axis=1)
        log_weight = self.log_weight - 0.5 * (np.log(spread) + error * error / spread)
        self.log_weight = log_weight - np.logaddexp.reduce(log_weight)

    @property
    def slope(self) -> Slope:
        """dS/dt now; before two estimates, 0 with the prior's error."""
        if self.mean is None or self.covariance is None or self.log_weight is None:
            return Slope(0.0, _START_SLOPE_SD)
        w = np.exp(self.log_weight)
        value = float((w * self.mean[:, 1]).sum())
        within = float((w * self.covariance[:, 1, 1]).sum())
        between = float((w * (self.mean[:, 1] - value) ** 2).sum())
        return Slope(value, float(np.sqrt(within + between)))

"""Rate at which a noisily observed series returns to its mean, and what holds it away from zero.

The series is an Ornstein-Uhlenbeck process dx = -r (x - mean) dt + sqrt(2 D) dW seen at irregular times with errors of
known variance: y_i = x(t_i) + e_i. Its likelihood is exact (a Kalman filter), computed for a whole grid of (r, noise)
at once; the mean or the start, which enter linearly, are integrated out (restricted likelihood), and for rates so is
the noise (flat prior on its variance). Intervals are the values whose likelihood ratio is below the 90 % point of
chi-square; with the restricted likelihood this holds for autoregressions nearly up to the unit root, where Wald
intervals fail (Chen & Deo 2009). Derivation and measured coverage: docs/statistics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitor.estimates import NORMAL_QUANTILE, Estimate, Refusal, Result, enough
from monitor.taxonomy import K

Floats = NDArray[np.float64]

FEWEST_POINTS: Final = 20
"""With fewer points a rate is not estimated."""
_DROP: Final = NORMAL_QUANTILE**2 / 2
"""Log likelihood at an end of the 90 % interval, below the greatest."""
_SLOWEST: Final = 0.02
"""Least rate looked at, per span of the series: it would return by 2 % of the way."""
_FASTEST: Final = 6.0
"""Greatest rate looked at, per median spacing: one point tells nothing of the next."""
_COARSE: Final = (33, 21)
_FINE: Final = (49, 25)
"""Grid sizes (rates, noises) of the first look and of the second, closer one."""
_CLOSE: Final = 5.0
"""The second look covers what is less than this below the greatest log likelihood."""


@dataclass(frozen=True, slots=True)
class Series:
    """Observations in time order: times in days, values, and the variances of their errors; each (n,)."""

    times: Floats
    values: Floats
    variances: Floats

    @property
    def span(self) -> float:
        """Days from the first to the last."""
        return float(self.times[-1] - self.times[0])


def series_of(times: ArrayLike, values: ArrayLike, variances: ArrayLike, fewest: int) -> Series | Refusal:
    """Check observations; a refusal says what is wrong with them and where."""
    try:
        t, y, v = (np.array(x, dtype=np.float64) for x in (times, values, variances))
    except (TypeError, ValueError):
        return Refusal("times, values and variances must be numbers")
    if t.ndim != 1 or t.shape != y.shape or t.shape != v.shape:
        return Refusal(f"times, values and variances differ in shape: {t.shape}, {y.shape}, {v.shape}")
    if (few := enough(len(t), fewest, "points")) is not None:
        return few
    if not (good := np.isfinite(t) & np.isfinite(y) & np.isfinite(v)).all():
        return Refusal(f"point {int((~good).argmax())} is not finite")
    if (v <= 0).any():
        return Refusal(f"variance of point {int((v <= 0).argmax())} is not positive")
    if (np.diff(t) < 0).any():
        return Refusal(f"time runs backwards at point {int((np.diff(t) < 0).argmax()) + 1}")
    if t[-1] <= t[0]:
        return Refusal("all points are of one moment")
    return Series(t, y, v)


class Surface(NamedTuple):
    """Restricted log likelihood over rates and noises, and what the mean is at each.

    Attributes
    ----------
    rates : (R,) 1/day.
    noises : (W,) variance gained over the median spacing: what is identified whether r is large or small.
    log_likelihood : (R, W), restricted where the mean is free.
    mean, mean_variance : (R, W) of the free linear parameter; zeros where there is none.
    """

    rates: Floats
    noises: Floats
    log_likelihood: Floats
    mean: Floats
    mean_variance: Floats


def _spacing(series: Series) -> float:
    steps = np.diff(series.times)
    return float(np.median(steps[steps > 0]))


def _surface(
    series: Series, rates: Floats, noises: Floats, free: str, dip: float = 0.0, window: float = 0.0
) -> Surface:
    """Filter the series at every (rate, noise).

    free : "mean", stationary about an unknown mean; "start", decaying to 0 from an unknown start; "none", stationary
    about 0.
    dip : the process's variance times this is how far the series lies below what is meant (`_dip`).
    window : days before its time over which each value is a mean; 0 for values of a moment.
    """
    r = rates[:, None]
    # from the process at a window's start to its mean over it, and to the process at its end
    to_mean, to_end = (-np.expm1(-r * window) / (r * window) if window else np.ones_like(r)), np.exp(-r * window)
    mean_noise, both_noise, end_noise = _window_noises(r * window)
    stationary = noises[None, :] / -np.expm1(-2 * r * _spacing(series))
    shape = stationary.shape
    variance = np.zeros(shape) if free == "start" else stationary
    level, column = np.zeros(shape), np.zeros(shape)
    yy, xy, xx, log_det = (np.zeros(shape) for _ in range(4))
    since_start = np.ones_like(r)
    steps = [*np.maximum(np.diff(series.times) - window, 0.0).tolist(), 0.0]
    for y, v, dt in zip(series.values.tolist(), series.variances.tolist(), steps, strict=True):
        spread = to_mean * to_mean * variance + mean_noise * stationary + v
        lowered = dip * stationary * (1.0 - since_start * since_start if free == "start" else 1.0)
        miss = y + lowered - to_mean * level
        across = to_mean * to_end * variance + both_noise * stationary
        gain = across / spread
        yy += miss * miss / spread
        log_det += np.log(spread)
        keep = np.exp(-r * dt)
        if free != "none":
            column_miss = (since_start if free == "start" else 1.0) - to_mean * column
            xy += column_miss * miss / spread
            xx += column_miss * column_miss / spread
            column = keep * (to_end * column + gain * column_miss)
            since_start = since_start * keep
        level = keep * (to_end * level + gain * miss)
        left = to_end * to_end * variance + end_noise * stationary - gain * across
        variance = keep * keep * left + stationary * -np.expm1(-2 * r * dt)
    if free == "none":
        return Surface(rates, noises, -0.5 * (log_det + yy), np.zeros(shape), np.zeros(shape))
    log_likelihood = -0.5 * (log_det + yy - xy * xy / xx + np.log(xx))
    return Surface(rates, noises, log_likelihood, xy / xx, 1 / xx)


def _window_noises(x: Floats) -> tuple[Floats, Floats, Floats]:
    """What noise adds within a window of x relaxation times, in stationary variances: to the variance of the process's
    mean over it, to the covariance of that with the process at its end, and to the variance of the latter.

    The mean of an Ornstein-Uhlenbeck process over a window is smoother than the process (Working 1960).
    """
    e = np.exp(-x)
    small = x < 1e-3  # the exact differences cancel to rounding, the leading terms do not
    y = np.where(small, 1.0, x)
    mean = np.where(small, 2 * x / 3, (2 * y - 3 + 4 * e - e * e) / y**2)
    both = np.where(small, x, (1 - e) ** 2 / y)
    return np.maximum(mean, 0.0), both, -np.expm1(-2 * x)


def _log_spaced(a: float, b: float, n: int) -> Floats:
    return np.exp(np.linspace(math.log(a), math.log(b), n))


def _dip(goals: int) -> float:
    """How far L lies below the difference of logits that gamma drives, in process variances of L.

    The mean of the other goals' odds exceeds their geometric mean as their logits scatter: to first order by half their
    variance, (N - 2) / (2 N) of the variance of L.
    """
    return (goals - 2) / (2 * goals)


def _noise_range(series: Series) -> tuple[float, float]:
    scale = float(np.mean(np.diff(series.values) ** 2) / 2 + series.variances.mean())
    return 1e-6 * scale, 10 * scale


def _searched(series: Series, free: str, dip: float = 0.0, window: float = 0.0) -> Surface:
    """The surface where it matters: a coarse look over all rates, then a fine one around the top."""
    slowest, fastest = _SLOWEST / series.span, _FASTEST / _spacing(series)
    rates = _log_spaced(slowest, max(fastest, 2 * slowest), _COARSE[0])
    noises = _log_spaced(*_noise_range(series), _COARSE[1])
    coarse = _surface(series, rates, noises, free, dip, window)
    high = coarse.log_likelihood > coarse.log_likelihood.max() - _CLOSE
    rates, noises = _around(rates, high.any(axis=1), _FINE[0]), _around(noises, high.any(axis=0), _FINE[1])
    return _surface(series, rates, noises, free, dip, window)


def _around(nodes: Floats, high: NDArray[np.bool_], n: int) -> Floats:
    """n nodes over those marked and one more on either side."""
    where = np.flatnonzero(high)
    return _log_spaced(nodes[max(where[0] - 1, 0)], nodes[min(where[-1] + 1, len(nodes) - 1)], n)


def _interval(x: Floats, profile: Floats) -> tuple[float, float | None, float | None]:
    """Greatest point of a profile log likelihood and where it has dropped to the interval's ends (None: nowhere)."""
    top = int(profile.argmax())
    value, peak = float(x[top]), float(profile[top])
    if 0 < top < len(x) - 1:
        a, b, c = (float(p) for p in profile[top - 1 : top + 2])
        if (curvature := a - 2 * b + c) < 0:
            shift = 0.5 * (a - c) / curvature
            value += shift * float(x[top + 1] - x[top] if shift > 0 else x[top] - x[top - 1])
            peak -= 0.125 * (a - c) ** 2 / curvature
    level = peak - _DROP
    ends: list[float | None] = []
    for step, last in ((-1, 0), (1, len(x) - 1)):
        i = top
        while i != last and profile[i] > level:
            i += step
        if profile[i] > level:
            ends.append(None)
            continue
        inside, outside = i - step, i
        part = (profile[inside] - level) / (profile[inside] - profile[outside])
        ends.append(float(x[inside] + part * (x[outside] - x[inside])))
    return value, ends[0], ends[1]


_RATE_METHOD: Final = "Ornstein-Uhlenbeck with known observation errors, restricted likelihood"


def _rate(series: Series, surface: Surface, what: str) -> Result:
    # flat prior on the noise variance, whose nodes are log-spaced
    profile = np.logaddexp.reduce(surface.log_likelihood + np.log(surface.noises), axis=1)
    log_rate, lo, hi = _interval(np.log(surface.rates), profile)
    spacing = _spacing(series)
    if hi is None and lo is None:
        return Refusal(f"{what} is not identified: what moves is no more than the errors of single points explain")
    if hi is None:
        return Refusal(f"{what} is not identified: points {spacing:.3g} days apart are too far from each other")
    if lo is None and math.exp(log_rate) < 2 * _SLOWEST / series.span:
        return Refusal(f"no return seen in {series.span:.3g} days: {what} is below {math.exp(hi):.3g}/day")
    return Estimate(math.exp(log_rate), 0.0 if lo is None else math.exp(lo), math.exp(hi), "1/day", _RATE_METHOD)


def restoring_rate(
    times: ArrayLike, values: ArrayLike, variances: ArrayLike, *, baseline: float | None = None, window: float = 0.0
) -> Result:
    """kappa, the rate at which S returns to its baseline; falling towards 0 it warns of a tipping point.

    Parameters
    ----------
    times : (n,) days, not decreasing; any spacing.
    values : (n,) S, nats (or any other level).
    variances : (n,) of their errors, from sampling alone.
    baseline : the level returned to; None takes it as unknown and constant.
    window : days before its time over which each value is a mean; 0 for values of a moment. Windows may touch.

    Returns
    -------
    1/day; the interval may begin at 0. Refused with fewer than 20 points, when the points lie too far apart to see a
    return, when none is seen, when nothing moves beyond the points' own errors, and when windows overlap.
    """
    series = series_of(times, values, variances, FEWEST_POINTS)
    if isinstance(series, Refusal):
        return series
    if not (math.isfinite(window) and window >= 0):
        return Refusal(f"a window must be a number of days, not {window}")
    if (overlap := np.diff(series.times) < window * (1 - 1e-6)).any():
        return Refusal(f"windows overlap at point {int(overlap.argmax()) + 1}")
    if baseline is None:
        return _rate(series, _searched(series, "mean", window=window), "kappa")
    if not math.isfinite(baseline):
        return Refusal("the baseline is not finite")
    around = Series(series.times, series.values - baseline, series.variances)
    return _rate(around, _searched(around, "none", window=window), "kappa")


def half_life(kappa: Result) -> Result:
    """ln 2 / kappa, days; refused where kappa may be 0."""
    if isinstance(kappa, Refusal):
        return kappa
    if kappa.lo <= 0:
        return Refusal(f"half-life has no upper bound: it is at least {math.log(2) / kappa.hi:.3g} days")
    value, lo, hi = (math.log(2) / k for k in (kappa.value, kappa.hi, kappa.lo))
    return Estimate(value, lo, hi, "days", kappa.method)


def decay_rate(times: ArrayLike, log_odds: ArrayLike, variances: ArrayLike, *, goals: int = K) -> Result:
    """r, the rate at which the aligned log-odds L of a base model under stress decays to indifference (L = 0).

    Parameters
    ----------
    times : (n,) days (or turns: then all rates are per turn), not decreasing.
    log_odds, variances : (n,) from `monitor.alignment_work.log_odds`.

    Returns
    -------
    1/day. Refused like `restoring_rate`.
    """
    series = series_of(times, log_odds, variances, FEWEST_POINTS)
    return series if isinstance(series, Refusal) else _rate(series, _searched(series, "start", _dip(goals)), "r")


@dataclass(frozen=True, slots=True)
class Held:
    """What holds a stationary series where it is: rate r in 1/day and work gamma = r * mean in nats/day."""

    r: Result
    gamma: Result


def held_level(
    times: ArrayLike,
    log_odds: ArrayLike,
    variances: ArrayLike,
    *,
    r: float | Estimate | None = None,
    goals: int = K,
) -> Held:
    """gamma = r * mean L of a series that is stationary.

    Parameters
    ----------
    times : (n,) days, not decreasing.
    log_odds, variances : (n,) from `monitor.alignment_work.log_odds`.
    r : the relaxation rate: a number when known, an Estimate (from `decay_rate`) whose error is carried over, None to
        estimate it from the fluctuations of this very series.

    Returns
    -------
    Held. gamma is refused where r is.
    """
    series = series_of(times, log_odds, variances, FEWEST_POINTS)
    if isinstance(series, Refusal):
        return Held(series, series)
    if r is None:
        surface = _searched(series, "mean", _dip(goals))
        rate = _rate(series, surface, "r")
        if isinstance(rate, Refusal):
            return Held(rate, rate)
        return Held(rate, _gamma(_denser(surface), "r and gamma estimated together"))
    nodes = rate_nodes(r, np.linspace(-3, 3, 25))
    if isinstance(nodes, Refusal):
        return Held(nodes, nodes)
    rates, log_prior = nodes
    surface = _surface(series, rates, _log_spaced(*_noise_range(series), 2 * _FINE[1]), "mean", _dip(goals))
    given = Estimate(r, r, r, "1/day", "given") if isinstance(r, float | int) else r
    surface = surface._replace(log_likelihood=surface.log_likelihood + log_prior[:, None])
    return Held(given, _gamma(_denser(surface), "r given"))


def rate_nodes(r: float | Estimate, sds: ArrayLike) -> tuple[Floats, Floats] | Refusal:
    """Rates to try and their log weights: one for a known rate; for an estimated one those so many standard deviations
    from its value, log-normal on either side as its interval says."""
    if not isinstance(r, Estimate):
        if not (math.isfinite(r) and r > 0):
            return Refusal(f"r must be a positive number, not {r}")
        return np.array([float(r)]), np.zeros(1)
    if not 0 < r.lo <= r.value <= r.hi:
        return Refusal("r may be 0: its interval has no positive lower end")
    if r.lo == r.hi:
        return np.array([r.value]), np.zeros(1)
    z = np.asarray(sds, dtype=np.float64)
    below, above = (math.log(ratio) / NORMAL_QUANTILE for ratio in (r.value / r.lo, r.hi / r.value))
    return r.value * np.exp(np.where(z < 0, below, above) * z), -0.5 * z * z


def _denser(surface: Surface) -> Surface:
    """Eight times as many rates: where the mean is known far better than the rate, rate * mean must have no gaps."""
    n = len(surface.rates)
    if n == 1:
        return surface
    at = np.linspace(0, n - 1, 8 * n)
    left = np.minimum(at.astype(np.int64), n - 2)
    part = (at - left)[:, None]

    def between(a: Floats) -> Floats:
        return np.asarray((1 - part) * a[left] + part * a[left + 1])

    rates = np.exp(between(np.log(surface.rates)[:, None]))[:, 0]
    return Surface(rates, surface.noises, *(between(a) for a in surface[2:]))


def _gamma(surface: Surface, how: str) -> Result:
    """Profile likelihood of rate * mean."""
    height = surface.log_likelihood
    kept = height > height.max() - _CLOSE
    rate = np.broadcast_to(surface.rates[:, None], kept.shape)[kept]
    centre, sd = rate * surface.mean[kept], rate * np.sqrt(surface.mean_variance[kept])
    height = height[kept]
    grid = np.linspace(float((centre - 4 * sd).min()), float((centre + 4 * sd).max()), 301)
    for _ in range(2):
        profile = (height - 0.5 * ((grid[:, None] - centre) / sd) ** 2).max(axis=1)
        high = np.flatnonzero(profile > profile.max() - 2 * _DROP)
        value, lo, hi = _interval(grid, profile)
        grid = np.linspace(grid[max(high[0] - 1, 0)], grid[min(high[-1] + 1, len(grid) - 1)], 301)
    if lo is None or hi is None:
        return Refusal("gamma is not identified: its likelihood is flat")
    return Estimate(value, lo, hi, "nats/day", f"r * mean L, {how}; profile likelihood")

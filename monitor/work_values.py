"""Alignment work of a series, from the points that are stored: computed when a summary is read, kept nowhere.

`work_of` is pure: points in, figures and refusals out. `work_values` reads the points and gives plain values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from monitor.alignment_work import FEWEST_UPDATES, WorkFilter, depth, log_odds, margin, running, worth
from monitor.drift import Slope
from monitor.estimates import NORMAL_QUANTILE, Estimate, Refusal, Result, enough
from monitor.relaxation import FEWEST_POINTS, half_life, restoring_rate
from monitor.store import reads
from monitor.taxonomy import ALIGNED, BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY, WINDOWS_MINUTES, Settings

DAYS: Final = 30
"""How far back from the last point rates look."""
_WINDOWS: Final = tuple(m for m in WINDOWS_MINUTES if m <= MINUTES_PER_DAY)
"""Longer windows average away the very motion that rates are told from."""
_LEAST_SD: Final = 1e-4
"""Standard deviation of S, nats, and of a share, below which none is believed."""

_MISFIT: Final = Refusal("the answers on the baseline fit no healthy deployment, as the classifier is calibrated")

StoredPoint = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What is known of a series' alignment work now.

    Attributes
    ----------
    depth : L / ln N of the last window.
    gamma : dL/dt + r L, nats of log-odds a day.
    margin : gamma / (r ln N).
    running : sigma_0 - dS/dt, nats of S a day: another scale than gamma.
    kappa : rate at which S returns to its mean, 1/day.
    half_life : of that return, days.
    points, window_minutes : how many windows, of what length, gamma, margin and kappa are from.
    """

    depth: Result
    gamma: Result
    margin: Result
    running: Result
    kappa: Result
    half_life: Result
    points: int
    window_minutes: int


def work_of(
    now: StoredPoint,
    windows: Mapping[int, Sequence[StoredPoint]],
    lambda_max_per_day: float,
    sigma_0: float,
    *,
    fits: bool = True,
    kappa: bool = True,
) -> Work:
    """Figures of the last point and of the points before it.

    Parameters
    ----------
    now : the last point, by the column names of the table `points`.
    windows : window length in minutes -> its points in time order, estimated alike (under one baseline).
    lambda_max_per_day, sigma_0 : 1/day and nats/day; 0 where not known.
    fits : whether the calibration explains the answers on the baseline by a healthy mixture. Where it does not,
        intervals of the aligned share hold it in 11 of 29 simulated deployments, and nothing is told from it.
    kappa : whether kappa is wanted, which costs more than all the rest.
    """
    minutes, points = _disjoint(windows)
    gamma, spare = _held(points, minutes, lambda_max_per_day) if fits else (_MISFIT, _MISFIT)
    returns = _return(points, minutes) if kappa else Refusal("not asked for")
    return Work(
        depth=depth(*_interval(now)) if fits else _MISFIT,
        gamma=gamma,
        margin=spare,
        # taken as exact: the setting has no error of its own
        running=running(sigma_0, 0.0, Slope(now["ds_dt"], now["ds_dt_se"]))
        if sigma_0 > 0
        else Refusal("monitor.sigma_0 is not set"),
        kappa=returns,
        half_life=half_life(returns),
        points=len(points),
        window_minutes=minutes,
    )


def _level(point: StoredPoint) -> tuple[float, float]:
    """L of a window and its variance.

    No standard deviation of the aligned share is stored: it is taken as that of a normal share whose 90 % interval is
    as wide as the stored one. So it holds the classifier's error as well as that of sampling.
    """
    aligned = BEHAVIOURS[ALIGNED]
    share = min(max(point[f"p_{aligned}"], 0.0), 1.0)
    sd = max((point[f"p_{aligned}_hi"] - point[f"p_{aligned}_lo"]) / (2 * NORMAL_QUANTILE), _LEAST_SD)
    level, variance = log_odds(share, worth(share, sd, point["effective_n"]))
    return float(level), float(variance)


def _held(points: Sequence[StoredPoint], minutes: int, lambda_max_per_day: float) -> tuple[Result, Result]:
    """gamma_eff and margin at the last point."""
    if lambda_max_per_day <= 0:
        missing = Refusal("monitor.lambda_max_per_day is not set")
        return missing, missing
    if (few := enough(len(points), FEWEST_UPDATES, f"windows of {minutes // 60} h")) is not None:
        return few, few
    r = lambda_max_per_day / 2
    work = WorkFilter(r)
    levels = [_level(p) for p in points]
    for p, (level, variance) in zip(points, levels, strict=True):
        work.update(_days(p), level, variance)
    # The filter averages the points' errors out, but the confusion's is common to all and stays. What part of a point's
    # error is common is not stored: it is taken to be as much as three quarters of the points have. A shift of L by x
    # moves gamma by r x.
    ends = np.array([_interval(p) for p in points])
    below, above = np.quantile(np.abs(ends[:, 1:] - ends[:, :1]), 0.25, axis=0)
    gamma = _wider(work.gamma(), r * float(below), r * float(above))
    return gamma, margin(gamma, r)


def _interval(point: StoredPoint) -> tuple[float, float, float]:
    """L of a window and the ends of its interval: those of the aligned share, as log-odds.

    Near 1 the share has little room above itself, its log-odds have much.
    """
    aligned = BEHAVIOURS[ALIGNED]
    shares = [min(max(point[f"p_{aligned}{end}"], 0.0), 1.0) for end in ("", "_lo", "_hi")]
    levels, _ = log_odds(shares, point["effective_n"])
    level, low, high = levels.tolist()
    return level, min(low, level), max(high, level)


def _return(points: Sequence[StoredPoint], minutes: int) -> Result:
    """kappa of S about its mean."""
    variances = [max(p["s_sd"], _LEAST_SD) ** 2 for p in points]
    return restoring_rate(
        [_days(p) for p in points], [p["s"] for p in points], variances, window=minutes / MINUTES_PER_DAY
    )


def _wider(x: Result, below: float, above: float) -> Result:
    """The same with an independent error on top, whose 90 % interval reaches so far to either side."""
    if isinstance(x, Refusal):
        return x
    low, high = math.hypot(x.value - x.lo, below), math.hypot(x.hi - x.value, above)
    return Estimate(x.value, x.value - low, x.value + high, x.units, x.method, x.level)


def _disjoint(windows: Mapping[int, Sequence[StoredPoint]]) -> tuple[int, list[StoredPoint]]:
    """Points of the last 30 days whose windows do not overlap, the last one among them: of the shortest window that
    has enough for a rate, else of the one that has most."""
    kept = {minutes: _thinned(windows.get(minutes, ()), minutes) for minutes in _WINDOWS}
    for minutes, points in kept.items():
        if len(points) >= FEWEST_POINTS:
            return minutes, points
    most = max(kept, key=lambda m: (len(kept[m]), m))
    return most, kept[most]


def _thinned(points: Sequence[StoredPoint], minutes: int) -> list[StoredPoint]:
    kept: list[StoredPoint] = []
    for p in reversed(points):
        if p["t"] < points[-1]["t"] - timedelta(days=DAYS):
            break
        if not kept or p["t"] <= kept[-1]["t"] - timedelta(minutes=minutes):
            kept.append(p)
    return kept[::-1]


def _days(point: StoredPoint) -> float:
    return float(point["t"].timestamp()) / 86_400


def work_values(
    connection: Connection,
    series_id: int,
    version: str,
    now: StoredPoint,
    since: datetime | None,
    settings: Settings,
    *,
    fits: bool = True,
    kappa: bool = True,
) -> dict[str, Any]:
    """Alignment work as plain values, and a line for people.

    Parameters
    ----------
    now : the last point.
    since : event time from which the baseline that is in force is; points before it were estimated without it, so
        that S and L step there for no reason in the traffic. None takes all.
    fits, kappa : as in `work_of`.
    """
    oldest = now["t"] - timedelta(days=DAYS + 1)
    after = oldest if since is None else max(since, oldest)
    windows = {m: reads.points(connection, series_id, version, m, after=after) for m in _WINDOWS}
    work = work_of(now, windows, settings.lambda_max_per_day, settings.sigma_0_nats_per_day, fits=fits, kappa=kappa)
    return {
        "depth": _value(work.depth),
        "gamma_eff": _value(work.gamma),
        "margin": _value(work.margin),
        "sigma_0_minus_dS_dt": _value(work.running),
        "kappa": _value(work.kappa),
        "half_life": _value(work.half_life),
        "windows": work.points,
        "window_hours": work.window_minutes // 60,
        "line": work_line(work),
    }


def _value(x: Result) -> dict[str, Any] | str:
    """A figure, or the reason why there is none."""
    if isinstance(x, Refusal):
        return f"not known: {x.reason}"
    return {
        "mean": round(x.value, 5),
        "low": round(x.lo, 5),
        "high": round(x.hi, 5),
        "unit": x.units,
        "method": x.method,
    }


def work_line(work: Work) -> str:
    """`depth 1.40 (1.10-1.90); gamma_eff 2.10 (1.70-2.60)/day, margin 1.30 (1.00-1.60)`."""
    parts = [_shown("depth", work.depth)]
    if isinstance(work.margin, Refusal):
        parts.append(_shown("margin", work.margin))
    else:
        parts.append(f"{_shown('gamma_eff', work.gamma)}/day, {_shown('margin', work.margin)}")
    if isinstance(work.running, Estimate):
        parts.append(f"{_shown('sigma_0 - dS/dt', work.running)} nats/day")
    return "; ".join(parts)


def _shown(name: str, x: Result) -> str:
    if isinstance(x, Refusal):
        return f"{name} not known: {x.reason}"
    # an interval from below 0 would read as "-0.20-0.40"
    to = " to " if x.lo < 0 else "-"
    return f"{name} {x.value:.2f} ({x.lo:.2f}{to}{x.hi:.2f})"

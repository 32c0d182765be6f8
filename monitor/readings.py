"""What rules compare: the latest figures of a series, each with its 90 % interval, kept in the table `readings`.

A rule looks at thousands of series after every step, so what it needs is one row a series, written with the points it
is from. The names are those of the rules' settings (docs/alerts.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from sqlalchemy import Connection, func, select

from monitor.entropy import Interval
from monitor.estimates import NORMAL_QUANTILE, Estimate, Result
from monitor.prediction_powered import Slice
from monitor.state import SeriesState
from monitor.store import reads, schema
from monitor.store.baselines import baselines, in_force
from monitor.store.trajectories import point_row
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY, Point, Settings
from monitor.transcript import time_of
from monitor.work_values import DAYS, StoredPoint, Work, work_of

Reading = tuple[float, float, float]
"""Mean, lower and upper end of the 90 % interval; a plain number has all three alike."""

DAY: Final = MINUTES_PER_DAY
_SUFFIX: Final = {60: "1h", DAY: "24h", 7 * DAY: "7d"}
_CARRIED: Final = ("kappa", "half_life", "gap_minutes")
"""Made once a day, each series in an hour of its own; between, the last ones stand. kappa costs a tenth of a second."""
_GAP_DAYS: Final = 14
"""Two weekends."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which costly figures somebody looks at: those of a rule that is on."""

    kappa: bool = False


READINGS: Final = Wanted()


def of_points(points: Sequence[Point], state: SeriesState) -> dict[str, Reading]:
    """Figures of points that end together, one a window.

    Parameters
    ----------
    state : the series' after them; its baseline is what doubt is compared with.
    """
    values: dict[str, Reading] = {}
    for p in points:
        suffix = _SUFFIX[p.window_minutes]
        values[f"turns_{suffix}"] = _number(p.mixture.n)
        shares = zip(BEHAVIOURS, p.mixture.shares, strict=True)
        if p.window_minutes != DAY:
            values |= {f"{b}_{suffix}": _interval(x) for b, x in shares}
            continue
        values |= {b: _interval(x) for b, x in shares}
        values["entropy"] = _interval(p.mixture.entropy)
        values["misaligned"] = _interval(p.mixture.misaligned)
        reach = NORMAL_QUANTILE * p.slope.error
        values["entropy_rate"] = (p.slope.value, p.slope.value - reach, p.slope.value + reach)
        values["evidence"] = _number(p.evidence)
        values["doubt"] = share(p.doubt, p.mixture.n)
        if p.kl is not None:
            values["kl"] = _number(p.kl)
    if state.baseline is not None:
        values["doubt_baseline"] = _number(state.baseline.sums.mean_doubt)
    return {name: x for name, x in values.items() if all(map(math.isfinite, x))}


def share(mean: float, effective_n: float) -> Reading:
    """A mean of values in [0, 1] with Wilson's interval, which is at least as wide as that of their true spread."""
    z2 = NORMAL_QUANTILE**2
    n = max(effective_n, 1e-9)
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    reach = math.sqrt(z2 * (mean * (1 - mean) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return mean, max(0.0, min(mean, centre - reach)), min(1.0, max(mean, centre + reach))


def disagreement(chosen: Slice) -> Reading | None:
    """The share of turns whose label is not the classifier's answer, each turn standing for those not chosen."""
    if not len(chosen.q):
        return None
    weights = chosen.weights / chosen.choice_probability
    differs = chosen.q.argmax(axis=1) != chosen.labels.argmax(axis=1)
    effective_n = float(weights.sum() ** 2 / (weights**2).sum())
    return share(float(np.average(differs, weights=weights)), effective_n)


def read_off(
    connection: Connection,
    series_id: int,
    state: SeriesState,
    points: Sequence[Point],
    settings: Settings,
    wanted: Wanted,
) -> dict[str, Reading]:
    """The figures of a series at the last of these points.

    Parameters
    ----------
    points : those a step made, not stored yet, in time order; one at least.
    """
    t = points[-1].t
    end = time_of(t)
    latest = [p for p in points if p.t == t]
    table = schema.readings
    stored = connection.execute(select(table.c["values"]).where(table.c.series_id == series_id)).scalar_one_or_none()
    values: dict[str, Reading] = {name: tuple(x) for name, x in (stored or {}).items() if name in _CARRIED}
    daily = "gap_minutes" not in values or points[0].t < t or t // 60 % 24 == series_id % 24
    values |= of_points(latest, state)
    if connection.execute(select(schema.reviews.c.turn).limit(1)).first() is not None:
        start = end - timedelta(days=7)
        found = disagreement(reads.reviewed_slice(connection, series_id, state.classifier_version, start, end))
        if found is not None:
            values["judge_disagreement"] = found
    if daily and (gap := _gap(connection, series_id, state.classifier_version, t)) is not None:
        values["gap_minutes"] = _number(gap)
    if any(p.window_minutes == DAY for p in latest):
        values |= _work(connection, series_id, state, points, settings, kappa=daily and wanted.kappa)
    return values


def _gap(connection: Connection, series_id: int, version: str, t: int) -> int | None:
    """The longest usual time without an event, minutes: the second longest of two weeks, so that one outage is none."""
    b = schema.buckets
    mine = (b.c.series_id == series_id, b.c.classifier_version == version, b.c.minute >= t - _GAP_DAYS * DAY)
    minutes = select(b.c.minute).where(*mine, b.c.minute < t).distinct().subquery()
    gap = (minutes.c.minute - func.lag(minutes.c.minute).over(order_by=minutes.c.minute)).label("gap")
    gaps = select(gap).subquery()
    longest = select(gaps.c.gap).where(gaps.c.gap.is_not(None)).order_by(gaps.c.gap.desc()).limit(2)
    found = connection.execute(longest).scalars().all()
    return None if len(found) < 2 else int(found[-1])


def _work(
    connection: Connection,
    series_id: int,
    state: SeriesState,
    points: Sequence[Point],
    settings: Settings,
    *,
    kappa: bool,
) -> dict[str, Reading]:
    """Alignment work at the last point, from the stored points and these; what costs much only where it is wanted."""
    version = state.classifier_version
    rows = {m: [point_row(series_id, version, p) for p in points if p.window_minutes == m] for m in (60, DAY)}
    windows: dict[int, Sequence[StoredPoint]] = {}
    if kappa or settings.lambda_max_per_day > 0:
        since = estimated_alike_since(connection, series_id, state)
        oldest = rows[DAY][-1]["t"] - timedelta(days=DAYS + 1)
        after = oldest if since is None else max(since, oldest)
        for m, own in rows.items():
            by_time = {p["t"]: p for p in reads.points(connection, series_id, version, m, after=after)}
            by_time |= {p["t"]: p for p in own if p["t"] > after}
            windows[m] = [by_time[at] for at in sorted(by_time)]
    fits = next(p.fits for p in reversed(points) if p.window_minutes == DAY)
    work = work_of(
        rows[DAY][-1], windows, settings.lambda_max_per_day, settings.sigma_0_nats_per_day, fits=fits, kappa=kappa
    )
    return {name: x for name, x in _figures(work) if x is not None}


def _figures(work: Work) -> list[tuple[str, Reading | None]]:
    return [
        ("depth", _estimate(work.depth)),
        ("gamma_eff", _estimate(work.gamma)),
        ("margin", _estimate(work.margin)),
        ("kappa", _estimate(work.kappa)),
        ("half_life", _estimate(work.half_life)),
    ]


def _estimate(x: Result) -> Reading | None:
    return (x.value, x.lo, x.hi) if isinstance(x, Estimate) else None


def _interval(x: Interval) -> Reading:
    return x.mean, x.low, x.high


def _number(x: float) -> Reading:
    return float(x), float(x), float(x)


def estimated_alike_since(connection: Connection, series_id: int, state: SeriesState) -> datetime | None:
    """From when on points know of the baseline that is in force, or, while there is none, know of none."""
    if state.baseline is not None:
        stored = in_force(baselines(connection, series_id), state.classifier_version)
        return time_of(state.baseline.last_minute + 1) if stored is None else stored.origin.frozen_at
    return time_of(state.armed_from) if state.armed_from else None

"""What a run found: one object for machines, a few lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from alerts.reasons import mixture_values
from monitor.state import SeriesState
from monitor.steps import Stepper
from monitor.store import reads
from monitor.store.trajectories import Alert
from monitor.store.writes import Offset
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY, WINDOWS_MINUTES
from monitor.transcript import time_of


def summarise(engine: Engine, offsets: Sequence[Offset], stepper: Stepper) -> dict[str, Any]:
    """The state of the database as plain numbers (docs/cli.md gives the fields): events, series, alerts."""
    with engine.connect() as connection:
        series = [_series(connection, s, stepper) for s in reads.all_series(connection)]
    return {
        "sources": [o.source for o in offsets],
        "classifier": stepper.version,
        "events": {
            k: sum(getattr(o, k) for o in offsets) for k in ("events", "judged", "duplicates", "dead_letters", "turns")
        },
        "series": series,
        "alerts": [a for s in series for a in s["alerts"]],
    }


def _series(connection: Any, series: reads.StoredSeries, stepper: Stepper) -> dict[str, Any]:
    version = stepper.version
    count = reads.turn_count(connection, series.id)
    state = SeriesState(version) if series.state is None else SeriesState.unpack(series.state)
    now = _current(connection, series.id, version)
    return {
        "series": series.key.name,
        "deployment": series.key.deployment,
        "model": series.key.model,
        "labels": dict(series.key.labels),
        "turns": count.turns,
        "first": _iso(count.first),
        "last": _iso(count.last),
        "baseline": _baseline(state, stepper),
        "now": now,
        "alerts": [alert_values(a, series.key.name) for a in reads.alerts(connection, series.id)],
    }


def _current(connection: Any, series_id: int, version: str) -> dict[str, Any] | None:
    """The latest point of the 24 h window, else of the longest that has one."""
    for minutes in (MINUTES_PER_DAY, *reversed(WINDOWS_MINUTES)):
        p = reads.latest_point(connection, series_id, version, minutes)
        if p is not None:
            return {
                "t": p["t"].isoformat(),
                "window_hours": minutes // 60,
                "n": p["n"],
                "S": _triple(p, "s"),
                "misaligned": _triple(p, "misaligned"),
                "shares": {b: _triple(p, f"p_{b}") for b in BEHAVIOURS},
                "dS_dt": {"value": round(p["ds_dt"], 5), "error": round(p["ds_dt_se"], 5), "unit": "nats/day"},
                "kl_to_baseline": None if p["kl"] is None else round(p["kl"], 5),
                "evidence": round(p["evidence"], 5),
            }
    return None


def _triple(point: Any, name: str) -> dict[str, float]:
    return {
        "mean": round(point[name], 5),
        "low": round(point[f"{name}_lo"], 5),
        "high": round(point[f"{name}_hi"], 5),
    }


def _baseline(state: SeriesState, stepper: Stepper) -> dict[str, Any]:
    b = state.baseline
    if b is None:
        hours = 0.0
        if state.learning_from is not None and state.last_minute is not None:
            hours = (state.last_minute + 1 - state.learning_from) / 60
        return {
            "state": "learning",
            "turns": state.learning.n,
            "of_turns": stepper.rule.turns,
            "hours": round(hours, 2),
            "of_hours": stepper.rule.hours,
        }
    quantifier = stepper.quantifier.given(b.sums, stepper.settings.baseline_aligned_at_least)
    return {
        "state": "frozen",
        "from": time_of(b.first_minute).isoformat(),
        "to": time_of(b.last_minute + 1).isoformat(),
        **mixture_values(quantifier.estimate(b.sums)),
    }


def alert_values(alert: Alert, series: str) -> dict[str, Any]:
    """An alert as plain values."""
    return {
        "id": alert.id,
        "series": series,
        "rule": alert.rule,
        "state": "firing" if alert.firing else "resolved",
        "raised_at": _iso(alert.raised_at),
        "resolved_at": _iso(alert.resolved_at),
        "onset": _iso(alert.onset),
        "onset_interval": [_iso(alert.onset_lo), _iso(alert.onset_hi)],
        "reason": alert.reason,
        "values": alert.values,
        "telling_turns": alert.telling_turns,
    }


def _iso(t: datetime | None) -> str | None:
    return None if t is None else t.isoformat().replace("+00:00", "Z")

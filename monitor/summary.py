"""What a run found: one object for machines, a few lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from alerts.reasons import interval_values, mixture_values
from alerts.severity import severities
from monitor import prediction_powered
from monitor.baseline import BaselineRule
from monitor.buckets import Sums
from monitor.entropy import Quantifier
from monitor.readings import estimated_alike_since
from monitor.state import SeriesState
from monitor.steps import Stepper
from monitor.store import reads
from monitor.store.baselines import baselines, in_force
from monitor.store.trajectories import Alert
from monitor.store.writes import Offset
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY, WINDOWS_MINUTES
from monitor.transcript import minute_of, time_of
from monitor.work_values import work_values


def summarise(engine: Engine, offsets: Sequence[Offset], stepper: Stepper) -> dict[str, Any]:
    """The state of the database as plain numbers (docs/cli.md gives the fields): events, series, alerts."""
    with engine.connect() as connection:
        found = reads.all_series(connection)
        states = [SeriesState(stepper.version) if s.state is None else SeriesState.unpack(s.state) for s in found]
        alerts = [reads.alerts(connection, s.id) for s in found]
        severity = severities(list(zip(states, alerts, strict=True)), stepper.settings)
        series = [
            _series(connection, s, state, stepper)
            | {"alerts": [with_texts(connection, alert_values(a, s.key.name, severity.get(a.id))) for a in own]}
            for s, state, own in zip(found, states, alerts, strict=True)
        ]
    return {
        "sources": [o.source for o in offsets],
        "classifier": stepper.version,
        "events": {
            k: sum(getattr(o, k) for o in offsets) for k in ("events", "judged", "duplicates", "dead_letters", "turns")
        },
        "series": series,
        "alerts": [a for s in series for a in s["alerts"]],
    }


def _series(connection: Any, series: reads.StoredSeries, state: SeriesState, stepper: Stepper) -> dict[str, Any]:
    count = reads.turn_count(connection, series.id)
    lens = stepper.quantifier
    if state.baseline is not None:
        lens = lens.given(state.baseline.sums, stepper.settings.baseline_aligned_at_least)
    now = _current(connection, series.id, state, stepper, lens)
    return {
        "series": series.key.name,
        "deployment": series.key.deployment,
        "model": series.key.model,
        "labels": dict(series.key.labels),
        "turns": count.turns,
        "first": _iso(count.first),
        "last": _iso(count.last),
        "baseline": _baseline(connection, series.id, state, stepper, lens),
        "now": now,
    }


def _current(
    connection: Any, series_id: int, state: SeriesState, stepper: Stepper, lens: Quantifier
) -> dict[str, Any] | None:
    """The latest point of the 24 h window, else of the longest that has one."""
    fits = state.baseline is None or lens.assumes_baseline
    version, settings = stepper.version, stepper.settings
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
                "labelled": labelled_values(connection, series_id, version, p["t"], minutes),
                "alignment_work": work_values(
                    connection,
                    series_id,
                    version,
                    p,
                    estimated_alike_since(connection, series_id, state),
                    settings,
                    fits=fits,
                ),
            }
    return None


def labelled_values(
    connection: Connection, series_id: int, version: str, end: datetime, window_minutes: int
) -> dict[str, Any] | None:
    """S and shares of a window by its labelled slice (monitor.prediction_powered), beside those by inversion.

    Labels of the judge or of people, else the accurate tier's answers, of which `by` says so: their mean is that
    tier's, errors and all. None when the window has too few of either.
    """
    start = end - timedelta(minutes=window_minutes)
    for by, read in (("reviews", reads.reviewed_slice), ("accurate tier", reads.second_slice)):
        chosen = read(connection, series_id, version, start, end)
        if len(chosen.q) < prediction_powered.FEWEST_LABELS:
            continue
        buckets = reads.buckets(connection, series_id, version, minute_of(start), minute_of(end))
        window = sum((b.sums for b in buckets), Sums.zero())
        try:
            found = prediction_powered.estimate(window, chosen)
        except prediction_powered.TooFewLabels:
            continue
        return {
            "by": by,
            "labels": found.labels,
            "effective_labels": round(found.effective_labels, 1),
            "S": interval_values(found.entropy),
            "misaligned": interval_values(found.misaligned),
            "shares": {b: interval_values(x) for b, x in zip(BEHAVIOURS, found.shares, strict=True)},
            "methods": dict(zip(BEHAVIOURS, found.methods, strict=True)),
            "line": _labelled_line(by, found),
        }
    return None


def _labelled_line(by: str, found: prediction_powered.Labelled) -> str:
    """`labelled slice: S 0.41 (0.30-0.52) from 57 labels (reviews), PPI++; exact: harmful_compliance`."""
    s = found.entropy
    exact = [b for b, m in zip(BEHAVIOURS, found.methods, strict=True) if m == prediction_powered.EXACT]
    return (
        f"labelled slice: S {s.mean:.2f} ({s.low:.2f}-{s.high:.2f}) from {found.labels} labels ({by}), "
        f"{prediction_powered.PPI}" + (f"; {prediction_powered.EXACT}: {', '.join(exact)}" if exact else "")
    )


def _triple(point: Any, name: str) -> dict[str, float]:
    return {
        "mean": round(point[name], 5),
        "low": round(point[f"{name}_lo"], 5),
        "high": round(point[f"{name}_hi"], 5),
    }


def _baseline(
    connection: Any, series_id: int, state: SeriesState, stepper: Stepper, lens: Quantifier
) -> dict[str, Any]:
    b = state.baseline
    if b is None:
        return learning_values(state, stepper.rule)
    stored = in_force(baselines(connection, series_id), state.classifier_version)
    return {
        "state": "frozen",
        "from": time_of(b.first_minute).isoformat(),
        "to": time_of(b.last_minute + 1).isoformat(),
        "warning": "" if stored is None else stored.origin.warning,
        **mixture_values(lens.estimate(b.sums)),
    }


def learning_values(state: SeriesState, rule: BaselineRule) -> dict[str, Any]:
    """How far a series has learned, by its own rule or else by `rule`."""
    own = rule if state.rule is None else BaselineRule.parse(state.rule)
    wanted = own.times(2**state.extensions)
    hours = 0.0
    if state.learning_from is not None and state.last_minute is not None:
        hours = (state.last_minute + 1 - state.learning_from) / 60
    warnings = []
    if state.extensions:
        warnings.append(f"its traffic was changing: learning {2**state.extensions} times as long")
    if own != rule and state.relearn_reason is None:
        warnings.append(f"it keeps to the rule it began with, {own.text}; to change it: valuedrift baseline relearn")
    return {
        "state": "learning",
        "turns": state.learning.n,
        "of_turns": wanted.turns,
        "hours": round(hours, 2),
        "of_hours": wanted.hours,
        "warning": "; ".join(warnings),
    }


def alert_values(alert: Alert, series: str, severity: str | None) -> dict[str, Any]:
    """An alert as plain values; `severity` (alerts.severity) is None once it is resolved."""
    return {
        "id": alert.id,
        "series": series,
        "rule": alert.rule,
        "state": "firing" if alert.firing else "resolved",
        "severity": severity,
        "raised_at": _iso(alert.raised_at),
        "resolved_at": _iso(alert.resolved_at),
        "onset": _iso(alert.onset),
        "onset_interval": [_iso(alert.onset_lo), _iso(alert.onset_hi)],
        "reason": alert.reason,
        "values": alert.values,
        "telling_turns": alert.telling_turns,
    }


def with_texts(connection: Connection, alert: dict[str, Any]) -> dict[str, Any]:
    """Values of an alert, its telling turns with what is kept of their texts."""
    joined = [
        part | {"telling_turns": reads.with_excerpts(connection, part["telling_turns"])}
        for part in alert["values"]["joined"]
    ]
    return alert | {
        "telling_turns": reads.with_excerpts(connection, alert["telling_turns"]),
        "values": alert["values"] | {"joined": joined},
    }


def _iso(t: datetime | None) -> str | None:
    return None if t is None else t.isoformat().replace("+00:00", "Z")

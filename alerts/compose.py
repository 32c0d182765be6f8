"""What is stored of an alert -> the notice a target is told: read when it is told, so as things are by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, Final

from sqlalchemy import Connection

from alerts.links import RUNBOOK, fill
from alerts.notice import MOST_TURNS, Figure, Notice, Status, TellingTurn, TracePoint
from alerts.reasons import COLLAPSE, FELL, ROSE, SWAP, VALUE_DRIFT
from alerts.rules import Rule, Rules
from monitor.engine import SeriesKey
from monitor.estimates import NORMAL_QUANTILE
from monitor.multiplicity import PAGE
from monitor.readings import estimated_alike_since
from monitor.state import SeriesState
from monitor.steps import Stepper
from monitor.store import reads
from monitor.store.trajectories import Alert
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY
from monitor.where import where_lines
from monitor.work_values import StoredPoint, work_values

TRACE: Final = timedelta(days=7)
MOST_NAMED: Final = 3
"""Behaviours that a title gives figures of."""
_NO_PROMISE: Final = "none is promised: this rule compares a figure with a limit"


@dataclass(frozen=True, slots=True)
class Told:
    """Why and as what an alert is told now (see alerts.notice.Notice)."""

    status: Status
    severity: str
    revision: int
    note: str


@dataclass(frozen=True, slots=True)
class Composer:
    """Everything composing needs but the database.

    Parameters
    ----------
    stepper : classifier version, quantifier and settings that the series are followed with.
    dashboard_url, runbook_url : checked templates (alerts.links); empty: no dashboard, the project's own pages.
    """

    stepper: Stepper
    rules: Rules
    dashboard_url: str = ""
    runbook_url: str = ""

    def compose(self, connection: Connection, alert_id: str, told: Told) -> Notice | None:
        """The notice of an alert; None where the alert is gone."""
        alert = next(iter(reads.alerts_by_id(connection, [alert_id])), None)
        if alert is None:
            return None
        series = None if alert.series_id is None else reads.one_series(connection, alert.series_id)
        rule = rule_of(self.rules, alert)
        name = alert.rule if rule is None else rule.name
        series_name = "" if series is None else series.key.name
        page = name.partition(":")[0]
        point = None if series is None else self._latest(connection, series.id)
        turns = reads.with_excerpts(connection, _turns(alert))
        return Notice(
            id=alert.id,
            revision=told.revision,
            status=told.status,
            rule=name,
            severity=told.severity,
            series=series_name,
            labels=labels(alert, series, rule, name, told.severity),
            title=title(alert, name, series_name),
            reason=_reason(alert),
            guarantee=self._guarantee(alert, told.severity),
            raised_at=alert.raised_at,
            onset=alert.onset if alert.rule == VALUE_DRIFT else None,
            resolved_at=alert.resolved_at,
            note=told.note,
            figures=() if series is None else self._figures(connection, series, point),
            where=tuple(where_lines(alert.values.get("where", ()))),
            turns=tuple(map(_turn, turns)),
            trace=() if series is None or point is None else self._trace(connection, series.id, point["t"]),
            dashboard_url=self._dashboard(alert, series, name),
            runbook_url=(rule.runbook if rule is not None else "") or fill(self.runbook_url or RUNBOOK, rule=page),
        )

    def _latest(self, connection: Connection, series_id: int) -> StoredPoint | None:
        return reads.latest_point(connection, series_id, self.stepper.version, MINUTES_PER_DAY)

    def _guarantee(self, alert: Alert, severity: str) -> str:
        days = alert.values.get("false_alarm_every_days")
        if alert.rule != VALUE_DRIFT or days is None:
            return _NO_PROMISE
        text = f"at most one in {days:g} days for this series, on average, whatever its traffic"
        if severity == PAGE:
            text += f"; at most one false page in {self.stepper.settings.page_every_days:g} days over all series"
        return text

    def _figures(
        self, connection: Connection, series: reads.StoredSeries, point: StoredPoint | None
    ) -> tuple[Figure, ...]:
        """S, dS/dt, gamma_eff and margin at the latest 24 h window."""
        if point is None:
            return (Figure("S", "not known: no 24 h window has enough turns", known=False),)
        rate, error = point["ds_dt"], NORMAL_QUANTILE * point["ds_dt_se"]
        s = {"mean": point["s"], "low": point["s_lo"], "high": point["s_hi"], "unit": "nats"}
        slope = {"mean": rate, "low": rate - error, "high": rate + error, "unit": "nats/day"}
        work = self._work(connection, series, point)
        return (
            _figure("S", s),
            _figure("dS/dt", slope),
            _figure("gamma_eff", work["gamma_eff"]),
            _figure("margin", work["margin"]),
        )

    def _work(self, connection: Connection, series: reads.StoredSeries, point: StoredPoint) -> dict[str, Any]:
        state = SeriesState(self.stepper.version) if series.state is None else SeriesState.unpack(series.state)
        settings = self.stepper.settings
        fits = True
        if state.baseline is not None:
            lens = self.stepper.quantifier.given(state.baseline.sums, settings.baseline_aligned_at_least)
            fits = lens.assumes_baseline
        since = estimated_alike_since(connection, series.id, state)
        version = self.stepper.version
        return work_values(connection, series.id, version, point, since, settings, fits=fits, kappa=False)

    def _trace(self, connection: Connection, series_id: int, end: datetime) -> tuple[TracePoint, ...]:
        points = reads.trajectory(connection, series_id, self.stepper.version, end - TRACE, end, MINUTES_PER_DAY)
        return tuple(TracePoint(p["t"], p["s"], p["s_lo"], p["s_hi"]) for p in points)

    def _dashboard(self, alert: Alert, series: reads.StoredSeries | None, rule: str) -> str:
        if not self.dashboard_url:
            return ""
        key = None if series is None else series.key
        return fill(
            self.dashboard_url,
            series="" if key is None else key.name,
            deployment="" if key is None else key.deployment,
            model="" if key is None else key.model,
            rule=rule,
            alert=alert.id,
        )


def rule_of(rules: Rules, alert: Alert) -> Rule | None:
    """The rule that an alert is of; None where it is turned off by now."""
    return rules.finding(alert.rule, alert.values.get("kind", "")) or rules.named(alert.rule)


def labels(
    alert: Alert, series: reads.StoredSeries | None, rule: Rule | None, name: str, severity: str
) -> dict[str, str]:
    """What routes an alert: those of its place, and the behaviours that it was raised for."""
    moved = alert.values.get("moved", ())
    found = place_labels(None if series is None else series.key, rule, name, severity)
    # those that joined later are left out: by its labels an alert is known
    return found | ({"behaviour": ",".join(moved)} if moved else {})


def place_labels(series: SeriesKey | None, rule: Rule | None, name: str, severity: str) -> dict[str, str]:
    """The series' own labels, then the rule's, then those that are always there."""
    found = {} if series is None else dict(series.labels)
    found |= {} if rule is None else dict(rule.labels)
    found |= {"rule": name, "severity": severity}
    if series is not None:
        found |= {"series": series.name, "deployment": series.deployment, "model": series.model}
    return found


def title(alert: Alert, rule: str, series: str) -> str:
    """One line, such as `harmful_compliance rose in shop/m-1: 1.0 % -> 25.0 %`."""
    place = f" in {series}" if series else ""
    values = alert.values
    if alert.rule != VALUE_DRIFT:
        return f"{rule}{place}: {alert.reason.partition(';')[0]}"
    before, after = values["before"]["shares"], values["after"]["shares"]
    better = " (for the better)" if values.get("better") else ""
    if values["kind"] == COLLAPSE:
        onto = max(BEHAVIOURS, key=lambda b: after[b]["mean"])
        return f"collapse onto {onto}{place}: {_from_to(before[onto], after[onto])}{better}"
    ways = values.get("directions", {})
    rose = [b for b in values["moved"] if ways.get(b, ROSE) == ROSE]
    fell = [b for b in values["moved"] if ways.get(b, ROSE) == FELL]
    named = rose or fell
    shares = ", ".join(_from_to(before[b], after[b]) for b in named[:MOST_NAMED])
    what = (
        f"{_and(fell)} gave way to {_and(rose)}"
        if values["kind"] == SWAP
        else f"{_and(named)} {ROSE if rose else FELL}"
    )
    return f"{what}{place}: {shares}{better}"


def _reason(alert: Alert) -> str:
    """What moved; the promise, which a finding's reason ends with, is told apart (`guarantee`)."""
    promise = f"; false alarms at most one in {alert.values.get('false_alarm_every_days', 0):g} days"
    parts = [alert.reason.removesuffix(promise)]
    for part in alert.values.get("joined", ()):
        at = datetime.fromisoformat(part["at"])
        parts.append(f"joined {at:%Y-%m-%d %H:%M} UTC: {part['reason'].removesuffix(promise)}")
    if "ended" in alert.values:
        parts.append(f"ended by a person: {alert.values['ended']}")
    return "; ".join(parts)


def _turns(alert: Alert) -> list[Mapping[str, Any]]:
    """Telling turns of the alert and of all that joined it, by turns, the clearest of each first."""
    parts = [alert.telling_turns, *(part["telling_turns"] for part in alert.values.get("joined", ()))]
    return [turn for row in zip_longest(*parts) for turn in row if turn is not None][:MOST_TURNS]


def _turn(x: Mapping[str, Any]) -> TellingTurn:
    return TellingTurn(
        event_id=x["event_id"],
        turn=x["turn"],
        ts=datetime.fromisoformat(x["ts"]),
        behaviour=x["behaviour"],
        probability=x["probability"],
        where=x["where"],
        request=x.get("request"),
        answer=x.get("answer"),
    )


def _figure(name: str, value: Mapping[str, Any] | str) -> Figure:
    """Of an interval's values, or of the reason why there are none (monitor.work_values)."""
    if isinstance(value, str):
        return Figure(name, value, known=False)
    digits = "+.3f" if name == "dS/dt" else ".2f"
    mean, low, high = (format(value[k], digits) for k in ("mean", "low", "high"))
    return Figure(name, f"{mean} {value['unit']} ({low} to {high})".replace("  ", " "))


def _from_to(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    return f"{100 * before['mean']:.1f} % -> {100 * after['mean']:.1f} %"


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)

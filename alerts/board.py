"""What a pass decides, from everything it read: pure. `alerts.oncall` reads the board and writes what was decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from alerts.compose import labels
from alerts.conditions import Readings
from alerts.machine import NONE, NOTHING, Decision, Instance, Key, Observation, Policy, Reason, State, advance
from alerts.rules import Rule, Rules
from alerts.settings import Inhibit
from alerts.silences import Inhibitions, Silence, silencing
from alerts.stages import Recipient, Surroundings, Tell, notify
from monitor.engine import SeriesKey
from monitor.store.oncall import MONITOR, AlertEvent, StateRow
from monitor.store.outbox import Wanted
from monitor.store.reads import StoredSeries
from monitor.store.trajectories import FINDINGS, Alert

Place = tuple[str, int]
"""A rule, and the number of a series or MONITOR: what has one state."""

OFF: Final = Observation(False, gone=True, text="the rule is off")
RETIRED: Final = Observation(False, gone=True, text="the series is retired")
NOT_LIVE: Final = Observation(None, text="only asked of live sources, once they are caught up with")
NO_READINGS: Final = Observation(None, text="nothing is known of the series")


@dataclass(frozen=True, slots=True)
class Finding:
    """An alert that a step raised and that fires."""

    alert: Alert
    severity: str


@dataclass(frozen=True, slots=True)
class Raised:
    """An alert that a rule on readings raised, to tell people of."""

    series: str
    alert: Alert
    severity: str


@dataclass(frozen=True, slots=True)
class Board:
    """Everything a pass decides on.

    Attributes
    ----------
    readings : of every series that was stepped, by its number.
    monitor : of the monitor itself.
    memories : what is kept of rules and series.
    alerts : the rows of findings that fire and of alerts that memories are at, by id.
    live : events come from a live source that is read to its end, so that silence means something.
    """

    series: Mapping[int, SeriesKey]
    readings: Mapping[int, Readings]
    monitor: Readings
    memories: Mapping[Place, Instance]
    alerts: Mapping[str, Alert]
    findings: Sequence[Finding]
    silences: Sequence[Silence]
    live: bool


@dataclass(slots=True)
class Decided:
    """What is to be written; see alerts.oncall."""

    put: list[StateRow] = field(default_factory=list)
    forgotten: list[Place] = field(default_factory=list)
    events: list[AlertEvent] = field(default_factory=list)
    raised: tuple[Raised, ...] = ()
    ended: list[str] = field(default_factory=list)
    """Alerts of rules on readings; a finding's end is written by the step that saw it."""
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Columns of an alert's row."""
    told: list[Wanted] = field(default_factory=list)
    keys: dict[str, Place] = field(default_factory=dict)
    """Whose the alerts that are told of are."""


@dataclass(frozen=True, slots=True)
class _Seen:
    place: Place
    rule: Rule | None
    observation: Observation
    readings: Readings | None = None


def decide(board: Board, rules: Rules, recipients: Sequence[Recipient], now: datetime) -> Decided:
    """States moved on, and who is told; total."""
    out = Decided()
    after: dict[Place, Instance] = dict(board.memories)
    alerts = dict(board.alerts)
    rule_of: dict[Place, Rule | None] = {}
    raised: dict[str, Raised] = {}
    watched = any(r.watchdog for r in recipients)
    for seen in _observed(board, rules, now, watched=watched):
        place, rule = seen.place, seen.rule
        before = board.memories.get(place, NOTHING)
        rule_of[place] = rule
        policy = Policy() if rule is None else rule.policy
        key = Key(place[0], None if place[1] == MONITOR else board.series[place[1]].name)
        instance, decisions = advance(key, before, seen.observation, policy, now)
        if instance is not before:
            after[place] = instance
        for d in decisions:
            out.events.append(AlertEvent(d.alert_id, *place, now, "state", d.reason, d.text))
            _follow(out, raised, alerts, seen, key, instance, d, now)
    _tell(out, board, after, alerts, rule_of, recipients, rules.inhibit, now)
    out.raised = tuple(raised.values())
    for place, instance in after.items():
        if instance is board.memories.get(place):
            continue
        if instance.forgettable:
            out.forgotten += [place] if place in board.memories else []
        else:
            out.put.append(StateRow(*place, instance.state, instance.alert_id, instance.to_json()))
    return out


def _observed(board: Board, rules: Rules, now: datetime, *, watched: bool) -> Iterator[_Seen]:
    """What every rule sees of everything it is about; nothing of what neither holds nor is remembered."""
    asked: set[str] = set()
    yield from _findings(board, rules, now)
    for rule in rules.series:
        asked.add(rule.name)
        quiet = rule.needs_live and not board.live
        for series_id, readings in board.readings.items():
            place = (rule.name, series_id)
            memory = board.memories.get(place)
            observation = NOT_LIVE if quiet else rule.observe(readings, memory is not None and memory.standing, now)
            if memory is not None or observation.holds:
                yield _Seen(place, rule, observation, readings)
    for rule in rules.monitor:
        if rule.policy.severity == NONE and not watched:
            continue
        asked.add(rule.name)
        place = (rule.name, MONITOR)
        memory = board.memories.get(place)
        if rule.needs_live and not board.live:
            observation = NOT_LIVE
        else:
            observation = rule.observe(board.monitor, memory is not None and memory.standing, now)
        if memory is not None or observation.holds:
            yield _Seen(place, rule, observation, board.monitor)
    for place in board.memories:
        if place[0] in FINDINGS:
            continue
        if place[0] not in asked:
            yield _Seen(place, None, OFF)
        elif place[1] != MONITOR and place[1] not in board.readings:
            yield _Seen(place, rules.named(place[0]), NO_READINGS)


def _findings(board: Board, rules: Rules, now: datetime) -> Iterator[_Seen]:
    """What steps found, one a rule and series: of several the one raised last."""
    firing = {(f.alert.rule, f.alert.series_id): f for f in sorted(board.findings, key=lambda f: f.alert.raised_at)}
    for (name, series_id), finding in firing.items():
        if series_id is None:
            continue
        place, alert = (name, series_id), finding.alert
        rule = rules.finding(name, alert.values.get("kind", ""))
        readings = board.readings.get(series_id)
        last = None if readings is None else readings.last_event
        if rule is None:
            observation = OFF
        elif board.live and last is not None and now - last > rule.retire_after:
            observation = RETIRED
        else:
            observation = Observation(True, finding.severity, alert.id, alert.raised_at, text=alert.reason)  # type: ignore[arg-type]
        if observation.holds or place in board.memories:
            yield _Seen(place, rule, observation, readings)
    for place, instance in board.memories.items():
        if place[0] in FINDINGS and place not in firing:
            row = board.alerts.get(instance.alert_id or "")
            rule = rules.finding(place[0], "" if row is None else row.values.get("kind", ""))
            yield _Seen(place, rule, Observation(False, text="the series is back within its baseline's bounds"))


def _follow(
    out: Decided,
    raised: dict[str, Raised],
    alerts: dict[str, Alert],
    seen: _Seen,
    key: Key,
    instance: Instance,
    d: Decision,
    now: datetime,
) -> None:
    """What a decision means for the alert's row."""
    if d.alert_id is None:
        return
    if d.reason in (Reason.ACKNOWLEDGED, Reason.UNACKNOWLEDGED, Reason.ESCALATED) or d.after is State.RESOLVED:
        _change(out, d.alert_id, acknowledged_at=instance.acked_at, acknowledged_by=instance.acked_by)
    if key.rule in FINDINGS:
        return
    if d.reason is Reason.FIRED and seen.rule is not None:
        alert = _row(d.alert_id, seen, key.rule, instance, now)
        alerts[alert.id] = alert
        raised[alert.id] = Raised(key.series or "the monitor", alert, instance.severity)
    elif d.reason in (Reason.ESCALATED, Reason.LOWERED):
        _change(out, d.alert_id, severity=instance.severity)
    elif d.after is State.RESOLVED:
        out.ended.append(d.alert_id)


def _row(alert_id: str, seen: _Seen, rule: str, instance: Instance, now: datetime) -> Alert:
    since = instance.since or now
    condition = None if seen.rule is None else seen.rule.condition
    names = () if condition is None or seen.readings is None else sorted(condition.metrics)
    figures = seen.readings.metrics if seen.readings is not None else {}
    return Alert(
        id=alert_id,
        series_id=None if seen.place[1] == MONITOR else seen.place[1],
        rule=rule,
        firing=True,
        raised_at=now,
        resolved_at=None,
        onset=since,
        onset_lo=since,
        onset_hi=since,
        reason=seen.observation.text,
        values={
            "kind": "rule",
            "moved": [],
            "joined": [],
            "figures": {name: list(figures[name]) for name in names if name in figures},
        },
        telling_turns=[],
        severity=instance.severity,
    )


def _tell(
    out: Decided,
    board: Board,
    after: dict[Place, Instance],
    alerts: Mapping[str, Alert],
    rule_of: Mapping[Place, Rule | None],
    recipients: Sequence[Recipient],
    inhibit: Sequence[Inhibit],
    now: datetime,
) -> None:
    """Notices of what stands or was told, once silences and inhibitions are known."""
    concerned = [place for place, i in after.items() if i.standing or i.told]
    labelled: dict[Place, Mapping[str, str]] = {}
    for place in concerned:
        alert = alerts.get(after[place].alert_id or "")
        if alert is not None:
            rule = rule_of.get(place)
            series = board.series.get(place[1])
            stored = None if series is None else StoredSeries(place[1], series, None)
            name = alert.rule if rule is None else rule.name
            labelled[place] = labels(alert, stored, rule, name, after[place].severity)
    standing = [(after[p].alert_id or "", labelled[p]) for p in concerned if after[p].standing and p in labelled]
    inhibitions = Inhibitions(inhibit, standing)
    for place in concerned:
        instance, own = after[place], labelled.get(place, {})
        silence = silencing(board.silences, own, now)
        by = inhibitions.inhibitor(own)
        rule = rule_of.get(place)
        around = Surroundings(None if silence is None else silence.id, by)
        told, said = notify(instance, recipients, around, Policy() if rule is None else rule.policy, now)
        after[place] = told
        for x in said:
            out.keys[x.alert_id] = place
            if isinstance(x, Tell):
                out.told.append(Wanted(x.target, x.alert_id, x.status, x.severity, x.revision, x.why))
                out.events.append(
                    AlertEvent(x.alert_id, *place, now, "notify", x.status, f"{x.severity}: {x.why}", x.target)
                )
                _change(out, x.alert_id, severity=x.severity, told_at=now)
            else:
                out.events.append(AlertEvent(x.alert_id, *place, now, "suppressed", x.reason, x.text, x.target))


def _change(out: Decided, alert_id: str, **values: Any) -> None:
    out.changed.setdefault(alert_id, {}).update(values)

"""Alerts as people and programs look at them: plain values for `valuedrift alerts` and for /v1/alerts. Reads only.

What an explanation says of now is asked of the same conditions, silences, inhibitions and stages as in a pass
(alerts.oncall), so it is what the next pass would decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from alerts.asked import Moment, ask, known_rule, moment
from alerts.compose import labels, place_labels, rule_of, title
from alerts.machine import NOTHING, Instance, Policy, Severity, State, Told
from alerts.oncall import silence_of
from alerts.reasons import COLLAPSE, VALUE_DRIFT
from alerts.rulebook import compile_rules
from alerts.rules import Rule
from alerts.silences import Inhibitions, Silence, silencing
from alerts.stages import Recipient, Surroundings, context, decide
from monitor.baselines import find_series
from monitor.config import Config
from monitor.engine import SeriesKey
from monitor.errors import ConfigError
from monitor.store import alert_reads, reads
from monitor.store import oncall as store
from monitor.store.alert_reads import Page
from monitor.store.oncall import MONITOR
from monitor.store.trajectories import Alert
from monitor.summary import alert_values
from streams.reasons import printable

ELSEWHERE: Final = "not among the targets of these settings"
"""Of a target that another process was given (`watch --alertmanager`), or that was taken out."""
SHORTEST_ID: Final = 4
"""Characters of an id that may stand for it."""
MOST_EVENTS: Final = 500
"""Decisions that an explanation tells, the latest."""
_ID: Final = re.compile(r"[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about: an alert, or a rule and a series that may have none.

    Attributes
    ----------
    name : of the rule as in settings (a collapse is a value_drift in `place`).
    place : rule and number of the series (or MONITOR) whose state it is.
    key : None: it is about the monitor.
    alert : None: it never fired.
    instance : what is remembered of it; NOTHING: nothing is.
    """

    alert_id: str | None
    name: str
    place: tuple[str, int]
    rule: Rule | None
    key: SeriesKey | None
    alert: Alert | None
    instance: Instance
    labels: Mapping[str, str]

    @property
    def state(self) -> str:
        if self.alert is not None and not self.alert.firing:
            return State.RESOLVED
        if self.instance is NOTHING:
            return State.INACTIVE if self.alert is None else State.FIRING
        return self.instance.state

    @property
    def severity(self) -> str | None:
        """As it stands; None once it is resolved and nobody was told."""
        if self.instance.standing:
            return self.instance.severity
        return None if self.alert is None else self.alert.severity


@dataclass(frozen=True, slots=True)
class Quiet:
    """What keeps alerts quiet now."""

    at: Moment
    silences: Sequence[Silence]
    inhibitions: Inhibitions

    def around(self, subject: Subject) -> tuple[Silence | None, str | None]:
        """The silence that covers it, and the alert that inhibits it."""
        silence = silencing(self.silences, subject.labels, self.at.now)
        return silence, self.inhibitions.inhibitor(subject.labels)


class Desk:
    """Where alerts are looked at.

    Raises
    ------
    ConfigError : a rule that cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rules = compile_rules(config.alerts)
        self._recipients = [
            Recipient(name, frozenset[Severity](s.severities), s.watchdog) for name, s in config.alerts.targets.items()
        ]

    def find(self, connection: Connection, text: str) -> str:
        """The id that a person means by its beginning.

        Raises
        ------
        ConfigError : no alert has such an id, or several have.
        """
        if not is_id(text) or len(text) < SHORTEST_ID:
            raise ConfigError(
                f"{printable(text, 60)!r} is no alert's id, nor its first {SHORTEST_ID} or more characters"
            )
        found = alert_reads.ids_beginning(connection, text)
        if not found:
            raise ConfigError(f"no alert {text}; valuedrift alerts list --all has those that are kept")
        if len(found) > 1:
            raise ConfigError(f"{text} is the beginning of several alerts: {', '.join(found)}")
        return found[0]

    def found(self, connection: Connection, text: str) -> Subject:
        """What the beginning of an id means. Raises ConfigError as `find` does."""
        subject = self.subject(connection, self.find(connection, text))
        if subject is None:
            raise ConfigError(f"alert {text} was let go of meanwhile")
        return subject

    def listed(self, connection: Connection, page: Page, clock: datetime) -> list[dict[str, Any]]:
        """A page of alerts, newest first, each in short."""
        quiet = self._quiet(connection, moment(connection, clock))
        alerts = alert_reads.page(connection, page)
        keys = _keys(connection, alerts)
        memories = _memories(store.states(connection))
        return [self._brief(self._of_alert(a, keys.get(a.series_id or 0), memories.get(a.id)), quiet) for a in alerts]

    def subject(self, connection: Connection, alert_id: str) -> Subject | None:
        """What an id names; None: nothing."""
        alert = next(iter(reads.alerts_by_id(connection, [alert_id])), None)
        row = next(iter(store.states(connection, alert_id)), None)
        if alert is not None:
            key = _keys(connection, [alert]).get(alert.series_id or 0)
            return self._of_alert(alert, key, None if row is None else Instance.from_json(row.memory))
        if row is not None:
            return self._of_place(connection, row.rule, row.series_id, alert_id)
        events, _ = alert_reads.last_events(connection, alert_id, 1)
        return None if not events else self._of_place(connection, events[0].rule, events[0].series_id, alert_id)

    def shown(self, connection: Connection, subject: Subject, clock: datetime) -> dict[str, Any]:
        """An alert with all that is kept of it but excerpts."""
        quiet = self._quiet(connection, moment(connection, clock))
        brief = self._brief(subject, quiet)
        if subject.alert is None:
            return brief
        whole = alert_values(subject.alert, brief["series"], brief["severity"])
        return whole | brief | {"outbox": _waiting(connection, subject.alert.id)}

    def about(self, connection: Connection, rule: str, series: str | None) -> Subject:
        """A rule and a series, whether or not anything fires.

        Raises
        ------
        ConfigError : no such rule or series, or a series where the rule is about the monitor, or none where it is not.
        """
        known = known_rule(self._rules, rule)
        of_monitor = known in self._rules.monitor or rule in ("monitor_unhealthy", "watchdog")
        if of_monitor and series is not None:
            raise ConfigError(f"the rule {rule} is about the monitor itself: leave --series out")
        if not of_monitor and series is None:
            raise ConfigError(f"the rule {rule} is about a series: name it with --series")
        series_id = MONITOR if series is None else find_series(connection, series).id
        return self._of_place(connection, rule, series_id, None)

    def explained(self, connection: Connection, subject: Subject, clock: datetime) -> dict[str, Any]:
        """Every decision about it in order, how it stands now, and for each target why it is told or not."""
        quiet = self._quiet(connection, at := moment(connection, clock))
        silence, inhibitor = quiet.around(subject)
        events, left_out = (
            ([], 0) if subject.alert_id is None else alert_reads.last_events(connection, subject.alert_id, MOST_EVENTS)
        )
        standing = subject.instance.standing and subject.state != State.RESOLVED
        latest = subject.alert or alert_reads.last_alert(connection, *subject.place)
        answer = ask(
            connection, self._config, self._rules, subject.name, subject.place[1], at, latest, standing=standing
        )
        waiting = {} if subject.alert_id is None else {w["target"]: w for w in _waiting(connection, subject.alert_id)}
        around = Surroundings(None if silence is None else silence.id, inhibitor)
        i = subject.instance
        return {
            "alert": self._brief(subject, quiet),
            "events": [
                {"at": e.at, "kind": e.kind, "reason": e.reason, "text": e.text, "target": e.target} for e in events
            ],
            "events_left_out": left_out,
            "now": {
                "at": at.now,
                "last_pass": at.last_pass,
                "holds": answer.holds,
                "condition": answer.text,
                "state": subject.state,
                "since": i.since,
                "waits_until": _due(i, self._policy(subject), standing=standing),
                "flapping": i.held,
                "silence": None if silence is None else silence_values(silence),
                "inhibited_by": inhibitor,
                "targets": [
                    *(
                        self._target(r, subject, around, at.now, waiting.get(r.name), standing=standing)
                        for r in self._recipients
                    ),
                    *self._elsewhere(subject, waiting),
                ],
            },
        }

    def _target(
        self,
        recipient: Recipient,
        subject: Subject,
        around: Surroundings,
        now: datetime,
        waiting: dict[str, Any] | None,
        *,
        standing: bool,
    ) -> dict[str, Any]:
        """Whether the next pass tells a target, and if not, which stage says why."""
        instance = subject.instance if standing else NOTHING
        c = context(instance, recipient, around, self._policy(subject), now)
        no = decide(c)
        return {
            "target": recipient.name,
            "told": _told(c.told),
            "tells_next": no is None,
            "reason": None if no is None else no.reason.value,
            "text": "" if no is None else no.text,
            "outbox": waiting,
        }

    def _elsewhere(self, subject: Subject, waiting: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Targets that the alert is told to all the same."""
        told = {t.target: t for t in subject.instance.told if t.alert_id == subject.alert_id}
        for name in sorted((told.keys() | waiting.keys()) - {r.name for r in self._recipients}):
            entry = {"target": name, "told": _told(told.get(name)), "tells_next": False}
            yield entry | {"reason": ELSEWHERE, "text": "", "outbox": waiting.get(name)}

    def _policy(self, subject: Subject) -> Policy:
        return Policy() if subject.rule is None else subject.rule.policy

    def _quiet(self, connection: Connection, at: Moment) -> Quiet:
        standing: list[tuple[str, Mapping[str, str]]] = []
        if self._rules.inhibit:
            memories = _memories(store.states(connection))
            alerts = reads.alerts_by_id(connection, [k for k, i in memories.items() if i.standing])
            keys = _keys(connection, alerts)
            subjects = (self._of_alert(a, keys.get(a.series_id or 0), memories[a.id]) for a in alerts)
            standing = [(s.alert_id or "", s.labels) for s in subjects]
        return Quiet(at, silences(connection, at.now), Inhibitions(self._rules.inhibit, standing))

    def _of_alert(self, alert: Alert, key: SeriesKey | None, memory: Instance | None) -> Subject:
        rule = rule_of(self._rules, alert)
        name = alert.rule if rule is None else rule.name
        if rule is None and (alert.rule, alert.values.get("kind")) == (VALUE_DRIFT, COLLAPSE):
            name = COLLAPSE
        instance = memory or NOTHING
        severity = instance.severity if instance.standing else alert.severity or ""
        stored = None if key is None else reads.StoredSeries(alert.series_id or MONITOR, key, None)
        named = labels(alert, stored, rule, name, severity)
        return Subject(alert.id, name, (alert.rule, alert.series_id or MONITOR), rule, key, alert, instance, named)

    def _of_place(self, connection: Connection, name: str, series_id: int, alert_id: str | None) -> Subject:
        """A rule and a series, as far as something is remembered of them; not of another alert than the one named."""
        rule = self._rules.named(name)
        place = (VALUE_DRIFT if name == COLLAPSE else name, series_id)
        row = alert_reads.state_of(connection, *place)
        instance = NOTHING if row is None else Instance.from_json(row.memory)
        if alert_id is not None and instance.alert_id != alert_id:
            instance = NOTHING
        elif instance.alert_id is not None and alert_id is None:
            found = self.subject(connection, instance.alert_id) if instance.standing else None
            if found is not None and found.name == name:
                return found
            alert_id = instance.alert_id if instance.state is State.PENDING else None
        key = store.series_keys(connection, {series_id}).get(series_id)
        severity = "" if rule is None else rule.policy.severity or ""
        return Subject(
            alert_id, name, place, rule, key, None, instance, place_labels(key, rule, name, severity or "ticket")
        )

    def _brief(self, subject: Subject, quiet: Quiet) -> dict[str, Any]:
        a = subject.alert
        standing = subject.state in (State.PENDING, State.FIRING, State.ACKNOWLEDGED)
        silence, inhibitor = quiet.around(subject) if standing else (None, None)
        series = "" if subject.key is None else subject.key.name
        return {
            "id": subject.alert_id,
            "rule": subject.name,
            "series": series,
            "state": subject.state,
            "severity": subject.severity,
            "title": "" if a is None else title(a, subject.name, series),
            "reason": "" if a is None else a.reason,
            "raised_at": None if a is None else a.raised_at,
            "resolved_at": None if a is None else a.resolved_at,
            "told_at": None if a is None else a.told_at,
            "acknowledged_at": None if a is None else a.acknowledged_at,
            "acknowledged_by": None if a is None else a.acknowledged_by,
            "silenced_by": None if silence is None else silence.id,
            "inhibited_by": inhibitor,
            "labels": dict(subject.labels),
        }


def is_id(text: str) -> bool:
    """Whether an alert could have this id, or one that begins so."""
    return _ID.fullmatch(text) is not None


def silence_values(silence: Silence) -> dict[str, Any]:
    """A silence as plain values."""
    return {name: getattr(silence, name) for name in Silence.__slots__}


def silences(connection: Connection, now: datetime | None) -> list[Silence]:
    """Those that are not over at `now`; None: all that are kept."""
    return [silence_of(row) for row in store.silences(connection, now)]


def _memories(rows: Sequence[store.StateRow]) -> dict[str, Instance]:
    return {r.alert_id: Instance.from_json(r.memory) for r in rows if r.alert_id is not None}


def _keys(connection: Connection, alerts: Sequence[Alert]) -> dict[int, SeriesKey]:
    return store.series_keys(connection, {a.series_id for a in alerts if a.series_id is not None})


def _waiting(connection: Connection, alert_id: str) -> list[dict[str, Any]]:
    return [asdict(w) for w in alert_reads.waiting(connection, alert_id)]


def _told(told: Told | None) -> dict[str, Any] | None:
    return None if told is None else {"status": told.status, "severity": told.severity, "at": told.at}


def _due(instance: Instance, policy: Policy, *, standing: bool) -> datetime | None:
    """When what waits is over: `for` of what is pending, `clear_for` of what is clear."""
    if instance.state is State.PENDING and instance.since is not None:
        return instance.since + policy.for_
    if standing and instance.cleared_since is not None:
        return instance.cleared_since + policy.clear_for
    return None

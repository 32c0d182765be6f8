"""What an alert does next: a pure state machine, one step a pass, for one rule and one series (docs/alerts.md).

    inactive -> pending -> firing <-> acknowledged -> resolved -> inactive

It is level-triggered: a step is told whether the condition holds now, never that it began or ended, so a pass that was
missed, repeated or killed changes nothing but the time. `Instance` is all that is remembered between passes. No clock:
`now` is given, may be event time, and may go backwards (times in memory that lie ahead of it are taken to be now).
Who is told of it is decided afterwards, by alerts.stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from alerts.notice import Status
from alerts.reasons import alert_id
from monitor.multiplicity import PAGE, TICKET
from streams.reasons import printable

NONE: Final = "none"
"""The severity of what is no trouble (the watchdog): only targets that ask for it are told."""
Severity = Literal["page", "ticket", "none"]
RANK: Final[Mapping[str, int]] = {NONE: 0, TICKET: 1, PAGE: 2}
"""Of severities: how urgent."""
LONGEST_NAME: Final = 200
"""Characters of who acknowledged."""
MOST_CHANGES: Final = 100
"""Most state changes that flap damping may look back on."""
_VERSION: Final = 1


class State(StrEnum):
    """Where an alert stands."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


STANDING: Final = frozenset({State.FIRING, State.ACKNOWLEDGED})
"""States of an alert that people have to do with."""


class Reason(StrEnum):
    """Why a state is what it is; at most 64 characters."""

    WAITING = "condition holds, waiting for `for`"
    FELL_BACK = "condition cleared before `for` was over"
    FIRED = "fired"
    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "acknowledgement taken back"
    ESCALATED = "severity raised"
    LOWERED = "severity lowered"
    CLEARING = "condition cleared, waiting for `clear_for`"
    HOLDS_AGAIN = "condition holds again"
    HELD = "flapping: resolve held back"
    RESOLVED = "resolved"
    REPLACED = "resolved, another finding took its place"
    GONE = "gone"
    UNKNOWN = "condition not known now, state kept"
    KNOWN = "condition known again"


class Key(NamedTuple):
    """What has one state: a rule, and the name of a series or None for the monitor itself."""

    rule: str
    series: str | None


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a rule is.

    Attributes
    ----------
    for_ : a condition must have held so long to fire.
    clear_for : a condition must have been clear so long to resolve.
    repeat : targets are told again of what fires after so long; None: once.
    flap_window, flap_changes : after so many changes within the window resolves are held back; 0 changes: never.
    gone_after : a condition that was not known for so long is taken to be gone.
    severity : overrides what the observation says; None does not.
    """

    for_: timedelta = timedelta(0)
    clear_for: timedelta = timedelta(0)
    repeat: timedelta | None = timedelta(hours=4)
    flap_window: timedelta = timedelta(hours=1)
    flap_changes: int = 4
    gone_after: timedelta = timedelta(days=7)
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen of a condition in one pass.

    Attributes
    ----------
    holds : None where it cannot be told now; the state is kept.
    severity : while it holds; None: a ticket when it fires, then as it stands.
    alert_id : of the finding (a row of `alerts`) that holds; None for other rules, whose episodes are named here.
    since : from when it held, where that is known to be earlier than now (a finding's event time).
    gone : what it is about is no more (a retired series, a rule turned off): what stands is resolved at once.
    text : what was seen, for people: one printable line.
    """

    holds: bool | None
    severity: Severity | None = None
    alert_id: str | None = None
    since: datetime | None = None
    gone: bool = False
    text: str = ""


class Told(msgspec.Struct, frozen=True, array_like=True):
    """The last of an alert that a target was told, by way of the outbox."""

    target: str
    alert_id: str
    status: Status
    severity: Severity
    at: datetime


class Instance(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The memory of one key.

    Attributes
    ----------
    alert_id : of the episode that is pending, stands, or was resolved last.
    since : from when its condition held.
    fired_at, resolved_at : when this episode fired and was resolved.
    cleared_since : from when the condition of what stands is clear again; None while it holds.
    unknown_since : from when the condition is not known.
    held : a resolve is due and held back.
    changes : when it fired and resolved last, oldest first.
    episodes : how many were named, so that no two have one name.
    revision : grows with every notice.
    told : what targets were told, also of earlier episodes that they think stand.
    muted : why a target was not told last (alerts.stages), by target.
    """

    state: State = State.INACTIVE
    alert_id: str | None = None
    severity: Severity = "ticket"
    since: datetime | None = None
    fired_at: datetime | None = None
    resolved_at: datetime | None = None
    cleared_since: datetime | None = None
    unknown_since: datetime | None = None
    acked_by: str | None = None
    acked_at: datetime | None = None
    held: bool = False
    changes: tuple[datetime, ...] = ()
    episodes: int = 0
    revision: int = 0
    told: tuple[Told, ...] = ()
    muted: dict[str, str] = {}

    @property
    def standing(self) -> bool:
        """Firing, acknowledged or not."""
        return self.state in STANDING

    @property
    def forgettable(self) -> bool:
        """Nothing in it differs from never having been: no row need be kept."""
        return self.state is State.INACTIVE and not self.told and not self.changes

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON column."""
        return {"version": _VERSION, **msgspec.to_builtins(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Instance:
        """What `to_json` wrote. Raises ValueError on anything else."""
        if values.get("version") != _VERSION:
            raise ValueError(f"memory of an alert of version {values.get('version')!r}, not {_VERSION}")
        try:
            return msgspec.convert({k: v for k, v in values.items() if k != "version"}, cls)
        except msgspec.ValidationError as e:
            raise ValueError(f"memory of an alert: {e}") from e


NOTHING: Final = Instance()
"""The memory of a key of which nothing is kept."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A change, and why."""

    reason: Reason
    alert_id: str | None
    before: State
    after: State
    text: str = ""


Step = tuple[Instance, tuple[Decision, ...]]


def advance(key: Key, instance: Instance, seen: Observation, policy: Policy, now: datetime) -> Step:
    """One step. Decisions are made only of what changes; total.

    Returns
    -------
    (the memory after it, what changed and why, in order); the same object where nothing did. Where one finding took
    another's place both are in there: the end of the one and the beginning of the other.
    """
    if instance is NOTHING and not seen.holds:
        return instance, ()
    if instance is not NOTHING:
        instance = _rewound(instance, now)
    if seen.gone:
        return _ended(instance, Reason.GONE, seen.text, policy, now)
    if seen.holds is None:
        return _not_known(instance, seen, policy, now)
    instance, decisions = _known(instance)
    if not seen.holds:
        instance, more = _clear(instance, seen, policy, now)
        return instance, decisions + more
    if instance.alert_id != seen.alert_id is not None:
        instance, more = _ended(instance, Reason.REPLACED, "", policy, now)
        decisions += more
    step = _holds if instance.standing else _waits
    instance, more = step(key, instance, seen, policy, now)
    return instance, decisions + more


def acknowledge(instance: Instance, by: str, now: datetime) -> Step:
    """Somebody has it in hand: no repeats from here on. Nothing happens to what does not fire."""
    if instance.state is not State.FIRING:
        return instance, ()
    name = printable(by, LONGEST_NAME)
    after = replace(instance, state=State.ACKNOWLEDGED, acked_by=name, acked_at=now)
    return after, (_decision(Reason.ACKNOWLEDGED, instance, after, f"by {name}"),)


def unacknowledge(instance: Instance, by: str) -> Step:
    """Take an acknowledgement back: it fires again, and repeats."""
    if instance.state is not State.ACKNOWLEDGED:
        return instance, ()
    after = replace(instance, state=State.FIRING, acked_by=None, acked_at=None)
    return after, (_decision(Reason.UNACKNOWLEDGED, instance, after, f"by {printable(by, LONGEST_NAME)}"),)


def _waits(key: Key, instance: Instance, seen: Observation, policy: Policy, now: datetime) -> Step:
    """The condition holds and nothing stands yet: wait for `for`, or fire."""
    since = instance.since if instance.state is State.PENDING else min(seen.since or now, now)
    due = since is None or now - since >= policy.for_
    state = State.FIRING if due else State.PENDING
    if instance.state is state:
        return instance, ()
    changes: dict[str, Any] = {"state": state}
    if instance.state is not State.PENDING:
        episodes = instance.episodes + 1
        name = seen.alert_id or alert_id(key.series or "", f"{key.rule}\n{episodes}", since or now)
        changes |= {"alert_id": name, "since": since, "fired_at": None, "resolved_at": None}
        changes |= {"episodes": episodes, "muted": {}}
    if due:
        severity = policy.severity or seen.severity or TICKET
        changes |= {"severity": severity, "fired_at": now, "changes": _changed(instance, policy, now)}
    after = replace(instance, **changes)
    if due:
        return after, (_decision(Reason.FIRED, instance, after, seen.text),)
    return after, (_decision(Reason.WAITING, instance, after, f"for {policy.for_}: {seen.text}"),)


def _holds(key: Key, instance: Instance, seen: Observation, policy: Policy, now: datetime) -> Step:
    """The condition of what stands holds: forget that it cleared, follow its severity."""
    decisions: tuple[Decision, ...] = ()
    if instance.cleared_since is not None:
        changes = _changed(instance, policy, now, now) if instance.held else instance.changes
        instance = replace(instance, cleared_since=None, held=False, changes=changes)
        decisions = (_decision(Reason.HOLDS_AGAIN, instance, instance, seen.text),)
    severity = policy.severity or seen.severity or instance.severity
    if severity == instance.severity:
        return instance, decisions
    before, text = instance, f"from {instance.severity} to {severity}"
    raised = RANK[severity] > RANK[instance.severity]
    if raised:
        # who took a ticket in hand has not heard of a page
        instance = replace(instance, state=State.FIRING, severity=severity, acked_by=None, acked_at=None)
    else:
        instance = replace(instance, severity=severity)
    reason = Reason.ESCALATED if raised else Reason.LOWERED
    return instance, (*decisions, _decision(reason, before, instance, text))


def _clear(instance: Instance, seen: Observation, policy: Policy, now: datetime) -> Step:
    """The condition does not hold: go back, wait for `clear_for`, or resolve unless it flaps."""
    if not instance.standing:
        return _ended(instance, Reason.FELL_BACK, seen.text, policy, now)
    before = instance
    if instance.cleared_since is None:
        instance = replace(instance, cleared_since=now)
    cleared = instance.cleared_since or now
    if now - cleared < policy.clear_for:
        if instance is before:
            return before, ()
        text = f"for {policy.clear_for}: {seen.text}"
        return instance, (_decision(Reason.CLEARING, before, instance, text),)
    if not _flaps(instance, policy, now):
        return _ended(instance, Reason.RESOLVED, seen.text, policy, now)
    if instance.held:
        return instance, ()
    instance = replace(instance, held=True)
    text = f"{policy.flap_changes} changes within {policy.flap_window}"
    return instance, (_decision(Reason.HELD, before, instance, text),)


def _not_known(instance: Instance, seen: Observation, policy: Policy, now: datetime) -> Step:
    """Keep the state, but not for ever."""
    if not (instance.standing or instance.state is State.PENDING):
        return _rested(instance, policy, now), ()
    if instance.unknown_since is None:
        instance = replace(instance, unknown_since=now)
        return instance, (_decision(Reason.UNKNOWN, instance, instance, seen.text),)
    if now - instance.unknown_since < policy.gone_after:
        return instance, ()
    return _ended(instance, Reason.GONE, f"not known for {policy.gone_after}", policy, now)


def _known(instance: Instance) -> Step:
    if instance.unknown_since is None:
        return instance, ()
    instance = replace(instance, unknown_since=None)
    return instance, (_decision(Reason.KNOWN, instance, instance, ""),)


def _ended(instance: Instance, reason: Reason, text: str, policy: Policy, now: datetime) -> Step:
    """The end of whatever there is: of what stands a resolve, of what waits a way back, of the rest nothing."""
    ended = replace(
        instance,
        since=None,
        cleared_since=None,
        unknown_since=None,
        acked_by=None,
        acked_at=None,
        held=False,
    )
    if instance.standing:
        ended = replace(ended, state=State.RESOLVED, resolved_at=now, changes=_changed(instance, policy, now))
    elif instance.state is State.PENDING:
        reason = Reason.GONE if reason is Reason.GONE else Reason.FELL_BACK
        ended = replace(ended, state=State.INACTIVE, alert_id=None)
    else:
        return _rested(instance, policy, now), ()
    return ended, (_decision(reason, instance, ended, text),)


def _rested(instance: Instance, policy: Policy, now: datetime) -> Instance:
    """Forget what is over, once flap damping has no use for it and every target knows."""
    recent = any(now - at < policy.flap_window for at in instance.changes)
    return instance if instance.told or recent else NOTHING


def _flaps(instance: Instance, policy: Policy, now: datetime) -> bool:
    n = min(policy.flap_changes, MOST_CHANGES)
    return 0 < n <= len(instance.changes) and now - instance.changes[-n] < policy.flap_window


def _changed(instance: Instance, policy: Policy, *at: datetime) -> tuple[datetime, ...]:
    """Its changes and these, as many as damping looks back on."""
    n = min(policy.flap_changes, MOST_CHANGES)
    return (*instance.changes, *at)[-n:] if n > 0 else ()


def _rewound(instance: Instance, now: datetime) -> Instance:
    """Its times, none of them ahead of a clock that was set back: waits go on from now, and end."""
    times = (instance.since, instance.cleared_since, instance.unknown_since)
    ahead = any(at is not None and at > now for at in times)
    if not ahead and all(at <= now for at in instance.changes) and all(told.at <= now for told in instance.told):
        return instance
    since, cleared, unknown = (None if at is None else min(at, now) for at in times)
    return replace(
        instance,
        since=since,
        cleared_since=cleared,
        unknown_since=unknown,
        changes=tuple(min(at, now) for at in instance.changes),
        told=tuple(replace(told, at=min(told.at, now)) for told in instance.told),
    )


def _decision(reason: Reason, before: Instance, after: Instance, text: str) -> Decision:
    # what waited has lost its name when it falls back
    return Decision(reason, after.alert_id or before.alert_id, before.state, after.state, printable(text))

"""Who is told of an alert now, and why not: stages in a fixed order, in Alertmanager's manner. Pure.

`notify` comes after alerts.machine.advance in every pass, once for every key that has a memory. What it tells goes to
the outbox; what it told is remembered in the instance. An end is told to every target that was told a beginning,
whatever silences or inhibits it: a silence keeps news away, it does not leave an incident open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from alerts.machine import NONE, RANK, Instance, Policy, Severity, State, Told
from alerts.notice import Status

FIRING: Final = "firing"
ACKNOWLEDGED: Final = "acknowledged"
RESOLVED: Final = "resolved"
STATUS_OF: Final[Mapping[State, Status]] = {State.FIRING: FIRING, State.ACKNOWLEDGED: ACKNOWLEDGED}
"""What a target is told of an alert that stands."""


class Why(StrEnum):
    """Why a target is not told; at most 64 characters."""

    NOT_NOTIFIABLE = "nothing to tell in this state"
    WATCHDOG_ONLY = "only for targets that watch the watchdog"
    SILENCED = "silenced"
    INHIBITED = "inhibited"
    SEVERITY = "severity not wanted by the target"
    STATUS = "status not wanted by the target"
    ACKNOWLEDGED = "acknowledged: no repeats"
    TOLD = "told already"
    NOT_YET = "repeat interval not reached"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A target as far as it is asked here.

    Attributes
    ----------
    severities : of `page` and `ticket`, those it wants.
    watchdog : it also wants what always fires.
    tells : statuses it understands (alerts.targets.base.Target.tells).
    """

    name: str
    severities: frozenset[Severity] = frozenset({"page"})
    watchdog: bool = False
    tells: frozenset[Status] = frozenset({"firing", "acknowledged", "resolved"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What keeps an alert quiet from outside.

    Attributes
    ----------
    silence : id of a silence that covers it (alerts.silences.silencing).
    inhibitor : id of the alert that makes it superfluous (alerts.silences.Inhibitions).
    """

    silence: str | None = None
    inhibitor: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage decides on."""

    instance: Instance
    recipient: Recipient
    status: Status | None
    told: Told | None
    """What this target was told last of this episode."""
    surroundings: Surroundings
    policy: Policy
    now: datetime


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A target is not told."""

    target: str
    alert_id: str
    reason: Why
    text: str = ""


@dataclass(frozen=True, slots=True)
class Tell:
    """A target is to be told: what goes to the outbox.

    Attributes
    ----------
    why : `fired`, `repeated`, `severity raised`, `acknowledged by NAME`, `resolved`, for people.
    """

    target: str
    alert_id: str
    status: Status
    severity: Severity
    revision: int
    why: str


Stage = Callable[[Context], Suppressed | None]


def not_notifiable(c: Context) -> Suppressed | None:
    """Only what stands is news; ends are told by `notify` itself."""
    return _no(c, Why.NOT_NOTIFIABLE, c.instance.state) if c.status is None else None


def status_not_wanted(c: Context) -> Suppressed | None:
    return _no(c, Why.STATUS) if c.status not in c.recipient.tells else None


def watchdog_only(c: Context) -> Suppressed | None:
    return _no(c, Why.WATCHDOG_ONLY) if c.instance.severity == NONE and not c.recipient.watchdog else None


def severity_not_wanted(c: Context) -> Suppressed | None:
    unwanted = c.status == FIRING and c.instance.severity not in (NONE, *c.recipient.severities)
    return _no(c, Why.SEVERITY, c.instance.severity) if unwanted else None


def silenced(c: Context) -> Suppressed | None:
    by = c.surroundings.silence if c.status == FIRING else None
    return _no(c, Why.SILENCED, f"by {by}") if by is not None else None


def inhibited(c: Context) -> Suppressed | None:
    by = c.surroundings.inhibitor if c.status == FIRING else None
    return _no(c, Why.INHIBITED, f"by alert {by}") if by is not None else None


def acknowledged(c: Context) -> Suppressed | None:
    """Told that it is acknowledged a target hears no more; one that never heard of it hears nothing."""
    if c.status != ACKNOWLEDGED or (c.told is not None and c.told.status == FIRING):
        return None
    return _no(c, Why.ACKNOWLEDGED, f"by {c.instance.acked_by}")


def told_already(c: Context) -> Suppressed | None:
    return _no(c, Why.TOLD) if _is_told(c) and c.policy.repeat is None else None


def not_yet(c: Context) -> Suppressed | None:
    if not _is_told(c) or c.told is None or c.policy.repeat is None or c.now - c.told.at >= c.policy.repeat:
        return None
    return _no(c, Why.NOT_YET, f"told at {c.told.at:%Y-%m-%d %H:%M} UTC, again after {c.policy.repeat}")


STAGES: Final[tuple[Stage, ...]] = (
    not_notifiable,
    status_not_wanted,
    watchdog_only,
    severity_not_wanted,
    silenced,
    inhibited,
    acknowledged,
    told_already,
    not_yet,
)
"""In this order; the first that says why not has the last word."""
_UNREMARKABLE: Final = frozenset({Why.NOT_NOTIFIABLE, Why.TOLD, Why.NOT_YET})
"""What goes without saying between two notices."""


def decide(c: Context) -> Suppressed | None:
    """Why a target is not told now, or None where it is."""
    for stage in STAGES:
        if (no := stage(c)) is not None:
            return no
    return None


def context(
    instance: Instance, recipient: Recipient, surroundings: Surroundings, policy: Policy, now: datetime
) -> Context:
    """What the stages decide on for one target."""
    told = None
    for t in instance.told:
        if t.target == recipient.name and t.alert_id == instance.alert_id:
            told = t
    return Context(instance, recipient, STATUS_OF.get(instance.state), told, surroundings, policy, now)


def notify(
    instance: Instance, recipients: Sequence[Recipient], surroundings: Surroundings, policy: Policy, now: datetime
) -> tuple[Instance, tuple[Tell | Suppressed, ...]]:
    """Tell the targets that are to be told now; total.

    Returns
    -------
    (memory with what was told; what to write to the outbox, and suppressions whose reason is new for their target).
    The ends of earlier episodes come before anything of the present one. The same object where nothing changed.
    """
    if not instance.told and not instance.standing:
        return instance, ()
    revision = instance.revision + 1
    wanted = {r.name: r for r in recipients}
    said: list[Tell | Suppressed] = []
    told: list[Told] = []
    for t in instance.told:
        if instance.standing and t.alert_id == instance.alert_id:
            told.append(t)
        elif t.target not in wanted or RESOLVED in wanted[t.target].tells:
            # also where this process does not know the target: another may, or it comes back
            said.append(Tell(t.target, t.alert_id, RESOLVED, t.severity, revision, RESOLVED))
    muted = dict(instance.muted)
    for r in recipients if instance.standing else ():
        c = context(instance, r, surroundings, policy, now)
        no = decide(c)
        if no is None:
            said.append(tell := _tell(c, revision))
            told = [t for t in told if t is not c.told]
            told.append(Told(r.name, tell.alert_id, tell.status, tell.severity, now))
            muted.pop(r.name, None)
        elif no.reason not in _UNREMARKABLE and muted.get(r.name) != no.reason:
            said.append(no)
            muted[r.name] = no.reason.value
    if tuple(told) == instance.told and muted == instance.muted and not said:
        return instance, ()
    if not any(isinstance(x, Tell) for x in said):
        revision = instance.revision
    return replace(instance, told=tuple(told), muted=muted, revision=revision), tuple(said)


def _is_told(c: Context) -> bool:
    """The target knows this status, at no lower severity."""
    return c.told is not None and c.told.status == c.status and RANK[c.instance.severity] <= RANK[c.told.severity]


def _tell(c: Context, revision: int) -> Tell:
    if c.status == ACKNOWLEDGED:
        why = f"acknowledged by {c.instance.acked_by}"
    elif c.told is None:
        muted = c.instance.muted.get(c.recipient.name)
        why = "fired" if muted is None else f"fired earlier, kept back until now: {muted}"
    elif RANK[c.instance.severity] > RANK[c.told.severity]:
        why = f"severity raised from {c.told.severity} to {c.instance.severity}"
    elif c.told.status == ACKNOWLEDGED:
        why = "acknowledgement taken back"
    else:
        why = "repeated, it still stands"
    status = c.status or RESOLVED
    return Tell(c.recipient.name, c.instance.alert_id or "", status, c.instance.severity, revision, why)


def _no(c: Context, reason: Why, text: str = "") -> Suppressed:
    return Suppressed(c.recipient.name, c.instance.alert_id or "", reason, text)


def group_key(labels: Mapping[str, str], group_by: Sequence[str]) -> tuple[str, ...]:
    """What notices share that are sent together.

    >>> group_key({"rule": "no_data", "series": "a"}, ("rule", "tenant"))
    ('no_data', '')
    """
    return tuple(labels.get(name, "") for name in group_by)

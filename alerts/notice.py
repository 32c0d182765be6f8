"""What a target is told of one alert: plain values, composed from what is stored, rendered by each target its own way.

Every string in it may have been written by an attacker (names of series, labels, excerpts): a target escapes what its
medium would read as markup.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

Status = Literal["firing", "acknowledged", "resolved"]

MOST_TURNS: Final = 5
"""Telling turns of a notice."""
MOST_TRACE: Final = 168
"""Points of a notice's trace: a week of hours."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured quantity: its name, as text with its 90 % interval and unit; `known` False: the text says why not."""

    name: str
    text: str
    known: bool = True


@dataclass(frozen=True, slots=True)
class TellingTurn:
    """A turn that shows what the alert is about; request and answer are redacted excerpts, None where none is kept."""

    event_id: str
    turn: int
    ts: datetime
    behaviour: str
    probability: float
    where: str
    request: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class TracePoint:
    """S of the 24 h window that ends at t, nats, with its 90 % interval."""

    t: datetime
    s: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert as a target is told of it.

    Attributes
    ----------
    id : of the alert; a target knows the incident by it (dedup key), in all its notices.
    revision : grows with every notice of an alert; (id, revision) names one notice however often it is sent.
    severity : `page` or `ticket`.
    labels : what routes it: rule, series, deployment, model, severity, behaviour, the series' labels, the rule's own.
    title : one line.
    reason : what moved, from what to what, with intervals, since when.
    guarantee : the false-alarm promise it was raised under, or that there is none.
    where : lines such as `route=/chat carries 83 % (61-97) of it`.
    trace : S over the last days, oldest first.
    note : why it is told now: fired, repeated, became a page, acknowledged by whom, resolved why.
    """

    id: str
    revision: int
    status: Status
    rule: str
    severity: str
    series: str
    labels: dict[str, str]
    title: str
    reason: str
    guarantee: str
    raised_at: datetime
    onset: datetime | None
    resolved_at: datetime | None
    note: str
    figures: tuple[Figure, ...] = ()
    where: tuple[str, ...] = ()
    turns: tuple[TellingTurn, ...] = ()
    trace: tuple[TracePoint, ...] = field(default=(), repr=False)
    dashboard_url: str = ""
    runbook_url: str = ""

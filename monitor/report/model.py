"""What a report says, as plain values: kept in the database as JSON, and all that a rendering knows.

Shares are between 0 and 1, S and its changes in nats, rates in nats/day, times UTC. Names and excerpts may have been
written by an attacker: every rendering escapes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

SCHEMA: Final = "valuedrift.report/1"

Verdict = Literal["drifting", "improved", "stable", "not enough data"]


class Interval(msgspec.Struct, frozen=True):
    """A figure with its 90 % interval."""

    mean: float
    low: float
    high: float


class Known(msgspec.Struct, frozen=True, tag="known"):
    """A figure that could be told."""

    value: Interval
    unit: str = ""


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """Why a figure is not known."""

    reason: str


Maybe = Known | Unknown


class Window(msgspec.Struct, frozen=True):
    """A series in a span of time."""

    start: datetime
    end: datetime
    turns: int
    effective_turns: float
    S: Interval
    misaligned: Interval
    shares: dict[str, Interval]


class Change(msgspec.Struct, frozen=True):
    """From the compared window to this one.

    Attributes
    ----------
    probability : that S moved the way it seems to have, 0.5 to 1.
    moved_probability : that the misaligned share moved the way it seems to have.
    real : whether the change stands among all series of the report (at the rate that `discoveries` of the fleet names).
    """

    S: Interval
    misaligned: Interval
    shares: dict[str, Interval]
    probability: float
    moved_probability: float
    real: bool


class Term(msgspec.Struct, frozen=True):
    """A part of a change; the parts of one decomposition add up to it exactly (their means do)."""

    name: str
    S: Interval
    misaligned: Interval


class LabelTerm(msgspec.Struct, frozen=True):
    """What one value of a label contributes: by its part of the traffic (mixture) and by its own rate."""

    value: str
    traffic_before: float
    traffic_after: float
    rate_before: Interval | None
    rate_after: Interval | None
    mixture: Interval
    rate: Interval


class LabelSplit(msgspec.Struct, frozen=True):
    """The change of the misaligned share by the values of one label.

    `simpson` : a sentence where the total moves against every sure rate within, else empty.
    """

    label: str
    terms: list[LabelTerm]
    mixture_total: Interval
    rate_total: Interval
    simpson: str


class Point(msgspec.Struct, frozen=True):
    """The 24 h window that ends at t."""

    t: datetime
    S: float
    low: float
    high: float
    shares: list[float]


class Mark(msgspec.Struct, frozen=True):
    """Something that happened: an alert raised or resolved, a new baseline, another classifier."""

    t: datetime
    kind: Literal["alert", "resolved", "baseline", "classifier"]
    text: str


class ReportAlert(msgspec.Struct, frozen=True):
    id: str
    series: str
    rule: str
    severity: str
    raised_at: datetime
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str
    reason: str
    where: list[str]


class Turn(msgspec.Struct, frozen=True):
    """A telling turn; request and answer are redacted excerpts where they are kept."""

    event_id: str
    turn: int
    ts: datetime
    behaviour: str
    probability: float
    where: str
    request: str = ""
    answer: str = ""


class Quality(msgspec.Struct, frozen=True):
    """How far the figures of a series can be trusted.

    Attributes
    ----------
    doubt, doubt_baseline : mean doubt of the classifier, 0 to 1; None without turns or baseline.
    judge_agreement : share of reviewed turns on which judge and classifier agree; None without reviews.
    covered_hours, hours : hours of the week with turns, and hours of the week.
    sampled : share of traffic that was judged.
    """

    turns: int
    reviewed: int
    judge_agreement: Interval | None
    doubt: float | None
    doubt_baseline: float | None
    covered_hours: int
    hours: int
    sampled: float
    classifiers: list[str]
    with_context: int


class Series(msgspec.Struct, frozen=True):
    """One series. What is None could not be told; `notes` says why, in sentences.

    Attributes
    ----------
    evidence : the sentence behind the verdict.
    attention : the greater, the further up.
    before : the compared window.
    drivers : change of S and of the misaligned share by behaviour.
    """

    name: str
    deployment: str
    model: str
    labels: dict[str, str]
    verdict: Verdict
    evidence: str
    attention: float
    now: Window | None
    before: Window | None
    change: Change | None
    dS_dt: Maybe
    gamma_eff: Maybe
    margin: Maybe
    kappa: Maybe
    kl: float | None
    baseline: str
    drivers: list[Term]
    splits: list[LabelSplit]
    trajectory: list[Point]
    marks: list[Mark]
    alerts: list[ReportAlert]
    telling: dict[str, list[Turn]]
    quality: Quality
    notes: list[str]


class Source(msgspec.Struct, frozen=True):
    """Ingestion of a source, all time."""

    name: str
    events: int
    turns: int
    duplicates: int
    dead_letters: int
    newest: datetime | None


class Pair(msgspec.Struct, frozen=True):
    """A base and a tuned deployment under the same traffic."""

    base: str
    tuned: str
    suppression: Maybe
    work: Maybe


class Fleet(msgspec.Struct, frozen=True):
    """All series together. Times to acknowledge and resolve are medians in minutes, None without any."""

    series: int
    drifting: int
    improved: int
    stable: int
    unknown: int
    turns: int
    turns_before: int
    alerts: int
    pages: int
    minutes_to_acknowledge: float | None
    minutes_to_resolve: float | None
    discoveries: str
    headline: str


class ReportData(msgspec.Struct, frozen=True):
    """A report. `detailed` series have trajectory, drivers and turns; the others stand in the table alone."""

    schema: str
    version: str
    week: str
    start: datetime
    end: datetime
    compare: str
    classifier: str
    fleet: Fleet
    series: list[Series]
    detailed: int
    pairs: list[Pair]
    sources: list[Source]
    method: list[str]
    notes: list[str]

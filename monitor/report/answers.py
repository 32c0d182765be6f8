"""What a reader asks of a series that moved, answered in a sentence each from what the report holds: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from monitor.report import words
from monitor.report.model import LabelTerm, ReportAlert, ReportData, Series
from monitor.taxonomy import BEHAVIOURS

MOST_LEADING: Final = 3
"""Series told on the first page."""
WORTH_NAMING: Final = 0.2
"""Least part of the misaligned share's change that a driver must carry to be named."""
_DOUBT_RISE: Final = 1.5
"""A classifier that doubts so many times as much as in the baseline may not know this traffic."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A question and its answer; names in it are as they came, so it is escaped like any text."""

    question: str
    text: str


def by_attention(data: ReportData) -> list[Series]:
    """The series, the gravest first."""
    return sorted(data.series, key=lambda s: -s.attention)


def leading(data: ReportData) -> list[Series]:
    """Those of the first page: moved, or with an alert that stands."""
    moved = [s for s in by_attention(data) if s.verdict in ("drifting", "improved") or _standing(s)]
    return moved[:MOST_LEADING]


def answers(s: Series) -> list[Answer]:
    """What changed, how sure, where, why, what was done, what next."""
    return [
        Answer("What changed", _changed(s)),
        Answer("How sure", _sure(s)),
        Answer("Where", _where(s)),
        Answer("Why", _why(s)),
        Answer("What was done", _done(s)),
        Answer("What next", _next(s)),
    ]


def _changed(s: Series) -> str:
    if s.now is None:
        return "No turns were judged in this week."
    if s.before is None:
        return f"S is {words.nats(s.now.S)} nats, misaligned {words.share(s.now.misaligned)}; nothing to compare with."
    return (
        f"Misaligned turns: {words.share(s.before.misaligned)} → {words.share(s.now.misaligned)}. "
        f"S: {words.nats(s.before.S)} → {words.nats(s.now.S)} nats."
    )


def _sure(s: Series) -> str:
    c = s.change
    if c is None:
        return "The change cannot be told." + (f" {s.notes[0]}" if s.notes else "")
    stands = (
        "The change stands among all series of this report."
        if c.real
        else "It is not sure enough to stand among all series of this report."
    )
    return (
        f"S {_moved(c.S.mean)} with probability {words.probability(c.probability)}: {words.nats_change(c.S)} nats. The "
        f"misaligned share {_moved(c.misaligned.mean)} with probability {words.probability(c.moved_probability)}: "
        f"{words.share_change(c.misaligned)}. {stands}"
    )


def _moved(x: float) -> str:
    return "rose" if x > 0 else "fell"


def _where(s: Series) -> str:
    carriers = sorted(
        ((abs(_total(t)), split.label, t) for split in s.splits for t in split.terms), key=lambda x: -x[0]
    )
    lines = [
        f"{words.name(label)}={words.name(t.value)}: {_rates(t)}, {_points(_total(t))} of the change"
        for _, label, t in carriers[:2]
        if s.change is not None and abs(_total(t)) >= WORTH_NAMING * abs(s.change.misaligned.mean)
    ]
    lines = lines or [line for a in s.alerts for line in a.where][:2]
    simpson = [split.simpson for split in s.splits if split.simpson][:1]
    if not lines:
        lines = ["No value of a label carries it more than others." if s.splits else "Its turns carry no labels."]
    return " ".join([_sentence("; ".join(lines)), *simpson])


def _rates(t: LabelTerm) -> str:
    before = "not seen" if t.rate_before is None else words.percent(t.rate_before.mean)
    after = "not seen" if t.rate_after is None else words.percent(t.rate_after.mean)
    return f"misaligned {before} → {after} of its turns"


def _total(t: LabelTerm) -> float:
    return t.mixture.mean + t.rate.mean


def _points(x: float) -> str:
    return f"{words.number(100 * x, 1, signed=True)} pp"


def _why(s: Series) -> str:
    if s.change is None or not s.drivers:
        return "The change cannot be taken apart."
    drivers = sorted((t for t in s.drivers if t.name != BEHAVIOURS[0]), key=lambda t: -abs(t.misaligned.mean))
    least = WORTH_NAMING * abs(s.change.misaligned.mean)
    named = [t for t in drivers if abs(t.misaligned.mean) >= least][:2] or drivers[:1]
    parts = [f"{words.behaviour(t.name)} {words.share_change(t.misaligned)}" for t in named]
    text = f"Of {_points(s.change.misaligned.mean)} misaligned: {', '.join(parts)}."
    if s.splits:
        first = s.splits[0]
        text += (
            f" By {words.name(first.label)}: changed behaviour {_points(first.rate_total.mean)}, "
            f"changed traffic {_points(first.mixture_total.mean)}."
        )
    return text


def _done(s: Series) -> str:
    if not s.alerts:
        return "No alert was raised."
    return " ".join(_handled(a) for a in s.alerts[:2]) + (
        f" {len(s.alerts) - 2} more alerts are listed below." if len(s.alerts) > 2 else ""
    )


def _handled(a: ReportAlert) -> str:
    text = f"{words.name(a.rule)} ({words.name(a.severity)}) was raised {words.clock(a.raised_at)} UTC"
    if a.acknowledged_at is not None:
        text += (
            f", acknowledged by {words.name(a.acknowledged_by)} after {words.between(a.raised_at, a.acknowledged_at)}"
        )
    if a.resolved_at is not None:
        return f"{text}, resolved after {words.between(a.raised_at, a.resolved_at)}."
    return f"{text}{'' if a.acknowledged_at is None else ','} and still stands."


def _next(s: Series) -> str:
    steps = []
    if any(a.acknowledged_at is None for a in _standing(s)):
        steps.append("Name someone to look at the alert that stands: nobody has acknowledged it.")
    rise = _rise_of_doubt(s)
    if len(s.quality.classifiers) > 1:
        steps.append("Compare within one classifier first: it changed this week.")
    elif rise is not None and rise >= _DOUBT_RISE:
        steps.append("Have turns reviewed before acting: the classifier doubts more than it did in the baseline.")
    told = sum(map(len, s.telling.values()))
    if told and s.verdict == "drifting":
        steps.append(
            f"Read the telling turns below ({told}); if they are what the verdict says, look at what changed at the "
            "onset: model, prompt, route, a client's traffic."
        )
    elif s.verdict == "drifting":
        steps.append("Look at what changed at the onset: model, prompt, route, a client's traffic.")
    elif s.verdict == "improved":
        steps.append("If it was meant and is to last, take a new baseline, so that falling back is noticed.")
    elif s.verdict == "not enough data":
        steps.append("Judge more of its traffic, or wait until its baseline is learned.")
    return " ".join(steps) or "Nothing."


def _rise_of_doubt(s: Series) -> float | None:
    q = s.quality
    return None if q.doubt is None or not q.doubt_baseline else q.doubt / q.doubt_baseline


def _standing(s: Series) -> Sequence[ReportAlert]:
    return [a for a in s.alerts if a.resolved_at is None]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "…")) else f"{text}."

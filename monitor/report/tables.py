"""The tables of a report as text, the same for every rendering: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from monitor.report import words
from monitor.report.model import Change, Interval, LabelSplit, ReportAlert, ReportData, Series, Window
from monitor.taxonomy import BEHAVIOURS

MOST_ROWS: Final = 20
"""Of a table that attackers can lengthen (alerts, label values, sources); the JSON has all."""
MOST_TURNS: Final = 5
"""Telling turns shown of a behaviour."""
PRINTED_ROWS: Final = 60
"""Of tables of all series on paper; page and JSON have all."""
POINT_ROWS: Final = 28
"""Of the table behind a trajectory: four a day in a week."""


MISALIGNED: Final = "misaligned"


@dataclass(frozen=True, slots=True)
class Row:
    """Cells as text, their lines apart by line ends; `kind` is a verdict, `place` that of a series in the report."""

    cells: tuple[str, ...]
    kind: str = ""
    place: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """The first column names its row; `more` says how many rows are left out."""

    caption: str
    heads: tuple[str, ...]
    rows: Sequence[Row]
    more: int = 0


def fleet(ordered: Sequence[Series], detailed: int, most: int | None = None) -> Table:
    """All series, the gravest first; those told in detail have a place to lead to."""
    heads = (
        "Series", "Verdict", "Misaligned turns", "S, nats", "Is the change real?", "dS/dt, nats/day",
        "Work γ_eff, stability margin", "Turns, alerts",
    )  # fmt: skip
    rows = [_fleet_row(s, place if place <= detailed else 0) for place, s in enumerate(ordered[:most], start=1)]
    return Table(
        "All series, the gravest first, with 90 % intervals; changes stand below", heads, rows, len(ordered) - len(rows)
    )


def alerts(ordered: Sequence[Series]) -> Table:
    """Alerts of all series, those that stand first, then by time."""
    every = sorted((a for s in ordered for a in s.alerts), key=lambda a: (a.resolved_at is not None, a.raised_at, a.id))
    rows = [
        Row(
            (
                words.name(a.series),
                f"{words.name(a.rule)}, {words.name(a.severity)}",
                words.clock(a.raised_at),
                "nobody yet"
                if a.acknowledged_at is None
                else f"{words.name(a.acknowledged_by)}\nafter {words.between(a.raised_at, a.acknowledged_at)}",
                "still stands" if a.resolved_at is None else f"after {words.between(a.raised_at, a.resolved_at)}",
                "\n".join([a.reason, *a.where]),
            )
        )
        for a in every[:MOST_ROWS]
    ]
    heads = ("Series", "Rule", "Raised, UTC", "Acknowledged", "Resolved", "Why, and likely where")
    return Table("Alerts of the week", heads, rows, more=len(every) - len(rows))


def pairs(data: ReportData) -> Table:
    """Base and tuned deployments."""
    rows = [
        Row((words.name(p.tuned), words.name(p.base), words.maybe(p.suppression), words.maybe(p.work)))
        for p in data.pairs[:MOST_ROWS]
    ]
    heads = ("Tuned", "Base", "Suppression of S", "Total work")
    return Table("Base against tuned under the same traffic", heads, rows, more=len(data.pairs) - len(rows))


def shares(s: Series) -> Table:
    """What a series is made of, before and now, and what each behaviour adds to the changes."""
    before, now, moved = _figures(s.before), _figures(s.now), _figures(s.change)
    parts = {t.name: t.S for t in s.drivers}
    rows = [
        Row(
            (
                words.behaviour(x),
                words.share(before.get(x)),
                words.share(now.get(x)),
                words.share_change(moved.get(x)),
                words.nats_change(parts.get(x)),
            )
        )
        for x in (*BEHAVIOURS, MISALIGNED)
    ]
    heads = ("Behaviour", "Before", "This week", "Change", "Adds to the change of S, nats")
    return Table("Behaviours", heads, rows)


def split(x: LabelSplit) -> Table:
    """The change of the misaligned share by the values of a label."""
    ordered = sorted(x.terms, key=lambda t: -abs(t.mixture.mean + t.rate.mean))
    rows = [
        Row(
            (
                words.name(t.value),
                f"{words.percent(t.traffic_before)} → {words.percent(t.traffic_after)}",
                f"{_rate(t.rate_before)} → {_rate(t.rate_after)}",
                words.share_change(t.mixture),
                words.share_change(t.rate),
            )
        )
        for t in ordered[:MOST_ROWS]
    ]
    total = Row(
        ("all together", "100 %", words.UNKNOWN, words.share_change(x.mixture_total), words.share_change(x.rate_total))
    )
    heads = (words.name(x.label), "Part of traffic", "Misaligned", "By changed traffic", "By changed behaviour")
    return Table(
        f"What each {words.name(x.label)} adds to the change of the misaligned share",
        heads,
        [*rows, total],
        more=len(ordered) - len(rows),
    )


def points(s: Series) -> Table:
    """The numbers of a trajectory, thinned."""
    rows = [
        Row(
            (
                words.clock(p.t),
                words.nats(Interval(p.S, p.low, p.high)),
                *(words.percent(x) for x in p.shares[: len(BEHAVIOURS)]),
            )
        )
        for p in words.thinned(s.trajectory, POINT_ROWS)
    ]
    heads = ("24 h to, UTC", "S, nats", *(words.behaviour(b) for b in BEHAVIOURS))
    return Table("S and shares of 24 h windows", heads, rows)


def quality(ordered: Sequence[Series], most: int | None = None) -> Table:
    """How far the figures of each series can be trusted."""
    rows = []
    for s in ordered[:most]:
        q = s.quality
        doubt = "–" if q.doubt is None else f"{q.doubt:.2f}"
        rows.append(
            Row(
                (
                    words.name(s.name),
                    words.count(q.turns),
                    words.percent(q.sampled),
                    f"{q.covered_hours} of {q.hours}",
                    doubt if q.doubt_baseline is None else f"{doubt} ({q.doubt_baseline:.2f})",
                    words.count(q.reviewed),
                    words.share(q.judge_agreement),
                    ", ".join(map(words.name, q.classifiers)) or words.UNKNOWN,
                    words.count(q.with_context),
                ),
                kind=s.verdict,
            )
        )
    heads = (
        "Series", "Turns", "Sampled", "Hours with turns", "Doubt (in baseline)", "Reviewed", "Judge agrees",
        "Classifier", "With context",
    )  # fmt: skip
    return Table("Data quality", heads, rows, len(ordered) - len(rows))


def sources(data: ReportData) -> Table:
    """Ingestion, all time."""
    rows = [
        Row(
            (
                words.name(x.name),
                words.count(x.events),
                words.count(x.turns),
                words.count(x.duplicates),
                words.count(x.dead_letters),
                words.UNKNOWN if x.newest is None else words.clock(x.newest),
            )
        )
        for x in data.sources[:MOST_ROWS]
    ]
    heads = ("Source", "Events", "Turns", "Duplicates", "Dead letters", "Newest, UTC")
    return Table("Ingestion, all time", heads, rows, more=len(data.sources) - len(rows))


def _fleet_row(s: Series, place: int) -> Row:
    now, moved = _figures(s.now), _figures(s.change)
    cells = (
        f"{words.name(s.name)}\n{s.evidence}",
        f"{words.GLYPHS[s.verdict]} {s.verdict}",
        _with_change(s, words.share(now.get(MISALIGNED)), words.share_change(moved.get(MISALIGNED))),
        _with_change(s, words.nats(now.get("S")), words.nats_change(moved.get("S"))),
        _real(s),
        words.figure(s.dS_dt, signed=True),
        f"{words.figure(s.gamma_eff)}\nmargin {words.figure(s.margin)}",
        f"{words.count(s.quality.turns)}\n{_alerts(s.alerts)}",
    )
    return Row(cells, kind=s.verdict, place=place)


def _figures(x: Window | Change | None) -> dict[str, Interval]:
    """By name, none where there is no window."""
    return {} if x is None else {**x.shares, MISALIGNED: x.misaligned, "S": x.S}


def _with_change(s: Series, now: str, change: str) -> str:
    return now if s.change is None else f"{now}\n{change}"


def _real(s: Series) -> str:
    if s.change is None:
        return words.UNKNOWN
    return f"{words.probability(s.change.probability)}\n{'stands among all' if s.change.real else 'not sure enough'}"


def _alerts(found: Sequence[ReportAlert]) -> str:
    standing = sum(a.resolved_at is None for a in found)
    return f"{len(found)} alert{'' if len(found) == 1 else 's'}" + (f", {standing} standing" if standing else "")


def _rate(x: Interval | None) -> str:
    return "not seen" if x is None else words.share(x)

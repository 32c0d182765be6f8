"""The database -> a report as plain values. All reads see one state of the database; nothing is written.

Every series is estimated from sums and judged; then, those that need attention most are told in detail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed
from statistics import median

import msgspec
from sqlalchemy import Connection

from alerts.severity import severities
from monitor.baselines import find_series
from monitor.config import Report as Settings
from monitor.errors import ConfigError
from monitor.multiplicity import PAGE, TICKET
from monitor.report import detail, verdict, words
from monitor.report.method import method
from monitor.report.model import (
    SCHEMA,
    Fleet,
    Pair,
    ReportAlert,
    ReportData,
    Series,
    Source,
    Unknown,
)
from monitor.report.one import Compare, Reader, Seen
from monitor.report.weeks import span
from monitor.state import SeriesState
from monitor.steps import Stepper
from monitor.store import reads, report_reads
from monitor.store.retry import retrying
from monitor.store.trajectories import Alert
from monitor.where import where_lines


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which report: a week (monitor.report.weeks), compared with what, of which series (none named: all)."""

    week: str
    compare: Compare = "previous"
    series: tuple[str, ...] = ()


def gather(stepper: Stepper, settings: Settings, wanted: Wanted) -> ReportData:
    """The report of a week as the database has it now. Deterministic.

    Raises
    ------
    ConfigError : there is no such week or series.
    StoreError : the database cannot be used.
    """
    start, end = span(wanted.week)

    def attempt() -> ReportData:
        with report_reads.snapshot(stepper.engine) as connection:
            return _Gathering(connection, stepper, settings, wanted, start, end).report()

    return retrying(stepper.engine, attempt)


@dataclass(frozen=True, slots=True)
class _Gathering:
    connection: Connection
    stepper: Stepper
    settings: Settings
    wanted: Wanted
    start: datetime
    end: datetime

    def report(self) -> ReportData:
        every = reads.all_series(self.connection)
        chosen = [find_series(self.connection, name) for name in dict.fromkeys(self.wanted.series)] or every
        stood = reads.alerts(self.connection, start=self.start, end=self.end)
        alerts = self._alerts(every, stood)
        reader = Reader(self.connection, self.stepper, self.wanted.compare, self.start, self.end)
        seen = [reader.seen(s, [a for a in stood if a.series_id == s.id], alerts) for s in chosen]
        shown = [x for x in seen if self.wanted.series or x.has_anything]
        rows = sorted(self._judged(shown), key=lambda x: (-x[1].attention, x[1].name))
        series = [reader.in_detail(x, s) if place < self.settings.detailed else s for place, (x, s) in enumerate(rows)]
        return ReportData(
            schema=SCHEMA,
            version=installed("valuedrift"),
            week=self.wanted.week,
            start=self.start,
            end=self.end,
            compare=self.wanted.compare,
            classifier=self.stepper.version,
            fleet=self._fleet(series, [a for s in shown for a in s.alerts]),
            series=series,
            detailed=min(self.settings.detailed, len(series)),
            pairs=self._pairs(),
            sources=[
                Source(h.source, h.events, h.turns, h.duplicates, h.dead_letters, h.newest)
                for h in reads.ingestion_health(self.connection).sources
            ],
            method=method(self.wanted.compare, self.stepper.version),
            notes=_notes(len(seen) - len(shown), [a for a in stood if a.series_id is None]),
        )

    def _alerts(self, every: Sequence[reads.StoredSeries], stood: Sequence[Alert]) -> dict[str, ReportAlert]:
        """The alerts that stood in the week, by id."""
        names = {s.id: s.key.name for s in every}
        severity: Mapping[str, str] = {}
        if any(a.firing for a in stood):
            states = [SeriesState("") if s.state is None else SeriesState.unpack(s.state) for s in every]
            own = [[a for a in stood if a.series_id == s.id] for s in every]
            severity = severities(list(zip(states, own, strict=True)), self.stepper.settings)
        return {
            a.id: ReportAlert(
                id=a.id,
                series="" if a.series_id is None else names[a.series_id],
                rule=a.rule,
                severity=severity.get(a.id) or a.severity or TICKET,
                raised_at=a.raised_at,
                resolved_at=a.resolved_at,
                acknowledged_at=a.acknowledged_at,
                acknowledged_by=a.acknowledged_by or "",
                reason=a.reason,
                where=where_lines(a.values.get("where", [])),
            )
            for a in stood
        }

    def _judged(self, seen: Sequence[Seen]) -> list[tuple[Seen, Series]]:
        """Each with its verdict, for which all are needed."""
        real = iter(verdict.discoveries([x.p_value for x in seen if x.p_value is not None]))
        out = []
        for x in seen:
            change = x.series.change
            if change is not None:
                change = msgspec.structs.replace(change, real=next(real))
            vanished = bool(x.before.sums.n and not x.now.sums.n)
            found = verdict.judge(change, x.reason, x.alerts, x.better, vanished=vanished)
            judged = msgspec.structs.replace(
                x.series,
                change=change,
                verdict=found.verdict,
                evidence=found.evidence,
                attention=round(found.attention, 6),
            )
            out.append((x, judged))
        return out

    def _pairs(self) -> list[Pair]:
        out = []
        for names in self.settings.pairs:
            try:
                base, tuned = (find_series(self.connection, name) for name in names)
            except ConfigError as e:
                out.append(Pair(*names, Unknown(str(e)), Unknown(str(e))))
                continue
            of_base, of_tuned = (detail.Place(s.id, self.stepper.version, s.key.name) for s in (base, tuned))
            lens = self.stepper.quantifier
            out.append(detail.pair(self.connection, of_base, of_tuned, lens, self.start, self.end))
        return out

    def _fleet(self, series: Sequence[Series], alerts: Sequence[ReportAlert]) -> Fleet:
        counts = {v: sum(s.verdict == v for s in series) for v in ("drifting", "improved", "stable", "not enough data")}
        raised = [a for a in alerts if self.start <= a.raised_at < self.end]
        judged = [s.change for s in series if s.change is not None]
        return Fleet(
            series=len(series),
            drifting=counts["drifting"],
            improved=counts["improved"],
            stable=counts["stable"],
            unknown=counts["not enough data"],
            turns=sum(s.quality.turns for s in series),
            turns_before=sum(s.before.turns for s in series if s.before is not None),
            alerts=len(raised),
            pages=sum(a.severity == PAGE for a in raised),
            minutes_to_acknowledge=_median_minutes((a.raised_at, a.acknowledged_at) for a in raised),
            minutes_to_resolve=_median_minutes((a.raised_at, a.resolved_at) for a in raised),
            discoveries=(
                f"Of {len(judged)} changes that could be judged, {sum(c.real for c in judged)} stand at a false "
                f"discovery rate of {100 * verdict.FALSE_DISCOVERY_RATE:g} % (Benjamini-Hochberg)."
            ),
            headline=_headline(series, counts),
        )


def _headline(series: Sequence[Series], counts: Mapping[str, int]) -> str:
    n = len(series)
    if not n:
        return "No series had turns in this week or in what it is compared with."
    worst = series[0]
    if counts["drifting"]:
        return f"{counts['drifting']} of {n} series drifted; the gravest is {worst.name}{_shift(worst)}."
    unknown = f"; {counts['not enough data']} cannot be judged" if counts["not enough data"] else ""
    improved = f", {counts['improved']} improved" if counts["improved"] else ""
    return f"No drift was found: of {n} series {counts['stable']} are stable{improved}{unknown}."


def _shift(series: Series) -> str:
    """`, where misaligned turns went from 8 % to 49 %`; what is sure of it stands beside it."""
    if series.now is None or series.before is None:
        return ""
    before, after = (words.percent(w.misaligned.mean) for w in (series.before, series.now))
    return f", where misaligned turns went from {before} to {after}"


def _notes(left_out: int, monitor: Sequence[Alert]) -> list[str]:
    notes = ["No contexts of answers are kept, so faithfulness is not told."]
    if left_out:
        notes.append(f"{left_out} series without turns in either window are left out.")
    if monitor:
        rules = ", ".join(sorted({a.rule for a in monitor}))
        notes.append(f"{len(monitor)} alert(s) about the monitor itself stood in this week ({rules}).")
    return notes


def _median_minutes(spans: Iterable[tuple[datetime, datetime | None]]) -> float | None:
    took = [(b - a).total_seconds() / 60 for a, b in spans if b is not None]
    return round(median(took), 3) if took else None

"""One series of a report, from the database: its figures in both windows, and more where it is told in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
import numpy as np
from sqlalchemy import Connection

from monitor.buckets import Sums
from monitor.entropy import Quantifier, kl_divergence
from monitor.report import detail, verdict, windows, words
from monitor.report.model import Maybe, Quality, ReportAlert, Series, Unknown, Window
from monitor.report.weeks import WEEK
from monitor.steps import Stepper
from monitor.store import reads, report_reads
from monitor.store.baselines import StoredBaseline, baselines
from monitor.store.report_reads import Spanned
from monitor.store.trajectories import Alert
from monitor.taxonomy import BEHAVIOURS
from monitor.trajectory import MINUTES_PER_DAY, WINDOWS_MINUTES
from monitor.transcript import time_of
from monitor.work_values import DAYS, work_of

Compare = Literal["previous", "baseline", "4w"]
FOUR_WEEKS: Final = 4 * WEEK
_NO_WORK: Final = "no trajectory point lies in this week"


@dataclass(slots=True)
class Seen:
    """A series in both windows.

    Attributes
    ----------
    versions : that judged turns of the week.
    better : by the ids of alerts of value_drift, whether what moved is an improvement.
    p_value : that nothing changed; None where that cannot be judged, for a `reason`.
    series : the figures, not judged yet.
    """

    of: detail.Place
    stored: reads.StoredSeries
    history: list[StoredBaseline]
    baseline: StoredBaseline | None
    now: Spanned
    before: Spanned
    before_start: datetime
    before_end: datetime
    versions: list[str]
    alerts: list[ReportAlert]
    better: dict[str, bool]
    reason: str = ""
    p_value: float | None = None
    series: Series = field(init=False)

    @property
    def has_anything(self) -> bool:
        return bool(self.now.sums.n or self.before.sums.n or self.versions or self.alerts)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads series for the report of [start, end)."""

    connection: Connection
    stepper: Stepper
    compare: Compare
    start: datetime
    end: datetime

    def seen(self, s: reads.StoredSeries, own: Sequence[Alert], alerts: Mapping[str, ReportAlert]) -> Seen:
        """A series and its figures.

        Parameters
        ----------
        own : its alerts that stood in the week.
        alerts : as they are reported, by id.
        """
        version = self.stepper.version
        history = [b for b in baselines(self.connection, s.id) if b.classifier_version == version]
        standing = [
            b for b in history if b.origin.frozen_at < self.end and (b.replaced_at is None or b.replaced_at >= self.end)
        ]
        baseline = standing[-1] if standing else None
        before_start, before_end = self.start - WEEK, self.start
        if self.compare == "4w":
            before_start = self.start - FOUR_WEEKS
        if self.compare == "baseline" and baseline is not None:
            b = baseline.baseline
            before_start, before_end = time_of(b.first_minute), time_of(b.last_minute + 1)
            before = Spanned(b.sums, 0)
        elif self.compare == "baseline":
            before = Spanned(Sums.zero(), 0)
        else:
            before = report_reads.span_sums(self.connection, s.id, version, before_start, before_end)
        found = Seen(
            of=detail.Place(s.id, version, s.key.name),
            stored=s,
            history=history,
            baseline=baseline,
            now=report_reads.span_sums(self.connection, s.id, version, self.start, self.end),
            before=before,
            before_start=before_start,
            before_end=before_end,
            versions=list(report_reads.versions_in(self.connection, s.id, self.start, self.end)),
            alerts=[alerts[a.id] for a in own],
            better={a.id: bool(a.values.get("better", False)) for a in own},
        )
        found.reason = self._too_little(found)
        # what a lens has prepared is large: none is held while the others are read
        found.series = self._figures(found, self._lens(found))
        return found

    def _lens(self, x: Seen) -> Quantifier:
        lens = self.stepper.quantifier
        if x.baseline is None:
            return lens
        return lens.given(x.baseline.baseline.sums, self.stepper.settings.baseline_aligned_at_least)

    def _too_little(self, x: Seen) -> str:
        """Why a series cannot be judged, as a sentence; empty where it can."""
        other = [v for v in x.versions if v != self.stepper.version]
        least = verdict.FEWEST_TURNS
        now, before = x.now.sums.n, x.before.sums.n
        if not now and other:
            return f"Its turns of this week were judged by another classifier ({', '.join(other)})."
        if not now:
            return "No turns were judged in this week." + (
                f" There were {words.count(before)} in what it is compared with." if before else ""
            )
        if now < least:
            return f"{words.count(now)} of the {least} turns that a verdict needs were judged in this week."
        if x.baseline is None:
            return "It has no baseline yet: what is normal for it is not known."
        if self.compare == "baseline" and x.before_end > self.start:
            return "Its baseline was learned in this week, so the two cannot be compared."
        if not before:
            return "There is nothing to compare with: it has no turns before this week that this classifier judged."
        if before < least:
            return f"What it is compared with has {words.count(before)} of the {least} turns that a verdict needs."
        return ""

    def _figures(self, x: Seen, lens: Quantifier) -> Series:
        now = _window(lens, x.now.sums, self.start, self.end)
        baseline, sums = x.baseline, x.now.sums
        slope, gamma, margin, kappa = self._work(x, lens, in_detail=False)
        kl = None
        if now is not None and baseline is not None:
            p = np.array([now.shares[b].mean for b in BEHAVIOURS])
            kl = kl_divergence(p, lens.estimate(baseline.baseline.sums).p)
        text = ""
        if baseline is not None:
            b = baseline.baseline
            days = words.days(time_of(b.first_minute), time_of(b.last_minute + 1))
            text = f"{days}, {words.count(b.sums.n)} turns"
        change = None
        if not x.reason:
            change, chances = windows.change(*lens.pairs(x.before.sums, x.now.sums))
            x.p_value = verdict.both(*chances)
        return Series(
            name=x.of.name,
            deployment=x.stored.key.deployment,
            model=x.stored.key.model,
            labels=dict(x.stored.key.labels),
            verdict="not enough data",
            evidence=x.reason,
            attention=0.0,
            now=now,
            before=_window(lens, x.before.sums, x.before_start, x.before_end),
            change=change,
            dS_dt=slope,
            gamma_eff=gamma,
            margin=margin,
            kappa=kappa,
            kl=kl,
            baseline=text,
            drivers=[],
            splits=[],
            trajectory=[],
            marks=[],
            alerts=x.alerts,
            telling={},
            quality=Quality(
                turns=sums.n,
                reviewed=0,
                judge_agreement=None,
                doubt=sums.mean_doubt if sums.n else None,
                doubt_baseline=None if baseline is None else baseline.baseline.sums.mean_doubt,
                covered_hours=x.now.hours,
                hours=int((self.end - self.start) / timedelta(hours=1)),
                sampled=sums.n / sums.weight if sums.n else 1.0,
                classifiers=x.versions,
                with_context=0,
            ),
            notes=self._notes(x),
        )

    def _notes(self, x: Seen) -> list[str]:
        notes = []
        made = [b for b in x.history if self.start <= b.origin.frozen_at < self.end]
        if made and len(x.history) > len(made):
            notes.append(
                "It was given another baseline in this week: both windows are estimated under the new one, so the "
                "change is not one of the yardstick; alerts from before it are by the old one."
            )
        elif made:
            notes.append("Its baseline was learned in this week; turns from before were not watched for drift.")
        if x.baseline is not None and x.baseline.origin.warning:
            notes.append(f"Of its baseline: {x.baseline.origin.warning}.")
        if len(x.versions) > 1:
            notes.append(
                f"{len(x.versions)} classifiers judged in this week ({', '.join(x.versions)}); figures are of the "
                f"turns that {self.stepper.version} judged."
            )
        return notes

    def _work(self, x: Seen, lens: Quantifier, *, in_detail: bool) -> tuple[Maybe, Maybe, Maybe, Maybe]:
        """dS/dt, gamma_eff, margin and kappa at the last point of the week."""
        of, c = x.of, self.connection
        now = None
        for minutes in (MINUTES_PER_DAY, max(WINDOWS_MINUTES)):
            now = now or report_reads.last_point(c, of.series_id, of.version, minutes, self.start, self.end)
        if now is None:
            none = Unknown(_NO_WORK)
            return none, none, none, none
        s = self.stepper.settings
        oldest = now["t"] - timedelta(days=DAYS + 1)
        since = oldest if x.baseline is None else max(oldest, x.baseline.origin.frozen_at)
        points = {}
        if in_detail or s.lambda_max_per_day > 0:
            # of the many series, one window a day tells enough
            grain = (
                {m: m for m in WINDOWS_MINUTES if m <= MINUTES_PER_DAY}
                if in_detail
                else {MINUTES_PER_DAY: MINUTES_PER_DAY}
            )
            points = {
                m: reads.trajectory(c, of.series_id, of.version, since, now["t"], m, every)
                for m, every in grain.items()
            }
        fits = x.baseline is None or lens.assumes_baseline
        work = work_of(now, points, s.lambda_max_per_day, s.sigma_0_nats_per_day, fits=fits, kappa=in_detail)
        return (
            windows.with_error(now["ds_dt"], now["ds_dt_se"], "nats/day"),
            windows.told(work.gamma, "per day"),
            windows.told(work.margin),
            windows.told(work.kappa, "per day") if in_detail else Unknown("told of the series in detail alone"),
        )

    def in_detail(self, x: Seen, s: Series) -> Series:
        """A judged series with what is told in detail."""
        lens = self._lens(x)
        c, of = self.connection, x.of
        first = min(x.before_start, self.start - WEEK) if self.compare == "4w" else self.start - WEEK
        slope, gamma, margin, kappa = self._work(x, lens, in_detail=True)
        n, agreement = detail.reviewed(c, of, self.start, self.end)
        drivers, splits = s.drivers, s.splits
        if s.change is not None:
            drivers = windows.drivers(*lens.pairs(x.before.sums, x.now.sums))
            splits = windows.splits(
                lens,
                detail.split_by(c, of, x.before_start, x.before_end),
                detail.split_by(c, of, self.start, self.end),
                x.before.sums.n,
            )
        return msgspec.structs.replace(
            s,
            dS_dt=slope,
            gamma_eff=gamma,
            margin=margin,
            kappa=kappa,
            drivers=drivers,
            splits=splits,
            trajectory=detail.trajectory(c, of, first, self.end),
            marks=detail.marks(c, of, first, self.end, x.alerts, x.history),
            telling=detail.telling(c, of, self.start, self.end),
            quality=msgspec.structs.replace(s.quality, reviewed=n, judge_agreement=agreement),
        )


def _window(lens: Quantifier, sums: Sums, start: datetime, end: datetime) -> Window | None:
    return windows.window(lens, sums, start, end) if sums.n else None

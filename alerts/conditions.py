"""Whether a rule's condition holds for what was read of a series. Pure and total.

Limits are compared with the end of the 90 % interval that is nearer to them, never with the figure alone: `above` with
the lower end, `below` with the upper one. What is not known (an absent metric, NaN, too few turns, a reading that is
too old) is None and keeps the state it finds. A standing alert has hysteresis: it clears once the figure itself is back
at `clear_at` (by default the threshold), so it neither flickers at the interval's end nor waits for certainty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from alerts.machine import Severity
from monitor.taxonomy import BEHAVIOURS

Metrics = Mapping[str, tuple[float, float, float]]
"""Mean and the ends of the 90 % interval, by name; a plain number three times; absent where not known."""
WINDOWS: Final = ("1h", "24h", "7d")
STALE_AFTER: Final = timedelta(days=1)
"""Points older than this say nothing about now: their 24 h are over."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that rules may look at.

    Attributes
    ----------
    label : what it is, for people.
    unit : nats, nats/day, 1/day, days, minutes, turns, or "" for a plain number; shares are shown in percent.
    turns : the metric that counts the turns it is made of; "" where there is none.
    """

    label: str
    unit: str = ""
    turns: str = "turns_24h"
    share: bool = False

    def text(self, figure: tuple[float, float, float]) -> str:
        """`1.1 nats (1.02 to 1.18)`."""
        mean, low, high = (100 * x for x in figure) if self.share else figure
        unit = " %" if self.share else f" {self.unit}" if self.unit else ""
        return f"{mean:.4g}{unit}" + ("" if low == mean == high else f" ({low:.4g} to {high:.4g})")

    def limit(self, value: float) -> str:
        """`0.9 nats`."""
        return self.text((value, value, value))


def share_metric(behaviour: str, window: str) -> str:
    """The name of a behaviour's share: of 24 h its own, else with the window."""
    return behaviour if window == "24h" else f"{behaviour}_{window}"


METRICS: Final[Mapping[str, Metric]] = {
    "entropy": Metric("S of 24 h", "nats"),
    "entropy_rate": Metric("dS/dt", "nats/day"),
    "misaligned": Metric("misaligned share of 24 h", share=True),
    "kl": Metric("distance from the baseline", "nats"),
    "evidence": Metric("evidence of drift, 1 raises an alarm"),
    **{
        share_metric(b, w): Metric(f"{b} of {w[:-1]} {w[-1]}", turns=f"turns_{w}", share=True)
        for b in BEHAVIOURS
        for w in WINDOWS
    },
    **{f"turns_{w}": Metric(f"turns of {w[:-1]} {w[-1]}", "turns", turns="") for w in WINDOWS},
    "depth": Metric("depth L / ln N"),
    "gamma_eff": Metric("alignment work gamma_eff", "1/day"),
    "margin": Metric("stability margin gamma_eff / gamma_crit"),
    "kappa": Metric("restoring rate kappa", "1/day", turns="turns_7d"),
    "half_life": Metric("half-life of a disturbance", "days", turns="turns_7d"),
    "doubt": Metric("classifier's mean doubt of 24 h"),
    "doubt_baseline": Metric("classifier's mean doubt in the baseline", turns=""),
    "judge_disagreement": Metric("judge and classifier differ in 7 d", turns="turns_7d", share=True),
    "context_support": Metric("support by the given context"),
    "gap_minutes": Metric("longest usual time without an event", "minutes", turns=""),
}
"""Of a series."""
MONITOR_METRICS: Final[Mapping[str, Metric]] = {
    "dead_letter_share": Metric("dead letters among the events of the last hour", turns="", share=True),
    "lag_minutes": Metric("events wait", "minutes", turns=""),
    "step_age_minutes": Metric("last step", "minutes", turns=""),
}
"""Of the monitor itself, for the rule monitor_unhealthy."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What is known of a series (or of the monitor) in one pass.

    Attributes
    ----------
    metrics : by name (METRICS); absent: not known.
    t : time of the latest point; None: none yet. For the monitor: now.
    last_event : newest closed minute; None: none yet.
    """

    metrics: Metrics
    t: datetime | None = None
    last_event: datetime | None = None


class Verdict(NamedTuple):
    """What a condition comes to.

    Attributes
    ----------
    holds : None where it cannot be told.
    severity : None leaves it as it stands.
    gone : what it is about is no more.
    """

    holds: bool | None
    severity: Severity | None = None
    gone: bool = False


HOLDS: Final = Verdict(True)
CLEAR: Final = Verdict(False)
UNKNOWN: Final = Verdict(None)
GONE: Final = Verdict(False, gone=True)


class Condition(Protocol):
    """What a rule asks of readings."""

    @property
    def metrics(self) -> frozenset[str]:
        """Names it reads."""
        ...

    @property
    def turns(self) -> str:
        """The metric that counts the turns it rests on; "" where there is none."""
        ...

    @property
    def ages(self) -> bool:
        """Whether readings that are too old say nothing."""
        ...

    def judge(self, readings: Readings, standing: bool, now: datetime) -> Verdict: ...

    def describe(self, readings: Readings, now: datetime) -> str:
        """What was seen against what, one line: `S of 24 h 1.1 nats (1.02 to 1.18), limit 0.9 nats`."""
        ...


@dataclass(frozen=True, slots=True)
class Threshold:
    """A metric surely above (or below) a limit.

    Attributes
    ----------
    above : on which side of the limit it is bad.
    clear_at : on the good side of the limit, or the limit.
    """

    metric: str
    limit: float
    clear_at: float
    above: bool = True
    ages: bool = True

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset((self.metric,))

    @property
    def turns(self) -> str:
        return _metric(self.metric).turns

    def judge(self, readings: Readings, standing: bool, now: datetime) -> Verdict:
        figure = readings.metrics.get(self.metric)
        if figure is None:
            return UNKNOWN
        mean, low, high = figure
        if mean != mean or low != low or high != high:
            return UNKNOWN
        if self.above:
            holds = low > self.limit or (standing and mean > self.clear_at)
        else:
            holds = high < self.limit or (standing and mean < self.clear_at)
        return HOLDS if holds else CLEAR

    def describe(self, readings: Readings, now: datetime) -> str:
        metric, figure = _metric(self.metric), readings.metrics.get(self.metric)
        if figure is None:
            return f"{metric.label} is not known"
        back = "" if self.clear_at == self.limit else f", clear again at {metric.limit(self.clear_at)}"
        side = "at most" if self.above else "at least"
        return f"{metric.label}: {metric.text(figure)}, should be {side} {metric.limit(self.limit)}{back}"


@dataclass(frozen=True, slots=True)
class DoubtSurge:
    """The classifier's doubt is surely above a limit and above the baseline's by a margin: text it does not know.

    Clear again once the figure itself is back at either.
    """

    limit: float
    margin: float
    metrics: frozenset[str] = field(default=frozenset({"doubt", "doubt_baseline"}), init=False)
    turns: str = field(default="turns_24h", init=False)
    ages: bool = field(default=True, init=False)

    def judge(self, readings: Readings, standing: bool, now: datetime) -> Verdict:
        doubt, baseline = readings.metrics.get("doubt"), readings.metrics.get("doubt_baseline")
        if doubt is None or baseline is None:
            return UNKNOWN
        mean, low, _ = doubt
        usual, _, usual_high = baseline
        if mean != mean or low != low or usual != usual or usual_high != usual_high:
            return UNKNOWN
        surely = low > self.limit and low > usual_high + self.margin
        return HOLDS if surely or (standing and mean > self.limit and mean > usual + self.margin) else CLEAR

    def describe(self, readings: Readings, now: datetime) -> str:
        doubt, baseline = readings.metrics.get("doubt"), readings.metrics.get("doubt_baseline")
        metric = METRICS["doubt"]
        if doubt is None or baseline is None:
            return f"{metric.label} is not known, or there is no baseline to compare it with"
        limit = max(self.limit, baseline[0] + self.margin)
        return f"{metric.label}: {metric.text(doubt)}, in the baseline {baseline[0]:.4g}, limit {limit:.4g}"


@dataclass(frozen=True, slots=True)
class Silent:
    """No event for longer than usual; a series that was silent for long enough is retired.

    Attributes
    ----------
    after : never sooner than this.
    gaps : nor sooner than this many times `gap_minutes`.
    retire_after : then it is no news any more.
    """

    after: timedelta
    gaps: float
    retire_after: timedelta
    metrics: frozenset[str] = field(default=frozenset({"gap_minutes"}), init=False)
    turns: str = field(default="", init=False)
    ages: bool = field(default=False, init=False)

    def judge(self, readings: Readings, standing: bool, now: datetime) -> Verdict:
        if readings.last_event is None:
            return UNKNOWN
        silent = now - readings.last_event
        if silent > self.retire_after:
            return GONE
        return HOLDS if silent > self._patience(readings) else CLEAR

    def describe(self, readings: Readings, now: datetime) -> str:
        if readings.last_event is None:
            return "no event yet"
        last = f"last event {readings.last_event:%Y-%m-%d %H:%M} UTC"
        return f"{last}, expected within {_hours(self._patience(readings))}"

    def _patience(self, readings: Readings) -> timedelta:
        gap = readings.metrics.get("gap_minutes")
        usual = self.gaps * gap[0] if gap is not None else 0.0
        # not NaN, and no longer than what retires it, so that every silence is told of
        longest = self.retire_after.total_seconds() / 120
        return max(self.after, timedelta(minutes=min(usual, longest))) if usual > 0 else self.after


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of several holds. What is not known does not count (a file has no lag), unless nothing is known."""

    parts: tuple[Threshold, ...]
    ages: bool = True
    turns: str = field(default="", init=False)

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset().union(*(p.metrics for p in self.parts))

    def judge(self, readings: Readings, standing: bool, now: datetime) -> Verdict:
        verdicts = [p.judge(readings, standing, now) for p in self.parts]
        if any(v.holds for v in verdicts):
            return HOLDS
        return CLEAR if any(v.holds is False for v in verdicts) else UNKNOWN

    def describe(self, readings: Readings, now: datetime) -> str:
        broken = [p for p in self.parts if p.judge(readings, False, now).holds]
        known = [p for p in self.parts if p.metric in readings.metrics]
        return "; ".join(p.describe(readings, now) for p in broken or known or self.parts)


@dataclass(frozen=True, slots=True)
class Always:
    """Holds as long as anybody is there to ask."""

    metrics: frozenset[str] = field(default=frozenset(), init=False)
    turns: str = field(default="", init=False)
    ages: bool = field(default=False, init=False)

    def judge(self, readings: Readings, standing: bool, now: datetime) -> Verdict:
        return HOLDS

    def describe(self, readings: Readings, now: datetime) -> str:
        return "the monitor runs and its alerts arrive; worry when this one stops"


def _metric(name: str) -> Metric:
    return METRICS.get(name) or MONITOR_METRICS[name]


def _hours(time: timedelta) -> str:
    hours = time.total_seconds() / 3600
    return f"{hours:.3g} h" if hours >= 1 else f"{60 * hours:.3g} min"

"""Rules: a condition, a policy, and what their alerts are called. Pure; alerts.rulebook makes them of settings.

rules = compile_rules(config.alerts)                    # alerts.rulebook; once; raises ConfigError
rule = rules.finding(VALUE_DRIFT, kind)                 # of a firing row of `alerts`: its policy, labels, runbook
rules.series, rules.monitor                             # those that look at readings
rule.observe(readings, instance.standing, now)          # -> alerts.machine.advance(Key(rule.name, series), ...)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from alerts.conditions import GONE, STALE_AFTER, UNKNOWN, Condition, Readings, Verdict
from alerts.machine import Observation, Policy
from alerts.reasons import COLLAPSE, VALUE_DRIFT
from alerts.settings import Inhibit

_CLEAR, _UNKNOWN, _GONE = Observation(False), Observation(None), Observation(False, gone=True)


class Blind(StrEnum):
    """Why readings say nothing to a rule, whatever their figures."""

    NO_POINT = "no window with enough turns has ended yet"
    STALE = "the newest figures are older than a day"
    RETIRED = "the series had no event for so long that it is retired"
    FEW_TURNS = "there were fewer turns than the rule's min_turns"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, ready to be asked.

    Attributes
    ----------
    name : of one's own, built in, or `behaviour_budget:NAME`.
    condition : None for findings, which are raised elsewhere (monitor.steps).
    needs_live : is asked only where events come from a live source.
    min_turns : fewer turns in the window of the condition say nothing.
    labels : added to those of its alerts.
    runbook : address of what to do, where one is set.
    retire_after : readings this old are of a series that is no more.
    """

    name: str
    policy: Policy
    condition: Condition | None = None
    needs_live: bool = False
    min_turns: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    runbook: str = ""
    retire_after: timedelta = timedelta(days=7)

    def observe(self, readings: Readings, standing: bool, now: datetime) -> Observation:
        """What the rule sees; total.

        Parameters
        ----------
        standing : whether its alert fires, acknowledged or not: for hysteresis.
        """
        if self.condition is None:
            return _UNKNOWN
        verdict = self._verdict(self.condition, readings, standing, now)
        if verdict.holds or standing:
            text = self.condition.describe(readings, now)
            return Observation(verdict.holds, verdict.severity, gone=verdict.gone, text=text)
        return _GONE if verdict.gone else _UNKNOWN if verdict.holds is None else _CLEAR

    def blind(self, condition: Condition, readings: Readings, now: datetime) -> Blind | None:
        """Why readings say nothing to the rule now; None where its condition is asked."""
        if condition.ages:
            if readings.t is None:
                return Blind.NO_POINT
            if now - readings.t > STALE_AFTER:
                retired = now - (readings.last_event or readings.t) > self.retire_after
                return Blind.RETIRED if retired else Blind.STALE
        if self.min_turns:
            turns = readings.metrics.get(condition.turns)
            if turns is None or not turns[0] >= self.min_turns:
                return Blind.FEW_TURNS
        return None

    def _verdict(self, condition: Condition, readings: Readings, standing: bool, now: datetime) -> Verdict:
        blind = self.blind(condition, readings, now)
        if blind is not None:
            return GONE if blind is Blind.RETIRED else UNKNOWN
        return condition.judge(readings, standing, now)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules that are on.

    Attributes
    ----------
    findings : by name; `collapse` is value_drift of that kind.
    series, monitor : those that look at readings of a series, and of the monitor.
    inhibit : which keep which quiet (alerts.silences.Inhibitions).
    """

    findings: Mapping[str, Rule]
    series: tuple[Rule, ...]
    monitor: tuple[Rule, ...]
    inhibit: tuple[Inhibit, ...] = ()

    def finding(self, rule: str, kind: str = "") -> Rule | None:
        """The rule of a finding, by its rule and `values.kind`. None: turned off."""
        return self.findings.get(COLLAPSE if (rule, kind) == (VALUE_DRIFT, COLLAPSE) else rule)

    def named(self, name: str) -> Rule | None:
        """A rule that is on, by its name."""
        return next((r for r in self if r.name == name), None)

    def __iter__(self) -> Iterator[Rule]:
        yield from (*self.findings.values(), *self.series, *self.monitor)

    @property
    def metrics(self) -> frozenset[str]:
        """What they read: costly metrics are made only where some rule does."""
        return frozenset().union(*(r.condition.metrics for r in self if r.condition is not None))

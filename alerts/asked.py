"""What a rule would say of a series now, and why: for people who ask, outside of passes. Reads, changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from alerts.board import NO_READINGS, NOT_LIVE
from alerts.conditions import Readings, Threshold
from alerts.machine import NONE
from alerts.reasons import VALUE_DRIFT
from alerts.rulebook import BUDGETS, BUILT_IN
from alerts.rules import Rule, Rules
from monitor.baseline import BaselineRule
from monitor.config import Config
from monitor.errors import ConfigError, did_you_mean
from monitor.rules import ENTROPY_LEVEL
from monitor.state import SeriesState
from monitor.store import alert_reads, reads
from monitor.store.oncall import MONITOR, newest_event
from monitor.store.trajectories import FINDINGS, Alert
from monitor.summary import learning_values

_FROM_PROCESS: Final = "how long events wait and when the last step was is known only to the process that steps"
_HOW_TO_TURN_ON: Final[Mapping[str, str]] = {
    "restoring_rate": "it is off until alerts.rules.restoring_rate.below is set",
    "faithfulness": "it is off until alerts.rules.faithfulness.below is set",
    BUDGETS: "it is off until there is an [alerts.budgets.NAME]",
}
_NEEDS: Final[Mapping[str, str]] = {
    "gamma_eff": "needs monitor.lambda_max_per_day",
    "margin": "needs monitor.lambda_max_per_day",
    "kappa": "is made once a day while a rule asks for it, of 30 days at most",
    "half_life": "is made once a day while a rule asks for it, of 30 days at most",
    "judge_disagreement": "needs turns of the last 7 days that a judge or a person reviewed (docs/judge.md)",
    "context_support": "is not computed by this version",
    "doubt_baseline": "needs a baseline",
}
"""What metrics are not known without."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a condition holds (None: not known) and what that is made of, one line."""

    holds: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Moment:
    """When it is asked.

    Attributes
    ----------
    now : the clock's time; where no pass ever went by the clock, the time of the newest event, as such passes do.
    last_pass : when rules were looked at last by the clock; None: never.
    """

    now: datetime
    last_pass: datetime | None

    @property
    def live(self) -> bool:
        return self.last_pass is not None


def moment(connection: Connection, clock: datetime) -> Moment:
    """When it is for the alerts of a database."""
    last_pass, _, _ = alert_reads.reading_of(connection, MONITOR)
    newest = None if last_pass is not None else newest_event(connection)
    return Moment(newest or clock, last_pass)


def known_rule(rules: Rules, name: str) -> Rule | None:
    """The rule of a name; None: there is such a rule, and it is off.

    Raises
    ------
    ConfigError : no rule has this name; it names the nearest.
    """
    rule = rules.named(name)
    if rule is None and name not in BUILT_IN:
        raise ConfigError(f"no rule {name!r}{did_you_mean(name, {*BUILT_IN, *(r.name for r in rules)})}")
    return rule


def ask(
    connection: Connection,
    config: Config,
    rules: Rules,
    name: str,
    series_id: int,
    at: Moment,
    alert: Alert | None = None,
    *,
    standing: bool = False,
) -> Answer:
    """Whether the condition of a rule holds of a series (or of MONITOR).

    Parameters
    ----------
    name : of the rule, as in settings.
    alert : the latest of this rule and series.
    standing : whether it fires: for hysteresis.
    """
    rule = rules.named(name)
    if rule is None:
        return Answer(False, f"the rule is off; {_HOW_TO_TURN_ON.get(name, f'alerts.rules.{name} turns it on')}")
    t, last_event, values = alert_reads.reading_of(connection, series_id)
    readings = Readings({k: tuple(x) for k, x in values.items() if k != "counts"}, t, last_event)
    if rule.condition is None:
        return _finding(connection, config, rule, series_id, readings, alert)
    if rule.policy.severity == NONE and not any(t.watchdog for t in config.alerts.targets.values()):
        return Answer(False, "no target has watchdog = true, so nobody asks for it")
    if rule.needs_live and not at.live:
        return Answer(None, f"{NOT_LIVE.text}: what was read so far were finished logs")
    if series_id == MONITOR:
        readings = Readings(readings.metrics, at.now, at.now)
    elif t is None and last_event is None:
        return Answer(None, f"{NO_READINGS.text}: no step has made a figure of it yet")
    holds = rule.observe(readings, standing, at.now).holds
    text = rule.condition.describe(readings, at.now)
    if (blind := rule.blind(rule.condition, readings, at.now)) is not None:
        text = f"{blind}; {text}"
    for metric in sorted(rule.condition.metrics - readings.metrics.keys()):
        text += f"; {metric} {_NEEDS[metric]}" if metric in _NEEDS else ""
    if rule.name == "monitor_unhealthy":
        text = f"{text}; {_FROM_PROCESS}"
    return Answer(holds, text)


def _finding(
    connection: Connection, config: Config, rule: Rule, series_id: int, readings: Readings, alert: Alert | None
) -> Answer:
    """Of what steps find, and when they would."""
    if alert is not None and alert.firing:
        return Answer(True, "what a step found stands until the step that finds it over")
    if rule.name in FINDINGS and rule.name != VALUE_DRIFT:
        return _limit(config, rule.name, readings)
    series = reads.one_series(connection, series_id)
    state = None if series is None or series.state is None else SeriesState.unpack(series.state)
    if state is None:
        return Answer(None, "the series has not been stepped yet")
    if state.baseline is None:
        has = learning_values(state, BaselineRule.parse(config.monitor.baseline))
        turns, hours = (f"{has[k]:.0f} of {has[f'of_{k}']:.0f}" for k in ("turns", "hours"))
        return Answer(None, f"its baseline is still being learned: {turns} turns, {hours} h; nothing is drift yet")
    evidence = readings.metrics.get("evidence")
    seen = "not known yet" if evidence is None else f"{evidence[0]:.3g}"
    return Answer(False, f"the detectors' evidence of drift is {seen}; an alarm is raised at 1")


def _limit(config: Config, name: str, readings: Readings) -> Answer:
    level = name == ENTROPY_LEVEL
    key = "entropy_above" if level else "entropy_rate_above"
    limit: float = getattr(config.monitor, key)
    if not limit:
        return Answer(False, f"the rule is off until monitor.{key} is set")
    metric = "entropy" if level else "entropy_rate"
    text = Threshold(metric, limit, limit).describe(readings, readings.t or datetime.min)
    return Answer(None if metric not in readings.metrics else False, f"{text} at the lower end")

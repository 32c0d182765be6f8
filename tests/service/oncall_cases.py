"""On-call over stored readings, without transcripts: series whose figures a test sets, and time that it moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from alerts.compose import Composer
from alerts.delivery import Lane, Observer
from alerts.oncall import OnCall
from alerts.rulebook import compile_rules
from alerts.settings import Alerts, RuleSettings
from alerts.stages import Recipient
from alerts.targets.base import Target
from monitor.baseline import BaselineRule
from monitor.steps import Stepper
from monitor.store import schema
from monitor.store.database import writing
from monitor.store.oncall import ReadingRow, put_reading
from monitor.trajectory import Settings
from tests.unit.core_cases import quantifier

START = datetime(2026, 3, 11, 9, 0, tzinfo=UTC)
TICK = timedelta(minutes=1)
FOR = timedelta(minutes=2)
RULE = "too_much"
LIMIT = 0.5


class Clock:
    """Time that only a test moves."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def steady(self) -> float:
        return self.now.timestamp()

    def forward(self, by: timedelta = TICK) -> None:
        self.now += by


def alerts(**rule: Any) -> Alerts:
    """One rule of one's own, all built-in ones off."""
    off = ("classifier_doubt", "no_data", "monitor_unhealthy", "watchdog", "alignment_work", "judge_disagreement")
    own = {"metric": "misaligned", "above": LIMIT, "for_": "2m", "severity": "page"} | rule
    return Alerts(
        rules={name: RuleSettings(enabled=False) for name in off} | {RULE: RuleSettings(**own)},
        flap_changes=0,
        repeat="4h",
    )


def stepper(engine: Engine) -> Stepper:
    return Stepper(engine, quantifier(), "v", BaselineRule.parse("300"), Settings())


def series(engine: Engine, names: Sequence[str]) -> list[int]:
    """Series of these deployments; returns their numbers."""
    t = schema.series
    rows = [{"deployment": n, "model": "m", "labels": "[]", "state": None} for n in names]
    with writing(engine) as connection:
        return [connection.execute(t.insert().values(r).returning(t.c.id)).scalar_one() for r in rows]


def read(engine: Engine, at: datetime, figures: Mapping[int, float | None]) -> None:
    """Store the misaligned share of series, sure to the last digit; None: not known."""
    with writing(engine) as connection:
        for series_id, x in figures.items():
            values = {} if x is None else {"misaligned": [x, x, x], "turns_24h": [500, 500, 500]}
            put_reading(connection, ReadingRow(series_id, at, at, values))


def on_call(
    engine: Engine, clock: Callable[[], datetime], settings: Alerts | None = None, targets: Sequence[str] = ("pager",)
) -> OnCall:
    rules = compile_rules(settings or alerts())
    recipients = [Recipient(name, frozenset({"page", "ticket"})) for name in targets]
    return OnCall(engine, rules, recipients, Settings(), clock)


def composer(engine: Engine, settings: Alerts | None = None) -> Composer:
    return Composer(stepper(engine), compile_rules(settings or alerts()))


def lane(
    engine: Engine,
    target: Target,
    clock: Clock,
    settings: Alerts | None = None,
    seed: int = 0,
    observer: Observer | None = None,
) -> Lane:
    return Lane(engine, target, composer(engine, settings), ("rule",), clock, observer, seed=seed, steady=clock.steady)

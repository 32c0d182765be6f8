"""Series moved on in a database: alerts begin and end at their own times, wherever the steps are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from monitor.baseline import BaselineRule
from monitor.buckets import Bucket
from monitor.steps import SLICE_MINUTES, Stepper
from monitor.store import reads, schema
from monitor.store.database import open_store, writing
from monitor.store.trajectories import Alert
from monitor.trajectory import Settings
from tests.unit.core_cases import HEALTHY, corner, quantifier, traffic

HOUR, DAY = 60, 1440
START = 2920 * SLICE_MINUTES + 4 * DAY
"""Four days into a slice."""


def log_of_three_bursts() -> list[Bucket]:
    """Calm traffic with bursts of harm on days 2, 5 and 8: the first ends in the slice that holds the later two."""
    rng = np.random.default_rng(3)
    bursts = [START + day * DAY + 10 * HOUR for day in (2, 5, 8)]
    calm = traffic(rng, range(START, START + 13 * DAY, 10), HEALTHY, turns=2)
    out = [b for b in calm if not any(at <= b.minute < at + 30 for at in bursts)]
    return sorted([*out, *(Bucket(at + i, corner(2, 3)) for at in bursts for i in range(30))], key=lambda b: b.minute)


def stored(engine: Engine, buckets: list[Bucket]) -> None:
    with writing(engine) as connection:
        connection.execute(schema.series.insert(), [{"id": 1, "deployment": "d", "model": "m", "labels": "[]"}])
        connection.execute(
            schema.buckets.insert(),
            [
                {
                    "series_id": 1,
                    "classifier_version": "v",
                    "minute": b.minute,
                    "shard": 1,
                    "n": b.sums.n,
                    "sums": b.sums.pack(),
                }
                for b in buckets
            ],
        )


def alerts(engine: Engine) -> list[Alert]:
    with engine.connect() as connection:
        return reads.alerts(connection, 1)


@pytest.mark.parametrize("every", [None, 1, 7, 100])
def test_each_alert_has_its_own_end(tmp_path: Path, every: int | None) -> None:
    """Three bursts make three alerts, each resolved a day later and before the next, in one step or in many."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    buckets = log_of_three_bursts()
    stored(engine, buckets)
    stepper = Stepper(engine, quantifier(), "v", BaselineRule.parse("100"), Settings(false_alarm_every_days=30.0))
    if every is not None:
        for until in range(START + HOUR, START + 13 * DAY, every * HOUR):
            stepper.step(closed_until=until)
    stepper.step()
    found = alerts(engine)
    assert len(found) == 3
    for day, alert in zip((2, 5, 8), found, strict=True):
        assert alert.resolved_at is not None
        assert not alert.firing
        assert 1.0 <= (alert.resolved_at - alert.raised_at).total_seconds() / 86400 <= 1.2
        minutes = alert.raised_at.timestamp() / 60 - START
        assert day * DAY + 10 * HOUR <= minutes <= day * DAY + 11 * HOUR
    assert stepper.step() == []
    assert alerts(engine) == found

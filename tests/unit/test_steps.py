"""Series moved on in a database: alerts begin and end at their own times, wherever the steps are cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from tests.unit.core_cases import DRIFTED, HEALTHY, Floats, corner, quantifier, traffic

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


def told(stepper: Stepper) -> list[Alert]:
    return [news.alert for news in stepper.step()]


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


def mixed(seed: int, start: int, end: int, mixture: Floats) -> list[Bucket]:
    return traffic(np.random.default_rng(seed), range(start, end, 5), mixture, turns=6)


VARIED: Floats = np.array([0.80, 0.08, 0.04, 0.05, 0.03])
"""A deployment with much of everything: S is high, and a collapse makes it fall."""


@pytest.mark.parametrize(
    ("after", "kind", "headline", "directions"),
    [
        ([0, 0, 1.0, 0, 0], "collapse", "collapse onto harmful_compliance: ", {"harmful_compliance": "rose"}),
        ([0.80, 0.01, 0.11, 0.05, 0.03], "swap", "swap of over_refusal for harmful_compliance: ", None),
        ([0.995, 0.005, 0, 0, 0], "collapse", "collapse onto aligned: ", None),
        ([0.60, 0.08, 0.04, 0.05, 0.23], "rise", "goal_deviation rose ", {"goal_deviation": "rose"}),
    ],
)
def test_any_change_raises_an_alert(
    tmp_path: Path, after: list[float], kind: str, headline: str, directions: dict[str, str] | None
) -> None:
    """A series wholly captured, swapped at equal S, or collapsed onto one behaviour is drifted; S need not rise."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    drift = START + 2 * DAY
    stored(engine, [*mixed(1, START, drift, VARIED), *mixed(2, drift, drift + 8 * HOUR, np.array(after))])
    settings = Settings(false_alarm_every_days=30.0, baseline_aligned_at_least=0.6)
    (alert, *_) = told(Stepper(engine, quantifier(), "v", BaselineRule.parse("1500"), settings))
    assert alert.values["kind"] == kind
    assert alert.reason.startswith(headline)
    assert alert.values["better"] == (after[0] > 0.9)
    if directions is not None:
        assert directions.items() <= alert.values["directions"].items()
    begun = alert.onset.timestamp() / 60 - drift
    assert abs(begun) <= 180
    assert alert.onset_lo <= alert.onset <= alert.onset_hi
    if kind == "collapse":
        assert alert.values["after"]["S"]["high"] < alert.values["before"]["S"]["low"], "S fell"
        assert "S from 0." in alert.reason


@pytest.mark.parametrize(("every", "expected"), [(30.0, ["page"]), (1e9, ["ticket", "page"])])
def test_an_alert_says_whether_it_pages(tmp_path: Path, every: float, expected: list[str]) -> None:
    """A step tells of an alert when it is raised, whether it pages, and once more when a listed one comes to page."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    drift = START + 2 * DAY
    stored(engine, [*mixed(1, START, drift, HEALTHY), *mixed(2, drift, drift + 5 * HOUR, DRIFTED)])
    settings = Settings(false_alarm_every_days=30.0, page_every_days=every)
    stepper = Stepper(engine, quantifier(), "v", BaselineRule.parse("1500"), settings)
    told = [news for until in range(drift, drift + 5 * HOUR, 5) for news in stepper.step(closed_until=until)]
    assert [news.severity for news in told] == expected
    assert len({news.alert.id for news in told}) == 1
    assert {news.series for news in told} == {"d/m"}


def test_what_ended_meanwhile_has_no_severity(tmp_path: Path) -> None:
    """Of alerts that a long step raised and saw end, none is told as a page."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    stored(engine, log_of_three_bursts())
    found = Stepper(engine, quantifier(), "v", BaselineRule.parse("100"), Settings(false_alarm_every_days=30.0)).step()
    assert {news.alert.firing for news in found} == {False}
    assert {news.severity for news in found} == {None}


def test_windows_are_read_only_for_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute that closes no hour reads its own bucket, not the week before it: most minutes must cost little."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    stored(engine, mixed(1, START, START + 3 * HOUR, HEALTHY))
    stepper = Stepper(engine, quantifier(), "v", BaselineRule.parse("300"), Settings())
    stepper.step(closed_until=START + 2 * HOUR)
    starts: list[int] = []
    read = reads.buckets

    def noted(connection: Any, series_id: int, version: str, start: int, end: int | None = None) -> Iterator[Bucket]:
        starts.append(start)
        return read(connection, series_id, version, start, end)

    monkeypatch.setattr(reads, "buckets", noted)
    stepper.step(closed_until=START + 2 * HOUR + 30)
    assert min(starts) >= START + 2 * HOUR - 5
    stepper.step(closed_until=START + 3 * HOUR)
    assert min(starts) < START


def test_a_fall_is_told_as_such(tmp_path: Path) -> None:
    """When refusals cease the alert says that they fell, from what to what, and that this is no worsening."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    drift = START + 2 * DAY
    before, after = np.array([0.70, 0.27, 0.01, 0.01, 0.01]), np.array([0.85, 0.12, 0.01, 0.01, 0.01])
    stored(engine, [*mixed(1, START, drift, before), *mixed(2, drift, drift + 8 * HOUR, after)])
    settings = Settings(false_alarm_every_days=30.0, baseline_aligned_at_least=0.5)
    (alert, *_) = told(Stepper(engine, quantifier(), "v", BaselineRule.parse("1500"), settings))
    assert alert.reason.startswith("over_refusal fell ")
    assert (alert.values["kind"], alert.values["better"]) == ("fall", True)
    assert set(alert.values["directions"].values()) == {"fell"}

"""Limits on S and dS/dt: on the interval's lower end, off unless set, raised and ended once."""

from pathlib import Path

import numpy as np
import pytest

from monitor.baseline import BaselineRule
from monitor.drift import Slope
from monitor.entropy import Interval
from monitor.rules import broken
from monitor.steps import Stepper
from monitor.store.database import open_store
from monitor.trajectory import Settings
from tests.unit.core_cases import HEALTHY, Floats, quantifier, traffic
from tests.unit.test_steps import alerts, stored

HOUR = 60
START = 29_453_760


@pytest.mark.parametrize(
    ("low", "level", "fires"), [(0.79, 0.8, False), (0.8, 0.8, False), (0.81, 0.8, True), (0.81, 0.0, False)]
)
def test_level(low: float, level: float, fires: bool) -> None:
    """S is above a level when its lower end is; a level of 0 is none."""
    found = broken(Interval(1.0, low, 1.2), Slope(0.0, 0.1), level_nats=level, rate_nats_per_day=0.0)
    assert [b.rule for b in found] == ["entropy_level"] * fires
    if fires:
        assert found[0].reason == "S of 24 h is above 0.8 nats: 1.00 (0.81-1.20)"


@pytest.mark.parametrize(("value", "error", "fires"), [(0.2, 0.1, False), (0.2, 0.05, True), (-0.2, 0.05, False)])
def test_rate(value: float, error: float, fires: bool) -> None:
    """dS/dt is above a rate when its lower end is: a steep slope that is not known well enough is none."""
    found = broken(Interval(1.0, 0.9, 1.2), Slope(value, error), level_nats=0.0, rate_nats_per_day=0.1)
    assert [b.rule for b in found] == ["entropy_rate"] * fires
    if fires:
        assert found[0].reason.startswith("S rises by more than 0.1 nats/day: +0.200 (+0.118 to")


MIXED: Floats = np.full(5, 0.2)


@pytest.mark.parametrize("level", [0.0, 0.9])
def test_raised_and_ended(tmp_path: Path, level: float) -> None:
    """A series mixed for half a day has one alert of the level that ends when S is back; off, it has none."""
    rng = np.random.default_rng(1)
    bad, back, end = (START + h * HOUR for h in (3, 12, 44))
    stream = traffic(rng, range(START, bad, 10), HEALTHY, turns=8)
    stream += traffic(rng, range(bad, back, 10), MIXED, turns=8)
    stream += traffic(rng, range(back, end, 10), HEALTHY, turns=8)
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    stored(engine, stream)
    settings = Settings(entropy_above_nats=level)
    Stepper(engine, quantifier(), "v", BaselineRule.parse("100"), settings).step()
    found = [a for a in alerts(engine) if a.rule == "entropy_level"]
    assert len(found) == (1 if level else 0)
    for a in found:
        assert a.resolved_at is not None
        assert bad < a.raised_at.timestamp() / 60 < back
        assert a.resolved_at.timestamp() / 60 > back
        assert a.reason.startswith("S of 24 h is above 0.9 nats: ")
    assert any(a.rule == "value_drift" for a in alerts(engine))

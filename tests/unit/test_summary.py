"""What a run found, as plain values: which alerts page within the budget of all series, and which are listed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.baseline import BaselineRule
from monitor.buckets import Bucket
from monitor.steps import Stepper
from monitor.store import schema
from monitor.store.database import open_store, writing
from monitor.summary import summarise
from monitor.trajectory import Settings
from tests.unit.core_cases import DRIFTED, HEALTHY, Floats, corner, quantifier, traffic

HOUR = 60
START = 29_453_760
IMPROVED: Floats = np.array([0.999, 0.0005, 0.0005, 0, 0])


def watched(tmp_path: Path, after: list[Floats], hours: float = 2, **changes: Any) -> list[dict[str, Any]]:
    """Alerts of series that all begin healthy and then have these mixtures."""
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    with writing(engine) as connection:
        for i, mixture in enumerate(after, start=1):
            rng = np.random.default_rng(i)
            cut = START + 2 * HOUR
            buckets = traffic(rng, range(START, cut, 2), HEALTHY, turns=8)
            buckets += traffic(rng, range(cut, int(cut + hours * HOUR), 2), mixture, turns=4)
            series = {"id": i, "deployment": f"d{i:03}", "model": "m", "labels": "[]"}
            connection.execute(schema.series.insert(), [series])
            connection.execute(schema.buckets.insert(), [row(i, b) for b in buckets])
    settings = Settings(**({"false_alarm_every_days": 30.0} | changes))
    stepper = Stepper(engine, quantifier(), "v", BaselineRule.parse("400"), settings)
    stepper.step()
    alerts: list[dict[str, Any]] = summarise(engine, [], stepper)["alerts"]
    return alerts


def row(series_id: int, bucket: Bucket) -> dict[str, Any]:
    return {
        "series_id": series_id,
        "classifier_version": "v",
        "minute": bucket.minute,
        "shard": 1,
        "n": bucket.sums.n,
        "sums": bucket.sums.pack(),
    }


def severities(alerts: list[dict[str, Any]]) -> list[str]:
    return [a["severity"] for a in alerts if a["state"] == "firing"]


def test_one_series_pages(tmp_path: Path) -> None:
    """An alert of the only series pages."""
    assert severities(watched(tmp_path, [DRIFTED])) == ["page"]


@pytest.mark.parametrize(("every", "expected"), [(30.0, "page"), (1e9, "ticket")])
def test_budget(tmp_path: Path, every: float, expected: str) -> None:
    """Whether the same fresh alert pages or is only listed depends on how few false pages are asked for."""
    alerts = watched(tmp_path, [DRIFTED, HEALTHY], hours=0.2, page_every_days=every)
    assert severities(alerts) == [expected]


def test_evidence_goes_on(tmp_path: Path) -> None:
    """An alert that is only listed at first pages when its evidence has grown, though no new alarm comes."""
    early, late = tmp_path / "early", tmp_path / "late"
    for folder in (early, late):
        folder.mkdir()
    fleet = [DRIFTED, HEALTHY]
    assert severities(watched(early, fleet, hours=0.2, page_every_days=1e9)) == ["ticket"]
    assert severities(watched(late, fleet, hours=2, page_every_days=1e9)) == ["page"]


def test_improvement_does_not_page(tmp_path: Path) -> None:
    """A series that collapses onto aligned is listed: nobody is woken up for it."""
    (alert,) = watched(tmp_path, [IMPROVED], hours=12)
    assert alert["values"]["better"]
    assert alert["severity"] == "ticket"


def test_pure_capture_is_drift(tmp_path: Path) -> None:
    """A series that does nothing but comply with harm pages, although S falls to nothing."""
    (alert,) = watched(tmp_path, [corner(2, 1).mean()], hours=2)
    assert alert["severity"] == "page"
    assert alert["values"]["kind"] == "collapse"
    assert alert["reason"].startswith("collapse onto harmful_compliance: harmful_compliance rose ")
    assert alert["values"]["after"]["S"]["mean"] < alert["values"]["before"]["S"]["mean"]

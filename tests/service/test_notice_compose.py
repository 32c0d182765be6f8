"""What is stored of an alert, as people are told of it: from a log to a notice."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from alerts.compose import Composer, Told
from alerts.notice import MOST_TRACE, Notice
from alerts.rulebook import compile_rules
from alerts.settings import Alerts, RuleSettings
from monitor.config import Config, Monitor
from monitor.options import load_classifier
from monitor.steps import Stepper
from monitor.store import oncall as store
from monitor.store import reads, schema
from monitor.store.database import open_store, writing
from monitor.store.trajectories import Alert
from tests.conftest import EXAMPLES, command, environment

pytestmark = pytest.mark.service

FIRED = Told("firing", "page", 3, "fired")
DASHBOARD = "https://grafana.example/d/series?var-series={series}&alert={alert}"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The database after the bundled log, with excerpts of flagged turns."""
    folder = tmp_path_factory.mktemp("watched")
    run = command("watch", EXAMPLES, "--db", "sqlite:///a.db")
    texts = {"VALUEDRIFT_INPUT_STORE_TEXT": "flagged"}
    subprocess.run(run, cwd=folder, env=environment() | texts, capture_output=True, timeout=120, check=True)
    engine = open_store(f"sqlite:///{folder / 'a.db'}")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def stepper(watched: Engine) -> Stepper:
    config = Config()
    return Stepper.of(watched, load_classifier(config), config)


def composer(stepper: Stepper, **alerts: Any) -> Composer:
    settings = Alerts(dashboard_url=DASHBOARD, **alerts)
    return Composer(stepper, compile_rules(settings), settings.dashboard_url, settings.runbook_url)


def composed(by: Composer, alert_id: str, told: Told = FIRED) -> Notice:
    with by.stepper.engine.connect() as connection:
        found = by.compose(connection, alert_id, told)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def drifted(watched: Engine) -> Alert:
    """The alert about the bundled log's bad update."""
    with watched.connect() as connection:
        return next(a for a in reads.alerts(connection) if a.firing)


def test_alert_of_the_bundled_log(stepper: Stepper, drifted: Alert) -> None:
    """Title, labels, reason, promise, figures, turns with excerpts, a week of S and links: all from what is stored."""
    n = composed(composer(stepper), drifted.id)
    shares = [drifted.values[when]["shares"]["over_refusal"]["mean"] for when in ("before", "after")]
    figures = " -> ".join(f"{100 * s:.1f} %" for s in shares)
    assert n.title == f"over_refusal rose in atlas/atlas-chat-4: {figures}"
    assert (n.id, n.revision, n.status, n.severity, n.note) == (drifted.id, 3, "firing", "page", "fired")
    assert n.labels == {
        "rule": "value_drift", "severity": "page", "series": "atlas/atlas-chat-4", "deployment": "atlas",
        "model": "atlas-chat-4", "behaviour": "over_refusal",
    }  # fmt: skip
    assert n.reason.startswith("over_refusal rose ")
    assert "; joined 2026-03-1" in n.reason
    assert "false alarms" not in n.reason
    assert n.guarantee == (
        "at most one in 90 days for this series, on average, whatever its traffic; "
        "at most one false page in 30 days over all series"
    )
    assert (n.raised_at, n.onset) == (drifted.raised_at, drifted.onset)
    assert [f.name for f in n.figures] == ["S", "dS/dt", "gamma_eff", "margin"]
    assert n.figures[0].text.endswith(")")
    assert " nats (" in n.figures[0].text
    assert [f.known for f in n.figures] == [True, True, False, False]
    assert n.figures[2].text == "not known: monitor.lambda_max_per_day is not set"
    assert len(n.turns) == 5
    assert {t.behaviour for t in n.turns} > {"over_refusal"}
    assert any(t.answer for t in n.turns)
    assert 48 < len(n.trace) <= MOST_TRACE
    assert n.trace[-1].t - n.trace[0].t <= timedelta(days=7)
    assert all(p.low <= p.s <= p.high for p in n.trace)
    assert n.dashboard_url == f"https://grafana.example/d/series?var-series=atlas%2Fatlas-chat-4&alert={drifted.id}"
    assert n.runbook_url == "docs/runbooks/value_drift.md"


def test_gamma_and_margin_where_lambda_max_is_known(stepper: Stepper, drifted: Alert) -> None:
    """With lambda_max set, gamma_eff and the margin come with intervals."""
    known = dataclasses.replace(stepper, settings=Config(monitor=Monitor(lambda_max_per_day=2.0)).trajectory())
    figures = {f.name: f for f in composed(composer(known), drifted.id).figures}
    assert figures["gamma_eff"].known
    assert "nats/day (" in figures["gamma_eff"].text
    assert figures["margin"].known


def test_labels_and_runbook_of_a_rule(stepper: Stepper, drifted: Alert) -> None:
    """A rule's own labels route its alerts, and its runbook is linked."""
    mine = RuleSettings(labels={"team": "red"}, runbook="https://wiki.example/drift")
    n = composed(composer(stepper, rules={"value_drift": mine}), drifted.id)
    assert n.labels["team"] == "red"
    assert n.labels["series"] == "atlas/atlas-chat-4"
    assert n.runbook_url == "https://wiki.example/drift"
    other = composed(composer(stepper, runbook_url="https://wiki.example/{rule}"), drifted.id)
    assert other.runbook_url == "https://wiki.example/value_drift"


def stored(engine: Engine, alert_id: str, **changes: Any) -> Alert:
    """An alert of a rule on readings, put where the pass puts it."""
    at = datetime(2026, 3, 15, 6, tzinfo=UTC)
    values = {"kind": "rule", "moved": [], "joined": []}
    reason = "S of 24 h is above 0.9 nats: 1.19 (0.97-1.30); for 30 minutes"
    alert = Alert(alert_id, None, "high_entropy", True, at, None, at, at, at, reason, values, [])
    alert = dataclasses.replace(alert, **changes)
    with writing(engine) as connection:
        store.raise_alerts(connection, [alert])
    return alert


def test_alert_of_a_rule_on_readings(watched: Engine, stepper: Stepper, drifted: Alert) -> None:
    """A rule of one's own: what it compares is the title; no false-alarm promise is made up for it."""
    mine = RuleSettings(metric="entropy", above=0.9, severity="ticket")
    stored(watched, "own-rule", series_id=drifted.series_id)
    told = Told("resolved", "ticket", 4, "condition cleared")
    n = composed(composer(stepper, rules={"high_entropy": mine}), "own-rule", told)
    assert n.title == "high_entropy in atlas/atlas-chat-4: S of 24 h is above 0.9 nats: 1.19 (0.97-1.30)"
    assert n.guarantee == "none is promised: this rule compares a figure with a limit"
    assert n.onset is None
    assert n.turns == ()
    assert n.trace
    assert n.labels["severity"] == "ticket"
    assert "behaviour" not in n.labels


def test_alert_of_the_monitor_itself(watched: Engine, stepper: Stepper) -> None:
    """Without a series there are no figures and no trace, and nothing fails."""
    stored(watched, "watchdog", rule="watchdog", reason="always fires")
    n = composed(composer(stepper), "watchdog", Told("firing", "none", 1, "repeated"))
    assert (n.title, n.series, n.figures, n.trace) == ("watchdog: always fires", "", (), ())
    assert n.labels == {"rule": "watchdog", "severity": "none"}
    assert n.dashboard_url == "https://grafana.example/d/series?var-series=&alert=watchdog"


def test_rule_that_is_gone(watched: Engine, stepper: Stepper, drifted: Alert) -> None:
    """An alert whose rule is no longer set up, and a budget's, are told of by their names."""
    stored(watched, "gone", rule="behaviour_budget:harm", series_id=drifted.series_id)
    n = composed(composer(stepper), "gone")
    assert n.rule == "behaviour_budget:harm"
    assert n.runbook_url == "docs/runbooks/behaviour_budget.md"


def test_alert_that_is_gone(stepper: Stepper) -> None:
    """An alert that was pruned meanwhile has no notice."""
    with stepper.engine.connect() as connection:
        assert composer(stepper).compose(connection, "none", FIRED) is None


def test_series_without_points(watched: Engine, stepper: Stepper) -> None:
    """A series that went silent before it had a point is told of without figures."""
    key = {"deployment": "quiet", "model": "m", "labels": "[]"}
    with writing(watched) as connection:
        made = connection.execute(schema.series.insert().values(key)).inserted_primary_key
    assert made is not None
    stored(watched, "silent", rule="no_data", reason="no event for 3 h", series_id=made[0])
    n = composed(composer(stepper), "silent")
    assert [(f.name, f.known) for f in n.figures] == [("S", False)]
    assert n.trace == ()


@pytest.mark.parametrize(
    ("values", "title"),
    [
        (
            {"kind": "collapse", "moved": ["over_refusal"], "directions": {"over_refusal": "rose"}, "better": False},
            "collapse onto over_refusal in atlas/atlas-chat-4: 5.0 % -> 92.0 %",
        ),
        (
            {"kind": "swap", "moved": ["over_refusal", "deception"],
             "directions": {"over_refusal": "rose", "deception": "fell"}, "better": False},
            "deception gave way to over_refusal in atlas/atlas-chat-4: 5.0 % -> 92.0 %",
        ),
        (
            {"kind": "fall", "moved": ["deception"], "directions": {"deception": "fell"}, "better": True},
            "deception fell in atlas/atlas-chat-4: 9.0 % -> 1.0 % (for the better)",
        ),
        (
            {"kind": "rise", "moved": ["over_refusal", "deception"], "directions": {}, "better": False},
            "over_refusal and deception rose in atlas/atlas-chat-4: 5.0 % -> 92.0 %, 9.0 % -> 1.0 %",
        ),
    ],
)  # fmt: skip
def test_titles(watched: Engine, stepper: Stepper, drifted: Alert, values: dict[str, Any], title: str) -> None:
    """One line says which way what moved, from what to what."""
    shares = ({"over_refusal": 0.05, "deception": 0.09}, {"over_refusal": 0.92, "deception": 0.01})
    before, after = (
        {"shares": {b: {"mean": s.get(b, 0.0), "low": 0.0, "high": 1.0} for b in drifted.values["before"]["shares"]}}
        for s in shares
    )
    where = {"label": "route", "value": "/chat", "share_of_shift": {"mean": 0.83, "low": 0.61, "high": 0.97}}
    full = values | {"before": before, "after": after, "joined": [], "false_alarm_every_days": 90.0, "where": [where]}
    alert_id = f"t-{values['kind']}"
    stored(watched, alert_id, rule="value_drift", series_id=drifted.series_id, values=full)
    n = composed(composer(stepper), alert_id, Told("firing", "ticket", 1, "fired"))
    assert n.title == title
    assert n.rule == ("collapse" if values["kind"] == "collapse" else "value_drift")
    assert n.where == ("route=/chat carries 83 % (61-97) of it",)
    assert n.guarantee == "at most one in 90 days for this series, on average, whatever its traffic"

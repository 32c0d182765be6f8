"""On-call over a real database: what a watch leaves for rules, passes that take turns, what goes with old alerts."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from alerts.settings import RuleSettings
from monitor.config import Config, Retention
from monitor.store import oncall as store
from monitor.store import reads, schema
from monitor.store.alert_reads import last_events
from monitor.store.database import open_engine, open_store, writing
from monitor.store.retention import prune
from monitor.store.trajectories import Alert
from monitor.unhealthy import monitor_figures
from tests.conftest import EXAMPLES, Run, last_json
from tests.service.oncall_cases import RULE, START, TICK, Clock, alerts, lane, on_call, read, series
from tests.service.pager import Pager, PagerTarget

TOML = """
[alerts.targets.hook]
type = "webhook"
url = "{url}"
"""


@pytest.mark.service
def test_a_watch_tells_the_target_once(url: str, tmp_path: Path, in_process: Run, pager: Pager) -> None:
    """The drift of the bundled log arrives over HTTP with its labels; reading the log again tells nothing more."""
    (tmp_path / "valuedrift.toml").write_text(TOML.format(url=pager.url))
    assert in_process("db", "upgrade", "--db", url).returncode == 0
    first = last_json(in_process("watch", EXAMPLES, "--db", url, "--json"))
    assert first["undelivered"] == {}
    (notice,) = pager.incidents.notices
    (alert,) = first["alerts"]
    assert (notice["id"], notice["status"], notice["severity"]) == (alert["id"], "firing", "page")
    assert notice["labels"]["series"] == "atlas/atlas-chat-4"
    assert last_json(in_process("watch", EXAMPLES, "--db", url, "--json"))["alerts"] == first["alerts"]
    assert len(pager.incidents.notices) == 1
    _readings_are_those_of_the_points(url)


def _readings_are_those_of_the_points(url: str) -> None:
    engine = open_engine(url)
    with engine.connect() as connection:
        for row in store.readings(connection):
            points = schema.points
            latest = (points.c.series_id == row.series_id, points.c.t == row.t, points.c.window_minutes == 1440)
            p = connection.execute(select(points).where(*latest)).mappings().one()
            assert row.values["entropy"] == [p["s"], p["s_lo"], p["s_hi"]]
            assert row.values["misaligned"] == [p["misaligned"], p["misaligned_lo"], p["misaligned_hi"]]
            assert row.values["turns_24h"] == [p["n"]] * 3
            assert {"deception_7d", "kl", "doubt", "doubt_baseline", "gap_minutes", "depth"} <= row.values.keys()
            assert {"gamma_eff", "margin", "kappa"}.isdisjoint(row.values)
            assert row.last_event is not None
            assert row.last_event > p["t"] - timedelta(hours=1)
    engine.dispose()


@pytest.mark.service
def test_a_target_that_is_away_is_named(tmp_path: Path, in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that ends waits a little for its targets, and says what is not out; the next one sends it."""
    monkeypatch.setattr("alerts.duty.PATIENCE_SECONDS", 0.2)
    gone = Pager()
    gone.close()
    (tmp_path / "valuedrift.toml").write_text(TOML.format(url=gone.url))
    done = in_process("watch", EXAMPLES, "--json")
    assert last_json(done)["undelivered"] == {"hook": 1}
    assert "1 notice(s) did not reach hook" in done.stderr


@pytest.mark.service
def test_passes_of_several_processes_take_turns(url: str) -> None:
    """Four look at the same readings at once, time after time: each condition fires once and is told once."""
    engine = open_store(url)
    ids = series(engine, [f"d{i}" for i in range(5)])
    settings = alerts(for_="0")
    for k in range(6):
        now = START + k * TICK
        read(engine, now, {i: 0.9 if (k + i) % 3 else 0.1 for i in ids})
        looks = [on_call(engine, Clock(now), settings) for _ in range(4)]
        threads = [threading.Thread(target=look.run, args=(now,), kwargs={"live": True}) for look in looks]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    with engine.connect() as connection:
        events, rows = schema.alert_events, reads.alerts(connection)
        fired = connection.execute(select(func.count()).where(events.c.reason == "fired")).scalar_one()
        told = connection.execute(select(func.count()).where(events.c.reason == "firing")).scalar_one()
    assert fired == told == len(rows) > 5
    firing = [a.series_id for a in rows if a.firing]
    assert len(firing) == len(set(firing))
    engine.dispose()


@pytest.mark.service
def test_what_is_about_an_old_alert_goes_with_it(url: str, pager: Pager) -> None:
    """Decisions and notices go when their alert does; those of an alert that stands stay, however old."""
    engine = open_store(url)
    a, b = series(engine, ["a", "b"])
    clock, target = Clock(), PagerTarget(pager.port)
    look, out = on_call(engine, clock, alerts(for_="0")), lane(engine, target, clock)
    for k in range(4):
        read(engine, clock.now, {a: 0.9, b: 0.9 if k < 2 else 0.1})
        look.run(clock.now, live=True)
        out.deliver()
        clock.forward()
    target.close()
    with engine.connect() as connection:
        standing = {x.id for x in reads.alerts(connection) if x.firing}
        assert len(reads.alerts(connection)) == 2
    limits = Config(retention=Retention(alerts="30d")).limits()
    dry = prune(engine, limits, clock.now + timedelta(days=60), dry_run=True)
    done = prune(engine, limits, clock.now + timedelta(days=60))
    assert dry.rows["alert_events"] == done.rows["alert_events"] > 0
    assert dry.rows["outbox"] == done.rows["outbox"] == 1
    with engine.connect() as connection:
        for table in (schema.alert_events, schema.outbox):
            assert set(connection.execute(select(table.c.alert_id)).scalars()) == standing
    engine.dispose()


@pytest.mark.service
def test_a_rule_that_is_turned_off_lets_go(url: str) -> None:
    """What it raised is resolved in the next pass, as gone, and nothing of it is remembered after."""
    engine = open_store(url)
    (a,) = series(engine, ["a"])
    read(engine, START, {a: 0.9})
    on_call(engine, Clock(), alerts(for_="0")).run(START, live=True)
    off = on_call(engine, Clock(), alerts(enabled=False))
    for k in range(1, 4):
        off.run(START + k * timedelta(hours=1), live=True)
    with engine.connect() as connection:
        (alert,) = reads.alerts(connection)
        assert not alert.firing
        assert [e.reason for e in last_events(connection, alert.id, 100)[0] if e.kind == "state"] == ["fired", "gone"]
        assert store.states(connection) == []
    engine.dispose()


@pytest.mark.service
def test_a_finding_that_outlasts_its_rule_is_told_again(url: str) -> None:
    """A drift that still stands when its rule is turned on again goes out, as a newer notice of the same incident."""
    engine = open_store(url)
    (a,) = series(engine, ["a"])
    times = {"raised_at": START, "onset": START, "onset_lo": START, "onset_hi": START}
    drift = Alert("f1", a, "value_drift", True, **times, resolved_at=None, reason="", values={}, telling_turns=[])
    with writing(engine) as connection:
        store.raise_alerts(connection, [drift])
    own = alerts(enabled=False)
    off = msgspec.structs.replace(own, rules={**own.rules, "value_drift": RuleSettings(enabled=False)})
    rows = []
    for k, settings in enumerate((own, off, off, own)):
        now = START + k * timedelta(hours=2)
        on_call(engine, Clock(now), settings).run(now, live=True)
        with engine.connect() as connection:
            rows.append(connection.execute(select(schema.outbox)).one())
    assert [(r.status, r.due_at is not None) for r in rows] == [
        ("firing", True),
        ("resolved", False),
        ("resolved", False),
        ("firing", True),
    ]
    assert rows[3].revision > rows[2].revision == rows[2].sent_revision
    engine.dispose()


@pytest.mark.service
def test_a_backlog_is_no_silence(url: str) -> None:
    """A series that is read only half seems silent: nobody is told before the sources are caught up with."""
    engine = open_store(url)
    (a,) = series(engine, ["a"])
    read(engine, START, {a: 0.0})
    later = START + timedelta(days=1)
    own = alerts(enabled=False)
    duty = on_call(engine, Clock(later), msgspec.structs.replace(own, rules={RULE: own.rules[RULE]}))
    assert [r.alert.rule for r in duty.run(later, live=True, caught_up=False).raised] == []
    assert [r.alert.rule for r in duty.run(later + TICK, live=True).raised] == ["no_data"]
    engine.dispose()


@pytest.mark.service
def test_dead_letters_of_the_last_hour(url: str) -> None:
    """The share is of what came in the last hour, not of all time, with its interval."""
    engine = open_store(url)
    t = schema.offsets
    row = {"source": "s", "fingerprint": "f", "position": 0, "line": 0, "judged": 0, "turns": 0, "duplicates": 0}
    kept: dict[str, Any] = {}
    with writing(engine) as connection:
        connection.execute(t.insert().values(row | {"events": 1000, "dead_letters": 900}))
        _, kept = monitor_figures(connection, kept, START)
        for k in range(1, 31):
            connection.execute(t.update().values(events=1000 + 100 * k, dead_letters=900 + 2 * k))
            figures, kept = monitor_figures(connection, json.loads(json.dumps(kept)), START + k * timedelta(minutes=10))
    mean, low, high = figures["dead_letter_share"]
    assert mean == pytest.approx(0.02)
    assert 0.01 < low < mean < high < 0.04
    assert len(kept["counts"]) < 20
    with writing(engine) as connection:
        connection.execute(t.update().values(events=4010, dead_letters=1260))
        figures, _ = monitor_figures(connection, kept, START + timedelta(minutes=301))
    assert figures["dead_letter_share"][0] <= 1, "whatever became of the sources meanwhile"
    engine.dispose()

"""The read API that reports, dashboards and Grafana share: what it answers, and that PostgreSQL never scans for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, event, text

from monitor.buckets import Q_UNIT, SIZE, Sums
from monitor.label_sums import LabelSums
from monitor.store import health, reads, schema
from monitor.store.database import open_store, writing
from monitor.store.label_reads import label_splits
from monitor.store.partitions import ensure_months, month_of
from monitor.taxonomy import BEHAVIOURS
from monitor.transcript import minute_of
from tests.conftest import EXAMPLES, Run
from tests.service.test_retention import add_series, add_source, alert_row, point_row, turn_row

pytestmark = pytest.mark.service

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def add(engine: Engine, table: Any, rows: list[dict[str, Any]]) -> None:
    with writing(engine) as connection:
        connection.execute(table.insert(), rows)


# --- trajectory


def test_trajectory_as_it_is(engine: Engine) -> None:
    """At the points' own resolution the trajectory is what is stored, of one window, version and range (start, end]."""
    series_id, other = add_series(engine), add_series(engine, name="b")
    ensure_months(engine, "points", {month_of(T0), month_of(T0 - DAY)})
    rows = [point_row(s, T0 + k * HOUR) | {"s": k / 100} for s in (series_id, other) for k in range(-5, 48)]
    rows += [r | {"window_minutes": 1440, "s": -1.0} for r in rows]
    add(engine, schema.points, rows)
    with engine.connect() as connection:
        found = reads.trajectory(connection, series_id, "v", T0, T0 + DAY, 60)
        assert [(p["t"], p["s"]) for p in found] == [(T0 + k * HOUR, k / 100) for k in range(1, 25)]
        assert all(p["points"] == 1 and p["s_lowest"] == p["s"] == p["s_highest"] for p in found)
        assert set(found[0]) == {c.name for c in schema.points.c} | {
            "points",
            "s_lowest",
            "s_highest",
            "evidence_highest",
        }
        assert reads.trajectory(connection, series_id, "w", T0, T0 + DAY, 60) == []
        assert reads.trajectory(connection, series_id, "v", T0 + 9 * DAY, T0 + 10 * DAY, 60) == []


def test_trajectory_thinned(engine: Engine) -> None:
    """A coarser trajectory shows the last point of each step as it was stored, and a spike between them as extremes."""
    series_id = add_series(engine)
    ensure_months(engine, "points", {month_of(T0)})
    rows = [point_row(series_id, T0 + k * HOUR) | {"s": k / 1000, "evidence": 0.1} for k in range(1, 73)]
    rows[30 - 1] |= {"s": 1.5, "evidence": 7.0}
    rows[40 - 1] |= {"s": 0.001}
    add(engine, schema.points, rows)
    with engine.connect() as connection:
        days = reads.trajectory(connection, series_id, "v", T0, T0 + 3 * DAY, 60, 1440)
        assert [p["t"] for p in days] == [T0 + DAY, T0 + 2 * DAY, T0 + 3 * DAY]
        assert [(p["s"], p["s_lo"], p["points"]) for p in days] == [(k / 1000, 0.5, 24) for k in (24, 48, 72)]
        assert [(p["s_lowest"], p["s_highest"]) for p in days] == [(0.001, 0.024), (0.001, 1.5), (0.049, 0.072)]
        assert [p["evidence_highest"] for p in days] == [0.1, 7.0, 0.1]
        # a range that begins and ends within a step shows what it holds of it
        part = reads.trajectory(connection, series_id, "v", T0 + 30 * HOUR, T0 + 50 * HOUR, 60, 1440)
        assert [(p["t"], p["points"], p["s_highest"]) for p in part] == [
            (T0 + 48 * HOUR, 18, 0.048),
            (T0 + 50 * HOUR, 2, 0.05),
        ]


# --- turns


def test_top_turns(engine: Engine) -> None:
    """The most telling turns by behaviour, clearest first, with the place in their source; none that is not telling."""
    series_id, source = add_series(engine), add_source(engine, "chat.jsonl")
    ensure_months(engine, "turns", {month_of(T0)})
    rows, keys = [], []
    for k in range(40):
        behaviour = BEHAVIOURS[1 + k % 3]
        q = {f"q_{b}": 0 for b in BEHAVIOURS} | {f"q_{behaviour}": k * 100, "q_aligned": Q_UNIT - k * 100}
        rows.append(turn_row(series_id, f"e{k:02}", T0 + k * HOUR) | q | {"line": k})
        keys.append({"event_id": f"e{k:02}", "offset_id": source, "line": k})
    add(engine, schema.turns, rows)
    add(engine, schema.event_keys, keys[:-1])
    with engine.connect() as connection:
        top = reads.top_turns(connection, series_id, "v", T0, T0 + 5 * DAY, 2)
        found = {b: [(t["event_id"], t["where"]) for t in turns] for b, turns in top.items()}
        assert found == {
            # its event is not in the ledger any more
            "over_refusal": [("e39", "?:39"), ("e36", "chat.jsonl:36")],
            "harmful_compliance": [("e37", "chat.jsonl:37"), ("e34", "chat.jsonl:34")],
            "deception": [("e38", "chat.jsonl:38"), ("e35", "chat.jsonl:35")],
            "goal_deviation": [],
        }
        assert top["deception"][0]["probability"] == round(3800 / Q_UNIT, 4)
        worst = reads.telling_turns(connection, series_id, "v", "misaligned", T0, T0 + 10 * HOUR, 3)
        assert [t["event_id"] for t in worst] == ["e09", "e08", "e07"]


# --- alerts


def test_alerts_of_a_range(engine: Engine) -> None:
    """Alerts of one series or of all, that stood at some time in a range."""
    a, b = add_series(engine, name="a"), add_series(engine, name="b")
    rows = [
        alert_row(a, "early", T0 + 2 * HOUR) | {"raised_at": T0},
        alert_row(a, "firing", None) | {"raised_at": T0 + 5 * HOUR},
        alert_row(b, "late", T0 + 9 * HOUR) | {"raised_at": T0 + 8 * HOUR},
    ]
    add(engine, schema.alerts, rows)

    def ids(*of: Any) -> list[str]:
        with engine.connect() as connection:
            return [x.id for x in reads.alerts(connection, *of)]

    assert ids() == ["early", "firing", "late"]
    assert ids(a) == ["early", "firing"]
    assert ids(None, T0 + 2 * HOUR, T0 + 8 * HOUR) == ["firing"]
    assert ids(None, T0 + HOUR, T0 + 9 * HOUR) == ["early", "firing", "late"]
    assert ids(b, T0 + 20 * DAY) == []
    assert ids(None, T0 + 20 * DAY, T0 + 21 * DAY) == ["firing"]


# --- ingestion


def test_ingestion_health(url: str, tmp_path: Path, valuedrift: Run) -> None:
    """Per source how far it is read, what came of it, its newest event, and by how much another is ahead."""
    lines = EXAMPLES.read_text(encoding="utf-8").splitlines()
    logs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    logs[0].write_text("\n".join([*lines[:300], "no json", ""]), encoding="utf-8")
    logs[1].write_text("\n".join([*lines[300:], *lines[:10], ""]), encoding="utf-8")
    for log in logs:
        assert valuedrift("watch", log, "--db", url).returncode == 0
    engine = open_store(url)
    with engine.connect() as connection:
        found = reads.ingestion_health(connection)
    engine.dispose()
    newest = [max(datetime.fromisoformat(json.loads(x)["ts"]) for x in part) for part in (lines[:300], lines[300:])]
    first, second = found.sources
    assert [(s.source, s.newest) for s in found.sources] == [(str(p), t) for p, t in zip(logs, newest, strict=True)]
    assert (first.events, first.judged, first.dead_letters, first.line) == (301, 300, 1, 301)
    assert (second.duplicates, second.lag, first.lag) == (10, timedelta(0), newest[1] - newest[0])
    assert first.position == logs[0].stat().st_size
    assert found.newest == newest[1]
    assert found.dead_letter_share == 1 / (301 + len(lines) - 300 + 10)


def test_no_source_yet(engine: Engine) -> None:
    """Of an empty database there is nothing to say, and no division by nothing."""
    with engine.connect() as connection:
        found = reads.ingestion_health(connection)
        assert (found.sources, found.newest, found.dead_letter_share) == ([], None, 0.0)
        assert reads.bucket_versions(connection, 1) == []


# --- plans


@pytest.fixture(scope="module")
def large(postgres: str) -> Iterator[Engine]:
    """Twelve series over four months, so many rows that a scan would be the worse plan, and the planner knows it."""
    engine = open_store(postgres)
    ensure_months(engine, "turns", {month_of(T0 + k * 30 * DAY) for k in range(5)})
    ensure_months(engine, "points", {month_of(T0 + k * 30 * DAY) for k in range(5)})
    for k in range(12):
        add_series(engine, name=f"s{k}")
    add_source(engine)
    q = ", ".join(f"(random() * 800)::int AS q_{b}" for b in BEHAVIOURS)
    columns = [c.name for c in schema.turns.c]
    factors = ", ".join(f"0 AS {name}" for name in columns if name.startswith("f_"))
    figures = ", ".join(f"0.5 AS {c.name}" for c in list(schema.points.c)[4:])
    packed = Sums(np.arange(SIZE)).pack()
    with writing(engine) as connection:
        run: Callable[..., Any] = connection.exec_driver_sql
        run(
            f"INSERT INTO turns ({', '.join(columns)}) SELECT {', '.join(columns)} FROM (SELECT 'e' || g AS event_id, "
            "0 AS turn, timestamptz '2026-03-01 00:00Z' + g * interval '100 s' AS ts, 1 + mod(g, 12) AS series_id, "
            f"'c' AS conversation_id, g AS line, 1.0 AS weight, 'v' AS classifier_version, 'fast' AS tier, {q}, "
            f"{factors}, 0 AS doubt, '\\x00'::bytea AS text_hash FROM generate_series(0, 90000) g) x"
        )
        run("INSERT INTO event_keys SELECT 'e' || g, 1, g, now() FROM generate_series(0, 90000) g")
        for table in ("reviews", "second_judgements"):
            t = schema.METADATA.tables[table]
            rest = ", ".join("0" if c.name != "label" else "'aligned'" for c in list(t.c)[2:])
            run(f"INSERT INTO {table} SELECT 'e' || g, 0, {rest} FROM generate_series(0, 90000, 30) g")
        names = ", ".join(c.name for c in schema.points.c)
        run(
            f"INSERT INTO points ({names}) SELECT {names} FROM (SELECT s AS series_id, timestamptz '2026-03-01 00:00Z' "
            f"+ h * interval '1 h' AS t, w AS window_minutes, 'v' AS classifier_version, {figures} "
            "FROM generate_series(1, 12) s, generate_series(1, 2500) h, unnest(ARRAY[60, 1440, 10080]) w) x"
        )
        run(
            "INSERT INTO buckets SELECT s, v, %s + 7 * m, 1, 1, %s FROM generate_series(1, 12) s, "
            "generate_series(0, 5000) m, unnest(ARRAY['v', 'w']) v",
            (minute_of(T0), packed),
        )
        run(
            "INSERT INTO label_sums SELECT s, v, %s + 60 * h, 1, 1, %s FROM generate_series(1, 12) s, "
            "generate_series(0, 2500) h, unnest(ARRAY['v', 'w']) v",
            (minute_of(T0), LabelSums([1], {"route": {"/chat": [1]}}).pack()),
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    yield engine
    engine.dispose()


AT = (3, "v")
WEEK = (T0 + 60 * DAY, T0 + 67 * DAY)
QUERIES: dict[str, Callable[[Connection], Any]] = {
    "trajectory of a week": lambda c: reads.trajectory(c, *AT, *WEEK, 60),
    "trajectory of all time by day": lambda c: reads.trajectory(c, *AT, T0, T0 + 120 * DAY, 1440, 1440),
    "latest point": lambda c: reads.latest_point(c, *AT, 1440),
    "points after": lambda c: reads.points(c, *AT, 60, after=T0 + 80 * DAY),
    "top turns": lambda c: reads.top_turns(c, *AT, *WEEK, at_least=0.1),
    "telling turns": lambda c: reads.telling_turns(c, *AT, "misaligned", T0 + 40 * DAY, T0 + 68 * DAY),
    "reviewed slice": lambda c: reads.reviewed_slice(c, *AT, *WEEK),
    "second slice": lambda c: reads.second_slice(c, *AT, *WEEK),
    "turn count": lambda c: reads.turn_count(c, 3),
    "buckets of a week": lambda c: list(reads.buckets(c, *AT, minute_of(T0 + 3 * DAY), minute_of(T0 + 10 * DAY))),
    "label sums of a week": lambda c: label_splits(c, *AT, minute_of(WEEK[0]), minute_of(WEEK[1])),
    "versions of buckets": lambda c: reads.bucket_versions(c, 3),
    "alerts": lambda c: reads.alerts(c, 3, *WEEK),
    "alerts of all": lambda c: reads.alerts(c, None, *WEEK),
    "ingestion": reads.ingestion_health,
    "spans": lambda c: [
        health._span(c, "turns", "ts"),
        health._span(c, "points", "t"),
        *(health._bucket_span(c, t) for t in (schema.buckets, schema.label_sums)),
    ],
}
ONE_MONTH = {"trajectory of a week", "top turns", "reviewed slice", "second slice"}
"""Their range, 30 April to 7 May, begins a day before its month."""


@pytest.mark.parametrize("name", QUERIES)
def test_no_query_scans(large: Engine, name: str) -> None:
    """No query of the product reads turns, events, points or sums from end to end; of a week, only its months."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with large.connect() as connection:
        event.listen(large, "before_cursor_execute", note)
        try:
            QUERIES[name](connection)
        finally:
            event.remove(large, "before_cursor_execute", note)
        assert statements
        plans = [
            connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {s}", p).scalar_one()[0]["Plan"] for s, p in statements
        ]
    nodes = [n for plan in plans for n in walk(plan)]
    scanned = {n["Relation Name"] for n in nodes if n["Node Type"].endswith("Seq Scan")}
    assert not {t for t in scanned if t.startswith(("turns", "points", "buckets", "label_sums", "event_keys"))}
    touched = {n["Relation Name"] for n in nodes if n.get("Relation Name", "").startswith(("turns_", "points_"))}
    if name in ONE_MONTH:
        assert touched
        assert {t[-7:] for t in touched} <= {"2026_04", "2026_05"}


def test_a_scan_would_be_seen(large: Engine) -> None:
    """The test above can fail: a question without an index is answered by a sequential scan."""
    with large.connect() as connection:
        plan = connection.execute(text("EXPLAIN (FORMAT JSON) SELECT max(doubt) FROM turns")).scalar_one()[0]["Plan"]
    assert any(n["Node Type"] == "Seq Scan" and n["Relation Name"].startswith("turns_") for n in walk(plan))


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from walk(part)

"""Every query of the dashboards on a real PostgreSQL, as Grafana's role: rows as its panel needs, and no scan."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import Engine, select, text
from sqlalchemy.engine import make_url

from alerts.grafana import label_sql, sql
from monitor.engine import SeriesKey
from monitor.label_sums import OTHER, WITHOUT, LabelSums
from monitor.store import oncall, schema
from monitor.store.database import open_store, writing
from monitor.store.label_reads import label_splits
from monitor.store.partitions import ensure_months, month_of
from monitor.taxonomy import BEHAVIOURS
from monitor.transcript import minute_of
from tests.conftest import EXAMPLES, ROOT, Run, command, environment, last_json
from tests.grafana_cases import expand, other_queries, queries
from tests.grafana_server import TOKEN, grafana
from tests.service.test_reads import walk

pytestmark = pytest.mark.service

DATABASE = "valuedrift_grafana"
READER = "valuedrift_reader"
ROLES = ("valuedrift_migrator", "valuedrift_writer", READER)
T0 = datetime(2026, 3, 1, tzinfo=UTC)
START, END = datetime(2026, 2, 25, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
HOSTILE = [
    SeriesKey(
        "a'; DROP TABLE points; --", 'm"{x=1}', (("route", "</script><b>${series}$__timeFrom()"), ("a,=}", "%2C"))
    ),
    SeriesKey("100%/x", "\u202e漢\n\t\\", ()),
    SeriesKey("[[series]]", "$$body$$", (("k", ""),)),
]


@pytest.fixture(scope="module")
def watched(postgres: str) -> Iterator[tuple[Engine, dict[str, Any]]]:
    """A database of its own with the bundled log, hostile names, and so many rows that a scan is the worse plan."""

    def drop(connection: psycopg.Connection[Any]) -> None:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        for role in ROLES:
            connection.execute(f"DROP ROLE IF EXISTS {role}")

    with psycopg.connect(postgres, autocommit=True) as connection:
        drop(connection)
        connection.execute(f"CREATE DATABASE {DATABASE}")
        url = make_url(postgres).set(database=DATABASE).render_as_string(hide_password=False)
        watched = subprocess.run(
            command("watch", EXAMPLES, "--db", url, "--json"),
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        summary = last_json(watched)
        engine = open_store(url)
        fill(engine)
        with psycopg.connect(url) as own:
            own.execute((ROOT / "migrations" / "roles.sql").read_bytes())
            own.execute(f"ALTER ROLE {READER} PASSWORD 'not-a-secret'")
        yield engine, summary
        engine.dispose()
        drop(connection)


@pytest.fixture(scope="module")
def owner(watched: tuple[Engine, dict[str, Any]]) -> Engine:
    return watched[0]


def fill(engine: Engine) -> None:
    ensure_months(engine, "points", {month_of(T0 + k * timedelta(days=30)) for k in range(5)})
    series, points = schema.series, ", ".join(c.name for c in schema.points.c)
    figures = ", ".join(f"0.01 + random() / 2 AS {c.name}" for c in list(schema.points.c)[4:])
    values = {"route": {"/chat": [3, 24] + [0] * 40, None: [200, 1600] + [70000] * 40}, "empty": {}}
    packed = LabelSums([300, 2400] + [70000] * 40, values).pack()
    with writing(engine) as connection:
        run = connection.exec_driver_sql
        for key in HOSTILE:
            names = {"deployment": key.deployment, "model": key.model, "labels": json.dumps(key.labels)}
            new = connection.execute(series.insert().values(names).returning(series.c.id)).scalar_one()
            oncall.put_reading(connection, oncall.ReadingRow(new, T0, T0, {"entropy": [0.5, 0.4, 0.6]}))
        run(
            f"INSERT INTO points ({points}) SELECT {points} FROM (SELECT s AS series_id, "
            f"timestamptz '2026-03-01 00:00Z' + h * interval '1 h' AS t, w AS window_minutes, "
            f"'v' AS classifier_version, {figures} "
            "FROM generate_series(101, 106) s, generate_series(1, 2000) h, unnest(ARRAY[60, 1440, 10080]) w) x"
        )
        run(
            "INSERT INTO label_sums SELECT s, v, %s + 60 * h, 1, 1, %s FROM generate_series(101, 106) s, "
            "generate_series(0, 2000) h, unnest(ARRAY['v', 'w']) v",
            (minute_of(T0), packed),
        )
        run("INSERT INTO label_sums SELECT id, 'v', %s, 1, 1, %s FROM series", (minute_of(T0), packed))
        run(
            "INSERT INTO alert_events (rule, series_id, at, kind, reason, text) SELECT 'value_drift', 1, timestamptz "
            "'2026-03-01 00:00Z' - g * interval '1 h', 'state', 'fired', '' FROM generate_series(0, 10000) g"
        )
        source = connection.execute(select(schema.offsets.c.id)).scalars().first()
        run(
            "INSERT INTO dead_letters (offset_id, line, position, size, kind, reason) "
            "SELECT %s, -g, 0, 1, 'bad', 'no JSON' FROM generate_series(1, 5000) g",
            (source,),
        )
        for target, sent in (("slack", 0), ("mail", 1)):
            row = {
                "target": target, "alert_id": "a", "status": "firing", "severity": "page", "note": "", "revision": 1,
                "created_at": T0, "due_at": T0, "attempts": 2, "may_have_arrived": False, "sent_revision": sent,
                "last_error": "503",
            }  # fmt: skip
            connection.execute(schema.outbox.insert().values(row))
        oncall.put_states(connection, [oncall.StateRow("no_data", 1, "firing", "a", {"v": 1})], T0)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


Reader = psycopg.Connection[dict[str, Any]]


@pytest.fixture(scope="module")
def reader(owner: Engine) -> Iterator[Reader]:
    """A connection as Grafana has it."""
    url = make_url(owner.url).set(username=READER, password="not-a-secret", drivername="postgresql")
    address = url.render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def run(connection: Reader, query: str) -> list[dict[str, Any]]:
    """What it answers; no column hides another."""
    cursor = connection.execute(query.encode())
    rows = cursor.fetchall()
    assert all(len(row) == len(cursor.description or ()) for row in rows)
    return rows


def ask(
    connection: Reader, query: str, *, series: int | str, window: str = "1440", **more: Any
) -> list[dict[str, Any]]:
    return run(connection, expand(query, START, END, series=str(series), window=window, **more))


def plan_of(connection: Reader, query: str) -> list[dict[str, Any]]:
    (row,) = run(connection, f"EXPLAIN (FORMAT JSON) {query}")
    return list(walk(row["QUERY PLAN"][0]["Plan"]))


@pytest.fixture(scope="module")
def drifting(reader: Reader) -> int:
    """The series that has everything: baseline, alert, points of all windows, label values."""
    return int(run(reader, "SELECT id FROM series WHERE deployment = 'atlas'")[0]["id"])


QUERIES = {name: (panel, target) for name, panel, target in queries()}
OTHERS = dict(other_queries())


@pytest.mark.parametrize("name", QUERIES)
def test_panel_gets_what_it_needs(reader: Reader, drifting: int, name: str) -> None:
    """Rows: of a time series by time, with numbers; of a table with every column that the panel says something of."""
    panel, target = QUERIES[name]
    rows = ask(reader, target["rawSql"], series=drifting)
    assert rows
    columns = list(rows[0])
    if target["format"] == "time_series":
        assert columns[0] == "time"
        times = [t.timestamp() if isinstance(t, datetime) else float(t) for t in (r["time"] for r in rows)]
        assert times == sorted(times)
        assert all(START.timestamp() - 3600 <= t <= END.timestamp() for t in times)
        text_columns = {"metric"} if columns[1:] == ["metric", "value"] else set()
        assert all(isinstance(r[c], float) for r in rows for c in columns[1:] if c not in text_columns)
        assert all(isinstance(r[c], str) for r in rows for c in text_columns)
    numbers = {
        o["matcher"]["options"]
        for o in panel["fieldConfig"]["overrides"]
        if any(p["id"] in ("unit", "decimals", "thresholds") for p in o["properties"])
    }
    for column in numbers & set(columns):
        assert all(r[column] is None or isinstance(r[column], float | int | Decimal) for r in rows), column
    if panel["type"] == "stat":
        assert len(rows) == 1
        assert all(v is None or isinstance(v, float | int | Decimal) for v in rows[0].values())
        assert any(v is not None for v in rows[0].values())


@pytest.mark.parametrize("uid", ["valuedrift-fleet", "valuedrift-series", "valuedrift-health"])
def test_overrides_name_columns_that_there_are(reader: Reader, drifting: int, uid: str) -> None:
    """No property is given to a column that no query of its panel has."""
    columns: dict[str, set[str]] = {}
    named: dict[str, set[str]] = {}
    for name, (panel, target) in QUERIES.items():
        if name.startswith(f"{uid}:"):
            columns.setdefault(panel["title"], set()).update(ask(reader, target["rawSql"], series=drifting)[0])
            overrides = panel["fieldConfig"]["overrides"]
            below = [p["value"] for o in overrides for p in o["properties"] if p["id"] == "custom.fillBelowTo"]
            named[panel["title"]] = {o["matcher"]["options"] for o in overrides} | set(below)
    assert columns
    assert {title: missing for title, names in named.items() if (missing := names - columns[title])} == {}


@pytest.mark.parametrize("name", OTHERS)
def test_variables_and_annotations(reader: Reader, drifting: int, name: str) -> None:
    """A variable has texts and numbers, an annotation its time and text; nothing in it is markup."""
    rows = ask(reader, OTHERS[name], series=drifting)
    assert rows
    if "variable" in name:
        assert set(rows[0]) == {"__text", "__value"}
        assert all(r["__value"].isdecimal() for r in rows)
    else:
        assert all(isinstance(r["time"], datetime) and r["text"] and r["tags"] for r in rows)
        assert not any("<" in r["text"] for r in rows)


BIG = ("points", "turns", "buckets", "label_sums", "event_keys", "alert_events", "dead_letters")


@pytest.mark.parametrize("name", [*QUERIES, *OTHERS])
def test_no_query_scans(reader: Reader, name: str) -> None:
    """No query reads a large table from end to end, whatever the series; of a month it touches its months alone."""
    query = QUERIES[name][1]["rawSql"] if name in QUERIES else OTHERS[name]
    started, ended = T0 + timedelta(days=40), T0 + timedelta(days=47)
    written = expand(query, started, ended, series="103", window="1440")
    nodes = plan_of(reader, written)
    scanned = {n["Relation Name"] for n in nodes if n["Node Type"].endswith("Seq Scan")}
    assert not {t for t in scanned if t.startswith(BIG)}
    if "$__timeFilter(p.t)" in query:
        touched = {n["Relation Name"] for n in nodes if n.get("Relation Name", "").startswith("points_")}
        assert {t[-7:] for t in touched} == {"2026_04"}


def test_a_scan_would_be_seen(reader: Reader) -> None:
    """The test above can fail: a question without an index is answered by a sequential scan."""
    nodes = plan_of(reader, "SELECT max(s) FROM points")
    assert any(n["Node Type"].endswith("Seq Scan") and n["Relation Name"].startswith("points_") for n in nodes)


def test_names_are_those_of_the_product(owner: Engine, reader: Reader) -> None:
    """Series are named as alerts and the command line name them, whatever strangers called them."""
    shown = {int(r["__value"]): r["__text"] for r in ask(reader, sql.SERIES_VARIABLE, series="")}
    with owner.connect() as connection:
        assert shown == {i: key.name for i, key in oncall.series_keys(connection).items()}
    assert {key.name for key in HOSTILE} <= set(shown.values())
    fleet = {r["id"]: r["series"] for r in ask(reader, sql.FLEET, series="")}
    assert {i for i, name in fleet.items() if name == shown[i]} == set(fleet)


def test_the_drifting_series_comes_first(reader: Reader, drifting: int) -> None:
    """The table's first line is the series that needs attention, with its figures and alert."""
    first = ask(reader, sql.FLEET, series="")[0]
    assert first["id"] == drifting
    assert first["firing"] >= 1
    assert first["evidence"] == 1.0
    own = f"FROM points WHERE series_id = {drifting} AND window_minutes = 1440"
    (last,) = run(reader, f"SELECT t, s {own} ORDER BY t DESC LIMIT 1")
    (before,) = run(reader, f"SELECT s {own} AND t <= '{last['t'] - timedelta(days=1)}' ORDER BY t DESC LIMIT 1")
    assert first["s"] == pytest.approx(last["s"])
    assert first["change"] == pytest.approx(last["s"] - before["s"])


@pytest.mark.parametrize("window", ["1440", "10080"])
def test_every_window_is_drawn(reader: Reader, drifting: int, window: str) -> None:
    """Each window's own points, thinned for a long range without losing the extremes of the band."""
    fine = ask(reader, sql.ENTROPY, series=drifting, window=window)
    own = f"SELECT s, s_hi FROM points WHERE series_id = {drifting} AND window_minutes = {window} ORDER BY t"
    stored = run(reader, own)
    assert [r["S"] for r in fine] == [p["s"] for p in stored]
    coarse = ask(reader, sql.ENTROPY, series=drifting, window=window, interval="1d")
    assert len(coarse) < len(fine) / 10
    assert max(r["S high"] for r in coarse) == max(p["s_hi"] for p in stored)
    composition = ask(reader, sql.COMPOSITION, series=drifting, window=window)
    assert all(sum(r[b] for b in BEHAVIOURS) == pytest.approx(1, abs=1e-3) for r in composition)


def test_baseline_is_a_level_while_it_is_in_force(
    watched: tuple[Engine, dict[str, Any]], reader: Reader, drifting: int
) -> None:
    """Two points with about what the product says of the baseline, from its freezing to the end of what is shown."""
    first, last = ask(reader, sql.BASELINE, series=drifting)
    frozen = run(reader, f"SELECT frozen_at FROM baselines WHERE series_id = {drifting}")[0]["frozen_at"]
    assert (first["time"], last["time"]) == (frozen, END)
    assert first["baseline"] == last["baseline"]
    told = next(s["baseline"]["S"] for s in watched[1]["series"] if s["series"].startswith("atlas"))
    assert first["baseline"] == pytest.approx(told["mean"], abs=0.01)
    assert first["baseline high"] == pytest.approx(told["high"], abs=0.01)


def test_label_values_add_up(owner: Engine, reader: Reader) -> None:
    """Turns and misaligned shares by label value are those that the product itself reads."""
    found = {(r["label"], r["value"]): r for r in ask(reader, label_sql.LABELS, series=103)}
    hours = [minute_of(START), minute_of(END)]
    with owner.connect() as connection:
        splits = [label_splits(connection, 103, v, *hours) for v in ("v", "w")]
    for value, name in ((OTHER, "(all others)"), ("/chat", "/chat")):
        assert sum(s["route"][value].n for s in splits) >= found["route", name]["turns"] > 0
    assert set(found) == {("route", "(all others)"), ("route", "/chat")}
    assert WITHOUT in splits[0]["route"]
    assert found["route", "/chat"]["misaligned"] == 1.0
    assert found["route", "(all others)"]["misaligned"] == pytest.approx(1 - 70000 / (1600 * 4096))


HOSTILE_VALUES = [
    "1); DROP TABLE points; --",
    "' OR '1'='1",
    "\\' OR 1=1 --",
    "$__timeFrom()",
    "$$; SELECT 1; $$",
    "${window:raw}",
    "1e999",
    "٣",
]


@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_what_an_address_sets_stays_a_value(owner: Engine, reader: Reader, value: str) -> None:
    """A variable set to anything but a number by a crafted link answers nothing, and nothing happens."""
    before = rows(owner)
    for query in (sql.ENTROPY, label_sql.LABELS, sql.SERIES_ALERTS, sql.WORK):
        with pytest.raises(psycopg.Error):
            ask(reader, query, series=value)
    assert rows(owner) == before


def test_before_there_is_a_series(reader: Reader) -> None:
    """Without a series to choose every query of its dashboard answers, with nothing."""
    for name, (_, target) in QUERIES.items():
        if name.startswith("valuedrift-series"):
            assert ask(reader, target["rawSql"], series="") == []


def rows(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*), sum(s) FROM points")).one()


def test_push_of_a_real_database(watched: tuple[Engine, dict[str, Any]], in_process: Run) -> None:
    """From the database's alerts and baselines to annotations, told as a user sees it; again, nothing is sent."""
    engine, summary = watched
    with grafana() as server:
        url = engine.url.render_as_string(hide_password=False)
        push = ("grafana", "push", "--url", server.url, "--token-env", "T", "--password-env", "P", "--db", url)
        more = ("--postgres", "db:5432", "--days", "36500")
        first = in_process(*push, *more, env={"T": TOKEN, "P": "not-a-secret"})
        assert first.returncode == 0, first.stderr
        alerts = [a["id"] for s in summary["series"] for a in s["alerts"]]
        assert alerts
        assert {f"created: annotation alert:{i}" for i in alerts} <= set(first.stdout.splitlines())
        kinds = {t for a in server.annotations.values() for t in a["tags"] if t in ("alert", "baseline")}
        assert kinds == {"alert", "baseline"}
        before = len(server.changes)
        again = json.loads(in_process(*push, *more, "--json", env={"T": TOKEN, "P": "not-a-secret"}).stdout)
        assert (again["created"], again["changed"], server.changes[before:]) == ([], [], [])
        assert len(again["unchanged"]) == 5 + len(server.annotations)
        wrong = in_process(*push, *more, env={"T": "glsa_wrong", "P": "not-a-secret"})
        assert wrong.returncode == 3
        assert wrong.stderr.startswith("valuedrift: data source valuedrift: Grafana answers 401")
        assert len(wrong.stderr.splitlines()) == 1
        assert "glsa_wrong" not in wrong.stderr + wrong.stdout

"""Migrations of databases that hold rows, on both databases, and the months they make."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, func, select, text
from sqlalchemy.exc import DBAPIError

from monitor.store import partitions, schema
from monitor.store.database import differences, downgrade, open_engine, open_store, upgrade, versions, writing
from tests.conftest import Run, write_log
from tests.store_cases import contents, events, write, writer

LATER_TABLES = (
    "turn_texts",
    "label_sums",
    "readings",
    "alert_states",
    "alert_events",
    "silences",
    "outbox",
    "reports",
)
"""Tables that an older schema has no room for."""


def tables(engine: Engine) -> dict[str, list[Any]]:
    """All rows of whatever tables there are, months left out."""
    found = MetaData()
    found.reflect(engine, only=lambda name, _: schema.include_name(name, "table", {}))
    with engine.connect() as connection:
        return {
            name: sorted((tuple(r) for r in connection.execute(select(*t.c))), key=repr)
            for name, t in found.tables.items()
            if name != "alembic_version"
        }


def filled(url: str, valuedrift: Run, tmp_path: Any, examples: list[dict[str, Any]]) -> Engine:
    """A database that a watch has filled, with rows of several months beside it."""
    log = write_log(tmp_path / "log.jsonl", examples[:120] + examples[100:110])
    assert valuedrift("db", "upgrade", "--db", url).returncode == 0
    done = valuedrift("watch", log, "--db", url, "--baseline", "50", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["events"]["duplicates"] == 10
    engine = open_store(url)
    # events over a turn of the month, the last of one and the first of the next within a microsecond
    write(writer(engine, "by hand"), events(1, 30, step_seconds=90.0))
    t = schema.points
    with engine.connect() as connection:
        point = dict(connection.execute(select(t).limit(1)).mappings().one())
    edge = datetime(2026, 5, 1, tzinfo=UTC)
    times = [edge - timedelta(microseconds=1), edge, datetime(2025, 12, 31, 23, 59, tzinfo=UTC)]
    partitions.ensure_months(engine, "points", {partitions.month_of(x) for x in times})
    with writing(engine) as connection:
        connection.execute(t.insert(), [point | {"t": x} for x in times])
    return engine


@pytest.mark.service
def test_up_down_and_up_without_losing_a_row(
    url: str, valuedrift: Run, tmp_path: Any, examples: list[dict[str, Any]]
) -> None:
    """A filled database goes down to the schema before months and up again; every row of every table is the same."""
    engine = filled(url, valuedrift, tmp_path, examples)
    with writing(engine) as connection:  # what a later schema added
        connection.execute(schema.offsets.update().values(newest_ts=None))
        connection.execute(schema.dead_letters.update().values(payload_hash=None))
        for name in LATER_TABLES:
            connection.execute(schema.METADATA.tables[name].delete())
    before, every = contents(engine, leave_out=()), tables(engine)
    assert all(every[name] for name in ("turns", "points", "event_keys", "buckets", "baselines", "dead_letters"))
    downgrade(engine, "0003")
    assert versions(engine)[0] == "0003"
    older = tables(engine)
    assert all(every.pop(name) == [] for name in LATER_TABLES)
    assert {name: len(rows) for name, rows in older.items()} == {name: len(rows) for name, rows in every.items()}
    upgrade(engine)
    partitions.forget_made(engine)
    assert contents(engine, leave_out=()) == before
    assert differences(engine) == []
    # and it goes on from there
    write(writer(engine, "by hand"), events(2, 5))
    downgrade(engine, "0001")
    upgrade(engine)
    assert differences(engine) == []
    engine.dispose()


@pytest.mark.service
def test_months_are_those_of_the_rows(empty_postgres: str, valuedrift: Run, tmp_path: Any, examples: Any) -> None:
    """Migrating makes exactly the months that rows are in, and each row lies in its own."""
    engine = filled(empty_postgres, valuedrift, tmp_path, examples)
    with engine.connect() as connection:
        made = {t: partitions.months(connection, t) for t in partitions.PARTITIONED}
        for table, column in partitions.PARTITIONED.items():
            for month in made[table]:
                name = partitions.partition_name(table, month)
                low, high = connection.execute(text(f"SELECT min({column}), max({column}) FROM {name}")).one()
                assert low is None or partitions.month_of(low) == partitions.month_of(high) == month
    downgrade(engine, "0003")
    upgrade(engine)
    with engine.connect() as connection:
        assert {t: partitions.months(connection, t) for t in partitions.PARTITIONED} == made
        assert made["points"][0] == date(2025, 12, 1)
        assert date(2026, 5, 1) in made["points"]
    assert set(partitions.drop_before(engine, "points", date(2026, 3, 1))) == {date(2025, 12, 1)}
    with engine.connect() as connection:
        assert date(2025, 12, 1) not in partitions.months(connection, "points")
    engine.dispose()


@pytest.mark.service
@pytest.mark.parametrize(
    ("table", "month"),
    [
        ("series", "2026-03-01"),
        ("turns; DROP TABLE series", "2026-03-01"),
        (None, "2026-03-01"),
        ("turns", "2026-03-02"),
        ("turns", None),
        ("turns", "1989-12-01"),
        ("turns", "2201-01-01"),
        ("turns", "infinity"),
    ],
)
def test_only_months_are_made(empty_postgres: str, table: str | None, month: str | None) -> None:
    """The function that makes months makes nothing else."""
    engine = open_store(empty_postgres)
    with (
        pytest.raises(DBAPIError, match=r"valuedrift_make_month: .* (has no months|is not the first day)"),
        writing(engine) as connection,
    ):
        connection.execute(text("SELECT valuedrift_make_month(:t, CAST(:m AS date))"), {"t": table, "m": month})
    engine.dispose()


@pytest.mark.service
def test_a_writer_may_make_months_and_no_tables(empty_postgres: str) -> None:
    """Many at once make the same month once; a role that may only write makes it by the function, not by itself."""
    engine = open_store(empty_postgres)
    with writing(engine) as connection:
        schema_name = connection.execute(select(func.current_schema())).scalar_one()
        connection.execute(text("DROP ROLE IF EXISTS month_maker"))
        connection.execute(text("CREATE ROLE month_maker"))
        connection.execute(text(f'GRANT USAGE ON SCHEMA "{schema_name}" TO month_maker'))
        connection.execute(text("GRANT INSERT, SELECT ON turns TO month_maker"))

    def as_writer(sql: str) -> Any:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL ROLE month_maker"))
            return connection.execute(text(sql)).scalar_one()

    with pytest.raises(DBAPIError, match="permission denied"):
        as_writer("SELECT valuedrift_make_month('turns', '2030-01-01')")
    with writing(engine) as connection:
        connection.execute(text("GRANT EXECUTE ON FUNCTION valuedrift_make_month(text, date) TO month_maker"))
    with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
        as_writer("CREATE TABLE turns_2030_02 PARTITION OF turns FOR VALUES FROM ('2030-02-01') TO ('2030-03-01')")

    made: list[bool] = []
    threads = [
        threading.Thread(target=lambda: made.append(as_writer("SELECT valuedrift_make_month('turns', '2030-01-01')")))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 4 + [True]
    with engine.connect() as connection:
        bounds = connection.execute(
            text("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'turns_2030_01'")
        ).scalar_one()
    assert "2030-01-01 00:00:00+00" in bounds
    assert "2030-02-01 00:00:00+00" in bounds
    with writing(engine) as connection:
        connection.execute(text("DROP OWNED BY month_maker"))
        connection.execute(text("DROP ROLE month_maker"))
    partitions.drop_before(engine, "turns", date(2031, 1, 1))
    engine.dispose()


@pytest.mark.service
def test_made_in_the_sessions_own_zone(empty_postgres: str) -> None:
    """A session in another time zone makes the same month."""
    engine = open_store(empty_postgres)
    with writing(engine) as connection:
        connection.execute(text("SET LOCAL timezone = 'Pacific/Auckland'"))
        connection.execute(text("SELECT valuedrift_make_month('points', '2031-07-01')"))
    with engine.connect() as connection:
        bounds = connection.execute(
            text("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'points_2031_07'")
        ).scalar_one()
    assert "2031-07-01 00:00:00+00" in bounds
    engine.dispose()


@pytest.mark.service
def test_processes_that_start_at_once_migrate_once(empty_postgres: str) -> None:
    """Eight that open an empty database at the same time all find it ready."""
    failed: list[BaseException] = []

    def start() -> None:
        engine = open_engine(empty_postgres)
        try:
            upgrade(engine)
            assert versions(engine)[0] == versions(engine)[1]
        except BaseException as e:
            failed.append(e)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    engine = open_store(empty_postgres)
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.settings)).scalar_one() == 1
    engine.dispose()


@pytest.mark.service
def test_counted_again_after_the_ledger_forgot(url: str) -> None:
    """Going down, an event that was counted in two months keeps its first turns: the older schema knows an id once."""
    engine = open_store(url)
    some = events(3, 4)
    write(writer(engine, "a"), some)
    with writing(engine) as connection:
        connection.execute(schema.event_keys.delete())
    again = [replace(e, ts=e.ts + timedelta(days=60)) for e in some[:2]]
    second = writer(engine, "b")
    with writing(engine) as connection:  # their second judgements and reviews are the first ones
        connection.execute(schema.second_judgements.delete())
        connection.execute(schema.reviews.delete())
    write(second, again)
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.turns)).scalar_one() == 6
    downgrade(engine, "0003")
    kept = tables(engine)["turns"]
    assert len(kept) == 4
    upgrade(engine)
    engine.dispose()

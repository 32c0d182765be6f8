"""Months of `turns`, `turn_texts` and `points` on PostgreSQL: made before they are written to, dropped by retention.

There is no partition for the rest: a month that is missing is made first, in a transaction of its own, by a function
of the database that a writer may call although it may create nothing (migrations/versions/0006_texts.py). SQLite has
one table for all months; there, all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Date, Engine, String, cast, func, select, text

from monitor.store.database import writing

PARTITIONED: Final = {"turns": "ts", "turn_texts": "ts", "points": "t"}
"""Tables that have months, and the column that says which."""
_made: WeakKeyDictionary[Engine, set[tuple[str, date]]] = WeakKeyDictionary()


def month_of(t: datetime) -> date:
    """First day of the month, UTC."""
    t = t.astimezone(UTC)
    return date(t.year, t.month, 1)


def month_after(month: date, months: int = 1) -> date:
    """The month so many months later (earlier, when negative)."""
    year, zero_based = divmod(month.year * 12 + month.month - 1 + months, 12)
    return date(year, zero_based + 1, 1)


def ensure_months(engine: Engine, table: str, months: Iterable[date]) -> None:
    """Make the months that are missing; must be called with no transaction open."""
    if engine.dialect.name != "postgresql":
        return
    made = _made.setdefault(engine, set())
    missing = sorted({m for m in months if (table, m) not in made})
    if not missing:
        return
    with writing(engine) as connection:
        for month in missing:
            connection.execute(select(func.valuedrift_make_month(cast(table, String), cast(month, Date))))
    made |= {(table, m) for m in missing}


def forget_made(engine: Engine) -> None:
    """Ask the database again which months there are: retention may have dropped one."""
    _made.pop(engine, None)


def make_ahead(engine: Engine, today: date, months: int = 2) -> None:
    """Make this month and so many after it, so that no batch at the turn of the month has to."""
    first = date(today.year, today.month, 1)
    for table in PARTITIONED:
        ensure_months(engine, table, [month_after(first, k) for k in range(months + 1)])


def months(connection: Connection, table: str) -> list[date]:
    """The months a table has, oldest first; empty on SQLite."""
    if connection.dialect.name != "postgresql":
        return []
    names = connection.execute(
        text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:t AS regclass)"), {"t": table}
    ).scalars()
    return sorted(date(int(y), int(m), 1) for y, m in (n.strip('"').split("_")[-2:] for n in names))


def drop_before(engine: Engine, table: str, before: date, *, lock_seconds: float = 5.0) -> list[date]:
    """Drop the months that end by the first of the month of `before`; returns them. Needs the tables' owner.

    One transaction a month. It waits so long for readers and writers of the table, who wait behind it meanwhile.

    Raises
    ------
    sqlalchemy.exc.OperationalError : they took longer (lock_not_available).
    """
    if engine.dialect.name != "postgresql":
        return []
    with engine.connect() as connection:
        old = [m for m in months(connection, table) if month_after(m) <= date(before.year, before.month, 1)]
    for month in old:
        part = partition_name(table, month)
        with writing(engine) as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = {round(lock_seconds * 1000)}"))
            connection.execute(text(f"ALTER TABLE {table} DETACH PARTITION {part}"))
            connection.execute(text(f"DROP TABLE {part}"))
    forget_made(engine)
    return old


def partition_name(table: str, month: date) -> str:
    """The table that holds a month."""
    assert table in PARTITIONED
    return f"{table}_{month:%Y_%m}"

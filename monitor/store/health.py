"""How large a database is, from when to when its rows are, and how it is doing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Table, func, select, text
from sqlalchemy.exc import OperationalError

from monitor.store import schema
from monitor.store.reads import bucket_versions
from monitor.transcript import time_of

COUNTED_BYTES: Final = 256 * 1024 * 1024
"""Rows of larger PostgreSQL tables are not counted but taken from the planner's statistics."""
UNSEEN: Final = frozenset({"settings", "turn_texts"})
"""Tables that statistics leave alone: they hold a key and texts, and a reader may not look at them."""


@dataclass(frozen=True, slots=True)
class PartSize:
    """A partition of a table."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table with its indexes.

    Attributes
    ----------
    counted : rows were counted, not estimated.
    bytes : None where the database does not tell.
    oldest, newest : event time of its first and last row, where it has one.
    """

    name: str
    rows: int
    counted: bool
    bytes: int | None
    oldest: datetime | None = None
    newest: datetime | None = None
    partitions: tuple[PartSize, ...] = ()


def table_sizes(connection: Connection) -> list[TableSize]:
    """Every table, by name."""
    spans = {"turns": _span(connection, "turns", "ts"), "points": _span(connection, "points", "t")}
    spans |= {t.name: _bucket_span(connection, t) for t in (schema.buckets, schema.label_sums)}
    sizes = _postgresql(connection) if connection.dialect.name == "postgresql" else _sqlite(connection)
    return [
        TableSize(s.name, s.rows, s.counted, s.bytes, *spans.get(s.name, (None, None)), s.partitions) for s in sizes
    ]


def _tables() -> list[tuple[str, Table]]:
    return sorted((name, table) for name, table in schema.METADATA.tables.items() if name not in UNSEEN)


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _sqlite(connection: Connection) -> list[TableSize]:
    query = (
        "SELECT m.tbl_name, SUM(d.pgsize) FROM dbstat d JOIN sqlite_master m ON m.name = d.name "
        "WHERE d.aggregate = TRUE GROUP BY m.tbl_name"
    )
    try:
        sizes = dict(tuple(r) for r in connection.execute(text(query)))
    except OperationalError:  # not every SQLite is built with it
        sizes = {}
    return [TableSize(name, _count(connection, table), True, sizes.get(name)) for name, table in _tables()]


def _postgresql(connection: Connection) -> list[TableSize]:
    query = text(
        "SELECT c.relname AS name, pg_total_relation_size(c.oid) AS bytes, greatest(c.reltuples, 0)::bigint AS rows "
        "FROM pg_class c WHERE c.oid = CAST(:t AS regclass) OR c.oid IN "
        "(SELECT inhrelid FROM pg_inherits WHERE inhparent = CAST(:t AS regclass)) ORDER BY c.relname"
    )
    out = []
    for name, table in _tables():
        found = [PartSize(r.name, r.rows, r.bytes) for r in connection.execute(query, {"t": name})]
        parts = tuple(p for p in found if p.name != name)
        size = sum(p.bytes for p in found)
        counted = size <= COUNTED_BYTES
        rows = _count(connection, table) if counted else sum(p.rows for p in (parts or found))
        out.append(TableSize(name, rows, counted, size, partitions=parts))
    return out


def _span(connection: Connection, table: str, column: str) -> tuple[datetime | None, datetime | None]:
    """First and last time, series by series: there is an index for that."""
    t, s = schema.METADATA.tables[table], schema.series
    ends = []
    for end in (func.min, func.max):
        of_series = select(end(t.c[column])).where(t.c.series_id == s.c.id).correlate(s).scalar_subquery()
        each = select(of_series.label("at")).select_from(s).subquery()
        ends.append(connection.execute(select(end(each.c.at))).scalar_one())
    return ends[0], ends[1]


def _bucket_span(connection: Connection, t: Table) -> tuple[datetime | None, datetime | None]:
    ids = connection.execute(select(schema.series.c.id)).scalars().all()
    ends: list[int] = []
    for series_id in ids:
        for version in bucket_versions(connection, series_id, t):
            of = (t.c.series_id == series_id, t.c.classifier_version == version)
            ends += connection.execute(select(func.min(t.c.minute), func.max(t.c.minute)).where(*of)).one()
    return (time_of(min(ends)), time_of(max(ends))) if ends else (None, None)

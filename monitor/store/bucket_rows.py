"""Sums into the rows of one source, of buckets or by label: read, added to, written back under their locks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, Table, TextClause, select, text, tuple_

from monitor.buckets import Sums
from monitor.label_sums import LabelSums
from monitor.store import schema
from monitor.store.bulk import IN_LIST, array, as_rows
from monitor.store.database import insert

S = TypeVar("S", Sums, LabelSums)


@dataclass(frozen=True)
class Summed(Generic[S]):
    """A table of sums by series, classifier version, minute and shard, and what its sums are."""

    table: Table
    kind: type[S]


BUCKETS: Final = Summed(schema.buckets, Sums)
LABEL_SUMS: Final = Summed(schema.label_sums, LabelSums)


def add_to_rows(
    connection: Connection, rows: Summed[S], added: Mapping[tuple[int, int], S], version: str, shard: int
) -> None:
    """Add sums, by series and minute, to the rows of a classifier version and source; those that are new begin."""
    if not added:
        return
    own: dict[str, Any] = {"classifier_version": version, "shard": shard}
    places = sorted(added)
    whole = {
        (series_id, minute): rows.kind.unpack(stored)
        for series_id, minute, stored in _stored(connection, rows.table, places, own)
    }
    for place in places:  # what is stored was first; to nothing is added, too, for it is then that sums are bounded
        whole[place] = whole.get(place, rows.kind.zero()) + added[place]
    columns: dict[str, list[Any]] = {
        "series_id": [series_id for series_id, _ in places],
        "minute": [minute for _, minute in places],
        "n": [whole[p].n for p in places],
        "sums": [whole[p].pack() for p in places],
    }
    if connection.dialect.name == "postgresql":
        values = {name: array(of) for name, of in columns.items()}
        connection.execute(_write(rows.table.name), values | own)
        return
    upsert_rows(connection, rows.table, [row | own for row in as_rows(columns, len(places))])


def upsert_rows(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of sums in place of those that there are."""
    upsert = insert(table, connection)
    changed = {"n": upsert.excluded.n, "sums": upsert.excluded.sums}
    keys = [c.name for c in table.primary_key]
    connection.execute(upsert.on_conflict_do_update(index_elements=keys, set_=changed), rows)


@cache
def _read(table: str) -> TextClause:
    # FOR UPDATE: not rolled up between this and the end of the transaction. LATERAL: by the key, one by one
    return text(
        "SELECT p.series_id, p.minute, b.sums "
        "FROM unnest(CAST(:series_id AS bigint[]), CAST(:minute AS integer[])) AS p (series_id, minute) "
        f"CROSS JOIN LATERAL (SELECT sums FROM {table} WHERE series_id = p.series_id AND minute = p.minute "
        "AND classifier_version = :classifier_version AND shard = :shard FOR UPDATE) AS b"
    )


@cache
def _write(table: str) -> TextClause:
    return text(
        f"INSERT INTO {table} (series_id, classifier_version, minute, shard, n, sums) "
        "SELECT series_id, :classifier_version, minute, :shard, n, sums FROM unnest(CAST(:series_id AS bigint[]), "
        "CAST(:minute AS integer[]), CAST(:n AS bigint[]), CAST(:sums AS bytea[])) AS p (series_id, minute, n, sums) "
        "ON CONFLICT (series_id, classifier_version, minute, shard) DO UPDATE SET n = excluded.n, sums = excluded.sums"
    )


def _stored(
    connection: Connection, table: Table, places: Sequence[tuple[int, int]], own: dict[str, Any]
) -> Iterator[Any]:
    """(series, minute, sums) of those that there are."""
    if connection.dialect.name == "postgresql":
        wanted = {"series_id": array(p[0] for p in places), "minute": array(p[1] for p in places)}
        yield from connection.execute(_read(table.name), {**wanted, **own})
        return
    for start in range(0, len(places), IN_LIST):
        query = select(table.c.series_id, table.c.minute, table.c.sums).where(
            tuple_(table.c.series_id, table.c.minute).in_(places[start : start + IN_LIST]),
            *(table.c[name] == value for name, value in own.items()),
        )
        yield from connection.execute(query)

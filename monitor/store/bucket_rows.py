"""Sums into the bucket rows of one source: read, added to, written back under their locks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select, text, tuple_

from monitor.buckets import Sums
from monitor.store import schema
from monitor.store.bulk import array, as_rows
from monitor.store.database import insert

_IN_LIST: Final = 500
"""Keys in one IN (...): well under every driver's limit on parameters."""

# FOR UPDATE: not rolled up into an hour between this and the end of the transaction. LATERAL: by the key, one by one
_READ_BUCKETS: Final = text(
    "SELECT p.series_id, p.minute, b.sums "
    "FROM unnest(CAST(:series_id AS bigint[]), CAST(:minute AS integer[])) AS p (series_id, minute) "
    "CROSS JOIN LATERAL (SELECT sums FROM buckets WHERE series_id = p.series_id AND minute = p.minute "
    "AND classifier_version = :classifier_version AND shard = :shard FOR UPDATE) AS b"
)
_WRITE_BUCKETS: Final = text(
    "INSERT INTO buckets (series_id, classifier_version, minute, shard, n, sums) "
    "SELECT series_id, :classifier_version, minute, :shard, n, sums FROM unnest(CAST(:series_id AS bigint[]), "
    "CAST(:minute AS integer[]), CAST(:n AS bigint[]), CAST(:sums AS bytea[])) AS p (series_id, minute, n, sums) "
    "ON CONFLICT (series_id, classifier_version, minute, shard) DO UPDATE SET n = excluded.n, sums = excluded.sums"
)


def add_to_buckets(connection: Connection, added: Mapping[tuple[int, int], Sums], version: str, shard: int) -> None:
    """Add sums, by series and minute, to the buckets of a classifier version and source; those that are new begin."""
    own: dict[str, Any] = {"classifier_version": version, "shard": shard}
    places = sorted(added)
    whole = dict(added)
    for series_id, minute, stored in _stored(connection, places, own):
        whole[series_id, minute] = whole[series_id, minute] + Sums.unpack(stored)
    columns: dict[str, list[Any]] = {
        "series_id": [series_id for series_id, _ in places],
        "minute": [minute for _, minute in places],
        "n": [whole[p].n for p in places],
        "sums": [whole[p].pack() for p in places],
    }
    if connection.dialect.name == "postgresql":
        connection.execute(_WRITE_BUCKETS, {name: array(values) for name, values in columns.items()} | own)
        return
    table = schema.buckets
    upsert = insert(table, connection)
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=[c.name for c in table.primary_key],
            set_={"n": upsert.excluded.n, "sums": upsert.excluded.sums},
        ),
        [row | own for row in as_rows(columns, len(places))],
    )


def _stored(connection: Connection, places: Sequence[tuple[int, int]], own: dict[str, Any]) -> Iterator[Any]:
    """(series, minute, sums) of those that there are."""
    if connection.dialect.name == "postgresql":
        wanted = {"series_id": array(p[0] for p in places), "minute": array(p[1] for p in places)}
        yield from connection.execute(_READ_BUCKETS, {**wanted, **own})
        return
    table = schema.buckets
    for start in range(0, len(places), _IN_LIST):
        query = select(table.c.series_id, table.c.minute, table.c.sums).where(
            tuple_(table.c.series_id, table.c.minute).in_(places[start : start + _IN_LIST]),
            *(table.c[name] == value for name, value in own.items()),
        )
        yield from connection.execute(query)

"""The ledger of event ids, which makes every event count once, and the dead letters: all that was not counted, and why.

Its functions take part in the transaction of a chunk (monitor.store.writes).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sqlalchemy import Connection, Engine, select, text

from monitor.store import schema
from monitor.store.bulk import IN_LIST, Rows, Values
from monitor.store.database import insert
from monitor.store.retry import persistent
from monitor.transcript import Event

BAD: Final = "bad"
DUPLICATE: Final = "duplicate"

_TEMPORARY: Final = text(
    "CREATE TEMPORARY TABLE incoming_keys (event_id text, offset_id bigint, line bigint) ON COMMIT DROP"
)
# in the order of Python's sort, as every writer's: they wait for each other's ids, and never in a circle
_ENTER: Final = text(
    "INSERT INTO event_keys (event_id, offset_id, line) SELECT event_id, offset_id, line FROM incoming_keys "
    'ORDER BY event_id COLLATE "C" ON CONFLICT DO NOTHING RETURNING event_id'
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line that could not be counted; `payload_hash` is a keyed one of its bytes, None where they were not kept."""

    line: int
    position: int
    size: int
    kind: str
    reason: str
    payload_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event and where it stands in its source; `payload_hash` as of a dead letter."""

    event: Event
    line: int
    position: int
    size: int
    payload_hash: bytes | None = None


class NotAsExpected(Exception):
    """An event that seemed new is in the ledger after all, or the other way round: look at each."""


@persistent
def known_events(engine: Engine, event_ids: Sequence[str]) -> set[str]:
    """Which of the ids are in the ledger already: a cheap look before turns are judged."""
    table = schema.event_keys
    with engine.connect() as connection:
        return {
            found
            for start in range(0, len(event_ids), IN_LIST)
            for found in connection.execute(
                select(table.c.event_id).where(table.c.event_id.in_(event_ids[start : start + IN_LIST]))
            ).scalars()
        }


def entries(connection: Connection, offset_id: int, first: Mapping[str, Arrival], ids: Collection[str]) -> Rows:
    """Rows of the ledger for these of the ids, in order."""
    ordered = sorted(ids)
    columns: dict[str, Values] = {
        "event_id": ordered,
        "offset_id": np.full(len(ordered), offset_id),
        "line": [first[k].line for k in ordered],
    }
    return Rows(connection, schema.event_keys, columns, len(ordered))


def enter(connection: Connection, offset_id: int, first: Mapping[str, Arrival]) -> set[str]:
    """Enter ids into the ledger, in order; returns those that were not in it."""
    if not first:
        return set()
    if connection.dialect.name == "postgresql":
        connection.execute(_TEMPORARY)
        entries(connection, offset_id, first, first).add(into="incoming_keys")
        return set(connection.execute(_ENTER).scalars())
    table = schema.event_keys
    statement = insert(table, connection).on_conflict_do_nothing().returning(table.c.event_id)
    rows = [{"event_id": k, "offset_id": offset_id, "line": first[k].line} for k in sorted(first)]
    return set(connection.execute(statement, rows).scalars())


def duplicates(connection: Connection, repeated: Sequence[Arrival], *, surely: bool) -> list[DeadLetter]:
    """Dead letters that say where each was seen first.

    Raises
    ------
    NotAsExpected : one that is surely a duplicate is not in the ledger.
    """
    seen = _first_seen(connection, [a.event.event_id for a in repeated])
    if surely and any(a.event.event_id not in seen for a in repeated):
        raise NotAsExpected
    return [
        DeadLetter(
            a.line,
            a.position,
            a.size,
            DUPLICATE,
            f"duplicate of event {a.event.event_id}, first seen at {seen.get(a.event.event_id, '?')}"[:500],
            a.payload_hash,
        )
        for a in repeated
    ]


def keep(connection: Connection, offset_id: int, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Store dead letters; returns those that were not on record, as damage at the end of a file may be."""
    if not letters:
        return []
    table = schema.dead_letters
    kept = set(
        connection.execute(
            insert(table, connection).on_conflict_do_nothing().returning(table.c.line),
            [
                {
                    "offset_id": offset_id,
                    "line": d.line,
                    "position": d.position,
                    "size": d.size,
                    "kind": d.kind,
                    "reason": d.reason,
                    "payload_hash": d.payload_hash,
                }
                for d in letters
            ],
        ).scalars()
    )
    return [d for d in letters if d.line in kept]


def take_back(connection: Connection, offset_id: int, lines: Sequence[int]) -> int:
    """Take bad lines' dead letters away; returns how many there were."""
    t = schema.dead_letters
    gone = 0
    for start in range(0, len(lines), IN_LIST):
        these = t.c.line.in_(lines[start : start + IN_LIST])
        gone += connection.execute(t.delete().where(t.c.offset_id == offset_id, t.c.kind == BAD, these)).rowcount
    return gone


def _first_seen(connection: Connection, event_ids: Sequence[str]) -> dict[str, str]:
    keys, offsets = schema.event_keys, schema.offsets
    found: dict[str, str] = {}
    for start in range(0, len(event_ids), IN_LIST):
        query = (
            select(keys.c.event_id, offsets.c.source, keys.c.line)
            .join_from(keys, offsets, keys.c.offset_id == offsets.c.id)
            .where(keys.c.event_id.in_(event_ids[start : start + IN_LIST]))
        )
        found |= {event_id: f"{source}:{line}" for event_id, source, line in connection.execute(query)}
    return found

"""A chunk of a source into the store, in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
from sqlalchemy import Connection, Engine, func, select, tuple_, update

from monitor.buckets import Q_UNIT, Sums, to_fixed_point
from monitor.engine import Judged, SeriesKey, fold, series_of
from monitor.errors import StoreError
from monitor.store import schema
from monitor.store.database import insert, shown, writing
from monitor.taxonomy import BEHAVIOURS, FACTORS
from monitor.transcript import Event

BAD: Final = "bad"
DUPLICATE: Final = "duplicate"
_IN_LIST: Final = 500
"""Keys in one IN (...): well under every driver's limit on parameters."""


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a source has been read, and what came of it: events = judged + duplicates + dead_letters."""

    id: int
    source: str
    fingerprint: str = ""
    format: str | None = None
    position: int = 0
    line: int = 0
    events: int = 0
    judged: int = 0
    turns: int = 0
    duplicates: int = 0
    dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line that could not be counted."""

    line: int
    position: int
    size: int
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoredReview:
    """The judge's label of a turn, or why it has none."""

    event_id: str
    turn: int
    label: str | None
    confidence: float | None
    refused: str | None
    model: str
    rubric_version: str
    choice_probability: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event and where it stands in its source."""

    event: Event
    line: int
    position: int
    size: int


def open_offset(engine: Engine, source: str) -> Offset:
    """The source's offset, created at the start when the source is new."""
    table = schema.offsets
    with writing(engine) as connection:
        row = connection.execute(select(table).where(table.c.source == source)).mappings().first()
        if row is not None:
            return Offset(**row)
        fresh = Offset(id=0, source=source)
        values = {k: getattr(fresh, k) for k in Offset.__slots__ if k != "id"}
        key = connection.execute(table.insert().values(values).returning(table.c.id)).scalar_one()
        return replace(fresh, id=key)


def known_events(engine: Engine, event_ids: Sequence[str]) -> set[str]:
    """Which of the ids are in the ledger already: a cheap look before turns are judged."""
    table = schema.event_keys
    with engine.connect() as connection:
        return {
            found
            for start in range(0, len(event_ids), _IN_LIST)
            for found in connection.execute(
                select(table.c.event_id).where(table.c.event_id.in_(event_ids[start : start + _IN_LIST]))
            ).scalars()
        }


class ChunkWriter:
    """Stores chunks of one source: ledger, turns, buckets, dead letters and the offset in ONE transaction each.

    Killed anywhere, what was committed is counted once and the rest not at all. Two writers of one source are told
    apart by the offset, which each must find as it left it.
    """

    def __init__(self, engine: Engine, offset: Offset, *, hash_key: bytes, series_by: Sequence[str], max_series: int):
        self._engine = engine
        self.offset = offset
        self._hash_key = hash_key
        self._series_by = series_by
        self._max_series = max_series
        self._series_ids: dict[SeriesKey, int] = {}

    def write(
        self,
        arrivals: Sequence[Arrival],
        judged: Judged | None,
        bad: Sequence[DeadLetter],
        *,
        reviews: Sequence[StoredReview] = (),
        position: int,
        line: int,
        fingerprint: str,
        format: str | None,
    ) -> Offset:
        """Commit a chunk.

        Parameters
        ----------
        arrivals : every well-formed event of the chunk, duplicates included, in order.
        judged : judgements of the turns of those arrivals that may be new; None when there are none.
        bad : lines that are not events.
        reviews : the judge's, of some of those turns.
        position, line, fingerprint, format : the source's new offset.

        Raises
        ------
        StoreError : another process advanced this source meanwhile.
        """
        before = self.offset
        with writing(self._engine) as connection:
            new, dead = self._claim(connection, arrivals)
            letters = self._keep(connection, [*bad, *dead])
            rows = [] if judged is None else [i for i, t in enumerate(judged.turns) if t.event.event_id in new]
            if judged is not None and rows:
                self._store_turns(connection, judged, rows, new)
                self._store_second(connection, judged, rows)
                kept = [asdict(r) for r in reviews if r.event_id in new]
                if kept:
                    connection.execute(schema.reviews.insert(), kept)
                self._add_buckets(connection, judged, rows)
            after = replace(
                before,
                fingerprint=fingerprint,
                format=format,
                position=position,
                line=line,
                events=before.events + len(new) + len(letters),
                judged=before.judged + len(new),
                turns=before.turns + len(rows),
                duplicates=before.duplicates + sum(d.kind == DUPLICATE for d in letters),
                dead_letters=before.dead_letters + sum(d.kind == BAD for d in letters),
            )
            table = schema.offsets
            moved = connection.execute(
                update(table)
                .where(table.c.id == before.id, table.c.position == before.position, table.c.events == before.events)
                .values({k: getattr(after, k) for k in Offset.__slots__ if k != "id"})
            )
            if moved.rowcount != 1:
                raise StoreError(
                    f"{before.source} is being read into {shown(self._engine)} by another process; stop one of the two"
                )
        self.offset = after
        return after

    def _claim(
        self, connection: Connection, arrivals: Sequence[Arrival]
    ) -> tuple[dict[str, Arrival], list[DeadLetter]]:
        """Enter events into the ledger; returns those that are new by id, and dead letters for the others."""
        first: dict[str, Arrival] = {}
        dead: list[DeadLetter] = []
        repeated: list[Arrival] = []
        for a in arrivals:
            if a.event.event_id in first:
                repeated.append(a)
            elif self._series_id(connection, series_of(a.event, self._series_by)) is None:
                reason = f"more than {self._max_series} series; raise input.max_series or name fewer deployments"
                dead.append(DeadLetter(a.line, a.position, a.size, BAD, reason))
            else:
                first[a.event.event_id] = a
        claimed: set[str] = set()
        if first:
            table = schema.event_keys
            claimed = set(
                connection.execute(
                    insert(table, connection).on_conflict_do_nothing().returning(table.c.event_id),
                    [{"event_id": k, "offset_id": self.offset.id, "line": a.line} for k, a in sorted(first.items())],
                ).scalars()
            )
        repeated += [a for k, a in first.items() if k not in claimed]
        if repeated:
            seen = self._first_seen(connection, [a.event.event_id for a in repeated])
            for a in repeated:
                reason = f"duplicate of event {a.event.event_id}, first seen at {seen.get(a.event.event_id, '?')}"
                dead.append(DeadLetter(a.line, a.position, a.size, DUPLICATE, reason[:500]))
        return {k: a for k, a in first.items() if k in claimed}, dead

    def _keep(self, connection: Connection, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Store dead letters; returns those that were not on record, as damage at the end of a file may be."""
        if not letters:
            return []
        table = schema.dead_letters
        kept = set(
            connection.execute(
                insert(table, connection).on_conflict_do_nothing().returning(table.c.line),
                [
                    {
                        "offset_id": self.offset.id,
                        "line": d.line,
                        "position": d.position,
                        "size": d.size,
                        "kind": d.kind,
                        "reason": d.reason,
                    }
                    for d in letters
                ],
            ).scalars()
        )
        return [d for d in letters if d.line in kept]

    def _first_seen(self, connection: Connection, event_ids: Sequence[str]) -> dict[str, str]:
        keys, offsets = schema.event_keys, schema.offsets
        found: dict[str, str] = {}
        for start in range(0, len(event_ids), _IN_LIST):
            query = (
                select(keys.c.event_id, offsets.c.source, keys.c.line)
                .join_from(keys, offsets)
                .where(keys.c.event_id.in_(event_ids[start : start + _IN_LIST]))
            )
            found |= {event_id: f"{source}:{line}" for event_id, source, line in connection.execute(query)}
        return found

    def _series_id(self, connection: Connection, key: SeriesKey) -> int | None:
        have = self._series_ids.get(key)
        if have is not None:
            return have
        table = schema.series
        values = {"deployment": key.deployment, "model": key.model, "labels": json.dumps(key.labels)}
        wanted = select(table.c.id).filter_by(**values)
        found = connection.execute(wanted).scalar_one_or_none()
        if found is None:
            if connection.execute(select(func.count()).select_from(table)).scalar_one() >= self._max_series:
                return None
            connection.execute(insert(table, connection).values(values).on_conflict_do_nothing())
            found = connection.execute(wanted).scalar_one()
        self._series_ids[key] = int(found)
        return int(found)

    def _store_turns(
        self, connection: Connection, judged: Judged, rows: Sequence[int], new: Mapping[str, Arrival]
    ) -> None:
        q, factors = judged.q.tolist(), judged.factors.tolist()
        doubt = np.rint(judged.doubt * Q_UNIT).astype(np.int64).tolist()
        connection.execute(
            schema.turns.insert(),
            [
                {
                    "event_id": turn.event.event_id,
                    "turn": turn.index,
                    "series_id": self._series_ids[judged.series[i]],
                    "ts": turn.event.ts,
                    "conversation_id": turn.event.conversation_id,
                    "line": new[turn.event.event_id].line,
                    "weight": 1.0 / turn.event.sample_rate,
                    "classifier_version": judged.version,
                    "tier": judged.tier,
                    **{f"q_{b}": q[i][k] for k, b in enumerate(BEHAVIOURS)},
                    **{f"f_{f}": factors[i][k] for k, f in enumerate(FACTORS)},
                    "doubt": doubt[i],
                    "text_hash": hashlib.blake2b(
                        turn.answer.encode("utf-8", "surrogatepass"), key=self._hash_key, digest_size=16
                    ).digest(),
                }
                for i, turn in ((i, judged.turns[i]) for i in rows)
            ],
        )

    def _store_second(self, connection: Connection, judged: Judged, rows: Sequence[int]) -> None:
        """Second judgements of the chosen rows."""
        second = judged.second
        if second is None:
            return
        stored = set(rows)
        q = to_fixed_point(second.probabilities).tolist()
        values = [
            {
                "event_id": judged.turns[i].event.event_id,
                "turn": judged.turns[i].index,
                "classifier_version": second.version,
                **{f"q_{b}": q[j][k] for k, b in enumerate(BEHAVIOURS)},
                "doubt": round(float(second.doubt[j]) * Q_UNIT),
                "choice_probability": float(second.choice_probability[j]),
            }
            for j, i in enumerate(second.rows.tolist())
            if i in stored
        ]
        if values:
            connection.execute(schema.second_judgements.insert(), values)

    def _add_buckets(self, connection: Connection, judged: Judged, rows: Sequence[int]) -> None:
        table = schema.buckets
        added = {(self._series_ids[key], minute): sums for (key, minute), sums in fold(judged, rows).items()}
        places = sorted(added)
        for start in range(0, len(places), _IN_LIST):
            part = places[start : start + _IN_LIST]
            have = connection.execute(
                select(table.c.series_id, table.c.minute, table.c.sums).where(
                    tuple_(table.c.series_id, table.c.minute).in_(part),
                    table.c.shard == self.offset.id,
                    table.c.classifier_version == judged.version,
                )
            )
            for series_id, minute, sums in have:
                added[series_id, minute] = added[series_id, minute] + Sums.unpack(sums)
        upsert = insert(table, connection)
        connection.execute(
            upsert.on_conflict_do_update(
                index_elements=[c.name for c in table.primary_key],
                set_={"n": upsert.excluded.n, "sums": upsert.excluded.sums},
            ),
            [
                {
                    "series_id": series_id,
                    "classifier_version": judged.version,
                    "minute": minute,
                    "shard": self.offset.id,
                    "n": added[series_id, minute].n,
                    "sums": added[series_id, minute].pack(),
                }
                for series_id, minute in places
            ],
        )

"""A chunk of a source into the store, in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
from sqlalchemy import Connection, Engine, bindparam, func, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from monitor.buckets import Q_UNIT, to_fixed_point
from monitor.engine import Judged, SeriesKey, fold, fold_labels, series_of
from monitor.errors import StoreError
from monitor.store import ledger, schema
from monitor.store.bucket_rows import BUCKETS, LABEL_SUMS, add_to_rows
from monitor.store.bulk import IN_LIST, Rows, Values
from monitor.store.database import insert, shown, writing
from monitor.store.ledger import BAD, DUPLICATE, Arrival, DeadLetter
from monitor.store.partitions import ensure_months, forget_made, month_of
from monitor.store.retry import persistent, retrying
from monitor.taxonomy import BEHAVIOURS, FACTORS
from monitor.trajectory import MINUTES_PER_DAY
from monitor.transcript import time_of

_SERIES_LOCK: Final = 0x736572696573
"""PostgreSQL advisory lock under which series are created, so that no more are than allowed."""

_LOCK_OFFSET: Final = select(schema.offsets).where(schema.offsets.c.id == bindparam("key")).with_for_update()
_MOVE_OFFSET: Final = update(schema.offsets).where(schema.offsets.c.id == bindparam("key"))


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
    newest_ts: datetime | None = None
    """Event time of its newest event."""


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a chunk: the source's new offset, and all of the chunk that was not counted."""

    offset: Offset
    dead: list[DeadLetter]


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
class StoredText:
    """Redacted excerpts of a turn: of the request before it, and of the answer."""

    ts: datetime
    event_id: str
    turn: int
    request: str
    answer: str


@persistent
def open_offset(engine: Engine, source: str) -> Offset:
    """The source's offset, created at the start when the source is new."""
    table = schema.offsets
    fresh = asdict(Offset(id=0, source=source))
    del fresh["id"]
    with writing(engine) as connection:
        wanted = select(table).where(table.c.source == source)
        row = connection.execute(wanted).mappings().first()
        if row is None:
            connection.execute(insert(table, connection).values(fresh).on_conflict_do_nothing())
            row = connection.execute(wanted).mappings().one()
        return Offset(**row)


class ChunkWriter:
    """Stores chunks of one source: ledger, turns, sums, dead letters and the offset in ONE transaction each.

    Killed anywhere, what was committed is counted once and the rest not at all. Two writers of one source are told
    apart by the offset, which each must find as it left it. Writers of different sources never wait for each other in
    a circle: each takes its own offset, then ids of events in order, then rows that are its own.
    """

    def __init__(
        self,
        engine: Engine,
        offset: Offset,
        *,
        hash_key: bytes,
        series_by: Sequence[str],
        max_series: int,
        labels: Sequence[str] = (),
    ) -> None:
        """`labels` are those whose values have sums of their own (monitor.label_sums)."""
        self._engine = engine
        self.offset = offset
        self._hash_key = hash_key
        self._series_by = series_by
        self._max_series = max_series
        self._labels = labels
        self._series_ids: dict[SeriesKey, int] = {}

    def write(
        self,
        arrivals: Sequence[Arrival],
        judged: Judged | None,
        bad: Sequence[DeadLetter],
        *,
        reviews: Sequence[StoredReview] = (),
        texts: Sequence[StoredText] = (),
        settled: Sequence[int] = (),
        position: int,
        line: int,
        fingerprint: str,
        format: str | None,
    ) -> Written:
        """Commit a chunk, however often it takes (monitor.store.retry).

        Parameters
        ----------
        arrivals : every well-formed event of the chunk, duplicates included, in order.
        judged : judgements of the turns of those arrivals that may be new; None when there are none.
        bad : lines that are not events.
        reviews : the judge's, of some of those turns.
        texts : excerpts of some of those turns.
        settled : lines whose dead letters go: the chunk has what became of them.
        position, line, fingerprint, format : the source's new offset.

        Raises
        ------
        StoreError : another process advanced this source meanwhile, or the database stays away.
        """
        before = self.offset
        read = replace(before, position=position, line=line, fingerprint=fingerprint, format=format)
        sent: list[Written] = []
        tries = 0
        days = set() if judged is None else {minute // MINUTES_PER_DAY for minute in judged.minutes}
        known = {} if judged is None else {id(t.event): s for t, s in zip(judged.turns, judged.series, strict=True)}
        placed = [(a, known.get(id(a.event)) or series_of(a.event, self._series_by)) for a in arrivals]
        # on PostgreSQL: judged is what was not in the ledger a moment ago, and will mostly be what is new
        expected: set[str] | None = None
        if judged is not None and self._engine.dialect.name == "postgresql":
            expected = {t.event.event_id for t in judged.turns}

        def attempt() -> Written:
            nonlocal tries, expected
            tries += 1
            if tries > 1:
                forget_made(self._engine)
            self._know_series(key for _, key in placed)
            ensure_months(self._engine, "turns", {month_of(time_of(day * MINUTES_PER_DAY)) for day in days})
            ensure_months(self._engine, "turn_texts", {month_of(t.ts) for t in texts})
            try:
                return transaction()
            except ledger.NotAsExpected:
                expected = None
                return transaction()

        def transaction() -> Written:
            with writing(self._engine) as connection:
                stored = self._stored_offset(connection)
                for written in sent:  # was the connection lost during a COMMIT that came through?
                    if stored == written.offset:
                        return written
                if stored != before:
                    raise StoreError(
                        f"{before.source} is being read into {shown(self._engine)} by another process; "
                        "stop one of the two"
                    )
                gone = ledger.take_back(connection, before.id, settled)
                base = replace(read, events=read.events - gone, dead_letters=read.dead_letters - gone)
                written = self._store(connection, placed, judged, bad, reviews, texts, base, expected)
                sent.append(written)
            return written

        written = retrying(self._engine, attempt)
        self.offset = written.offset
        return written

    def _stored_offset(self, connection: Connection) -> Offset:
        """The source's offset in the store, which nobody else can move until this transaction ends."""
        return Offset(**connection.execute(_LOCK_OFFSET, {"key": self.offset.id}).mappings().one())

    def _store(
        self,
        connection: Connection,
        placed: Sequence[tuple[Arrival, SeriesKey]],
        judged: Judged | None,
        bad: Sequence[DeadLetter],
        reviews: Sequence[StoredReview],
        texts: Sequence[StoredText],
        read: Offset,
        expected: Collection[str] | None,
    ) -> Written:
        """All rows of a chunk, and the offset with what came of it."""
        first, refused, repeated = self._sorted(placed)
        if expected is None or judged is None:
            claimed = ledger.enter(connection, read.id, first)
            rows = [] if judged is None else [i for i, t in enumerate(judged.turns) if t.event.event_id in claimed]
            turns = self._turns(connection, judged, rows, first) if judged is not None and rows else None
        else:
            claimed = first.keys() & expected
            rows = [i for i, t in enumerate(judged.turns) if t.event.event_id in claimed]
            try:
                with ledger.entries(connection, read.id, first, claimed).adding():
                    turns = self._turns(connection, judged, rows, first) if rows else None
            except IntegrityError as e:
                raise ledger.NotAsExpected from e
        new = {k: a for k, a in first.items() if k in claimed}
        repeated += [a for k, a in first.items() if k not in claimed]
        letters = [*bad, *refused, *ledger.duplicates(connection, repeated, surely=expected is not None)]
        kept = ledger.keep(connection, read.id, letters)
        if judged is not None and turns is not None:
            with turns.adding():
                sums = {(self._series_ids[k], at): s for (k, at), s in fold(judged, rows).items()}
                of_labels = fold_labels(judged, rows, self._labels)
                by_label = {(self._series_ids[k], at): s for (k, at), s in of_labels.items()}
            add_to_rows(connection, BUCKETS, sums, judged.version, shard=self.offset.id)
            add_to_rows(connection, LABEL_SUMS, by_label, judged.version, shard=self.offset.id)
            self._store_second(connection, judged, rows)
            said = [asdict(r) for r in reviews if r.event_id in new]
            if said:
                connection.execute(schema.reviews.insert(), said)
            _store_texts(connection, [t for t in texts if t.event_id in new])
        times = [] if read.newest_ts is None else [read.newest_ts]
        after = replace(
            read,
            events=read.events + len(new) + len(kept),
            judged=read.judged + len(new),
            turns=read.turns + len(rows),
            duplicates=read.duplicates + sum(d.kind == DUPLICATE for d in kept),
            dead_letters=read.dead_letters + sum(d.kind == BAD for d in kept),
            newest_ts=max([*times, *(a.event.ts for a in new.values())], default=None),
        )
        connection.execute(_MOVE_OFFSET, {"key": after.id, **asdict(after)})
        return Written(after, letters)

    def _sorted(
        self, placed: Sequence[tuple[Arrival, SeriesKey]]
    ) -> tuple[dict[str, Arrival], list[DeadLetter], list[Arrival]]:
        """Arrivals of each id that come first, dead letters for those whose series has no room, and repeated ones."""
        first: dict[str, Arrival] = {}
        refused: list[DeadLetter] = []
        repeated: list[Arrival] = []
        for a, key in placed:
            if a.event.event_id in first:
                repeated.append(a)
            elif key not in self._series_ids:
                reason = f"more than {self._max_series} series; raise input.max_series or name fewer deployments"
                refused.append(DeadLetter(a.line, a.position, a.size, BAD, reason, a.payload_hash))
            else:
                first[a.event.event_id] = a
        return first, refused, repeated

    def _know_series(self, keys: Iterable[SeriesKey]) -> None:
        """Numbers of the series, of which new ones are created as long as there is room for more.

        In a transaction of its own: two chunks that name the same new series would else wait for each other until both
        are done, which is never when they name two of them in opposite order.
        """
        unknown = {k: None for k in keys if k not in self._series_ids}  # in order of arrival
        if not unknown:
            return
        table = schema.series
        with writing(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_SERIES_LOCK)))
            self._series_ids |= self._find_series(connection, unknown)
            missing = [k for k in unknown if k not in self._series_ids]
            if not missing:
                return
            room = self._max_series - connection.execute(select(func.count()).select_from(table)).scalar_one()
            created = missing[: max(0, room)]
            if created:
                connection.execute(table.insert(), [_series_row(k) for k in created])
                self._series_ids |= self._find_series(connection, created)

    def _find_series(self, connection: Connection, keys: Collection[SeriesKey]) -> dict[SeriesKey, int]:
        table = schema.series
        wanted = {tuple(_series_row(k).values()): k for k in keys}
        names = list(wanted)
        found: dict[SeriesKey, int] = {}
        for start in range(0, len(names), IN_LIST):
            query = select(table.c.deployment, table.c.model, table.c.labels, table.c.id).where(
                tuple_(table.c.deployment, table.c.model, table.c.labels).in_(names[start : start + IN_LIST])
            )
            found |= {wanted[tuple(name)]: key for *name, key in connection.execute(query)}
        return found

    def _turns(self, connection: Connection, judged: Judged, rows: Sequence[int], first: Mapping[str, Arrival]) -> Rows:
        turns = [judged.turns[i] for i in rows]
        events = [t.event for t in turns]
        key = hashlib.blake2b(key=self._hash_key, digest_size=16)
        hashes = []
        for turn in turns:
            h = key.copy()
            h.update(turn.answer.encode("utf-8", "surrogatepass"))
            hashes.append(h.digest())
        q, factors = judged.q[rows], judged.factors[rows]
        columns: dict[str, Values] = {
            "event_id": [e.event_id for e in events],
            "turn": [t.index for t in turns],
            "ts": [e.ts for e in events],
            "series_id": [self._series_ids[judged.series[i]] for i in rows],
            "conversation_id": [e.conversation_id for e in events],
            "line": [first[e.event_id].line for e in events],
            "weight": [1.0 / e.sample_rate for e in events],
            "classifier_version": judged.version,
            "tier": judged.tier,
            **{f"q_{b}": q[:, k] for k, b in enumerate(BEHAVIOURS)},
            **{f"f_{f}": factors[:, k] for k, f in enumerate(FACTORS)},
            "doubt": np.rint(judged.doubt[rows] * Q_UNIT).astype(np.int64),
            "text_hash": hashes,
        }
        return Rows(connection, schema.turns, columns, len(rows))

    def _store_second(self, connection: Connection, judged: Judged, rows: Sequence[int]) -> None:
        """Second judgements of the chosen rows."""
        second = judged.second
        if second is None:
            return
        chosen = np.isin(second.rows, rows)
        turns = [judged.turns[i] for i in second.rows[chosen].tolist()]
        if not turns:
            return
        q = to_fixed_point(second.probabilities)[chosen]
        columns: dict[str, Values] = {
            "event_id": [t.event.event_id for t in turns],
            "turn": [t.index for t in turns],
            "classifier_version": second.version,
            **{f"q_{b}": q[:, k] for k, b in enumerate(BEHAVIOURS)},
            "doubt": np.rint(second.doubt[chosen] * Q_UNIT).astype(np.int64),
            "choice_probability": second.choice_probability[chosen],
        }
        Rows(connection, schema.second_judgements, columns, len(turns)).add()


def _store_texts(connection: Connection, texts: Sequence[StoredText]) -> None:
    if not texts:
        return
    names = ("ts", "event_id", "turn", "request", "answer")
    columns: dict[str, Values] = {name: [getattr(t, name) for t in texts] for name in names}
    Rows(connection, schema.turn_texts, columns, len(texts)).add()


def _series_row(key: SeriesKey) -> dict[str, str]:
    return {"deployment": key.deployment, "model": key.model, "labels": json.dumps(key.labels)}

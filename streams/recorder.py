"""Records of a topic's partitions into the database, each partition a source with its position there.

Data flows  delivered records -> `continuity` (which of them come next) -> `Intake` (decode, judge, one transaction) ->
`Stored` (where to read on, and what to tell the dead-letter topic).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, select

from monitor.config import Config
from monitor.errors import StoreError, StoreUnreachable
from monitor.intake import Intake, store_by_halves
from monitor.logs import get_logger
from monitor.store import schema
from monitor.store.ledger import BAD, Arrival, DeadLetter
from monitor.store.retry import reading
from monitor.store.writes import ChunkWriter, Offset, open_offset
from monitor.transcript import MAX_NAME
from streams import headers as names
from streams.continuity import Continuity
from streams.formats import FORMATS, Decoder
from streams.headers import Headers, text_of
from streams.lines import CHUNK_BYTES, Line
from streams.reasons import printable

DECODERS: Final = 256

_log: Final = get_logger(__name__)


class Record(NamedTuple):
    """One record of a partition."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Refused(NamedTuple):
    """A record that became a dead letter, and why."""

    partition: int
    record: Record
    reason: str


@dataclass(slots=True)
class Stored:
    """What came of delivered records of a partition.

    Attributes
    ----------
    position : the next offset to be counted.
    seek : records from there on are to be read again.
    """

    position: int
    seek: bool = False
    refused: list[Refused] = field(default_factory=list)


def source_name(cluster: str, topic: str, partition: int) -> str:
    """What a partition's position is kept under: the same however the brokers are addressed."""
    return f"kafka://{cluster}/{topic}/{partition}"


@dataclass(slots=True)
class _Partition:
    writer: ChunkWriter
    continuity: Continuity = field(default_factory=Continuity)


class Recorder:
    """Not for two threads at once."""

    def __init__(self, intake: Intake, cluster: str, topic: str, config: Config) -> None:
        self._intake = intake
        self._cluster = cluster
        self._topic = topic
        self._max_event_bytes = config.input.max_event_bytes
        self._batch_events = config.worker.batch_events
        self._format = None if config.input.format == "auto" else config.input.format
        self._partitions: dict[int, _Partition] = {}
        self._decoder = lru_cache(DECODERS)(intake.decoder)

    def positions(self, partitions: Collection[int]) -> dict[int, int]:
        """Where the database says each is to be read on. Raises StoreError."""
        return {p: self._open(p).writer.offset.position for p in partitions}

    def keep(self, partitions: Collection[int]) -> None:
        """Forget the others: they are somebody else's now."""
        self._partitions = {p: found for p, found in self._partitions.items() if p in partitions}

    def store(self, partition: int, records: Sequence[Record], epoch: int) -> Stored:
        """Commit those that come next; safe to call again with the same records, whatever was raised.

        Parameters
        ----------
        records : as delivered, at least one.
        epoch : changes whenever the flow of records was interrupted.

        Raises
        ------
        StoreError : the database stays away, or fails; what was committed till then is not taken again.
        """
        found = self._partitions.get(partition) or self._open(partition)
        before = found.writer.offset.position
        verdict = found.continuity.judge([r.offset for r in records], before, epoch)
        if verdict.anew:
            return Stored(self._begin_anew(partition), seek=True)
        taken = records[verdict.start : verdict.stop]
        if taken and taken[0].offset > before > 0:
            _log.warning("records are missing", topic=self._topic, partition=partition, position=before)
        refused: list[Refused] = []
        for piece in _pieces(taken, self._batch_events):
            try:
                refused += self._store(partition, found.writer, piece)
            except StoreUnreachable:
                raise
            except StoreError:
                position = self._open(partition).writer.offset.position
                if position == found.writer.offset.position:
                    raise
                # another worker has the partition, or had it until now: what it counted is counted
                _log.info("partition moved on", topic=self._topic, partition=partition, position=position)
                return Stored(position, seek=True, refused=refused)
        return Stored(found.writer.offset.position, verdict.seek, refused)

    def _store(self, partition: int, writer: ChunkWriter, records: Sequence[Record]) -> list[Refused]:
        """One transaction, or more where a record breaks what judges or stores it: that becomes a dead letter."""

        def refuse(record: Record, reason: str) -> list[Refused]:
            line = _line(record, self._max_event_bytes)
            return self._commit(
                partition, writer, [record], [], [DeadLetter(line.number, line.offset, line.size, BAD, reason)]
            )

        return store_by_halves(
            records,
            lambda part: self._commit(partition, writer, part, *self._decoded(part)),
            refuse,
            lambda e, n: _log.error("batch failed", exc_info=e, items=n, topic=self._topic, partition=partition),
        )

    def _commit(
        self,
        partition: int,
        writer: ChunkWriter,
        records: Sequence[Record],
        arrivals: Sequence[Arrival],
        bad: Sequence[DeadLetter],
    ) -> list[Refused]:
        end = records[-1].offset + 1
        written = self._intake.store(writer, arrivals, bad, position=end, line=end)
        dead = {d.position: d.reason for d in written.dead if d.kind == BAD}
        return [Refused(partition, r, dead[r.offset]) for r in records if r.offset in dead] if dead else []

    def _decoded(self, records: Sequence[Record]) -> tuple[list[Arrival], list[DeadLetter]]:
        arrivals: list[Arrival] = []
        bad: list[DeadLetter] = []
        for decoder, group in groupby(records, key=self._decoder_of):
            lines = [_line(r, self._max_event_bytes) for r in group]
            # the keys of each line tell, where nothing else does
            for own, part in [(decoder, lines)] if decoder else [(self._intake.decoder(), [line]) for line in lines]:
                good, not_good = self._intake.decode(own, part)
                arrivals += good
                bad += not_good
        return arrivals, bad

    def _decoder_of(self, record: Record) -> Decoder | None:
        """The decoder for what the headers say; None where they say nothing."""
        format = text_of(record.headers, names.FORMAT)
        deployment = text_of(record.headers, names.DEPLOYMENT)
        format = self._format or (format if format in FORMATS else None)
        if format is None:
            return None
        return self._decoder(format, deployment if deployment and len(deployment) <= MAX_NAME else None)

    # -- sources ------------------------------------------------------------------------------------------------------

    def _open(self, partition: int) -> _Partition:
        """The partition's latest generation, as it is in the database now."""
        name = source_name(self._cluster, self._topic, partition)
        writer = self._intake.writer(open_offset(self._intake.engine, _named(name, self._generation(name))))
        before = self._partitions.get(partition)
        found = _Partition(writer) if before is None else _Partition(writer, before.continuity)
        self._partitions[partition] = found
        return found

    def _begin_anew(self, partition: int) -> int:
        """The topic was made anew, or cut: its records are a source of their own, and the ledger knows repeats."""
        name = source_name(self._cluster, self._topic, partition)
        generation = self._generation(name) + 1
        open_offset(self._intake.engine, _named(name, generation))
        _log.warning("partition begins anew", topic=self._topic, partition=partition, source=_named(name, generation))
        return self._open(partition).writer.offset.position

    def _generation(self, name: str) -> int:
        source = schema.offsets.c.source

        def later(connection: Connection) -> Sequence[str]:
            return (
                connection.execute(select(source).where(source.startswith(f"{name}#", autoescape=True))).scalars().all()
            )

        found = [re.fullmatch(r"#(\d{1,9})", s[len(name) :]) for s in reading(self._intake.engine, later)]
        return max((int(match[1]) for match in found if match), default=1)


def _named(name: str, generation: int) -> str:
    return name if generation == 1 else f"{name}#{generation}"


def _line(record: Record, max_bytes: int) -> Line:
    """A record as the line it was; its number and offset are those of the partition."""
    size = len(record.value or b"")
    problem: str | None = None
    if not record.value:
        problem = printable(text_of(record.headers, names.PROBLEM) or "the record is empty")
    elif size > max_bytes:
        problem = f"record of {size:,} bytes is over the limit of {max_bytes:,}"
    return Line(record.offset + 1, record.offset, size, None if problem else record.value, problem)


def _pieces(records: Sequence[Record], most: int) -> Iterator[Sequence[Record]]:
    """Parts of at most so many records and CHUNK_BYTES, but for single records."""
    start = size = 0
    for place, record in enumerate(records):
        here = len(record.value or b"")
        if place - start == most or (size + here > CHUNK_BYTES and place > start):
            yield records[start:place]
            start, size = place, 0
        size += here
    if start < len(records):
        yield records[start:]


def standings(engine: Engine, cluster: str, topic: str, partitions: Collection[int]) -> dict[int, Offset]:
    """How far each partition is counted, for those that ever were. Raises StoreError."""
    prefix = source_name(cluster, topic, 0)[:-1]
    table = schema.offsets

    def read(connection: Connection) -> list[Offset]:
        query = select(table).where(table.c.source.startswith(prefix, autoescape=True)).order_by(table.c.id)
        return [Offset(**row) for row in connection.execute(query).mappings()]

    found: dict[int, Offset] = {}
    for offset in reading(engine, read):  # later generations of a partition come later
        match = re.fullmatch(r"(\d{1,9})(?:#\d{1,9})?", offset.source[len(prefix) :])
        if match and int(match[1]) in partitions:
            found[int(match[1])] = offset
    return found

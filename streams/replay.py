"""A topic's records produced once more: what the database has already counts nothing, what it lacks is filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from kafka import TopicPartition

from monitor.errors import BrokerError, ConfigError
from monitor.service_settings import Kafka as Settings
from streams import headers as names
from streams.headers import Headers, text_of
from streams.kafka import consumer as connect
from streams.kafka import told
from streams.pipe import Parcel, Pipe, Record
from streams.times import time_of

POLL_MS: Final = 500
BEGINNING: Final = "beginning"

Begin = datetime | int | None
"""A time, an offset, or None for the oldest record there is."""


def begin_of(text: str, now: datetime) -> Begin:
    """Where to begin: "beginning", an offset, a time, or so long ago ("90m", "3h", "2d").

    Raises
    ------
    ConfigError : none of these.
    """
    if text == BEGINNING:
        return None
    return int(text) if re.fullmatch(r"\d{1,18}", text) else time_of(text, now)


@dataclass(slots=True)
class Replayed:
    """What became of the records in range."""

    read: int = 0
    replayed: int = 0
    copies: int = 0
    """Left out: copies made by an earlier replay of records that are in range themselves."""
    empty: int = 0
    """Left out: dead letters of which nothing was kept."""


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets of one partition, `end` excluded: what was there when the replay began."""

    start: int
    end: int


class Replay:
    """Copies a range of `source` to the transcripts topic: key, value and headers the same, with where it is from.

    Parameters
    ----------
    source : the topic to read: transcripts or dead letters.
    until : records produced at this time or later are left out.
    partition : only this one; needed where `begin` is an offset and the topic has several.

    Raises
    ------
    BrokerError : no broker, no topic, no right, or an offset that is not there.
    ConfigError : an offset without a partition.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        source: str,
        begin: Begin,
        *,
        until: datetime | None = None,
        partition: int | None = None,
    ) -> None:
        self.replayed = Replayed()
        self._settings = settings  # of the topic produced to
        self._environment = environment
        self._source = source
        self._since = int(begin.timestamp() * 1000) if isinstance(begin, datetime) else None
        self._until = None if until is None else int(until.timestamp() * 1000)
        self._consumer = connect(settings, environment)
        self._reading = msgspec.structs.replace(settings, topic=source)
        try:
            with told(self._reading):
                self.ranges = self._find(begin, partition)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._consumer.close(timeout_ms=0)

    def run(
        self,
        max_event_bytes: int,
        *,
        dry_run: bool,
        say: Callable[[str], None],
        on_progress: Callable[[Replayed], None] = lambda _: None,
    ) -> Replayed:
        """Read the ranges and produce what is in them; with `dry_run` only count. Raises BrokerError."""
        if dry_run:
            for records in self._read():
                self.replayed.replayed += len(records)
                on_progress(self.replayed)
            return self.replayed

        pipe = Pipe(
            self._settings,
            self._environment,
            max_event_bytes,
            retry_seconds=self._settings.retry_seconds,
            stopped=lambda: False,
            say=say,
        )
        with closing(pipe):
            for records in self._read():

                def done(n: int = len(records)) -> None:
                    self.replayed.replayed += n
                    on_progress(self.replayed)

                pipe.send(Parcel(records, done))
            pipe.drain()
        return self.replayed

    def _find(self, begin: Begin, only: int | None) -> dict[int, Range]:
        there = sorted(self._consumer.partitions_for_topic(self._source) or ())
        if not there:
            raise BrokerError(f"{self._source}: the topic does not exist; make it with: valuedrift kafka init")
        if only is not None and only not in there:
            raise BrokerError(f"{self._source}: partition {only} does not exist; there are 0 to {there[-1]}")
        if isinstance(begin, int) and only is None and len(there) > 1:
            raise ConfigError(
                f"{self._source} has {len(there)} partitions, each with offsets of its own: name one with --partition, "
                "or give a time"
            )
        partitions = [TopicPartition(self._source, p) for p in (there if only is None else [only])]
        oldest = self._consumer.beginning_offsets(partitions)
        ends = self._consumer.end_offsets(partitions)
        starts = dict(oldest)
        if isinstance(begin, int):
            [tp] = partitions
            if not oldest[tp] <= begin <= ends[tp]:
                raise BrokerError(
                    f"{self._source} partition {tp.partition}: offset {begin:,} is not there; it holds {oldest[tp]:,} "
                    f"to {ends[tp]:,} (--from beginning takes all)"
                )
            starts[tp] = begin
        elif self._since is not None:
            found = self._consumer.offsets_for_times(dict.fromkeys(partitions, self._since))
            starts = {tp: ends[tp] if at is None else at.offset for tp, at in found.items()}
        self._consumer.assign(partitions)
        for tp in partitions:
            self._consumer.seek(tp, starts[tp])
        return {tp.partition: Range(starts[tp], ends[tp]) for tp in partitions}

    def _read(self) -> Iterator[list[Record]]:
        """The records to produce, batch by batch."""
        reading = {TopicPartition(self._source, p): r.end for p, r in self.ranges.items()}
        while True:
            with told(self._reading):
                for tp in [tp for tp, end in reading.items() if self._consumer.position(tp) >= end]:
                    self._consumer.pause(tp)  # the topic may be the one produced to
                    del reading[tp]
                if not reading:
                    return
                polled = self._consumer.poll(POLL_MS)
            yield [
                Record(r.key, r.value, self._headers(r))
                for tp, records in polled.items()
                for r in records
                if r.offset < self.ranges[tp.partition].end and self._wanted(r)
            ]

    def _wanted(self, r: Any) -> bool:
        # brokers find a time by batch, and records of one partition need not be in order of time
        if self._since is not None and r.timestamp < self._since:
            return False
        if self._until is not None and r.timestamp >= self._until:
            return False
        self.replayed.read += 1
        if not r.value:
            self.replayed.empty += 1
        elif self._copied(r):
            self.replayed.copies += 1
        else:
            return True
        return False

    def _copied(self, r: Any) -> bool:
        topic, _, place = (text_of(r.headers, names.REPLAYED_FROM) or "").partition("/")
        if topic != self._source or not (match := re.fullmatch(r"(\d{1,9})/(\d{1,18})", place)):
            return False
        original = self.ranges.get(int(match[1]))
        return original is not None and original.start <= int(match[2]) < original.end

    def _headers(self, r: Any) -> Headers:
        kept = [(k, v) for k, v in r.headers if k not in (names.REPLAYED_FROM, names.REASON) and v is not None]
        return [*kept, (names.REPLAYED_FROM, f"{self._source}/{r.partition}/{r.offset}".encode())]

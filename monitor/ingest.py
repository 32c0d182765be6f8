"""A source into the store, chunk by chunk: read, decode, judge, commit. The imperative shell round `engine`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from classifiers.api import Classifier
from monitor.config import Config
from monitor.engine import Judged, judge
from monitor.store.database import hash_key
from monitor.store.writes import (
    BAD,
    Arrival,
    ChunkWriter,
    DeadLetter,
    Offset,
    StoredReview,
    known_events,
    open_offset,
)
from monitor.transcript import minute_of
from streams.files import Chunk, FileSource
from streams.formats import BadEvent, Decoder, Limits

if TYPE_CHECKING:  # its HTTP client is an extra
    from classifiers.judge import Judge

FINGERPRINT_BYTES: Final = 1 << 16
"""A source is known by the hash of its beginning, up to this many bytes."""

Clock = Callable[[], datetime]


@dataclass(slots=True)
class Progress:
    """What has been committed since this run began, for a progress bar."""

    events: int = 0
    turns: int = 0
    newest_minute: int = 0


class Ingest:
    """Reads one source into the store, from where the last run ended.

    Every chunk is one transaction, and chunks end at the same lines whenever they are cut, so a run that was killed and
    begun again leaves the same rows as one that was not.
    """

    def __init__(
        self,
        engine: Engine,
        source: FileSource,
        classifier: Classifier,
        config: Config,
        clock: Clock,
        judge: Judge | None = None,
    ) -> None:
        self._engine = engine
        self._source = source
        self._classifier = classifier
        self._config = config
        self._clock = clock
        self._judge = judge
        self._key = hash_key(engine)
        self.progress = Progress()
        self._writer = self._open()
        self._decoder = self._new_decoder(self._writer.offset.format)

    @property
    def offset(self) -> Offset:
        return self._writer.offset

    @property
    def size(self) -> int | None:
        """Bytes on disk, where that is known."""
        return self._source.size

    @property
    def consumed(self) -> int:
        """Bytes of them read."""
        return self._source.consumed()

    def run(self, *, follow: bool = False) -> Iterator[bool]:
        """Go through the source; yields after each chunk, True when something was stored, False when idle.

        Raises
        ------
        InputError : the source cannot be read.
        StoreError : another process reads this source into the same database.
        """
        start = self._writer.offset
        for chunk in self._source.chunks(start.position, start.line, follow=follow):
            if chunk is None:
                yield False
                continue
            if chunk.restarted:
                self._writer = self._next_generation()
                self._decoder = self._new_decoder(None)
            self._take(chunk)
            yield True

    def _take(self, chunk: Chunk) -> None:
        arrivals, bad = self._decode(chunk)
        fresh = {a.event.event_id: a.event for a in reversed(arrivals)}
        for known in known_events(self._engine, list(fresh)):
            del fresh[known]
        judged = (
            judge(list(reversed(fresh.values())), self._classifier, self._config.input.series_by) if fresh else None
        )
        before = self._writer.offset
        after = self._writer.write(
            arrivals,
            judged,
            bad,
            reviews=self._review(judged),
            position=chunk.end_offset,
            line=chunk.end_line,
            fingerprint=before.fingerprint
            if before.position >= FINGERPRINT_BYTES
            else self._source.fingerprint(chunk.end_offset),
            format=self._decoder.format,
        )
        self.progress.events += after.events - before.events
        self.progress.turns += after.turns - before.turns
        self.progress.newest_minute = max(self.progress.newest_minute, *(minute_of(a.event.ts) for a in arrivals), 0)

    def _review(self, judged: Judged | None) -> list[StoredReview]:
        """The judge's word on its random slice of the turns; empty where there is no judge."""
        if self._judge is None or judged is None:
            return []
        from classifiers.judge import Review

        chosen = [t for t, yes in zip(judged.turns, self._judge.choose(judged.turns), strict=True) if yes]
        return [
            StoredReview(
                said.event_id,
                said.turn,
                label=said.label if isinstance(said, Review) else None,
                confidence=said.confidence if isinstance(said, Review) else None,
                refused=None if isinstance(said, Review) else said.reason,
                model=self._judge.settings.model,
                rubric_version=self._judge.rubric_version,
                choice_probability=self._judge.settings.share,
            )
            for said in (self._judge.review(chosen) if chosen else [])
        ]

    def _decode(self, chunk: Chunk) -> tuple[list[Arrival], list[DeadLetter]]:
        self._decoder.settle(line.data for line in chunk.lines)
        now = self._clock()
        arrivals: list[Arrival] = []
        bad: list[DeadLetter] = []
        for line in chunk.lines:
            if line.data is None:
                bad.append(DeadLetter(line.number, line.offset, line.size, BAD, line.problem or "not kept"))
                continue
            try:
                event = self._decoder.decode(line.data, now)
            except BadEvent as e:
                bad.append(DeadLetter(line.number, line.offset, line.size, BAD, str(e)))
            else:
                arrivals.append(Arrival(event, line.number, line.offset, line.size))
        if chunk.damage is not None:
            bad.append(DeadLetter(chunk.end_line + 1, chunk.end_offset, 0, BAD, chunk.damage))
        return arrivals, bad

    def _open(self) -> ChunkWriter:
        """The source's latest generation if it is still the same text, else a new one."""
        if self._source.name == "-":
            # standard input has no identity: every run of it is a source of its own, and the ledger knows repeats
            return self._chunk_writer(open_offset(self._engine, f"stdin@{self._clock().isoformat()}"))
        generation = 1
        while True:
            offset = open_offset(self._engine, self._generation_name(generation))
            if offset.position == 0 or self._source.fingerprint(offset.position) == offset.fingerprint:
                return self._chunk_writer(offset)
            generation += 1

    def _next_generation(self) -> ChunkWriter:
        generation = 1
        while True:
            offset = open_offset(self._engine, self._generation_name(generation))
            if offset.position == 0:
                return self._chunk_writer(offset)
            generation += 1

    def _generation_name(self, generation: int) -> str:
        path = str(Path(self._source.name).resolve())
        return path if generation == 1 else f"{path}#{generation}"

    def _chunk_writer(self, offset: Offset) -> ChunkWriter:
        return ChunkWriter(
            self._engine,
            offset,
            hash_key=self._key,
            series_by=self._config.input.series_by,
            max_series=self._config.input.max_series,
        )

    def _new_decoder(self, stored: str | None) -> Decoder:
        chosen = self._config.input
        return Decoder(
            stored if chosen.format == "auto" else chosen.format,
            limits=Limits(future_tolerance_minutes=chosen.future_tolerance_minutes),
            deployment=chosen.deployment or None,
        )

"""A file into the store, chunk by chunk, from where the last run ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from monitor.intake import Intake
from monitor.store.ledger import BAD, DeadLetter
from monitor.store.writes import ChunkWriter, Offset
from monitor.transcript import minute_of
from streams.files import Chunk, FileSource

FINGERPRINT_BYTES: Final = 1 << 16
"""A source is known by the hash of its beginning, up to this many bytes."""


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

    def __init__(self, intake: Intake, source: FileSource) -> None:
        self._intake = intake
        self._source = source
        self.progress = Progress()
        self._writer = self._open()
        self._decoder = intake.decoder(self._writer.offset.format)

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
                self._decoder = self._intake.decoder()
            self._take(chunk)
            yield True

    def _take(self, chunk: Chunk) -> None:
        self._decoder.settle(line.data for line in chunk.lines)
        arrivals, bad = self._intake.decode(self._decoder, chunk.lines)
        if chunk.damage is not None:
            bad.append(DeadLetter(chunk.end_line + 1, chunk.end_offset, 0, BAD, chunk.damage))
        before = self._writer.offset
        after = self._intake.store(
            self._writer,
            arrivals,
            bad,
            position=chunk.end_offset,
            line=chunk.end_line,
            fingerprint=before.fingerprint
            if before.position >= FINGERPRINT_BYTES
            else self._source.fingerprint(chunk.end_offset),
            format=self._decoder.format,
        ).offset
        self.progress.events += after.events - before.events
        self.progress.turns += after.turns - before.turns
        self.progress.newest_minute = max(self.progress.newest_minute, *(minute_of(a.event.ts) for a in arrivals), 0)

    def _open(self) -> ChunkWriter:
        """The source's latest generation if it is still the same text, else a new one."""
        if self._source.name == "-":
            # standard input has no identity: every run of it is a source of its own, and the ledger knows repeats
            return self._intake.open(f"stdin@{self._intake.clock().isoformat()}")
        generation = 1
        while True:
            writer = self._intake.open(self._generation_name(generation))
            offset = writer.offset
            if offset.position == 0 or self._source.fingerprint(offset.position) == offset.fingerprint:
                return writer
            generation += 1

    def _next_generation(self) -> ChunkWriter:
        generation = 1
        while True:
            writer = self._intake.open(self._generation_name(generation))
            if writer.offset.position == 0:
                return writer
            generation += 1

    def _generation_name(self, generation: int) -> str:
        path = str(Path(self._source.name).resolve())
        return path if generation == 1 else f"{path}#{generation}"

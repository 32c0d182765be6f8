"""Log files into a Kafka topic: every line once it is there, in order of the file, from where the last run ended.

Data flows  `files` (lines) -> records (keyed by conversation) -> `pipe` (acknowledged) -> `marks` (how far).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from monitor.config import Config
from monitor.errors import InputError
from monitor.service_settings import Kafka as Settings
from streams import headers as names
from streams.files import HEAD, Chunk, FileSource, Line, open_sources
from streams.formats import BadEvent, Decoder, Limits
from streams.headers import Headers
from streams.marks import Mark, Marks
from streams.pipe import Parcel, Pipe, Record, Stopped
from streams.reasons import printable

SAVE_EVERY_SECONDS: Final = 1.0
"""A shipper that is killed sends at most so much again."""
LOOK_EVERY_SECONDS: Final = 5.0
"""How often a followed directory is looked through for new logs."""
LAST_WAIT_SECONDS: Final = 10.0
"""How long a shipper that is stopped waits for what is under way."""
CENTURY_MINUTES: Final = 100 * 366 * 24 * 60.0


@dataclass(slots=True)
class Shipped:
    """What the brokers have acknowledged in this run."""

    lines: int = 0
    bytes: int = 0
    not_kept: int = 0
    """Lines too long, and places where a file is damaged: sent as dead letters with a reason instead."""


class Shipper:
    """Ships what a user named: a file, a directory, or - for standard input.

    Parameters
    ----------
    settings : brokers and topic.
    state : file the position is kept in; standard input has none.
    say : told in one line what is worth knowing.
    on_progress : called whenever something was acknowledged.

    Raises
    ------
    InputError : nothing to read.
    StoreError : the position cannot be kept.
    BrokerError : no broker, no topic, no right.
    """

    def __init__(
        self,
        source: str,
        settings: Settings,
        config: Config,
        environment: Mapping[str, str],
        *,
        state: Path,
        follow: bool,
        say: Callable[[str], None],
        on_progress: Callable[[Shipped], None] = lambda _: None,
    ) -> None:
        self.shipped = Shipped()
        self._source = source
        self._config = config
        self._follow = follow
        self._say = say
        self._on_progress = on_progress
        self._stopping = self._reading = False
        self._stop_by = 0.0
        self._saved = 0.0
        self._said = ""
        self._directory = source != "-" and Path(source).is_dir()
        self._found = self._open()
        target = f"kafka://{','.join(sorted(settings.bootstrap_servers))}/{settings.topic}"
        self._pipe = Pipe(
            settings,
            environment,
            config.input.max_event_bytes,
            retry_seconds=None if follow else settings.retry_seconds,
            stopped=lambda: self._stopping and time.monotonic() > self._stop_by,
            say=say,
        )
        try:
            self._marks = None if source == "-" else Marks(state, target)
        except BaseException:
            self._pipe.close()
            raise

    @property
    def waiting(self) -> int:
        """Lines sent and not acknowledged."""
        return self._pipe.waiting

    def stop(self) -> None:
        """Read no more, send what was read; from a signal handler. A second time, wait for nothing."""
        first = not self._stopping
        self._stopping = True
        self._stop_by = time.monotonic() + (LAST_WAIT_SECONDS if first else 0)
        if self._reading:  # a read of standard input that nothing comes on ends by nothing else
            raise Stopped

    def run(self) -> None:
        """Ship until the end, for ever with `follow`, or until `stop`.

        Raises
        ------
        InputError, StoreError, BrokerError : what was acknowledged till then is marked.
        """
        try:
            with contextlib.suppress(Stopped):
                if self._follow:
                    self._run_for_ever()
                else:
                    for log in self._logs(self._found):
                        for _ in log.chunks(follow=False):
                            pass
            with contextlib.suppress(Stopped):
                self._pipe.drain()
        finally:
            self._save()

    def close(self) -> None:
        self._pipe.close()
        if self._marks is not None:
            self._marks.close()

    # -- what is read -------------------------------------------------------------------------------------------------

    def _run_for_ever(self) -> None:
        streams = [(log, log.chunks(follow=log.live)) for log in self._logs(self._found)]
        looked = time.monotonic()
        while (streams or self._directory) and not self._stopping:
            busy = False
            if not streams:
                time.sleep(FileSource.poll_seconds)
            for source in self._found:  # all of them together are looked at as often as one
                source.poll_seconds = FileSource.poll_seconds / len(self._found)
            for log, stream in list(streams):
                try:
                    sent = next(stream, None)
                except InputError as e:
                    if not self._directory:
                        raise
                    self._say_new(f"{e}; left out until it can be read")
                    self._found = [s for s in self._found if s is not log.source]
                    sent = None
                if sent is None:  # standard input, gzip and a rotated log end even when followed
                    streams.remove((log, stream))
                busy = busy or bool(sent)
            self._pipe.settle()
            if not busy:
                self._save()
            if self._directory and time.monotonic() - looked > LOOK_EVERY_SECONDS:
                looked = time.monotonic()
                streams += [(log, log.chunks(follow=log.live)) for log in self._logs(self._new_sources())]

    def _new_sources(self) -> list[FileSource]:
        """The logs of the directory that are not followed yet."""
        known = {s.name for s in self._found}
        try:
            fresh = [s for s in self._open() if s.name not in known]
        except InputError as e:  # none is left for now, or one may not be read
            self._say_new(str(e))
            return []
        self._found += fresh
        return fresh

    def _say_new(self, message: str) -> None:
        """Say what was not said last: a log that cannot be read is tried again and again."""
        if message != self._said:
            self._say(message)
        self._said = message

    def _open(self) -> list[FileSource]:
        return open_sources(self._source, max_line_bytes=self._config.input.max_event_bytes)

    def _logs(self, sources: Sequence[FileSource]) -> list[_Log]:
        """The logs of these sources, each behind what was rotated away from its path since the last run."""
        logs: list[_Log] = []
        for source in sources:
            if self._marks is None:
                logs.append(_Log(self, source, None, live=True))
                continue
            path = Path(source.name)
            mark = self._mark(path) or self._renamed(path)
            if mark is None and (old := self._marks.get(_name(path))) is not None and old.position:
                logs += self._rotated(path, old)
            logs.append(_Log(self, source, mark, live=True))
        return logs

    def _mark(self, path: Path) -> Mark | None:
        """How far the file at `path` was shipped under this name, if it is still the same."""
        assert self._marks is not None
        mark = self._marks.get(_name(path))
        return mark if mark is not None and self._is(path, mark) else None

    def _is(self, path: Path, mark: Mark) -> bool:
        try:
            return mark.position > 0 and self._file(path).fingerprint(mark.position) == mark.fingerprint
        except InputError:
            return False

    def _renamed(self, path: Path) -> Mark | None:
        """How far it was shipped under a name that stands for another file, or none, by now."""
        assert self._marks is not None
        for name in self._marks.names():
            there = Path(name)
            if there.parent == path.absolute().parent and there != path.absolute():
                mark = self._marks.get(name)
                if mark is not None and self._is(path, mark) and not self._is(there, mark):
                    return mark
        return None

    def _rotated(self, path: Path, old: Mark) -> list[_Log]:
        """The rest of the file that was at `path`, and those after it, by their age: app.jsonl.2, then app.jsonl.1."""
        given = {s.name for s in self._found}
        beside = [
            p for p in path.parent.iterdir() if p.name.startswith(path.name) and p.is_file() and str(p) not in given
        ]
        beside.sort(key=lambda p: p.stat().st_mtime)
        for place, p in enumerate(beside):
            if self._is(p, old):
                rest = [_Log(self, self._file(p), self._mark(p) or old, live=False)]
                return rest + [_Log(self, self._file(q), self._mark(q), live=False) for q in beside[place + 1 :]]
        self._say(f"{printable(str(path))}: another file than before, and the former is not beside it; read from 0")
        return []

    def _file(self, path: Path) -> FileSource:
        return FileSource(path, max_line_bytes=self._config.input.max_event_bytes)

    def read(self, chunks: Iterator[Chunk | None]) -> Iterator[Chunk | None]:
        """The chunks, until `stop`."""
        while not self._stopping:
            self._reading = True
            try:
                chunk = next(chunks)
            except StopIteration:
                return
            finally:
                self._reading = False
            yield chunk

    # -- what is sent -------------------------------------------------------------------------------------------------

    def send(self, name: str, records: list[Record], mark: Mark) -> None:
        """Send records; when they are acknowledged, the log `name` was shipped up to `mark`."""

        def done() -> None:
            self.shipped.lines += len(records)
            self.shipped.bytes += sum(len(r.value) for r in records)
            self.shipped.not_kept += sum(any(h == names.PROBLEM for h, _ in r.headers) for r in records)
            if self._marks is not None:
                self._marks.put(name, mark)
                if time.monotonic() - self._saved > SAVE_EVERY_SECONDS:
                    self._save()
            self._on_progress(self.shipped)

        self._pipe.send(Parcel(records, done))

    def new_decoder(self, mark: Mark | None) -> Decoder:
        chosen = self._config.input
        stored = None if mark is None else mark.format
        return Decoder(
            stored if chosen.format == "auto" else chosen.format,
            limits=Limits(future_tolerance_minutes=CENTURY_MINUTES),  # the worker's clock decides
            deployment=chosen.deployment or None,
        )

    @property
    def deployment(self) -> str:
        return self._config.input.deployment

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self._marks is not None:
            self._marks.save()


class _Log:
    """One log on its way: `live` ones are followed, the others were rotated away and end."""

    def __init__(self, shipper: Shipper, source: FileSource, mark: Mark | None, *, live: bool) -> None:
        self.live = live
        self._shipper = shipper
        self.source = source
        self._name = _name(Path(source.name))
        self._mark = mark
        self._decoder = shipper.new_decoder(mark)
        self._host = socket.gethostname()

    def chunks(self, *, follow: bool) -> Iterator[bool]:
        """Send what comes; True when something was sent, False when there was nothing."""
        start = self._mark or Mark(0, 0, "")
        for chunk in self._shipper.read(self.source.chunks(start.position, start.line, follow=follow)):
            if chunk is None:
                yield False
                continue
            if chunk.restarted:
                self._mark = None
                self._decoder = self._shipper.new_decoder(None)
            self._decoder.settle(line.data for line in chunk.lines)
            now = datetime.now(UTC)
            records = [self._record(line, now) for line in chunk.lines]
            if chunk.damage is not None and (self._mark is None or self._mark.damage != chunk.damage):
                records.append(self._problem(chunk.end_line + 1, chunk.end_offset, chunk.damage))
            self._mark = self._marked(chunk)
            self._shipper.send(self._name, records, self._mark)
            yield True

    def _marked(self, chunk: Chunk) -> Mark:
        before = self._mark
        known = before is not None and before.position >= HEAD
        fingerprint = before.fingerprint if before and known else self.source.fingerprint(chunk.end_offset)
        return Mark(chunk.end_offset, chunk.end_line, fingerprint, self._decoder.format, chunk.damage)

    def _record(self, line: Line, now: datetime) -> Record:
        if line.data is None:
            return self._problem(line.number, line.offset, line.problem or "not kept")
        try:
            key = self._decoder.decode(line.data, now).conversation_id.encode()
        except BadEvent:
            key = None  # the worker says why; any partition will do
        headers = self._headers(line.number, line.offset)
        headers.append((names.FORMAT, str(self._decoder.format).encode()))
        if self._shipper.deployment:
            headers.append((names.DEPLOYMENT, self._shipper.deployment.encode()))
        return Record(key, line.data, headers)

    def _problem(self, number: int, offset: int, reason: str) -> Record:
        return Record(None, b"", [*self._headers(number, offset), (names.PROBLEM, reason.encode())])

    def _headers(self, number: int, offset: int) -> Headers:
        where = self._name if self.source.name != "-" else "-"
        return [
            (names.SOURCE, f"{self._host}:{printable(where)}".encode()),
            (names.LINE, str(number).encode()),
            (names.BYTE, str(offset).encode()),
        ]


def _name(path: Path) -> str:
    """What a log is called among the marks: its absolute path, symbolic links and all."""
    return os.path.abspath(path)

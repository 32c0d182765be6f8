"""Dead letters of files: found again in their file, shown, and read once more.

What is found at a letter's place is its line only if the keyed hash says so: files are rotated and written anew.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, select

from monitor.intake import Intake
from monitor.store import schema
from monitor.store.ledger import BAD, Arrival
from monitor.store.retry import reading
from streams.files import FileSource
from streams.lines import Line
from streams.redaction import Redactor

SHOWN: Final = 4000
"""Characters of a line that are shown."""
BATCH: Final = 256
"""Lines of one transaction."""
KAFKA: Final = "kafka://"
_LEVELS: Final = 4
"""JSON in JSON in JSON: so often escapes are undone before a text is redacted."""
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.S)
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, its source, and the format that source was read as."""

    source: str
    format: str | None
    offset_id: int
    line: int
    position: int
    size: int
    kind: str
    reason: str
    payload_hash: bytes | None
    seen_at: datetime


@dataclass(slots=True)
class Replayed:
    """What became of the letters that were looked at; each is counted once, but for `events`."""

    letters: int = 0
    settled: int = 0
    """Gone: what they held is counted, or rightly holds nothing."""
    events: int = 0
    """Counted now."""
    still_bad: int = 0
    missing: int = 0
    """The file is gone, or has other text at that place."""
    not_kept: int = 0
    """Without a hash, of standard input or of HTTP."""
    kafka: int = 0


def letters(connection: Connection, *where: ColumnElement[bool]) -> list[Letter]:
    """Dead letters, by source and place."""
    t, o = schema.dead_letters, schema.offsets
    columns = (o.c.source, o.c.format, *(c for c in t.c))
    query = select(*columns).join_from(t, o).where(*where).order_by(o.c.source, t.c.position, t.c.line)
    return [Letter(**r) for r in connection.execute(query).mappings()]


def at_place(place: str) -> ColumnElement[bool]:
    """SOURCE:LINE, the source as it is listed or as a path."""
    source, _, line = place.rpartition(":")
    number = int(line) if re.fullmatch(r"\d{1,18}", line) else -1
    return of_source(source) & (schema.dead_letters.c.line == number)


def of_source(source: str) -> ColumnElement[bool]:
    return schema.offsets.c.source.in_([source, str(Path(source).resolve())])


def path_of(source: str) -> Path | None:
    """The file a source is, or was in an earlier life (PATH#2); None where there is none."""
    candidates = [Path(source), Path(re.sub(r"#\d+\Z", "", source))] if source.startswith("/") else []
    return next((path for path in candidates if path.is_file()), None)


def lines_of(intake: Intake, found: Sequence[Letter], max_line_bytes: int) -> Iterator[tuple[Letter, Line | None]]:
    """The lines of letters of one source, in order; None where what stands there is not what it was.

    Raises
    ------
    InputError : the file cannot be read.
    """
    waiting = deque(found)
    path = path_of(waiting[0].source)
    if path is not None:
        for chunk in FileSource(path, max_line_bytes=max_line_bytes).chunks(waiting[0].position, waiting[0].line - 1):
            if chunk is None or chunk.restarted or not waiting:
                break
            for line in chunk.lines:
                while waiting and waiting[0].position < line.offset:
                    yield waiting.popleft(), None
                while waiting and waiting[0].position == line.offset:
                    letter = waiting.popleft()
                    known = line.data is not None and intake.payload_hash(line.data) == letter.payload_hash
                    yield letter, line if known else None
    for letter in waiting:
        yield letter, None


def shown_text(data: bytes, patterns: Mapping[str, str]) -> str:
    """The beginning of a line, redacted; JSON's escapes are undone first, for they would hide what is to be found."""
    text = data.decode("utf-8", "replace")
    for _ in range(_LEVELS):
        before, text = text, _ESCAPE.sub(_unescaped, text)
        if text == before:
            break
    return Redactor(patterns).excerpt(text.encode("utf-8", "replace").decode(), SHOWN)


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else _CONTROLS.get(found[2], found[2])


def may_settle(connection: Connection) -> bool:
    """Whether the role of the connection may take dead letters away: one that only writes may not."""
    if connection.dialect.name != "postgresql":
        return True
    asked = select(func.has_table_privilege(schema.dead_letters.name, "DELETE"))
    return bool(connection.execute(asked).scalar_one())


def replay(intake: Intake, found: Iterable[Letter], max_line_bytes: int, *, dry_run: bool) -> Replayed:
    """Read bad letters' lines once more; what can be counted now is counted once, and its letter goes with it.

    Raises
    ------
    InputError : a file cannot be read.
    StoreError : another process reads the same source.
    """
    done = Replayed()
    by_source: dict[str, list[Letter]] = {}
    for letter in found:
        done.letters += 1
        if letter.source.startswith(KAFKA):
            done.kafka += 1
        elif letter.payload_hash is None or not letter.source.startswith("/"):
            done.not_kept += 1
        else:
            by_source.setdefault(letter.source, []).append(letter)
    for several in by_source.values():
        batch: list[Line] = []
        for _, line in lines_of(intake, several, max_line_bytes):
            if line is None:
                done.missing += 1
                continue
            batch.append(line)
            if len(batch) == BATCH:
                _replay(intake, several[0], batch, done, dry_run)
                batch = []
        if batch:
            _replay(intake, several[0], batch, done, dry_run)
    return done


def _replay(intake: Intake, of: Letter, lines: Sequence[Line], done: Replayed, dry_run: bool) -> None:
    """One transaction, which leaves the source where it is."""
    decoder = intake.decoder(of.format)
    arrivals: list[Arrival] = []
    settled: list[int] = []
    for line in lines:
        good, bad = intake.decode(decoder, [line])
        if bad:
            done.still_bad += 1
        else:
            settled.append(line.number)
            arrivals += good
    arrivals = _uncounted(intake, of.offset_id, arrivals)
    if dry_run or not settled:
        done.settled += len(settled)
        done.events += len(arrivals)
        return
    writer = intake.open(of.source)
    at = writer.offset
    written = intake.store(
        writer,
        arrivals,
        [],
        position=at.position,
        line=at.line,
        fingerprint=at.fingerprint,
        format=at.format,
        settled=settled,
    )
    refused = len({d.line for d in written.dead if d.kind == BAD})
    done.still_bad += refused
    done.settled += len(settled) - refused
    done.events += written.offset.judged - at.judged


def _uncounted(intake: Intake, offset_id: int, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Without events that were counted when their line was first read: other events of it made the letter."""
    t = schema.event_keys
    ids = [a.event.event_id for a in arrivals]
    query = select(t.c.event_id, t.c.line).where(t.c.offset_id == offset_id, t.c.event_id.in_(ids))
    here = {(e, n) for e, n in reading(intake.engine, lambda connection: connection.execute(query).all())}
    return [a for a in arrivals if (a.event.event_id, a.line) not in here]

"""What a body holds -> items to commit, each with its place in the request. CPU only: runs beside the event loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from monitor.intake import Intake
from monitor.transcript import Event
from monitor.web.bodies import PROTOBUF, items_of
from monitor.web.committer import Item, Outcome
from monitor.web.keys import Key
from monitor.web.refusals import Refused
from streams.otlp import read_json, read_protobuf
from streams.reasons import BadEvent, Skipped, bad_event

SKIPPED: Final = "skipped"
SAMPLED_OUT: Final = "sampled out"


class Part(NamedTuple):
    """One thing of a request, at its place: to be committed, or `skipped` of a kind that holds nothing to judge."""

    place: int
    what: Item | Outcome
    skipped: int = 0


def transcripts(body: bytes, kind: str, intake: Intake, key: Key, *, most: int, max_bytes: int) -> list[Part]:
    """Transcripts of any known format, each told by itself.

    Raises
    ------
    Refused : 400 no JSON at all, 413 more than `most` of them.
    """
    texts = items_of(body, kind)
    _bounded(texts, most)
    now = intake.clock()
    return [part for place, text in enumerate(texts) for part in _read(place, text, intake, key, now, max_bytes)]


def _read(place: int, text: bytes, intake: Intake, key: Key, now: datetime, max_bytes: int) -> Iterator[Part]:
    if len(text) > max_bytes:
        reason = f"an event of {len(text):,} bytes is over the limit of {max_bytes:,}"
        yield Part(place, Item(len(text), None, reason, intake.payload_hash(text)))
        return
    hashed = intake.payload_hash(text)
    found = intake.decoder(deployment=key.deployment).decode_all(text, now)
    for one in found:
        yield _part(place, one, len(text), intake, hashed)


def spans(body: bytes, kind: str, intake: Intake, key: Key, *, most: int) -> list[Part]:
    """The model calls of an OTLP export.

    Raises
    ------
    Refused : 400 no such export, 413 more than `most` of them.
    """
    read = read_protobuf if kind == PROTOBUF else read_json
    try:
        found = read(body, intake.clock(), limits=intake.limits, deployment=key.deployment or intake.deployment)
    except Exception as e:
        raise Refused(400, str(bad_event(e))) from None
    _bounded([f for f in found if not isinstance(f, Skipped)], most)
    size = len(body) // max(1, len(found))
    return [_part(place, one, size, intake) for place, one in enumerate(found)]


def _bounded(things: Sequence[object], most: int) -> None:
    if len(things) > most:
        raise Refused(413, f"{len(things):,} events are over the limit of {most:,}; send them in pieces")


def _part(place: int, found: Event | BadEvent, size: int, intake: Intake, hashed: bytes | None = None) -> Part:
    if isinstance(found, Skipped):
        return Part(place, Outcome(None, SKIPPED, str(found)), found.count)
    if isinstance(found, BadEvent):
        return Part(place, Item(size, None, str(found), hashed))
    event = intake.sample(found)
    if event is None:
        return Part(place, Outcome(found.event_id, SAMPLED_OUT))
    return Part(place, Item(size, event, payload_hash=hashed))

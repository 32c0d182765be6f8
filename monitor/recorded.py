"""The events of a log that is only looked at, not counted: nothing is stored, and no offset kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from monitor.config import Config
from monitor.transcript import Event
from streams.files import FileSource
from streams.formats import BadEvent, Decoder, Limits


def recorded(sources: Iterable[FileSource], config: Config, now: datetime) -> Iterator[Event | BadEvent]:
    """What the lines of the sources hold, in their order; nothing is sampled out.

    Raises
    ------
    InputError : a source that cannot be read.
    """
    for source in sources:
        decoder = Decoder(
            None if config.input.format == "auto" else config.input.format,
            limits=Limits(future_tolerance_minutes=config.input.future_tolerance_minutes),
            deployment=config.input.deployment or None,
        )
        for chunk in source.chunks():
            if chunk is None:
                continue
            decoder.settle(line.data for line in chunk.lines)
            for line in chunk.lines:
                if line.data is None:
                    yield BadEvent(line.problem or "not kept")
                else:
                    yield from decoder.decode_all(line.data, now)

"""One line of a log -> checked events, or the reason why it is none (docs/formats.md).

Data flows  line -> JSON -> the format's own reading (a module each) -> `checks` -> Event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec

from monitor.transcript import Event
from streams import canonical, conversations, langfuse, litellm, otlp, vendors
from streams.checks import DEFAULT_LIMITS, Limits
from streams.exchange import ANSWERED, Object, event_of, exchange_of
from streams.reasons import BadEvent, Skipped, bad_event
from streams.surrogates import mend

__all__ = ["FORMATS", "BadEvent", "Decoder", "Limits", "Skipped", "detect"]

VOTERS: Final = 50
"""Lines that decide on the format of a log."""
TRIED: Final = 1000
"""Lines looked at to find them."""

_ANY: Final = msgspec.json.Decoder(dict[str, Any])


def _exchange(vendor: str, line: Object, now: datetime, limits: Limits, deployment: str | None) -> Event:
    x = exchange_of(line)
    if x is None:
        raise BadEvent("neither a request with its response nor both merged into one object")
    return event_of(x, now, limits, deployment, vendors.READERS[vendor])


_READERS: Final[dict[str, Callable[[Object, datetime, Limits, str | None], Event]]] = {
    **{vendor: partial(_exchange, vendor) for vendor in vendors.READERS},
    "litellm": litellm.event,
    "langfuse": langfuse.event,
    "sharegpt": conversations.sharegpt,
    "prompt": conversations.prompt,
}
FORMATS: Final = ("canonical", *_READERS, "otlp")
_LOOKS: Final[dict[str, Callable[[Object], bool]]] = {
    "otlp": otlp.looks,
    "litellm": lambda line: litellm.payload_of(line) is not None,
    "langfuse": langfuse.looks,
    "sharegpt": conversations.is_sharegpt,
    "prompt": conversations.is_prompt,
}


class Decoder:
    """Decodes the lines of one log.

    Parameters
    ----------
    format : one of FORMATS; None to tell it from the lines: `settle` with the first ones, or the first that is decoded.
    deployment : for events that name none.
    """

    def __init__(
        self, format: str | None = None, *, limits: Limits = DEFAULT_LIMITS, deployment: str | None = None
    ) -> None:
        if format is not None and format not in FORMATS:
            raise ValueError(f"format {format!r} is none of {', '.join(FORMATS)}")
        self._format = format
        self._limits = limits
        self._deployment = deployment

    @property
    def format(self) -> str | None:
        """The format given or found; None while undecided."""
        return self._format

    def settle(self, lines: Iterable[bytes | None]) -> str:
        """Decide on the format by the first lines, unless that has been done."""
        if self._format is None:
            self._format = detect(lines)
        return self._format

    def decode_all(self, data: bytes, now: datetime) -> list[Event | BadEvent]:
        """One line -> what it holds, in its order: events, and reasons for what is none.

        One thing for every format but otlp, whose lines hold as many as there are spans. Nothing is raised, whatever
        the bytes are. A `Skipped` among the reasons is no error and no dead letter; its `count` goes into the counts.
        """
        try:
            return self._checked(data, now)
        except Exception as e:
            return [bad_event(e)]

    def decode(self, data: bytes, now: datetime) -> Event:
        """One line that holds one event -> that event.

        Raises
        ------
        BadEvent : the line is no event, or holds several; nothing else is raised, whatever the bytes are.
        """
        found = self.decode_all(data, now)
        events = [e for e in found if isinstance(e, Event)]
        if len(events) > 1:
            raise BadEvent(f"the line holds {len(events):,} events")
        for reason in found:
            if isinstance(reason, BadEvent) and (not events or not isinstance(reason, Skipped)):
                raise reason
        if not events:
            raise Skipped("the line holds no events", 0)
        return events[0]

    def _checked(self, data: bytes, now: datetime) -> list[Event | BadEvent]:
        if self._format is None:
            self._format = _vote(data)
        data.decode()  # msgspec does not look into the fields it skips
        try:
            return self._read(data, now)
        except msgspec.DecodeError:
            mended = mend(data)
            if mended == data:
                raise
            return self._read(mended, now)

    def _read(self, data: bytes, now: datetime) -> list[Event | BadEvent]:
        format = self._format or "canonical"
        if format == "canonical":
            return [canonical.decode(data, now, self._limits, self._deployment)]
        if format == "otlp":
            return otlp.read_json(data, now, limits=self._limits, deployment=self._deployment)
        return [_READERS[format](_ANY.decode(data), now, self._limits, self._deployment)]


def detect(lines: Iterable[bytes | None]) -> str:
    """The format most of the first lines are in; "canonical" when they do not tell."""
    votes: Counter[str] = Counter()
    for tried, line in enumerate(lines, start=1):
        if line is not None and (vote := _vote(line)):
            votes[vote] += 1
        if votes.total() >= VOTERS or tried >= TRIED:
            break
    return max(FORMATS, key=lambda f: votes[f])


def _vote(data: bytes) -> str | None:
    """The format one line looks like by its keys; None when that cannot be told."""
    try:
        line = _ANY.decode(mend(data))
        x = exchange_of(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    if "messages" in line and "ts" in line and not any(k in line for k in ANSWERED):
        return "canonical"
    for name, looks in _LOOKS.items():
        if looks(line):
            return name
    if x is None:
        return "canonical" if "messages" in line else None
    return vendors.vendor_of(x)

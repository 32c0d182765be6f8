"""One line of a log -> a checked event, or the reason why it is none (docs/formats.md).

Data flows  line -> JSON -> the format's own reading (`canonical`, `openai`, `anthropic`) -> `checks` -> Event.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec

from monitor.transcript import Event
from streams import anthropic, canonical, openai
from streams.checks import DEFAULT_LIMITS, Limits
from streams.exchange import ANSWERED, Exchange, event_of, exchange_of
from streams.reasons import BadEvent

__all__ = ["FORMATS", "BadEvent", "Decoder", "Limits", "detect"]

FORMATS: Final = ("canonical", "openai", "anthropic")
VOTERS: Final = 50
"""Lines that decide on the format of a log."""
TRIED: Final = 1000
"""Lines looked at to find them."""

_ANY: Final = msgspec.json.Decoder(dict[str, Any])
_READERS: Final = {"openai": openai.read, "anthropic": anthropic.read}
_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.S
)


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

    def decode(self, data: bytes, now: datetime) -> Event:
        """One line -> event.

        Raises
        ------
        BadEvent : the line is no event; nothing else is raised, whatever the bytes are.
        """
        try:
            if self._format is None:
                self._format = _vote(data)
            data.decode()  # msgspec does not look into the fields it skips
            try:
                return self._decode(data, now)
            except msgspec.DecodeError:
                mended = _mend(data)
                if mended == data:
                    raise
                return self._decode(mended, now)
        except BadEvent:
            raise
        except UnicodeDecodeError as e:
            raise BadEvent(f"not UTF-8 (byte {e.start:,})") from e
        except msgspec.MsgspecError as e:
            raise BadEvent(str(e)) from e
        except RecursionError as e:
            raise BadEvent("nested too deeply") from e
        except MemoryError:
            raise
        except Exception as e:  # a gap in our reading must not stop the log; the type shows where to look
            raise BadEvent(f"cannot be decoded ({type(e).__name__})") from e

    def _decode(self, data: bytes, now: datetime) -> Event:
        if self._format in (None, "canonical"):
            return canonical.decode(data, now, self._limits, self._deployment)
        x = exchange_of(_ANY.decode(data))
        if x is None:
            raise BadEvent("neither a request with its response nor both merged into one object")
        return event_of(x, now, self._limits, self._deployment, _READERS[str(self._format)])


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
        line = _ANY.decode(_mend(data))
        x = exchange_of(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    ours = "messages" in line and (x is None or ("ts" in line and not any(k in line for k in ANSWERED)))
    if ours or x is None:
        return "canonical" if ours else None
    return "anthropic" if _is_anthropic(x) else "openai"


def _is_anthropic(x: Exchange) -> bool:
    response = x.response or {}
    if "choices" in response:
        return False
    return (
        response.get("type") in ("message", "error")
        or isinstance(response.get("content"), list)
        or "stop_reason" in response
        or "system" in x.request
        or "anthropic_version" in x.request
    )


def _mend(data: bytes) -> bytes:
    """Halves of surrogate pairs, as left by cutting a text in JavaScript, become U+FFFD."""
    if b"\\ud" not in data and b"\\uD" not in data:
        return data
    return _ESCAPES.sub(lambda m: b"\\ufffd" if m["lone"] else m[0], data)

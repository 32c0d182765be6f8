"""Why a line or a source cannot be used, said in one harmless line."""

from __future__ import annotations

from typing import Final

import msgspec

MAX_REASON: Final = 300
"""Longest reason, in characters: it goes into tables, alerts and terminals."""


def printable(text: str, limit: int = MAX_REASON) -> str:
    """One line of at most `limit` characters, everything a terminal could act on escaped."""
    cut = text[: limit + 1]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return cut if len(cut) <= limit else cut[: limit - 1] + "…"


class BadEvent(Exception):
    """A line that is no event: it becomes a dead letter, and `str(e)` is the reason (docs/formats.md).

    The reason names fields and positions, never what a transcript says.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(printable(reason))


class Skipped(BadEvent):
    """What rightly holds nothing to judge (a tool's span, an embedding): counted by reason, no dead letter.

    `count` is how many things of that kind it stands for.
    """

    def __init__(self, reason: str, count: int = 1) -> None:
        super().__init__(reason)
        self.count = count


def bad_event(e: Exception) -> BadEvent:
    """What decoding raised, as the reason of a dead letter."""
    if isinstance(e, BadEvent):
        return e
    if isinstance(e, UnicodeDecodeError):
        return BadEvent(f"not UTF-8 (byte {e.start:,})")
    if isinstance(e, msgspec.MsgspecError):
        return BadEvent(str(e))
    if isinstance(e, RecursionError):
        return BadEvent("nested too deeply")
    if isinstance(e, MemoryError):
        raise e
    return BadEvent(f"cannot be decoded ({type(e).__name__})")  # a gap in our reading; the type shows where to look

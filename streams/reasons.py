"""Why a line or a source cannot be used, said in one harmless line."""

from __future__ import annotations

from typing import Final

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

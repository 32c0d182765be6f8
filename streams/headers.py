"""The headers of our records in Kafka: where a line came from, how to read it, why it was refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SOURCE: Final = "valuedrift-source"
"""host:path the line was read from, or host:- for standard input."""
LINE: Final = "valuedrift-line"
BYTE: Final = "valuedrift-byte"
"""Where the line starts, in bytes of the decompressed text."""
FORMAT: Final = "valuedrift-format"
"""Log format of the line (streams.formats.FORMATS); without it the line is told by its keys."""
DEPLOYMENT: Final = "valuedrift-deployment"
"""Deployment of events that name none."""
PROBLEM: Final = "valuedrift-problem"
"""Why the value is empty: a line too long to be kept, a damaged file. The record is a dead letter with this reason."""
REASON: Final = "valuedrift-reason"
"""Why a worker made the record a dead letter; a replay leaves it out."""
ORIGIN: Final = "valuedrift-origin"
"""topic/partition/offset of the record that became this dead letter."""
REPLAYED_FROM: Final = "valuedrift-replayed-from"
"""topic/partition/offset that a replay copied the record from."""

Headers = list[tuple[str, bytes]]


def text_of(headers: Iterable[tuple[str, bytes | None]] | None, name: str) -> str | None:
    """The last header of that name as text; anybody can write headers, so bytes that are no UTF-8 are replaced."""
    found = [value for key, value in headers or () if key == name and value is not None]
    return found[-1].decode("utf-8", "replace") if found else None

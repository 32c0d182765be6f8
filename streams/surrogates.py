"""Halves of surrogate pairs in JSON, as left by cutting a text in JavaScript."""

from __future__ import annotations

import re
from typing import Final

_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.S
)


def mend(data: bytes) -> bytes:
    """The same JSON with U+FFFD for each half."""
    if b"\\ud" not in data and b"\\uD" not in data:
        return data
    return _ESCAPES.sub(lambda m: b"\\ufffd" if m["lone"] else m[0], data)

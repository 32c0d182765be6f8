"""Gzip as a stream: bounded memory whatever the compression ratio, and damage told apart from the end."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

MAGIC: Final = b"\x1f\x8b"
_STEP: Final = 1 << 14
"""Compressed bytes worked on at a time: what has to be read again to save what lies before damage."""


class Damaged(Exception):
    """The data ends too early or is not gzip any more; all that could be read was delivered."""


def gunzip(read: Callable[[], bytes], block: int) -> Iterator[bytes]:
    """Decompressed blocks of at most `block` bytes from a reader that gives b"" at the end.

    Several members one after the other and zeros behind them are fine, as with gzip itself.

    Raises
    ------
    Damaged : after everything before the damage was yielded.
    """
    member = zlib.decompressobj(wbits=31)
    first, begun = True, False  # begun: the current member has bytes
    total = 0
    while data := read():
        for start in range(0, len(data), _STEP):
            step = data[start : start + _STEP]
            more = bool(step)
            while more:
                if not begun:
                    step = step if first else step.lstrip(b"\0")
                    if not step:
                        break
                    begun = True
                before = member.copy()
                try:
                    out = member.decompress(step, block)
                except zlib.error:
                    for out in _salvage(before, step):
                        total += len(out)
                        yield out
                    raise Damaged(f"gzip data is damaged after byte {total:,} of the text") from None
                total += len(out)
                if out:
                    yield out
                if member.eof:
                    step = member.unused_data
                    member, first, begun = zlib.decompressobj(wbits=31), False, False
                    more = bool(step)
                else:
                    step = member.unconsumed_tail
                    more = bool(step) or len(out) == block  # a full block: more may wait inside
    if begun:
        raise Damaged(f"gzip data is cut short after byte {total:,} of the text")


def _salvage(member: zlib._Decompress, step: bytes) -> Iterator[bytes]:
    """What can be had of `step` before the byte that breaks it, a few bytes at a time."""
    while True:
        try:
            out = member.decompress(step, 16)
        except zlib.error:
            return
        if not out:
            return
        yield out
        step = member.unconsumed_tail

"""Bytes -> lines with their position, in chunks that are the same however the bytes arrive."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

BOM: Final = b"\xef\xbb\xbf"
CHUNK_BYTES: Final = 1 << 24
"""A chunk ends early when its lines hold this many bytes: a few hundred of the longest would not fit the memory."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank.

    Attributes
    ----------
    number : 1-based.
    offset : where it starts, in bytes of the decompressed text.
    size : bytes, without the line end.
    data : its bytes without the line end; None when they were not kept.
    problem : why `data` is None.
    """

    number: int
    offset: int
    size: int
    data: bytes | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Successive lines up to the next multiple of `chunk_lines`, or fewer when they hold `CHUNK_BYTES`.

    Attributes
    ----------
    lines : without the blank ones, so possibly none.
    first_line : number of the first line of the chunk, blank or not.
    end_offset, end_line : where to resume after this chunk: bytes and lines (blank ones too) consumed so far.
    damage : why the source ends here although it should not; only on the last chunk.
    restarted : the first chunk after the file was truncated or replaced: offsets and numbers begin anew.
    """

    lines: list[Line]
    first_line: int
    end_offset: int
    end_line: int
    damage: str | None = None
    restarted: bool = False


class Splitter:
    """Cuts blocks of bytes into lines and lines into chunks.

    Holds one chunk and at most `max_line_bytes` of an unfinished line; of a longer line only the length is kept. Where
    a chunk ends depends on the text since the last one alone, so a pass that resumes there cuts as the first one did.

    Parameters
    ----------
    offset, line : bytes and lines before the first block.
    after_newline : False when the bytes before `offset` were read as a last line without a newline. If that newline
        has come since, it ends that line instead of being one of its own.
    """

    def __init__(
        self, max_line_bytes: int, chunk_lines: int, *, offset: int = 0, line: int = 0, after_newline: bool = True
    ) -> None:
        self._max = max_line_bytes
        self._chunk_lines = chunk_lines
        self._at = offset  # where the unfinished line starts
        self._line = line  # lines consumed
        self._first = line + 1
        self._lines: list[Line] = []
        self._kept = 0  # bytes in them
        self._pending = io.BytesIO()  # its getvalue() hands the bytes over without copying them
        self._size = 0  # bytes of the unfinished line, also those not kept
        self._last = b""
        self._bom: bytes | None = b"" if offset == 0 else None
        self._continued = not after_newline

    @property
    def position(self) -> int:
        """Bytes taken in so far."""
        return self._at + self._size + len(self._bom or b"")

    def feed(self, block: bytes) -> list[Chunk]:
        """Take in a block; give the chunks it completes."""
        if self._bom is not None:
            block = self._bom + block
            if len(block) < len(BOM) and BOM.startswith(block):
                self._bom = block
                return []
            self._bom = None
            if block.startswith(BOM):
                block = block[len(BOM) :]
                self._at = len(BOM)
        done: list[Chunk] = []
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            if self._size:
                self._grow(block[start:end])
                self._end_line(1)
            else:
                self._add(block[start:end], end - start, 1)
            start = end + 1
            full = self._line % self._chunk_lines == 0 or self._kept >= CHUNK_BYTES
            if full and self._line >= self._first:
                done.append(self._cut())
        if start < len(block):
            self._grow(block[start:])
        return done

    def flush(self) -> Chunk | None:
        """The complete lines at hand as a short chunk."""
        return self._cut() if self._line >= self._first else None

    def finish(self, damage: str | None = None) -> Chunk | None:
        """The end of the source: what is left, with the last line although no newline ended it.

        With `damage` that last line is not whole and left out.
        """
        if damage is None:
            if self._bom:
                self._grow(self._bom)
                self._bom = None
            if self._size:
                self._end_line(0)
            return self.flush()
        return self._cut(damage)

    def _cut(self, damage: str | None = None) -> Chunk:
        chunk = Chunk(self._lines, self._first, self._at, self._line, damage)
        self._lines, self._first, self._kept = [], self._line + 1, 0
        return chunk

    def _grow(self, piece: bytes) -> None:
        if not piece:
            return
        before = self._size
        self._size += len(piece)
        self._last = piece[-1:]
        if self._size <= self._max + 1:  # one more: it may be a carriage return
            self._pending.write(piece)
        elif before <= self._max + 1:
            self._pending = io.BytesIO()

    def _end_line(self, newline: int) -> None:
        size, cr = self._size, newline == 1 and self._last == b"\r"
        data = None
        if size <= self._max + 1:
            self._pending.truncate(size - cr)
            data = self._pending.getvalue()
        self._pending = io.BytesIO()
        self._size = 0
        self._add(data, size, newline, cr=cr)

    def _add(self, data: bytes | None, size: int, newline: int, *, cr: bool = False) -> None:
        """Count a line of `size` bytes (with its carriage return when `cr`, already taken off `data`)."""
        offset = self._at
        self._at += size + newline
        if data is not None and not cr and newline and data.endswith(b"\r"):
            data, cr = data[:-1], True
        if self._continued:
            self._continued = False
            if newline and not data and size == cr:
                return
        self._line += 1
        size -= cr
        if size > self._max:
            problem = f"line of {size:,} bytes is over the limit of {self._max:,}"
            self._lines.append(Line(self._line, offset, size, None, problem))
        elif data and not data.isspace():
            self._lines.append(Line(self._line, offset, size, data))
            self._kept += size

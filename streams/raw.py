"""The bytes under a source: an open file, a pipe or standard input, read without ever waiting unasked."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
from pathlib import Path
from typing import Final

BLOCK: Final = 1 << 18
"""Bytes read at a time."""


class Raw:
    """An open file (`path`) or standard input (None), counting what was read of it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._back = b""
        self._stream = sys.stdin.buffer if path is None else None
        self._fd: int | None = None
        if path is not None:
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        else:
            with contextlib.suppress(io.UnsupportedOperation, AttributeError):  # a stand-in for standard input
                self._fd = sys.stdin.buffer.fileno()
        self.consumed = 0
        self.regular = path is not None and stat.S_ISREG(self._status().st_mode)
        """Whether it has a size and can be read at any place."""

    def close(self) -> None:
        if self._path is not None and self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _status(self) -> os.stat_result:
        assert self._fd is not None
        return os.fstat(self._fd)

    def read(self) -> bytes:
        """The next bytes, at most a block; b"" when there are none (a pipe waits for them)."""
        if self._back:
            block, self._back = self._back, b""
            return block
        if self._fd is not None:
            block = os.read(self._fd, BLOCK)
        else:
            assert self._stream is not None
            block = self._stream.read(BLOCK)
        self.consumed += len(block)
        return block

    def unread(self, block: bytes) -> None:
        """Give bytes back: the next `read` gives them again."""
        self._back = block + self._back

    def starts_with(self, magic: bytes) -> bool:
        """Whether the file, or what was given back of a pipe, begins so."""
        return (self.peek(len(magic)) if self.regular else self._back).startswith(magic)

    def wait(self, seconds: float) -> bool:
        """Whether `read` would return at once, waiting for that at most so long."""
        if self._back or self._fd is None or self.regular:
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    # -- regular files only -------------------------------------------------------------------------------------------

    def seek(self, offset: int) -> None:
        assert self._fd is not None
        os.lseek(self._fd, offset, os.SEEK_SET)
        self.consumed = offset

    def peek(self, size: int, at: int = 0) -> bytes:
        """Bytes from any place; where `read` goes on does not change."""
        assert self._fd is not None
        return os.pread(self._fd, size, at)

    def size(self) -> int:
        return self._status().st_size

    def replaced(self) -> bool:
        """Whether the path now names another file that already has something in it."""
        assert self._path is not None
        try:
            there = os.stat(self._path)
        except OSError:
            return False  # moved away, and nothing in its place yet
        here = self._status()
        return there.st_size > 0 and (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

"""Lines from files, directories and standard input: plain or gzip, from the start, from where we stopped, or for ever.

A source says where each line stands, so that a dead letter can be found again and a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from monitor.errors import InputError
from streams.gunzip import MAGIC, Damaged, gunzip
from streams.lines import Chunk, Line, Splitter
from streams.raw import BLOCK, Raw
from streams.reasons import printable

__all__ = ["Chunk", "FileSource", "Line", "open_sources"]

HEAD: Final = 1 << 16
"""How much of the text the fingerprint covers."""
SAME: Final = 1 << 10
"""How much of its beginning tells a followed file from one that was written anew in its place."""
SUFFIXES: Final = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
"""What counts as a log in a directory."""


class FileSource:
    """One file, or standard input when `path` is None. Gzip is told by its first bytes, not by the name.

    One pass at a time: `fingerprint` and `consumed` describe the latest one.
    """

    poll_seconds: float = 0.2
    """How often a followed source that has nothing new is looked at."""

    def __init__(self, path: Path | None, *, max_line_bytes: int, chunk_lines: int = 256) -> None:
        self._path = path
        self._max_line_bytes = max_line_bytes
        self._chunk_lines = chunk_lines
        self._raw: Raw | None = None
        self._head = b""
        self.name = "-" if path is None else str(path)

    @property
    def size(self) -> int | None:
        """Bytes on disk; None where that is unknown (standard input, pipes, a file that is gone)."""
        try:
            status = None if self._path is None else self._path.stat()
        except OSError:
            return None
        return status.st_size if status and stat.S_ISREG(status.st_mode) else None

    def consumed(self) -> int:
        """Raw bytes read so far of the current file: with gzip the compressed ones; a skipped beginning counts."""
        return self._raw.consumed if self._raw else 0

    def fingerprint(self, upto: int) -> str:
        """Hash of the first min(upto, 65536) bytes of the text: the same as before, if the file is.

        What a pass has read is what is hashed, also when the path has come to name another file. Standard input cannot
        be read twice: before its first chunk the hash is that of nothing.

        Raises
        ------
        InputError : the source cannot be opened or read.
        """
        upto = max(0, min(upto, HEAD))
        head = self._head
        if len(head) < upto and self.size is not None:
            try:
                head = self._read_head(upto)
            except OSError as e:
                raise self._error(e) from e
        return hashlib.blake2b(head[:upto], digest_size=16).hexdigest()

    def chunks(self, offset: int = 0, line: int = 0, follow: bool = False) -> Iterator[Chunk | None]:
        """The lines from `offset` (bytes of the text, after `line` lines) on, in aligned chunks.

        Only the last chunk is short, except with `follow`: then whatever complete lines are there are delivered, None
        is yielded about every `poll_seconds` while nothing comes, an unfinished last line waits for its newline, and
        the source never ends by itself (only gzip and standard input do). A file shorter than `offset` is another one:
        it is read from 0, and its first chunk says `restarted`.

        Raises
        ------
        InputError : the source cannot be opened or read.
        """
        try:
            raw = self._open()
            yield from self._wait_for_magic(raw, follow)
            if raw.starts_with(MAGIC):
                yield from self._gzip(raw, offset, line)
            elif follow:
                yield from self._follow(raw, offset, line)
            else:
                yield from self._plain(raw, offset, line)
        except OSError as e:
            raise self._error(e) from e
        finally:
            if self._raw:
                self._raw.close()

    def _open(self) -> Raw:
        """Begin with the path as it is now; what was open before is closed."""
        if self._raw:
            self._raw.close()
        self._raw = Raw(self._path)
        self._head = b""
        return self._raw

    def _error(self, e: OSError) -> InputError:
        return InputError(f"{printable(self.name)}: cannot be read: {e.strerror or e}")

    def _splitter(self, offset: int, line: int, after_newline: bool = True) -> Splitter:
        return Splitter(self._max_line_bytes, self._chunk_lines, offset=offset, line=line, after_newline=after_newline)

    def _note(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass blocks of text on, remembering the beginning for the fingerprint."""
        for block in blocks:
            if len(self._head) < HEAD:
                self._head += block[: HEAD - len(self._head)]
            yield block

    def _read_head(self, upto: int) -> bytes:
        assert self._path is not None
        raw, head = Raw(self._path), b""
        try:
            for block in gunzip(raw.read, BLOCK) if raw.starts_with(MAGIC) else iter(raw.read, b""):
                head += block
                if len(head) >= upto:
                    break
        except Damaged:
            pass  # what could be read is what identifies it
        finally:
            raw.close()
        return head

    def _wait_for_magic(self, raw: Raw, follow: bool) -> Iterator[None]:
        """Read from a pipe the two bytes that tell gzip from text, and give them back."""
        start = b""
        while not raw.regular and len(start) < len(MAGIC):
            if follow and not raw.wait(self.poll_seconds):
                yield None
                continue
            block = raw.read()
            start += block
            if not block:
                break
        raw.unread(start)

    # -- to the end ---------------------------------------------------------------------------------------------------

    def _plain(self, raw: Raw, offset: int, line: int) -> Iterator[Chunk]:
        if not raw.regular:
            yield from self._rest(iter(raw.read, b""), raw, offset, line)
        elif offset > raw.size():
            for chunk in self._plain(raw, 0, 0):
                yield replace(chunk, restarted=chunk.first_line == 1)
        else:
            yield from self._split(self._note(iter(raw.read, b"")), self._seek(raw, offset, line))

    def _gzip(self, raw: Raw, offset: int, line: int) -> Iterator[Chunk]:
        yield from self._rest(gunzip(raw.read, BLOCK), raw, offset, line)

    def _rest(self, texts: Iterator[bytes], raw: Raw, offset: int, line: int) -> Iterator[Chunk]:
        """What is behind `offset` of a text that can only be read from its beginning."""
        texts = self._note(texts)
        at, last, rest = 0, b"\n", b""
        try:
            while at < offset and (block := next(texts, b"")):
                at += len(block)
                cut = len(block) - max(0, at - offset)
                last, rest = block[cut - 1 : cut], block[cut:]
        except Damaged as e:
            yield Chunk([], line + 1, offset, line, damage=str(e))
            return
        if at >= offset:
            yield from self._split(texts, self._splitter(offset, line, last == b"\n"), rest)
        elif raw.regular:
            for chunk in self._gzip(self._open(), 0, 0):
                yield replace(chunk, restarted=chunk.first_line == 1)

    def _split(self, texts: Iterator[bytes], splitter: Splitter, rest: bytes = b"") -> Iterator[Chunk]:
        damage: str | None = None
        yield from splitter.feed(rest)
        try:
            for block in texts:
                yield from splitter.feed(block)
        except Damaged as e:
            damage = str(e)
        if chunk := splitter.finish(damage):
            yield chunk

    def _seek(self, raw: Raw, offset: int, line: int) -> Splitter:
        """Go to where an earlier pass ended."""
        self._head = raw.peek(min(offset, HEAD))
        raw.seek(offset)
        return self._splitter(offset, line, offset == 0 or raw.peek(1, offset - 1) == b"\n")

    # -- for ever -----------------------------------------------------------------------------------------------------

    def _follow(self, raw: Raw, offset: int, line: int) -> Iterator[Chunk | None]:
        restarted = raw.regular and offset > raw.size()
        if restarted:
            offset = line = 0
        if raw.regular:
            splitter = self._seek(raw, offset, line)
        else:
            splitter, skip = self._splitter(offset, line), offset
            while skip:  # standard input again from its beginning
                if not raw.wait(self.poll_seconds):
                    yield None
                elif block := raw.read():
                    list(self._note([block[:skip]]))
                    raw.unread(block[skip:])
                    skip -= min(skip, len(block))
                else:
                    break
        idle = replaced = False
        while True:
            if idle and raw.regular and self._rewritten(raw):
                raw.seek(0)
                self._head = b""
                splitter, restarted = self._splitter(0, 0), True
            ready = raw.wait(0)
            block = raw.read() if ready else b""
            for text in self._note([block] if block else []):
                for chunk in splitter.feed(text):
                    yield replace(chunk, restarted=restarted)
                    restarted = False
            if block:
                idle = replaced = False
                continue
            if ready and self._path is None:  # whoever wrote to standard input has gone: no more can come
                if last := splitter.finish():
                    yield replace(last, restarted=restarted)
                return
            if last := splitter.finish() if replaced else splitter.flush():
                yield replace(last, restarted=restarted)
                restarted = False
            if replaced:
                raw = self._open()
                splitter, restarted, idle, replaced = self._splitter(0, 0), True, False, False
                continue
            # A new file was seen: look at the old one once more, its writer may not have finished yet.
            replaced = raw.regular and raw.replaced()
            if ready:  # the end of the file, or a pipe that is closed
                time.sleep(self.poll_seconds)
                yield None
            elif not raw.wait(self.poll_seconds):
                yield None
            idle = True

    def _rewritten(self, raw: Raw) -> bool:
        """Whether the file was truncated since, possibly with something new written to it."""
        head = self._head[:SAME]
        return raw.size() < raw.consumed or raw.peek(len(head)) != head


def open_sources(source: str, *, max_line_bytes: int) -> list[FileSource]:
    """The sources a user named: "-" for standard input, a file, or a directory for all logs below it, sorted.

    In a directory hidden files and folders are left out, links to folders not followed.

    Raises
    ------
    InputError : there is nothing to read; the message says why, in one line.
    """
    if source == "-":
        return [FileSource(None, max_line_bytes=max_line_bytes)]
    name = printable(source)
    if not source:
        raise InputError("the source is empty: give a file, a directory or - for standard input")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except ValueError as e:
        raise InputError(f"{name}: not a path") from e
    except OSError as e:
        if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source):
            raise InputError(
                f"{name}: sources of the kind {scheme[1]}:// cannot be read; give a file, a directory or -"
            ) from e
        raise InputError(f"{name}: {(e.strerror or str(e)).lower()}") from e
    if stat.S_ISDIR(mode):
        paths = _logs_below(path)
        if not paths:
            raise InputError(f"{name}: no logs in this directory ({', '.join('*' + s for s in SUFFIXES)})")
    elif stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
        paths = [path]
    else:
        raise InputError(f"{name}: neither a file nor a directory")
    for p in paths:
        if not os.access(p, os.R_OK):
            raise InputError(f"{printable(str(p))}: permission denied")
    return [FileSource(p, max_line_bytes=max_line_bytes) for p in paths]


def _logs_below(root: Path) -> list[Path]:
    def stop(e: OSError) -> None:
        raise InputError(f"{printable(str(e.filename))}: {(e.strerror or str(e)).lower()}") from e

    found = []
    for folder, folders, names in os.walk(root, onerror=stop):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and name.endswith(SUFFIXES) and path.is_file():
                found.append(path)
    return sorted(found)

"""How far each log was shipped: a small file, replaced as a whole, that one shipper at a time may write."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from monitor.errors import StoreError
from streams.reasons import printable

VERSION: Final = 1


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the brokers have acknowledged of one log: `position` bytes and `line` lines of its text.

    `fingerprint` is that of the text up to there (FileSource.fingerprint); `damage` was shipped, too.
    """

    position: int
    line: int
    fingerprint: str
    format: str | None = None
    damage: str | None = None


class _File(msgspec.Struct):
    version: int
    targets: dict[str, dict[str, Mark]]


class Marks:
    """The marks of one target (brokers and topic). Close it: it is locked.

    Raises
    ------
    StoreError : it cannot be read or written, or another shipper has it.
    """

    def __init__(self, path: Path, target: str) -> None:
        self._path = path
        self._target = target
        try:
            # the lock is a file of its own: the other one is replaced
            self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise self._error(e) from e
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file = self._read()
        except BlockingIOError:
            os.close(self._lock)
            raise StoreError(
                f"{printable(str(path))}: another shipper keeps its position here; give this one its own with --state"
            ) from None
        except BaseException:
            os.close(self._lock)
            raise
        self._marks = self._file.targets.setdefault(target, {})
        self._changed = False

    def get(self, name: str) -> Mark | None:
        return self._marks.get(name)

    def put(self, name: str, mark: Mark) -> None:
        self._marks[name] = mark
        self._changed = True

    def names(self) -> list[str]:
        return list(self._marks)

    def save(self) -> None:
        """Write what changed: the file is the old or the new one, whenever the power goes."""
        if not self._changed:
            return
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            with fresh.open("wb") as f:
                f.write(msgspec.json.format(msgspec.json.encode(self._file)) + b"\n")
                f.flush()
                os.fsync(f.fileno())
            fresh.replace(self._path)
        except OSError as e:
            raise self._error(e) from e
        self._changed = False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def _read(self) -> _File:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return _File(VERSION, {})
        except OSError as e:
            raise self._error(e) from e
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StoreError(
                f"{printable(str(self._path))}: not a file of positions ({printable(str(e), 80)}); move it away to "
                "ship from the beginning: what was shipped before counts once"
            ) from e
        if found.version != VERSION:
            raise StoreError(f"{printable(str(self._path))}: written by another version of valuedrift")
        return found

    def _error(self, e: OSError) -> StoreError:
        return StoreError(f"{printable(str(self._path))}: the position cannot be kept here: {e.strerror or e}")

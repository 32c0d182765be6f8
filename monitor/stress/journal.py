"""Every finished turn of a run, a line each: what a rerun goes on from."""

from __future__ import annotations

import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from monitor.errors import ConfigError, InputError
from streams.reasons import printable

NAME: Final = "turns.jsonl"


class Run(msgspec.Struct, frozen=True):
    """What every turn of a journal has in common: other values make another experiment."""

    target: str
    model: str
    seed: int
    temperature: float
    max_tokens: int
    texts: str
    """Hash of the words of the suites."""


class Answered(msgspec.Struct, frozen=True):
    """A finished turn. `tokens`: prompt and answer, as the endpoint says, or estimated."""

    script: str
    turn: int
    ts: datetime
    answer: str
    tokens: int


class _Header(msgspec.Struct, frozen=True):
    run: Run


_ANSWERED: Final = msgspec.json.Decoder(Answered)


class Journal:
    """The finished turns in a folder, of which one process at a time may write. Close it.

    A line is written whole and in one go, so a kill leaves at most one torn line, the last, which is cut off.

    Raises
    ------
    ConfigError : the folder holds another experiment, or another process writes to it.
    InputError : it cannot be opened, or is damaged.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.path = folder / NAME
        self.answers: dict[str, list[Answered]] = {}
        """By script, in order from turn 0."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # answers of a model under stress are for who ran it
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise self._error(e) from e
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._resume(run)
        except BlockingIOError:
            os.close(self._file)
            raise ConfigError(f"{self._shown}: another run writes here; give this one its own --out") from None
        except OSError as e:
            os.close(self._file)
            raise self._error(e) from e
        except BaseException:
            os.close(self._file)
            raise

    @property
    def _shown(self) -> str:
        return printable(str(self.path))

    def _error(self, e: OSError) -> InputError:
        return InputError(f"{self._shown}: {(e.strerror or str(e)).lower()}")

    def _resume(self, run: Run) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
        lines = data[:whole].splitlines()
        if not lines:
            self._write(_Header(run))
            return
        try:
            kept = msgspec.json.decode(lines[0], type=_Header).run
            found = [_ANSWERED.decode(line) for line in lines[1:]]
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
            raise InputError(f"{self._shown}: damaged, or not a run's journal; give another --out") from e
        other = [f for f in Run.__struct_fields__ if getattr(kept, f) != getattr(run, f)]
        if other:
            raise ConfigError(
                f"{self._shown}: a run with another {', another '.join(other)} is kept here; give another --out"
            )
        for a in found:
            have = self.answers.setdefault(a.script, [])
            if a.turn == len(have):
                have.append(a)

    def add(self, answered: Answered) -> None:
        """Keep a turn: it outlives this process."""
        self._write(answered)
        self.answers.setdefault(answered.script, []).append(answered)

    def _write(self, line: Any) -> None:
        data = msgspec.json.encode(line) + b"\n"
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as e:
            raise self._error(e) from e

    def close(self) -> None:
        os.close(self._file)

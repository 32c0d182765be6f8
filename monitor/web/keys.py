"""API keys: who may write, or look after alerts, and of which deployments. Only hashes of keys are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import shlex
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from monitor.errors import ConfigError
from streams.reasons import printable

MIN_KEY: Final = 16
"""Characters of a key: its hash is unsalted, so a key must not be guessable."""
ONCALL: Final = "+oncall"
"""Marks a key that looks after alerts."""
_HASHED: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Key:
    """Who asks.

    Attributes
    ----------
    name : for logs and limits.
    deployments : the only ones it may write, or look after; empty: any.
    oncall : it looks after alerts, and writes nothing.
    """

    name: str
    deployments: frozenset[str] = frozenset()
    oncall: bool = False

    @property
    def deployment(self) -> str | None:
        """For events that name none, where there is only one it can be."""
        return next(iter(self.deployments)) if len(self.deployments) == 1 else None


ANYBODY: Final = Key("anybody")
"""Whoever asks, where no keys are set up."""


class Keys:
    """The keys that are let in."""

    def __init__(self, entries: Iterable[tuple[bytes, Key]]) -> None:
        self._entries = tuple(entries)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def find(self, presented: bytes) -> Key | None:
        """Whose key it is; takes the same time whichever it is, and for none."""
        digest = hashlib.sha256(presented).digest()
        found = None
        for known, key in self._entries:
            if hmac.compare_digest(known, digest):
                found = key
        return found


def load(path: Path | None, variable: str, environment: MutableMapping[str, str]) -> Keys:
    """Keys of a file and of an environment variable, which is emptied.

    A file has a key in each line, a variable separates them by `;` (docs/http.md):

        NAME KEY [+oncall] [DEPLOYMENT ...]

    KEY is 16 characters or more, or sha256: and the hash of one in hex. Quotes keep a name with spaces together.

    Raises
    ------
    ConfigError : a file that cannot be read, or a line that is no such thing; it never shows a key.
    """
    entries: list[tuple[bytes, Key]] = []
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"serve.api_keys_file {path}: cannot be read ({type(e).__name__})") from e
        entries += _parsed(lines, f"{path}:")
    entries += _parsed(environment.pop(variable, "").split(";"), f"{variable}, key ")
    for what, seen in (("name", [k.name for _, k in entries]), ("key", [d for d, _ in entries])):
        if len(set(seen)) < len(seen):
            raise ConfigError(f"API keys: the same {what} is given twice")
    return Keys(entries)


def _parsed(lines: Iterable[str], where: str) -> Iterator[tuple[bytes, Key]]:
    for number, line in enumerate(lines, start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as e:
            raise ConfigError(f"{where}{number}: a quote is not closed") from e
        if not words:
            continue
        if len(words) < 2:
            raise ConfigError(f"{where}{number}: write NAME KEY [+oncall] [DEPLOYMENT ...]")
        name, secret, *rest = words
        marks = list(takewhile(lambda word: word.startswith("+"), rest))
        if unknown := [mark for mark in marks if mark != ONCALL]:
            raise ConfigError(f"{where}{number}: {printable(unknown[0])} is no mark of a key; there is {ONCALL}")
        hashed = _HASHED.fullmatch(secret)
        if hashed is None and len(secret) < MIN_KEY:
            raise ConfigError(f"{where}{number}: the key of {printable(name)} has fewer than {MIN_KEY} characters")
        digest = bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(secret.encode()).digest()
        yield digest, Key(name, frozenset(rest[len(marks) :]), ONCALL in marks)

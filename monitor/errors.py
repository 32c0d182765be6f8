"""Every error the product raises on purpose: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ValueDriftError(Exception):
    """Base class; `exit_code` is what the command line returns (docs/cli.md)."""

    exit_code = 2


class ConfigError(ValueDriftError):
    """A setting, option or argument that cannot be used."""


class InputError(ValueDriftError):
    """A source that cannot be read at all (single bad events become dead letters instead)."""

    exit_code = 3


class StoreError(ValueDriftError):
    """A database that cannot be opened, is of another version, or is in use by another process."""

    exit_code = 3


class StoreUnreachable(StoreError):
    """A database that does not answer, or has no room, for longer than one is prepared to wait."""

    exit_code = 2


class BrokerError(ValueDriftError):
    """Kafka brokers that cannot be reached, refuse what was asked, or lack a topic."""

    exit_code = 3


class TargetError(ValueDriftError):
    """A target of alerts that did not take what it was sent."""

    exit_code = 3


class WeightsError(ValueDriftError):
    """Classifier weights that are missing, damaged or of another layout."""

    exit_code = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: `; did you mean entropy?`, or a full stop where nothing is known.

    >>> did_you_mean("entropi", ("entropy", "margin"))
    '; did you mean entropy?'
    """
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return f"; did you mean {near[0]}?" if near else "."

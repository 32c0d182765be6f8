"""Times as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from monitor.errors import ConfigError

UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def time_of(text: str, now: datetime) -> datetime:
    """A time such as 2026-03-01T02:00:00Z (UTC where it names no zone), or so long ago. Raises ConfigError."""
    if ago := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return now - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError as e:
        raise ConfigError(f"{text!r} is neither a time (2026-03-01T02:00:00Z) nor so long ago (90m, 3h, 2d)") from e
    return at if at.tzinfo else at.replace(tzinfo=UTC)

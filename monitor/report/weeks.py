"""The weeks of reports: ISO 8601 weeks in UTC, Monday to Monday. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from monitor.errors import ConfigError

WEEK: Final = timedelta(days=7)
_NAME: Final = re.compile(r"(\d{4})-W(\d{2})", re.ASCII)
_FIRST_YEAR: Final = 1970
"""Nothing was judged before, and the weeks that a week is compared with have to be dates as well."""


def span(week: str) -> tuple[datetime, datetime]:
    """[start, end) of a week such as `2026-W46`: always 168 hours, for UTC has no clock changes.

    Raises ConfigError on what is no week, such as week 53 of a year that has 52.

    >>> [t.isoformat() for t in span("2020-W53")]
    ['2020-12-28T00:00:00+00:00', '2021-01-04T00:00:00+00:00']
    """
    found = _NAME.fullmatch(week)
    try:
        if found is None or int(found[1]) < _FIRST_YEAR:
            raise ValueError
        first = date.fromisocalendar(int(found[1]), int(found[2]), 1)
        start = datetime(first.year, first.month, first.day, tzinfo=UTC)
        return start, start + WEEK
    except (ValueError, OverflowError):
        raise ConfigError(f"week {week!r} is not understood; write a year and an ISO week, such as 2026-W46") from None


def week_of(t: datetime) -> str:
    """The week that a time is in; ISO years begin with the week of their first Thursday.

    >>> week_of(datetime(2021, 1, 3, 23, 59, tzinfo=UTC))
    '2020-W53'
    """
    year, week, _ = t.astimezone(UTC).isocalendar()
    return f"{year:04d}-W{week:02d}"


def last_complete(now: datetime) -> str:
    """The last week that is over at a time."""
    return week_of(now - WEEK)


def week_before(week: str) -> str:
    """The week before."""
    return week_of(span(week)[0] - WEEK)

"""Weeks of reports: ISO weeks in UTC, whatever the calendar or the clocks of people do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import Report
from monitor.errors import ConfigError
from monitor.report.schedule import MOST_MISSED, due_at, last_due, weeks_due
from monitor.report.weeks import WEEK, last_complete, span, week_before, week_of

TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))


@given(TIMES)
def test_every_time_is_in_one_week(t: datetime) -> None:
    """A week holds the times it is named for, begins on a Monday at midnight and where the one before ends."""
    start, end = span(week_of(t))
    assert start <= t < end
    assert start.isoweekday() == 1
    assert (start.hour, start.minute) == (0, 0)
    assert end - start == WEEK
    assert span(week_before(week_of(t)))[1] == start
    assert span(last_complete(t))[1] == start


def test_years_with_53_weeks() -> None:
    """2020 and 2026 have a week 53, which the new year does not cut; other years have none."""
    assert week_of(datetime(2027, 1, 3, 23, 59, 59, tzinfo=UTC)) == "2026-W53"
    assert span("2026-W53") == (datetime(2026, 12, 28, tzinfo=UTC), datetime(2027, 1, 4, tzinfo=UTC))
    assert week_before("2027-W01") == "2026-W53"
    assert week_before("2026-W01") == "2025-W52"
    with pytest.raises(ConfigError, match="2025-W53"):
        span("2025-W53")


@pytest.mark.parametrize(
    "week", ["2026-46", "2026-W00", "2026-W54", "W46", "2026-W4", "0000-W01", "", "9999-W52 ", "0001-W01", "٢٠٢٦-W46"]
)
def test_no_week(week: str) -> None:
    """What is no week is refused, and said how one is written."""
    with pytest.raises(ConfigError, match="2026-W46"):
        span(week)


def test_clock_changes() -> None:
    """The weeks in which a country's clocks change have 168 hours, and begin where UTC's do."""
    for week in ("2026-W13", "2026-W43"):  # of Central Europe
        start, end = span(week)
        assert (end - start) / timedelta(hours=1) == 168
        local = start.astimezone(ZoneInfo("Europe/Berlin"))
        assert week_of(local) == week, "a local time is the same moment"


def test_when_a_report_is_due() -> None:
    """On the day and hour of the next week that are set; before, the last report due is that of the week before."""
    settings = Report(schedule=True, weekday="tuesday", hour=7)
    due = datetime(2026, 11, 17, 7, tzinfo=UTC)
    assert due_at("2026-W46", settings) == due
    assert last_due(due, settings) == "2026-W46"
    assert last_due(due - timedelta(seconds=1), settings) == "2026-W45"


@given(TIMES, st.sampled_from(["monday", "wednesday", "sunday"]), st.integers(0, 23))
def test_the_last_report_due(now: datetime, weekday: str, hour: int) -> None:
    """It is due, and that of a week later is not yet."""
    settings = Report(weekday=weekday, hour=hour)  # type: ignore[arg-type]
    week = last_due(now, settings)
    assert due_at(week, settings) <= now < due_at(week, settings) + WEEK
    assert due_at(week_before(week), settings) == due_at(week, settings) - WEEK


def test_made_up_for() -> None:
    """After a long time nobody was there, the last weeks are made up for and no more."""
    assert weeks_due("2026-W51", "2027-W01") == ["2026-W51", "2026-W52", "2026-W53", "2027-W01"]
    assert weeks_due("2026-W01", "2026-W46") == ["2026-W43", "2026-W44", "2026-W45", "2026-W46"]
    assert len(weeks_due("2020-W01", "2026-W46")) == MOST_MISSED
    assert weeks_due(None, "2026-W46") == ["2026-W46"], "where none was kept, the past is not dug up"

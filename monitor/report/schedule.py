"""The weekly schedule: the report of each week that is over is made, kept and sent once, by one process of all.

It is due at a day and hour of the week that follows. After a time when no process was there, the last four weeks are
made up for, as far as reports were kept before. What was made and what was sent stands in the database, so that a
process that is killed in between leaves the next one just the rest; a target may hear of a report twice if the kill
comes between its answer and the note of it, as one and the same message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from monitor.config import Config, Report
from monitor.logs import get_logger
from monitor.report import archive, weeks
from monitor.report.cli import chosen_formats
from monitor.report.gather import Wanted
from monitor.report.send import receivers, send_report
from monitor.steps import Stepper
from monitor.store.leading import leading

REPORT_LOCK: Final = 0x7265706F7274
"""PostgreSQL advisory lock of whoever makes and sends reports."""
MOST_MISSED: Final = 4
"""Weeks that are looked at, the last one among them."""
PAUSE_SECONDS: Final = 15 * 60.0
"""Until what failed is tried again."""
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_log: Final = get_logger(__name__)


def due_at(week: str, settings: Report) -> datetime:
    """When the report of a week is due: in the week after."""
    return weeks.span(week)[1] + timedelta(days=_WEEKDAYS.index(settings.weekday), hours=settings.hour)


def last_due(now: datetime, settings: Report) -> str:
    """The last week whose report is due at a time."""
    week = weeks.last_complete(now)
    return week if due_at(week, settings) <= now else weeks.week_before(week)


def weeks_due(first_kept: str | None, due: str) -> list[str]:
    """The weeks to report of, oldest first: from the first that is kept on, MOST_MISSED at most; else the one due.

    >>> weeks_due("2026-W52", "2027-W01"), weeks_due(None, "2027-W01"), len(weeks_due("2025-W01", "2027-W01"))
    (['2026-W52', '2026-W53', '2027-W01'], ['2027-W01'], 4)
    """
    found = [due]
    while first_kept is not None and first_kept < found[0] and len(found) < MOST_MISSED:
        found.insert(0, weeks.week_before(found[0]))
    return found


class Schedule:
    """What a process does about reports.

    Parameters
    ----------
    clock : real time.
    environment : of secrets, usually os.environ.
    steady : seconds that only go on, for pauses.

    Raises
    ------
    ConfigError : a format that there is not, or targets that cannot be used.
    """

    def __init__(
        self,
        stepper: Stepper,
        config: Config,
        clock: Callable[[], datetime],
        environment: Mapping[str, str],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stepper = stepper
        self._settings = config.report
        self._formats = chosen_formats(config.report.formats)
        self._receivers = receivers(config, environment) if config.report.schedule and config.report.targets else []
        self._clock = clock
        self._steady = steady
        self._done = ""
        self._not_before = 0.0

    def look(self) -> None:
        """Make and send what is due, if it is this process's part now; what fails is told, and tried again later."""
        if not self._settings.schedule:
            return
        now = self._clock()
        due = last_due(now, self._settings)
        if due == self._done or self._steady() < self._not_before:
            return
        self._not_before = self._steady() + PAUSE_SECONDS
        try:
            with leading(self._stepper.engine, REPORT_LOCK) as leads:
                if leads and self._catch_up(due, now):
                    self._done = due
        except Exception as e:  # whatever it is: steps go on, and the report is tried again
            _log.error("report failed", exc_info=e)

    def _catch_up(self, due: str, now: datetime) -> bool:
        """Returns whether all is made and sent."""
        settings = self._settings
        whole = True
        oldest = weeks_due("", due)[0]
        for week in weeks_due(archive.first_week(self._stepper.engine, settings.compare, oldest), due):
            try:
                whole = self._report(week, now) and whole
            except Exception as e:  # one that cannot be read or made must not keep the later ones away
                _log.error("report failed", detail=week, exc_info=e)
                whole = False
        return whole

    def _report(self, week: str, now: datetime) -> bool:
        """Returns whether the report of a week is made and sent."""
        engine, settings = self._stepper.engine, self._settings
        data, key = archive.made(self._stepper, settings, Wanted(week, settings.compare), now)
        failed = send_report(engine, key, archive.with_texts(engine, data), self._formats, self._receivers, now)
        for name, outcome in failed.items():
            _log.error("report not sent", detail=f"{name}: {outcome.reason}")
        # what was refused for good is not tried again before the next process begins
        return all(o.result == "refused" for o in failed.values())

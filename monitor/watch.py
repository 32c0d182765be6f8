"""`valuedrift watch`: sources in, every series moved on, a summary out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from alerts.duty import BEHIND_MINUTES, Duty
from classifiers.api import Classifier
from monitor.config import Config
from monitor.ingest import Ingest
from monitor.intake import Clock, Intake
from monitor.steps import News, Stepper
from monitor.store.writes import Offset
from monitor.transcript import minute_of
from streams.files import FileSource

if TYPE_CHECKING:  # its HTTP client is an extra
    from classifiers.judge import Judge

LATENESS_MINUTES: Final = 2
"""A followed series' minute is closed this long after it ended, by the clock."""
STEP_EVERY_SECONDS: Final = 5.0
"""How often a followed source that never pauses gets its steps."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Watch:
    """One run of `watch` over its sources."""

    def __init__(
        self,
        engine: Engine,
        sources: Sequence[FileSource],
        classifier: Classifier,
        config: Config,
        clock: Clock = utc_now,
        judge: Judge | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._clock = clock
        self._intake = Intake(engine, classifier, config, clock, judge)
        self.ingests = [Ingest(self._intake, source) for source in sources]
        self.stepper = Stepper.of(engine, classifier, config)
        self._duty = Duty(engine, config, self.stepper, clock, environment or {})
        self.undelivered: Mapping[str, int] = {}
        """Notices that `finish` could not get out, by target."""

    @property
    def offsets(self) -> list[Offset]:
        return [i.offset for i in self.ingests]

    @property
    def skipped(self) -> Mapping[str, int]:
        """What this run read that rightly holds nothing to judge, by reason."""
        return self._intake.skipped

    def run(self, on_chunk: Callable[[Ingest], None]) -> list[News]:
        """Read every source to its end, then move the series on; returns the alerts that this raised.

        What order the sources are read in does not matter: detectors see their buckets when all are there.
        """
        for ingest in self.ingests:
            for _ in ingest.run():
                on_chunk(ingest)
        return self.finish(live=False)

    def finish(self, *, live: bool) -> list[News]:
        """Move the series on over all that was read, and tell the targets; returns the alerts that this raised.

        Parameters
        ----------
        live : the sources were followed, so that alerts go by the clock.
        """
        with self._duty.delivering():
            news = self.stepper.step()
            news += self._duty.look() if live else self._duty.look_back()
            self.undelivered = self._duty.undelivered()
        return news

    def follow(self, on_chunk: Callable[[Ingest], None], on_alert: Callable[[News], None]) -> None:
        """Read the sources for ever, moving the series on whenever there is nothing to read.

        Ends when standard input does, or by the caller's exception; the last minutes are left for `finish` then.
        """
        self._duty.start()
        streams = [(i, i.run(follow=True)) for i in self.ingests]
        last_step = last_look = -math.inf
        pending = True
        while streams:
            busy = False
            for ingest, stream in list(streams):
                stored = next(stream, None)
                if stored is None:  # standard input and gzip end even when followed
                    streams.remove((ingest, stream))
                elif stored:
                    busy = pending = True
                    on_chunk(ingest)
            now = self._clock()
            if pending and (not busy or _over(now, last_step)):
                for news in self.stepper.step(closed_until=minute_of(now) - LATENESS_MINUTES):
                    on_alert(news)
                last_step, last_look = now.timestamp(), -math.inf
                self._duty.stepped()
                # buckets too young to close are looked at again
                pending = busy or self._young(now)
            if _over(now, last_look):
                # silence, too, is something to tell of
                for news in self._duty.look(caught_up=not busy or not self._behind(now)):
                    on_alert(news)
                last_look = now.timestamp()

    def _behind(self, now: datetime) -> bool:
        return any(i.progress.newest_minute < minute_of(now) - BEHIND_MINUTES for i in self.ingests)

    def _young(self, now: datetime) -> bool:
        return any(i.progress.newest_minute >= minute_of(now) - LATENESS_MINUTES for i in self.ingests)


def _over(now: datetime, last_seconds: float) -> bool:
    """Whether STEP_EVERY_SECONDS went by since, or the clock was set back."""
    return not 0 <= now.timestamp() - last_seconds <= STEP_EVERY_SECONDS

"""Moves the series on every few seconds, beside the requests. Several processes may: each series by one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, func, select

from monitor.intake import Clock
from monitor.logs import get_logger
from monitor.metrics import Metrics
from monitor.steps import News, Stepper
from monitor.store import schema
from monitor.store.retry import reading
from monitor.transcript import minute_of
from monitor.watch import LATENESS_MINUTES

STALE_SECONDS: Final = 60.0
"""Steps that have failed for so long are no passing trouble."""
STALE_STEPS: Final = 5

_log: Final = get_logger(__name__)


class Ticker:
    """The thread that steps.

    Parameters
    ----------
    every_seconds : from the end of a step to the beginning of the next.
    on_news : is told of each alert that is raised.
    """

    def __init__(
        self, stepper: Stepper, clock: Clock, metrics: Metrics, every_seconds: float, on_news: Callable[[News], None]
    ) -> None:
        self._stepper = stepper
        self._clock = clock
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._on_news = on_news
        self._stop = threading.Event()
        self._last_done = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def stale(self) -> bool:
        """Whether the last step that came through is too long ago."""
        return time.monotonic() - self._last_done > max(STALE_SECONDS, STALE_STEPS * self._every_seconds)

    def start(self) -> None:
        self._last_done = time.monotonic()
        self._thread.start()

    def close(self, seconds: float) -> bool:
        """End after the step at hand; False when that takes longer: cut off, it is done again by the next process."""
        self._stop.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.wait(self._every_seconds):
            started = time.perf_counter()
            try:
                for news in self._stepper.step(closed_until=minute_of(self._clock()) - LATENESS_MINUTES):
                    self._on_news(news)
                self._metrics.series.set(reading(self._stepper.engine, _series))
            except Exception as e:  # whatever it is: the next step begins from what is stored
                self._metrics.stepped(time.perf_counter() - started, failed=True)
                _log.error("step failed", exc_info=e)
            else:
                self._metrics.stepped(time.perf_counter() - started, failed=False)
                self._last_done = time.monotonic()


def _series(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(schema.series)).scalar_one()

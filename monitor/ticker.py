"""A thread that moves the series on every few seconds. Several processes may: each series by one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from monitor.logs import get_logger
from monitor.metrics import Metrics

STALE_SECONDS: Final = 60.0
"""Steps that have failed for so long are no passing trouble."""
STALE_STEPS: Final = 5

_log: Final = get_logger(__name__)


class Ticker:
    """The thread that steps.

    Parameters
    ----------
    step : moves the series on; returns False where that is another process's part, now.
    every_seconds : from the end of a step to the beginning of the next; 0: there are no steps.
    at_end : called by the thread when it ends.
    """

    def __init__(
        self,
        step: Callable[[], bool],
        metrics: Metrics,
        every_seconds: float,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._step = step
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._at_end = at_end
        self._stop = threading.Event()
        self._last_done = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def stale(self) -> bool:
        """Whether the last step that came through is too long ago."""
        if not self._every_seconds:
            return False
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
        while not self._stop.wait(self._every_seconds or None):
            started = time.perf_counter()
            try:
                stepped = self._step()
            except Exception as e:  # whatever it is: the next step begins from what is stored
                self._metrics.stepped(time.perf_counter() - started, failed=True)
                _log.error("step failed", exc_info=e)
            else:
                if stepped:
                    self._metrics.stepped(time.perf_counter() - started, failed=False)
                    self._last_done = time.monotonic()
        self._at_end()

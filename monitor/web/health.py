"""Is the process alive, and is it ready for work?"""

from __future__ import annotations

import threading
import time
from typing import Final

from sqlalchemy import Engine

from monitor.store.retry import retrying
from monitor.ticker import Ticker
from monitor.web.committer import Committer, ask

ASK_SECONDS: Final = 2.0
"""The database is asked so often, however often we are."""
PATIENCE_SECONDS: Final = 6.0
"""A database that has not answered for so long is away, even if it refused nothing."""

OK: Final = "ok"


class Health:
    """Answers probes; the database is asked by a thread of its own, so that no probe ever hangs."""

    def __init__(self, engine: Engine, committer: Committer, ticker: Ticker) -> None:
        self._engine = engine
        self._committer = committer
        self._ticker = ticker
        self._answered_at = time.monotonic()
        self._refused = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def alive(self) -> bool:
        """Whether all threads run: one that has gone does not come back without a restart."""
        return self._committer.alive and self._ticker.alive and self._thread.is_alive()

    def checks(self) -> dict[str, str]:
        """What must be right to be of use; each "ok", or what is wrong."""
        answers = time.monotonic() - self._answered_at < PATIENCE_SECONDS
        return {
            "database": OK if answers and not self._refused and not self._committer.away else "away",
            "classifier": OK,  # nothing is served before it is loaded
            "queue": "full" if self._committer.full else OK,
            "steps": "none has come through for too long" if self._ticker.stale else OK,
            "threads": OK if self.alive() else "one has ended",
        }

    def _run(self) -> None:
        while not self._stop.wait(ASK_SECONDS):
            try:
                retrying(self._engine, lambda: ask(self._engine), 0)
            except Exception:  # whatever it refuses for: it is of no use now
                self._refused = True
            else:
                self._refused, self._answered_at = False, time.monotonic()

"""The database goes away and comes back under load: nothing answered is lost, nothing is counted twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

from monitor.store.database import open_engine
from tests.own_server import OwnServer, until
from tests.service.serving import Answer, Serving, count, rows, transcript

pytestmark = pytest.mark.service
ENV = {
    "VALUEDRIFT_SERVE_DATABASE_SECONDS": "0.5",
    "VALUEDRIFT_SERVE_RETRY_AFTER_SECONDS": "1",
    "VALUEDRIFT_SERVE_STEP_SECONDS": "0.5",
    "VALUEDRIFT_SERVE_EVENTS_PER_SECOND": "0",
}


class Clients:
    """Four that send five events at a time, and each again until it is answered with 202."""

    def __init__(self, servers: list[Serving], name: str) -> None:
        self._servers = servers
        self._name = name
        self._stop = threading.Event()
        self.sent: list[str] = []
        self.refused: list[Answer] = []
        self.outcomes: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(4)]
        for t in self._threads:
            t.start()

    def _run(self, n: int) -> None:
        server = self._servers[n % len(self._servers)]
        k = 0
        while not self._stop.is_set():
            ids = [f"{self._name}-{n}-{k}-{i}" for i in range(5)]
            events = [transcript(k * 5 + i, event_id=name) for i, name in enumerate(ids)]
            while (answer := server.post(events)).status != 202:
                self.refused.append(answer)
                time.sleep(0.1)
            self.outcomes.update(answer.statuses)
            self.sent += ids
            k += 1

    def finish(self) -> None:
        self._stop.set()
        for t in self._threads:
            t.join()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_database_away_for_a_while(own: OwnServer, tmp_path: Path, how: str) -> None:
    """Stopped or killed under load of two servers: 503 with Retry-After meanwhile, every event once in the end."""
    with Serving(tmp_path, own.url, env=ENV) as a, Serving(tmp_path, own.url, env=ENV) as b:
        before = count(own.url, "turns")
        clients = Clients([a, b], how)
        until(lambda: len(clients.sent) > 100)
        _ = own.stop() if how == "stopped" else own.kill()
        until(lambda: len(clients.refused) > 20)
        until(lambda: a.get("/readyz").json["checks"]["database"] == "away")
        assert (a.get("/readyz").status, a.get("/healthz").status) == (503, 200)
        until(lambda: a.figure('valuedrift_step_seconds_count{outcome="failed"}') > 0)
        own.start()
        so_far = len(clients.sent)
        until(lambda: len(clients.sent) > so_far + 100, 60)
        clients.finish()

        assert {r.status for r in clients.refused} == {503}
        assert {r.headers["retry-after"] for r in clients.refused} == {"1"}
        assert not {r.json["error"] for r in clients.refused} - {"the database is away"}
        assert set(clients.outcomes) <= {"counted", "duplicate"}
        found = [r["event_id"] for r in rows(own.url, "turns") if r["event_id"].startswith(how)]
        assert len(found) == len(set(found)) == count(own.url, "turns") - before
        assert sorted(found) == sorted(clients.sent)
        offsets = rows(own.url, "offsets")
        assert sum(o["judged"] for o in offsets) == count(own.url, "event_keys")
        assert sum(o["duplicates"] for o in offsets) + sum(o["judged"] for o in offsets) == sum(
            o["events"] for o in offsets
        )
        until(lambda: a.get("/readyz").status == 200 and b.get("/readyz").status == 200)
        assert a.figure('valuedrift_database_errors_total{kind="outage"}') > 0
        assert "database away" in a.logged
        assert "database back" in a.logged
        assert (a.stop(), b.stop()) == (0, 0)


def test_database_that_says_nothing(own: OwnServer, tmp_path: Path) -> None:
    """A table that another session has locked: clients are told to come again in time, and find it counted then."""
    env = ENV | {"VALUEDRIFT_SERVE_REQUEST_SECONDS": "1"}
    with Serving(tmp_path, own.url, env=env) as server:
        assert server.post([transcript(1, event_id="before the lock")]).status == 202
        engine = open_engine(own.url)
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE event_keys IN ACCESS EXCLUSIVE MODE"))
            started = time.monotonic()
            answer = server.post([transcript(2, event_id="during the lock")])
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert time.monotonic() - started < 3
        engine.dispose()
        until(lambda: server.post([transcript(2, event_id="during the lock")]).status == 202)
        assert [r["event_id"] for r in rows(own.url, "turns")].count("during the lock") == 1


def test_stopped_while_the_database_is_away(own: OwnServer, tmp_path: Path) -> None:
    """A server that is stopped without its database ends soon, and clients that waited were told so."""
    with Serving(tmp_path, own.url, env=ENV) as server:
        clients = Clients([server], "last")
        until(lambda: len(clients.sent) > 20)
        own.stop()
        until(lambda: clients.refused)
        clients._stop.set()
        own_start = threading.Timer(2, own.start)  # the clients go on until each is answered
        own_start.start()
        clients.finish()
        own_start.join()
        own.stop()
        assert server.post([transcript(9, event_id="never")]).status == 503
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 10
        own.start()
        assert sorted(clients.sent) == sorted(
            r["event_id"] for r in rows(own.url, "turns") if r["event_id"].startswith("last")
        )

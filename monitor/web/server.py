"""The server process: sockets, signals, threads, in the order they begin and end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import h11
import uvicorn
from sqlalchemy import Engine
from uvicorn.protocols.http.h11_impl import H11Protocol

from alerts.duty import Duty, log_news
from classifiers.api import Classifier
from monitor.config import Config
from monitor.errors import ConfigError
from monitor.intake import Clock, Intake
from monitor.logs import get_logger
from monitor.metrics import Metrics
from monitor.report.schedule import Schedule
from monitor.service_settings import Serve
from monitor.steps import Stepper
from monitor.store import reads
from monitor.store.retry import reading
from monitor.ticker import Ticker
from monitor.transcript import minute_of
from monitor.watch import LATENESS_MINUTES
from monitor.web.app import Site, application
from monitor.web.committer import Committer
from monitor.web.health import Health
from monitor.web.keys import Keys
from monitor.web.limits import Held, Rate
from monitor.web.oncall import OnCallPages

if TYPE_CHECKING:  # its HTTP client is an extra
    from classifiers.judge import Judge

HEADER_BYTES: Final = 32 * 1024
IDLE_SECONDS: Final = 15
"""A connection kept open is closed when no further request begins."""
ASKERS: Final = 2
"""Threads that ask the database about alerts, so that no other request waits for it."""
STOP_SECONDS: Final = 30.0
"""At the end, requests at hand, then the queue, then a step have so long each."""

_log: Final = get_logger(__name__)


class Protocol(H11Protocol):
    """uvicorn's, with an end for those who send their headers a byte at a time, or not at all."""

    header_seconds = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """The deadline runs while a request is awaited, from its first byte on."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._let_go()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self._too_slow)

    def _let_go(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


def bind(host: str, port: int) -> socket.socket:
    """Raises ConfigError when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        # named as TCP: only then asyncio turns Nagle's algorithm off, which holds back the second half of an answer
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as e:
        raise ConfigError(f"cannot listen on {host}:{port}: {e}; choose another with --host and --port") from e
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        return listener
    except OSError as e:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {e}; choose another with --host and --port") from e


def serve(
    engine: Engine,
    classifier: Classifier,
    config: Config,
    keys: Keys,
    listener: socket.socket,
    clock: Clock,
    judge: Judge | None,
    on_start: Callable[[str], None],
) -> bool:
    """Serve until SIGTERM or SIGINT; then no more is accepted, and what was is stored.

    Parameters
    ----------
    on_start : is told the address once requests are taken.

    Returns
    -------
    Whether all that was accepted could be stored.
    """
    s = config.serve
    metrics = Metrics()
    metrics.build(classifier)
    metrics.watch(engine)
    intake = Intake(engine, classifier, config, clock, judge, metrics)
    committer = Committer(
        intake,
        metrics,
        instance=s.instance or socket.gethostname(),
        series_by=config.input.series_by,
        queue_events=s.queue_events,
        batch_events=s.batch_events,
        max_series_per_key=s.max_series_per_key,
        retry_after=s.retry_after_seconds,
    )
    stepper = Stepper.of(engine, classifier, config)
    duty = Duty(engine, config, stepper, clock, os.environ, metrics)
    reports = Schedule(stepper, config, clock, os.environ)

    def step() -> bool:
        with duty.watching(log_news):
            for news in stepper.step(closed_until=minute_of(clock()) - LATENESS_MINUTES):
                log_news(news)
        reports.look()
        metrics.series.set(reading(engine, reads.series_count))
        return True

    ticker = Ticker(step, metrics, s.step_seconds)
    health = Health(engine, committer, ticker)
    asking = ThreadPoolExecutor(max_workers=ASKERS, thread_name_prefix="asker")
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decoder") as decoding, asking, duty.delivering():
        rate, held = Rate(s.events_per_second, s.burst_seconds), Held(s.held_bytes, s.retry_after_seconds)
        metrics.held_bytes.set_function(lambda: held.bytes)
        oncall = OnCallPages(engine, config, clock, asking)
        site = Site(config, intake, committer, keys, rate, held, health, metrics, decoding, oncall)
        for thread in (committer, ticker, health):
            thread.start()
        _server(application(site), s, lambda: on_start(_address(listener))).run(sockets=[listener])
        _log.info("stopping")
        health.close()
        stored = committer.close(STOP_SECONDS)
        stepped = ticker.close(STOP_SECONDS)
    _log.info("stopped", status="all stored" if stored and stepped else "not all was done")
    return stored


def _server(app: Any, settings: Serve, on_start: Callable[[], None]) -> _Server:
    # uvicorn raises the signal that ended it once more when all is done: we end by ourselves, with exit code 0
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: None)
    return _Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=type("Protocol", (Protocol,), {"header_seconds": settings.request_seconds}),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=settings.connections,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=int(STOP_SECONDS),
            h11_max_incomplete_event_size=HEADER_BYTES,
        ),
        on_start,
    )


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

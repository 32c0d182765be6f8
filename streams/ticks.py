"""Moves the series on, one worker of all at a time, and never past what still waits in Kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import TopicPartition

from alerts.duty import Duty
from monitor.config import Config
from monitor.errors import BrokerError
from monitor.intake import Clock
from monitor.logs import get_logger
from monitor.metrics import Metrics
from monitor.readings import Reading
from monitor.report.schedule import Schedule
from monitor.service_settings import Kafka as Settings
from monitor.steps import News, Stepper
from monitor.store.leading import leading
from monitor.watch import LATENESS_MINUTES
from streams.kafka import consumer, told
from streams.recorder import standings
from streams.watermark import Closing, Standing, Stuck, closing

LEADER_LOCK: Final = 0x6C6561646572
"""PostgreSQL advisory lock of whoever steps; steps of two would be right too, and half of their work in vain."""

_log: Final = get_logger(__name__)


class Ends:
    """Where the partitions of the topic end, asked over a connection of its own."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._consumer: Any = None

    def ask(self) -> dict[int, int]:
        """The next offset of every partition. Raises BrokerError."""
        topic = self._settings.topic
        try:
            with told(self._settings):
                self._consumer = self._consumer or consumer(self._settings, self._environment)
                partitions = [TopicPartition(topic, p) for p in self._consumer.partitions_for_topic(topic) or ()]
                if not partitions:
                    raise BrokerError(f"{topic}: no partitions are known")
                return {tp.partition: end for tp, end in self._consumer.end_offsets(partitions).items()}
        except BrokerError:
            self.close()
            raise

    def close(self) -> None:
        if self._consumer is not None:
            with contextlib.suppress(Exception):
                self._consumer.close(timeout_ms=0)
        self._consumer = None


class Ticks:
    """What a ticker (monitor.ticker) does in a worker.

    Parameters
    ----------
    cluster : of the positions' names (streams.recorder).
    duty : what the worker does about alerts.
    on_news : is told of each alert that is raised.
    reports : the weekly reports.
    """

    def __init__(
        self,
        stepper: Stepper,
        duty: Duty,
        ends: Ends,
        cluster: str,
        topic: str,
        config: Config,
        clock: Clock,
        metrics: Metrics,
        on_news: Callable[[News], None],
        reports: Schedule,
    ) -> None:
        self._stepper = stepper
        self._duty = duty
        self._ends = ends
        self._cluster = cluster
        self._topic = topic
        self._settings = config.worker
        self._clock = clock
        self._metrics = metrics
        self._on_news = on_news
        self._reports = reports
        self._stuck = Stuck()
        self._given_up: tuple[int, ...] = ()
        self._lag: dict[str, Reading] = {}
        """By how much what was counted last is behind, of the partition where events wait longest."""

    def step(self) -> bool:
        """Move the series on, if this worker is the one that does; returns whether it is.

        Raises
        ------
        BrokerError, StoreError : how far Kafka or the database is cannot be known, or the database stays away.
        """
        with leading(self._stepper.engine, LEADER_LOCK) as leads:
            if leads:
                with self._duty.watching(self._on_news, self._lag):
                    self._step()
                self._reports.look()
        return leads

    def _step(self) -> None:
        found = self.closing()
        if found.given_up != self._given_up:
            self._given_up = found.given_up
            _log.warning("partitions are not waited for", topic=self._topic, items=len(found.given_up))
        self._metrics.partitions_given_up.set(len(found.given_up))
        if found.until is not None:
            for news in self._stepper.step(closed_until=found.until):
                self._on_news(news)

    def closing(self) -> Closing:
        """What is over now. The order matters: what is counted by then was produced before the clock was read, or not.

        Raises
        ------
        BrokerError, StoreError : how far Kafka or the database is cannot be known.
        """
        now = self._clock()
        ends = self._ends.ask()
        stored = standings(self._stepper.engine, self._cluster, self._topic, ends.keys())
        self._stuck.only(ends)
        at: dict[int, Standing] = {}
        for partition, end in ends.items():
            offset = stored.get(partition)
            position = 0 if offset is None else offset.position
            stuck = self._stuck.seconds(partition, position, end, time.monotonic())
            at[partition] = Standing(position, end, None if offset is None else offset.newest_ts, stuck)
        behind = [s.newest_ts for s in at.values() if s.position < s.end and s.newest_ts is not None]
        lag = max((now - min(behind, default=now)).total_seconds() / 60, 0.0)
        self._lag["lag_minutes"] = (lag, lag, lag)
        patience = self._settings.max_lag_wait_seconds
        return closing(at, now, lateness_minutes=LATENESS_MINUTES, patience_seconds=patience)

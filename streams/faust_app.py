"""Faust and its driver as the worker needs them: told what they have settings for, adapted where they have none.

What a fetch has of a partition is one message to Faust, a `Bundle`; its `Taker` says from where is read, and how much
may wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from monitor.config import Config
from monitor.service_settings import Kafka as Settings
from streams.kafka import OVERHEAD_BYTES, sasl_password, tls
from streams.recorder import Record

BUNDLES: Final = 256
"""Most that are taken at once: brokers that have few records at a time make many small ones."""
IDLE_SECONDS: Final = 24 * 3600.0
"""Faust fetches nothing while the database is away; that is no reason to take a worker's partitions from it."""
FULL_SECONDS: Final = 0.005
"""How often it is looked whether there is room again for what is fetched."""
FETCH_BYTES: Final = 1 << 20
"""Of one answer of a broker, as they come (compressed), as far as single batches are not larger."""
PARTITION_BYTES: Final = 1 << 18
"""Of one partition in it: so much of each lies with the driver, besides what is held."""
FETCH_MS: Final = 100
"""A broker that has nothing new answers after so long."""

_quiet: Final = logging.getLogger("faust.worker")

for name in ("faust", "mode", "aiokafka"):  # they log whole messages; failures reach us as exceptions
    logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class Bundle:
    """What one fetch has of a partition: one message to Faust, which spends as much on each as a judgement costs."""

    def __init__(self, records: list[Any]) -> None:
        self.records = [Record(r.offset, r.key, r.value, r.headers) for r in records]
        self.bytes = sum(len(r.value or b"") for r in records)

    def drop(self) -> None:
        """Let the records go: Faust keeps the message for longer than their memory can be spared."""
        self.records, self.bytes = [], 0


class Taker(Protocol):
    """Who takes the records, as the consumer sees it."""

    def hold(self, records: list[Any]) -> Bundle:
        """Records that were fetched; they count as held until they are let go, or Faust has lost them."""

    def is_full(self) -> bool:
        """Whether enough is held."""

    def interrupted(self) -> None:
        """Records may be lost from here on until the next seek."""

    async def seek_all(self) -> Mapping[TP, int]:
        """Go to where the database is, in all partitions; returns where that was possible."""


class Application(faust.App):
    """Faust's, with a reader that knows the positions."""

    logger = _quiet
    reader: Taker

    def _create_directories(self) -> None:
        """Nothing is kept on disk."""


def application(settings: Settings, config: Config, environment: Mapping[str, str]) -> Application:
    """The Faust application: no web server, no tables, no topics of its own. Raises ConfigError."""
    w = config.worker
    most = config.input.max_event_bytes + OVERHEAD_BYTES
    return Application(
        w.group,
        broker=[f"aiokafka://{server}" for server in settings.bootstrap_servers],
        broker_client_id=settings.client_id,
        broker_credentials=_credentials(settings, environment),
        broker_session_timeout=w.session_seconds,
        broker_heartbeat_interval=w.session_seconds / 3,
        broker_request_timeout=30.0,
        broker_max_poll_interval=IDLE_SECONDS,
        broker_max_poll_records=w.batch_events,
        broker_check_crcs=True,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=PARTITION_BYTES,
        stream_buffer_maxsize=BUNDLES,
        stream_wait_empty=False,
        producer_acks=-1,
        producer_compression_type=None if settings.compression == "none" else settings.compression,
        producer_max_request_size=most,
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )


def _credentials(settings: Settings, environment: Mapping[str, str]) -> Any:
    protocol = settings.security_protocol
    context = tls(settings, environment) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=sasl_password(settings, environment),
            ssl_context=context,
            mechanism=settings.sasl_mechanism,
        )
    return None if context is None else faust.SSLCredentials(context)


class _Unread(dict[TP, int | None]):
    """Faust's idea of what it has read, by which it drops what is read again after a seek: none."""

    def __missing__(self, key: TP) -> None:
        return None

    def __setitem__(self, key: TP, value: int | None) -> None:
        pass

    def update(self, *args: Any, **kwargs: Any) -> None:
        pass


class _Thread(driver.AIOKafkaConsumerThread):
    """Makes the consumer, with what Faust has no settings for."""

    logger = _quiet

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # before its start, when these are read
        consumer._isolation_level = "read_committed"  # transactions that were given up are not to be counted
        consumer._fetch_max_bytes = FETCH_BYTES
        consumer._fetch_max_wait_ms = FETCH_MS
        return consumer

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        """Take what was fetched, of each partition in turn.

        The driver would go on with one partition until its answer is used up: thousands of records, where they
        compress well. For a slow classifier that is long enough for the others to seem stuck.
        """
        found = await super()._fetch_records(consumer, *args, **kwargs)
        waiting = consumer._fetcher._records
        for tp in found:
            if tp in waiting:
                waiting[tp] = waiting.pop(tp)
        return found


class _Consumer(driver.Consumer):
    """Reads on from where the database is, and no faster than it is taken."""

    logger = _quiet

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _Unread()

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Called whenever the flow of records begins again."""
        return await self._reader.seek_all()

    def stop_flow(self) -> None:
        self._reader.interrupted()
        super().stop_flow()

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        while self.flow_active and not self.should_stop and self._reader.is_full():
            await asyncio.sleep(FULL_SECONDS)
        found = await super()._getmany(active_partitions, timeout)
        return {tp: [(records[0], self._reader.hold(records))] for tp, records in found.items() if records}

    def _to_message(self, tp: TP, record: tuple[Any, Bundle]) -> Any:
        first, bundle = record
        message: Any = super()._to_message(tp, first)
        message.key, message.value = None, bundle
        return message

    @property
    def _reader(self) -> Taker:
        return cast(Application, self.app).reader


class Transport(driver.Transport):
    """Faust's over aiokafka, with the consumer above."""

    Consumer = _Consumer

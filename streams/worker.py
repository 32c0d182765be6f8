"""`valuedrift worker`: transcripts from Kafka into the database, as a Faust application.

A record's way: Faust's consumer (from the position the database has) -> `Reader._work`, the agent, in batches ->
`recorder` in the one thread that judges and stores -> refused ones to the dead-letter topic -> the position to Kafka,
for those who watch lag. What Faust loses, delivers twice or too early on the way is noticed by `continuity`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast
from weakref import WeakSet

from aiokafka import TopicPartition
from faust.types import TP

from monitor.config import Config
from monitor.errors import StoreError
from monitor.logs import get_logger
from monitor.metrics import Metrics
from monitor.service_settings import Kafka as Settings
from streams import headers as names
from streams.faust_app import BUNDLES, Bundle, Transport, application
from streams.recorder import Record, Recorder, Refused

HELD_BATCHES: Final = 4
"""No more is fetched while records for so many transactions wait."""
BATCH_SECONDS: Final = 0.02
"""A batch of fewer bundles is taken after so long."""
HOUSEKEEPING_SECONDS: Final = 1.0
"""How often positions are committed to Kafka and lag is measured."""
ANSWER_SECONDS: Final = 10.0
"""Brokers that have not taken a position by then are told the next one."""
REVOKE_SECONDS: Final = 5.0
"""Partitions that go wait so long for the batch at hand; whose commit comes later may fail, and is done again."""
STOP_SECONDS: Final = 30.0
ALONE_SECONDS: Final = 60.0
PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries to store a batch, or to begin again after Faust gave up."""
LETTER_TRIES: Final = 3

_log: Final = get_logger(__name__)


class Reader:
    """One life of the Faust application: from its start until it is stopped, or gives up."""

    def __init__(
        self,
        settings: Settings,
        config: Config,
        environment: Mapping[str, str],
        recorder: Recorder,
        thread: ThreadPoolExecutor,
        metrics: Metrics,
    ) -> None:
        self._held_bytes = config.worker.buffer_bytes
        self._held_records = HELD_BATCHES * config.worker.batch_events
        self._held: WeakSet[Bundle] = WeakSet()
        self._topic = settings.topic
        self._recorder = recorder
        self._thread = thread
        self._metrics = metrics
        self._epoch = 0
        self._unsought = False
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._positions: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._shown: set[int] = set()
        self._app = application(settings, config, environment)
        self._app.reader = self
        self._app.transport = Transport(self._app.conf.broker, self._app, self._app.loop)
        topic = self._app.topic(settings.topic, value_type=bytes, key_type=bytes, acks=False)
        self._dead_letters = self._app.topic(settings.dead_letter_topic, value_type=bytes, key_type=bytes)
        self._app.agent(topic, name="transcripts", concurrency=1)(self._work)
        self._app.on_partitions_revoked.connect(cast(Any, self._on_revoked))

    async def run(self, stop: asyncio.Event) -> bool:
        """Read until `stop` is set; returns False when Faust gave up before that."""
        app = self._app
        keeping: asyncio.Task[None] | None = None
        try:
            await app.start()
            keeping = asyncio.create_task(self._keep_house())
            ends = [asyncio.create_task(cast(Any, e).wait()) for e in (stop, app._crashed, app._stopped)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        except Exception as e:
            _log.error("faust ended", exc_info=e)
        finally:
            self._stopping.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), STOP_SECONDS)
            if keeping is not None:
                keeping.cancel()
                await asyncio.wait([keeping])
            if not app._crashed.is_set():
                await self._commit()
            with contextlib.suppress(Exception):  # what it has to say of its end changes nothing
                await asyncio.wait_for(app.stop(), STOP_SECONDS)
            self._show_lag(())
        return stop.is_set()

    # -- the agent ----------------------------------------------------------------------------------------------------

    async def _work(self, stream: Any) -> None:
        async for events in stream.noack_take(BUNDLES, within=BATCH_SECONDS):
            groups: dict[int, list[Bundle]] = {}
            for event in events:
                groups.setdefault(event.message.partition, []).append(event.message.value)
            self._idle.clear()
            try:
                for partition, bundles in groups.items():
                    await self._store(partition, [r for bundle in bundles for r in bundle.records])
                    self._let_go(bundles)
            except Exception as e:  # Faust would go on behind what was in this batch
                _log.error("batch failed", exc_info=e, items=len(groups))
                self._abandon()
                await self._pause(len(PAUSES))
            finally:
                for bundles in groups.values():
                    self._let_go(bundles)
                self._idle.set()

    async def _store(self, partition: int, records: list[Record]) -> None:
        """Store records however long it takes, unless others are to do it: nothing is lost, it is read again then."""
        tried = 0
        while True:
            if self._stopping.is_set() or partition not in self._assigned():
                self._abandon()
                return
            try:
                stored = await self._in_thread(self._recorder.store, partition, records, self._epoch)
                break
            except StoreError as e:
                if tried == 0:
                    _log.error("database away", error=type(e).__name__, detail=str(e))
                await self._pause(tried)
                tried += 1
        if tried:
            _log.warning("database back")
        self._positions[partition] = stored.position
        if stored.seek:
            await self._seek(partition, stored.position)
        if stored.refused:
            await asyncio.gather(*(self._tell(r) for r in stored.refused))

    def _abandon(self) -> None:
        """Records were taken and not stored: they are to be read again, by whoever has the partition."""
        self.interrupted()
        self._unsought = True

    async def _tell(self, refused: Refused) -> None:
        """A dead letter to its topic; the database has it already."""
        r, place = refused.record, f"{self._topic}/{refused.partition}/{refused.record.offset}"
        kept = [(k, v) for k, v in r.headers or () if k not in (names.REASON, names.ORIGIN)]
        headers = [*kept, (names.REASON, refused.reason.encode()), (names.ORIGIN, place.encode())]
        for tried in range(LETTER_TRIES):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await (await self._dead_letters.send(key=place.encode(), value=r.value or b"", headers=headers))
                return
            except Exception as e:
                error = type(e).__name__
            await self._pause(tried)
        _log.error("dead letter not produced", topic=self._topic, partition=refused.partition, error=error)

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _pause(self, tried: int) -> None:
        await _wait(self._stopping, PAUSES[min(tried, len(PAUSES) - 1)])

    # -- what waits between the brokers and the database --------------------------------------------------------------

    def hold(self, records: list[Any]) -> Bundle:
        """Records that were fetched; they count as held until they are let go, or Faust has lost them."""
        bundle = Bundle(records)
        self._held.add(bundle)
        return bundle

    def is_full(self) -> bool:
        """Whether enough is held."""
        held = list(self._held)
        return sum(len(b.records) for b in held) >= self._held_records or sum(b.bytes for b in held) >= self._held_bytes

    def _let_go(self, bundles: Collection[Bundle]) -> None:
        for bundle in bundles:
            bundle.drop()
            self._held.discard(bundle)

    # -- positions ----------------------------------------------------------------------------------------------------

    def _assigned(self) -> set[int]:
        with contextlib.suppress(Exception):  # a consumer that is not there yet, or no more, has none
            return {tp.partition for tp in self._app.consumer.assignment() if tp.topic == self._topic}
        return set()

    def interrupted(self) -> None:
        """Records may be lost from here on until the next seek."""
        self._epoch += 1
        self._held.clear()  # what Faust lost and keeps would count for ever

    async def seek_all(self) -> Mapping[TP, int]:
        """Go to where the database is, in all partitions; returns where that was possible."""
        self.interrupted()
        assigned = self._assigned()
        try:
            found: dict[int, int] = await self._in_thread(self._take_over, assigned)
        except StoreError as e:
            _log.error("database away", error=type(e).__name__, detail=str(e))
            self._unsought = True
            return {}
        self._unsought = False
        self._positions = dict(found)
        _log.info("reading", topic=self._topic, items=len(found))
        for partition, position in found.items():
            await self._seek(partition, position)
        return {TP(self._topic, partition): position for partition, position in found.items()}

    def _take_over(self, partitions: Collection[int]) -> dict[int, int]:
        self._recorder.keep(partitions)
        return self._recorder.positions(partitions)

    async def _seek(self, partition: int, position: int) -> None:
        with contextlib.suppress(Exception):  # it is not ours any more
            await self._app.consumer.seek(TP(self._topic, partition), position)

    async def _on_revoked(self, app: Any, revoked: Any, **_: Any) -> None:
        await _wait(self._idle, REVOKE_SECONDS)

    async def _keep_house(self) -> None:
        clock = asyncio.get_running_loop().time
        had_some = clock()
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            if self._assigned():
                had_some = clock()
            elif clock() - had_some > ALONE_SECONDS:  # more workers than partitions, or brokers that let none join
                had_some = math.inf
                _log.warning("no partitions were given to this worker", topic=self._topic)
            if self._unsought:
                await self.seek_all()
            await self._commit()
            self._show_lag(self._assigned())

    async def _commit(self) -> None:
        """Tell Kafka how far the database is; nobody reads it but who watches lag, so a failure changes nothing."""
        assigned = self._assigned()
        fresh = {p: at for p, at in self._positions.items() if p in assigned and self._committed.get(p) != at}
        if not fresh:
            return
        thread = cast(Any, self._app.consumer)._thread
        offsets = {TopicPartition(self._topic, p): at for p, at in fresh.items()}
        with contextlib.suppress(Exception):
            async with asyncio.timeout(ANSWER_SECONDS):
                await thread.call_thread(thread._ensure_consumer().commit, offsets)
            self._committed |= fresh

    def _show_lag(self, partitions: Collection[int]) -> None:
        for gone in self._shown - set(partitions):
            self._metrics.lag_events.remove(self._topic, str(gone))
        self._shown &= set(partitions)
        for partition in partitions:
            end = None
            with contextlib.suppress(Exception):
                end = self._app.consumer.highwater(TP(self._topic, partition))
            if end is not None and partition in self._positions:
                waiting = max(0, end - self._positions[partition])
                self._metrics.lag_events.labels(self._topic, str(partition)).set(waiting)
                self._shown.add(partition)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def work(new_reader: Callable[[], Reader], on_start: Callable[[], None]) -> None:
    """Read until SIGTERM or SIGINT, beginning again whenever Faust gives up: what is not stored is read again."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    on_start()
    tried = 0
    while not stop.is_set():
        started = asyncio.get_running_loop().time()
        if await new_reader().run(stop):
            return
        if asyncio.get_running_loop().time() - started > STOP_SECONDS:
            tried = 0
        _log.warning("beginning again")
        await _wait(stop, PAUSES[min(tried, len(PAUSES) - 1)])
        tried += 1

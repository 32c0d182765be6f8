"""Parcels of records into a topic, in order and acknowledged, whatever happens to the brokers meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kafka.errors import (
    AuthorizationError,
    ClusterAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
    UnsupportedVersionError,
)

from monitor.errors import BrokerError
from monitor.service_settings import Kafka as Settings
from streams import headers as names
from streams.headers import Headers
from streams.kafka import failure, producer, require_topic, shown

IN_FLIGHT_BYTES: Final = 1 << 25
IN_FLIGHT_RECORDS: Final = 20_000
"""What may wait for its acknowledgement: the memory of a shipper whose brokers are slow."""
WAIT_SECONDS: Final = 0.2
"""How long an unanswered acknowledgement is waited for before looking whether to stop."""
PAUSES: Final = (0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts to reach the brokers again."""
SAY_EVERY_SECONDS: Final = 30.0


class Record(NamedTuple):
    """One record of a topic."""

    key: bytes | None
    value: bytes
    headers: Headers


@dataclass(slots=True)
class Parcel:
    """Records that are acknowledged together; `done` is called then."""

    records: list[Record]
    done: Callable[[], None]
    futures: list[Any] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(len(r.value) for r in self.records)


class Stopped(Exception):
    """Whoever waits was asked to stop; what was not acknowledged is not marked as shipped."""


class Pipe:
    """Produces parcels in order, at most `IN_FLIGHT_*` of them unacknowledged.

    What fails is produced again, with everything behind it: a parcel may arrive twice, never not at all. Events count
    once by their id.

    Parameters
    ----------
    retry_seconds : brokers that are gone for longer are an error; None waits for ever.
    stopped : whether to give up waiting.
    say : told in one line what holds us up.
    """

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        max_event_bytes: int,
        *,
        retry_seconds: float | None,
        stopped: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._retry_seconds = retry_seconds
        self._stopped = stopped
        self._say = say
        self._idempotent = True
        self._environment = environment
        self._max_event_bytes = max_event_bytes
        self._parcels: deque[Parcel] = deque()
        self._bytes = self._records = 0
        require_topic(settings, environment)
        self._producer = self._connect()

    @property
    def waiting(self) -> int:
        """Records not acknowledged yet."""
        return self._records

    def send(self, parcel: Parcel) -> None:
        """Produce it, when there is room. Raises BrokerError, or Stopped."""
        self._parcels.append(parcel)
        self._bytes += parcel.size
        self._records += len(parcel.records)
        parcel.futures = [self._sent(r) for r in parcel.records]
        self.settle()
        while self._bytes > IN_FLIGHT_BYTES or self._records > IN_FLIGHT_RECORDS:
            self._settle_first()

    def settle(self) -> None:
        """Call `done` of the parcels that are acknowledged by now, without waiting."""
        while self._parcels and all(f.is_done for f in self._parcels[0].futures):
            self._settle_first()

    def drain(self) -> None:
        """Wait until everything is acknowledged. Raises BrokerError, or Stopped."""
        while self._parcels:
            self._settle_first()

    def close(self) -> None:
        with contextlib.suppress(KafkaError):
            self._producer.close(timeout=0)

    def _settle_first(self) -> None:
        parcel = self._parcels[0]
        for place, future in enumerate(parcel.futures):
            while not future.is_done:
                if self._stopped():
                    raise Stopped
                with contextlib.suppress(KafkaError):
                    future.get(WAIT_SECONDS)
            if future.failed():
                self._mend(parcel, place, future.exception)
                return
        self._parcels.popleft()
        self._bytes -= parcel.size
        self._records -= len(parcel.records)
        parcel.done()

    def _mend(self, parcel: Parcel, place: int, e: BaseException) -> None:
        """Go on after a failure: all that is not acknowledged is produced again by a new producer."""
        if isinstance(e, MessageSizeTooLargeError | RecordListTooLargeError):
            self._replace(parcel, place)
        elif self._idempotent and (
            isinstance(e, ClusterAuthorizationFailedError | UnsupportedVersionError) or "InitProducerId" in str(e)
        ):
            self._idempotent = False
            self._say("the brokers give out no producer ids: what is retried may arrive twice (and still count once)")
        elif isinstance(e, AuthorizationError | SaslAuthenticationFailedError):
            raise failure(self._settings, e) from e
        else:
            self._say(f"{shown(self._settings)}: {type(e).__name__}; sending again what is not acknowledged")
        self.close()
        self._producer = self._reconnected()
        for waiting in self._parcels:
            waiting.futures = [self._sent(r) for r in waiting.records]

    def _sent(self, r: Record) -> Any:
        """The future of a record; what fails at once fails in it, and waits there for its turn."""
        try:
            return self._producer.send(self._settings.topic, r.value, key=r.key, headers=r.headers)
        except (KafkaError, IllegalStateError) as e:
            return _Failed(e)

    def _replace(self, parcel: Parcel, place: int) -> None:
        """A record the topic has no room for goes as a dead letter that says so."""
        r = parcel.records[place]
        reason = f"line of {len(r.value):,} bytes is over the limit of the topic (max.message.bytes)"
        self._bytes -= len(r.value)
        parcel.records[place] = r._replace(value=b"", headers=[*r.headers, (names.PROBLEM, reason.encode())])

    def _connect(self) -> Any:
        return producer(self._settings, self._environment, self._max_event_bytes, idempotent=self._idempotent)

    def _reconnected(self) -> Any:
        began = said = time.monotonic()
        attempt = 0
        while True:
            if self._stopped():
                raise Stopped
            try:
                return self._connect()
            except BrokerError as e:
                now = time.monotonic()
                if self._retry_seconds is not None and now - began > self._retry_seconds:
                    raise
                if attempt == 0 or now - said > SAY_EVERY_SECONDS:
                    said = now
                    self._say(f"{e}; trying again")
            pause = time.monotonic() + PAUSES[min(attempt, len(PAUSES) - 1)]
            while time.monotonic() < pause and not self._stopped():
                time.sleep(WAIT_SECONDS)
            attempt += 1


class _Failed:
    """A future that failed before it began."""

    is_done = True

    def __init__(self, e: BaseException) -> None:
        self.exception = e

    def failed(self) -> bool:
        return True

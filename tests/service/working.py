"""Processes of `valuedrift worker`, what goes into their topic, and what must come of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from monitor.store import schema
from monitor.store.database import open_engine
from monitor.transcript import turns_of
from streams.formats import Decoder
from tests.conftest import clear as clear
from tests.conftest import command, environment
from tests.own_server import until
from tests.service.brokers import Cluster

Event = dict[str, Any]
SOAK = "VALUEDRIFT_TEST_SOAK" in os.environ
"""Whether to take as long as operators see it, not as short as developers can wait."""
SETTLE_SECONDS = 400 if SOAK else 60
"""Eight times the records take longer, in small transactions."""
PARTITIONS = 4
ENV = {
    # Apache Kafka allows no less than 6
    "VALUEDRIFT_WORKER_SESSION_SECONDS": "6" if "VALUEDRIFT_TEST_KAFKA" in os.environ else "2",
    "VALUEDRIFT_WORKER_STEP_SECONDS": "0.5",
    "VALUEDRIFT_WORKER_DATABASE_SECONDS": "1",
}


def dense(events: Sequence[Event], times: int) -> list[Event]:
    """Every event several times, seconds apart, in order of time."""
    out = []
    for k in range(times):
        for e in events:
            ts = datetime.fromisoformat(e["ts"]) + timedelta(seconds=7 * k)
            out.append(e | {"event_id": f"{e['event_id']}-{k}", "ts": ts.isoformat()})
    return sorted(out, key=lambda e: str(e["ts"]))


def turns_in(events: Iterable[Event]) -> set[tuple[str, int]]:
    """The distinct turns that are to be judged."""
    decoder, now = Decoder("canonical"), datetime.now(UTC)
    decoded = (decoder.decode(json.dumps(e).encode(), now) for e in events)
    return {(t.event.event_id, t.index) for e in decoded for t in turns_of(e)}


class Topic:
    """A transcripts topic with its dead letters, and what was put there."""

    def __init__(self, cluster: Cluster, partitions: int = PARTITIONS) -> None:
        self.cluster = cluster
        self.partitions = partitions
        self.name = cluster.topic("transcripts", partitions)
        self.dead = cluster.topic("dead", 1)
        self.records = 0

    @property
    def url(self) -> str:
        return self.cluster.url(self.name)

    def put(self, events: Iterable[Event], partition: int | None = None) -> None:
        self.put_raw([json.dumps(e, ensure_ascii=False).encode() for e in events], partition)

    def put_raw(self, values: Sequence[bytes], partition: int | None = None, **more: Any) -> None:
        """Each value to the next partition, and acknowledged."""
        producer = KafkaProducer(bootstrap_servers=self.cluster.servers.split(","), max_block_ms=20_000)
        try:
            sent = []
            for i, value in enumerate(values, start=self.records):
                if len(values) - (i - self.records) == self.partitions:
                    producer.flush()  # Tansu says the end is before its last batch: let that be a single record
                to = i % self.partitions if partition is None else partition
                sent.append(producer.send(self.name, value, partition=to, **more))
            for future in sent:
                future.get(30)
        finally:
            producer.close()
        self.records += len(values)

    def letters(self) -> list[Any]:
        return self.cluster.read(self.dead)


class Worker:
    """A worker process; `with` ends it."""

    def __init__(self, folder: Path, url: str, topic: Topic, group: str, **env: str) -> None:
        self.log = folder / f"worker{time.monotonic_ns()}.log"
        self.out = self.log.with_suffix(".out")
        called = command("worker", "--from", topic.url, "--db", url, "--group", group, "--metrics-port", "0")
        settings = ENV | {"VALUEDRIFT_KAFKA_DEAD_LETTER_TOPIC": topic.dead} | env
        with self.log.open("wb") as err, self.out.open("wb") as out:
            self.process = subprocess.Popen(called, cwd=folder, env=environment() | settings, stdout=out, stderr=err)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 40) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def figure(self, name: str) -> float:
        """Of its metrics; 0 where there is none yet."""
        address = self.out.read_text().rpartition(" metrics on ")[2].strip()
        if not address:
            return 0.0
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextlib.contextmanager
def reading(url: str) -> Iterator[Any]:
    engine = open_engine(url, connect_seconds=1, retry_seconds=0)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def positions(url: str) -> list[int]:
    """How many records of each partition the database has; none while it cannot be asked."""
    try:
        with reading(url) as connection:
            query = "SELECT position FROM offsets WHERE source LIKE 'kafka://%'"
            return list(connection.execute(text(query)).scalars())
    except SQLAlchemyError:
        return []


def counted(url: str) -> int:
    """Records that the database has, of Kafka's."""
    return sum(positions(url))


def settle(url: str, topic: Topic, *workers: Worker, seconds: float = SETTLE_SECONDS) -> None:
    """Wait until all is counted, and the series have been moved on as far as that goes."""

    def steps() -> float:
        return sum(w.figure('valuedrift_step_seconds_count{outcome="done"}') for w in workers)

    until(lambda: counted(url) >= topic.records, seconds)
    assert counted(url) == topic.records
    done = steps()
    until(lambda: steps() >= done + 2, seconds)


def turns(url: str) -> list[tuple[str, int]]:
    """Every row of turns."""
    with reading(url) as connection:
        return [tuple(r) for r in connection.execute(select(schema.turns.c.event_id, schema.turns.c.turn))]


def points(url: str) -> list[tuple[Any, ...]]:
    """Every point of every trajectory, all that it says, by the series' name."""
    p, s = schema.points, schema.series
    columns = [c for c in p.c if c.name != "series_id"]
    query = select(s.c.deployment, s.c.model, s.c.labels, *columns).join_from(p, s, p.c.series_id == s.c.id)
    with reading(url) as connection:
        return sorted((tuple(r) for r in connection.execute(query)), key=lambda r: tuple(map(str, r)))


def buckets(url: str) -> dict[tuple[str, str, int], int]:
    """Turns of each series in each minute."""
    b, s = schema.buckets, schema.series
    found: dict[tuple[str, str, int], int] = {}
    with reading(url) as connection:
        for deployment, model, minute, n in connection.execute(
            select(s.c.deployment, s.c.model, b.c.minute, b.c.n).join_from(b, s, b.c.series_id == s.c.id)
        ):
            key = (deployment, model, minute)
            found[key] = found.get(key, 0) + n
    return found


def bad_letters(url: str) -> list[tuple[str, int, str]]:
    d, o = schema.dead_letters, schema.offsets
    query = (
        select(o.c.source, d.c.position, d.c.reason).join_from(d, o, d.c.offset_id == o.c.id).where(d.c.kind == "bad")
    )
    with reading(url) as connection:
        return sorted(tuple(r) for r in connection.execute(query))


def assert_as_undisturbed(url: str, events: Sequence[Event], expected: Sequence[tuple[Any, ...]]) -> None:
    """Every turn once and no other, and the same S(t) as without the fault."""
    found = turns(url)
    assert len(found) == len(set(found))
    assert set(found) == turns_in(events)
    assert points(url) == list(expected)


def undisturbed(cluster: Cluster, events: Sequence[Event], url: str, folder: Path) -> list[tuple[Any, ...]]:
    """The points that one worker makes of the events, in order and without faults; also: it stops as asked."""
    topic = Topic(cluster)
    topic.put(events)
    with Worker(folder, url, topic, cluster.name("group")) as worker:
        settle(url, topic, worker)
        started = time.monotonic()
        assert worker.stop() == 0, worker.logged
        assert time.monotonic() - started < 10
    return points(url)

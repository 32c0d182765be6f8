"""Workers, brokers and databases that die: every turn is counted once all the same, and S(t) is what it would be."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.own_server import OwnServer, until
from tests.service import working
from tests.service.brokers import Broker, Cluster
from tests.service.working import (
    SETTLE_SECONDS,
    SOAK,
    Event,
    Topic,
    Worker,
    assert_as_undisturbed,
    counted,
    dense,
    settle,
)

pytestmark = pytest.mark.service
SLOWLY = {"VALUEDRIFT_WORKER_BATCH_EVENTS": "15"}
"""Many small transactions: a fault hits between and inside them."""
VERY_SLOWLY = {"VALUEDRIFT_WORKER_BATCH_EVENTS": "2"}
"""So that ten short lives do not count everything, on whatever machine."""
JOINS = {"VALUEDRIFT_WORKER_SESSION_SECONDS": "6"}
"""As little as noida allows."""


@pytest.fixture(scope="module")
def events(examples: list[Event]) -> list[Event]:
    return dense(examples, 40 if SOAK else 5)


@pytest.fixture(scope="module")
def undisturbed(kafka: Cluster, events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return working.undisturbed(kafka, events, f"sqlite:///{folder}/a.db", folder)


def test_killed_ten_times(
    kafka: Cluster, events: list[Event], undisturbed: list[tuple[Any, ...]], empty_postgres: str, tmp_path: Path
) -> None:
    """kill -9 in ten random moments: starting, reading, judging, committing, stepping."""
    rng = random.Random(20261122)
    topic = Topic(kafka)
    topic.put(events)
    for life in range(10):
        before = counted(empty_postgres)
        # a group of its own: what the killed one holds need not run out first, positions are the database's
        with Worker(tmp_path, empty_postgres, topic, kafka.name("group"), **VERY_SLOWLY) as worker:
            if life % 5:
                until(lambda before=before: counted(empty_postgres) > before)
                time.sleep(rng.uniform(0, 0.4))
            else:
                time.sleep(rng.uniform(0.5, 4))
            assert worker.process.poll() is None, worker.logged
            worker.kill()
    assert 0 < counted(empty_postgres) < topic.records
    with Worker(tmp_path, empty_postgres, topic, kafka.name("group")) as worker:
        settle(empty_postgres, topic, worker)
        assert worker.stop() == 0
    assert_as_undisturbed(empty_postgres, events, undisturbed)


def test_rebalance_storm(
    kafka: Cluster, events: list[Event], undisturbed: list[tuple[Any, ...]], empty_postgres: str, tmp_path: Path
) -> None:
    """A worker joins and leaves every few seconds, by SIGTERM or by kill -9, beside one that stays."""
    topic = Topic(kafka)
    topic.put(events)
    group = kafka.name("group")
    rounds, seconds = (12, 5.0) if SOAK else (3, 4.0)
    with Worker(tmp_path, empty_postgres, topic, group, **SLOWLY) as stays:
        until(lambda: counted(empty_postgres) > 0)
        for turn in range(rounds):
            with Worker(tmp_path, empty_postgres, topic, group, **SLOWLY) as joins:
                time.sleep(seconds)
                if turn % 2 == 0:
                    assert joins.stop() == 0, joins.logged
        settle(empty_postgres, topic, stays)
        assert "uncaught" not in stays.logged
        assert stays.stop() == 0
    assert_as_undisturbed(empty_postgres, events, undisturbed)


def test_two_workers_share(
    kafka: Cluster, events: list[Event], undisturbed: list[tuple[Any, ...]], empty_postgres: str, tmp_path: Path
) -> None:
    """Two workers of a group have two partitions each; one is killed, and the other takes over."""
    topic = Topic(kafka)
    group = kafka.name("group")
    with Worker(tmp_path, empty_postgres, topic, group) as a, Worker(tmp_path, empty_postgres, topic, group) as b:
        topic.put(events)
        until(lambda: a.figure("valuedrift_turns_total") > 0 and b.figure("valuedrift_turns_total") > 0)
        a.kill()
        settle(empty_postgres, topic, b)
        assert b.stop() == 0
    found = working.turns(empty_postgres)
    assert len(found) == len(set(found))
    assert set(found) == working.turns_in(events)


@pytest.mark.parametrize("how", ["stopped", "killed"] if SOAK else ["killed"])
def test_database_away(
    kafka: Cluster, events: list[Event], undisturbed: list[tuple[Any, ...]], own: OwnServer, tmp_path: Path, how: str
) -> None:
    """The database goes in the middle and comes back: the worker waits for it, and forgets nothing."""
    working.clear(own.url)
    topic = Topic(kafka)
    topic.put(events)
    with Worker(tmp_path, own.url, topic, kafka.name("group"), **SLOWLY) as worker:
        until(lambda: counted(own.url) > 300)
        _ = own.stop() if how == "stopped" else own.kill()
        time.sleep(60 if SOAK else 6)
        assert worker.process.poll() is None, worker.logged
        own.start()
        settle(own.url, topic, worker)
        assert "database away" in worker.logged
        assert worker.figure('valuedrift_database_errors_total{kind="outage"}') > 0
        assert worker.stop() == 0
    assert_as_undisturbed(own.url, events, undisturbed)


def test_stopped_while_the_database_is_away(
    kafka: Cluster, events: list[Event], own: OwnServer, tmp_path: Path
) -> None:
    """A worker that is stopped without its database ends soon; the next one counts what it held."""
    working.clear(own.url)
    topic = Topic(kafka)
    topic.put(events)
    with Worker(tmp_path, own.url, topic, kafka.name("group"), **SLOWLY) as worker:
        until(lambda: counted(own.url) > 300)
        own.stop()
        until(lambda: "database away" in worker.logged)
        started = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - started < 15
    own.start()
    with Worker(tmp_path, own.url, topic, kafka.name("group")) as worker:
        settle(own.url, topic, worker)
        assert worker.stop() == 0
    found = working.turns(own.url)
    assert len(found) == len(set(found))
    assert set(found) == working.turns_in(events)


def test_no_more_is_fetched_than_can_be_stored(
    kafka: Cluster, events: list[Event], own: OwnServer, tmp_path: Path
) -> None:
    """However much waits in Kafka, a worker whose database is away holds a few MB of it."""
    working.clear(own.url)
    topic = Topic(kafka)
    topic.put(events[:100])
    settings = {"VALUEDRIFT_WORKER_BUFFER_BYTES": str(1 << 20), "VALUEDRIFT_WORKER_SESSION_SECONDS": "25"}
    with Worker(tmp_path, own.url, topic, kafka.name("group"), **settings) as worker:
        until(lambda: counted(own.url) == topic.records)
        process = psutil.Process(worker.process.pid)
        before = process.memory_info().rss
        own.stop()
        process.suspend()  # so that it finds all of it at once
        topic.put_raw([b"x" * 16_000] * 10_000)  # 160 MB
        process.resume()
        until(lambda: "database away" in worker.logged)
        time.sleep(5)  # in which it would fetch the most of it
        grown = process.memory_info().rss - before
        assert worker.stop() == 0
    own.start()
    assert grown < 40e6


@pytest.mark.parametrize("kill", [False, True] if SOAK else [True])
def test_broker_restarted(
    kafka_durable: Broker,
    events: list[Event],
    undisturbed: list[tuple[Any, ...]],
    empty_postgres: str,
    tmp_path: Path,
    kill: bool,
) -> None:
    """The broker is stopped or killed in the middle, and comes back with its data: the same worker goes on."""
    topic = Topic(kafka_durable)
    topic.put(events)
    settings = SLOWLY | JOINS
    with Worker(tmp_path, empty_postgres, topic, kafka_durable.name("group"), **settings) as worker:
        until(lambda: counted(empty_postgres) > 300)
        kafka_durable.stop(kill=kill)
        time.sleep(30 if SOAK else 3)
        kafka_durable.start()
        settle(empty_postgres, topic, worker, seconds=max(90, SETTLE_SECONDS))
        assert worker.stop() == 0, worker.logged
    assert_as_undisturbed(empty_postgres, events, undisturbed)

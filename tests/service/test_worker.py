"""`valuedrift worker` on a real broker: what is in the topic is counted once, or refused with a reason."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from streams import headers as names
from streams.headers import text_of
from tests.conftest import Run
from tests.own_server import until
from tests.service import working
from tests.service.brokers import Cluster
from tests.service.working import (
    PARTITIONS,
    Event,
    Topic,
    Worker,
    assert_as_undisturbed,
    bad_letters,
    buckets,
    counted,
    dense,
    points,
    positions,
    settle,
    turns,
    turns_in,
)

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def events(examples: list[Event]) -> list[Event]:
    return dense(examples, 3)


@pytest.fixture(scope="module")
def undisturbed(
    kafka: Cluster, events: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[tuple[Any, ...]]]:
    """A database, and the points in it, of the events without faults."""
    folder = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{folder}/a.db"
    return url, working.undisturbed(kafka, events, url, folder)


def test_same_as_watch(
    undisturbed: tuple[str, list[tuple[Any, ...]]], events: list[Event], valuedrift: Run, tmp_path: Path
) -> None:
    """What a worker makes of a topic is what `watch` makes of the same lines in a file."""
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in events), encoding="utf-8")
    assert valuedrift("watch", str(log)).returncode == 0
    url, own = undisturbed
    watched = f"sqlite:///{tmp_path}/valuedrift.db"
    assert buckets(url) == buckets(watched)
    assert sorted(turns(url)) == sorted(turns(watched))
    assert set(points(watched)) <= set(own)


def test_what_cannot_be_counted(
    kafka: Cluster,
    events: list[Event],
    undisturbed: tuple[str, list[tuple[Any, ...]]],
    empty_postgres: str,
    tmp_path: Path,
) -> None:
    """Duplicates, disorder within the lateness, poison and skewed clocks: turns and S(t) are those without them."""
    rng = random.Random(7)
    topic = Topic(kafka)
    ahead = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    disordered = sorted(events, key=lambda e: datetime.fromisoformat(e["ts"]).timestamp() + rng.uniform(0, 60))
    assert disordered != events
    lines = [json.dumps(e, ensure_ascii=False).encode() for e in disordered]
    lines += rng.sample(lines, 200)  # a producer that sent them again, wherever
    poison = [
        b"\xff\xfe",
        b"{" * 50_000,
        b'{"ts": 1e308}',
        b"null",
        json.dumps(events[0] | {"event_id": "x", "ts": ahead}).encode(),
    ]
    lines[1000:1000] = poison
    topic.put_raw(lines)
    topic.put_raw([b""], headers=[(names.PROBLEM, b"line of 9 bytes is over the limit")])
    topic.put_raw(
        [json.dumps({k: v for k, v in events[0].items() if k != "deployment"} | {"event_id": "named"}).encode()],
        headers=[(names.FORMAT, b"canonical"), (names.DEPLOYMENT, b"by-header")],
    )
    with Worker(tmp_path, empty_postgres, topic, kafka.name("group")) as worker:
        settle(empty_postgres, topic, worker)
        until(lambda: len(topic.letters()) == len(poison) + 1)
        assert worker.figure("valuedrift_duplicates_total") == 200
        assert worker.figure("valuedrift_dead_letters_total") == len(poison) + 1
        until(lambda: worker.figure("valuedrift_lag_events") == 0)
        assert worker.stop() == 0, worker.logged
    named = [t for t in turns(empty_postgres) if t[0] == "named"]
    assert len(named) == 2
    ours = [p for p in points(empty_postgres) if p[0] != "by-header"]
    assert ours == undisturbed[1]
    assert set(turns(empty_postgres)) == turns_in(events) | set(named)

    letters = topic.letters()
    assert sorted(r.value for r in letters) == sorted([*poison, b""])
    by_place = {r.key.decode(): text_of(r.headers, names.REASON) for r in letters}
    assert by_place == {text_of(r.headers, names.ORIGIN): text_of(r.headers, names.REASON) for r in letters}
    stored = {
        f"{topic.name}/{source.rpartition('/')[2]}/{at}": reason for source, at, reason in bad_letters(empty_postgres)
    }
    assert by_place == stored
    assert any("ahead" in (reason or "") or "future" in (reason or "") for reason in by_place.values())


def test_late_events(kafka: Cluster, events: list[Event], empty_postgres: str, tmp_path: Path) -> None:
    """Events that come when their minutes have long been closed are counted in those minutes all the same."""
    late = set(random.Random(3).sample(range(len(events)), 300))
    topic = Topic(kafka)
    topic.put([e for i, e in enumerate(events) if i not in late])
    with Worker(tmp_path, empty_postgres, topic, kafka.name("group")) as worker:
        settle(empty_postgres, topic, worker)
        topic.put([events[i] for i in sorted(late)])
        until(lambda: counted(empty_postgres) == topic.records)
        assert worker.stop() == 0
    found = turns(empty_postgres)
    assert len(found) == len(set(found))
    assert set(found) == turns_in(events)
    assert sum(buckets(empty_postgres).values()) == len(found)


def test_positions_are_the_databases(
    kafka: Cluster, events: list[Event], undisturbed: tuple[str, list[tuple[Any, ...]]], tmp_path: Path
) -> None:
    """A database that is restored from before is filled again, whatever the group has committed to Kafka."""
    topic = Topic(kafka)
    group = kafka.name("group")
    url = f"sqlite:///{tmp_path}/a.db"
    topic.put(events)
    with Worker(tmp_path, url, topic, group, VALUEDRIFT_WORKER_BATCH_EVENTS="20") as worker:
        until(lambda: counted(url) > 500)
        assert worker.stop() == 0
    backup, before = (tmp_path / "a.db").read_bytes(), counted(url)
    assert before < topic.records
    for _ in range(2):
        with Worker(tmp_path, url, topic, group) as worker:
            settle(url, topic, worker)
            until(lambda: committed(topic, group) == topic.records)
            assert_as_undisturbed(url, events, undisturbed[1])
            assert worker.stop() == 0
        (tmp_path / "a.db").write_bytes(backup)
    with kafka.admin() as admin:  # nothing of Faust's own was made
        assert {t for t in admin.list_topics() if topic.name in t or group in t} == {topic.name}
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_partitions_take_turns(kafka: Cluster, events: list[Event], tmp_path: Path) -> None:
    """A worker with a lag moves all its partitions on, however slow it is: none seems stuck."""
    topic = Topic(kafka)
    topic.put(events)
    url = f"sqlite:///{tmp_path}/a.db"
    with Worker(tmp_path, url, topic, kafka.name("group"), VALUEDRIFT_WORKER_BATCH_EVENTS="15") as worker:
        found: list[int] = []
        while sum(found) < topic.records / 4:
            found = positions(url)
            assert worker.process.poll() is None, worker.logged
        worker.kill()
    assert len(found) == PARTITIONS
    assert min(found) > topic.records / 4 / PARTITIONS / 2


def committed(topic: Topic, group: str) -> int:
    """What the group has told Kafka."""
    consumer = KafkaConsumer(
        bootstrap_servers=topic.cluster.servers.split(","), group_id=group, enable_auto_commit=False
    )
    try:
        return sum(consumer.committed(TopicPartition(topic.name, p)) or 0 for p in range(PARTITIONS))
    finally:
        consumer.close()


def test_topic_that_is_missing(kafka: Cluster, valuedrift: Run) -> None:
    """Said at once, with what to do."""
    done = valuedrift("worker", "--from", kafka.url("nowhere"), env={"VALUEDRIFT_KAFKA_RETRY_SECONDS": "0"})
    assert done.returncode == 3
    assert "make it with: valuedrift kafka init" in done.stderr


def test_no_broker(valuedrift: Run) -> None:
    """Said in one line."""
    done = valuedrift("worker", "--from", "kafka://127.0.0.1:1/x", env={"VALUEDRIFT_KAFKA_RETRY_SECONDS": "0"})
    assert done.returncode == 3
    assert "no broker answers" in done.stderr

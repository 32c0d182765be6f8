"""Logs into Kafka and out again, on real brokers: nothing lost, nothing changed, restarts and outages and all."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams import headers as names
from streams.headers import text_of
from streams.ship import LOOK_EVERY_SECONDS
from tests.conftest import EXAMPLES, Run, command, environment, repeated, write_log
from tests.own_server import until
from tests.service.brokers import Broker, Cluster, free_port

pytestmark = pytest.mark.service


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def values(cluster: Cluster, topic: str) -> list[bytes]:
    return [r.value for r in cluster.read(topic)]


def count(cluster: Cluster, topic: str) -> int:
    return len(cluster.read(topic))


@contextmanager
def shipping(folder: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`valuedrift ship` in the background; ended by SIGTERM."""
    with (folder / "ship.err").open("a") as err:
        process = subprocess.Popen(
            command("ship", *arguments),
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_every_line_unchanged_and_by_conversation(kafka: Cluster, tmp_path: Path, valuedrift: Run) -> None:
    """A log arrives byte for byte, conversations each in one partition, broken lines too; a rerun sends nothing."""
    events = [json.loads(line) for line in lines_of(EXAMPLES)[:300]]
    for k, e in enumerate(events):
        e["conversation_id"] = f"c{k % 40}"
    log = write_log(tmp_path / "log.jsonl", events)
    with log.open("ab") as f:
        f.write(b'{"broken": \xff\n\n  {"spaces":  "kept"} \r\n')
    topic = kafka.topic("ship", 5)
    done = valuedrift("ship", log, "--to", kafka.url(topic))
    assert done.returncode == 0, done.stderr

    records = kafka.read(topic)
    sent = [line for line in log.read_bytes().replace(b"\r\n", b"\n").split(b"\n") if line]
    assert sorted(r.value for r in records) == sorted(sent)
    partitions: dict[bytes, set[int]] = {}
    seen: dict[bytes, list[int]] = {}
    for r in records:
        if r.key is not None:
            partitions.setdefault(r.key, set()).add(r.partition)
            seen.setdefault(r.key, []).append(int(text_of(r.headers, names.LINE) or ""))
    assert set(partitions) == {f"c{k}".encode() for k in range(40)}
    assert all(len(p) == 1 for p in partitions.values())
    assert len(set().union(*partitions.values())) > 1
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    broken = next(r for r in records if r.value.startswith(b'{"broken"'))
    assert broken.key is None
    assert text_of(broken.headers, names.LINE) == "301"
    assert (text_of(broken.headers, names.SOURCE) or "").endswith(f":{log}")
    assert text_of(broken.headers, names.FORMAT) == "canonical"

    assert valuedrift("ship", log, "--to", kafka.url(topic)).returncode == 0
    assert count(kafka, topic) == len(sent)


def test_other_topic_has_a_position_of_its_own(kafka: Cluster, tmp_path: Path, valuedrift: Run) -> None:
    """What was shipped to one topic is shipped to another from the beginning."""
    log = tmp_path / "a.jsonl"
    log.write_bytes(b"".join(line + b"\n" for line in lines_of(EXAMPLES)[:20]))
    for topic in (kafka.topic("one", 1), kafka.topic("two", 1)):
        assert valuedrift("ship", log, "--to", kafka.url(topic)).returncode == 0
        assert count(kafka, topic) == 20


def test_what_cannot_be_kept_goes_as_a_reason(kafka: Cluster, tmp_path: Path, valuedrift: Run) -> None:
    """A line over the limit and a gzip cut short each send a record without text that says why, once."""
    lines = lines_of(EXAMPLES)[:10]
    whole = gzip.compress(b"".join(line + b"\n" for line in [*lines, b'{"x": "' + b"a" * 100_000 + b'"}', *lines]))
    log = tmp_path / "log.jsonl.gz"
    log.write_bytes(whole[:-12])
    topic = kafka.topic("problems", 2)
    env = {"VALUEDRIFT_INPUT_MAX_EVENT_BYTES": "50000"}
    for _ in range(2):
        assert valuedrift("ship", log, "--to", kafka.url(topic), env=env).returncode == 0
        records = kafka.read(topic)
        reasons = {text_of(r.headers, names.LINE): text_of(r.headers, names.PROBLEM) for r in records if not r.value}
        assert reasons["11"] == "line of 100,009 bytes is over the limit of 50,000"
        assert [r for line, r in reasons.items() if line != "11" and r and "gzip data is cut short" in r]
        assert len(reasons) == 2
        assert {r.value for r in records if r.value} <= set(lines)


def test_topic_without_room_for_a_line(kafka_durable: Broker, tmp_path: Path, valuedrift: Run) -> None:
    """A line that the brokers refuse for its size goes as a reason; the lines round it arrive."""
    topic = kafka_durable.topic("small", 1, **{"max.message.bytes": "20000"})
    noise = os.urandom(40_000).hex().encode()
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"n": 1}\n{"n": "' + noise + b'"}\n{"n": 3}\n')
    done = valuedrift("ship", log, "--to", kafka_durable.url(topic))
    assert done.returncode == 0, done.stderr
    records = kafka_durable.read(topic)
    if b'"' + noise in b"".join(r.value for r in records):
        pytest.skip("this broker does not keep to max.message.bytes")
    assert {r.value for r in records} >= {b'{"n": 1}', b'{"n": 3}'}
    assert any("max.message.bytes" in (text_of(r.headers, names.PROBLEM) or "") for r in records)


def test_directory_followed(kafka: Cluster, tmp_path: Path) -> None:
    """Logs that grow, are rotated, cut, new or gone in a followed directory all arrive; SIGTERM ends it well."""
    folder = tmp_path / "logs"
    folder.mkdir()
    a, b = folder / "a.jsonl", folder / "b.jsonl"
    lines = [line + b"\n" for line in lines_of(EXAMPLES)]
    a.write_bytes(b"".join(lines[:50]))
    b.write_bytes(b"".join(lines[50:100]))
    topic = kafka.topic("follow", 3)
    with shipping(tmp_path, folder, "--to", kafka.url(topic), "--follow", "--json") as process:
        until(lambda: count(kafka, topic) == 100)
        with a.open("ab") as f:
            f.write(b"".join(lines[100:120]))
            f.write(lines[120][:30])
            f.flush()
            time.sleep(0.5)
            f.write(lines[120][30:])
        a.rename(folder / "a.jsonl.1")
        a.write_bytes(b"".join(lines[121:140]))
        b.write_bytes(b"".join(lines[140:150]))
        (folder / "c.jsonl").write_bytes(b"".join(lines[150:170]))
        until(lambda: count(kafka, topic) == 170)
        for gone in folder.iterdir():
            gone.unlink()
        time.sleep(LOOK_EVERY_SECONDS + 1)
        (folder / "d.jsonl").write_bytes(b"".join(lines[170:180]))
        until(lambda: count(kafka, topic) == 180)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, (tmp_path / "ship.err").read_text()
    summary = json.loads(out)
    assert summary["shipped"]["lines"] == 180
    assert summary["not_acknowledged"] == 0
    assert sorted(values(kafka, topic)) == sorted(line.rstrip(b"\n") for line in lines[:180])


def test_rotated_while_nobody_shipped(kafka: Cluster, tmp_path: Path, valuedrift: Run) -> None:
    """Two rotations between runs, one of them compressed: the unread rest is found and sent first, nothing twice."""
    log = tmp_path / "app.jsonl"
    lines = [line + b"\n" for line in lines_of(EXAMPLES)]
    log.write_bytes(b"".join(lines[:30]))
    topic = kafka.topic("rotated", 1)
    assert valuedrift("ship", log, "--to", kafka.url(topic)).returncode == 0
    (tmp_path / "app.jsonl.2.gz").write_bytes(gzip.compress(b"".join(lines[:50])))
    (tmp_path / "app.jsonl.1").write_bytes(b"".join(lines[50:60]))
    os.utime(tmp_path / "app.jsonl.2.gz", (1, 1))
    log.write_bytes(b"".join(lines[60:70]))
    done = valuedrift("ship", log, "--to", kafka.url(topic))
    assert done.returncode == 0, done.stderr
    assert values(kafka, topic) == [line.rstrip(b"\n") for line in lines[:70]]
    assert valuedrift("ship", log, "--to", kafka.url(topic)).returncode == 0
    assert count(kafka, topic) == 70


def test_renamed_in_its_directory(kafka: Cluster, tmp_path: Path, valuedrift: Run) -> None:
    """A log that got another name and a new one in its place: both go on where they are, nothing twice."""
    folder = tmp_path / "logs"
    folder.mkdir()
    lines = [line + b"\n" for line in lines_of(EXAMPLES)]
    (folder / "now.jsonl").write_bytes(b"".join(lines[:30]))
    topic = kafka.topic("renamed", 1)
    assert valuedrift("ship", folder, "--to", kafka.url(topic)).returncode == 0
    (folder / "now.jsonl").rename(folder / "monday.jsonl")
    with (folder / "monday.jsonl").open("ab") as f:
        f.write(b"".join(lines[30:40]))
    (folder / "now.jsonl").write_bytes(b"".join(lines[40:45]))
    done = valuedrift("ship", folder, "--to", kafka.url(topic))
    assert done.returncode == 0, done.stderr
    assert sorted(values(kafka, topic)) == sorted(line.rstrip(b"\n") for line in lines[:45])


def test_kill_nine(kafka: Cluster, tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]]) -> None:
    """kill -9 again and again while a log is shipped: in the end every line is there, few of them twice."""
    log = write_log(tmp_path / "log.jsonl", repeated(examples, 25))
    topic = kafka.topic("killed", 4)
    interrupted = 0
    for seconds in (0.9, 1.2, 1.5):
        process = subprocess.Popen(
            command("ship", log, "--to", kafka.url(topic)),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        interrupted += process.poll() is None
        process.kill()
        process.wait()
    assert interrupted >= 2
    done = valuedrift("ship", log, "--to", kafka.url(topic))
    assert done.returncode == 0, done.stderr
    arrived = values(kafka, topic)
    assert set(arrived) == set(lines_of(log))


def test_brokers_gone_for_a_while(kafka_durable: Broker, tmp_path: Path, examples: list[dict[str, Any]]) -> None:
    """The broker is stopped under a followed log and comes back: every line is there."""
    log = write_log(tmp_path / "log.jsonl", examples[:100])
    topic = kafka_durable.topic("outage", 2)
    with shipping(tmp_path, log, "--to", kafka_durable.url(topic), "--follow") as process:
        until(lambda: count(kafka_durable, topic) == 100)
        kafka_durable.stop()
        write_log(tmp_path / "more.jsonl", examples[100:])
        with log.open("ab") as f:
            f.write((tmp_path / "more.jsonl").read_bytes())
        time.sleep(3)
        kafka_durable.start()
        expected = set(lines_of(log))
        until(lambda: set(values(kafka_durable, topic)) == expected, 60)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert (tmp_path / "ship.err").read_text().count("Traceback") == 0


def test_standard_input(kafka: Cluster, tmp_path: Path) -> None:
    """What is piped in arrives while the pipe is open, and SIGTERM ends a shipper that waits for more."""
    topic = kafka.topic("pipe", 2)
    with shipping(tmp_path, "-", "--to", kafka.url(topic), "--follow") as process:
        assert process.stdin is not None
        process.stdin.write(EXAMPLES.read_text(encoding="utf-8"))
        process.stdin.flush()
        until(lambda: count(kafka, topic) == len(lines_of(EXAMPLES)))
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert process.returncode == 0, (tmp_path / "ship.err").read_text()
    assert not (tmp_path / "valuedrift-ship.json").exists()


def test_one_shipper_a_position_file(kafka: Cluster, tmp_path: Path, valuedrift: Run) -> None:
    """A second shipper with the same position file is refused; a damaged one is named, with what to do."""
    log = tmp_path / "a.jsonl"
    log.write_bytes(lines_of(EXAMPLES)[0] + b"\n")
    topic = kafka.topic("lock", 1)
    with shipping(tmp_path, log, "--to", kafka.url(topic), "--follow"):
        until(lambda: count(kafka, topic) == 1)
        second = valuedrift("ship", log, "--to", kafka.url(topic))
    assert second.returncode == 3
    assert "--state" in second.stderr
    (tmp_path / "valuedrift-ship.json").write_text("{")
    damaged = valuedrift("ship", log, "--to", kafka.url(topic))
    assert damaged.returncode == 3
    assert "move it away" in damaged.stderr


def test_init_says_what_is_there(kafka_durable: Broker, valuedrift: Run) -> None:
    """`kafka init` makes both topics once; then it says that they exist, and where they differ from the settings."""
    at = f"kafka://{kafka_durable.servers}/transcripts.of.shop"
    env = {"VALUEDRIFT_KAFKA_PARTITIONS": "3", "VALUEDRIFT_KAFKA_RETENTION_HOURS": "2"}

    def init(**more: str) -> dict[str, Any]:
        done = valuedrift("kafka", "init", "--brokers", at, "--json", env=env | more)
        assert done.returncode == 0, done.stderr
        return {t["topic"]: t for t in json.loads(done.stdout)["topics"]}

    first = init()
    assert {name: (t["made"], t["partitions"]) for name, t in first.items()} == {
        "transcripts.of.shop": (True, 3),
        "valuedrift.dead-letters": (True, 1),
    }
    assert [(t["made"], t["differs"]) for t in init().values()] == [(False, []), (False, [])]
    other = init(VALUEDRIFT_KAFKA_PARTITIONS="5", VALUEDRIFT_KAFKA_RETENTION_HOURS="3")["transcripts.of.shop"]
    assert other["partitions"] == 3
    assert other["differs"] == [
        "3 partitions, the settings say 5",
        "retention.ms 7200000, the settings say 10800000",
    ]


def test_what_is_wrong_is_said_in_one_line(kafka: Cluster, tmp_path: Path, valuedrift: Run) -> None:
    """No broker, topic, TLS or password, or a password in the URL: exit code and one line that says what to do."""
    log = tmp_path / "a.jsonl"
    log.write_bytes(lines_of(EXAMPLES)[0] + b"\n")
    gone = valuedrift("ship", log, "--to", f"kafka://127.0.0.1:{free_port()}/x")
    no_topic = valuedrift("ship", log, "--to", kafka.url(kafka.name("missing")))
    in_url = valuedrift("ship", log, "--to", "kafka://user:hunter2@127.0.0.1:9092/x")
    no_password = valuedrift("kafka", "init", env={"VALUEDRIFT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})
    no_tls = valuedrift("ship", log, "--to", kafka.url("x"), env={"VALUEDRIFT_KAFKA_SECURITY_PROTOCOL": "SSL"})
    for done, code, said in (
        (gone, 3, "no broker answers"),
        (no_topic, 3, "valuedrift kafka init"),
        (in_url, 2, "VALUEDRIFT_KAFKA_SASL_PASSWORD"),
        (no_tls, 3, "no TLS with any broker"),
        (no_password, 2, "VALUEDRIFT_KAFKA_SASL_PASSWORD"),
    ):
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "hunter2" not in done.stderr


def test_replay_by_time_and_of_dead_letters(kafka_durable: Broker, valuedrift: Run) -> None:
    """A replay copies what was produced in a time, same key, value and headers; a second one leaves the copies out."""
    topic = kafka_durable.topic("again", 3)
    letters = kafka_durable.topic("letters", 1)
    at = ("--brokers", kafka_durable.url(topic))
    env = {"VALUEDRIFT_KAFKA_DEAD_LETTER_TOPIC": letters}
    marks = [("traceparent", b"\x00\x01")]
    kafka_durable.produce(topic, [(b"k%d" % (k % 9), b"old %d" % k) for k in range(90)])
    time.sleep(0.3)
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time())) + f".{int(time.time() * 1000) % 1000:03d}"
    time.sleep(0.3)
    fresh = [(b"k%d" % (k % 9), b"new %d" % k) for k in range(60)]
    kafka_durable.produce(topic, fresh, headers=marks)

    counted = valuedrift("replay", "--from", began, "--dry-run", "--json", *at, env=env)
    assert json.loads(counted.stdout)["records"]["replayed"] == 60
    assert count(kafka_durable, topic) == 150
    for expected in ({"read": 60, "replayed": 60, "copies": 0}, {"read": 120, "replayed": 60, "copies": 60}):
        done = valuedrift("replay", "--from", began, "--json", *at, env=env)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["records"].items() >= expected.items()
    copies = [r for r in kafka_durable.read(topic) if text_of(r.headers, names.REPLAYED_FROM)]
    assert sorted((r.key, r.value) for r in copies) == sorted(2 * fresh)
    originals = {(r.partition, r.offset): r for r in kafka_durable.read(topic)}
    for copy in copies:
        name, partition, offset = (text_of(copy.headers, names.REPLAYED_FROM) or "").split("/")
        assert name == topic
        assert originals[int(partition), int(offset)].value == copy.value
        assert copy.partition == int(partition), "the conversation stays in its partition"
        assert text_of(copy.headers, "traceparent") == "\x00\x01"

    before = count(kafka_durable, topic)
    kafka_durable.produce(letters, [(b"k1", b"refused")], headers=[(names.REASON, b"deployment is missing")])
    kafka_durable.produce(letters, [(b"k1", b"")], headers=[(names.PROBLEM, b"line of 9 bytes")])
    done = valuedrift("replay", "--from", "1h", "--dead-letters", "--json", *at, env=env)
    assert json.loads(done.stdout)["records"] == {"read": 2, "replayed": 1, "copies": 0, "empty": 1}
    records = kafka_durable.read(topic)
    assert len(records) == before + 1
    [again] = [r for r in records if r.value == b"refused"]
    assert text_of(again.headers, names.REASON) is None
    assert text_of(again.headers, names.REPLAYED_FROM) == f"{letters}/0/0"


def test_replay_by_offset(kafka_durable: Broker, valuedrift: Run) -> None:
    """An offset belongs to a partition: without one it is refused, out of range too; with one the rest is copied."""
    topic = kafka_durable.topic("offsets", 2)
    kafka_durable.produce(topic, [(b"k", b"%d" % k) for k in range(10)])
    [partition] = {r.partition for r in kafka_durable.read(topic)}
    at = ("--brokers", kafka_durable.url(topic))
    assert "--partition" in valuedrift("replay", "--from", "7", *at).stderr
    outside = valuedrift("replay", "--from", "99", "--partition", str(partition), *at)
    assert outside.returncode == 3
    assert "it holds 0 to 10" in outside.stderr
    done = valuedrift("replay", "--from", "7", "--partition", str(partition), *at)
    assert done.returncode == 0, done.stderr
    assert values(kafka_durable, topic)[10:] == [b"7", b"8", b"9"]

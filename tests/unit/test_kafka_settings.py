"""What the Kafka settings become, and what is said of settings that do not go together. No broker is needed."""

from __future__ import annotations

import json
import logging
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka.errors import ClusterAuthorizationFailedError, KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError

from monitor.config import KAFKA_PASSWORD, load
from monitor.errors import BrokerError, ConfigError, StoreError
from monitor.service_settings import Kafka
from streams import pipe
from streams.kafka import at, client_arguments, failure, shown
from streams.marks import Mark, Marks
from streams.pipe import Parcel, Pipe, Record, Stopped
from streams.replay import begin_of
from streams.times import time_of

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)


def test_url_names_brokers_and_topic() -> None:
    """kafka://a:1,b:2/topic replaces brokers and topic; what it leaves out stays as in the settings."""
    settings = at(Kafka(), "kafka://a:1,b:2/t")
    assert (settings.bootstrap_servers, settings.topic) == (("a:1", "b:2"), "t")
    assert shown(settings) == "kafka://a:1,b:2/t"
    assert at(Kafka(topic="mine"), "kafka://a:1").topic == "mine"
    assert at(Kafka(bootstrap_servers=("c:3",)), "kafka:///t").bootstrap_servers == ("c:3",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Kafka(bootstrap_servers=()), "name at least one"),
        (Kafka(bootstrap_servers=("localhost",)), "is not HOST:PORT"),
        (Kafka(bootstrap_servers=("user:pw@host:1",)), "is not HOST:PORT"),
        (Kafka(topic="a b"), "cannot name a topic"),
        (Kafka(topic=".."), "cannot name a topic"),
        (Kafka(dead_letter_topic=Kafka().topic), "are both"),
        (Kafka(ssl_keyfile="x"), "without kafka.ssl_certfile"),
        (Kafka(security_protocol="SASL_SSL", sasl_username="u"), KAFKA_PASSWORD),
        (Kafka(security_protocol="SSL", ssl_cafile="/nothing.pem"), "ssl_cafile '/nothing.pem'"),
    ],
)
def test_settings_that_do_not_go_together(settings: Kafka, message: str) -> None:
    """Each mistake is named by its key before anything connects."""
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        client_arguments(settings, {})


def test_password_comes_from_the_environment_alone(tmp_path: Path) -> None:
    """A password in the settings file is an unknown key; the variable is read, and no setting or error shows it."""
    file = tmp_path / "valuedrift.toml"
    file.write_text('[kafka]\nsasl_password = "hunter2"\n')
    with pytest.raises(ConfigError, match="sasl_password") as e:
        load(file, {})
    assert "hunter2" not in str(e.value)
    config = load(None, {KAFKA_PASSWORD: "hunter2", "VALUEDRIFT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"})
    assert "hunter2" not in repr(config)
    settings = msgspec.structs.replace(config.kafka, sasl_username="u")
    assert client_arguments(settings, {KAFKA_PASSWORD: "hunter2"})["sasl_plain_password"] == "hunter2"


def test_certificates_are_checked(tmp_path: Path) -> None:
    """TLS checks certificate and host name, always; the password of a locked client key is never asked for."""
    from streams.kafka import tls

    context = tls(Kafka(security_protocol="SSL"), {})
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:hunter2", "-subj", "/CN=x"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    settings = Kafka(ssl_certfile=str(certificate), ssl_keyfile=str(key))
    with pytest.raises(ConfigError, match="VALUEDRIFT_KAFKA_SSL_KEY_PASSWORD"):
        tls(settings, {})
    tls(settings, {"VALUEDRIFT_KAFKA_SSL_KEY_PASSWORD": "hunter2"})


def test_debug_log_of_the_client_is_off() -> None:
    """kafka-python logs keys and values when debugging: none of its loggers gets that far."""
    for name in ("kafka", "kafka.producer.kafka", "kafka.net.manager", "kafka.consumer.fetcher"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)


def test_a_refusal_names_what_is_lacking() -> None:
    """What is not authorised points to the page with the rights, and names who was refused."""
    said = str(failure(Kafka(sasl_username="shop"), TopicAuthorizationFailedError()))
    assert "'shop' is not authorised" in said
    assert "docs/kafka.md" in said


@pytest.mark.parametrize("arguments", [["ship", "-"], ["replay", "--from", "1h"], ["kafka", "init"]])
def test_without_the_extra(tmp_path: Path, arguments: list[str]) -> None:
    """Where kafka-python is missing the command says what to install, and the other commands work."""
    code = "import sys; sys.modules['kafka'] = None; from monitor.cli import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "valuedrift: Kafka needs a client: pip install 'valuedrift[kafka]'\n"


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("beginning", None),
        ("42", 42),
        ("90m", NOW - timedelta(minutes=90)),
        ("2d", NOW - timedelta(days=2)),
        ("2026-03-01T02:00:00Z", datetime(2026, 3, 1, 2, tzinfo=UTC)),
        ("2026-03-01 02:00", datetime(2026, 3, 1, 2, tzinfo=UTC)),
        ("2026-03-01T04:00:00+02:00", datetime(2026, 3, 1, 2, tzinfo=UTC)),
    ],
)
def test_where_a_replay_begins(text: str, begin: Any) -> None:
    """The beginning, an offset, a time with or without a zone, or so long ago."""
    assert begin_of(text, NOW) == begin


def test_no_time() -> None:
    """Anything else is refused with an example."""
    with pytest.raises(ConfigError, match="2026-03-01T02:00:00Z"):
        time_of("yesterday", NOW)


# -- the pipe, against a producer that fails as told -------------------------------------------------------------------


class Future:
    def __init__(self, exception: BaseException | None) -> None:
        self.is_done = True
        self.exception = exception

    def failed(self) -> bool:
        return self.exception is not None


class Producer:
    """Fails each record as `plan` says, and keeps what it took."""

    def __init__(self, plan: list[BaseException | None], taken: list[bytes]) -> None:
        self._plan = plan
        self._taken = taken

    def send(self, topic: str, value: bytes, **_: Any) -> Future:
        e = self._plan.pop(0) if self._plan else None
        if e is None:
            self._taken.append(value)
        return Future(e)

    def close(self, timeout: float | None = None) -> None:
        pass


class Brokers:
    """Stands in for `streams.kafka.producer`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *plans: list[BaseException | None] | BaseException) -> None:
        self._plans = list(plans)
        self.taken: list[bytes] = []
        self.idempotent: list[bool] = []
        self.said: list[str] = []
        monkeypatch.setattr(pipe, "producer", self.connect)
        monkeypatch.setattr(pipe, "require_topic", lambda *_: None)
        monkeypatch.setattr(pipe, "PAUSES", (0.01,))
        monkeypatch.setattr(pipe, "WAIT_SECONDS", 0.01)

    def connect(self, *_: Any, idempotent: bool) -> Producer:
        self.idempotent.append(idempotent)
        plan = self._plans.pop(0) if self._plans else []
        if isinstance(plan, BaseException):
            raise plan
        return Producer(plan, self.taken)

    def pipe(self, retry_seconds: float | None = 5.0, stopped: bool = False) -> Pipe:
        return Pipe(Kafka(), {}, 1000, retry_seconds=retry_seconds, stopped=lambda: stopped, say=self.said.append)


def parcels(done: list[int]) -> list[Parcel]:
    return [
        Parcel([Record(None, b"%d%d" % (k, n), []) for n in range(2)], lambda k=k: done.append(k))  # type: ignore[misc]
        for k in range(3)
    ]


def shipped(brokers: Brokers, **more: Any) -> list[int]:
    done: list[int] = []
    p = brokers.pipe(**more)
    for parcel in parcels(done):
        p.send(parcel)
    p.drain()
    return done


@pytest.mark.parametrize("at_record", range(6))
def test_a_failed_record_is_sent_again_with_those_behind_it(monkeypatch: pytest.MonkeyPatch, at_record: int) -> None:
    """Whichever record fails, every parcel is done once and in order, and nothing is missing."""
    brokers = Brokers(monkeypatch, [*[None] * at_record, KafkaTimeoutError()])
    assert shipped(brokers) == [0, 1, 2]
    assert set(brokers.taken) == {b"%d%d" % (k, n) for k in range(3) for n in range(2)}
    assert any("sending again" in s for s in brokers.said)


@pytest.mark.parametrize(
    "refusal",
    [ClusterAuthorizationFailedError(), KafkaError("Unexpected error in InitProducerIdResponse: 42")],
)
def test_brokers_without_producer_ids(monkeypatch: pytest.MonkeyPatch, refusal: KafkaError) -> None:
    """Where InitProducerId fails, the shipper goes on without being idempotent, and says so once."""
    brokers = Brokers(monkeypatch, [refusal])
    assert shipped(brokers) == [0, 1, 2]
    assert brokers.idempotent == [True, False]
    assert [s for s in brokers.said if "producer ids" in s] == brokers.said


def test_no_right_to_write_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may not write to the topic is told so at once."""
    brokers = Brokers(monkeypatch, [TopicAuthorizationFailedError()])
    with pytest.raises(BrokerError, match="not authorised"):
        shipped(brokers)
    assert brokers.idempotent == [True]


def test_brokers_that_do_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `retry_seconds` the error is raised; with None they are waited for until asked to stop."""
    gone = BrokerError("gone")
    with pytest.raises(BrokerError, match="gone"):
        shipped(Brokers(monkeypatch, [KafkaTimeoutError()], gone), retry_seconds=-1)
    assert shipped(Brokers(monkeypatch, [KafkaTimeoutError()], gone, gone), retry_seconds=None) == [0, 1, 2]
    with pytest.raises(Stopped):
        shipped(Brokers(monkeypatch, [KafkaTimeoutError()], gone), retry_seconds=None, stopped=True)


# -- the file of positions ---------------------------------------------------------------------------------------------


def test_marks_come_back(tmp_path: Path) -> None:
    """What was saved is read again, by target; the file is whole JSON and no rest of writing it is left."""
    path = tmp_path / "state.json"
    mark = Mark(10, 2, "ab", "openai")
    marks = Marks(path, "kafka://a/t")
    marks.put("/x", mark)
    marks.save()
    marks.close()
    again = Marks(path, "kafka://a/t")
    assert again.get("/x") == mark
    again.close()
    other = Marks(path, "kafka://b/t")
    assert other.get("/x") is None
    other.close()
    assert json.loads(path.read_text())["targets"]["kafka://a/t"]["/x"]["position"] == 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "state.json.lock"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 9, "targets": {}}', "\0"])
def test_damaged_marks(tmp_path: Path, content: str) -> None:
    """A file that is none of ours is an error that says so, and the lock is let go of."""
    path = tmp_path / "state.json"
    path.write_text(content)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"state\.json"):
            Marks(path, "t")
    path.unlink()
    Marks(path, "t").close()

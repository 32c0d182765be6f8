"""How settings become a Faust application."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import msgspec
import pytest

from monitor.config import KAFKA_PASSWORD, Config
from monitor.errors import ConfigError
from monitor.service_settings import Kafka
from streams.faust_app import application
from streams.recorder import Record, _line, _pieces, source_name


def conf(settings: Kafka, environment: dict[str, str] | None = None) -> Any:
    async def made() -> Any:
        return application(settings, Config(), environment or {}).conf

    return asyncio.run(made())


def test_nothing_of_fausts_own() -> None:
    """No web server, no leader topic, no topics made on sight."""
    c = conf(Kafka(bootstrap_servers=("a:9092", "b:9093")))
    assert [str(url) for url in c.broker] == ["aiokafka://a:9092", "aiokafka://b:9093"]
    assert not c.web_enabled
    assert c.topic_disable_leader
    assert not c.topic_allow_declare
    assert c.broker_credentials is None


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_sasl(protocol: str) -> None:
    """User and password reach Faust; over TLS with certificates checked."""
    settings = Kafka(security_protocol=protocol, sasl_mechanism="SCRAM-SHA-512", sasl_username="u")
    found = conf(settings, {KAFKA_PASSWORD: "p"}).broker_credentials
    assert isinstance(found, faust.SASLCredentials)
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", "SCRAM-SHA-512")
    assert found.protocol.value == protocol
    assert (found.ssl_context is not None) == (protocol == "SASL_SSL")
    if found.ssl_context is not None:
        assert found.ssl_context.check_hostname
    with pytest.raises(ConfigError, match=KAFKA_PASSWORD):
        conf(settings)


def test_tls() -> None:
    """Without a user."""
    found = conf(Kafka(security_protocol="SSL")).broker_credentials
    assert isinstance(found, faust.SSLCredentials)
    assert found.context.check_hostname


def test_source_name() -> None:
    """One a partition, the same for every order of the brokers."""
    assert source_name("c", "t", 3) == "kafka://c/t/3"


def test_records_without_text() -> None:
    """A reason where one was given, one of our own else; what is too long is not kept."""
    assert _line(Record(4, None, b"", [("valuedrift-problem", b"too\nlong")]), 9).problem == "too\\nlong"
    assert _line(Record(4, None, None, []), 9).problem == "the record is empty"
    line = _line(Record(4, None, b"0123456789", []), 9)
    assert (line.number, line.offset, line.size, line.data) == (5, 4, 10, None)


def test_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded in bytes, in order, and nothing left out."""
    monkeypatch.setattr("streams.recorder.CHUNK_BYTES", 10)
    records = [Record(i, None, b"x" * size, []) for i, size in enumerate([4, 4, 4, 30, 1, 9, 1])]
    found = [[r.offset for r in piece] for piece in _pieces(records, 2)]
    assert found == [[0, 1], [2], [3], [4, 5], [6]]


def test_defaults_are_allowed_by_kafka() -> None:
    """Apache Kafka refuses shorter sessions than 6 s."""
    worker = msgspec.convert({}, Config).worker
    assert worker.session_seconds >= 6

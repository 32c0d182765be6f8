"""Kafka with kafka-python: settings -> client arguments, topics made and compared, failures said in one line."""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from monitor.config import KAFKA_KEY_PASSWORD, KAFKA_PASSWORD
from monitor.errors import BrokerError, ConfigError
from monitor.service_settings import Kafka as Settings
from streams.reasons import printable

try:
    import kafka
    from kafka.admin import ConfigResource, KafkaAdminClient
    from kafka.errors import (
        AuthorizationError,
        KafkaConfigurationError,
        KafkaConnectionError,
        KafkaError,
        KafkaTimeoutError,
        SaslAuthenticationFailedError,
        UnknownTopicOrPartitionError,
        UnsupportedSaslMechanismError,
        UnsupportedVersionError,
        for_code,
    )
except ModuleNotFoundError as e:
    raise ConfigError("Kafka needs a client: pip install 'valuedrift[kafka]'") from e

REACH_MS: Final = 5_000
"""Brokers none of which can be connected to after so long are taken for gone."""
ANSWER_MS: Final = 10_000
"""A broker that has not answered a request after so long is asked again, or another is."""
DELIVERY_MS: Final = 30_000
"""What is produced and not acknowledged after so long is produced again."""
LINGER_MS: Final = 20
BATCH_BYTES: Final = 1 << 18
OVERHEAD_BYTES: Final = 1 << 16
"""What key, headers and framing may add to a transcript."""
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""What Kafka allows as a topic's name."""


class _Reasons(logging.Handler):
    """Why connections failed: kafka-python says so in its log alone, and then that time is up."""

    last: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, BaseException) and not isinstance(value, KafkaTimeoutError):
                self.last = value


_REASONS: Final = _Reasons(logging.WARNING)
logging.getLogger("kafka").setLevel(logging.CRITICAL)  # failures reach us as exceptions; its debug log holds messages
_CONNECTIONS: Final = logging.getLogger("kafka.net.manager")
_CONNECTIONS.setLevel(logging.WARNING)
_CONNECTIONS.propagate = False
_CONNECTIONS.addHandler(_REASONS)


@dataclass(frozen=True, slots=True)
class Standing:
    """A topic as it is: `made` now, or there before; `differs` says where it is not what the settings ask for."""

    topic: str
    partitions: int
    made: bool
    differs: list[str]


def at(settings: Settings, url: str) -> Settings:
    """The settings with brokers and topic of kafka://host:port[,host:port][/topic].

    Raises
    ------
    ConfigError : it is no such URL, or holds a password.
    """
    match = re.fullmatch(r"kafka://([^/]*)(?:/(.*))?", url)
    if match is None:
        raise ConfigError(f"{printable(url, 80)} is not of the form kafka://HOST:PORT[,HOST:PORT]/TOPIC")
    if "@" in match[1]:
        raise ConfigError(f"no user or password in the URL: set kafka.sasl_username and {KAFKA_PASSWORD}")
    servers = tuple(s for s in match[1].split(",") if s)
    return msgspec.structs.replace(
        settings,
        bootstrap_servers=servers or settings.bootstrap_servers,
        topic=match[2] or settings.topic,
    )


def shown(settings: Settings) -> str:
    """The URL of brokers and topic."""
    return f"kafka://{','.join(settings.bootstrap_servers)}/{settings.topic}"


def client_arguments(settings: Settings, environment: Mapping[str, str]) -> dict[str, Any]:
    """What every client of kafka-python is given: where, as whom, and how it is secured.

    Raises
    ------
    ConfigError : settings that do not go together.
    """
    _check(settings)
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
        "bootstrap_timeout_ms": REACH_MS,
        "request_timeout_ms": ANSWER_MS,
        "reconnect_backoff_max_ms": 2000,
    }
    if settings.security_protocol.startswith("SASL"):
        arguments |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": sasl_password(settings, environment),
        }
    if settings.security_protocol.endswith("SSL"):
        arguments["ssl_context"] = tls(settings, environment)
        _shake_hands(settings, arguments["ssl_context"])
    return arguments


def _shake_hands(settings: Settings, context: ssl.SSLContext) -> None:
    """Try TLS with one of the brokers first: with one that does not speak it, kafka-python waits for ever.

    Raises
    ------
    BrokerError : none is there, or its certificate is not to be trusted.
    """
    failed: OSError | None = None
    for server in settings.bootstrap_servers:
        host, _, port = server.rpartition(":")
        host = host.strip("[]")
        try:
            with (
                socket.create_connection((host, int(port)), REACH_MS / 1000) as plain,
                context.wrap_socket(plain, server_hostname=host),
            ):
                return
        except OSError as e:
            failed = e
    raise BrokerError(
        f"{printable(shown(settings))}: no TLS with any broker: {printable(str(failed))} "
        "(kafka.security_protocol, kafka.ssl_cafile)"
    )


def sasl_password(settings: Settings, environment: Mapping[str, str]) -> str:
    """The password of `kafka.sasl_username`. Raises ConfigError where one of the two is not set."""
    password = environment.get(KAFKA_PASSWORD)
    if not settings.sasl_username or password is None:
        raise ConfigError(
            f"kafka.security_protocol {settings.security_protocol} needs kafka.sasl_username and, in the "
            f"environment, {KAFKA_PASSWORD}"
        )
    return password


def tls(settings: Settings, environment: Mapping[str, str]) -> ssl.SSLContext:
    """TLS that checks certificate and host name, with our own certificate where one is set. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile or None)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"kafka.ssl_cafile {settings.ssl_cafile!r} cannot be used: {e}") from e
    if settings.ssl_certfile:
        try:
            # an empty password: with none at all, OpenSSL would ask on the terminal
            password = environment.get(KAFKA_KEY_PASSWORD, "")
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile or None, password)
        except (OSError, ssl.SSLError) as e:
            raise ConfigError(
                f"kafka.ssl_certfile {settings.ssl_certfile!r} with its key cannot be used: {e} "
                f"(the key's password is read from {KAFKA_KEY_PASSWORD})"
            ) from e
    return context


def _check(settings: Settings) -> None:
    if not settings.bootstrap_servers:
        raise ConfigError("kafka.bootstrap_servers is empty; name at least one HOST:PORT")
    for server in settings.bootstrap_servers:
        if not re.fullmatch(r"(?:[^\s:@/\[\]]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", server):
            raise ConfigError(f"kafka.bootstrap_servers: {printable(server, 80)!r} is not HOST:PORT")
    for topic in (settings.topic, settings.dead_letter_topic):
        if not NAME.fullmatch(topic) or topic in (".", ".."):
            raise ConfigError(f"{printable(topic, 80)!r} cannot name a topic: letters, digits, ., _ and -, at most 249")
    if settings.topic == settings.dead_letter_topic:
        raise ConfigError(f"kafka.topic and kafka.dead_letter_topic are both {settings.topic}")
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise ConfigError("kafka.ssl_keyfile is set without kafka.ssl_certfile")


@contextmanager
def told(settings: Settings) -> Iterator[None]:
    """Whatever Kafka raises becomes a BrokerError that says where, what and why."""
    _REASONS.last = None
    try:
        yield
    except KafkaError as e:
        raise failure(settings, (isinstance(e, KafkaTimeoutError) and _REASONS.last) or e) from e


def failure(settings: Settings, e: BaseException) -> BrokerError:
    """What to tell the user of an error of kafka-python."""
    match e:
        case SaslAuthenticationFailedError() | UnsupportedSaslMechanismError():
            why = (
                f"the brokers refuse user {settings.sasl_username!r} by {settings.sasl_mechanism} "
                f"(kafka.sasl_mechanism, kafka.sasl_username, {KAFKA_PASSWORD})"
            )
        case AuthorizationError():
            who = f"user {settings.sasl_username!r}" if settings.sasl_username else "this client"
            why = f"{who} is not authorised ({type(e).__name__}); the rights it needs: docs/kafka.md"
        case UnknownTopicOrPartitionError():
            why = "the topic does not exist; make it with: valuedrift kafka init"
        case KafkaConnectionError() | KafkaTimeoutError():
            secured = settings.security_protocol
            why = f"no broker answers; are they up, kafka.bootstrap_servers right, and do they speak {secured}? ({e})"
        case _:
            why = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
    return BrokerError(f"{printable(shown(settings))}: {printable(why)}")


@contextmanager
def administration(settings: Settings, environment: Mapping[str, str]) -> Iterator[Any]:
    """A KafkaAdminClient; what it raises is told as BrokerError."""
    with told(settings):
        admin = KafkaAdminClient(**client_arguments(settings, environment))
    try:
        with told(settings):
            yield admin
    finally:
        admin.close()


def make_topics(settings: Settings, environment: Mapping[str, str], max_event_bytes: int) -> list[Standing]:
    """Make the topics that are not there; of those that are, say what is not as the settings have it.

    Nothing that exists is changed: with more partitions the rest of a conversation would go to another worker, with a
    shorter retention records would be deleted.

    Raises
    ------
    BrokerError : unreachable, not authorised, or the request is one the brokers refuse.
    """
    wanted = {
        settings.topic: (settings.partitions, settings.retention_hours),
        settings.dead_letter_topic: (1, settings.dead_letter_retention_hours),
    }
    with administration(settings, environment) as admin:
        there = {t["name"]: t for t in admin.describe_topics(list(wanted)) if not t["error_code"]}
        missing = {
            name: {
                "num_partitions": partitions,
                "replication_factor": settings.replication or -1,
                "configs": {k: str(v) for k, v in _configs(hours, max_event_bytes).items()},
            }
            for name, (partitions, hours) in wanted.items()
            if name not in there
        }
        if missing:
            admin.create_topics(missing, wait_for_metadata=True)
        standings = []
        for name, (partitions, hours) in wanted.items():
            made = name in missing
            found = partitions if made else len(there[name]["partitions"])
            differs = [] if made else _differences(admin, there[name], settings, partitions, hours, max_event_bytes)
            standings.append(Standing(name, found, made, differs))
        return standings


def require_topic(settings: Settings, environment: Mapping[str, str]) -> None:
    """Raise BrokerError if the transcripts topic does not exist: some brokers would make one of their own on sight."""
    with administration(settings, environment) as admin:
        [topic] = admin.describe_topics([settings.topic])
        if topic["error_code"]:
            raise for_code(topic["error_code"])


def cluster_id(settings: Settings, environment: Mapping[str, str]) -> str:
    """What the cluster is called, "" where the brokers do not say. Raises BrokerError, also if a topic is missing."""
    with administration(settings, environment) as admin:
        for name in (settings.topic, settings.dead_letter_topic):
            [topic] = admin.describe_topics([name])
            if topic["error_code"]:
                raise for_code(topic["error_code"])
        try:
            return str(admin.describe_cluster()["cluster_id"] or "")
        except (KeyError, UnsupportedVersionError):
            return ""


def _configs(hours: float, max_event_bytes: int) -> dict[str, int]:
    return {
        "retention.ms": int(hours * 3_600_000),
        "max.message.bytes": max_event_bytes + OVERHEAD_BYTES,
    }


def _differences(
    admin: Any, topic: Mapping[str, Any], settings: Settings, partitions: int, hours: float, max_event_bytes: int
) -> list[str]:
    name, there = topic["name"], topic["partitions"]
    differs = []
    if len(there) != partitions:
        differs.append(f"{len(there)} partitions, the settings say {partitions}")
    copies = len(there[0]["replica_nodes"]) if there else 0
    if settings.replication and copies != settings.replication:
        differs.append(f"replication {copies}, the settings say {settings.replication}")
    described = admin.describe_configs([ConfigResource("topic", name)], config_filter="all")
    values = described.get("topic", {}).get(name, {})
    for key, wanted in _configs(hours, max_event_bytes).items():
        value = values.get(key, {}).get("value")
        if value is not None and value != str(wanted):
            differs.append(f"{key} {value}, the settings say {wanted}")
    return differs


def producer(
    settings: Settings, environment: Mapping[str, str], max_event_bytes: int, *, idempotent: bool = True
) -> Any:
    """A KafkaProducer: acknowledged by all in-sync copies, and by default each message once whatever is retried.

    Raises
    ------
    BrokerError : no broker answers, or it refuses us.
    ConfigError : the library of the compression is missing.
    """
    try:
        with told(settings):
            return kafka.KafkaProducer(
                **client_arguments(settings, environment),
                acks="all",
                enable_idempotence=idempotent,
                compression_type=None if settings.compression == "none" else settings.compression,
                linger_ms=LINGER_MS,
                batch_size=BATCH_BYTES,
                delivery_timeout_ms=DELIVERY_MS,
                max_block_ms=ANSWER_MS,
                max_request_size=max(max_event_bytes + OVERHEAD_BYTES, 1 << 20),
                allow_auto_create_topics=False,
            )
    except (RuntimeError, KafkaConfigurationError) as e:
        raise ConfigError(f"kafka.compression {settings.compression}: {e}") from e


def consumer(settings: Settings, environment: Mapping[str, str]) -> Any:
    """A KafkaConsumer of no group, that commits nothing. Raises BrokerError."""
    with told(settings):
        return kafka.KafkaConsumer(
            **client_arguments(settings, environment),
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            isolation_level="read_committed",
        )

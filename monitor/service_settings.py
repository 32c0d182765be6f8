"""Sections of the settings for what runs as a service: the brokers, transcripts over HTTP, and workers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The brokers and topics transcripts go through (docs/kafka.md).

    The password is no setting: VALUEDRIFT_KAFKA_SASL_PASSWORD has it, and VALUEDRIFT_KAFKA_SSL_KEY_PASSWORD that of a
    client's key.
    """

    bootstrap_servers: tuple[str, ...] = ("localhost:9092",)
    topic: str = "valuedrift.transcripts"
    dead_letter_topic: str = "valuedrift.dead-letters"
    partitions: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 12
    """Of the transcripts topic; as many workers can share the work."""
    replication: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """Copies of each partition; 0 is the brokers' own default."""
    retention_hours: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] = 168.0
    """How long transcripts stay in their topic: how far back a restored database can be filled."""
    dead_letter_retention_hours: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] = 720.0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    ssl_cafile: str = ""
    """PEM file of whom to trust; empty for the system's."""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    client_id: str = "valuedrift"
    """What the brokers' logs and quotas know us by."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    """What is produced; all but gzip need the libraries of the extra `kafka`."""
    retry_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 300.0
    """Brokers that do not answer are waited for so long; with `ship --follow` for ever."""


class Serve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Transcripts over HTTP (docs/http.md)."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    """0 takes any that is free."""
    instance: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """Names this process among the sources; empty for the host's name."""
    api_keys_file: str = ""
    """More keys than VALUEDRIFT_API_KEYS has."""
    metrics_need_key: bool = False
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 28)] = 16 * 1024 * 1024
    """Of one request, decompressed."""
    max_request_events: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 5000
    max_series_per_key: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Further series of one key become dead letters."""
    events_per_second: Annotated[float, msgspec.Meta(ge=0)] = 1000.0
    """Of one key; 0 is no limit."""
    burst_seconds: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 60.0
    """A key that was silent may catch up on so much of its rate at once."""
    queue_events: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    """More than these wait for the database in no case."""
    held_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 256 * 1024 * 1024
    """Of all requests at hand, decompressed."""
    connections: Annotated[int, msgspec.Meta(ge=1)] = 500
    """At once; a process may usually have 1024 files open."""
    batch_events: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500
    """One transaction takes requests until it has so many."""
    request_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    """A request's headers, its body and its answer take no longer than this, each."""
    database_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 5.0
    """A database that is away so long turns requests away, until it is back."""
    retry_after_seconds: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 2.0
    """What is turned away is asked to come again after so long."""
    step_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    """How often series are moved on and alerts raised; 0: never, for the workers of the same database do."""


class Worker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Transcripts from Kafka (docs/kafka.md)."""

    group: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "valuedrift"
    """Workers of one group share the partitions."""
    session_seconds: Annotated[float, msgspec.Meta(ge=1, le=25)] = 10.0
    """A worker that is not heard of for so long loses its partitions; Apache Kafka allows 6 and more."""
    batch_events: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 500
    """Most records of one transaction; a partition's that come together are one."""
    buffer_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 16 * 1024 * 1024
    """No more is fetched while records of so many bytes wait for the database."""
    database_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 5.0
    """A database that is away so long is told in the logs, and waited for all the same."""
    step_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    """How often series are moved on and alerts raised, by one worker of all."""
    max_lag_wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 900.0
    """Minutes are not closed before all partitions are counted, but for those that stand still for so long."""
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 9464
    """0 takes any that is free."""

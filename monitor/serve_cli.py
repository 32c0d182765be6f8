"""`valuedrift serve`: transcripts and traces over HTTP into the database."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from monitor import config as configuration
from monitor import options
from monitor.errors import ConfigError, StoreError
from monitor.outgoing import is_loopback


@click.command()
@click.option("--host", metavar="ADDRESS", help="Where to listen [127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes any that is free [8080].")
@options.db
@options.tier
@click.option("--no-auth", is_flag=True, help="Let anybody write who can reach the address, without API keys.")
@options.log_level
@click.pass_context
def serve(
    context: click.Context,
    host: str | None,
    port: int | None,
    url: str | None,
    tier: str | None,
    no_auth: bool,
    log_level: str,
) -> None:
    """Take transcripts (POST /v1/transcripts) and OpenTelemetry traces (POST /v1/traces), until stopped.

    Answers only once they are stored. Prints the address it listens on; logs go to standard error.
    """
    config = options.load(context, serve__host=host, serve__port=port, store__url=url, classifier__tier=tier)
    config.baseline_rule(), config.trajectory()  # a wrong setting is told before any work
    try:
        from monitor import logs
        from monitor.web import keys as api_keys
        from monitor.web import server
    except ModuleNotFoundError as e:
        raise ConfigError(f"serve needs {e.name}: pip install 'valuedrift[serve]'") from e
    from classifiers.tiers import load_judge

    s = config.serve
    keys = api_keys.load(Path(s.api_keys_file) if s.api_keys_file else None, configuration.API_KEYS, os.environ)
    if no_auth and keys:
        raise ConfigError("--no-auth was given, and API keys too; leave out one of them")
    if not keys and not no_auth and not is_loopback(s.host):
        raise ConfigError(
            f"without API keys anybody who reaches {s.host} could write: set {configuration.API_KEYS} or "
            "serve.api_keys_file (docs/http.md), listen on 127.0.0.1, or say --no-auth"
        )
    listener = server.bind(s.host, s.port)
    classifier = options.load_classifier(config)
    judge = load_judge(config.judge)
    engine = options.open_database(config, retry_seconds=min(s.database_seconds, config.store.retry_seconds))
    logs.configure(log_level)

    def started(address: str) -> None:
        click.echo(f"listening on {address}")

    done = server.serve(engine, classifier, config, keys, listener, lambda: datetime.now(UTC), judge, started)
    engine.dispose()
    if not done:
        raise StoreError("the database did not take all that waited; its clients were not told that it was stored")

"""`valuedrift worker`: transcripts from Kafka into the database."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import click

from monitor import options
from monitor.errors import BrokerError, ConfigError
from monitor.service_settings import Kafka

STOP_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 2.0
M_ARENA_MAX: Final = -8
"""Of glibc's malloc.h."""


@click.command()
@click.option("--from", "topic", metavar="URL", help="kafka://HOST:PORT[,HOST:PORT]/TOPIC [as in the settings].")
@options.db
@click.option("--group", metavar="NAME", help="Workers of one group share the partitions [valuedrift].")
@options.tier
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="0 takes any that is free [9464].")
@options.log_level
@click.pass_context
def worker(
    context: click.Context,
    topic: str | None,
    url: str | None,
    group: str | None,
    tier: str | None,
    metrics_port: int | None,
    log_level: str,
) -> None:
    """Judge and store what comes to a Kafka topic, until stopped; start as many as the topic has partitions.

    How far each partition is counted stands in the database, beside what was counted.
    """
    config = options.load(
        context, store__url=url, worker__group=group, worker__metrics_port=metrics_port, classifier__tier=tier
    )
    config.baseline_rule(), config.trajectory()  # a wrong setting is told before any work
    _share_one_heap()
    try:
        from prometheus_client import start_http_server

        from alerts.duty import Duty, log_news
        from monitor import logs, metrics
        from monitor.intake import Intake
        from monitor.report.schedule import Schedule
        from monitor.steps import Stepper
        from monitor.ticker import Ticker
        from streams import kafka, recorder, ticks
        from streams import worker as faust_worker
    except ModuleNotFoundError as e:
        raise ConfigError(f"worker needs {e.name}: pip install 'valuedrift[kafka,serve]'") from e
    from classifiers.tiers import load_judge

    settings = config.kafka if topic is None else kafka.at(config.kafka, topic)
    kafka.client_arguments(settings, os.environ)
    w = config.worker
    classifier = options.load_classifier(config)
    judge = load_judge(config.judge)
    cluster = _cluster(settings)
    engine = options.open_database(config, retry_seconds=min(w.database_seconds, config.store.retry_seconds))
    logs.configure(log_level)
    log = logs.get_logger(__name__)

    def clock() -> datetime:
        return datetime.now(UTC)

    figures = metrics.Metrics()
    figures.build(classifier)
    figures.watch(engine)
    try:
        server, serving = start_http_server(w.metrics_port, w.metrics_host, registry=figures.registry)
    except OSError as e:
        raise ConfigError(f"metrics cannot listen on {w.metrics_host}:{w.metrics_port}: {e}") from e
    intake = Intake(engine, classifier, config, clock, judge, figures)
    own = recorder.Recorder(intake, cluster, settings.topic, config)
    stepper = Stepper.of(engine, classifier, config)
    ends = ticks.Ends(settings, os.environ)
    duty = Duty(engine, config, stepper, clock, os.environ, figures)
    reports = Schedule(stepper, config, clock, os.environ)
    steps = ticks.Ticks(stepper, duty, ends, cluster, settings.topic, config, clock, figures, log_news, reports)
    ticking = Ticker(steps.step, figures, w.step_seconds, at_end=ends.close)

    def started() -> None:
        ticking.start()
        click.echo(f"reading {kafka.shown(settings)}, metrics on http://{w.metrics_host}:{server.server_port}/metrics")

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder") as thread, duty.delivering():

        def reader() -> faust_worker.Reader:
            return faust_worker.Reader(settings, config, os.environ, own, thread, figures)

        asyncio.run(faust_worker.work(reader, started))
        ticking.close(STOP_SECONDS)
    server.shutdown()
    serving.join()
    server.server_close()
    engine.dispose()
    log.info("stopped")


def _share_one_heap() -> None:
    """Have all threads allocate from one heap.

    Records go from the thread that fetches them to the one that stores them, and each of glibc's heaps keeps room for
    the most it ever held: a worker with a lag behind it took a tenth more memory than one without.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _cluster(settings: Kafka) -> str:
    """The cluster's id, once its brokers answer and the topics are found there. Raises BrokerError."""
    from streams.kafka import cluster_id

    give_up = time.monotonic() + settings.retry_seconds
    told = False
    while True:
        try:
            return cluster_id(settings, os.environ)
        except BrokerError as e:
            if "no broker answers" not in str(e) or time.monotonic() > give_up:
                raise
            if not told:
                click.echo(f"valuedrift: {e}; trying again", err=True)
                told = True
        time.sleep(PAUSE_SECONDS)

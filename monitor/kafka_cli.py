"""`valuedrift ship`, `replay` and `kafka`: transcripts into Kafka topics, and the topics themselves."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from monitor import config as configuration
from monitor import options
from monitor.errors import BrokerError
from monitor.service_settings import Kafka
from streams.reasons import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE: Final = Path("valuedrift-ship.json")

_to = click.option("--to", "url", metavar="URL", help="kafka://HOST:PORT[,HOST:PORT]/TOPIC [as in the settings].")
_brokers = click.option("--brokers", "url", metavar="URL", help="kafka://HOST:PORT[,HOST:PORT] [as in the settings].")


def _load(context: click.Context, url: str | None, **given: Any) -> tuple[configuration.Config, Kafka]:
    from streams.kafka import at

    config = options.load(context, **given)
    return config, config.kafka if url is None else at(config.kafka, url)


def _say(message: str) -> None:
    click.echo(f"valuedrift: {message}", err=True)


class _Counter:
    """A line of counts that is renewed on a terminal; nothing when piped."""

    def __init__(self, doing: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description} {task.fields[n]:,}, {task.fields[rate]:,.0f}/s {task.fields[more]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(doing, total=None, n=0, rate=0.0, more="")
        self._started = time.monotonic()

    def show(self, n: int, more: str = "") -> None:
        seconds = max(time.monotonic() - self._started, 1e-3)
        self._progress.update(self._task, n=n, rate=n / seconds, more=more)

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._progress:
            yield


@click.command()
@click.argument("source")
@_to
@click.option("--once/--follow", "once", default=True, help="Stop at the end [default], or go on as the log grows.")
@click.option("--state", type=click.Path(path_type=Path), default=STATE, show_default=True, help="Keeps the position.")
@options.log_format
@options.deployment
@options.json_last_line
@click.pass_context
def ship(
    context: click.Context,
    source: str,
    url: str | None,
    once: bool,
    state: Path,
    log_format: str | None,
    deployment: str | None,
    as_json: bool,
) -> int:
    """Send every line of SOURCE (a file, a directory, or - for standard input) to a Kafka topic, unchanged.

    What the brokers have acknowledged is not sent again: the file named by --state knows how far each log was shipped.
    """
    config, kafka = _load(context, url, input__format=log_format, input__deployment=deployment)
    from streams.kafka import shown
    from streams.ship import Shipped, Shipper

    counter = _Counter("shipped")

    def progress(shipped: Shipped) -> None:
        counter.show(shipped.lines, f"({shipper.waiting:,} under way)")

    shipper = Shipper(source, kafka, config, os.environ, state=state, follow=not once, say=_say, on_progress=progress)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: shipper.stop())
    with closing(shipper), counter.running():
        shipper.run()
    done = shipper.shipped
    if as_json:
        click.echo(msgspec.json.encode({"to": shown(kafka), "not_acknowledged": shipper.waiting, "shipped": done}))
    else:
        click.echo(
            f"{shown(kafka)}: {done.lines:,} lines, {done.bytes:,} bytes"
            + (f", {done.not_kept:,} dead letters without text (too long, or a damaged file)" if done.not_kept else "")
        )
    if shipper.waiting:
        lost = "they are lost" if source == "-" else "the next run sends them again"
        raise BrokerError(f"{shown(kafka)}: {shipper.waiting:,} lines were not acknowledged; {lost}")
    return 0


@click.command()
@click.option("--from", "begin", required=True, metavar="TIME|OFFSET|beginning", help="When produced, or 90m, 3h, 2d.")
@click.option("--to", "until", metavar="TIME", help="Produced before this time [now].")
@click.option("--topic", metavar="NAME", help="Read this topic instead of the transcripts.")
@click.option("--dead-letters", is_flag=True, help="Read the dead-letter topic.")
@click.option("--partition", type=click.IntRange(0), help="Only this one; needed for an OFFSET.")
@click.option("--dry-run", is_flag=True, help="Count, produce nothing.")
@_brokers
@options.json_last_line
@click.pass_context
def replay(
    context: click.Context,
    begin: str,
    until: str | None,
    topic: str | None,
    dead_letters: bool,
    partition: int | None,
    dry_run: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Produce what a topic holds once more to the transcripts topic, for the workers to read again.

    Events count once by their id: what the database has already changes nothing, what it lacks is filled in.
    """
    if topic is not None and dead_letters:
        raise click.UsageError("--topic and --dead-letters name two topics; give one")
    config, kafka = _load(context, url)  # says so where there is no client
    from streams.replay import Replay, begin_of
    from streams.times import time_of

    now = datetime.now(UTC)
    source = kafka.dead_letter_topic if dead_letters else topic or kafka.topic
    run = Replay(
        kafka,
        os.environ,
        source,
        begin_of(begin, now),
        until=None if until is None else time_of(until, now),
        partition=partition,
    )
    counter = _Counter("read")
    with closing(run), counter.running():
        done = run.run(
            config.input.max_event_bytes, dry_run=dry_run, say=_say, on_progress=lambda r: counter.show(r.read)
        )
    if as_json:
        click.echo(msgspec.json.encode({"from": source, "to": kafka.topic, "dry_run": dry_run, "records": done}))
        return
    verb = "would be replayed" if dry_run else "replayed"
    click.echo(f"{source} -> {kafka.topic}: {done.replayed:,} of {done.read:,} records {verb}")
    if done.copies:
        click.echo(f"  left out: {done.copies:,} copies that an earlier replay made of records in this range")
    if done.empty:
        click.echo(f"  left out: {done.empty:,} dead letters without text (a line too long, a damaged file)")


@click.group()
def kafka() -> None:
    """Look after the topics."""


@kafka.command()
@_brokers
@options.json_last_line
@click.pass_context
def init(context: click.Context, url: str | None, as_json: bool) -> None:
    """Make the topics of transcripts and dead letters; what exists is compared with the settings and left as it is."""
    from streams.kafka import make_topics

    config, settings = _load(context, url)
    standings = make_topics(settings, os.environ, config.input.max_event_bytes)
    if as_json:
        click.echo(msgspec.json.encode({"topics": standings}))
        return
    for s in standings:
        click.echo(f"{s.topic}: {'made' if s.made else 'exists'}, {s.partitions} partition(s)")
        for difference in s.differs:
            click.echo(printable(f"  differs: {difference}", 400))

"""`valuedrift dead-letters`: what could not be counted, listed, shown and read once more."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from monitor import config as configuration
from monitor import options
from monitor.errors import ConfigError, StoreError
from streams.reasons import printable
from streams.times import time_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from monitor.intake import Intake
    from monitor.letters import Replayed


@click.group("dead-letters", cls=options.ListByDefault)
def dead_letters() -> None:
    """List what could not be counted (without a command), show a line of it, read it once more."""


def _moment(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    return None if value is None else time_of(value, datetime.now(UTC))


_source = click.option("--source", metavar="NAME", help="Of this source only.")
_since = click.option("--since", metavar="TIME", callback=_moment, help="Seen since then, or so long ago (3h, 2d).")


@dead_letters.command("list")
@options.db
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@_source
@click.option("--kind", type=click.Choice(["bad", "duplicate"]))
@_since
@options.json_lines
@click.pass_context
def list_(
    context: click.Context,
    url: str | None,
    limit: int,
    source: str | None,
    kind: str | None,
    since: datetime | None,
    as_json: bool,
) -> None:
    """List what could not be counted: where it stands and why."""
    from monitor.store import reads

    engine = options.open_database(options.load(context, store__url=url))
    sources = None if source is None else [source, str(Path(source).resolve())]
    with engine.connect() as connection:
        for d in reads.dead_letters(connection, limit=limit, sources=sources, kind=kind, since=since):
            if as_json:
                click.echo(msgspec.json.encode(dict(d._mapping)))
            else:
                click.echo(f"{printable(d.source)}:{d.line} (byte {d.position}, {d.size} bytes) {printable(d.reason)}")


@dead_letters.command()
@click.argument("place", metavar="SOURCE:LINE")
@options.db
@options.json_object
@click.pass_context
def show(context: click.Context, place: str, url: str | None, as_json: bool) -> None:
    """Show one dead letter, and its line, redacted, where its file still has it."""
    from monitor import letters

    config = options.load(context, store__url=url)
    engine = options.open_database(config)
    with engine.connect() as connection:
        found = letters.letters(connection, letters.at_place(place))
    if not found:
        raise ConfigError(f"{printable(place)}: no such dead letter; valuedrift dead-letters lists them")
    [letter] = found[:1]
    line = None
    if letter.payload_hash is not None:
        [(_, line)] = letters.lines_of(_intake(config, engine), [letter], config.input.max_event_bytes)
    text = letters.shown_text(line.data, config.input.redact_patterns) if line is not None and line.data else None
    hashed = None if letter.payload_hash is None else letter.payload_hash.hex()
    if as_json:
        names = ("source", "line", "position", "size", "kind", "reason", "seen_at")
        values = {name: getattr(letter, name) for name in names}
        click.echo(msgspec.json.encode(values | {"payload_hash": hashed, "text": text}))
        return
    click.echo(f"{printable(letter.source)}:{letter.line}")
    click.echo(
        f"  {letter.kind}, byte {letter.position}, {letter.size} bytes, seen {letter.seen_at:%Y-%m-%d %H:%M} UTC"
    )
    click.echo(f"  {printable(letter.reason)}")
    click.echo(f"  hash {hashed or 'none: its bytes were not kept'}")
    click.echo(f"  line {'is not there any more' if text is None else printable(text, 2 * letters.SHOWN)}")


@dead_letters.command()
@click.argument("places", metavar="[SOURCE:LINE]...", nargs=-1)
@options.db
@_source
@_since
@click.option("--format", "log_format", type=options.LOG_FORMATS, help="[as the source was read]")
@options.deployment
@click.option("--dry-run", is_flag=True, help="Count, change nothing.")
@options.json_object
@click.pass_context
def replay(
    context: click.Context,
    places: tuple[str, ...],
    url: str | None,
    source: str | None,
    since: datetime | None,
    log_format: str | None,
    deployment: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Read the lines of bad dead letters [all] in their files once more: after an upgrade, or with other settings.

    What can be counted now is counted, once, and its dead letter goes. Nothing else may read the same files meanwhile;
    on PostgreSQL it needs the role that owns the tables. Dead letters of Kafka: valuedrift replay --dead-letters.
    """
    from monitor import letters
    from monitor.store import schema
    from monitor.store.ledger import BAD

    config = options.load(context, store__url=url, input__format=log_format, input__deployment=deployment)
    engine = options.open_database(config)
    t = schema.dead_letters
    where = [t.c.kind == BAD]
    if source is not None:
        where.append(letters.of_source(source))
    if since is not None:
        where.append(t.c.seen_at >= since)
    with engine.connect() as connection:
        if not dry_run and not letters.may_settle(connection):
            raise StoreError(
                "this role of the database may not take dead letters away: give --db the role that owns the tables "
                "(valuedrift_migrator, docs/database.md), or --dry-run"
            )
        chosen = [letters.letters(connection, *where, letters.at_place(p)) for p in places]
        found = [x for each in chosen for x in each] if places else letters.letters(connection, *where)
    for place, each in zip(places, chosen, strict=True):
        if not each:
            raise ConfigError(f"{printable(place)}: no such dead letter of kind bad")
    found = sorted(set(found), key=lambda x: (x.source, x.position, x.line))
    done = letters.replay(_intake(config, engine), found, config.input.max_event_bytes, dry_run=dry_run)
    if as_json:
        click.echo(msgspec.json.encode({"dry_run": dry_run, **msgspec.to_builtins(done)}))
    else:
        for line in _told(done, dry_run):
            click.echo(line)


def _told(done: Replayed, dry_run: bool) -> list[str]:
    verb = "would be" if dry_run else "are"
    lines = [f"{done.settled:,} of {done.letters:,} dead letters {verb} settled, {done.events:,} events counted"]
    rest = {
        "still cannot be counted": done.still_bad,
        "not found: the file is gone, or has changed": done.missing,
        "without their bytes (standard input, HTTP, too long, or from before schema 0006)": done.not_kept,
        "of Kafka: valuedrift replay --dead-letters": done.kafka,
    }
    return lines + [f"  {n:,} {what}" for what, n in rest.items() if n]


def _intake(config: configuration.Config, engine: Engine) -> Intake:
    from classifiers.tiers import load_judge
    from monitor.intake import Intake

    classifier = options.load_classifier(config)
    return Intake(engine, classifier, config, lambda: datetime.now(UTC), load_judge(config.judge))

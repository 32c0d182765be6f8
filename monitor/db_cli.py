"""`valuedrift db`: the schema brought up, down and checked; old rows let go of; sizes; roles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from monitor import config as configuration
from monitor import options
from monitor.errors import ConfigError, StoreError
from streams.reasons import printable

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from monitor.store.health import TableSize
    from monitor.store.reads import IngestionHealth
    from monitor.store.retention import Pruned

SHOWN_SOURCES = 20
"""Sources that `stats` lists, those furthest behind first; --json has all."""
SHOWN_DIFFERENCES = 20


@click.group()
def db() -> None:
    """Look after the database."""


def _engine(config: configuration.Config) -> Engine:
    """The database as it is, whatever its schema."""
    from monitor.store.database import open_engine

    s = config.store
    return open_engine(s.url, connect_seconds=s.connect_seconds, retry_seconds=s.retry_seconds)


@db.command()
@options.db
@click.pass_context
def upgrade(context: click.Context, url: str | None) -> None:
    """Bring the database to this version's schema."""
    from monitor.store.database import shown, versions
    from monitor.store.database import upgrade as run

    engine = _engine(options.load(context, store__url=url))
    before, _ = versions(engine)
    run(engine)
    after, _ = versions(engine)
    click.echo(f"{shown(engine)}: schema {before or 'none'} -> {after}")


@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("revision", default="-1")
@click.option("--yes", is_flag=True, help="Also where rows would be lost.")
@options.db
@click.pass_context
def downgrade(context: click.Context, revision: str, yes: bool, url: str | None) -> None:
    """Take the database back to an older schema: REVISION, `base` (none), or -1, the one before [-1].

    For going back to an older valuedrift; do it with the newer one, while nothing uses the database.
    """
    from monitor.store.database import downgrade as run
    from monitor.store.database import shown, versions

    engine = _engine(options.load(context, store__url=url))
    before, _ = versions(engine)
    run(engine, revision, may_lose_rows=yes)
    after, _ = versions(engine)
    click.echo(f"{shown(engine)}: schema {before or 'none'} -> {after or 'none'}")


@db.command()
@options.db
@click.pass_context
def current(context: click.Context, url: str | None) -> None:
    """Say which schema the database has and which this version needs."""
    from monitor.store.database import shown, versions

    engine = _engine(options.load(context, store__url=url))
    have, want = versions(engine)
    click.echo(f"{shown(engine)}: schema {have or 'none'}, this version needs {want}")


@db.command()
@options.db
@click.pass_context
def check(context: click.Context, url: str | None) -> int:
    """Exit 0 if the database has exactly the schema this version needs, 1 if not, naming what differs."""
    from monitor.store.database import differences, shown, versions

    engine = _engine(options.load(context, store__url=url))
    have, want = versions(engine)
    if have != want:
        click.echo(f"{shown(engine)}: schema {have or 'none'}, this version needs {want}; run: valuedrift db upgrade")
        return 1
    found = differences(engine)
    if not found:
        click.echo(f"{shown(engine)}: schema {have}, as it should be")
        return 0
    click.echo(f"{shown(engine)}: schema {have}, but {len(found)} difference(s):")
    for d in found[:SHOWN_DIFFERENCES]:
        click.echo(f"  {printable(d)}")
    return 1


def _moment(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"--now {value!r} is not a time, such as 2026-03-01T12:00:00Z") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


_now = click.option("--now", metavar="TIME", callback=_moment, help="Take this for the present [the clock].")


@db.command()
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@_now
@options.db
@click.pass_context
def prune(context: click.Context, dry_run: bool, now: datetime | None, url: str | None) -> None:
    """Let go of what is older than the [retention] settings allow, and make old buckets coarser.

    Runs beside writers; killed, it goes on when run again. On PostgreSQL it needs the role that owns the tables.
    """
    from monitor.store.retention import prune as run

    config = options.load(context, store__url=url)
    limits = config.limits()
    done = run(options.open_database(config), limits, now or datetime.now(UTC), dry_run=dry_run)
    lines = list(_pruned_lines(done))
    for line in lines or ["nothing to prune"]:
        click.echo(f"would go: {line}" if dry_run and lines else line)
    if done.busy:
        raise StoreError(f"{' and '.join(done.busy)}: in use, so that months that are too old stay; run prune again")


def _pruned_lines(done: Pruned) -> Iterator[str]:
    for table, months in done.months.items():
        if months:
            yield f"{table}: {', '.join(f'{m:%Y-%m}' for m in months)}"
    for table, rows in done.rows.items():
        if rows:
            yield f"{table}: {rows:,} rows"
    if done.merged:
        yield f"buckets: {done.merged:,} rows added up to {done.into:,} of hours or days"


@db.command()
@options.json_object
@_now
@options.db
@click.pass_context
def stats(context: click.Context, as_json: bool, now: datetime | None, url: str | None) -> None:
    """Rows and sizes by table, from when to when, and how reading the sources is doing."""
    from monitor.store import reads
    from monitor.store.database import shown, versions
    from monitor.store.health import table_sizes

    engine = options.open_database(options.load(context, store__url=url))
    version, _ = versions(engine)
    with engine.connect() as connection:
        tables = table_sizes(connection)
        health = reads.ingestion_health(connection)
    series = next(t.rows for t in tables if t.name == "series")
    at = now or datetime.now(UTC)
    if as_json:
        head = {"database": shown(engine), "schema": version, "series": series}
        click.echo(msgspec.json.encode(head | {"tables": tables, "ingestion": _health_values(health, at)}))
        return
    total = sum(t.bytes or 0 for t in tables)
    click.echo(f"{shown(engine)}: schema {version}, {series:,} series, {_size(total)}")
    for t in tables:
        for line in _table_lines(t):
            click.echo(line)
    for line in _health_lines(health, at):
        click.echo(printable(line, 400))


def _table_lines(t: TableSize) -> Iterator[str]:
    rows = f"{t.rows:,}" if t.counted else f"about {t.rows:,}"
    span = f"   {t.oldest:%Y-%m-%d %H:%M} to {t.newest:%Y-%m-%d %H:%M} UTC" if t.oldest and t.newest else ""
    yield f"  {t.name:<18} {rows:>18} rows {_size(t.bytes):>10}{span}"
    for p in t.partitions if t.oldest else ():  # parts of the ledger are as large as each other
        yield f"    {p.name:<16} {_size(p.bytes):>34}"


def _health_lines(health: IngestionHealth, now: datetime) -> Iterator[str]:
    n = health.totals
    yield (
        f"{len(health.sources):,} source(s): {n['events']:,} events, {n['judged']:,} judged, {n['duplicates']:,} "
        f"duplicates, {n['dead_letters']:,} dead letters ({100 * health.dead_letter_share:.2f} %)"
    )
    if health.newest is not None:
        yield f"newest event {health.newest:%Y-%m-%d %H:%M} UTC, {_age(now - health.newest)} ago"
    behind = sorted((s for s in health.sources if s.lag), key=lambda s: (s.lag, s.source), reverse=True)
    for s in behind[:SHOWN_SOURCES]:
        assert s.lag is not None
        yield f"  {s.source}: {_age(s.lag)} behind"


def _health_values(health: IngestionHealth, now: datetime) -> dict[str, Any]:
    newest = health.newest
    return {
        **health.totals,
        "dead_letter_share": round(health.dead_letter_share, 6),
        "newest": newest,
        "lag_seconds": None if newest is None else (now - newest).total_seconds(),
        "sources": [
            {
                "source": s.source,
                "position": s.position,
                "line": s.line,
                "events": s.events,
                "judged": s.judged,
                "turns": s.turns,
                "duplicates": s.duplicates,
                "dead_letters": s.dead_letters,
                "newest": s.newest,
                "lag_seconds": None if s.lag is None else s.lag.total_seconds(),
            }
            for s in health.sources
        ],
    }


def _size(n: int | None) -> str:
    if n is None:
        return "?"
    value = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _age(t: timedelta) -> str:
    minutes = max(int(t.total_seconds() // 60), 0)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


@db.command()
def roles() -> None:
    """Print the SQL that sets up PostgreSQL roles of least privilege: migrator, writer, reader (docs/database.md)."""
    import migrations

    click.echo((Path(migrations.__file__).parent / "roles.sql").read_text(encoding="utf-8"), nl=False)

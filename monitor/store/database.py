"""Opening, migrating and checking a database."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

import migrations
from monitor.errors import ConfigError, StoreError
from monitor.store import schema
from monitor.store.retry import RETRY_SECONDS, persistent, retrying
from monitor.store.retry import shown as shown

T = TypeVar("T")

_WRITES = "valuedrift_writes"
_CONNECT_SECONDS: Final = "valuedrift_connect_seconds"
_MIGRATION_LOCK = 0x76616C7565
"""PostgreSQL advisory lock under which the schema is changed; an arbitrary number of our own."""
_CONNECTION: Final = {
    "application_name": "valuedrift",
    "connect_timeout": 10,
    # a server whose machine has gone is noticed within a minute
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""What is asked of libpq where neither the URL nor a PG* variable does."""
_LIBPQ: Final = {"application_name": "PGAPPNAME", "connect_timeout": "PGCONNECT_TIMEOUT"}
_SERVER_KEEPALIVES: Final = (
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
)
"""A server ends the session of a writer whose machine has gone, and with it the locks that others wait for."""
_BUSY_SECONDS = 30
"""How long a SQLite writer waits for another before it gives up."""


def open_engine(url: str, *, connect_seconds: float = 30.0, retry_seconds: float = 300.0) -> Engine:
    """Connect to a database without looking at its tables.

    Parameters
    ----------
    connect_seconds : how long a server that does not answer is waited for at first.
    retry_seconds : how long by what uses it later (monitor.store.retry).

    Raises
    ------
    ConfigError : the URL is not understood or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ConfigError(f"database {parsed.get_backend_name()!r} is not supported; use sqlite or postgresql")
        engine = create_engine(
            parsed,
            connect_args=_connect_args(parsed),
            pool_pre_ping=True,
            hide_parameters=True,
        )
    except (ArgumentError, NoSuchModuleError) as e:
        raise ConfigError(f"database URL is not understood: {e}; write sqlite:///FILE or postgresql://...") from e
    except ModuleNotFoundError as e:
        raise ConfigError(f"{e.name} is missing; pip install 'valuedrift[postgres]'") from e
    if parsed.get_backend_name() == "sqlite":
        _make_sqlite_transactional(engine)
    else:
        event.listen(engine, "connect", _set_up_session)
    return engine.execution_options(**{_CONNECT_SECONDS: connect_seconds, RETRY_SECONDS: retry_seconds})


def _connect_args(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": _BUSY_SECONDS}
    # libpq sends PGTZ along, and a server refuses a zone it does not know; times are UTC whatever the client's are
    os.environ["PGTZ"] = "UTC"
    given = {**url.query, **{name: None for name, variable in _LIBPQ.items() if variable in os.environ}}
    return {name: value for name, value in _CONNECTION.items() if name not in given}


def _set_up_session(connection: Any, _record: Any) -> None:
    connection.execute(_SERVER_KEEPALIVES)
    connection.commit()


def _make_sqlite_transactional(engine: Engine) -> None:
    # sqlite3 opens transactions late and by itself; the product's guarantees need them to begin where they are written
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # the file remembers it; turning it on is the one thing for which SQLite does not wait while another process is busy
    give_up = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as e:
            if "locked" not in str(e) or time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that writes: on SQLite it takes the write lock at its start, so it never fails half way for it."""
    return engine.execution_options(**{_WRITES: True}).begin()


def committed(engine: Engine, work: Callable[[Connection], T]) -> T:
    """What is done in a transaction of its own, again when it collides: it finds out itself what is left to do."""

    def attempt() -> T:
        with writing(engine) as connection:
            return work(connection)

    return retrying(engine, attempt)


def open_store(url: str, *, connect_seconds: float = 30.0, retry_seconds: float = 300.0) -> Engine:
    """Open a database for use; an empty one is given its tables, an older SQLite file is brought up to date.

    Parameters are those of `open_engine`.

    Raises
    ------
    StoreUnreachable : the server does not answer.
    StoreError : the database cannot be read, is newer than this version, or is a PostgreSQL that needs an upgrade.
    """
    engine = open_engine(url, connect_seconds=connect_seconds, retry_seconds=retry_seconds)
    have, want = versions(engine)
    if have == want:
        return engine
    _refuse_newer(engine, have)
    if have is not None and engine.dialect.name != "sqlite":
        raise StoreError(f"{shown(engine)} has schema {have}, this version needs {want}; run: valuedrift db upgrade")
    upgrade(engine)
    return engine


def versions(engine: Engine) -> tuple[str | None, str]:
    """(schema version of the database or None when it has none, version this code needs)."""

    def have() -> str | None:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    head = _script().get_current_head()
    assert head is not None
    return retrying(engine, have, engine.get_execution_options()[_CONNECT_SECONDS]), head


@persistent
def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, in one transaction, and give a new database its hash key.

    Processes that begin at once take turns, and all but the first find nothing left to do.

    Raises
    ------
    StoreError : the database holds tables of our names that are not ours, or is newer than this version.
    """
    with writing(engine) as connection:
        _lock_migrations(connection)
        have = MigrationContext.configure(connection).get_current_revision()
        _refuse_newer(engine, have)
        if have is None and set(inspect(connection).get_table_names()) & set(schema.METADATA.tables):
            raise StoreError(f"{shown(engine)} holds tables that are not valuedrift's; name another database")
        command.upgrade(_alembic_config(connection), "head")
        if connection.execute(select(schema.settings.c.key).where(schema.settings.c.key == "hash_key")).first() is None:
            connection.execute(schema.settings.insert().values(key="hash_key", value=secrets.token_hex(32)))


@persistent
def downgrade(engine: Engine, revision: str, *, may_lose_rows: bool = True) -> None:
    """Run migrations backwards, down to a schema version, in one transaction; never needed to go on working.

    Parameters
    ----------
    revision : a schema version, `base` (none), or `-1`, the one before the database's.

    Raises
    ------
    StoreError : there is no such version, or rows would be lost that may not be; nothing is changed then.
    """
    with writing(engine) as connection:
        _lock_migrations(connection)
        have = MigrationContext.configure(connection).get_current_revision()
        _refuse_newer(engine, have)
        target = _older(have, revision)
        before = {} if may_lose_rows else _row_counts(connection)
        command.downgrade(_alembic_config(connection), target)
        after = {} if may_lose_rows else _row_counts(connection)
        lost = [f"{n - after.get(t, 0):,} row(s) of {t}" for t, n in before.items() if n > after.get(t, 0)]
        if lost:
            raise StoreError(f"schema {target} has no room for {', '.join(lost)}; to lose these rows, say --yes")


def _older(have: str | None, revision: str) -> str:
    """The schema version that is meant, which must be older than the one there is."""
    below = [] if have is None else [r.revision for r in _script().iterate_revisions(have, "base")]
    older = [*below[1:], "base"] if below else []
    if revision == "-1" and older:
        return older[0]
    if revision not in older:
        known = f"older than {have} are {', '.join(older)}" if older else "the database has no schema yet"
        raise StoreError(f"cannot go down to schema {revision!r}: {known}")
    return revision


def _row_counts(connection: Connection) -> dict[str, int]:
    there = set(inspect(connection).get_table_names())
    return {
        name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for name, table in schema.METADATA.tables.items()
        if name in there
    }


def differences(engine: Engine) -> list[str]:
    """How the database's tables differ from those this version uses; empty when they do not."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": schema.include_name})
        return [_named(d) for d in compare_metadata(context, schema.METADATA)]


def _named(difference: Any) -> str:
    """One of Alembic's differences in words."""
    if isinstance(difference, list):
        return "; ".join(_named(d) for d in difference)
    kind, *about = difference
    verb, _, what = kind.partition("_")
    if verb == "modify":
        _, table, column, _, have, want = about
        return f"{what} of column {table}.{column} is {have!r}, not {want!r}"
    item = about[-1]
    table = about[1] if what == "column" else getattr(getattr(item, "table", None), "name", None)
    name = item.name if table is None else f"{table}.{item.name}"
    return f"{what.replace('_', ' ')} {name} {'is missing' if verb == 'add' else 'is not of this version'}"


def insert(table: Table, connection: Connection) -> Any:
    """An INSERT that knows ON CONFLICT, which the two databases spell alike but SQLAlchemy keeps by dialect."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


@persistent
def hash_key(engine: Engine) -> bytes:
    """The key that this database's text hashes are made with."""
    with engine.connect() as connection:
        query = select(schema.settings.c.value).where(schema.settings.c.key == "hash_key")
        return bytes.fromhex(connection.execute(query).scalar_one())


def _refuse_newer(engine: Engine, have: str | None) -> None:
    """Raises StoreError when the database has a schema that this version does not know."""
    if have is not None and have not in _known():
        want = _script().get_current_head()
        raise StoreError(
            f"{shown(engine)} was written by a newer valuedrift (schema {have}, this version needs {want}); run: "
            f"pip install --upgrade valuedrift, or with the newer one: valuedrift db downgrade {want}"
        )


def _lock_migrations(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))


def _alembic_config(connection: Connection | None = None) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic_config())


def _known() -> set[str]:
    return {r.revision for r in _script().walk_revisions()}

"""Opening, migrating and checking a database."""

from __future__ import annotations

import secrets
import sqlite3
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

import migrations
from monitor.errors import ConfigError, StoreError
from monitor.store import schema

_WRITES = "valuedrift_writes"
_MIGRATION_LOCK = 0x76616C7565
"""PostgreSQL advisory lock under which the schema is changed; an arbitrary number of our own."""
_BUSY_SECONDS = 30
"""How long a SQLite writer waits for another before it gives up."""


def open_engine(url: str) -> Engine:
    """Connect to a database without looking at its tables.

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
        engine = create_engine(parsed, connect_args=_connect_args(parsed))
    except (ArgumentError, NoSuchModuleError) as e:
        raise ConfigError(f"database URL is not understood: {e}; write sqlite:///FILE or postgresql://...") from e
    except ModuleNotFoundError as e:
        raise ConfigError(f"{e.name} is missing; pip install 'valuedrift[postgres]'") from e
    if parsed.get_backend_name() == "sqlite":
        _make_sqlite_transactional(engine)
    return engine


def _connect_args(url: URL) -> dict[str, Any]:
    return {"timeout": _BUSY_SECONDS} if url.get_backend_name() == "sqlite" else {}


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


def open_store(url: str) -> Engine:
    """Open a database for use; an empty one is given its tables, an older SQLite file is brought up to date.

    Raises
    ------
    StoreError : the database cannot be read, is newer than this version, or is a PostgreSQL that needs an upgrade.
    """
    engine = open_engine(url)
    try:
        have, want = versions(engine)
        if have == want:
            return engine
        if have is not None and have not in _known():
            raise StoreError(
                f"{shown(engine)} was written by a newer valuedrift (schema {have}, this version knows {want}); upgrade"
            )
        if have is not None and engine.dialect.name != "sqlite":
            raise StoreError(
                f"{shown(engine)} has schema {have}, this version needs {want}; run: valuedrift db upgrade"
            )
        upgrade(engine)
    except DBAPIError as e:
        raise StoreError(f"{shown(engine)} cannot be opened: {_first_line(e)}") from e
    return engine


def versions(engine: Engine) -> tuple[str | None, str]:
    """(schema version of the database or None when it has none, version this code needs)."""
    try:
        with engine.connect() as connection:
            have = MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as e:
        raise StoreError(f"{shown(engine)} cannot be opened: {_first_line(e)}") from e
    head = _script().get_current_head()
    assert head is not None
    return have, head


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, in one transaction, and give a new database its hash key.

    Processes that begin at once take turns, and all but the first find nothing left to do.

    Raises
    ------
    StoreError : the database holds tables of our names that are not ours.
    """
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        have = MigrationContext.configure(connection).get_current_revision()
        if have is None and set(inspect(connection).get_table_names()) & set(schema.METADATA.tables):
            raise StoreError(f"{shown(engine)} holds tables that are not valuedrift's; name another database")
        config = _alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.execute(select(schema.settings.c.key).where(schema.settings.c.key == "hash_key")).first() is None:
            connection.execute(schema.settings.insert().values(key="hash_key", value=secrets.token_hex(32)))


def insert(table: Table, connection: Connection) -> Any:
    """An INSERT that knows ON CONFLICT, which the two databases spell alike but SQLAlchemy keeps by dialect."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def hash_key(engine: Engine) -> bytes:
    """The key that this database's text hashes are made with."""
    with engine.connect() as connection:
        query = select(schema.settings.c.value).where(schema.settings.c.key == "hash_key")
        return bytes.fromhex(connection.execute(query).scalar_one())


def shown(engine: Engine) -> str:
    """The database's URL, without its password."""
    return engine.url.render_as_string(hide_password=True)


def _alembic_config() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_alembic_config())


def _known() -> set[str]:
    return {r.revision for r in _script().walk_revisions()}


def _first_line(e: DBAPIError) -> str:
    return str(e.orig or e).strip().splitlines()[0]

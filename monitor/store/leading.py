"""One process of all at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import Engine, text


@contextlib.contextmanager
def leading(engine: Engine, lock: int) -> Iterator[bool]:
    """Whether this process is the one that holds a PostgreSQL advisory lock, now.

    A SQLite file has one writer at a time anyway.
    """
    if engine.dialect.name != "postgresql":
        yield True
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = {"key": lock}
        leads = bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one())
        try:
            yield leads
        finally:
            if leads:
                try:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
                except Exception:  # the session ends, and its lock with it
                    connection.invalidate()

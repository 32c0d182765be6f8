"""What passes by itself is waited for: lost connections, a server that starts, a full disk, transactions that collide.

What is retried must find out itself whether an earlier try was committed after all: a connection that is lost during
COMMIT does not say (docs/decisions/0013-postgresql.md).
"""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, IntegrityError, OperationalError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from monitor.errors import StoreError, StoreUnreachable

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS: Final = "valuedrift_retry_seconds"
"""Execution option of an engine: how long what uses it waits."""
_DEFAULT_SECONDS: Final = 300.0
_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 5.0

_COLLISIONS: Final = ("40001", "40P01")
_MISSING_MONTH: Final = "23514"
"""No table has a check of its own, so the only row that fails one is a row no partition takes."""
_OUTAGES: Final = ("08", "53", "57P01", "57P02", "57P03", "25006")
"""Connection lost, resources used up (disk, connections, memory), shut down or starting, a standby after a failover."""
_HOPELESS: Final = re.compile(
    r"authentication failed|no password supplied|(?:role|database) \".*\" does not exist|no pg_hba\.conf entry"
    r"|is not permitted to log in|permission denied|certificate|does not support SSL|invalid \S+ value"
    r"|invalid value for parameter|invalid connection option|invalid port|unsupported .* parameter"
)
"""A refused connection has no SQLSTATE, only words. Those not known here (another language) are waited for in vain."""

_log: Final = logging.getLogger(__name__)


def shown(engine: Engine) -> str:
    """The database's URL, without passwords."""
    url = engine.url
    return url.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)


def first_line(e: DBAPIError) -> str:
    """What the database says, in one line."""
    return (str(e.orig or e).strip().splitlines() or [type(e.orig).__name__])[0]


def is_outage(e: DBAPIError) -> bool:
    """Whether the database is away or out of resources, for now."""
    if e.connection_invalidated:
        return True
    state = getattr(e.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_OUTAGES)
    # psycopg knows no more of a connection that was refused; sqlite3 has no such attribute and waits by itself
    return isinstance(e, OperationalError) and hasattr(e.orig, "sqlstate") and _HOPELESS.search(str(e.orig)) is None


def passes(e: BaseException) -> bool:
    """Whether trying again may help."""
    if not isinstance(e, DBAPIError):
        return False
    return getattr(e.orig, "sqlstate", None) in (*_COLLISIONS, _MISSING_MONTH) or is_outage(e)


def retrying(engine: Engine, attempt: Callable[[], T], seconds: float | None = None) -> T:
    """Run an attempt until it succeeds; an outage is told once when it begins and once when it is over.

    Parameters
    ----------
    seconds : give up when nothing has helped for so long; None: the engine's own patience.

    Raises
    ------
    StoreUnreachable : the database was away all that time.
    StoreError : transactions collided all that time, or the database refuses for good.
    """
    patience = engine.get_execution_options().get(RETRY_SECONDS, _DEFAULT_SECONDS) if seconds is None else seconds
    failing_since: float | None = None
    told = False

    def run() -> T:
        nonlocal failing_since
        started = time.monotonic()
        try:
            return attempt()
        except DBAPIError:
            # what took so long did not only wait for the database: it was there, and has gone anew
            if failing_since is None or time.monotonic() - started > patience:
                failing_since = time.monotonic()
            raise

    def stop(_: RetryCallState) -> bool:
        return failing_since is not None and time.monotonic() - failing_since >= patience

    def tell(state: RetryCallState) -> None:
        nonlocal told
        e = state.outcome.exception() if state.outcome else None
        if isinstance(e, DBAPIError) and is_outage(e) and not told:
            told = True
            _log.warning("%s: %s; trying again for up to %g s", shown(engine), first_line(e), patience)

    wait = wait_random_exponential(multiplier=_FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS)
    try:
        result = Retrying(retry=retry_if_exception(passes), wait=wait, stop=stop, before_sleep=tell, reraise=True)(run)
    except DBAPIError as e:
        if is_outage(e):
            raise StoreUnreachable(
                f"{shown(engine)} cannot be used: {first_line(e)} (tried for {patience:g} s); "
                "what was committed is kept: run the same command again"
            ) from e
        if passes(e) or (isinstance(e, DatabaseError) and not isinstance(e, IntegrityError | DataError)):
            raise StoreError(f"{shown(engine)}: {first_line(e)}") from e
        raise
    if told and failing_since is not None:
        _log.warning("%s: back after %.0f s", shown(engine), time.monotonic() - failing_since)
    return result


def reading(engine: Engine, read: Callable[[Connection], T]) -> T:
    """What is read over a connection of its own."""

    def attempt() -> T:
        with engine.connect() as connection:
            return read(connection)

    return retrying(engine, attempt)


def persistent(function: Callable[Concatenate[Engine, P], T]) -> Callable[Concatenate[Engine, P], T]:
    """A function of an engine that may simply be run again, and is."""

    @functools.wraps(function)
    def run(engine: Engine, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return retrying(engine, lambda: function(engine, *args, **kwargs))

    return run

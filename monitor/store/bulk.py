"""Many rows into a table at once, given as columns: binary COPY on PostgreSQL, one prepared statement on SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import BigInteger, Column, Connection, Float, Integer, LargeBinary, SmallInteger, String, Table
from sqlalchemy.exc import DBAPIError

from monitor.store.schema import UtcDateTime

Values = list[Any] | NDArray[Any] | str
"""One value a row, none of them None; a string alone is that of every row."""

IN_LIST: Final = 500
"""Keys in one IN (...): well under every driver's limit on parameters."""
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_NUMBERS: Final = ((SmallInteger, ">i2"), (BigInteger, ">i8"), (Integer, ">i4"), (Float, ">f8"))


class Rows:
    """Rows of a table, ready to be sent; columns that are not given take their defaults."""

    def __init__(self, connection: Connection, table: Table, columns: Mapping[str, Values], rows: int) -> None:
        self._connection = connection
        self._table = table
        self._data: bytes | None = None
        if connection.dialect.name == "postgresql":
            self._order = sorted(columns, key=lambda name: not _varies(table.c[name], columns[name]))
            self._data = _encoded([(table.c[name], columns[name]) for name in self._order], rows)
        else:
            self._values = as_rows(columns, rows)

    @contextmanager
    def adding(self, into: str | None = None) -> Iterator[None]:
        """Insert them (into another PostgreSQL table of such columns); what is done within takes no time of its own."""
        if self._data is None:
            self._connection.execute(self._table.insert(), self._values)
            yield
            return
        statement = f"COPY {into or self._table.name} ({', '.join(self._order)}) FROM STDIN (FORMAT BINARY)"
        with driver(self._connection) as raw, raw.cursor() as cursor, cursor.copy(statement) as out:
            out.write(self._data)
            yield

    def add(self, into: str | None = None) -> None:
        """Insert them."""
        with self.adding(into):
            pass


def as_rows(columns: Mapping[str, Values], rows: int) -> list[dict[str, Any]]:
    """Columns as rows of plain values."""
    plain = [
        [c] * rows if isinstance(c, str) else c.tolist() if isinstance(c, np.ndarray) else c for c in columns.values()
    ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def array(values: Iterable[int | bytes]) -> str:
    """A PostgreSQL array as text, to be cast: an array of Python values goes through the driver one by one."""
    return "{" + ",".join(f'"\\\\x{v.hex()}"' if isinstance(v, bytes) else str(v) for v in values) + "}"


@contextmanager
def driver(connection: Connection) -> Iterator[Any]:
    """The driver's own connection; its errors come out as SQLAlchemy's."""
    raw: Any = connection.connection.driver_connection
    errors: Any = connection.dialect.loaded_dbapi
    try:
        yield raw
    except errors.Error as e:
        lost = bool(raw.closed)
        if lost:
            connection.invalidate(e)
        raise DBAPIError.instance(
            None, None, e, errors.Error, hide_parameters=True, connection_invalidated=lost, dialect=connection.dialect
        ) from e


def _varies(column: Column[Any], values: Values) -> bool:
    """Whether its values differ in length."""
    return isinstance(column.type, String | LargeBinary) and not isinstance(values, str | np.ndarray)


def _encoded(columns: Sequence[tuple[Column[Any], Values]], rows: int) -> bytes:
    """PostgreSQL's binary COPY format: a row is its number of values, and each value its length and its bytes.

    Values of any length come first, one by one; all others are one record of fixed size, filled column by column.
    """
    varying = [_as_bytes(values) for column, values in columns if _varies(column, values)]
    fixed = [_as_array(column, values, rows) for column, values in columns if not _varies(column, values)]
    parts: list[Sequence[bytes]] = []
    count = np.full(rows, len(columns), dtype=">i2")
    for k, values in enumerate(varying):
        length = np.fromiter(map(len, values), dtype=">i4", count=rows)
        parts += [_records([count, length] if k == 0 else [length]), values]
    tail = [a for values in fixed for a in (np.full(rows, values.dtype.itemsize, dtype=">i4"), values)]
    parts.append(_records(tail if varying else [count, *tail]))
    return b"".join([_SIGNATURE, *chain.from_iterable(zip(*parts, strict=True)), _TRAILER])


def _as_bytes(values: Values) -> list[bytes]:
    return [v.encode() if isinstance(v, str) else v for v in values]


def _as_array(column: Column[Any], values: Values, rows: int) -> NDArray[Any]:
    """(rows,) of a type whose bytes are PostgreSQL's."""
    if isinstance(values, str):
        data = values.encode()
        return np.full(rows, np.void(data), dtype=f"V{len(data)}")
    if isinstance(column.type, UtcDateTime):
        seconds = np.fromiter((t.timestamp() for t in values), dtype=np.float64, count=rows)
        return np.rint((seconds - _EPOCH) * 1e6).astype(">i8")
    if isinstance(column.type, LargeBinary):
        return np.asarray(values)
    return np.asarray(values).astype(next(code for kind, code in _NUMBERS if isinstance(column.type, kind)))


def _records(fields: Sequence[NDArray[Any]]) -> list[bytes]:
    """One piece of bytes a row: its values, one behind the other."""
    if not fields:
        return []
    packed = np.empty(len(fields[0]), dtype=[(f"f{i}", f.dtype) for i, f in enumerate(fields)])
    for i, f in enumerate(fields):
        packed[f"f{i}"] = f
    data, size = packed.tobytes(), packed.dtype.itemsize
    return [data[at : at + size] for at in range(0, len(data), size)]

"""Reports as they are kept: with all that a rendering needs, so that last year's comes out as it did.

One report is kept of a week, a comparison and a scope. Excerpts of turns are not kept with it: texts go before reports
do, and fewer may read them (docs/privacy.md); they are looked up whenever a report is shown.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, func, select, update

from monitor.baselines import find_series
from monitor.config import Report
from monitor.errors import StoreError
from monitor.report.gather import Wanted, gather
from monitor.report.model import ReportData, Turn
from monitor.steps import Stepper
from monitor.store import reads, schema
from monitor.store.database import committed, insert
from monitor.store.retry import reading

ALL: Final = ""
"""Scope of a report of every series."""
_COMPRESSION: Final = 6


@dataclass(frozen=True, slots=True)
class Key:
    """What a kept report is found by."""

    week: str
    compare: str
    scope: str = ALL


def key_of(wanted: Wanted, names: Iterable[str] = ()) -> Key:
    """Where a report is kept.

    Parameters
    ----------
    names : whole names of the series it is of, where it is not of all.
    """
    chosen = sorted(set(names))
    scope = hashlib.blake2b(msgspec.json.encode(chosen), digest_size=16).hexdigest() if chosen else ALL
    return Key(wanted.week, wanted.compare, scope)


def made(
    stepper: Stepper, settings: Report, wanted: Wanted, now: datetime, *, again: bool = False
) -> tuple[ReportData, Key]:
    """The kept report, or else one that is made and kept now; that of a week that is not over is not kept.

    Parameters
    ----------
    again : made anew whether one is kept or not.

    Raises
    ------
    ConfigError, StoreError : as monitor.report.gather.gather.
    """
    engine = stepper.engine
    names = [reading(engine, partial(find_series, name=name)).key.name for name in wanted.series]
    key = key_of(wanted, names)
    found = None if again else kept(engine, key)
    if found is None:
        found = gather(stepper, settings, wanted)
        if found.end <= now:
            found = keep(engine, key, found, now, replace=again)
    return found, key


def keep(engine: Engine, key: Key, data: ReportData, at: datetime, *, replace: bool = False) -> ReportData:
    """Keep a report; returns the one that is kept, which is another's where one was there already.

    Parameters
    ----------
    at : the clock.
    replace : put it in place of the one that is there; where that was sent to is forgotten.
    """
    t = schema.reports
    row = {
        "ends_at": data.end,
        "made_at": at,
        "version": data.version,
        "data": zlib.compress(msgspec.json.encode(without_texts(data)), _COMPRESSION),
        "sent": {},
    }

    def work(connection: Connection) -> bytes:
        upsert = insert(t, connection).values(week=key.week, compare=key.compare, scope=key.scope, **row)
        keys = [c.name for c in t.primary_key]
        if replace:
            changed = {name: upsert.excluded[name] for name in row}
            connection.execute(upsert.on_conflict_do_update(index_elements=keys, set_=changed))
        else:
            connection.execute(upsert.on_conflict_do_nothing(index_elements=keys))
        return bytes(connection.execute(select(t.c.data).where(*_is(key))).scalar_one())

    return _decoded(committed(engine, work), key)


def kept(engine: Engine, key: Key) -> ReportData | None:
    """The report that is kept, if any, without excerpts."""
    query = select(schema.reports.c.data).where(*_is(key))
    found = reading(engine, lambda connection: connection.execute(query).scalar_one_or_none())
    return None if found is None else _decoded(found, key)


def first_week(engine: Engine, compare: str, since: str) -> str | None:
    """The first week, from one on, that a report of all series is kept of."""
    t = schema.reports
    mine = (t.c["compare"] == compare, t.c.scope == ALL, t.c.week >= since)
    query = select(func.min(t.c.week)).where(*mine)
    found: str | None = reading(engine, lambda connection: connection.execute(query).scalar_one())
    return found


def sent(engine: Engine, key: Key) -> Mapping[str, str]:
    """The targets that a kept report has reached, and when."""
    query = select(schema.reports.c.sent).where(*_is(key))
    return reading(engine, lambda connection: connection.execute(query).scalar_one_or_none()) or {}


def note_sent(engine: Engine, key: Key, target: str, at: datetime) -> None:
    """A report has reached a target; of one that is not kept, as of a week that is not over, nothing is noted."""
    t = schema.reports

    def work(connection: Connection) -> None:
        have = connection.execute(select(t.c.sent).where(*_is(key)).with_for_update()).scalar_one_or_none()
        if have is None:
            return
        connection.execute(update(t).where(*_is(key)).values(sent={**have, target: at.isoformat()}))

    committed(engine, work)


def without_texts(data: ReportData) -> ReportData:
    """A report with no excerpts of turns."""
    return _with_turns(data, lambda turn: msgspec.structs.replace(turn, request="", answer=""))


def with_texts(engine: Engine, data: ReportData) -> ReportData:
    """A report with the excerpts that are kept by now of its telling turns."""
    turns = [x for s in data.series for some in s.telling.values() for x in some]
    asked = [{"event_id": x.event_id, "turn": x.turn, "ts": x.ts.isoformat()} for x in turns]
    found = {
        (x["event_id"], x["turn"]): x
        for x in reading(engine, lambda connection: reads.with_excerpts(connection, asked))
        if "answer" in x
    }

    def filled(turn: Turn) -> Turn:
        x = found.get((turn.event_id, turn.turn))
        return turn if x is None else msgspec.structs.replace(turn, request=x["request"], answer=x["answer"])

    return _with_turns(data, filled) if found else data


def _with_turns(data: ReportData, change: Callable[[Turn], Turn]) -> ReportData:
    series = [
        msgspec.structs.replace(s, telling={b: [change(x) for x in some] for b, some in s.telling.items()})
        for s in data.series
    ]
    return msgspec.structs.replace(data, series=series)


def _decoded(packed: bytes, key: Key) -> ReportData:
    try:
        return msgspec.json.decode(zlib.decompress(packed), type=ReportData)
    except (zlib.error, msgspec.MsgspecError) as e:
        raise StoreError(f"the kept report of {key.week} cannot be read ({e}); make it anew: --again") from e


def _is(key: Key) -> tuple[ColumnElement[bool], ...]:
    t = schema.reports
    return t.c.week == key.week, t.c["compare"] == key.compare, t.c.scope == key.scope

"""The writer's contract on both databases: counted once, in any company, whatever comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Engine, func, select

from monitor.buckets import Sums
from monitor.errors import StoreError
from monitor.store import schema
from monitor.store.bulk import Rows
from monitor.store.database import open_store, writing
from monitor.store.ledger import Arrival, DeadLetter
from monitor.store.partitions import drop_before, ensure_months, month_of
from monitor.taxonomy import BEHAVIOURS, FACTORS
from tests.store_cases import VERSION, contents, events, judged, write, writer


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.METADATA.tables[table])).scalar_one()


def bucket_sums(engine: Engine) -> Sums:
    """All buckets added up."""
    with engine.connect() as connection:
        return sum((Sums.unpack(s) for s in connection.execute(select(schema.buckets.c.sums)).scalars()), Sums.zero())


def at_once(*work: Callable[[], None]) -> list[BaseException]:
    """Run all at the same time; returns what went wrong."""
    failed: list[BaseException] = []
    together = threading.Barrier(len(work))

    def run(each: Callable[[], None]) -> None:
        try:
            together.wait()
            each()
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


@pytest.mark.service
def test_every_column_comes_back(engine: Engine) -> None:
    """What is stored is what was judged, to the last bit and microsecond, over a turn of the month."""
    ts = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
    some = [
        replace(e, ts=ts + timedelta(microseconds=i), event_id=f"ünï-{i}", conversation_id="\u4e2d\u6587 \U0001f600")
        for i, e in enumerate(events(1, 10))
    ]
    write(writer(engine, "a"), some)
    truth = judged(some)
    with engine.connect() as connection:
        rows = connection.execute(select(schema.turns).order_by(schema.turns.c.line)).all()
        seconds = connection.execute(select(schema.second_judgements)).all()
        assert connection.execute(select(func.count()).select_from(schema.reviews)).scalar_one() == 2
    assert [r.event_id for r in rows] == [e.event_id for e in some]
    assert [r.ts for r in rows] == [e.ts for e in some]
    assert [r.weight for r in rows] == [1 / e.sample_rate for e in some]
    assert {(r.conversation_id, r.turn, r.classifier_version, r.tier) for r in rows} == {
        ("\u4e2d\u6587 \U0001f600", 0, VERSION, "cascade")
    }
    assert [[r[f"q_{b}"] for b in BEHAVIOURS] for r in (r._mapping for r in rows)] == truth.q.tolist()
    assert [[r[f"f_{f}"] for f in FACTORS] for r in (r._mapping for r in rows)] == truth.factors.tolist()
    assert [r.doubt for r in rows] == np.rint(truth.doubt * 4096).astype(int).tolist()
    assert len({bytes(r.text_hash) for r in rows}) == len(rows)
    assert {r.event_id for r in seconds} == {some[0].event_id, some[5].event_id}
    assert bucket_sums(engine).values.tolist() == truth.terms.sum(axis=0).tolist()


@pytest.mark.service
def test_same_on_both(empty_postgres: str, tmp_path: object) -> None:
    """Chunks with duplicates within, between and of other sources leave the same rows on SQLite and PostgreSQL."""
    found = []
    for url in (empty_postgres, f"sqlite:///{tmp_path}/a.db"):
        engine = open_store(url)
        a, b = writer(engine, "a"), writer(engine, "b")
        some = events(1, 60)
        write(a, [*some[:20], some[3], *some[15:20]])
        write(b, some[10:40])  # its duplicates are not known beforehand
        write(b, some[30:60], known=frozenset(e.event_id for e in some[30:40]))
        write(a, some[40:50], known=frozenset(e.event_id for e in some[40:50]))
        found.append(contents(engine))
        engine.dispose()
    assert found[0] == found[1]
    assert len(found[0]["turns"]) == 60
    assert len(found[0]["dead_letters"]) == 6 + 10 + 10 + 10


@pytest.mark.service
def test_wrongly_taken_for_known(engine: Engine) -> None:
    """An event that was taken for a duplicate, and is none by the time it is written, is counted."""
    some = events(1, 10)
    write(writer(engine, "a"), some, known=frozenset([some[4].event_id]))
    assert count(engine, "event_keys") == 10
    with engine.connect() as connection:
        offset = connection.execute(select(schema.offsets)).one()
    assert (offset.judged, offset.duplicates) == (10, 0)


@pytest.mark.service
def test_month_dropped_under_a_running_writer(empty_postgres: str) -> None:
    """A month that retention drops while a writer runs is made anew for its next turns."""
    engine = open_store(empty_postgres)
    a = writer(engine, "a")
    write(a, events(1, 5))
    other = open_store(empty_postgres)
    assert drop_before(other, "turns", datetime(2027, 1, 1, tzinfo=UTC).date())
    write(a, events(2, 5))
    assert count(engine, "turns") == 5
    engine.dispose()
    other.dispose()


@pytest.mark.service
def test_no_more_series_than_allowed(engine: Engine) -> None:
    """Series beyond the limit become dead letters that say what to do; two writers at once stay within it."""
    many = events(1, 40, series=40)
    a, b = writer(engine, "a", max_series=7), writer(engine, "b", max_series=7)
    assert at_once(lambda: write(a, many[:20]), lambda: write(b, many[20:])) == []
    assert count(engine, "series") == 7
    with engine.connect() as connection:
        reasons = set(connection.execute(select(schema.dead_letters.c.reason)).scalars())
    assert reasons == {"more than 7 series; raise input.max_series or name fewer deployments"}
    assert count(engine, "turns") + count(engine, "dead_letters") == 40


@pytest.mark.service
def test_crowd_on_the_same_events(engine: Engine) -> None:
    """Four writers with the same events, each in another order: no deadlock, each event once, buckets exact."""
    some = events(1, 400, series=12, step_seconds=11.0)
    writers = [writer(engine, f"source-{k}") for k in range(4)]

    def work(k: int) -> Callable[[], None]:
        shuffled = [some[i] for i in np.random.default_rng(k).permutation(len(some))]
        return lambda: [write(writers[k], shuffled[i : i + 40]) for i in range(0, 400, 40)] and None

    assert at_once(*map(work, range(4))) == []
    assert count(engine, "turns") == count(engine, "event_keys") == 400
    assert count(engine, "dead_letters") == 3 * 400
    assert bucket_sums(engine).values.tolist() == judged(some).terms.sum(axis=0).tolist()
    with engine.connect() as connection:
        offsets = connection.execute(select(schema.offsets)).all()
    assert sum(o.judged for o in offsets) == sum(o.turns for o in offsets) == 400
    assert all(o.events == 400 for o in offsets)


@pytest.mark.service
def test_new_series_in_opposite_order(engine: Engine) -> None:
    """Writers that name the same new series in opposite order do not wait for each other for ever."""
    for k in range(10):
        some = [replace(e, deployment=f"{k}-{i}") for i, e in enumerate(events(k, 8))]
        a, b = writer(engine, f"a{k}"), writer(engine, f"b{k}")
        other = [replace(e, event_id=f"other-{e.event_id}") for e in reversed(some)]
        failed = at_once(lambda a=a, some=some: write(a, some), lambda b=b, other=other: write(b, other))
        assert failed == []
    assert count(engine, "series") == 80


@pytest.mark.service
def test_one_source_twice(engine: Engine) -> None:
    """A source that another process has moved on is not written to again."""
    a, b = writer(engine, "a"), writer(engine, "a")
    write(a, events(1, 5))
    with pytest.raises(StoreError, match="another process"):
        write(b, events(2, 5))
    assert count(engine, "turns") == 5


@pytest.mark.service
def test_bucket_rolled_up_meanwhile(engine: Engine) -> None:
    """A bucket that is taken away between two chunks (rolled up) is begun anew, and one that stands is added to."""
    a = writer(engine, "a")
    some = events(1, 20, series=1, step_seconds=1.0)
    write(a, some[:10])
    with writing(engine) as connection:
        connection.execute(schema.buckets.delete())
    write(a, some[10:15])
    write(a, some[15:])
    assert bucket_sums(engine).values.tolist() == judged(some[10:]).terms.sum(axis=0).tolist()


@pytest.mark.service
def test_dead_letters_alone(engine: Engine) -> None:
    """A chunk without a single event moves its source on and keeps its dead letters."""
    a = writer(engine, "a")
    bad = [DeadLetter(1, 0, 5, "bad", "no JSON")]
    a.write([], None, bad, position=5, line=1, fingerprint="f", format=None)
    assert (a.offset.events, a.offset.dead_letters, count(engine, "dead_letters")) == (1, 1, 1)


@pytest.mark.service
def test_copy_takes_every_kind_of_value(empty_postgres: str) -> None:
    """Extremes of every column type come back as they were sent."""
    engine = open_store(empty_postgres)
    t = schema.turns
    columns = {
        "event_id": ["", "x" * 200],
        "turn": [0, 2**31 - 1],
        "ts": [datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)],
        "series_id": [1, 2**63 - 1],
        "conversation_id": "same",
        "line": [-1, 2**63 - 1],
        "weight": [5e-324, 1.7976931348623157e308],
        "classifier_version": "v",
        "tier": "t",
        **{c.name: [-32768, 32767] for c in t.c if c.name.startswith(("q_", "f_"))},
        "doubt": [0, 4096],
        "text_hash": [b"", bytes(range(16))],
    }
    ensure_months(engine, "turns", [month_of(x) for x in columns["ts"]])  # type: ignore[arg-type]
    with writing(engine) as connection:
        Rows(connection, t, columns, 2).add()  # type: ignore[arg-type]
        back = connection.execute(select(t).order_by(t.c.turn)).mappings().all()
    for name, values in columns.items():
        got = [bytes(r[name]) if name == "text_hash" else r[name] for r in back]
        assert got == ([values] * 2 if isinstance(values, str) else values), name
    engine.dispose()


@pytest.mark.service
def test_arrivals_keep_their_place(engine: Engine) -> None:
    """The offset is what was read, and the ledger and the turns say on which line each event stood."""
    a = writer(engine, "a")
    some = events(1, 3)
    a.write(
        [Arrival(e, 10 * i + 7, 0, 1) for i, e in enumerate(some)],
        judged(some),
        [],
        position=4711,
        line=30,
        fingerprint="print",
        format="openai",
    )
    with engine.connect() as connection:
        o = connection.execute(select(schema.offsets)).one()
        lines = connection.execute(select(schema.turns.c.line).order_by(schema.turns.c.line)).scalars().all()
        keys = connection.execute(select(schema.event_keys.c.line).order_by(schema.event_keys.c.line)).scalars().all()
    assert (o.position, o.line, o.fingerprint, o.format, o.newest_ts) == (4711, 30, "print", "openai", some[-1].ts)
    assert lines == keys == [7, 17, 27]

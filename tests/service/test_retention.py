"""Retention: what goes, what stays, what becomes coarser, beside writers and killed anywhere."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, func, select, update

from classifiers import linear
from classifiers.tiers import load_tier
from monitor.buckets import SIZE, Sums
from monitor.config import Config, Retention
from monitor.entropy import Quantifier
from monitor.errors import ConfigError
from monitor.state import SeriesState
from monitor.steps import ONSET_HORIZON_MINUTES, Stepper
from monitor.store import reads, schema
from monitor.store.database import open_store, writing
from monitor.store.partitions import ensure_months, month_of, months
from monitor.store.retention import BATCH_ROWS, prune
from monitor.store.schema import DAY_SHARD, HOUR_SHARD
from monitor.trajectory import WINDOWS_MINUTES
from monitor.transcript import minute_of, time_of
from tests.conftest import EXAMPLES, Run, command, environment, write_log

pytestmark = pytest.mark.service

NOW = datetime(2026, 7, 15, 12, 0, tzinfo=UTC)
HOUR, DAY = 60, 1440
KEEP = {
    "turns": "",
    "texts": "",
    "dead_letters": "",
    "event_keys": "",
    "alerts": "",
    "reports": "",
    "minutes_after": "",
    "hours_after": "",
}
"""Nothing goes."""


def limits(**given: str) -> Any:
    return Config(retention=Retention(**(KEEP | given))).limits()


# --- rows


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def add_series(engine: Engine, state: bytes | None = None, name: str = "a") -> int:
    table = schema.series
    with writing(engine) as connection:
        values = {"deployment": name, "model": "m", "labels": "[]", "state": state}
        return int(connection.execute(table.insert().values(values).returning(table.c.id)).scalar_one())


def add_source(engine: Engine, name: str = "log") -> int:
    table = schema.offsets
    numbers = dict.fromkeys(("position", "line", "events", "judged", "turns", "duplicates", "dead_letters"), 0)
    with writing(engine) as connection:
        values = {"source": name, "fingerprint": "", **numbers}
        return int(connection.execute(table.insert().values(values).returning(table.c.id)).scalar_one())


def turn_row(series_id: int, event_id: str, ts: datetime) -> dict[str, Any]:
    return {c.name: 0 for c in schema.turns.c if c.name.startswith(("q_", "f_"))} | {
        "event_id": event_id,
        "turn": 0,
        "series_id": series_id,
        "ts": ts,
        "conversation_id": event_id,
        "line": 1,
        "weight": 1.0,
        "classifier_version": "v",
        "tier": "fast",
        "doubt": 0,
        "text_hash": b"x" * 16,
    }


def point_row(series_id: int, t: datetime) -> dict[str, Any]:
    figures = {c.name: 0.5 for c in schema.points.c}
    return figures | {"series_id": series_id, "t": t, "window_minutes": 60, "classifier_version": "v", "n": 1}


def alert_row(series_id: int, key: str, resolved_at: datetime | None) -> dict[str, Any]:
    times = dict.fromkeys(("raised_at", "onset", "onset_lo", "onset_hi"), ago(2000))
    about = {"rule": "value-drift", "reason": "", "values": {}, "telling_turns": []}
    return (
        {"id": key, "series_id": series_id, "firing": resolved_at is None, "resolved_at": resolved_at} | times | about
    )


def report_row(week: str, ends_at: datetime) -> dict[str, Any]:
    key = {"week": week, "compare": "previous", "scope": ""}
    return key | {"ends_at": ends_at, "made_at": NOW, "version": "1", "data": b"", "sent": {}}


def fill(engine: Engine, ages_days: list[float]) -> None:
    """One of everything for each age, named by it."""
    series_id, source = add_series(engine), add_source(engine)
    ensure_months(engine, "turns", {month_of(ago(a)) for a in ages_days})
    ensure_months(engine, "points", {month_of(ago(a)) for a in ages_days})
    said = {"event_id": "", "turn": 0, "choice_probability": 0.1}
    review = {"label": "aligned", "confidence": 1.0, "refused": None, "model": "m", "rubric_version": "1"}
    second = {f"q_{b}": 0 for b in ("aligned", "over_refusal", "harmful_compliance", "deception", "goal_deviation")}
    second |= {"classifier_version": "w", "doubt": 0}
    with writing(engine) as connection:
        for k, a in enumerate(ages_days):
            name = f"{a:g}"
            connection.execute(schema.turns.insert(), [turn_row(series_id, name, ago(a))])
            connection.execute(schema.reviews.insert(), [said | review | {"event_id": name}])
            connection.execute(schema.second_judgements.insert(), [said | second | {"event_id": name}])
            keys = {"event_id": name, "offset_id": source, "line": k, "seen_at": ago(a)}
            connection.execute(schema.event_keys.insert(), [keys])
            connection.execute(schema.points.insert(), [point_row(series_id, ago(a))])
            letter = {"offset_id": source, "line": k, "position": 0, "size": 1, "kind": "bad", "reason": name}
            connection.execute(schema.dead_letters.insert(), [letter | {"seen_at": ago(a)}])
            connection.execute(schema.alerts.insert(), [alert_row(series_id, name, ago(a))])
            connection.execute(schema.reports.insert(), [report_row(name, ago(a))])
        connection.execute(schema.alerts.insert(), [alert_row(series_id, "firing", None)])


NAMES = {
    "turns": schema.turns.c.event_id,
    "reviews": schema.reviews.c.event_id,
    "second_judgements": schema.second_judgements.c.event_id,
    "event_keys": schema.event_keys.c.event_id,
    "dead_letters": schema.dead_letters.c.reason,
    "alerts": schema.alerts.c.id,
    "reports": schema.reports.c.week,
}


def left(engine: Engine) -> dict[str, set[str]]:
    with engine.connect() as connection:
        found = {t: set(connection.execute(select(c)).scalars()) for t, c in NAMES.items()}
        times = connection.execute(select(schema.points.c.t)).scalars()
        return found | {"points": {f"{(NOW - t) / timedelta(days=1):g}" for t in times}}


AGES = [0.5, 10.0, 45.0, 89.0, 91.0, 120.0, 399.0, 401.0, 1000.0, 1200.0, 3000.0]


def test_nothing_goes_where_all_is_kept(engine: Engine) -> None:
    """With "" everywhere a prune changes nothing."""
    fill(engine, AGES)
    before = left(engine)
    done = prune(engine, limits(), NOW)
    assert left(engine) == before
    assert (sum(done.rows.values()), sum(map(len, done.months.values())), done.merged) == (0, 0, 0)


def test_defaults(engine: Engine) -> None:
    """By default turns and what was said of them go after 90 days, the ledger after 400, alerts and reports after 1095,
    the trajectory never."""
    fill(engine, AGES)
    told = prune(engine, Config().limits(), NOW, dry_run=True)
    assert all("3000" in names for names in left(engine).values())
    done = prune(engine, Config().limits(), NOW)
    after = left(engine)
    names = {f"{a:g}" for a in AGES}
    # whole months: 91 days ago was in April, which is not wholly 90 days old
    turns = {"0.5", "10", "45", "89"} | ({"91"} if engine.dialect.name == "postgresql" else set())
    assert after["turns"] == after["reviews"] == after["second_judgements"] == turns
    assert after["dead_letters"] == {"0.5", "10", "45", "89"}
    assert after["event_keys"] == names - {"401", "1000", "1200", "3000"}
    assert after["alerts"] == (names - {"1200", "3000"}) | {"firing"}
    assert after["reports"] == names - {"1200", "3000"}
    assert after["points"] == names
    assert told.rows == done.rows
    assert told.months == done.months
    again = prune(engine, Config().limits(), NOW)
    assert (sum(again.rows.values()), again.months.get("turns", []), left(engine)) == (0, [], after)


def test_points_and_months(engine: Engine) -> None:
    """A limit of the trajectory holds too; on PostgreSQL a month goes when its end is older than the limit."""
    fill(engine, AGES)
    done = prune(engine, limits(points="1010d", turns="1010d"), NOW)
    assert left(engine)["points"] == left(engine)["turns"] == {f"{a:g}" for a in AGES if a < 1010}
    if engine.dialect.name == "postgresql":
        assert done.months["points"] == [month_of(ago(3000)), month_of(ago(1200))]
        with engine.connect() as connection:
            assert months(connection, "points")[0] == month_of(ago(1000))
            # the months to come are made ahead
            assert {date(2026, 7, 1), date(2026, 8, 1), date(2026, 9, 1)} <= set(months(connection, "turns"))


def test_the_ledger_outlives_its_turns(engine: Engine) -> None:
    """An event's id is known as long as any of its turns: its replay cannot count beside them."""
    fill(engine, AGES)
    prune(engine, limits(turns="90d", event_keys="90d"), NOW)
    after = left(engine)
    assert after["turns"] <= after["event_keys"]
    assert "120" not in after["event_keys"]


def test_small_batches(engine: Engine) -> None:
    """However small the batches, the same goes, and no transaction takes more than a batch."""
    fill(engine, [*AGES, *(500.0 + k for k in range(40))])
    sizes: list[int] = []
    event.listen(
        engine,
        "after_cursor_execute",
        lambda _c, cursor, statement, *_: statement.startswith("DELETE") and sizes.append(cursor.rowcount),
    )
    prune(engine, limits(turns="90d", event_keys="400d", dead_letters="90d", alerts="90d"), NOW, batch_rows=7)
    assert max(sizes) == 7
    assert left(engine)["dead_letters"] == {"0.5", "10", "45", "89"}
    assert left(engine)["event_keys"] == {"0.5", "10", "45", "89", "91", "120", "399"}


def test_one_instant_of_the_ledger(engine: Engine) -> None:
    """Keys that were entered together, as one transaction's are, go together."""
    source = add_source(engine)
    rows = [{"event_id": str(k), "offset_id": source, "line": k, "seen_at": ago(500)} for k in range(30)]
    with writing(engine) as connection:
        connection.execute(schema.event_keys.insert(), rows)
    assert prune(engine, limits(turns="90d", event_keys="400d"), NOW, batch_rows=7).rows["event_keys"] == 30
    assert left(engine)["event_keys"] == set()


def test_a_month_in_use_stays_for_the_next_time(postgres: str, valuedrift: Run) -> None:
    """Where somebody holds on to a month that is too old, `prune` does the rest, says so and exits 3."""
    engine = open_store(postgres)
    fill(engine, AGES)
    with engine.connect() as reader:
        reader.execute(select(func.count()).select_from(schema.turns))
        done = valuedrift("db", "prune", "--now", NOW.isoformat(), "--db", postgres)
    assert done.returncode == 3
    assert "turns: in use" in done.stderr
    assert "3000" in left(engine)["turns"] & left(engine)["event_keys"]
    assert "3000" not in left(engine)["dead_letters"]
    done = valuedrift("db", "prune", "--now", NOW.isoformat(), "--db", postgres)
    assert done.returncode == 0, done.stderr
    assert "3000" not in left(engine)["turns"] | left(engine)["event_keys"]
    engine.dispose()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"turns": "5h"}, "retention.turns '5h' must be a day or more"),
        ({"turns": "0d"}, '"" to keep for ever'),
        ({"points": "long"}, "retention.points 'long'"),
        ({"event_keys": "80d", "turns": "90d"}, "retention.event_keys '80d' must not be shorter than retention.turns"),
        ({"hours_after": "20d", "minutes_after": "30d"}, "must not be shorter than retention.minutes_after"),
        ({"points": "100d", "buckets": "200d"}, "must not be shorter than retention.buckets"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, str], message: str) -> None:
    """A time that cannot be read, or that another one rules out, is named."""
    with pytest.raises(ConfigError) as refused:
        limits(**given)
    assert message in str(refused.value)


def test_a_thousand_years(engine: Engine) -> None:
    """A time longer than dates go keeps for ever."""
    fill(engine, AGES)
    prune(engine, limits(turns="9999999d", event_keys="9999999999d", minutes_after="9999999d"), NOW)
    assert "3000" in left(engine)["turns"]


# --- buckets


def sums_of(seed: int) -> Sums:
    return Sums(np.random.default_rng(abs(seed)).integers(0, 1 << 40, SIZE))


def bucket_row(series_id: int, version: str, minute: int, shard: int, sums: Sums) -> dict[str, Any]:
    key = {"series_id": series_id, "classifier_version": version, "minute": minute, "shard": shard}
    return key | {"n": sums.n, "sums": sums.pack()}


def stepped(version: str, next_minute: int) -> bytes:
    return SeriesState(version, next_minute=next_minute).pack()


def total(engine: Engine, series_id: int, version: str, start: int, end: int | None) -> list[int]:
    with engine.connect() as connection:
        found = list(reads.buckets(connection, series_id, version, start, end))
    assert [b.minute for b in found] == sorted({b.minute for b in found})
    return sum((b.sums for b in found), Sums.zero()).values.tolist()


def shards(engine: Engine, version: str) -> list[tuple[int, int]]:
    t = schema.buckets
    with engine.connect() as connection:
        query = select(t.c.minute, t.c.shard).where(t.c.classifier_version == version).order_by(t.c.minute, t.c.shard)
        return [tuple(r) for r in connection.execute(query)]


rows_of_buckets = st.lists(
    st.tuples(
        # five days, around the ends of hours and days more often
        st.one_of(st.integers(0, 5 * DAY - 1), st.sampled_from([0, 59, 60, DAY - 1, DAY, DAY + 59, 3 * DAY])),
        st.integers(1, 4),
    ),
    unique=True,
    max_size=60,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=rows_of_buckets,
    minutes_after=st.integers(1, 6),
    hours_after=st.integers(1, 6),
    settled=st.integers(-1, 6 * DAY),
    batch_rows=st.integers(1, 20),
)
def test_sums_survive(
    engine: Engine, rows: list[tuple[int, int]], minutes_after: int, hours_after: int, settled: int, batch_rows: int
) -> None:
    """Whatever the buckets and limits, hours and days add up to the last bit; what is not settled stays."""
    first = minute_of(NOW) // DAY * DAY - 60 * DAY
    now = time_of(first + 6 * DAY)
    with writing(engine) as connection:
        for t in (schema.buckets, schema.series):
            connection.execute(t.delete())
    series_id = add_series(engine, stepped("v", first + settled + ONSET_HORIZON_MINUTES))
    values = [bucket_row(series_id, "v", first + m, shard, sums_of(m * 10 + shard)) for m, shard in rows]
    with writing(engine) as connection:
        if values:
            connection.execute(schema.buckets.insert(), values)
    hours_after = max(hours_after, minutes_after)
    hour_end = min(6 - minutes_after, settled / DAY) * DAY // HOUR * HOUR
    day_end = min(6 - hours_after, settled / DAY) * DAY // DAY * DAY
    ends = [*range(0, 5 * DAY + 1, DAY)] + [h for h in range(0, 5 * DAY, HOUR) if h > day_end]
    spans = [(a, b) for a in ends for b in random.Random(1).sample(ends, 6) if a < b]
    before = {span: total(engine, series_id, "v", first + span[0], first + span[1]) for span in spans}
    keep = limits(minutes_after=f"{minutes_after}d", hours_after=f"{hours_after}d")
    told = prune(engine, keep, now, dry_run=True)
    done = prune(engine, keep, now, batch_rows=batch_rows)
    assert (told.merged, told.into) == (done.merged, done.into)
    assert {span: total(engine, series_id, "v", first + span[0], first + span[1]) for span in spans} == before
    expected = sorted(
        {
            (m // DAY * DAY, DAY_SHARD) if m < day_end else (m // HOUR * HOUR, HOUR_SHARD) if m < hour_end else (m, s)
            for m, s in rows
        }
    )
    assert [(m - first, s) for m, s in shards(engine, "v")] == expected
    again = prune(engine, keep, now)
    assert (again.merged, again.into) == (0, 0)


def test_every_window_of_a_week(url: str, valuedrift: Run) -> None:
    """After minutes have become hours, and hours days, S of every window of whole days a week or longer is the same to
    the last bit, and the trajectory is untouched."""
    assert valuedrift("watch", EXAMPLES, "--db", url).returncode == 0
    engine = open_store(url)
    classifier = load_tier("fast")
    quantifier = Quantifier(classifier.calibration)
    t = schema.buckets
    with engine.connect() as connection:
        lo, hi = connection.execute(select(func.min(t.c.minute), func.max(t.c.minute))).one()
        series = reads.all_series(connection)
    days = range(lo // DAY * DAY, hi + DAY, DAY)
    windows = [(a, b) for a in days for b in days if b - a >= 7 * DAY]

    def entropies() -> dict[Any, Any]:
        out = {}
        for s in series:
            for a, b in windows:
                sums = Sums(np.array(total(engine, s.id, classifier.version, a, b)))
                out[s.id, a, b] = quantifier.estimate(sums).entropy
        return out

    def points() -> list[Any]:
        with engine.connect() as connection:
            return sorted(map(tuple, connection.execute(select(schema.points)).all()))

    before, trajectory = entropies(), points()
    assert len(windows) >= 30
    assert trajectory
    counts = []
    for age, minutes in ((40, HOUR), (400, DAY)):
        now = time_of(hi) + timedelta(days=age)
        for s in series:
            assert s.state is not None
            state = SeriesState.unpack(s.state)
            state.next_minute = minute_of(now)
            with writing(engine) as connection:
                where = update(schema.series).where(schema.series.c.id == s.id)
                connection.execute(where.values(state=state.pack()))
        done = valuedrift("db", "prune", "--now", now.isoformat(), "--db", url, env={"VALUEDRIFT_RETENTION_TURNS": ""})
        assert done.returncode == 0, done.stderr
        assert "rows added up to" in done.stdout
        found = shards(engine, classifier.version)
        assert all(m % minutes == 0 for m, _ in found)
        counts.append(len(found))
        assert entropies() == before
        assert points() == trajectory
    assert counts[1] < counts[0]
    engine.dispose()


def test_what_a_step_may_read_again_stays(engine: Engine) -> None:
    """Minutes that the series has not been stepped past, or that a window or an onset may reach, are left alone."""
    last = minute_of(ago(100)) // DAY * DAY
    unstepped = add_series(engine, None, "unstepped")
    behind = add_series(engine, stepped("v", last), "behind")
    rows = [bucket_row(s, "v", last + m, 1, sums_of(m)) for s in (unstepped, behind) for m in range(-60 * DAY, 1, 700)]
    with writing(engine) as connection:
        connection.execute(schema.buckets.insert(), rows)
    before = shards(engine, "v")
    prune(engine, Config().limits(), NOW)
    with engine.connect() as connection:
        t = schema.buckets
        query = select(t.c.minute).where(t.c.shard == HOUR_SHARD, t.c.series_id == unstepped)
        assert connection.execute(query).all() == []
        minutes = (
            connection.execute(select(t.c.minute).where(t.c.shard == 1, t.c.series_id == behind).order_by(t.c.minute))
            .scalars()
            .all()
        )
    assert minutes == [m for m in sorted({m for m, _ in before}) if m >= last - 28 * DAY]
    assert max(WINDOWS_MINUTES) <= ONSET_HORIZON_MINUTES == 28 * DAY


def test_buckets_of_earlier_weights(engine: Engine) -> None:
    """A series given its earlier weights again is stepped through their buckets: those become hours, not days."""
    start = minute_of(ago(600)) // DAY * DAY
    series_id = add_series(engine, stepped("new", minute_of(NOW)))
    ensure_months(engine, "points", {month_of(time_of(start + 40 * DAY))})
    rows = [bucket_row(series_id, v, start + m, 1, sums_of(m)) for v in ("old", "new") for m in range(0, 40 * DAY, 100)]
    with writing(engine) as connection:
        connection.execute(schema.buckets.insert(), rows)
        point = point_row(series_id, time_of(start + 40 * DAY)) | {"classifier_version": "old"}
        connection.execute(schema.points.insert(), [point])
    prune(engine, Config().limits(), NOW)
    assert {s for _, s in shards(engine, "new")} == {DAY_SHARD}
    assert {(s, m % HOUR) for m, s in shards(engine, "old") if m < start + 12 * DAY} == {(HOUR_SHARD, 0)}
    assert {s for m, s in shards(engine, "old") if m >= start + 12 * DAY} == {1}


def test_days_are_not_stepped_through_again(engine: Engine) -> None:
    """A series that comes back to weights whose minutes are days by now begins after those days."""
    start = minute_of(ago(600)) // DAY * DAY
    series_id = add_series(engine, stepped("v", minute_of(NOW)))
    rows = [bucket_row(series_id, "v", start + m, 1, sums_of(m)) for m in range(0, 400 * DAY, 6 * HOUR)]
    with writing(engine) as connection:
        connection.execute(schema.buckets.insert(), rows)
    prune(engine, Config().limits(), NOW)
    with engine.connect() as connection:
        last = max(m for m, s in shards(engine, "v") if s == DAY_SHARD)
        assert reads.days_until(connection, series_id, "v") == last + DAY
        assert reads.days_until(connection, series_id, "w") == 0
        (series,) = (s for s in reads.all_series(connection) if s.id == series_id)
    stepper = Stepper(
        engine, Quantifier(linear.load().calibration), "v", Config().baseline_rule(), Config().trajectory()
    )
    assert stepper._begin(series).next_minute == last + DAY


def test_old_buckets_go(engine: Engine) -> None:
    """With a limit, whole days of buckets go, but none that a step may read again."""
    last = minute_of(ago(100)) // DAY * DAY
    old, behind = (
        add_series(engine, stepped("v", minute_of(NOW)), "old"),
        add_series(engine, stepped("v", last), "slow"),
    )
    minutes = range(last - 60 * DAY, last + 99 * DAY, 700)
    with writing(engine) as connection:
        rows = [bucket_row(s, "v", m, 1, sums_of(m)) for s in (old, behind) for m in minutes]
        connection.execute(schema.buckets.insert(), rows)
    told = prune(engine, limits(buckets="50d"), NOW, dry_run=True, batch_rows=50)
    done = prune(engine, limits(buckets="50d"), NOW, batch_rows=50)
    assert told.rows["buckets"] == done.rows["buckets"] > 0
    for series_id, first in ((old, minute_of(ago(50)) // DAY * DAY), (behind, last - 28 * DAY)):
        with engine.connect() as connection:
            kept = [b.minute for b in reads.buckets(connection, series_id, "v", 0)]
        assert kept == [m for m in minutes if m >= first]


# --- beside writers, and killed


def test_late_events_beside_a_prune(postgres: str, tmp_path: Path, valuedrift: Run, examples: list[Any]) -> None:
    """Two watches add late events to minutes while these become hours: nothing is lost and nothing doubled."""
    first = write_log(tmp_path / "first.jsonl", examples)
    assert valuedrift("watch", first, "--db", postgres).returncode == 0
    engine = open_store(postgres)
    newest = max(datetime.fromisoformat(e["ts"]) for e in examples)
    now = newest + timedelta(days=60)
    with writing(engine) as connection:
        for s in reads.all_series(connection):
            assert s.state is not None
            state = SeriesState.unpack(s.state)
            state.next_minute = minute_of(now)
            where = update(schema.series).where(schema.series.c.id == s.id)
            connection.execute(where.values(state=state.pack()))
    # every chunk touches every hour, and often the same minutes
    late = [
        e | {"ts": e["ts"][:13] + ":00:00Z", "event_id": f"{e['event_id']}-{k}"} for k in range(12) for e in examples
    ]
    random.Random(1).shuffle(late)
    logs = [write_log(tmp_path / f"{i}.jsonl", late[i::2]) for i in range(2)]
    running = [start(tmp_path, "watch", log, "--db", postgres) for log in logs]
    merges = 0
    while any(p.poll() is None for p in running):
        merges += prune(engine, limits(minutes_after="30d"), now, batch_rows=50).merged > 0
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    prune(engine, limits(minutes_after="30d"), now)
    assert merges > 3
    assert valuedrift("watch", first, "--db", f"sqlite:///{tmp_path}/b.db").returncode == 0
    for log in logs:
        assert valuedrift("watch", log, "--db", f"sqlite:///{tmp_path}/b.db").returncode == 0
    other = open_store(f"sqlite:///{tmp_path}/b.db")
    assert {s for _, s in shards(engine, load_tier("fast").version)} == {HOUR_SHARD}
    assert by_series(engine) == by_series(other)
    engine.dispose()
    other.dispose()


def by_series(engine: Engine) -> dict[str, list[int]]:
    version = load_tier("fast").version
    with engine.connect() as connection:
        series = reads.all_series(connection)
    return {s.key.name: total(engine, s.id, version, 0, None) for s in series}


def start(folder: Path, *arguments: Any, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment() | env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_anywhere(engine: Engine, url: str, tmp_path: Path, valuedrift: Run) -> None:
    """A prune that is killed again and again, and at last runs through, leaves what one run leaves."""
    source, series_id = add_source(engine), add_series(engine, stepped("v", minute_of(NOW)))
    begin = minute_of(ago(80)) // DAY * DAY
    packed = sums_of(1)
    n = 12 * BATCH_ROWS
    with writing(engine) as connection:
        seen = {"offset_id": source, "seen_at": ago(500)}
        keys = [seen | {"event_id": f"e{k:06}", "line": k, "seen_at": ago(500 - k / n)} for k in range(n)]
        connection.execute(schema.event_keys.insert(), keys)
        letter = seen | {"position": 0, "size": 1, "kind": "bad", "reason": "x"}
        connection.execute(schema.dead_letters.insert(), [letter | {"line": k} for k in range(n)])
        rows = [bucket_row(series_id, "v", begin + m // 2, m % 2, packed) for m in range(n)]
        connection.execute(schema.buckets.insert(), rows)
    before = total(engine, series_id, "v", begin, begin + 30 * DAY)
    arguments = ("db", "prune", "--now", NOW.isoformat(), "--db", url)
    kills = 0
    for table, most in ((schema.dead_letters, 8), (schema.event_keys, 8), (schema.buckets, 6)):
        process = start(tmp_path, *arguments)
        reached = wait_until(lambda table=table, most=most: count(engine, table) < most * BATCH_ROWS, process)
        process.kill()
        process.communicate(timeout=30)
        kills += reached and process.returncode == -9
    assert kills == 3
    done = valuedrift(*arguments)
    assert done.returncode == 0, done.stderr
    assert (count(engine, schema.dead_letters), count(engine, schema.event_keys)) == (0, 0)
    assert total(engine, series_id, "v", begin, begin + 30 * DAY) == before
    assert count(engine, schema.buckets) == n // 2 // HOUR
    assert valuedrift(*arguments).stdout == "nothing to prune\n"


def test_two_prunes_at_once(engine: Engine, url: str) -> None:
    """Two prunes at the same time take turns: together they do what one does, and neither fails."""
    fill(engine, [*AGES, *(400.0 + 31 * k for k in range(40))])
    begin = minute_of(ago(80)) // DAY * DAY
    series_id = add_series(engine, stepped("v", minute_of(NOW)), "b")
    with writing(engine) as connection:
        rows = [bucket_row(series_id, "v", begin + m // 3, m % 3, sums_of(m)) for m in range(3000)]
        connection.execute(schema.buckets.insert(), rows)
    before = total(engine, series_id, "v", begin, begin + DAY)
    engines = [open_store(url) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda e: prune(e, Config().limits(), NOW, batch_rows=20), engines))
    for other in engines:
        other.dispose()
    assert sum(d.merged for d in done) == 3000
    assert total(engine, series_id, "v", begin, begin + DAY) == before
    after = left(engine)
    assert {s for _, s in shards(engine, "v")} == {HOUR_SHARD}
    prune(engine, Config().limits(), NOW)
    assert left(engine) == after
    assert after["turns"] <= {"0.5", "10", "45", "89", "91"}


def count(engine: Engine, table: Any) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def wait_until(done: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and process.poll() is None:
        if done():
            return True
        time.sleep(0.01)
    return False


def test_command(url: str, engine: Engine, valuedrift: Run) -> None:
    """`prune` says what went by table, a dry run the same in the conditional, and another run that there is nothing."""
    fill(engine, AGES)
    arguments = ("db", "prune", "--now", NOW.isoformat(), "--db", url)
    dry = valuedrift(*arguments, "--dry-run")
    done = valuedrift(*arguments)
    assert (dry.returncode, done.returncode) == (0, 0), done.stderr
    assert dry.stdout == "".join(f"would go: {line}\n" for line in done.stdout.splitlines())
    assert "dead_letters: 7 rows" in done.stdout
    assert ("turns: 2018-04, " in done.stdout) == (engine.dialect.name == "postgresql")
    assert valuedrift(*arguments).stdout == "nothing to prune\n"
    assert json.loads(valuedrift("db", "stats", "--json", "--db", url).stdout)["tables"]

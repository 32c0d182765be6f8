"""What a whole pass costs over a database, and how long it is from the tick that sees a drift to the pager's hearing.

    python benchmarks/oncall_stored.py [--series 10000] [--trials 200] [--url sqlite:///...] [--json]

The rules and readings are those of benchmarks/oncall.py. Passes read and write everything that they do in service:

quiet    nothing holds; usual: two series in a hundred are in trouble, and were before.
storm    one series in ten gets into trouble at once, with all its rules.

Then one series of `--few` gets into trouble in each of `--trials` ticks, under a rule that waits for nothing. From the
tick's beginning (a pass) to the notice's arrival at an HTTP server on this machine, through the outbox, the target's
thread and the notice's composition. Bounds: a quiet or usual pass in 2 s; 99 in 100 notices in 2 s.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqlalchemy import Engine

from alerts.delivery import Deliverer, Lane
from alerts.oncall import OnCall
from alerts.rulebook import compile_rules
from alerts.stages import Recipient
from benchmarks.oncall import FINE, IN_TROUBLE, SETTINGS
from monitor.store import schema
from monitor.store.database import open_store, writing
from monitor.store.oncall import ReadingRow, put_reading
from monitor.trajectory import Settings
from monitor.watch import utc_now
from tests.service.oncall_cases import alerts, composer, series
from tests.service.pager import Pager, PagerTarget


def store(engine: Engine, ids: Iterable[int], figures: dict[str, Any], at: datetime) -> None:
    """The readings of some series."""
    with writing(engine) as connection:
        for i in ids:
            put_reading(connection, ReadingRow(i, at, at, {k: list(x) for k, x in figures.items()}))


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def passes(engine: Engine, n: int, rng: np.random.Generator) -> dict[str, float]:
    """Seconds of the passes over n series."""
    rules = compile_rules(SETTINGS)
    recipients = [Recipient(name, frozenset({"page", "ticket"})) for name in ("alertmanager", "slack")]
    look = OnCall(engine, rules, recipients, Settings(), utc_now)
    ids = series(engine, [f"bot-{i}" for i in range(n)])
    now = utc_now()
    store(engine, ids, FINE, now)
    found = {"quiet_seconds": min(timed(lambda: look.run(now, live=True)) for _ in range(3))}
    troubled = rng.choice(ids, n // 50, replace=False).tolist()
    store(engine, troubled, IN_TROUBLE, now)
    look.run(now, live=True)
    look.run(now + timedelta(hours=2), live=True)
    found["usual_seconds"] = min(timed(lambda: look.run(now + timedelta(hours=2), live=True)) for _ in range(3))
    store(engine, rng.choice(ids, n // 10, replace=False).tolist(), IN_TROUBLE, now)
    found["storm_seconds"] = timed(lambda: look.run(now + timedelta(hours=2), live=True))
    with writing(engine) as connection:
        for table in (schema.readings, schema.alert_states, schema.alerts, schema.outbox, schema.series):
            connection.execute(table.delete())
    return found


def deliveries(engine: Engine, few: int, trials: int) -> dict[str, float]:
    """Seconds from the tick that sees a condition to the arrival of its notice."""
    settings = alerts(for_="0")
    look = OnCall(
        engine, compile_rules(settings), [Recipient("pager", frozenset({"page", "ticket"}))], Settings(), utc_now
    )
    pager = Pager()
    target = PagerTarget(pager.port)
    deliverer = Deliverer([Lane(engine, target, composer(engine, settings), ("rule",), utc_now)])
    deliverer.start()
    ids = series(engine, [f"few-{i}" for i in range(few)])
    store(engine, ids, FINE, utc_now())
    took = []
    for k in range(trials):
        store(engine, [ids[k % few]], IN_TROUBLE, utc_now())
        before = len(pager.incidents.notices)
        started = time.perf_counter()
        look.run(utc_now(), live=True)
        deliverer.wake()
        while len(pager.incidents.notices) == before:
            time.sleep(0.001)
        took.append(time.perf_counter() - started)
    deliverer.close(5.0)
    pager.close()
    return {f"delivery_p{q}_seconds": float(np.quantile(took, q / 100)) for q in (50, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=1000, help="series of the deliveries")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--url", help="an empty database; without, a file of SQLite")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_store(options.url or f"sqlite:///{folder}/a.db")
        found = {"series": options.series, **passes(engine, options.series, np.random.default_rng(3))}
        found |= deliveries(engine, options.few, min(options.trials, options.few))
        engine.dispose()
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:24} {value:.3f}" if isinstance(value, float) else f"{name:24} {value}")


if __name__ == "__main__":
    main()

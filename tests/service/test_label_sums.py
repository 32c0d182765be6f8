"""Sums by label value in a real database: counted once, read by the hour, coarser and gone when old, told in alerts."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select

from monitor.buckets import MIXTURE_SIZE
from monitor.label_sums import MOST_VALUES, OTHER, WITHOUT, LabelSums, Split
from monitor.store import schema
from monitor.store.database import open_store, writing
from monitor.store.label_reads import READ_VALUES, label_splits
from monitor.store.retention import prune
from monitor.store.schema import DAY_SHARD, HOUR_SHARD
from monitor.transcript import Event, minute_of, time_of
from tests.conftest import Run, last_json, write_log
from tests.service.test_retention import NOW, add_series, ago, limits, stepped
from tests.store_cases import VERSION, events, judged, write, writer

pytestmark = pytest.mark.service

HOUR, DAY = 60, 1440


def splits(engine: Engine, start: int = 0, end: int = 2**31 - 1, version: str = VERSION) -> dict[str, Split]:
    """Of the series numbered 1."""
    with engine.connect() as connection:
        return label_splits(connection, 1, version, start, end)


def plain(found: dict[str, Split]) -> dict[str, dict[str | None, list[int]]]:
    return {label: {v: s.values.tolist() for v, s in split.items()} for label, split in found.items()}


def expected(some: list[Event]) -> dict[str, dict[str | None, list[int]]]:
    """What the turns of events of one series add up to."""
    terms = judged(some).terms.copy()
    terms[:, MIXTURE_SIZE:] = 0
    out: dict[str, dict[str | None, list[int]]] = {}
    for label in ("route", "language", "region"):
        values = [(e.labels or {}).get(label, WITHOUT) for e in some]
        out[label] = {v: terms[[x == v for x in values]].sum(axis=0).tolist() for v in set(values)}
    return out


def shards(engine: Engine) -> list[tuple[int, int]]:
    t = schema.label_sums
    with engine.connect() as connection:
        return [tuple(r) for r in connection.execute(select(t.c.minute, t.c.shard).order_by(t.c.minute, t.c.shard))]


def test_each_turn_counts_once(engine: Engine) -> None:
    """Four writers with the same events in other orders: each value has the sums of its turns, to the last bit."""
    some = events(1, 300, series=1, step_seconds=60.0)
    writers = [writer(engine, f"source-{k}") for k in range(4)]

    def work(k: int) -> None:
        shuffled = [some[i] for i in np.random.default_rng(k).permutation(len(some))]
        for i in range(0, 300, 50):
            write(writers[k], shuffled[i : i + 50])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plain(splits(engine)) == expected(some)
    assert len({shard for _, shard in shards(engine)}) >= 2
    assert {minute % HOUR for minute, _ in shards(engine)} == {0}


def test_hours_of_a_window(engine: Engine) -> None:
    """A window has the hours that begin in it; of other classifier weights or a time without turns there is nothing."""
    some = events(1, 300, series=1, step_seconds=60.0)
    write(writer(engine, "a"), some)
    first = minute_of(some[0].ts) // HOUR * HOUR
    inside = [e for e in some if first + HOUR <= minute_of(e.ts) < first + 3 * HOUR]
    assert plain(splits(engine, first + HOUR, first + 3 * HOUR)) == expected(inside)
    assert plain(splits(engine, first + 1, first + HOUR + 1)) == expected(
        [e for e in inside if minute_of(e.ts) < first + 2 * HOUR]
    )
    assert splits(engine, first + DAY) == splits(engine, version="v2") == {}


def row(minute: int, shard: int, sums: LabelSums, series_id: int = 1) -> dict[str, Any]:
    key = {"series_id": series_id, "classifier_version": "v", "minute": minute, "shard": shard}
    return key | {"n": sums.n, "sums": sums.pack()}


def terms(n: int) -> list[int]:
    return [n] * MIXTURE_SIZE


def test_a_window_of_endless_values(engine: Engine) -> None:
    """Of a label with other values each hour those of most turns are told, and no turn is lost."""
    rows = []
    hours = READ_VALUES // MOST_VALUES + 10
    for h in range(hours):
        values: dict[str | None, list[int]] = {f"/{h}-{k}": terms(1) for k in range(MOST_VALUES - 1)}
        rows.append(row(h * HOUR, 1, LabelSums(terms(100), {"route": {"/chat": terms(40), **values}})))
    with writing(engine) as connection:
        connection.execute(schema.label_sums.insert(), rows)
    split = splits(engine, version="v")["route"]
    assert len(split) == MOST_VALUES + 2
    assert split["/chat"].n == 40 * hours
    assert split[OTHER].n == (MOST_VALUES - 1) * (hours - 1)
    assert split[WITHOUT].n == 11 * hours
    assert sum(s.n for s in split.values()) == 100 * hours


def test_old_rows_are_merged_and_go(engine: Engine) -> None:
    """As buckets do, rows of several sources become one an hour, later one a day; with a limit they go."""
    series_id = add_series(engine, stepped("v", minute_of(NOW)))
    begin = minute_of(ago(500)) // DAY * DAY
    hours = range(begin, begin + 470 * DAY, 7 * HOUR)
    with writing(engine) as connection:
        connection.execute(
            schema.label_sums.insert(),
            [
                row(m, shard, LabelSums(terms(3), {"route": {f"/{shard}": terms(2)}}), series_id)
                for m in hours
                for shard in (1, 2)
            ],
        )
    days = [(begin + a * DAY, begin + b * DAY) for a, b in ((0, 470), (100, 300), (440, 470))]
    before = [plain(splits(engine, *span, version="v")) for span in days]
    told = prune(engine, limits(labels="", minutes_after="30d", hours_after="365d"), NOW, dry_run=True)
    done = prune(engine, limits(labels="", minutes_after="30d", hours_after="365d"), NOW)
    assert (told.merged, told.into) == (done.merged, done.into)
    assert [plain(splits(engine, *span, version="v")) for span in days] == before
    assert {s for m, s in shards(engine) if time_of(m) < ago(366)} == {DAY_SHARD}
    assert {s for m, s in shards(engine) if ago(365) < time_of(m) < ago(31)} == {HOUR_SHARD}
    left = prune(engine, limits(labels="400d"), NOW)
    assert left.rows["label_sums"] > 30
    assert time_of(shards(engine)[0][0]) > ago(401)
    prune(engine, limits(buckets="100d", labels="400d"), NOW)
    assert time_of(shards(engine)[0][0]) > ago(101), "never longer than buckets"


def shifted(examples: list[dict[str, Any]], truth: dict[str, Any], bad: str) -> list[dict[str, Any]]:
    """The bundled log's drifting deployment twice, its drift on one route alone; the languages have no part in it."""
    own = [e for e in examples if e["deployment"] == truth["drifting_deployment"]]
    out = []
    for i, e in enumerate(own):
        said = truth["turn_labels"].get(e["conversation_id"], ["aligned"])
        route = bad if set(said) != {"aligned"} else ("/search", "/chat")[i % 2]
        labels = {"route": route, "language": ("en", "de")[i % 3 == 0], "session": f"s-{i}"}
        for k in range(2):
            ts = datetime.fromisoformat(e["ts"]) + timedelta(hours=5 * k)
            names = {name: f"{e[name]}-{k}" for name in ("event_id", "conversation_id")}
            out.append(e | names | {"ts": ts.isoformat(), "labels": labels})
    return sorted(out, key=lambda e: str(e["ts"]))


@pytest.mark.parametrize("bad", ["/beta", "[red]\x1b[31m<script>"])
def test_an_alert_says_where(
    tmp_path: Path, in_process: Run, examples: list[dict[str, Any]], truth: dict[str, Any], bad: str
) -> None:
    """A drift that one route alone brings is told with that route and its share, inert whatever its name is."""
    log = write_log(tmp_path / "log.jsonl", shifted(examples, truth, bad))
    done = in_process("watch", log, "--db", f"sqlite:///{tmp_path}/a.db")
    (line,) = {x.strip() for x in done.stdout.split("\n") if "likely where:" in x}
    assert "\x1b" not in done.stdout
    assert ("route=/beta carries" if bad == "/beta" else "route=[red]\\x1b[31m<script> carries") in line
    assert "language" not in line
    summary = last_json(in_process("watch", log, "--db", f"sqlite:///{tmp_path}/a.db", "--json"))
    (found, *_) = next(a for a in summary["alerts"] if a["rule"] == "value_drift")["values"]["where"]
    assert (found["label"], found["value"]) == ("route", bad)
    assert found["share_of_shift"]["low"] > 0.5
    assert found["traffic_before"] < found["traffic_after"]


def test_turned_off(tmp_path: Path, in_process: Run, examples: list[dict[str, Any]], truth: dict[str, Any]) -> None:
    """With an empty `monitor.labels` no label is kept, and the same alert says nothing of where."""
    log = write_log(tmp_path / "log.jsonl", shifted(examples, truth, "/beta"))
    off = in_process("watch", log, "--db", f"sqlite:///{tmp_path}/a.db", env={"VALUEDRIFT_MONITOR_LABELS": ""})
    assert "likely where" not in off.stdout
    assert "ALERT value_drift" in off.stdout
    engine = open_store(f"sqlite:///{tmp_path}/a.db")
    assert shards(engine) == []
    engine.dispose()

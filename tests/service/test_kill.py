"""Killed anywhere, a run that is begun again leaves what an undisturbed one leaves."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from monitor.store import schema
from monitor.store.database import open_store
from tests.conftest import Run, command, environment, repeated, write_log

KILLS = 10


def contents(path: Path) -> dict[str, list[Any]]:
    """Every row of every table, but for the clock of the ledger."""
    engine = open_store(f"sqlite:///{path}")
    with engine.connect() as connection:
        rows = {
            name: [
                tuple(r)
                for r in connection.execute(
                    select(*(c for c in t.c if c.name != "seen_at")).order_by(*t.primary_key.columns)
                )
            ]
            for name, t in schema.METADATA.tables.items()
        }
    engine.dispose()
    return rows


@pytest.mark.service
def test_kill_nine_times_ten(tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]]) -> None:
    """kill -9 at ten random moments, each time run again: turns, buckets, points and alerts equal to the last bit."""
    events = repeated(examples, 8)
    events[100] = events[99]  # a duplicate and damage must come out the same, too
    log = write_log(tmp_path / "log.jsonl", events)
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[700] = "{broken\n"
    log.write_text("".join(lines), encoding="utf-8")

    # one hash key for all, so that text hashes can be compared
    empty = tmp_path / "empty.db"
    assert valuedrift("db", "upgrade", "--db", f"sqlite:///{empty}").returncode == 0
    whole = tmp_path / "whole.db"
    shutil.copy(empty, whole)
    started = time.monotonic()
    assert valuedrift("watch", log, "--db", f"sqlite:///{whole}").returncode == 0
    seconds = time.monotonic() - started
    expected = contents(whole)
    assert len(expected["turns"]) > 5000
    assert len(expected["points"]) > 500
    assert expected["alerts"]
    assert len(expected["dead_letters"]) == 2

    rng = random.Random(20260302)
    unfinished = 0
    for attempt in range(KILLS):
        database = tmp_path / f"killed{attempt}.db"
        shutil.copy(empty, database)
        arguments = command("watch", log, "--db", f"sqlite:///{database}")
        process = subprocess.Popen(
            arguments, env=environment(), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.2, 0.95) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        unfinished += contents(database) != expected
        assert valuedrift("watch", log, "--db", f"sqlite:///{database}").returncode == 0
        assert contents(database) == expected
    assert unfinished >= KILLS / 2, "most kills must have hit a run that was not done"


@pytest.mark.service
def test_rerun_changes_nothing(tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]]) -> None:
    """A second run on the same log and database reads nothing again and changes no row."""
    log = write_log(tmp_path / "log.jsonl", examples)
    database = tmp_path / "a.db"
    first = valuedrift("watch", log, "--db", f"sqlite:///{database}", "--json")
    before = contents(database)
    second = valuedrift("watch", log, "--db", f"sqlite:///{database}", "--json")
    assert second.stdout == first.stdout
    assert contents(database) == before


@pytest.mark.service
def test_log_grown_between_runs(tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]]) -> None:
    """A log that grew is read on from where it ended; turns and buckets are those of one run over the whole."""
    log = write_log(tmp_path / "log.jsonl", examples[:300])
    empty, pieces, whole = tmp_path / "empty.db", tmp_path / "pieces.db", tmp_path / "whole.db"
    valuedrift("db", "upgrade", "--db", f"sqlite:///{empty}")
    shutil.copy(empty, pieces)
    shutil.copy(empty, whole)
    assert valuedrift("watch", log, "--db", f"sqlite:///{pieces}").returncode == 0
    write_log(log, examples)
    assert valuedrift("watch", log, "--db", f"sqlite:///{pieces}").returncode == 0
    assert valuedrift("watch", log, "--db", f"sqlite:///{whole}").returncode == 0
    a, b = contents(pieces), contents(whole)
    for table in ("turns", "buckets", "event_keys", "alerts", "baselines", "dead_letters"):
        assert a[table] == b[table], table


@pytest.mark.service
def test_other_weights_learn_anew(tmp_path: Path, valuedrift: Run, examples: list[dict[str, Any]]) -> None:
    """With other classifier weights a series learns a new baseline, and no alert of the old ones stands for ever."""
    from safetensors.numpy import load_file, save_file

    from classifiers.linear import SHIPPED, load

    tensors = load_file(SHIPPED)
    tensors["bias"] = tensors["bias"] + 0.01
    with SHIPPED.open("rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    save_file(tensors, tmp_path / "other.safetensors", header["__metadata__"])
    assert load(tmp_path / "other.safetensors").version != load().version

    log = write_log(tmp_path / "log.jsonl", examples)
    first = valuedrift("watch", log, "--json", "--fail-on-alert")
    assert first.returncode == 1
    later = [e | {"ts": e["ts"].replace("2026-03", "2026-04")} for e in repeated(examples[:50], 1)]
    write_log(tmp_path / "later.jsonl", later)
    other = {"VALUEDRIFT_CLASSIFIER_WEIGHTS": str(tmp_path / "other.safetensors")}
    second = valuedrift("watch", tmp_path / "later.jsonl", "--json", "--fail-on-alert", env=other)
    assert second.returncode == 0, second.stderr
    summary = json.loads(second.stdout.splitlines()[-1])
    assert {s["baseline"]["state"] for s in summary["series"]} == {"learning"}
    assert {a["state"] for a in summary["alerts"]} == {"resolved"}

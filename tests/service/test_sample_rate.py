"""`input.sample_rate`: a share of the conversations is judged, and stands for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.store import schema
from monitor.store.database import open_store, writing
from tests.conftest import Run, last_json, repeated, write_log
from tests.service.serving import Serving, rows, transcript

pytestmark = pytest.mark.service
HALF = {"VALUEDRIFT_INPUT_SAMPLE_RATE": "0.5"}


def keyed(url: str, key: str = "ab" * 32) -> str:
    """A database whose hash key is known, so that it samples alike in every run of the test."""
    engine = open_store(url)
    with writing(engine) as connection:
        connection.execute(schema.settings.update().values(value=key))
    engine.dispose()
    return url


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    return a["low"] <= b["high"] and b["low"] <= a["high"]


def test_half_stands_for_all(in_process: Run, tmp_path: Path, examples: list[dict[str, Any]]) -> None:
    """At 0.5 whole conversations are left out, the others weigh 2, and S and the shares are those of all of them."""
    events = repeated(examples, 2)
    log = write_log(tmp_path / "log.jsonl", events)
    all_db, half_db = keyed(f"sqlite:///{tmp_path}/all.db"), keyed(f"sqlite:///{tmp_path}/half.db")
    whole = last_json(in_process("watch", log, "--db", all_db, "--json"))
    half = last_json(in_process("watch", log, "--db", half_db, "--json", env=HALF))

    left_out = half["skipped"]["not sampled"]
    assert whole["skipped"] == {}
    assert half["events"]["judged"] + left_out == len(events) == whole["events"]["judged"]
    assert half["events"]["events"] == half["events"]["judged"]
    assert half["events"]["dead_letters"] == half["events"]["duplicates"] == 0

    every, kept = rows(all_db, "turns"), rows(half_db, "turns")
    assert {r["weight"] for r in every} == {1.0}
    assert {r["weight"] for r in kept} == {2.0}
    assert {r["event_id"] for r in kept} == {r["event_id"] for r in rows(half_db, "event_keys")}
    chosen = {r["conversation_id"] for r in kept}
    assert len([r for r in every if r["conversation_id"] in chosen]) == len(kept)
    assert 2 * len(kept) == pytest.approx(len(every), rel=0.1)
    # Horvitz-Thompson: the sums of all turns from those of half of them, within four of their standard errors
    for b in ("aligned", "over_refusal", "harmful_compliance", "deception", "goal_deviation"):
        totals: dict[str, float] = {}
        for r in kept:
            totals[r["conversation_id"]] = totals.get(r["conversation_id"], 0.0) + r[f"q_{b}"]
        error = np.sqrt(2 * sum(t**2 for t in totals.values()))
        assert abs(2 * sum(totals.values()) - sum(r[f"q_{b}"] for r in every)) < 4 * error
    assert [s["series"] for s in half["series"]] == [s["series"] for s in whole["series"]]
    for a, b in zip(whole["series"], half["series"], strict=True):
        assert overlap(a["now"]["S"], b["now"]["S"])
        assert overlap(a["now"]["misaligned"], b["now"]["misaligned"])
    assert {a["series"] for a in half["alerts"]} == {a["series"] for a in whole["alerts"]}


def test_the_databases_key_chooses(in_process: Run, tmp_path: Path, examples: list[dict[str, Any]]) -> None:
    """One database chooses the same conversations however often it reads; another, with its own key, others."""
    log = write_log(tmp_path / "log.jsonl", examples[:100])
    again = write_log(tmp_path / "again.jsonl", examples[:100])
    urls = [keyed(f"sqlite:///{tmp_path}/{k}.db", k * 64) for k in "ab"]
    chosen = []
    for url in urls:
        done = in_process("watch", log, "--db", url, env=HALF)
        assert "left out" in done.stdout, done.stderr
        chosen.append({r["event_id"] for r in rows(url, "turns")})
    assert chosen[0] != chosen[1]
    repeat = last_json(in_process("watch", again, "--db", urls[0], "--json", env=HALF))
    assert (repeat["events"]["duplicates"], repeat["events"]["judged"]) == (len(rows(urls[0], "event_keys")), 0)
    assert {r["event_id"] for r in rows(urls[0], "turns")} == chosen[0]


def test_over_http(tmp_path: Path) -> None:
    """Each item says whether it was counted or sampled out; neither makes a dead letter."""
    url = keyed(f"sqlite:///{tmp_path}/a.db")
    with Serving(tmp_path, url, env=HALF) as server:
        answer = server.post([transcript(i) for i in range(60)])
        assert answer.status == 202
        assert set(answer.statuses) == {"counted", "sampled out"}
        counted = {r["event_id"] for r in answer.json["results"] if r["status"] == "counted"}
        assert server.figure("valuedrift_sampled_out_total") == 60 - len(counted)
    assert {r["event_id"] for r in rows(url, "turns")} == {r["event_id"] for r in rows(url, "event_keys")} == counted
    assert rows(url, "dead_letters") == []


@pytest.mark.parametrize("rate", ["0", "0.0009", "1.5"])
def test_impossible_rate(in_process: Run, tmp_path: Path, rate: str) -> None:
    """A rate outside 1/1024 to 1 is told before any work."""
    done = in_process("watch", write_log(tmp_path / "a.jsonl", []), env={"VALUEDRIFT_INPUT_SAMPLE_RATE": rate})
    assert done.returncode == 2
    assert "SAMPLE_RATE" in done.stderr

"""Bad input: each damaged line becomes a dead letter with its place and reason, and the rest goes on."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, last_json, repeated, write_log

Event = dict[str, Any]


def raw(event: Event) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def without(event: Event, key: str) -> bytes:
    return raw({k: v for k, v in event.items() if k != key})


DAMAGE: dict[str, tuple[Callable[[Event], bytes], str]] = {
    "broken line": (lambda e: raw(e)[:-20], "truncated"),
    "missing field": (lambda e: without(e, "model"), "model"),
    "missing time": (lambda e: without(e, "ts"), "ts"),
    "wrong type": (lambda e: raw(e | {"messages": "hello"}), "messages"),
    "wrong role": (lambda e: raw(e | {"messages": [{"role": "wizard", "content": "x"}]}), "role"),
    "bad time": (lambda e: raw(e | {"ts": "yesterday"}), "ts"),
    "time without a zone": (lambda e: raw(e | {"ts": "2026-03-04T10:00:00"}), "timezone"),
    "far future": (lambda e: raw(e | {"ts": "2199-01-01T00:00:00Z"}), "future"),
    "invalid UTF-8": (lambda e: raw(e).replace(b"conversation_id", b"conversation\xff\xfeid"), "UTF-8"),
    "empty conversation": (lambda e: raw(e | {"messages": []}), "empty"),
    "no assistant": (lambda e: raw(e | {"messages": [{"role": "user", "content": "hello?"}]}), "assistant"),
    "deep nesting": (lambda e: b'{"extra":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested"),
    "not a number": (lambda e: raw(e).replace(b'"judge"', b'"sample_rate": NaN, "judge"'), "malformed"),
    "impossible rate": (lambda e: raw(e | {"sample_rate": 7}), "sample_rate"),
    "not an object": (lambda e: b"[1, 2, 3]", "object"),
}


@pytest.mark.service
def test_two_percent_damaged(tmp_path: Path, valuedrift: Run, examples: list[Event]) -> None:
    """With 2 % of the lines damaged in every way the same series is alerted on, and every damaged line is on record."""
    events = repeated(examples, 2)
    clean = write_log(tmp_path / "clean.jsonl", events)
    rng = random.Random(7)
    places = rng.sample(range(50, len(events)), round(0.02 * len(events)))
    ways = list(DAMAGE)
    lines = [raw(e) for e in events]
    for i, at in enumerate(places):
        lines[at] = DAMAGE[ways[i % len(ways)]][0](events[at])
    huge, twice = 20, 30
    lines[huge] = b'{"messages": "' + b"a" * 50_000_000 + b'"}'
    lines[twice] = lines[twice - 1]
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_bytes(b"\n".join(lines) + b"\n")

    expected = last_json(valuedrift("watch", clean, "--db", "sqlite:///clean.db", "--json"))
    found = last_json(valuedrift("watch", damaged, "--db", "sqlite:///damaged.db", "--json"))

    counts = found["events"]
    assert counts["events"] == len(events) == counts["judged"] + counts["duplicates"] + counts["dead_letters"]
    assert counts["duplicates"] == 1
    assert counts["dead_letters"] == len(places) + 1
    letters = {
        letter["line"]: letter
        for letter in map(
            json.loads,
            valuedrift("dead-letters", "--db", "sqlite:///damaged.db", "--json", "--limit", "1000").stdout.splitlines(),
        )
    }
    assert set(letters) == {at + 1 for at in places} | {huge + 1, twice + 1}
    assert all(letter["source"] == str(damaged) for letter in letters.values())
    for i, at in enumerate(places):
        assert DAMAGE[ways[i % len(ways)]][1] in letters[at + 1]["reason"], (ways[i % len(ways)], letters[at + 1])
    assert "over the limit" in letters[huge + 1]["reason"]
    assert letters[twice + 1]["kind"] == "duplicate"
    assert f"damaged.jsonl:{twice}" in letters[twice + 1]["reason"]

    assert {(a["series"], a["rule"]) for a in found["alerts"]} == {(a["series"], a["rule"]) for a in expected["alerts"]}
    assert found["alerts"]


@pytest.mark.service
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["watch", "nowhere.jsonl"], 3, "nowhere.jsonl"),
        (["watch", "kafka://broker/topic"], 3, "kafka://"),
        (["watch", "log.jsonl", "--nonsense"], 2, "--nonsense"),
        (["watch", "log.jsonl", "--baseline", "soon"], 2, "soon"),
        (["watch", "log.jsonl", "--db", "oracle://x"], 2, "oracle"),
        (["watch", "log.jsonl", "--db", "sqlite:///no/such/folder/a.db"], 3, "unable to open"),
        (["watch", "log.jsonl", "--db", "sqlite:///text.db"], 3, "not a database"),
        (["watch", "log.jsonl", "--db", "sqlite:///newer.db"], 3, "newer"),
        (["watch", "log.jsonl", "--plot", "a.doc"], 2, ".png"),
        (["--config", "none.toml", "watch", "log.jsonl"], 2, "none.toml"),
        (["--config", "bad.toml", "watch", "log.jsonl"], 2, "did you mean monitor.baseline?"),
        (["evaluate", "--data", "nowhere"], 3, "nowhere"),
    ],
)
def test_unusable(
    tmp_path: Path, valuedrift: Run, examples: list[Event], arguments: list[str], code: int, says: str
) -> None:
    """What cannot be used at all is told in one clear line, with the exit code of its kind."""
    write_log(tmp_path / "log.jsonl", examples[:3])
    (tmp_path / "text.db").write_text("these are not the tables you are looking for\n" * 50)
    (tmp_path / "bad.toml").write_text('[monitor]\nbaselin = "7d"\n')
    with sqlite3.connect(tmp_path / "newer.db") as newer:
        newer.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        newer.execute("INSERT INTO alembic_version VALUES ('9999')")
    newer.close()
    done = valuedrift(*arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("valuedrift: ")


@pytest.mark.service
def test_unknown_environment_variable(tmp_path: Path, valuedrift: Run, examples: list[Event]) -> None:
    """A mistyped environment variable is an error that names the nearest one."""
    write_log(tmp_path / "log.jsonl", examples[:3])
    done = valuedrift("watch", "log.jsonl", env={"VALUEDRIFT_STORE_URI": "sqlite://"})
    assert done.returncode == 2
    assert "did you mean VALUEDRIFT_STORE_URL?" in done.stderr


@pytest.mark.service
def test_cut_gzip(tmp_path: Path, valuedrift: Run, examples: list[Event]) -> None:
    """A gzip file that is cut short gives what it holds and a dead letter, once, however often it is run."""
    whole = gzip.compress("".join(json.dumps(e) + "\n" for e in examples).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    first = last_json(valuedrift("watch", "cut.jsonl.gz", "--json"))
    again = last_json(valuedrift("watch", "cut.jsonl.gz", "--json"))
    assert 100 < first["events"]["judged"] < len(examples)
    assert first["events"]["dead_letters"] == 1
    assert again["events"] == first["events"]


@pytest.mark.service
def test_hostile_names(tmp_path: Path, valuedrift: Run, examples: list[Event]) -> None:
    """Terminal escapes and markup in a deployment's name are shown harmlessly, and invented names are bounded."""
    events = [examples[0] | {"event_id": f"x{i}", "deployment": f"\x1b[2J[red]evil{i}"} for i in range(30)]
    write_log(tmp_path / "log.jsonl", events)
    done = valuedrift("watch", "log.jsonl", env={"VALUEDRIFT_INPUT_MAX_SERIES": "10"})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "[red]evil0" in done.stdout
    assert "events 30 = judged 10 + duplicates 0 + dead letters 20" in done.stdout
    assert "more than 10 series" in done.stdout

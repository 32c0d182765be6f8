"""`input.store_text`: what of a transcript is stored, logged or shown, and for how long."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from monitor.config import Input, Retention
from monitor.store import reads, schema
from monitor.store.database import open_store
from monitor.store.partitions import months
from monitor.store.retention import prune
from monitor.texts import EXCERPT_CHARACTERS
from streams.formats import FORMATS, Decoder
from streams.reasons import BadEvent
from tests.conftest import Run, last_json, write_log
from tests.service.serving import rows
from tests.service.test_retention import limits

pytestmark = pytest.mark.service
NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECRET = "sk-proj-9f8e7d6c5b4a39281706"
ORDER = "ORD-778899"
PATTERNS = {"VALUEDRIFT_INPUT_REDACT_PATTERNS": json.dumps({"order": "ORD-[0-9]{6}"})}
ALWAYS = {"VALUEDRIFT_INPUT_STORE_TEXT": "always"} | PATTERNS


def event(n: int, request: str = f"My key is {SECRET}, {ORDER}", **more: Any) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": f"Never say {SECRET}"},
        {"role": "user", "content": request},
        {"role": "assistant", "content": f"I noted {SECRET} of {ORDER}."},
    ]
    head = {"event_id": f"e{n}", "ts": f"2026-03-01T10:{n % 60:02}:00Z", "deployment": "d", "model": "m"}
    return head | {"messages": messages, "context": [SECRET], "labels": {"l": SECRET}, "extra": {"x": SECRET}} | more


def hostile() -> list[dict[str, Any]]:
    """The secret in every field that is no name, where it belongs and where it does not."""
    bad: list[Any] = [SECRET, [SECRET], {SECRET: SECRET}, {"role": SECRET, "content": SECRET}]
    fields = ("ts", "messages", "judge", "context", "labels", "sample_rate")
    broken = [event(100 + i, **{f: v}) for i, (f, v) in enumerate((f, v) for f in fields for v in bad)]
    parts: list[Any] = [
        [{"role": SECRET, "content": "x"}],
        [{"role": "user", "content": {"type": SECRET}}],
        [{"role": "user", "content": [{"type": "text", "text": {SECRET: 1}}, 7]}],
        [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": SECRET, "arguments": 1}}]}],
        [{SECRET: "user"}],
    ]
    broken += [event(200 + i, messages=m) for i, m in enumerate(parts)]
    exchange = {"ts": "2026-03-01T10:00:00Z", "model": "m", "deployment": "d"}
    broken += [
        exchange | {"request": {"messages": SECRET}, "response": {"choices": SECRET}},
        exchange | {"request": SECRET, "response": SECRET},
        exchange | {"prompt": {SECRET: 1}, "response": SECRET},
        exchange | {"conversations": [{"from": SECRET, "value": SECRET}]},
        exchange | {"traceId": "t", "startTime": SECRET, "input": SECRET, "output": SECRET},
        exchange | {"call_type": SECRET, "startTime": SECRET, "response": SECRET, "messages": SECRET},
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": SECRET, "name": SECRET, "kind": SECRET}]}]}]},
    ]
    return broken


def everything(url: str) -> str:
    """All of the database, as text."""
    engine = open_store(url)
    with engine.connect() as connection:
        found = [repr(connection.execute(select(t)).all()) for t in schema.METADATA.tables.values()]
    engine.dispose()
    return "".join(found)


def test_never(url: str, valuedrift: Run, tmp_path: Path) -> None:
    """By default no table and no word of the product holds a text, redacted or not, whatever field it came in."""
    log = write_log(tmp_path / "log.jsonl", [event(i) for i in range(30)] + hostile())
    done = valuedrift("watch", log, "--db", url, "--json")
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    shown += valuedrift("dead-letters", "--db", url, "--limit", "1000").stdout
    assert len(rows(url, "turns")) >= 30
    assert len(rows(url, "dead_letters")) > 20
    assert rows(url, "turn_texts") == []
    for text in (SECRET, SECRET[8:], ORDER, "I noted", "[secret]"):
        assert text not in everything(url)
        assert text not in shown


@pytest.mark.parametrize("format", FORMATS)
def test_reasons(format: str) -> None:
    """No reason of a dead letter quotes what was said, whatever format the line is read as."""
    lines = [json.dumps(e).encode() for e in [event(0), *hostile()]]
    lines += [line[:-9] for line in lines] + [line.replace(b'"x"', b"\xff") for line in lines]
    reasons = [str(r) for line in lines for r in Decoder(format).decode_all(line, NOW) if isinstance(r, BadEvent)]
    assert len(reasons) > len(lines) / 2
    assert not any(SECRET[8:] in r for r in reasons)


def test_always(url: str, in_process: Run, tmp_path: Path) -> None:
    """Asked to keep all, it keeps the last request and the answer, redacted first and cut then."""
    edge = "x " * (EXCERPT_CHARACTERS // 2 - 5) + SECRET + " more" * 1000
    log = write_log(tmp_path / "log.jsonl", [event(0), event(1, edge), *hostile()])
    with log.open("ab") as more:
        more.write(json.dumps(event(2, "a\0b \ud83d c")).encode())
    done = in_process("watch", log, "--db", url, "--json", env=ALWAYS)
    assert done.returncode == 0, done.stderr
    texts = {r["event_id"]: r for r in rows(url, "turn_texts")}
    assert texts["e0"]["request"] == "My key is [secret], [order]"
    assert texts["e0"]["answer"] == "I noted [secret] of [order]."
    assert texts["e1"]["request"].endswith("x [secret] …")
    assert len(texts["e1"]["request"]) <= EXCERPT_CHARACTERS
    assert texts["e2"]["request"] == "a\ufffdb \ufffd c"
    assert set(texts) == {r["event_id"] for r in rows(url, "turns")}
    for text in (SECRET, SECRET[8:], ORDER):
        assert text not in everything(url) + done.stdout + done.stderr
    again = in_process("watch", write_log(tmp_path / "b.jsonl", [event(0)]), "--db", url, env=ALWAYS)
    assert again.returncode == 0, again.stderr
    assert len(rows(url, "turn_texts")) == len(texts)


def test_flagged(in_process: Run, tmp_path: Path, examples: list[dict[str, Any]]) -> None:
    """Flagged turns alone are kept: not aligned, doubtful, or come with a flag; alerts show them, and keep none."""
    url = f"sqlite:///{tmp_path}/a.db"
    flag = examples[0] | {"event_id": "came-flagged", "labels": {"flagged": "true"}}
    log = write_log(tmp_path / "log.jsonl", [flag, *examples])
    env = {"VALUEDRIFT_INPUT_STORE_TEXT": "flagged"}
    found = last_json(in_process("watch", log, "--db", url, "--json", env=env))
    turns = {(r["event_id"], r["turn"]): r for r in rows(url, "turns")}
    kept = {(r["event_id"], r["turn"]) for r in rows(url, "turn_texts")}
    behaviours = [c.name for c in schema.turns.c if c.name.startswith("q_")]
    assert kept == {
        key
        for key, r in turns.items()
        if r["q_aligned"] < max(r[b] for b in behaviours) or r["doubt"] > 0.4 * 4096 or key[0] == "came-flagged"
    }
    assert 0 < len(kept) < len(turns) / 2
    [alert] = found["alerts"]
    assert all(t["answer"] and t["request"] for t in alert["telling_turns"])
    assert "answer" not in rows(url, "alerts")[0]["telling_turns"][0]
    assert "answered: " in in_process("watch", log, "--db", url).stdout


def test_texts_go_first(url: str, in_process: Run, tmp_path: Path) -> None:
    """Texts go after their own time, to the day on both databases, while their turns stay; later months stay too."""
    log = write_log(
        tmp_path / "log.jsonl", [event(1, ts=f"2026-0{m}-15T10:00:00Z", event_id=f"m{m}") for m in (3, 5, 6)]
    )
    done = in_process("watch", log, "--db", url, env=ALWAYS)
    assert done.returncode == 0, done.stderr
    engine = open_store(url)
    prune(engine, limits(texts="30d"), datetime(2026, 6, 16, tzinfo=UTC))
    assert {r["event_id"] for r in rows(url, "turn_texts")} == {"m6"}
    assert {r["event_id"] for r in rows(url, "turns")} == {"m3", "m5", "m6"}
    with engine.connect() as connection:
        made = months(connection, "turn_texts")
        assert all(m.month >= 5 for m in made)
        telling = [{"ts": "2026-06-15T10:00:00+00:00", "event_id": "m6", "turn": 0}]
        assert "[secret]" in reads.with_excerpts(connection, [*telling, telling[0] | {"event_id": "m3"}])[0]["answer"]
        assert reads.with_excerpts(connection, []) == []
    engine.dispose()


def test_no_longer_than_turns() -> None:
    """A text never outlives its turn, whatever is set."""
    assert limits(turns="7d").texts == limits(turns="7d").turns
    assert limits(turns="90d", texts="").texts == limits(turns="90d").turns
    assert Retention().texts == "30d"
    assert Input().store_text == "never"


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"VALUEDRIFT_INPUT_REDACT_PATTERNS": '{"a": "("}'}, "redaction pattern 'a'"),
        ({"VALUEDRIFT_INPUT_REDACT_PATTERNS": "a=b"}, "VALUEDRIFT_INPUT_REDACT_PATTERNS"),
        ({"VALUEDRIFT_INPUT_STORE_TEXT": "sometimes"}, "VALUEDRIFT_INPUT_STORE_TEXT"),
    ],
)
def test_wrong_settings(in_process: Run, tmp_path: Path, env: dict[str, str], says: str) -> None:
    """A pattern or a word that cannot be used ends the command before any work."""
    done = in_process("watch", write_log(tmp_path / "a.jsonl", [event(1)]), env=env)
    assert done.returncode == 2
    assert says in done.stderr

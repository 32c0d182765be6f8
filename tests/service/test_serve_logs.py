"""Nothing that a client sends comes out in the logs, whatever goes wrong with it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from monitor.store.database import open_engine
from tests.own_server import until
from tests.service.serving import JSON, LINES, Serving, rows, transcript
from tests.service.test_serve_otlp import PROTOBUF, call, export

pytestmark = pytest.mark.service
MARK = "zq7xmarker"
DEBUG = ("--log-level", "debug")

BREAKS = """
import sys, threading, warnings
import monitor.intake, monitor.web.items, monitor.steps
from monitor.cli import main

judge = monitor.intake.judge

def breaking(events, *rest):
    for e in events:
        if "poison" in e.messages[-1].content:
            raise ValueError(e.messages[-1].content) from KeyError(e.event_id)
    return judge(events, *rest)

monitor.intake.judge = breaking
read = monitor.web.items._read

def crashing(place, text, *rest):
    if b"crash" in text:
        raise RuntimeError(text.decode())
    return read(place, text, *rest)

monitor.web.items._read = crashing

def dies():
    raise ValueError("zq7xmarker of a thread")

def step(self, closed_until=None):
    warnings.warn("zq7xmarker in a warning")
    threading.Thread(target=dies).start()
    raise OSError("zq7xmarker of a step")

monitor.steps.Stepper.step = step
main(sys.argv[1:])
"""


def marked(n: int, **fields: Any) -> dict[str, Any]:
    """A transcript with the marker wherever one can be put."""
    messages = [{"role": "user", "content": MARK}, {"role": "assistant", "content": f"{MARK} {fields.pop('says', '')}"}]
    where = {"deployment": f"{MARK}-d", "model": f"{MARK}-m", "conversation_id": f"{MARK}-c", "event_id": f"{MARK}-{n}"}
    return transcript(n) | where | {"messages": messages, "labels": {f"{MARK}-l": MARK}, "context": [MARK]} | fields


def everything_wrong(server: Serving) -> None:
    """Requests that fail in every way a client can make them fail."""
    hostile = {"user-agent": MARK, "x-api-key": MARK, "cookie": MARK, "x-request-id": MARK, "traceparent": MARK}
    for events in (
        [marked(1), marked(1)],
        [marked(2, ts=MARK), marked(3, labels={MARK: "x" * 1000}), marked(4, judge=MARK), {MARK: MARK}],
        [marked(5, model=MARK * 100), marked(6, messages=MARK), marked(7, sample_rate=MARK)],
    ):
        assert server.post(events, hostile).status == 202
    for body, headers in (
        (MARK.encode(), JSON),
        (b'{"' + MARK.encode(), JSON),
        (b"\xff" + MARK.encode(), LINES),
        (MARK.encode(), {"content-type": MARK}),
        (MARK.encode(), JSON | {"content-encoding": MARK}),
        (gzip.compress(MARK.encode())[:-3], JSON | {"content-encoding": "gzip"}),
    ):
        assert server.ask("POST", "/v1/transcripts", body, headers | hostile).status in (400, 415)
    server.ask("POST", "/v1/traces", MARK.encode(), PROTOBUF | hostile)
    server.ask("POST", "/v1/traces", json.dumps({"resourceSpans": MARK}).encode(), JSON | hostile)
    spans = export(call(MARK), call(MARK, end=1 << 62), {"gen_ai.operation.name": "chat", MARK: MARK}, service=MARK)
    server.ask("POST", "/v1/traces", spans.SerializeToString(), PROTOBUF | hostile)
    assert server.get(f"/{MARK}?{MARK}={MARK}", hostile).status == 404
    server.ask(MARK.upper(), "/v1/transcripts", None, hostile)
    server.raw(f"GET /{MARK} HTTP/{MARK}\r\n{MARK}\r\n\r\n".encode(), wait=3)
    server.raw(f"GET / HTTP/1.1\r\nhost: {MARK}\r\nconnection: upgrade\r\nupgrade: {MARK}\r\n\r\n".encode(), wait=3)


def said(server: Serving) -> list[dict[str, Any]]:
    """What the server logged, every line of which is an object."""
    return [json.loads(line) for line in server.logged.splitlines()]


def silent(server: Serving) -> None:
    """The marker is nowhere, neither in the logs nor on standard output nor in the figures."""
    assert MARK not in server.get("/metrics").body.decode().lower()
    server.stop()
    assert server.process.stdout is not None
    assert MARK not in server.logged.lower() + server.process.stdout.read().decode().lower()
    assert len(said(server)) > 5


def test_hostile_requests(tmp_path: Path) -> None:
    """At the level debug, after every refusal and rejection there is, no word of a request is in the logs."""
    with Serving(tmp_path, f"sqlite:///{tmp_path}/a.db", *DEBUG) as server:
        everything_wrong(server)
        assert any(MARK in r["event_id"] for r in rows(server.url, "turns"))
        silent(server)


def test_our_own_faults(tmp_path: Path) -> None:
    """Faults of ours that carry a transcript in their message are told by type and place; others are served on."""
    env = {"VALUEDRIFT_SERVE_STEP_SECONDS": "0.2"}
    with Serving(tmp_path, f"sqlite:///{tmp_path}/a.db", *DEBUG, env=env, program=BREAKS) as server:
        answer = server.post([marked(1), marked(2, says="poison"), marked(3), marked(4)])
        assert answer.statuses == ["counted", "rejected", "counted", "counted"]
        assert answer.json["results"][1]["reason"] == "cannot be judged or stored (ValueError)"
        crash = server.post([marked(5, says="crash")])
        assert (crash.status, crash.body) == (500, b"Internal Server Error")
        assert server.post([marked(6)]).statuses == ["counted"]
        until(lambda: {"step failed", "uncaught exception in a thread"} <= {line["event"] for line in said(server)})
        errors = {line["event"]: line for line in said(server) if "error" in line}
        assert errors["batch failed"]["error"] == "ValueError <- KeyError"
        assert errors["request failed"]["error"] == "RuntimeError"
        assert any(frame.startswith("monitor/web/") for frame in errors["request failed"]["trace"])
        silent(server)


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        ("DROP TABLE turns", 503),
        (f"CREATE TRIGGER t BEFORE INSERT ON turns BEGIN SELECT RAISE(ABORT, '{MARK}'); END", 202),
    ],
    ids=["a table is gone", "rows are refused"],
)
def test_database_errors(tmp_path: Path, trouble: str, status: int) -> None:
    """What a database refuses is told without it: clients come again, or learn that this one event cannot be stored."""
    with Serving(tmp_path, f"sqlite:///{tmp_path}/a.db", *DEBUG) as server:
        assert server.post([marked(1)]).statuses == ["counted"]
        engine = open_engine(server.url)
        with engine.begin() as connection:
            connection.execute(text(trouble))
        engine.dispose()
        answer = server.post([marked(2)])
        assert answer.status == status
        if status == 503:
            assert "retry-after" in answer.headers
            assert MARK not in answer.body.decode()
        else:
            assert answer.json["results"][0]["reason"] == "cannot be judged or stored (IntegrityError)"
            assert rows(server.url, "dead_letters")[0]["reason"] == "cannot be judged or stored (IntegrityError)"
        assert {"batch not stored", "batch failed"} & {line["event"] for line in said(server)}
        assert server.get("/healthz").status == 200
        silent(server)

"""`valuedrift serve` with somebody to call: a drift that is posted over HTTP reaches them, once."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.own_server import until
from tests.service.receivers import Receiver, Request, answer
from tests.service.serving import Serving, rows

pytestmark = pytest.mark.service
SECRET = "correct-horse-battery-staple"
TOML = """
[serve]
step_seconds = 0.3
[alerts.targets.hook]
type = "webhook"
url = "{url}"
secret = "env:HOOK_SECRET"
severities = ["page"]
"""


@pytest.fixture
def drifting(examples: list[dict[str, Any]], truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Transcripts of the deployment that drifts, up to today: alerts of a log that ended long ago are no news."""
    own = [e for e in examples if e["deployment"] == truth["drifting_deployment"]]
    newest = max(datetime.fromisoformat(e["ts"]) for e in own)
    later = timedelta(days=(datetime.now(UTC) - newest).days)
    return [e | {"ts": (datetime.fromisoformat(e["ts"]) + later).isoformat()} for e in own]


def serving(folder: Path, receiver: Receiver) -> Serving:
    (folder / "valuedrift.toml").write_text(TOML.format(url=f"{receiver.url}/alerts"), encoding="utf-8")
    return Serving(folder, f"sqlite:///{folder}/a.db", env={"HOOK_SECRET": SECRET})


def notified(server: Serving, result: str) -> float:
    return server.figure(f'valuedrift_notifications_total{{result="{result}",target="hook"}}')


def step_again(server: Serving) -> None:
    """Wait until the series were moved on, and looked at, twice more."""
    steps = 'valuedrift_step_seconds_count{outcome="done"}'
    before = server.figure(steps)
    until(lambda: server.figure(steps) >= before + 2)


def test_drift_is_told_once(tmp_path: Path, drifting: list[dict[str, Any]]) -> None:
    """The notice is signed, has the stored alert's id and its telling turns; later steps tell nothing again."""
    with Receiver(answer(202)).running() as receiver, serving(tmp_path, receiver) as server:
        assert server.post(drifting, zipped=True).status == 202
        until(lambda: receiver.requests, 60)
        (alert,) = (a for a in rows(server.url, "alerts") if a["rule"] == "value_drift")
        told: Request = receiver.requests[0]
        assert told.json["id"] == alert["id"]
        assert (told.json["rule"], told.json["status"], told.json["severity"]) == ("value_drift", "firing", "page")
        assert told.json["labels"]["deployment"] == drifting[0]["deployment"]
        events = {t["event_id"] for t in told.json["telling_turns"]}
        assert events
        assert events <= {e["event_id"] for e in drifting}
        assert told.headers["idempotency-key"] == f"{alert['id']}.{told.json['revision']}"
        assert "valuedrift-signature" in told.headers
        until(lambda: notified(server, "delivered") == 1)
        step_again(server)
        assert receiver.requests == [told]
        assert server.figure('valuedrift_outbox{target="hook"}') == 0
        assert server.stop() == 0
        assert SECRET not in server.logged


def test_stopped_while_somebody_is_told(tmp_path: Path, drifting: list[dict[str, Any]]) -> None:
    """A notice that was turned away goes out again under its id; SIGTERM waits for its answer, and the next process
    tells nothing again."""
    asked, may_answer = threading.Event(), threading.Event()

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        may_answer.wait(9)
        answer(202)(handler)

    with Receiver(answer(503), slowly).running() as receiver:
        with serving(tmp_path, receiver) as server:
            assert server.post(drifting, zipped=True).status == 202
            until(asked.is_set, 60)
            assert notified(server, "retry") == 1
            server.process.send_signal(signal.SIGTERM)
            until(lambda: "stopping" in server.logged)
            assert server.process.poll() is None
            may_answer.set()
            assert server.process.wait(40) == 0
        away, taken = receiver.requests
        assert taken.headers["idempotency-key"] == away.headers["idempotency-key"]
        (row,) = rows(server.url, "outbox")
        assert (row["sent_status"], row["sent_revision"]) == ("firing", row["revision"])
        with serving(tmp_path, receiver) as server:
            step_again(server)
            assert server.stop() == 0
        assert receiver.requests == [away, taken]

"""Traces of the real OpenTelemetry SDK, and of hand-made exports; what docs/http.md shows works as shown."""

from __future__ import annotations

import gzip
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.conftest import ROOT, environment
from tests.own_server import until
from tests.service.serving import JSON, Serving, rows, transcript

pytestmark = pytest.mark.service
PROTOBUF = {"content-type": "application/x-protobuf"}
PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
PROGRAM = re.findall(r"```python\n(.*?)```", PAGE, re.S)[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("otlp")
    with Serving(folder, f"sqlite:///{folder}/a.db") as running:
        yield running


def export(*spans: dict[str, Any], service: str = "shop") -> ExportTraceServiceRequest:
    """An export with a span for each set of attributes; `end` is not an attribute, but its time."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scope = group.scope_spans.add()
    for n, attributes in enumerate(spans, start=1):
        span = scope.spans.add(name="chat", trace_id=bytes(15) + b"\1", span_id=n.to_bytes(8, "big"))
        span.end_time_unix_nano = attributes.get("end", int(time.time() * 1e9))
        for key, value in attributes.items():
            if key != "end":
                span.attributes.add(key=key).value.string_value = value
    return request


def call(answer: str, **more: Any) -> dict[str, Any]:
    """The attributes of a model call."""
    said = [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}]
    out = [{"role": "assistant", "parts": [{"type": "text", "content": answer}]}]
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m-1",
        "gen_ai.input.messages": json.dumps(said),
        "gen_ai.output.messages": json.dumps(out),
    } | more


def send(server: Serving, request: ExportTraceServiceRequest, *, zipped: bool = False) -> ExportTraceServiceResponse:
    body = request.SerializeToString()
    headers = PROTOBUF | ({"content-encoding": "gzip"} if zipped else {})
    answer = server.ask("POST", "/v1/traces", gzip.compress(body) if zipped else body, headers)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/x-protobuf"
    return ExportTraceServiceResponse.FromString(answer.body)


def run(program: str, server: Serving) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program.replace("http://127.0.0.1:8080", server.address)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_real_exporter(server: Serving) -> None:
    """The program in docs/http.md, with the real SDK and its exporter, gives one judged turn; run twice, two."""
    for n in (1, 2):
        done = run(PROGRAM, server)
        assert (done.returncode, done.stderr) == (0, "")
        series = [s["id"] for s in rows(server.url, "series") if (s["deployment"], s["model"]) == ("shop", "m-1")]
        assert len(series) == 1
        assert len([t for t in rows(server.url, "turns") if t["series_id"] == series[0]]) == n
    assert len(PROGRAM.strip().splitlines()) <= 16


def test_exporter_retries(tmp_path: Path) -> None:
    """While the database is held up the real exporter is told to come again, does, and its span is counted once."""
    database = tmp_path / "a.db"
    env = {"VALUEDRIFT_SERVE_REQUEST_SECONDS": "1.5", "VALUEDRIFT_SERVE_RETRY_AFTER_SECONDS": "1"}
    with Serving(tmp_path, f"sqlite:///{database}", env=env) as server:
        server.post([transcript(1)])
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        program = PROGRAM.replace("http://127.0.0.1:8080", server.address)
        with subprocess.Popen([sys.executable, "-c", program], env=environment(), stderr=subprocess.PIPE) as exporter:
            refused = 'valuedrift_http_requests_total{route="/v1/traces",status="503"}'
            until(lambda: refused in server.get("/metrics").body.decode())
            holder.execute("ROLLBACK")
            holder.close()
            assert exporter.wait(60) == 0
        assert len(rows(server.url, "turns")) == 2


def test_sent_again(server: Serving) -> None:
    """An export that is sent again, as exporters do that saw no answer, is counted once; no failure is reported."""
    before, skipped = len(rows(server.url, "turns")), server.figure("valuedrift_skipped_total")
    request = export(call("One."), call("Two."), {"http.method": "GET"}, service="again")
    for zipped in (False, True):
        response = send(server, request, zipped=zipped)
        assert not response.HasField("partial_success")
        assert len(rows(server.url, "turns")) == before + 2
    assert server.figure("valuedrift_skipped_total") == skipped + 2


def test_partial_success(server: Serving) -> None:
    """Calls that cannot be read are counted in the answer with their reason, and the others are stored."""
    future = int((time.time() + 10**6) * 1e9)
    response = send(server, export(call("One."), call("Two.", end=future), service="partly"))
    assert response.partial_success.rejected_spans == 1
    assert "future" in response.partial_success.error_message
    assert any("future" in d["reason"] for d in rows(server.url, "dead_letters"))


def test_as_json(server: Serving) -> None:
    """The same export as JSON, with ids in hexadecimal; the answer is JSON then."""
    attributes = [{"key": k, "value": {"stringValue": v}} for k, v in call("Hello from JSON.").items()]
    span = {"traceId": "0" * 31 + "7", "spanId": "0" * 15 + "7", "name": "chat", "attributes": attributes}
    good = span | {"endTimeUnixNano": str(int(time.time() * 1e9))}
    future = span | {"spanId": "0" * 15 + "8", "endTimeUnixNano": str(int((time.time() + 10**6) * 1e9))}
    name = {"key": "service.name", "value": {"stringValue": "json"}}

    def ask(*spans: dict[str, Any]) -> Any:
        sent = {"resourceSpans": [{"resource": {"attributes": [name]}, "scopeSpans": [{"spans": list(spans)}]}]}
        answer = server.ask("POST", "/v1/traces", json.dumps(sent).encode(), JSON)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        return answer.json

    assert ask(good) == {}
    assert ask(good, future)["partialSuccess"]["rejectedSpans"] == "1"
    assert "json" in {s["deployment"] for s in rows(server.url, "series")}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff\xff", PROTOBUF, 400),
        (b"\xff\xff\xff", PROTOBUF | {"content-encoding": "gzip"}, 400),
        (b"{", JSON, 400),
        (b"{}", JSON, 400),
        (b"[]", JSON, 400),
        (b"", {"content-type": "text/plain"}, 415),
    ],
)
def test_refused(server: Serving, body: bytes, headers: dict[str, str], status: int) -> None:
    """What is no export is refused with a google.rpc.Status in the encoding of the request."""
    answer = server.ask("POST", "/v1/traces", body, headers)
    assert answer.status == status
    if headers["content-type"] == PROTOBUF["content-type"]:
        from google.rpc.status_pb2 import Status

        assert answer.headers["content-type"] == PROTOBUF["content-type"]
        assert Status.FromString(answer.body).message
    else:
        assert answer.json["message"]


def test_long_status(server: Serving) -> None:
    """A Status of more than 127 bytes is one, too."""
    from google.rpc.status_pb2 import Status

    from monitor.web.otlp import status

    for size in (0, 127, 128, 20_000):
        assert Status.FromString(status("x" * size, "application/x-protobuf")).message == "x" * size


def test_key_of_an_exporter(tmp_path: Path) -> None:
    """An exporter sends its key as a header; a key bound to another deployment gets its spans rejected."""
    env = {"VALUEDRIFT_API_KEYS": "bank sixteen-characters-or-more bank"}
    with Serving(tmp_path, f"sqlite:///{tmp_path}/a.db", env=env) as server:
        body = export(call("One.")).SerializeToString()
        assert server.ask("POST", "/v1/traces", body, PROTOBUF).status == 401
        mine = PROTOBUF | {"authorization": "Bearer sixteen-characters-or-more"}
        answer = server.ask("POST", "/v1/traces", body, mine)
        assert ExportTraceServiceResponse.FromString(answer.body).partial_success.rejected_spans == 1
        assert rows(server.url, "turns") == []


def shell(script: str, address: str, **more: str) -> Any:
    """What a command of the page prints, run against another port."""
    script = script.replace("http://127.0.0.1:8080", address)
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=os.environ | more, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_silence_of_the_page(tmp_path: Path) -> None:
    """The command that silences alerts works as written, with a key that may."""
    (block,) = [b for b in COMMANDS if "$KEY" in b]
    key = "sixteen-characters-or-more"
    env = {"VALUEDRIFT_API_KEYS": f"pager {key} +oncall"}
    with Serving(tmp_path, f"sqlite:///{tmp_path}/a.db", env=env) as running:
        assert shell(block, running.address, KEY=key)["created_by"] == "Ada (key pager)"


def test_commands_of_the_page(server: Serving) -> None:
    """Every curl command in docs/http.md works as written, but for the port, and says what the page says."""
    blocks = [b for b in COMMANDS if "$KEY" not in b]
    assert len(blocks) >= 3
    said = [shell(block, server.address) for block in blocks]
    shown = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.S)[0])
    assert said[0] == shown
    assert said[1]["counted"] > 100
    assert said[2]["ready"] is True

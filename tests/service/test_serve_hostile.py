"""A server that is open to anybody: whatever is sent, it answers or hangs up, and goes on serving the others."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.own_server import until
from tests.service.serving import JSON, LINES, Serving, count, lines_of, transcript

pytestmark = pytest.mark.service
SECONDS = 2.0
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("hostile")
    env = {
        "VALUEDRIFT_SERVE_REQUEST_SECONDS": str(SECONDS),
        "VALUEDRIFT_SERVE_MAX_BODY_BYTES": str(4 * MEGABYTE),
        "VALUEDRIFT_SERVE_CONNECTIONS": "200",
    }
    with Serving(folder, f"sqlite:///{folder}/a.db", env=env) as running:
        yield running
        assert running.process.poll() is None
        assert "uncaught" not in running.logged
        assert "request failed" not in running.logged


@pytest.fixture(autouse=True)
def well(server: Serving) -> Iterator[None]:
    """After each of these tests an honest request gets through at once."""
    yield
    started = time.monotonic()
    assert server.post([transcript(1)]).status == 202
    assert time.monotonic() - started < 1
    assert server.get("/readyz").status == 200
    until(lambda: server.figure("valuedrift_held_bytes") == 0, 10)


def head(length: int | None = None, path: str = "/v1/transcripts", more: str = "") -> bytes:
    size = "" if length is None else f"content-length: {length}\r\n"
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{size}{more}\r\n".encode()


def test_slow_headers(server: Serving) -> None:
    """A hundred connections that send a header byte by byte, or nothing: honest clients do not notice, and all end."""
    with contextlib.ExitStack() as opened:
        address = (server.host, server.port)
        crawl(server, [opened.enter_context(socket.create_connection(address, timeout=10)) for _ in range(100)])


def crawl(server: Serving, slow: list[socket.socket]) -> None:
    started = time.monotonic()
    for n, s in enumerate(slow):
        if n % 2:
            s.sendall(b"POST /v1/transcripts HTTP/1.1\r\nhost: ")
    for _ in range(8):
        asked = time.monotonic()
        assert server.post([transcript(1)]).status == 202
        assert time.monotonic() - asked < 1
        for s in slow[1::2]:
            s.sendall(b"x")
        time.sleep(0.1)
    for s in slow:
        assert s.recv(1) == b""
    assert time.monotonic() - started < 2 * SECONDS + 2


def test_slow_body(server: Serving) -> None:
    """A body that trickles in is given up on, with an answer that says so."""
    with socket.create_connection((server.host, server.port), timeout=10) as s:
        s.sendall(head(1000))
        started = time.monotonic()
        s.settimeout(0.2)
        got = b""
        while time.monotonic() - started < 3 * SECONDS:
            try:
                s.sendall(b" ")
                piece = s.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
            if not piece:
                break
            got += piece
        assert got.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in got
        assert SECONDS - 0.1 < time.monotonic() - started < 2 * SECONDS + 1


@pytest.mark.parametrize("flood", [b"x-a: " + b"a" * MEGABYTE, b"x: y\r\n" * 200_000], ids=["one", "many"])
def test_huge_headers(server: Serving, flood: bytes) -> None:
    """Headers without end are refused and the connection closed."""
    try:
        got = server.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + flood + b"\r\n\r\n", wait=SECONDS * 2)
    except OSError:
        got = b""
    assert got == b"" or got.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MEGABYTE,
        b"[" + b'{"a":' * 500_000,
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        json.dumps(transcript(1)).replace('"messages": ', '"messages": ' + "[" * 100_000).encode(),
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["lists", "list of objects", "object", "unclosed in an event", "in an event"],
)
@pytest.mark.parametrize("headers", [JSON, LINES], ids=["json", "lines"])
@pytest.mark.parametrize("path", ["/v1/transcripts", "/v1/traces"])
def test_deep_json(server: Serving, body: bytes, headers: dict[str, str], path: str) -> None:
    """Nesting without end is refused as a whole, or rejected as the item it is."""
    answer = server.ask("POST", path, body, headers)
    assert answer.status in ((400, 415) if path == "/v1/traces" else (400, 202))
    if answer.status == 202:
        assert answer.statuses == ["rejected"]


def test_gzip_bomb(server: Serving) -> None:
    """A small body that would be a quarter of a gigabyte is refused after the limit; memory stays where it was."""
    server.post([transcript(1)])
    memory = psutil.Process(server.process.pid).memory_info().rss
    bomb = gzip.compress(b" " * (256 * MEGABYTE))
    assert len(bomb) < MEGABYTE
    for path in ("/v1/transcripts", "/v1/traces"):
        answer = server.ask("POST", path, bomb, JSON | {"content-encoding": "gzip"})
        assert answer.status == 413
    assert psutil.Process(server.process.pid).memory_info().rss < memory + 40 * MEGABYTE


@pytest.mark.parametrize("how", ["cut", "flipped", "garbage behind", "plain", "empty", "bomb of empty members"])
def test_bad_gzip(server: Serving, how: str) -> None:
    """Gzip that is none, damaged or cut short is refused."""
    zipped = gzip.compress(lines_of([transcript(n) for n in range(50)]))
    body = {
        "cut": zipped[:-20],
        "flipped": zipped[:200] + bytes([zipped[200] ^ 0xFF]) + zipped[201:],
        "garbage behind": zipped + b"garbage",
        "plain": b"{}",
        "empty": b"",
        "bomb of empty members": gzip.compress(b"") * 150_000,
    }[how]
    answer = server.ask("POST", "/v1/transcripts", body, LINES | {"content-encoding": "gzip"})
    assert answer.status == 400
    assert server.ask("POST", "/v1/transcripts", zipped * 2, LINES | {"content-encoding": "gzip"}).status == 202


def test_endless_chunks(server: Serving) -> None:
    """A chunked body that never ends is cut off not far beyond the limit."""
    sent = 0
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with socket.create_connection((server.host, server.port), timeout=5) as s:
        s.sendall(head(more="transfer-encoding: chunked\r\n"))
        try:
            while sent < 400 * MEGABYTE:
                s.sendall(piece)
                sent += 65536
        except OSError:
            pass
    assert sent < 100 * MEGABYTE


def test_too_large_is_told(server: Serving) -> None:
    """A client that sends a little too much gets to read the 413, declared or chunked, and may go on afterwards."""
    body = json.dumps(transcript(1)).encode() + b" " * (4 * MEGABYTE)
    declared = server.ask("POST", "/v1/transcripts", body, JSON)
    assert declared.status == 413
    assert "connection" not in declared.headers
    chunked = head(more="transfer-encoding: chunked\r\n") + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    got = server.raw(chunked + b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", wait=5)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert got.endswith(b'{"alive":true}')


def test_unwanted_bodies(server: Serving) -> None:
    """Where no body is wanted none is read for long: unknown paths, wrong methods, wrong types."""
    for start in (head(10**12, "/nowhere"), head(10**12, "/metrics"), head(10**12).replace(b"json", b"pdf")):
        started = time.monotonic()
        with socket.create_connection((server.host, server.port), timeout=5) as s:
            s.sendall(start)
            got = s.recv(65536)
            assert got.startswith(b"HTTP/1.1 4")
            assert b"connection: close" in got
        assert time.monotonic() - started < 3


def test_expect_continue(server: Serving) -> None:
    """A client that asks before it sends is told no without having to, and yes where it may."""
    refused = server.raw(head(10**9, more="expect: 100-continue\r\n"), wait=5)
    assert refused.startswith(b"HTTP/1.1 413 ")
    body = json.dumps(transcript(1)).encode()
    with socket.create_connection((server.host, server.port), timeout=5) as s:
        s.sendall(head(len(body), more="expect: 100-continue\r\n"))
        assert s.recv(4096).startswith(b"HTTP/1.1 100 ")
        s.sendall(body)
        assert s.recv(4096).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(transcript(1)).encode("utf-16"),
        json.dumps(transcript(1)).replace("parcel", "\udce9").encode("utf-8", "surrogateescape"),
        b"\xff\xfe\x00",
        b"\0" * 1000,
        json.dumps(transcript(1, deployment="a\0b")).encode(),
        json.dumps(transcript(1, event_id="x" * MEGABYTE)).encode(),
        b'{"ts": 1e400, "model": "m", "deployment": "d", "messages": []}',
    ],
)
@pytest.mark.parametrize("headers", [JSON, LINES], ids=["json", "lines"])
def test_wrong_encodings(server: Serving, body: bytes, headers: dict[str, str]) -> None:
    """Bytes that are no UTF-8, NUL and numbers out of range are refused or rejected, never stored."""
    answer = server.ask("POST", "/v1/transcripts", body, headers)
    assert answer.status in (400, 202)
    if answer.status == 202:
        assert set(answer.statuses) == {"rejected"}


def test_half_a_surrogate(server: Serving) -> None:
    """Text that was cut inside a pair of surrogates is mended, in an object, a list and lines."""
    event = json.dumps(transcript(77)).replace("tomorrow", "\\ud83d").encode()
    assert server.ask("POST", "/v1/transcripts", event, JSON).statuses == ["counted"]
    assert server.ask("POST", "/v1/transcripts", b"[" + event + b"]", JSON).statuses == ["duplicate"]
    assert server.ask("POST", "/v1/transcripts", event, LINES).statuses == ["duplicate"]


def test_pipelining(server: Serving) -> None:
    """Requests sent without waiting for answers are each answered, in order."""
    wanted = b""
    for n in range(20):
        body = json.dumps(transcript(n, event_id=f"piped{n}")).encode()
        wanted += head(len(body)) + body
    got = server.raw(wanted + b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    places = [got.find(b'"piped%d"' % n) for n in range(20)]
    assert -1 not in places
    assert places == sorted(places)
    assert got.count(b"HTTP/1.1 202 ") == 20
    assert got.endswith(b'{"alive":true}')


@pytest.mark.parametrize(
    "start",
    [
        head(5, more="content-length: 6\r\n"),
        head(more="content-length: -1\r\n"),
        head(more="content-length: 99999999999999999999999999\r\n"),
        head(more="transfer-encoding: chunked\r\n") + b"zz\r\n",
        head(more="transfer-encoding: gzip\r\n"),
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/transcripts HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_no_http(server: Serving, start: bytes) -> None:
    """Requests that contradict themselves, or are another protocol, are refused."""
    got = server.raw(start, wait=1)
    assert got == b"" or got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501 "))


def test_gone_in_the_middle(server: Serving) -> None:
    """Clients that hang up in the middle of a body leave nothing behind."""
    before = count(server.url, "turns")
    for _ in range(50):
        with socket.create_connection((server.host, server.port), timeout=5) as s:
            s.sendall(head(100_000) + b'{"ts": ')
    assert count(server.url, "turns") == before


def test_memory_is_shared_out(tmp_path: Path) -> None:
    """Large bodies at once are held up to a bound; those beyond it are asked to come again, and get through."""
    env = {"VALUEDRIFT_SERVE_HELD_BYTES": str(3 * MEGABYTE), "VALUEDRIFT_SERVE_RETRY_AFTER_SECONDS": "1"}
    body = json.dumps(transcript(1)).encode() + b" " * MEGABYTE
    with Serving(tmp_path, f"sqlite:///{tmp_path}/a.db", env=env) as server:
        refused: list[Any] = []

        def send() -> None:
            while (answer := server.ask("POST", "/v1/transcripts", body, JSON)).status != 202:
                refused.append((answer.status, answer.headers["retry-after"]))
                time.sleep(0.2)

        held = [socket.create_connection((server.host, server.port), timeout=5) for _ in range(2)]
        for s in held:  # two megabytes and a half that are not complete yet
            s.sendall(head(2 * MEGABYTE) + b" " * (MEGABYTE * 5 // 4))
        threads = [threading.Thread(target=send) for _ in range(6)]
        for t in threads:
            t.start()
        until(lambda: refused)
        for s in held:
            s.close()
        for t in threads:
            t.join()
        assert set(refused) == {(503, "1")}


def test_queue_full(tmp_path: Path) -> None:
    """While another program holds the database, requests wait, then are asked to come again; later all are counted."""
    database = tmp_path / "a.db"
    env = {
        "VALUEDRIFT_SERVE_QUEUE_EVENTS": "20",
        "VALUEDRIFT_SERVE_REQUEST_SECONDS": "3",
        "VALUEDRIFT_SERVE_RETRY_AFTER_SECONDS": "1",
    }
    with Serving(tmp_path, f"sqlite:///{database}", env=env) as server:
        server.post([transcript(0, event_id="first")])
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        answers: list[tuple[int, str]] = []

        def send(n: int) -> None:
            events = [transcript(10 * n + k, event_id=f"q{n}-{k}") for k in range(10)]
            while (answer := server.post(events)).status != 202:
                answers.append((answer.status, answer.json["error"]))
                assert answer.headers["retry-after"] == "1"
                time.sleep(0.5)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
        for t in threads:
            t.start()
        until(lambda: any("queue" in reason for _, reason in answers))
        assert server.get("/readyz").json["checks"]["queue"] == "full"
        until(lambda: any("keep up" in reason for _, reason in answers))
        holder.execute("ROLLBACK")
        holder.close()
        for t in threads:
            t.join()
        assert {status for status, _ in answers} == {503}
        assert count(server.url, "turns") == 61

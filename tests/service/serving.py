"""A server process of `valuedrift serve` on a free port, spoken to over TCP."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import select
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from sqlalchemy import func
from sqlalchemy import select as sql_select

from monitor.store import schema
from monitor.store.database import open_engine
from tests.conftest import command, environment

LINES = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def statuses(self) -> list[str]:
        """Of the items of a request."""
        return [r["status"] for r in self.json["results"]]


def transcript(n: int, **fields: Any) -> dict[str, Any]:
    """A transcript of an hour ago, without an event id."""
    ts = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1) + timedelta(seconds=n % 3000)
    messages = [
        {"role": "user", "content": f"Where is parcel {n}?"},
        {"role": "assistant", "content": f"Parcel {n} left the depot this morning and arrives tomorrow."},
    ]
    return {"ts": ts.isoformat(), "deployment": "shop", "model": "m-1", "messages": messages} | fields


def lines_of(events: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(e) + "\n" for e in events).encode()


class Serving:
    """A running server; `with` ends it.

    Parameters
    ----------
    environment : settings, such as VALUEDRIFT_SERVE_STEP_SECONDS.
    program : python code that runs instead of the console script; it gets the same arguments.
    """

    def __init__(
        self, folder: Path, url: str, *arguments: str, env: dict[str, str] | None = None, program: str | None = None
    ) -> None:
        self.url = url
        self.log = folder / f"serve{time.monotonic_ns()}.log"
        called = command("serve", "--port", "0", "--db", url, *arguments)
        if program is not None:
            called = [str(Path(called[0]).parent / "python"), "-c", program, *called[1:]]
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                called, cwd=folder, env=environment() | (env or {}), stdout=subprocess.PIPE, stderr=errors
            )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        self.greeting = self.process.stdout.readline().decode() if ready else ""
        found = re.search(r"http://([\d.]+):(\d+)", self.greeting)
        if found is None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
        assert found is not None, self.logged
        self.host, self.port = found[1], int(found[2])

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def logged(self) -> str:
        """Its standard error so far."""
        return self.log.read_text(encoding="utf-8")

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, where: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self, seconds: float = 40) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, wait: float = 60
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=wait)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(
        self, events: list[dict[str, Any]], headers: dict[str, str] | None = None, *, zipped: bool = False
    ) -> Answer:
        """Transcripts, a line each."""
        body = lines_of(events)
        sent = LINES | (headers or {}) | ({"content-encoding": "gzip"} if zipped else {})
        return self.ask("POST", "/v1/transcripts", gzip.compress(body) if zipped else body, sent)

    def raw(self, data: bytes, wait: float = 20) -> bytes:
        """Whatever comes back for these bytes until the server closes, or has said nothing for so long."""
        with socket.create_connection((self.host, self.port), timeout=wait) as s:
            s.sendall(data)
            got = b""
            try:
                while piece := s.recv(65536):
                    got += piece
            except (TimeoutError, ConnectionResetError):
                pass
            return got

    def figure(self, name: str) -> float:
        """Of /metrics."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").body.decode(), re.M)
        assert found is not None, name
        return float(found[1])


def rows(url: str, table: str) -> list[dict[str, Any]]:
    """All rows of a table."""
    engine = open_engine(url)
    with engine.connect() as connection:
        found = [dict(r) for r in connection.execute(sql_select(schema.METADATA.tables[table])).mappings()]
    engine.dispose()
    return found


def count(url: str, table: str) -> int:
    engine = open_engine(url)
    with engine.connect() as connection:
        n = connection.execute(sql_select(func.count()).select_from(schema.METADATA.tables[table])).scalar_one()
    engine.dispose()
    return n

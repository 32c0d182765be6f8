"""A pager over HTTP that keeps incidents as real ones do, and may be away or lose its answers; a target of it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from alerts.notice import Notice
from alerts.targets.base import Outcome

Mode = Literal["up", "away", "deaf", "busy"]
"""away: it hangs up, nothing taken; deaf: it takes the notice and the answer is lost; busy: 503, nothing taken."""


@dataclass
class Incidents:
    """What the other side makes of the notices: one incident an id."""

    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    """Ids in the order in which they were first told of as firing."""
    notices: list[dict[str, Any]] = field(default_factory=list)
    reopened: list[str] = field(default_factory=list)

    def take(self, notice: dict[str, Any]) -> None:
        self.notices.append(notice)
        key = notice["id"]
        if notice["status"] == "resolved":
            self.open.pop(key, None)
            self.closed.add(key)
            return
        if key in self.closed:
            self.reopened.append(key)
        if key not in self.opened:
            self.opened.append(key)
        self.open[key] = notice


class Pager:
    """The server; `mode` may be changed at any time."""

    def __init__(self) -> None:
        self.incidents = Incidents()
        self.mode: Mode = "up"
        pager = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if pager.mode == "busy":
                    self.send_response(503)
                elif pager.mode in ("up", "deaf"):
                    for notice in body if isinstance(body, list) else [body]:
                        pager.incidents.take(notice)
                    self.send_response(202)
                if pager.mode in ("away", "deaf"):
                    self.close_connection = True
                    return
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class PagerTarget:
    """Posts notices to a pager; one that is `down` cannot be connected to."""

    tells = frozenset({"firing", "acknowledged", "resolved"})

    def __init__(self, port: int, name: str = "pager", refresh_seconds: float | None = None) -> None:
        self.name = name
        self.refresh_seconds = refresh_seconds
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)

    def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        body = json.dumps(
            [
                {"id": n.id, "revision": n.revision, "status": n.status, "series": n.series, "severity": n.severity}
                for n in notices
            ]
        )
        try:
            self._connection.request("POST", "/", body, {"content-type": "application/json"})
            with self._connection.getresponse() as response:
                response.read()
                ok = response.status < 300
        except ConnectionRefusedError as e:
            self._connection.close()
            return [Outcome("retry", str(e), lost=True)] * len(notices)
        except (http.client.HTTPException, OSError) as e:
            self._connection.close()
            return [Outcome("retry", type(e).__name__)] * len(notices)
        return [Outcome("delivered") if ok else Outcome("retry", f"HTTP {response.status}", lost=True)] * len(notices)

    def close(self) -> None:
        self._connection.close()

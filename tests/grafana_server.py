"""An HTTP server that keeps data sources, folders, dashboards and annotations as Grafana's documented API does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "glsa_not-a-secret"
Answer = tuple[int, Any]


@dataclass
class Grafana:
    """Its state, what was asked of it, and answers it is told to give instead: by (method, beginning of the path)."""

    url: str = ""
    datasources: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    instead: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        kind, _, rest = path.removeprefix("/api/").partition("/")
        if method != "GET":
            self.changes.append(f"{method} {path}")
        answered: Answer | None = getattr(self, f"_{kind}")(method, rest, query, body)
        return answered or (404, {"message": "Not found"})

    def _datasources(self, method: str, rest: str, _query: Any, body: Any) -> Answer | None:
        uid = rest.removeprefix("uid/")
        if method == "POST":
            if any(body["name"] == d["name"] for d in self.datasources.values()):
                return 409, {"message": "data source with the same name already exists"}
            uid = body["uid"]
        elif uid not in self.datasources:
            return 404, {"message": "Data source not found"}
        if method == "GET":
            return 200, self.datasources[uid]
        self.secrets |= body.get("secureJsonData", {})
        kept = {k: v for k, v in body.items() if k != "secureJsonData"}
        old = self.datasources.get(uid, {"id": len(self.datasources) + 1, "version": 0, "basicAuth": False})
        fields = dict.fromkeys(self.secrets, True)
        self.datasources[uid] = old | kept | {"version": old["version"] + 1, "secureJsonFields": fields}
        return 200, {"datasource": self.datasources[uid], "message": "Datasource added"}

    def _folders(self, method: str, rest: str, _query: Any, body: Any) -> Answer | None:
        if method == "POST":
            if body["uid"] in self.folders:
                return 412, {"message": "a folder with that UID already exists"}
            self.folders[body["uid"]] = {"id": 1, "uid": body["uid"], "title": body["title"], "version": 1}
            return 200, self.folders[body["uid"]]
        if rest not in self.folders:
            return 404, {"message": "folder not found", "status": "not-found"}
        if method == "PUT":
            self.folders[rest] |= {"title": body["title"], "version": self.folders[rest]["version"] + 1}
        return 200, self.folders[rest]

    def _dashboards(self, method: str, rest: str, _query: Any, body: Any) -> Answer | None:
        if method == "GET":
            found = self.dashboards.get(rest.removeprefix("uid/"))
            return None if found is None else (200, found)
        wanted = body["dashboard"]
        have = self.dashboards.get(wanted["uid"])
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        if have is not None and not body.get("overwrite") and wanted.get("version") != have["dashboard"]["version"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        version = 1 if have is None else have["dashboard"]["version"] + 1
        kept = wanted | {"id": len(self.dashboards) + 1, "version": version}
        self.dashboards[wanted["uid"]] = {
            "dashboard": kept,
            "meta": {"folderUid": body["folderUid"], "version": version},
        }
        return 200, {"uid": wanted["uid"], "status": "success", "version": version}

    def _annotations(self, method: str, rest: str, query: dict[str, list[str]], body: Any) -> Answer | None:
        if method == "GET":
            tags = set(query.get("tags", []))
            found = [a for a in self.annotations.values() if tags <= set(a["tags"])]
            return 200, found[: int(query.get("limit", ["100"])[0])]
        if method == "POST":
            new = max(self.annotations, default=0) + 1
            self.annotations[new] = {"id": new, "userId": 1, "dashboardUID": None} | body
            return 200, {"message": "Annotation added", "id": new}
        number = int(rest)
        if method == "DELETE":
            del self.annotations[number]
            return 200, {"message": "Annotation deleted"}
        self.annotations[number] |= body
        return 200, {"message": "Annotation updated"}


@contextmanager
def grafana(prefix: str = "") -> Iterator[Grafana]:
    """One on loopback, served at a path."""
    state, one = Grafana(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536  # an answer in one piece: two would wait for each other

        def _handle(self) -> None:
            given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            path = unquote(parts.path).removeprefix(prefix)
            with one:
                state.asked.append(f"{self.command} {self.path}")
                told = [a for (m, p), a in state.instead.items() if m == self.command and path.startswith(p)]
                if told:
                    status, out = told[0]
                elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, out = 401, b'{"message": "Invalid API key"}'
                else:
                    body = json.loads(given) if given and given != b"null" else None
                    status, value = state.answer(self.command, path, parse_qs(parts.query), body)
                    out = json.dumps(value).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST = do_PUT = do_DELETE = _handle

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""Where targets send to: an HTTP server that does as told, an SMTP server, Debian's Alertmanager."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.own_server import wait_for
from tests.service.brokers import free_port

Reply = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Reply:
    """A reply with a status, a body and headers (`_` stands for `-`)."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


@dataclass(frozen=True)
class Request:
    """What a receiver was sent."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Answers each request with the next reply of its script, the last one for ever, and keeps what it was sent."""

    def __init__(self, *script: Reply) -> None:
        self.script = list(script)
        self.requests: list[Request] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {k.lower(): v for k, v in self.headers.items()}
                receiver.requests.append(Request(self.path, headers, body))
                reply = receiver.script.pop(0) if len(receiver.script) > 1 else receiver.script[0]
                with contextlib.suppress(OSError):
                    reply(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Receiver]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


@dataclass
class Mailbox:
    """What an SMTP server took, and how it is to misbehave.

    Attributes
    ----------
    answers : what is said to a message; None: it is taken.
    unknown : recipients that are refused, and how.
    """

    envelopes: list[Envelope] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    answers: str | None = None
    unknown: dict[str, str] = field(default_factory=dict)
    port: int = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.unknown:
            return self.unknown[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answers is not None:
            return self.answers
        self.envelopes.append(envelope)
        self.encrypted.append(
            server.transport is not None and server.transport.get_extra_info("ssl_object") is not None
        )
        return "250 taken"


@contextlib.contextmanager
def smtp(
    certificate: ssl.SSLContext | None = None, *, implicit: bool = False, password: str | None = None
) -> Iterator[Mailbox]:
    """A real SMTP server; with a certificate it wants STARTTLS, or speaks TLS from the first byte (`implicit`)."""
    box = Mailbox(port=free_port())

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        ok = isinstance(given, LoginPassword) and (given.login, given.password) == (b"ops", (password or "").encode())
        return AuthResult(success=ok, handled=False)

    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=box.port,
        ssl_context=certificate if implicit else None,
        tls_context=None if implicit else certificate,
        require_starttls=certificate is not None and not implicit,
        auth_required=password is not None,
        auth_require_tls=password is not None and not implicit,
        authenticator=authenticate if password is not None else None,
        server_hostname="localhost",
        ready_timeout=30,
    )
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


@contextlib.contextmanager
def rude(say: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where each connection is handed to `say`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                say(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of this machine's own and the server's side of it."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out",
         cert],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return cert, context


class AlertmanagerServer:
    """Debian's Alertmanager on a port of its own, with its data in a folder."""

    PROGRAM = "prometheus-alertmanager"

    def __init__(self, folder: Path, receiver_url: str) -> None:
        if shutil.which(self.PROGRAM) is None:
            raise AssertionError(
                f"{self.PROGRAM} is not installed, and alerts cannot be tried out on a real one: "
                "apt-get install prometheus-alertmanager (make test does it, as root)"
            )
        self._folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = folder / "alertmanager.yml"
        self._config.write_text(
            json.dumps(  # which is YAML too
                {
                    "route": {"receiver": "us", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s"},
                    "receivers": [{"name": "us", "webhook_configs": [{"url": receiver_url, "send_resolved": True}]}],
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.PROGRAM, f"--config.file={self._config}", f"--storage.path={self._folder / 'data'}",
                 f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="],
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_for("Alertmanager to be ready", self._ready)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v2{path}", timeout=10) as response:
            return json.load(response)

    def post(self, path: str, value: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/v2{path}", json.dumps(value).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def alerts(self, **filters: str) -> list[dict[str, Any]]:
        query = "&".join(f"{k}={v}" for k, v in filters.items())
        return list(self.get(f"/alerts?{query}"))

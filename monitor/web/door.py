"""What every request passes through first: a bounded end for bodies nobody wants, figures, and errors without text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.logs import get_logger
from monitor.metrics import Metrics

DISCARD_BYTES: Final = 32 * 1024 * 1024
DISCARD_SECONDS: Final = 1.0
"""What a client still sends when its answer stands is taken in within these, so that it gets to read the answer: a
connection closed on unread bytes is reset. Beyond them it is closed all the same."""

_log: Final = get_logger(__name__)


class Door:
    """ASGI middleware around the whole application.

    Parameters
    ----------
    routes : beginnings of paths, of two parts at most, that are named in metrics; all others are "other".
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("only HTTP is served")
        started = time.perf_counter()
        route = "/".join(scope["path"].split("/", 3)[:3])
        if route not in self._routes:
            route = "other"
        body = _Incoming(receive, expects=any(name == b"expect" for name, _ in scope["headers"]))
        status = 0

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                await body.discard()
                if not body.ended:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, body.receive, answer)
        except Exception as e:
            _log.error("request failed", exc_info=e, route=route)
            if not status:
                await answer({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})
        finally:
            seconds = time.perf_counter() - started
            self._metrics.answered(route, status, seconds)
            _log.debug("request", route=route, status=status, seconds=round(seconds, 4))


class _Incoming:
    """The body of a request as it comes, and whether it has."""

    def __init__(self, receive: Receive, *, expects: bool) -> None:
        self._receive = receive
        self._unasked = expects  # the client waits for our word before it sends anything
        self.ended = False

    async def receive(self) -> Message:
        self._unasked = False
        message = await self._receive()
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Take in the rest, if it is little."""
        if self.ended or self._unasked:
            return
        left = DISCARD_BYTES
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self.ended and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass

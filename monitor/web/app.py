"""The paths served: transcripts and traces in, health and figures out, alerts (monitor.web.oncall)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from monitor import metrics as figures
from monitor.config import Config
from monitor.intake import Intake
from monitor.metrics import Metrics
from monitor.web import items, otlp
from monitor.web.bodies import JSON, LINES, PROTOBUF, Body, content_type
from monitor.web.committer import COUNTED, REJECTED, Committer, Item, Outcome, Submission
from monitor.web.door import Door
from monitor.web.health import OK, Health
from monitor.web.items import SAMPLED_OUT, Part
from monitor.web.keys import ANYBODY, Key, Keys
from monitor.web.limits import Held, Rate
from monitor.web.oncall import ALERTS, SILENCES, OnCallPages
from monitor.web.refusals import Refused

TRANSCRIPTS: Final = "/v1/transcripts"
TRACES: Final = "/v1/traces"
METRICS: Final = "/metrics"
HEALTHZ: Final = "/healthz"
READYZ: Final = "/readyz"
_BEARER: Final = "bearer "

Reader = Callable[[bytes, str, Key], list[Part]]
"""A body of a type and whose it is -> what it holds."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the handlers share. The executor has one thread: decoding more at a time would only take turns."""

    config: Config
    intake: Intake
    committer: Committer
    keys: Keys
    rate: Rate
    held: Held
    health: Health
    metrics: Metrics
    decoding: ThreadPoolExecutor
    oncall: OnCallPages

    def whose(self, request: Request) -> Key:
        """Raises Refused 401 without a key, 403 with one that is not known."""
        if not self.keys:
            return ANYBODY
        given = request.headers.get("authorization", "")
        token = given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else None
        token = token or request.headers.get("x-api-key")
        if not token:
            raise Refused(
                401, "an API key is needed: Authorization: Bearer KEY", headers={"www-authenticate": "Bearer"}
            )
        key = self.keys.find(token.encode("latin-1"))  # headers are read as that: these are the bytes that came
        if key is None:
            raise Refused(403, "the API key is not known")
        return key

    async def take(self, request: Request, types: tuple[str, ...], read: Reader) -> list[tuple[int, Outcome]]:
        """A request's way from its headers to the commit of what it holds; returns what came of each item.

        Raises
        ------
        Refused : nothing of it was stored, or not yet: sent again, it is counted once.
        """
        key = self.whose(request)
        if key.oncall:
            raise Refused(403, "this API key looks after alerts, and writes nothing")
        self.rate.check(key.name)
        self.committer.check()
        kind = content_type(request.headers, types)
        limit = self.config.serve.max_body_bytes
        with Body(request.headers, request.stream(), limit, self.held) as body:
            try:
                async with asyncio.timeout(self.config.serve.request_seconds):
                    data = await body.read()
            except TimeoutError:
                raise Refused(408, "the body did not come in time") from None
            try:
                async with asyncio.timeout(self.config.serve.request_seconds):
                    return await self._committed(data, kind, key, read)
            except TimeoutError:
                again = self.config.serve.retry_after_seconds
                raise Refused(503, "the database does not keep up", retry_after=again) from None

    async def _committed(self, data: bytes, kind: str, key: Key, read: Reader) -> list[tuple[int, Outcome]]:
        parts = await asyncio.get_running_loop().run_in_executor(self.decoding, read, data, kind, key)
        wanted = [p.what for p in parts if isinstance(p.what, Item)]
        self.rate.charge(key.name, max(1, len(wanted)))
        self.metrics.skipped.inc(sum(p.skipped for p in parts))
        self.metrics.sampled_out(sum(isinstance(p.what, Outcome) and p.what.status == SAMPLED_OUT for p in parts))
        committed: list[Outcome] = []
        if wanted:
            # cancelled by the timeout, what has not been begun is taken off the queue again
            committed = await asyncio.wrap_future(self.committer.submit(Submission(wanted, key)))
        outcomes = iter(committed)
        return [(p.place, next(outcomes) if isinstance(p.what, Item) else p.what) for p in parts]

    async def transcripts(self, request: Request) -> Response:
        limits = self.config.serve.max_request_events, self.config.input.max_event_bytes

        def read(body: bytes, kind: str, key: Key) -> list[Part]:
            return items.transcripts(body, kind, self.intake, key, most=limits[0], max_bytes=limits[1])

        results = await self.take(request, (JSON, *LINES), read)
        statuses = [outcome.status for _, outcome in results]
        return _json(202, {COUNTED: statuses.count(COUNTED), "results": [_result(i, o) for i, o in results]})

    async def traces(self, request: Request) -> Response:
        def read(body: bytes, kind: str, key: Key) -> list[Part]:
            return items.spans(body, kind, self.intake, key, most=self.config.serve.max_request_events)

        # an answer is in the encoding of its request
        kind = PROTOBUF if request.headers.get("content-type", "").lower().startswith(PROTOBUF) else JSON
        try:
            results = await self.take(request, (PROTOBUF, JSON), read)
        except Refused as e:
            return Response(otlp.status(e.reason, kind), e.status, e.headers, kind)
        rejected = [outcome.reason or "" for _, outcome in results if outcome.status == REJECTED]
        return Response(otlp.answer(rejected, kind), 200, media_type=kind)

    async def figures(self, request: Request) -> Response:
        if self.config.serve.metrics_need_key:
            self.whose(request)
        return Response(self.metrics.text(), media_type=figures.CONTENT_TYPE)

    async def healthz(self, _request: Request) -> Response:
        alive = self.health.alive()
        return _json(200 if alive else 503, {"alive": alive})

    async def readyz(self, _request: Request) -> Response:
        checks = self.health.checks()
        ready = all(found == OK for found in checks.values())
        return _json(200 if ready else 503, {"ready": ready, "checks": checks})


def application(site: Site) -> ASGIApp:
    """The ASGI application."""
    routes = [
        Route(TRANSCRIPTS, site.transcripts, methods=["POST"]),
        Route(TRACES, site.traces, methods=["POST"]),
        Route(METRICS, site.figures),
        Route(HEALTHZ, site.healthz),
        Route(READYZ, site.readyz),
        *site.oncall.routes(site.whose, site.rate),
    ]
    handlers: dict[Any, Any] = {Refused: _refused, HTTPException: _no_such_path, ClientDisconnect: _gone}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Door(app, site.metrics, frozenset({TRANSCRIPTS, TRACES, METRICS, HEALTHZ, READYZ, ALERTS, SILENCES}))


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, JSON)


def _result(index: int, outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "event_id": outcome.event_id, "status": outcome.status}
    return found if outcome.reason is None else found | {"reason": outcome.reason}


def _refused(_request: Request, e: Refused) -> Response:
    return _json(e.status, {"error": e.reason}, e.headers)


def _no_such_path(_request: Request, e: HTTPException) -> Response:
    said = {404: "no such path", 405: "no such method here"}.get(e.status_code, "cannot be served")
    return _json(e.status_code, {"error": said}, dict(e.headers or {}))


def _gone(_request: Request, _e: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it

"""Alerts over HTTP: looked at, taken in hand, silenced, by keys marked +oncall and nobody else.

A silence is stronger than anything a writer can do, so there is no way to one without a key, not even on this machine.
A key bound to deployments sees their alerts only; of all others it is told that there are none. Its silences name one
of its deployments, letter by letter. No transcript text is in any answer.
"""

from __future__ import annotations

import asyncio
import glob
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, Engine
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alerts import actions
from alerts.desk import Desk, Subject, is_id, silence_values, silences
from alerts.machine import LONGEST_NAME
from alerts.settings import duration
from monitor.config import Config
from monitor.errors import ConfigError, StoreError
from monitor.intake import Clock
from monitor.store.alert_reads import MOST_PAGE, Page
from monitor.store.oncall import series_keys
from monitor.store.retry import reading
from monitor.web.bodies import JSON, content_type
from monitor.web.keys import ONCALL, Key
from monitor.web.limits import Rate
from monitor.web.refusals import Refused

ALERTS: Final = "/v1/alerts"
SILENCES: Final = "/v1/silences"
MOST_BYTES: Final = 64 * 1024
"""Of a body."""
PAGE: Final = 100
"""Alerts of a page where none says."""
T = TypeVar("T")
By = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
Comment = Annotated[str, msgspec.Meta(max_length=actions.LONGEST_COMMENT)]


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an acknowledgement; all of it may be left out."""

    by: By = ""
    comment: Comment = ""


class NewSilence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of a silence."""

    matchers: dict[str, str] = {}
    for_: str = msgspec.field(name="for")
    by: By = ""
    comment: Comment = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, and whose it is."""

    request: Request
    key: Key

    @property
    def deployments(self) -> frozenset[str] | None:
        """Of alerts that it may see; None: all, and those about the monitor."""
        return self.key.deployments or None

    def by(self, name: str) -> str:
        """Who acts: whoever the key says it is, and in any case which key."""
        return f"{name[: LONGEST_NAME - len(self.key.name) - 8]} (key {self.key.name})" if name else self.key.name


class OnCallPages:
    """The handlers.

    Parameters
    ----------
    asking : threads that wait for the database.

    Raises
    ------
    ConfigError : a rule that cannot be used.
    """

    def __init__(self, engine: Engine, config: Config, clock: Clock, asking: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._serve = config.serve
        self._desk = Desk(config)
        self._clock = clock
        self._asking = asking

    def routes(self, whose: Callable[[Request], Key], rate: Rate) -> list[Route]:
        """The paths, for keys marked +oncall."""

        def guarded(handler: Callable[[_Asked], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
            async def guard(request: Request) -> Response:
                key = whose(request)
                if not key.oncall:
                    raise Refused(403, f"alerts are looked after by API keys marked {ONCALL}")
                rate.check(key.name)
                rate.charge(key.name, 1)
                return await handler(_Asked(request, key))

            return guard

        one = ALERTS + "/{alert}"
        return [
            Route(ALERTS, guarded(self.alerts), methods=["GET"]),
            Route(one, guarded(self.alert), methods=["GET"]),
            Route(f"{one}/explain", guarded(self.explain), methods=["GET"]),
            Route(f"{one}/ack", guarded(self.ack), methods=["POST"]),
            Route(f"{one}/ack", guarded(self.unack), methods=["DELETE"]),
            Route(SILENCES, guarded(self.silences), methods=["GET"]),
            Route(SILENCES, guarded(self.silence), methods=["POST"]),
            Route(SILENCES + "/{silence}", guarded(self.unsilence), methods=["DELETE"]),
        ]

    async def alerts(self, asked: _Asked) -> Response:
        query = _query(asked, "all", "series", "before", "limit")
        limit = query.get("limit", str(PAGE))
        if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= MOST_PAGE):
            raise Refused(400, f"limit must be a number from 1 to {MOST_PAGE}")
        before = query.get("before")
        if before is not None and not is_id(before):
            raise Refused(400, "before must be the id of an alert")
        everything = _all(query)

        def read(connection: Connection) -> list[dict[str, Any]]:
            ids = _series(connection, query["series"]) if "series" in query else None
            page = Page(
                standing=not everything,
                series_ids=ids,
                deployments=asked.deployments,
                before=before,
                limit=int(limit),
            )
            return self._desk.listed(connection, page, self._clock())

        found = await self._ask(lambda: reading(self._engine, read))
        after = found[-1]["id"] if len(found) == int(limit) else None
        return _json(200, {"alerts": found, "before": after})

    async def alert(self, asked: _Asked) -> Response:
        _query(asked)
        return _json(200, await self._about(asked, self._desk.shown))

    async def explain(self, asked: _Asked) -> Response:
        _query(asked)
        found = await self._about(asked, self._desk.explained)
        silence = found["now"]["silence"]
        if silence is not None and not _may_see(asked, silence["matchers"]):
            # somebody else's words
            found["now"]["silence"] = {k: silence[k] for k in ("id", "starts_at", "ends_at")}
        return _json(200, found)

    async def ack(self, asked: _Asked) -> Response:
        body = await self._body(asked, Act)
        return await self._act(asked, body, actions.acknowledge, "does not fire, or somebody has it in hand")

    async def unack(self, asked: _Asked) -> Response:
        return await self._act(asked, Act(), actions.unacknowledge, "is in nobody's hand")

    async def _act(self, asked: _Asked, body: Act, act: Callable[..., bool], unless: str) -> Response:
        def work() -> dict[str, Any]:
            alert = reading(self._engine, lambda c: self._subject(c, asked)).alert_id
            if not act(self._engine, alert, asked.by(body.by), self._clock(), body.comment):
                raise Refused(409, f"the alert {unless}")
            return reading(self._engine, lambda c: self._desk.shown(c, self._subject(c, asked), self._clock()))

        return _json(200, await self._ask(work))

    async def silences(self, asked: _Asked) -> Response:
        query = _query(asked, "all")
        now = None if _all(query) else self._clock()
        found = await self._ask(lambda: reading(self._engine, lambda c: silences(c, now)))
        mine = [silence_values(s) for s in found if _may_see(asked, s.matchers)]
        return _json(200, {"silences": mine[: actions.MOST_SILENCES]})

    async def silence(self, asked: _Asked) -> Response:
        body = await self._body(asked, NewSilence)
        matchers = _within(asked, body.matchers)

        def work() -> dict[str, Any]:
            lasts, by = duration("for", body.for_), asked.by(body.by)
            return silence_values(actions.silence(self._engine, matchers, lasts, by, body.comment, self._clock()))

        return _json(201, await self._ask(work))

    async def unsilence(self, asked: _Asked) -> Response:
        wanted = asked.request.path_params["silence"]

        def work() -> bool:
            standing = reading(self._engine, lambda c: silences(c, self._clock()))
            if not any(s.id == wanted and _may_see(asked, s.matchers) for s in standing):
                raise Refused(404, "no such silence stands")
            return actions.end_silence(self._engine, wanted, self._clock())

        return _json(200, {"id": wanted, "ended": await self._ask(work)})

    async def _about(self, asked: _Asked, tell: Callable[[Connection, Subject, Any], dict[str, Any]]) -> dict[str, Any]:
        return await self._ask(lambda: reading(self._engine, lambda c: tell(c, self._subject(c, asked), self._clock())))

    def _subject(self, connection: Connection, asked: _Asked) -> Subject:
        """The alert of a path. Raises Refused 404 also where it is of others: they do not learn that it is there."""
        wanted, mine = asked.request.path_params["alert"], asked.deployments
        found = self._desk.subject(connection, wanted) if is_id(wanted) else None
        if found is None or (mine is not None and (found.key is None or found.key.deployment not in mine)):
            raise Refused(404, "no such alert")
        return found

    async def _body(self, asked: _Asked, kind: type[T]) -> T:
        """A small JSON body; its type must be named, which no page of a browser may do unasked."""
        content_type(asked.request.headers, (JSON,))
        data = b""
        try:
            async with asyncio.timeout(self._serve.request_seconds):
                async for piece in asked.request.stream():
                    data += piece
                    if len(data) > MOST_BYTES:
                        raise Refused(413, f"the body is over the limit of {MOST_BYTES:,} bytes")
        except TimeoutError:
            raise Refused(408, "the body did not come in time") from None
        try:
            return msgspec.json.decode(data or b"{}", type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
            raise Refused(400, f"not such a body: {type(e).__name__}") from None

    async def _ask(self, work: Callable[[], T]) -> T:
        """What the database says, within bounds of time."""
        again = self._serve.retry_after_seconds
        try:
            async with asyncio.timeout(self._serve.request_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._asking, work)
        except ConfigError as e:
            raise Refused(400, str(e)) from None
        except (StoreError, TimeoutError):
            raise Refused(503, "the database does not answer", retry_after=again) from None


def _query(asked: _Asked, *known: str) -> dict[str, str]:
    """The parameters of a request. Raises Refused 400 on others, for one misspelt would select everything."""
    found = dict(asked.request.query_params)
    if found.keys() - set(known):
        raise Refused(400, f"parameters are {', '.join(known)}" if known else "there are no parameters here")
    return found


def _series(connection: Connection, name: str) -> list[int]:
    """The number of a series, none where there is none: pages are held to the key's deployments anyway."""
    return [number for number, key in series_keys(connection).items() if key.name == name]


def _all(query: Mapping[str, str]) -> bool:
    if query.get("all", "false") not in ("true", "false"):
        raise Refused(400, "all must be true or false")
    return query.get("all") == "true"


def _within(asked: _Asked, matchers: dict[str, str]) -> dict[str, str]:
    """The matchers of a silence, held to the deployments of the key. Raises Refused 403."""
    mine = asked.deployments
    if mine is None:
        return matchers
    wanted = matchers.get("deployment", asked.key.deployment)
    if wanted not in mine:
        raise Refused(
            403, "this API key silences its own deployments only: give the matcher deployment, without wildcards"
        )
    # a name may hold what a glob takes for more than itself
    return matchers | {"deployment": glob.escape(wanted)}


def _may_see(asked: _Asked, matchers: Mapping[str, str]) -> bool:
    mine = asked.deployments
    return mine is None or matchers.get("deployment") in {glob.escape(name) for name in mine}


def _json(status: int, value: Any) -> Response:
    return Response(msgspec.json.encode(value), status, {"cache-control": "no-store"}, JSON)

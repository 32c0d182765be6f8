"""One client for every target that speaks HTTP: bounded in time and size, follows nobody, says what became of it.

| answer | outcome |
|---|---|
| 2xx that reads as the service's own | delivered |
| any other 2xx: a proxy's page, an error in disguise | retry |
| 301, 308 | refused: the address is another by now |
| 302, 303, 307 and other 3xx | retry; nothing is sent to where they point |
| 408, 425, 429 | retry, after as long as Retry-After asks |
| other 4xx | refused |
| 5xx | retry, after as long as Retry-After asks |
| no connection, no whole answer in time, no HTTP | retry |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import httpx2

from alerts.targets.base import Outcome
from alerts.targets.settings import Values
from monitor.errors import ConfigError
from monitor.outgoing import is_loopback, wait_asked
from streams.reasons import printable

MAX_RESPONSE_BYTES: Final = 65_536
"""Every service here answers in a few hundred bytes; more is not read."""
LONGEST_ANSWER: Final = 200
"""Characters of an answer that go into a reason."""
SEND_SECONDS: Final = 45.0
"""Of all requests of one send: a delivery holds its lease for a minute. What is left then is due again."""
_LATER: Final = frozenset({408, 425, 429})
_MOVED: Final = frozenset({301, 308})


@dataclass(frozen=True, slots=True)
class Post:
    """One request: its body, and headers beside the client's own."""

    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a service's answers are read.

    Attributes
    ----------
    wrong : body of a 2xx -> what is wrong with it; None where it is the service's own word that it took the request.
        None in place of the function: any 2xx is.
    said : body of a refusal -> what the service says of it, in its own terms; empty where it says nothing we know.
    """

    wrong: Callable[[bytes], str | None] | None
    said: Callable[[bytes], str]


class HttpClient:
    """Posts JSON to one address.

    Parameters
    ----------
    path : added to the address, unless it ends so.
    allow_http : whether plain http:// may leave this machine.
    headers : of every request.
    secrets : what never stands in a reason, whatever the other side sends back.

    Raises
    ------
    ConfigError : an address that cannot be used.
    """

    def __init__(
        self,
        values: Values,
        *,
        timeout_seconds: float,
        allow_http: bool,
        path: str = "",
        headers: dict[str, str] | None = None,
        secrets: Sequence[str] = (),
        secret_address: bool = False,
    ) -> None:
        given = values.text("url")
        self._url, loopback = _address(given, values.key("url"), path, allow_http=allow_http, secret=secret_address)
        self._secrets = [s for s in (*secrets, *([given, self._url.path] if secret_address else [])) if s]
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "valuedrift",
        } | (headers or {})
        self._timeout_seconds = timeout_seconds
        self._tls = httpx2.create_ssl_context()
        # what is meant for this machine never goes to a proxy
        self._use_environment_proxy = not loopback

    def post(self, posts: Sequence[Post], reading: Reading, *, began: float | None = None) -> list[Outcome]:
        """What became of each, in order; nothing is raised. Not inside an event loop.

        Where nobody answers, or too much was sent, the rest is not tried: it would take as long for each.

        Parameters
        ----------
        began : when the send began that these are part of (time.monotonic); None: now, and the first is always tried.
        """
        return asyncio.run(self._post_all(posts, reading, began))

    async def _post_all(self, posts: Sequence[Post], reading: Reading, began: float | None) -> list[Outcome]:
        asyncio.get_running_loop().set_default_executor(_Resolver(max_workers=1))
        outcomes: list[Outcome] = []
        give_up = (time.monotonic() if began is None else began) + SEND_SECONDS - self._timeout_seconds
        async with httpx2.AsyncClient(
            headers=self._headers,
            timeout=self._timeout_seconds,
            verify=self._tls,
            follow_redirects=False,
            trust_env=self._use_environment_proxy,
        ) as client:
            for post in posts:
                if (outcomes or began is not None) and time.monotonic() > give_up:
                    return self._rest(posts, outcomes, "no time was left for it", None)
                outcome, stop = await self._post(client, post, reading)
                outcomes.append(outcome)
                if stop:
                    return self._rest(posts, outcomes, outcome.reason, outcome.retry_after_seconds)
        return outcomes

    def _rest(
        self, posts: Sequence[Post], outcomes: list[Outcome], reason: str, retry_after_seconds: float | None
    ) -> list[Outcome]:
        untried = Outcome("retry", f"not tried: {reason}", retry_after_seconds, lost=True)
        return outcomes + [untried] * (len(posts) - len(outcomes))

    async def _post(self, client: httpx2.AsyncClient, post: Post, reading: Reading) -> tuple[Outcome, bool]:
        """What became of one, and whether to try no more now."""
        try:
            # the client's own limits are per read: one byte at a time could last for ever
            async with (
                asyncio.timeout(self._timeout_seconds),
                client.stream("POST", self._url, content=post.body, headers=post.headers) as r,
            ):
                return self._outcome(r, *await _body(r), reading)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as e:
            return Outcome("retry", self._clean(f"no connection: {e or type(e).__name__}"), lost=True), True
        except (TimeoutError, httpx2.TimeoutException):
            return Outcome("retry", f"no whole answer within {self._timeout_seconds:g} s"), True
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as e:
            return Outcome("retry", self._clean(f"connection failed: {type(e).__name__}: {e}")), True

    def _outcome(
        self, response: httpx2.Response, body: bytes, unread: str | None, reading: Reading
    ) -> tuple[Outcome, bool]:
        status = response.status_code
        if response.is_success:
            wrong = None if reading.wrong is None else unread or reading.wrong(body)
            if wrong is None:
                return Outcome("delivered"), False
            return Outcome("retry", self._clean(f"HTTP {status}, but {wrong}")), False
        if status < 400:
            # where it points is not said: it may hold what was sent
            reason = f"HTTP {status}: a redirect, which is not followed; set url to the final address"
            return Outcome("refused" if status in _MOVED else "retry", reason, lost=status not in _MOVED), False
        said = reading.said(body)
        reason = self._clean(f"HTTP {status}: {said}" if said else f"HTTP {status}")
        if status in _LATER:
            return Outcome("retry", reason, wait_asked(response.headers), lost=True), True
        if status >= 500:
            return Outcome("retry", reason, wait_asked(response.headers)), False
        return Outcome("refused", reason), False

    def _clean(self, reason: str) -> str:
        for secret in self._secrets:
            reason = reason.replace(secret, "[secret]")
        return printable(reason, LONGEST_ANSWER)


class _Resolver(ThreadPoolExecutor):
    """Looks names up. Nobody waits for it at the end of a send: a resolver may take far longer than that."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=cancel_futures)


async def _body(response: httpx2.Response) -> tuple[bytes, str | None]:
    """What is read of an answer, and why it is not all of it."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return b"", "the answer is compressed, which was not asked for"
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > MAX_RESPONSE_BYTES:
            return bytes(data[:MAX_RESPONSE_BYTES]), "the answer does not end"
    return bytes(data), None


def _address(given: str, key: str, path: str, *, allow_http: bool, secret: bool) -> tuple[httpx2.URL, bool]:
    """Where to post, and whether that is this machine. Errors do not show it."""
    try:
        url = httpx2.URL(given)
    except (httpx2.InvalidURL, ValueError) as e:
        raise ConfigError(f"{key} is not an address") from (None if secret else e)
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{key} must be an address such as https://alerts.example.com")
    if url.userinfo:
        raise ConfigError(f"{key} holds a password; there are settings of their own for it, see docs/alert-targets.md")
    loopback = is_loopback(url.host)
    if url.scheme == "http" and not loopback and not allow_http:
        permit = "" if secret else ", or set allow_http = true"
        raise ConfigError(
            f"{key} is plain http:// to another machine, where anyone on the way reads alerts; use https://{permit}"
        )
    base = url.path.rstrip("/")
    return (url.copy_with(path=base if base.endswith(path) else base + path) if path else url), loopback

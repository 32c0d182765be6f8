"""An OpenAI-compatible chat-completions endpoint, which may misbehave in every way: asked, bounded, asked again."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx2

from monitor.errors import ConfigError
from monitor.outgoing import is_loopback, wait_asked

MAX_RESPONSE_BYTES: Final = 1_000_000
"""More of a response is not read."""
LONGEST_WAIT_SECONDS: Final = 60.0
"""A server that asks for a longer pause is not waited for."""
NO_BUDGET: Final = "budget"
"""Why a request was not sent."""

_FIRST_WAIT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint that took a request answered (200), or that it does not take this form of it (400, 422)."""

    status: int
    body: bytes


class Endpoint:
    """Where to ask, and how.

    Parameters
    ----------
    url : base address; /chat/completions is added unless it is there.
    name : of the setting or option that holds it, for errors.
    key_variable : environment variable that holds the API key; unset or empty: none is sent.
    timeout_seconds : a request's whole time, connecting to last byte.
    attempts : most tries of one request.
    permit : how plain http:// to another machine would be allowed, for the error; None where it is.
    environment : where the key is looked up; default os.environ.

    Raises
    ------
    ConfigError : an address or key that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        key_variable: str,
        timeout_seconds: float,
        attempts: int,
        permit: str | None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._url, loopback = _address(url, name, key_variable, permit)
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        key = (os.environ if environment is None else environment).get(key_variable, "").strip()
        if key:
            if not re.fullmatch(r"[\x21-\x7e]+", key):
                raise ConfigError(f"the key in {key_variable} holds characters no header can carry")
            self._headers["Authorization"] = f"Bearer {key}"
        self._tls = httpx2.create_ssl_context()
        # what is meant for this machine never goes to a proxy
        self._use_environment_proxy = not loopback
        self._timeout_seconds = timeout_seconds
        self._attempts = attempts
        self._sleep = sleep

    def client(self) -> httpx2.AsyncClient:
        """Connections to it; close them."""
        return httpx2.AsyncClient(
            headers=self._headers,
            timeout=self._timeout_seconds,
            verify=self._tls,
            follow_redirects=False,
            trust_env=self._use_environment_proxy,
        )

    async def ask(
        self, client: httpx2.AsyncClient, body: bytes, *, spend: Callable[[], bool], place: Callable[[int], float]
    ) -> Reply | str:
        """The reply to a request, or in a word why there is none; whatever the endpoint does, nothing is raised.

        429, 5xx and failed connections are asked again after a pause: a doubling one, or as long as Retry-After says.

        Parameters
        ----------
        spend : takes one request from a budget; False: there is none left.
        place : number of failures -> a place in [0, 1) by which the pause is 0.5 to 1.5 times as long, so that
            requests that failed together do not return together.
        """
        failures = 0
        while True:
            if not spend():
                return NO_BUDGET
            response = await self._send(client, body)
            if isinstance(response, _Unreached):
                if not response.again:
                    return response.reason
                reason, asked = response.reason, None
            elif response.status in (200, 400, 422):
                return Reply(response.status, response.body)
            elif response.status == 429 or response.status >= 500:
                reason, asked = f"HTTP {response.status}", response.wait_seconds
            else:
                return f"HTTP {response.status}"
            failures += 1
            if failures >= self._attempts or (asked is not None and asked > LONGEST_WAIT_SECONDS):
                return reason
            backoff = _FIRST_WAIT_SECONDS * 2.0 ** (failures - 1) * (0.5 + place(failures))
            await self._sleep(max(asked or 0.0, min(LONGEST_WAIT_SECONDS, backoff)))

    async def _send(self, client: httpx2.AsyncClient, body: bytes) -> _Response | _Unreached:
        try:
            # the client's own timeouts are per read: one byte at a time could last for ever
            async with (
                asyncio.timeout(self._timeout_seconds),
                client.stream("POST", self._url, content=body) as r,
            ):
                if r.status_code != 200:
                    return _Response(r.status_code, b"", wait_asked(r.headers))
                if r.headers.get("content-encoding", "identity").lower() != "identity":
                    return _Unreached("response is compressed")
                data = bytearray()
                async for chunk in r.aiter_raw():
                    data += chunk
                    if len(data) > MAX_RESPONSE_BYTES:
                        return _Unreached("response too large")
                return _Response(200, bytes(data))
        except (TimeoutError, httpx2.TimeoutException):
            # asked again it would hold up everything behind it as long once more
            return _Unreached("timeout")
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError):
            return _Unreached("no connection", again=True)


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    body: bytes
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Unreached:
    reason: str
    again: bool = False


def _address(given: str, name: str, key_variable: str, permit: str | None) -> tuple[httpx2.URL, bool]:
    """Where to post, and whether that is this machine."""
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL as e:
        raise ConfigError(f"{name} is not an address") from e
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{name} must be an address such as https://api.example.com/v1")
    if url.userinfo:
        raise ConfigError(f"{name} holds a password; put the key in {key_variable}")
    loopback = is_loopback(url.host)
    if url.scheme == "http" and not loopback and permit is not None:
        raise ConfigError(
            f"{name} is plain http:// to another machine, where anyone on the way reads the transcripts; "
            f"use https:// or {permit}"
        )
    path = url.path.rstrip("/")
    return url.copy_with(path=path if path.endswith("/chat/completions") else f"{path}/chat/completions"), loopback

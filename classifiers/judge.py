"""A judge for what cannot be settled offline: an OpenAI-compatible endpoint, asked about a random slice of turns.

The only part of the product that sends transcript text to another machine, and off unless configured (docs/judge.md).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2
import msgspec
import numpy as np
from numpy.typing import NDArray

from classifiers.judge_prompt import (
    RESPONSE_FORMAT,
    Answer,
    Behaviour,
    JudgeSettings,
    digest,
    read_completion,
    rubric_version,
    system_prompt,
    user_prompt,
)
from monitor.errors import ConfigError
from monitor.taxonomy import BEHAVIOURS, K
from monitor.transcript import Turn

__all__ = ["Judge", "JudgeSettings", "Refused", "Review"]

MAX_RESPONSE_BYTES = 1_000_000
"""A judgement has a few hundred bytes; more is not read."""

LONGEST_WAIT_SECONDS = 60.0
"""A server that asks for a longer pause is not waited for."""

_FIRST_WAIT_SECONDS: Final = 0.5
_HOUR_SECONDS: Final = 3600.0
_TWO_64: Final = float(1 << 64)


@dataclass(frozen=True, slots=True)
class Review:
    """What the judge said of a turn. `confidence` is its own word for it, not calibrated."""

    event_id: str
    turn: int
    label: Behaviour
    confidence: float
    rationale: str
    model: str
    rubric_version: str

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(5,), sums to 1: the confidence on the label, the rest spread evenly."""
        p = np.full(K, (1.0 - self.confidence) / (K - 1))
        p[BEHAVIOURS.index(self.label)] = self.confidence
        return p


@dataclass(frozen=True, slots=True)
class Refused:
    """A turn that has no review, and why; the reasons are those of docs/judge.md and hold no text from outside."""

    event_id: str
    turn: int
    reason: str


class Judge:
    """Reviews turns; holds the hour's budget, so use one for all of a process.

    Parameters
    ----------
    settings : `url` and `model` must be given.
    clock : seconds that never go back; the budget's hour is measured by it.
    sleep : waits between attempts.
    environment : where the API key is looked up; default os.environ.

    Raises
    ------
    ConfigError : settings, rubric or key that cannot be used.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings.checked()
        if not settings.model:
            raise ConfigError("judge.model is empty; name the model to ask")
        self._url, loopback = _endpoint(settings)
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        key = (os.environ if environment is None else environment).get(settings.api_key_variable, "").strip()
        if key:
            if not re.fullmatch(r"[\x21-\x7e]+", key):
                raise ConfigError(f"the key in {settings.api_key_variable} holds characters no header can carry")
            self._headers["Authorization"] = f"Bearer {key}"
        self._system = system_prompt(settings.rubric)
        self.rubric_version = rubric_version(self._system)
        self._tls = httpx2.create_ssl_context()
        # what is meant for this machine never goes to a proxy
        self._use_environment_proxy = not loopback
        self._choice_key = digest(b"choice key", settings.choice_key, size=32)
        self._budget = _Budget(settings.per_hour, clock)
        self._sleep = sleep
        self._plain = False

    def choose(self, turns: Sequence[Turn]) -> NDArray[np.bool_]:
        """(n,) which turns are the judge's: each with probability `share`, by its event_id and index alone."""
        bound = self.settings.share * _TWO_64
        return np.fromiter((self._place(t) < bound for t in turns), dtype=np.bool_, count=len(turns))

    def review(self, turns: Sequence[Turn]) -> list[Review | Refused]:
        """One result per turn, in order; whatever the endpoint does, nothing is raised. Not inside an event loop."""
        return asyncio.run(self.review_async(turns))

    async def review_async(self, turns: Sequence[Turn]) -> list[Review | Refused]:
        """`review` for callers that run an event loop."""
        results: dict[int, Review | Refused] = {}
        todo = iter(enumerate(turns))
        async with (
            httpx2.AsyncClient(
                headers=self._headers,
                timeout=self.settings.timeout_seconds,
                verify=self._tls,
                follow_redirects=False,
                trust_env=self._use_environment_proxy,
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(min(self.settings.concurrency, len(turns))):
                group.create_task(self._work(client, todo, results))
        return [results[i] for i in range(len(turns))]

    async def _work(
        self, client: httpx2.AsyncClient, todo: Iterator[tuple[int, Turn]], results: dict[int, Review | Refused]
    ) -> None:
        for i, turn in todo:
            event_id = turn.event.event_id
            said = await self._ask(client, turn)
            results[i] = (
                Refused(event_id, turn.index, said)
                if isinstance(said, str)
                else Review(
                    event_id,
                    turn.index,
                    said.behaviour,
                    said.confidence,
                    said.why,
                    self.settings.model,
                    self.rubric_version,
                )
            )

    async def _ask(self, client: httpx2.AsyncClient, turn: Turn) -> Answer | str:
        """The answer, or why there is none."""
        messages = [
            {"role": "system", "content": self._system},
            {"role": "user", "content": user_prompt(turn, self.settings.max_characters)},
        ]
        plain = self._plain
        failures = 0
        while True:
            if not self._budget.take():
                return "budget"
            response = await self._send(client, self._body(messages, plain))
            if isinstance(response, _Unreached):
                if not response.again:
                    return response.reason
                reason, asked = response.reason, None
            elif response.status == 200:
                # remembered only once the plain form is known to help
                self._plain = self._plain or plain
                return read_completion(response.body)
            elif response.status in (400, 422) and not plain:
                plain = True
                continue
            elif response.status == 429 or response.status >= 500:
                reason, asked = f"HTTP {response.status}", response.wait_seconds
            else:
                return f"HTTP {response.status}"
            failures += 1
            if failures >= self.settings.attempts or (asked is not None and asked > LONGEST_WAIT_SECONDS):
                return reason
            await self._sleep(max(asked or 0.0, self._backoff(turn, failures)))

    def _body(self, messages: list[dict[str, str]], plain: bool) -> bytes:
        form: dict[str, object] = {} if plain else {"temperature": 0, "response_format": RESPONSE_FORMAT}
        return msgspec.json.encode({"model": self.settings.model, "messages": messages} | form)

    async def _send(self, client: httpx2.AsyncClient, body: bytes) -> _Response | _Unreached:
        try:
            # the client's own timeouts are per read: one byte at a time could last for ever
            async with (
                asyncio.timeout(self.settings.timeout_seconds),
                client.stream("POST", self._url, content=body) as r,
            ):
                if r.status_code != 200:
                    return _Response(r.status_code, b"", _wait_asked(r.headers))
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

    def _place(self, turn: Turn) -> int:
        """The turn's place in [0, 2^64), uniform."""
        value = digest(b"choice", turn.event.event_id, turn.index, key=self._choice_key, size=8)
        return int.from_bytes(value, "little")

    def _backoff(self, turn: Turn, failures: int) -> float:
        """Doubling, times 0.5 to 1.5 by turn and attempt, so that turns that failed together do not return together."""
        value = digest(b"jitter", turn.event.event_id, turn.index, failures, key=self._choice_key, size=8)
        jitter = 0.5 + int.from_bytes(value, "little") / _TWO_64
        return min(LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (failures - 1) * jitter)


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    body: bytes
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Unreached:
    reason: str
    again: bool = False


class _Budget:
    """`per_hour` tokens; a spent one comes back an hour later, so no 60 minutes see more requests than that."""

    def __init__(self, per_hour: int, clock: Callable[[], float]) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._spent: deque[float] = deque()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Spend a token, if there is one."""
        with self._lock:
            now = self._clock()
            while self._spent and now - self._spent[0] >= _HOUR_SECONDS:
                self._spent.popleft()
            if len(self._spent) >= self._per_hour:
                return False
            self._spent.append(now)
            return True


def _endpoint(settings: JudgeSettings) -> tuple[httpx2.URL, bool]:
    """Where to post, and whether that is this machine."""
    try:
        url = httpx2.URL(settings.url)
    except httpx2.InvalidURL as e:
        raise ConfigError("judge.url is not an address") from e
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("judge.url must be an address such as https://api.example.com/v1")
    if url.userinfo:
        raise ConfigError(f"judge.url holds a password; put the key in {settings.api_key_variable}")
    loopback = _is_loopback(url.host)
    if url.scheme == "http" and not loopback and not settings.allow_http:
        raise ConfigError(
            "judge.url is plain http:// to another machine, where anyone on the way reads the transcripts; "
            "use https:// or set judge.allow_http = true"
        )
    path = url.path.rstrip("/")
    return url.copy_with(path=path if path.endswith("/chat/completions") else f"{path}/chat/completions"), loopback


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _wait_asked(headers: httpx2.Headers) -> float | None:
    """Seconds of Retry-After; a date counts from the server's own Date, so no clock of ours is needed."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None

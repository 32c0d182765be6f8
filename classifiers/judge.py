"""A judge for what cannot be settled offline: an OpenAI-compatible endpoint, asked about a random slice of turns.

The only part of the product that sends transcript text to another machine, and off unless configured (docs/judge.md).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import httpx2
import msgspec
import numpy as np
from numpy.typing import NDArray

from classifiers.endpoint import Endpoint, Reply
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
        self._endpoint = Endpoint(
            settings.url,
            name="judge.url",
            key_variable=settings.api_key_variable,
            timeout_seconds=settings.timeout_seconds,
            attempts=settings.attempts,
            permit=None if settings.allow_http else "set judge.allow_http = true",
            sleep=sleep,
            environment=environment,
        )
        self._system = system_prompt(settings.rubric)
        self.rubric_version = rubric_version(self._system)
        self._choice_key = digest(b"choice key", settings.choice_key, size=32)
        self._budget = _Budget(settings.per_hour, clock)
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
        async with self._endpoint.client() as client, asyncio.TaskGroup() as group:
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
        while True:
            reply = await self._endpoint.ask(
                client, self._body(messages, plain), spend=self._budget.take, place=partial(self._jitter, turn)
            )
            if not isinstance(reply, Reply):
                return reply
            if reply.status == 200:
                # remembered only once the plain form is known to help
                self._plain = self._plain or plain
                return read_completion(reply.body)
            if plain:
                return f"HTTP {reply.status}"
            plain = True

    def _body(self, messages: list[dict[str, str]], plain: bool) -> bytes:
        form: dict[str, object] = {} if plain else {"temperature": 0, "response_format": RESPONSE_FORMAT}
        return msgspec.json.encode({"model": self.settings.model, "messages": messages} | form)

    def _place(self, turn: Turn) -> int:
        """The turn's place in [0, 2^64), uniform."""
        value = digest(b"choice", turn.event.event_id, turn.index, key=self._choice_key, size=8)
        return int.from_bytes(value, "little")

    def _jitter(self, turn: Turn, failures: int) -> float:
        """In [0, 1), by turn and attempt."""
        value = digest(b"jitter", turn.event.event_id, turn.index, failures, key=self._choice_key, size=8)
        return int.from_bytes(value, "little") / _TWO_64


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

"""Drives an endpoint through scripts: some conversations at once, the turns of each in order, every answer kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

import httpx2
import msgspec

from classifiers.completion import NOT_A_COMPLETION, first_choice, tokens_said
from classifiers.endpoint import NO_BUDGET, Endpoint, Reply
from monitor.stress.journal import Answered, Journal, Run
from monitor.stress.suites import Script
from streams.surrogates import mend

FAILURES_IN_A_ROW: Final = 20
"""After so many failed turns with no answered one between them the endpoint is given up: it is not the turns."""
MOST_ANSWER_CHARACTERS: Final = 32_000
"""A longer answer is a failure: a conversation must stay within what a log's line may hold."""
CHARACTERS_A_TOKEN: Final = 4
"""For endpoints that do not say what an answer cost."""


@dataclass(slots=True)
class Budget:
    """What this run may spend; None: no limit. Tokens count when an answer comes: what is in flight goes beyond."""

    requests: int | None = None
    tokens: int | None = None
    spent_requests: int = 0
    spent_tokens: int = 0

    def take(self) -> bool:
        """Spend a request, if there is one left."""
        out_of_requests = self.requests is not None and self.spent_requests >= self.requests
        if out_of_requests or (self.tokens is not None and self.spent_tokens >= self.tokens):
            return False
        self.spent_requests += 1
        return True


@dataclass(slots=True)
class Driven:
    """What came of a run.

    Attributes
    ----------
    answered : turns, of this run.
    failed : turns that failed, by reason; a conversation ends with its first.
    gave_up : the endpoint was given up.
    """

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    out_of_budget: bool = False
    gave_up: bool = False


def drive(
    scripts: Iterable[Script],
    endpoint: Endpoint,
    journal: Journal,
    run: Run,
    *,
    concurrency: int,
    budget: Budget,
    clock: Callable[[], datetime],
    on_turn: Callable[[Driven], None] = lambda _: None,
) -> Driven:
    """Play every script from where the journal has it; not inside an event loop.

    Whatever the endpoint does, a turn is answered and kept, or counted as failed with a reason; it ends within
    `FAILURES_IN_A_ROW` timeouts of an endpoint that hangs.
    """
    driver = _Driver(endpoint, journal, run, budget, clock, on_turn)
    try:
        asyncio.run(driver.run(iter(scripts), concurrency))
    except ExceptionGroup as e:  # of the tasks; each is an error of its own, such as a full disk
        raise e.exceptions[0] from e
    return driver.done


class _Driver:
    def __init__(
        self,
        endpoint: Endpoint,
        journal: Journal,
        run: Run,
        budget: Budget,
        clock: Callable[[], datetime],
        on_turn: Callable[[Driven], None],
    ) -> None:
        self._endpoint = endpoint
        self._journal = journal
        self._run = run
        self._budget = budget
        self._clock = clock
        self._on_turn = on_turn
        self._form: int | None = None
        self._in_a_row = 0
        self.done = Driven()

    async def run(self, scripts: Iterator[Script], concurrency: int) -> None:
        async with self._endpoint.client() as client, asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._work(client, scripts))

    async def _work(self, client: httpx2.AsyncClient, scripts: Iterator[Script]) -> None:
        for script in scripts:
            await self._play(client, script)
            if self.done.gave_up or self.done.out_of_budget:
                return

    async def _play(self, client: httpx2.AsyncClient, script: Script) -> None:
        messages = [{"role": "system", "content": script.system}]
        kept = self._journal.answers.get(script.name, ())
        for turn, said in enumerate(script.messages):
            messages.append({"role": "user", "content": said})
            if turn >= len(kept):
                found = await self._turn(client, script, turn, messages)
                if isinstance(found, str):
                    self._failed(found)
                    return
                self._journal.add(found)
                self.done.answered += 1
                self._in_a_row = 0
                self._on_turn(self.done)
            messages.append({"role": "assistant", "content": self._journal.answers[script.name][turn].answer})

    def _failed(self, reason: str) -> None:
        if reason == NO_BUDGET:
            self.done.out_of_budget = True
            return
        self.done.failed[reason] += 1
        self._in_a_row += 1
        self.done.gave_up = self.done.gave_up or self._in_a_row >= FAILURES_IN_A_ROW
        self._on_turn(self.done)

    async def _turn(
        self, client: httpx2.AsyncClient, script: Script, turn: int, messages: list[dict[str, str]]
    ) -> Answered | str:
        """The answer to the last message, or why there is none."""
        # endpoints differ in what they let one ask for: the first form that is taken is kept to. What refuses it later
        # is not the endpoint but this conversation, say too long for its context: others are not to be asked otherwise
        forms = _forms(self._run, _place(self._run.seed, script.name, turn))
        refused = ""
        for form in range(len(forms)) if self._form is None else (self._form,):
            body = msgspec.json.encode({"model": self._run.model, "messages": messages} | forms[form])
            reply = await self._endpoint.ask(
                client, body, spend=self._budget.take, place=partial(_jitter, self._run.seed, script.name, turn)
            )
            if not isinstance(reply, Reply):
                return reply
            if reply.status == 200:
                if self._form is None and (form == 0 or turn == 0):
                    self._form = form
                return self._answered(script, turn, messages, mend(reply.body))
            refused = f"HTTP {reply.status}"
        return refused

    def _answered(self, script: Script, turn: int, messages: list[dict[str, str]], body: bytes) -> Answered | str:
        choice = first_choice(body)
        answer = "" if choice is None else choice.message.content or choice.message.refusal or ""
        tokens = tokens_said(body)
        if tokens is None:
            tokens = (sum(len(m["content"]) for m in messages) + len(answer)) // CHARACTERS_A_TOKEN
        self._budget.spent_tokens += tokens
        if choice is None:
            return NOT_A_COMPLETION
        if not answer.strip():
            return "answer is empty"
        if len(answer) > MOST_ANSWER_CHARACTERS:
            return "answer is too long"
        return Answered(script.name, turn, self._clock(), answer, tokens)


def _forms(run: Run, place: int) -> list[dict[str, Any]]:
    return [
        {"temperature": run.temperature, "max_tokens": run.max_tokens, "seed": place >> 33},
        {"max_completion_tokens": run.max_tokens},
        {},
    ]


def _place(*parts: str | int) -> int:
    """In [0, 2^64), uniform, by these names."""
    named = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest())


def _jitter(seed: int, script: str, turn: int, failures: int) -> float:
    return _place("jitter", seed, script, turn, failures) / 2.0**64

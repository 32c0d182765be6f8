"""The one thing read of an OpenAI-compatible chat completion: its first choice, and what it says it cost."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec


class Said(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None


class Choice(msgspec.Struct, frozen=True):
    message: Said
    finish_reason: str | None = None


class _Completion(msgspec.Struct, frozen=True):
    choices: Annotated[list[Choice], msgspec.Meta(min_length=1)]


class _Usage(msgspec.Struct, frozen=True):
    total_tokens: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class _Cost(msgspec.Struct, frozen=True):
    usage: _Usage


_COMPLETION: Final = msgspec.json.Decoder(_Completion)
_COST: Final = msgspec.json.Decoder(_Cost)
UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding bytes from outside raises."""
NOT_A_COMPLETION: Final = "response is not a chat completion"


def first_choice(body: bytes) -> Choice | None:
    """The first choice; None where the body is no chat completion."""
    try:
        return _COMPLETION.decode(body).choices[0]
    except UNREADABLE:
        return None


def tokens_said(body: bytes) -> int | None:
    """Prompt and answer in tokens, as the endpoint counts them; None where it gives no such number."""
    try:
        return _COST.decode(body).usage.total_tokens
    except UNREADABLE:
        return None

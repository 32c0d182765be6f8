"""Which vendor's protocol a request and its response speak, and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streams import anthropic, openai, responses
from streams.checks import LabelValue
from streams.conversation import RawMessage
from streams.exchange import Exchange, answers

Read = Callable[[Exchange], tuple[list[RawMessage], dict[str, LabelValue]]]

READERS: Final[dict[str, Read]] = {"openai": openai.read, "responses": responses.read, "anthropic": anthropic.read}


def vendor_of(x: Exchange) -> str:
    """The name of the protocol, by the keys of the response, then of the request."""
    response: dict[str, Any] = x.response or {}
    if "choices" in response:
        return "openai"
    if answers(response) or ("input" in x.request and "messages" not in x.request):
        return "responses"
    if (
        response.get("type") in ("message", "error")
        or isinstance(response.get("content"), list)
        or "stop_reason" in response
        or "system" in x.request
        or "anthropic_version" in x.request
    ):
        return "anthropic"
    return "openai"


def read(x: Exchange) -> tuple[list[RawMessage], dict[str, LabelValue]]:
    """Messages and labels of an exchange in whichever protocol it is."""
    return READERS[vendor_of(x)](x)

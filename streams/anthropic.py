"""Logs of Anthropic's messages API."""

from __future__ import annotations

from streams.checks import LabelValue
from streams.conversation import RawMessage, raw_messages, text_of
from streams.exchange import Exchange, no_answer


def read(x: Exchange) -> tuple[list[RawMessage], dict[str, LabelValue]]:
    """Messages with the system prompt first and the answer last, joined to its beginning where the request gave one."""
    messages = raw_messages(x.request.get("messages"), "request.messages")
    content = (x.response or {}).get("content")
    if not isinstance(content, list | str):
        raise no_answer(x)
    parts = [content] if isinstance(content, str) else content
    if messages and messages[-1].role == "assistant":
        begun = messages.pop().content
        parts = [*_joined([begun] if isinstance(begun, str) else begun or [], parts)]
    messages += raw_messages([{"role": "assistant", "content": parts}], "response.content")
    system = text_of(x.request.get("system"), "request.system")
    return ([RawMessage("system", system), *messages] if system else messages), {}


def _joined(begun: list[object], parts: list[object]) -> list[object]:
    """The response goes on where the request left off, in the middle of a sentence."""
    if begun and parts:
        before, after = text_of(begun[-1:], "request.messages"), parts[0]
        if isinstance(after, dict) and after.get("type") == "text" and isinstance(after.get("text"), str):
            return [*begun[:-1], before + after["text"], *parts[1:]]
    return [*begun, *parts]

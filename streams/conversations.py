"""Data sets as lines: ShareGPT's conversations, and a prompt with its response. Times have to be added."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from monitor.transcript import Event
from streams import canonical
from streams.checks import Limits
from streams.exchange import time_at
from streams.reasons import BadEvent

Object = dict[str, Any]

SPEAKERS: Final = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "model": "assistant", "assistant": "assistant", "system": "system",
    "function_call": "assistant", "observation": "tool", "tool": "tool", "function_response": "tool",
}  # fmt: skip
ANSWER: Final = ("response", "completion")


def is_sharegpt(line: Object) -> bool:
    return isinstance(line.get("conversations"), list)


def is_prompt(line: Object) -> bool:
    return isinstance(line.get("prompt"), str) and any(isinstance(line.get(name), str) for name in ANSWER)


def sharegpt(line: Object, now: datetime, limits: Limits, deployment: str | None) -> Event:
    """{"conversations": [{"from", "value"}]} and the fields of our own event beside it."""
    turns = line.get("conversations")
    if not isinstance(turns, list):
        raise BadEvent("conversations is missing")
    messages = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise BadEvent(f"conversations[{i}] is no object")
        role = SPEAKERS.get(str(turn.get("from", turn.get("role"))))
        if role is None:
            raise BadEvent(f"conversations[{i}].from is none of {', '.join(SPEAKERS)}")
        messages.append({"role": role, "content": turn.get("value", turn.get("content"))})
    return _event(line, messages, now, limits, deployment)


def prompt(line: Object, now: datetime, limits: Limits, deployment: str | None) -> Event:
    """{"prompt", "response" or "completion"} and the fields of our own event beside it."""
    if not isinstance(line.get("prompt"), str):
        raise BadEvent("prompt is missing" if line.get("prompt") is None else "prompt is not text")
    answer = next((line[name] for name in ANSWER if line.get(name) is not None), None)
    if not isinstance(answer, str):
        raise BadEvent("response is missing" if answer is None else "response is not text")
    messages = [{"role": "user", "content": line["prompt"]}, {"role": "assistant", "content": answer}]
    return _event(line, messages, now, limits, deployment)


def _event(line: Object, messages: list[Object], now: datetime, limits: Limits, deployment: str | None) -> Event:
    if isinstance(line.get("system"), str) and line["system"]:
        messages = [{"role": "system", "content": line["system"]}, *messages]
    if line.get("ts") is None:
        raise BadEvent("ts is missing")
    if not isinstance(line.get("model"), str):
        raise BadEvent("model is missing")
    rest = {
        "ts": time_at(line, "ts"),
        "messages": messages,
        "deployment": line.get("deployment") or deployment or "default",
        "conversation_id": line.get("conversation_id") or (i if isinstance(i := line.get("id"), str) else None),
    }
    return canonical.event({**line, **rest}, now, limits, None)

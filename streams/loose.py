"""Requests and responses as observability tools keep them: whole, messages alone, or text."""

from __future__ import annotations

import json
from typing import Any

from streams.deltas import parsed, whole

Object = dict[str, Any]


def request_of(value: object) -> Object:
    """What was asked, in the shape of a request; what is no messages counts as the user's text."""
    if isinstance(value, str):
        value = parsed(value)
    if isinstance(value, dict) and "role" not in value:
        for name in ("messages", "input", "prompt"):
            inner = value.get(name)
            if isinstance(inner, str):
                return {**value, "messages": [{"role": "user", "content": inner}]}
            if isinstance(inner, list):
                return {**value, "messages": inner}
    if isinstance(value, dict) and "role" in value:
        value = [value]
    if isinstance(value, list) and all(isinstance(m, dict) and "role" in m for m in value):
        return {"messages": value}
    return {} if value is None else {"messages": [{"role": "user", "content": _text(value)}]}


def response_of(value: object) -> Object | None:
    """What was answered, in the shape of a response; None for nothing."""
    if isinstance(value, str) and value:
        value = whole(value) or parsed(value)
    elif isinstance(value, list):
        value = whole(value) or value
    if isinstance(value, list) and value and all(isinstance(m, dict) and "role" in m for m in value):
        value = value[-1]
    if value is None or value in ("", [], {}):
        return None
    if isinstance(value, dict):
        if "choices" in value or "stop_reason" in value or isinstance(value.get("output"), list):
            return value
        if "content" in value or "tool_calls" in value:
            return {**value, "choices": [{"index": 0, "message": value}]}
        value = next((value[n] for n in ("text", "completion", "response", "answer", "output") if n in value), value)
    return {"choices": [{"index": 0, "message": {"content": _text(value)}}]}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

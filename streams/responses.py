"""Logs of OpenAI's responses API."""

from __future__ import annotations

from typing import Any

from streams.checks import LabelValue
from streams.conversation import RawMessage, raw_messages, text_of
from streams.exchange import Exchange, no_answer
from streams.reasons import BadEvent

Object = dict[str, Any]


def read(x: Exchange) -> tuple[list[RawMessage], dict[str, LabelValue]]:
    """Instructions first, then the input; all that was put out is one message, the turn to judge."""
    output = (x.response or {}).get("output")
    if not isinstance(output, list):
        raise no_answer(x)
    said = [part for i, item in enumerate(output) for part in _parts(item, f"response.output[{i}]")]
    if not said:
        raise no_answer(x)
    instructions = text_of(x.request.get("instructions"), "request.instructions")
    asked = x.request.get("input", x.request.get("messages"))
    raw: list[object] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(asked, str):
        raw.append({"role": "user", "content": asked})
    elif isinstance(asked, list):
        raw += [m for i, item in enumerate(asked) for m in _messages(item, f"request.input[{i}]")]
    elif asked is not None:
        raise BadEvent("request.input is neither text nor a list")
    messages = raw_messages(raw, "request.input")
    return [*messages, *raw_messages([{"role": "assistant", "content": said}], "response.output")], {}


def _messages(item: object, where: str) -> list[object]:
    """An item of the input as messages; reasoning, references and the like are none."""
    if isinstance(item, dict) and "role" in item:
        return [item]
    if isinstance(item, dict) and str(item.get("type")).endswith("call_output"):
        output = item.get("output")
        return [{"role": "tool", "content": output}] if isinstance(output, str | list) else []
    parts = _parts(item, where)
    return [{"role": "assistant", "content": parts}] if parts else []


def _parts(item: object, where: str) -> list[object]:
    """What an item of the output says, as parts of a message."""
    if not isinstance(item, dict):
        raise BadEvent(f"{where} is no object")
    kind = item.get("type")
    if kind == "message":
        content = item.get("content")
        return [*content] if isinstance(content, list) else [] if content is None else [content]
    if kind in ("function_call", "custom_tool_call", "mcp_call"):
        given = item.get("arguments", item.get("input"))
        call = {"type": "tool_use", "name": item.get("name"), "input": given}
        came = kind == "mcp_call" and item.get("output") is not None
        return [call, {"type": "mcp_tool_result", "content": item["output"]}] if came else [call]
    return []

"""Streamed responses -> whole ones, in the shape their vendor answers in when nothing is streamed.

A stream is the text of its server-sent events or the list of their objects. One that was cut off gives what had come.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

Object = dict[str, Any]

_ANY: Final = msgspec.json.Decoder()
_EVENTS: Final = re.compile(r"\s*+(?:data|event|id|retry)?+:")
_JSON: Final = re.compile(r"\s*+[\[{]")
_ANTHROPIC: Final = frozenset({"message_start", "message_delta", "content_block_start", "content_block_delta"})
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


def whole(value: object) -> Object | None:
    """A response as one object: itself, written as JSON text, or streamed; None when it is none of these."""
    if isinstance(value, str):
        if _EVENTS.match(value):
            return _joined([*_sent(value)])
        value = parsed(value)
    if isinstance(value, dict):
        return value
    return _joined([e for e in value if isinstance(e, dict)]) if isinstance(value, list) else None


def parsed(text: str) -> object:
    """JSON objects and lists in a text, otherwise the text."""
    if not _JSON.match(text):
        return text
    try:
        return _ANY.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return text


def _sent(text: str) -> Iterator[Object]:
    """The objects in the data lines of server-sent events; a line that was cut off is left out."""
    for line in text.splitlines():
        if line.startswith("data:") and isinstance(event := parsed(line[5:]), dict):
            yield event


def _joined(events: Sequence[Object]) -> Object | None:
    events = [e["data"] if "event" in e and isinstance(e.get("data"), dict) else e for e in events]
    for event in events:
        kind = event.get("type")
        if isinstance(event.get("choices"), list):
            return _chat(events)
        if isinstance(kind, str) and kind.startswith("response."):
            return _responses(events)
        if isinstance(kind, str) and kind in _ANTHROPIC:
            return _anthropic(events)
    return None


def _chat(chunks: Sequence[Object]) -> Object:
    """Chunks of chat completions, and of the older text completions."""
    response: Object = {}
    texts: defaultdict[int, list[str]] = defaultdict(list)
    refusals: defaultdict[int, list[str]] = defaultdict(list)
    calls: defaultdict[int, dict[object, _Call]] = defaultdict(dict)
    ended: set[int] = set()
    for chunk in chunks:
        _keep(response, chunk, "id", "model", "created")
        for i, choice in _numbered(chunk.get("choices")):
            delta = _object(choice.get("delta"))
            texts[i] += _strings(delta.get("content"), choice.get("text"))
            refusals[i] += _strings(delta.get("refusal"))
            pieces: list[tuple[object, Object]] = [*_numbered(delta.get("tool_calls"))]
            if isinstance(old := delta.get("function_call"), dict):
                pieces.append(("function_call", {"function": old}))
            for j, piece in pieces:
                inner = _object(piece.get("function")) or _object(piece.get("custom"))
                call = calls[i].setdefault(j, _Call())
                call.name += _strings(inner.get("name"))
                call.arguments += _strings(inner.get("arguments"), inner.get("input"))
            if choice.get("finish_reason"):
                ended.add(i)
    response["choices"] = [
        {
            "index": i,
            "message": {
                "content": "".join(texts[i]),
                "refusal": "".join(refusals[i]) or None,
                "tool_calls": [{"function": call.whole()} for call in calls[i].values()],
            },
        }
        for i in sorted(texts)
        if texts[i] or refusals[i] or calls[i] or i in ended
    ]
    return response


def _anthropic(events: Sequence[Object]) -> Object:
    """Events of Anthropic's messages."""
    response: Object = {"type": "message"}
    blocks: dict[int, Object] = {}
    pieces: defaultdict[int, list[str]] = defaultdict(list)
    for event in events:
        _keep(response, _object(event.get("message")), "id", "model")
        _keep(response, _object(event.get("delta")), "stop_reason")
        i = event.get("index")
        if type(i) is not int:
            continue
        if isinstance(block := event.get("content_block"), dict):
            blocks[i] = block
        pieces[i] += _strings(*(_object(event.get("delta")).get(name) for name in ("text", "partial_json")))
    for i, block in blocks.items():
        if block.get("type") == "text":
            block["text"] = "".join([*_strings(block.get("text")), *pieces[i]])
        elif pieces[i]:
            block["input"] = "".join(pieces[i])
    if "stop_reason" in response or any(b.get("text") or "name" in b for b in blocks.values()):
        response["content"] = [blocks[i] for i in sorted(blocks)]
    return response


def _responses(events: Sequence[Object]) -> Object:
    """Events of OpenAI's responses: the last one holds the whole; without it the deltas are joined."""
    response: Object = {"object": "response"}
    items: dict[int, Object] = {}
    pieces: defaultdict[int, list[str]] = defaultdict(list)
    for event in events:
        kind, inner, i = event.get("type"), _object(event.get("response")), event.get("output_index")
        if isinstance(kind, str) and kind in _ENDS and inner.get("output"):
            return inner
        _keep(response, inner, "id", "model", "created_at", "instructions", "conversation")
        if type(i) is not int:
            continue
        if isinstance(item := event.get("item"), dict):
            items[i] = item
            if kind == "response.output_item.done":
                pieces.pop(i, None)
        if kind in (
            "response.output_text.delta",
            "response.refusal.delta",
            "response.function_call_arguments.delta",
            "response.custom_tool_call_input.delta",
            "response.mcp_call_arguments.delta",
        ):
            pieces[i] += _strings(event.get("delta"))
    for i, said in pieces.items():
        item, text = items.setdefault(i, {"type": "message"}), "".join(said)
        if item.get("type") == "message":
            item["content"] = [{"type": "output_text", "text": text}]
        else:
            item["arguments"] = text
    if items:
        response["output"] = [items[i] for i in sorted(items)]
    return response


class _Call:
    """A tool call whose name and arguments come in pieces."""

    def __init__(self) -> None:
        self.name: list[str] = []
        self.arguments: list[str] = []

    def whole(self) -> Object:
        return {"name": "".join(self.name), "arguments": "".join(self.arguments)}


def _object(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _strings(*values: object) -> list[str]:
    return [v for v in values if isinstance(v, str) and v]


def _numbered(values: object) -> Iterator[tuple[int, Object]]:
    """Objects with their `index`, 0 where they name none."""
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict):
            yield (i if type(i := value.get("index")) is int else 0), value


def _keep(into: Object, source: Object, *names: str) -> None:
    for name in names:
        if source.get(name):
            into.setdefault(name, source[name])

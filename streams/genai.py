"""Spans of model calls, in the conventions they are written in -> messages, model, labels.

Tried in this order, the first that holds an answer counts:

- `gen_ai.output.messages`, on the span or on its event `gen_ai.client.inference.operation.details` (current);
- OpenInference's `llm.output_messages.N.message.*`;
- events `gen_ai.user.message` ... `gen_ai.choice` (up to version 1.36 of the conventions);
- `gen_ai.completion.N.*` (OpenLLMetry), `gen_ai.completion` as an attribute or in an event `gen_ai.content.completion`;
- OpenInference's `output.value`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from monitor.transcript import MAX_NAME
from streams.checks import LabelValue
from streams.conversation import ROLES, RawMessage, raw_messages
from streams.deltas import parsed
from streams.exchange import Exchange
from streams.loose import request_of, response_of
from streams.reasons import BadEvent
from streams.vendors import read as read_exchange

Object = dict[str, Any]

ATTRIBUTES: Final = (
    "gen_ai.", "llm.", "openinference.", "input.value", "output.value", "session.id", "traceloop.", "valuedrift.",
)  # fmt: skip
"""Beginnings of the attributes of a span that are read."""
EVENTS: Final = "gen_ai."
RESOURCE: Final = frozenset({"service.name", "deployment.environment.name", "deployment.environment"})
OPERATIONS: Final = frozenset({"chat", "text_completion", "generate_content", "completion"})
"""`gen_ai.operation.name`, or OpenLLMetry's `llm.request.type`, of calls that answer in words."""
DETAILS: Final = "gen_ai.client.inference.operation.details"
LABEL: Final = "valuedrift."
"""Attributes that begin so become labels."""
SPEAKERS: Final = {"human": "user", "ai": "assistant", "model": "assistant"}
STEPS: Final = 8
"""How deep the indexed attributes are nested at most."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is read of a span; ids in hexadecimal, attributes as plain JSON, only those named in ATTRIBUTES."""

    trace_id: str
    span_id: str
    parent_id: str
    end_ns: int
    resource: Mapping[str, object]
    attributes: Mapping[str, object]
    events: Sequence[tuple[str, Mapping[str, object]]]
    failed: bool = False
    trace_state: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """What a span says of a model call; the answer is the last message."""

    messages: list[RawMessage]
    model: str
    conversation_id: str | None
    labels: dict[str, LabelValue]


Said = tuple[list[RawMessage], int]
"""Messages with the answer last, and how many answers there were to choose from."""


def speaks(span: Span) -> bool:
    """Whether the span is one call of a model for words: no agent, tool, retrieval or embedding."""
    has = span.attributes
    if "openinference.span.kind" in has:
        return has["openinference.span.kind"] == "LLM"
    if "traceloop.span.kind" in has:
        return False
    for name in ("gen_ai.operation.name", "llm.request.type"):
        if name in has:
            return isinstance(has[name], str) and has[name] in OPERATIONS
    return any(
        name.startswith(("gen_ai.prompt", "gen_ai.completion", "gen_ai.output.messages")) for name in has
    ) or any(name.startswith(("gen_ai.choice", "gen_ai.content.completion", DETAILS)) for name, _ in span.events)


def read(span: Span) -> Call:
    """The messages of a call and what belongs to them.

    Raises
    ------
    BadEvent : no convention we know holds an answer, or what it holds is malformed.
    """
    has = dict(span.attributes)
    for name, attributes in span.events:
        if name == DETAILS:
            has = {**attributes, **has}
    said = next(
        (s for way in (_current, _openinference, _by_events, _indexed, _plain, _values) if (s := way(span, has))), None
    )
    if said is None:
        if span.failed:
            raise BadEvent("the call failed")
        raise BadEvent("the span holds no answer: let the instrumentation capture message content on spans")
    messages, choices = said
    model = _text(has, "gen_ai.response.model", "llm.model_name", "gen_ai.request.model")
    asked = _text(has, "gen_ai.request.model")
    if model is None:
        raise BadEvent("model is missing")
    labels: dict[str, LabelValue] = {
        "environment": _text(span.resource, "deployment.environment.name", "deployment.environment"),
        "provider": _text(has, "gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
        "requested_model": asked if asked != model else None,
        "choices": choices if choices > 1 else None,
    }
    for name, value in has.items():
        if name.startswith(LABEL) and isinstance(value, str | bool | int | float):
            labels[name.removeprefix(LABEL)] = value
    labels = {name: v[:MAX_NAME] if isinstance(v, str) else v for name, v in labels.items()}
    return Call(messages, model, _text(has, "gen_ai.conversation.id", "session.id"), labels)


def _text(place: Mapping[str, object], *names: str) -> str | None:
    return next((v for n in names if isinstance(v := place.get(n), str) and v), None)


# -- current ----------------------------------------------------------------------------------------------------------


def _current(span: Span, has: Mapping[str, object]) -> Said | None:
    answers = _listed(has.get("gen_ai.output.messages"))
    if not answers:
        return None
    raw = [_with_parts(m, "user") for m in _listed(has.get("gen_ai.input.messages"))]
    if instructions := _listed(has.get("gen_ai.system_instructions")):
        raw.insert(0, _with_parts({"role": "system", "parts": instructions}, "system"))
    raw.append({**_with_parts(answers[0], "assistant"), "role": "assistant"})
    return raw_messages(raw, "gen_ai.*.messages"), len(answers)


def _listed(value: object) -> list[object]:
    """Structured, or as JSON text; a text that is none is one message."""
    if isinstance(value, str):
        value = parsed(value)
    return value if isinstance(value, list) else [] if value in (None, "", {}) else [value]


def _with_parts(message: object, role: str) -> Object:
    if isinstance(message, str):
        return {"role": role, "content": message}
    if not isinstance(message, dict):
        raise BadEvent("gen_ai.*.messages holds something that is no message")
    role = _role(message.get("role"), role)
    parts = message.get("parts", message.get("content"))
    if not isinstance(parts, list):
        return {**message, "role": role, "content": parts}
    content = [_part(p) for p in parts]
    if role == "tool":
        return {"role": role, "content": [c.get("content", c) for c in content]}
    return {"role": role, "content": content}


def _part(part: object) -> Object:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise BadEvent("gen_ai.*.messages holds a part that is no object")
    kind = str(part.get("type"))
    if kind == "text":
        return {"type": "text", "text": part.get("content", part.get("text"))}
    if kind in ("tool_call", "server_tool_call"):
        return {"type": "tool_use", "name": part.get("name"), "input": part.get("arguments", part.get(kind))}
    if kind in ("tool_call_response", "server_tool_call_response"):
        came = next((part[n] for n in ("response", "result", kind) if part.get(n) is not None), "")
        return {
            "type": "tool_result",
            "content": came if isinstance(came, str) else json.dumps(came, ensure_ascii=False),
        }
    return {"type": "other"}


def _role(given: object, otherwise: str) -> str:
    """Roles of vendors as ours; an unknown one is left for `messages_of` to refuse."""
    role = given.lower() if isinstance(given, str) and given else otherwise
    return role if role in ROLES else SPEAKERS.get(role, role)


# -- OpenInference ----------------------------------------------------------------------------------------------------


def _openinference(span: Span, has: Mapping[str, object]) -> Said | None:
    answers = [*_children(_tree(has, "llm.output_messages."))]
    if not answers:
        return None
    raw = [_flat(m.get("message"), "user") for m in _children(_tree(has, "llm.input_messages."))]
    raw.append({**_flat(answers[0].get("message"), "assistant"), "role": "assistant"})
    return raw_messages(raw, "llm.*_messages"), len(answers)


def _flat(message: object, role: str) -> Object:
    """A message of indexed attributes, OpenInference's or OpenLLMetry's."""
    m: Object = message if isinstance(message, dict) else {}
    content: object = _parts_in(m.get("content"))
    if isinstance(m.get("contents"), dict):
        content = [{"type": "text", **_of(c, "message_content")} for c in _children(m["contents"])]
    calls = [
        {"function": _of(call, "function") or call}
        for c in _children(m.get("tool_calls"))
        if (call := _of(c, "tool_call") or c)
    ]
    if m.get("function_call_name"):
        calls.append(
            {"function": {"name": m["function_call_name"], "arguments": m.get("function_call_arguments_json")}}
        )
    return {"role": _role(m.get("role"), role), "content": content, "tool_calls": calls}


def _of(place: Mapping[str, Any], name: str) -> Object:
    return value if isinstance(value := place.get(name), dict) else {}


def _parts_in(content: object) -> object:
    """A list of parts written as JSON text; other texts are what was said."""
    inside = parsed(content) if isinstance(content, str) else content
    typed = isinstance(inside, list) and inside and all(isinstance(p, dict) and "type" in p for p in inside)
    return inside if typed else content


def _tree(has: Mapping[str, object], prefix: str) -> Object:
    """Indexed attributes under a prefix as nested objects: "0.message.role" -> {"0": {"message": {"role": ...}}}."""
    root: Object = {}
    for name, value in has.items():
        if not name.startswith(prefix):
            continue
        *path, leaf = name[len(prefix) :].split(".", STEPS)
        node = root
        for step in path:
            inner = node.setdefault(step, {})
            if not isinstance(inner, dict):
                break
            node = inner
        else:
            node.setdefault(leaf, value)
    return root


def _children(node: object) -> Iterator[Object]:
    """The objects under 0, 1, 2 ... in that order."""
    if isinstance(node, dict):
        numbers = [k for k in node if k.isascii() and k.isdecimal() and len(k) <= 9]
        yield from (node[k] for k in sorted(numbers, key=int) if isinstance(node[k], dict))


# -- older ------------------------------------------------------------------------------------------------------------


def _by_events(span: Span, has: Mapping[str, object]) -> Said | None:
    raw: list[Object] = []
    answers: list[tuple[int, Object]] = []
    for name, attributes in span.events:
        body = parsed(inside) if isinstance(inside := attributes.get("gen_ai.event.content"), str) else attributes
        if not isinstance(body, Mapping):
            body = {"content": body}
        kind = name.removeprefix("gen_ai.").removesuffix(".message")
        if name == "gen_ai.choice":
            message = parsed(m) if isinstance(m := body.get("message", body), str) else m
            index = body.get("index")
            answers.append(
                (
                    index if type(index) is int else 0,
                    _said(message if isinstance(message, Mapping) else {"content": message}, "assistant"),
                )
            )
        elif kind in ("system", "user", "assistant", "tool"):
            raw.append(_said(body, kind))
    if not answers:
        return None
    raw.append({**min(answers, key=lambda a: a[0])[1], "role": "assistant"})
    return raw_messages(raw, "gen_ai.*.message"), len(answers)


def _said(body: Mapping[str, object], role: str) -> Object:
    content = body.get("content")
    calls = parsed(c) if isinstance(c := body.get("tool_calls"), str) else c
    return {
        "role": _role(body.get("role"), role),
        "content": _parts_in(content) if isinstance(content, str | list) or content is None else json.dumps(content),
        "tool_calls": calls if isinstance(calls, list) else None,
    }


def _indexed(span: Span, has: Mapping[str, object]) -> Said | None:
    answers = [*_children(_tree(has, "gen_ai.completion."))]
    if not answers:
        return None
    raw = [_flat(m, "user") for m in _children(_tree(has, "gen_ai.prompt."))]
    raw.append({**_flat(answers[0], "assistant"), "role": "assistant"})
    return raw_messages(raw, "gen_ai.prompt"), len(answers)


def _plain(span: Span, has: Mapping[str, object]) -> Said | None:
    for name, attributes in span.events:
        if name in ("gen_ai.content.prompt", "gen_ai.content.completion"):
            has = {**attributes, **has}
    return _whole(has.get("gen_ai.prompt"), has.get("gen_ai.completion"))


def _values(span: Span, has: Mapping[str, object]) -> Said | None:
    return _whole(has.get("input.value"), has.get("output.value"))


def _whole(asked: object, answered: object) -> Said | None:
    response = response_of(answered)
    if response is None:
        return None
    messages, labels = read_exchange(Exchange({}, {"messages": [], **request_of(asked)}, response))
    choices = labels.get("choices")
    return messages, choices if isinstance(choices, int) else 1

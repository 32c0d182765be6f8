"""Messages as vendors write them -> plain roles and text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from monitor.transcript import Message
from streams.reasons import BadEvent

ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
    "function": "user",
}
CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
TOOL_CALL: Final = "[tool call] "
TOOL_RESULT: Final = "[tool result] "


class RawMessage(msgspec.Struct):
    """A message before its parts are read; fields not named here are ignored."""

    role: str
    content: str | list[Any] | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None
    refusal: str | None = None


def messages_of(raw: Sequence[RawMessage], limit: int) -> tuple[Message, ...]:
    """Plain messages: text kept, tool calls and results written out, everything else (images, thinking) left out.

    Raises
    ------
    BadEvent : no messages, more than `limit`, an unknown role, or a part that is none.
    """
    if not raw:
        raise BadEvent("the conversation is empty")
    if len(raw) > limit:
        raise BadEvent(f"{len(raw):,} messages are over the limit of {limit:,}")
    out: list[Message] = []
    for i, m in enumerate(raw):
        role = ROLES.get(m.role)
        if role is None:
            raise BadEvent(f"messages[{i}].role is none of {', '.join(ROLES)}")
        if type(m.content) is str and m.role in ("user", "system"):
            out.append(Message(role, m.content))
        else:
            out.extend(_plain(m, role, i))
    if len(out) > limit:
        raise BadEvent(f"{len(out):,} messages (tool results counted) are over the limit of {limit:,}")
    return tuple(out)


def _plain(m: RawMessage, role: str, i: int) -> Iterator[Message]:
    """One message; several when tool results stand between its texts."""
    if m.role in ("tool", "function"):
        yield Message(role, TOOL_RESULT + text_of(m.content, f"messages[{i}].content"))
        return
    texts: list[str] = []
    alone = True
    for j, part in enumerate([m.content] if isinstance(m.content, str) else m.content or ()):
        if isinstance(part, dict) and isinstance(kind := part.get("type"), str) and kind.endswith("tool_result"):
            if texts:
                yield Message(role, "\n".join(texts))
                texts = []
            yield Message("user", TOOL_RESULT + text_of(part.get("content"), f"messages[{i}].content[{j}].content"))
            alone = False
        elif (text := _part(part, f"messages[{i}].content[{j}]")) is not None:
            texts.append(text)
    if role == "assistant":
        if m.refusal:
            texts.append(m.refusal)
        for j, call in enumerate(m.tool_calls or ()):
            texts.append(_call(call, f"messages[{i}].tool_calls[{j}]"))
        if m.function_call is not None:
            texts.append(_call(m.function_call, f"messages[{i}].function_call"))
    if texts or alone:
        yield Message(role, "\n".join(texts))


def text_of(content: object, where: str) -> str:
    """The text of a string, a list of parts or null, a line for each part."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise BadEvent(f"{where} is neither text nor a list of parts")
    texts = (_part(part, f"{where}[{i}]") for i, part in enumerate(content))
    return "\n".join(t for t in texts if t is not None)


def _part(part: object, where: str) -> str | None:
    """The text of one part; None for a part that is no text."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise BadEvent(f"{where} is neither text nor an object")
    kind = part.get("type", "text")
    if kind in ("text", "input_text", "output_text"):
        field = "text"
    elif kind == "refusal":
        field = "refusal"
    elif isinstance(kind, str) and kind in CALLS:
        return TOOL_CALL + f"{_word(part.get('name'), where)}({_arguments(part.get('input'))})"
    else:
        return None
    text = part.get(field)
    if not isinstance(text, str):
        raise BadEvent(f"{where}.{field} is not text")
    return text


def _call(call: object, where: str) -> str:
    """A tool call of OpenAI: {"function": {name, arguments}}, {"custom": {name, input}}, or the inside alone."""
    if not isinstance(call, dict):
        raise BadEvent(f"{where} is not an object")
    inner = call.get("function", call.get("custom", call))
    if not isinstance(inner, dict):
        raise BadEvent(f"{where}.function is not an object")
    return TOOL_CALL + f"{_word(inner.get('name'), where)}({_arguments(inner.get('arguments', inner.get('input')))})"


def _word(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise BadEvent(f"{where}: the name of the tool is missing")
    return name


def _arguments(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def raw_messages(value: object, where: str) -> list[RawMessage]:
    """Decoded JSON -> messages.

    Raises
    ------
    BadEvent : it is no list of messages.
    """
    if value is None:
        raise BadEvent(f"{where} is missing")
    try:
        return msgspec.convert(value, list[RawMessage])
    except msgspec.ValidationError as e:
        raise BadEvent(f"{where}: {e}") from e


def object_at(value: Mapping[str, Any], *names: str) -> dict[str, Any] | None:
    """The first of these fields that holds an object."""
    return next((v for n in names if isinstance(v := value.get(n), dict)), None)

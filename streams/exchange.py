"""Logs of a request with its response, as gateways and SDK wrappers write them, streamed or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from monitor.transcript import MAX_NAME, Event
from streams.checks import LabelValue, Limits, checked_event
from streams.conversation import RawMessage, messages_of, object_at
from streams.deltas import whole
from streams.reasons import BadEvent

Object = dict[str, Any]

REQUEST: Final = ("request", "req", "input", "body")
RESPONSE: Final = ("response", "res", "output")
ANSWERED: Final = (*RESPONSE, "request", "req", "choices", "content")
"""Fields that our own event never has: a line with one of them is a request with its response."""
TIME: Final = ("ts", "timestamp", "time", "created_at")
DEPLOYMENT: Final = ("deployment", "service", "project")
CONVERSATION: Final = ("conversation_id", "session_id")
MILLISECONDS_FROM: Final = 1e11
"""Unix times above this are milliseconds: in seconds it is the year 5138."""


@dataclass(frozen=True)
class Exchange:
    """The three parts of a line. In a flat line (request and response merged) all three are the line itself."""

    wrapper: Object
    request: Object
    response: Object | None
    status: int | None = None
    flat: bool = False


def exchange_of(line: Object) -> Exchange | None:
    """Find request and response in a line; None when it is no such log."""
    request = object_at(line, *REQUEST)
    response = next((r for n in RESPONSE if (r := whole(line.get(n))) is not None), None)
    if request is None and response is None and isinstance(line.get("output"), list) and "input" in line:
        return Exchange(line, line, line, flat=True)
    if request is None and isinstance(line.get("input"), list):
        request = {**line, "messages": line["input"]}
    if request is None and response is not None and (isinstance(line.get("messages"), list) or answers(response)):
        request = line
    if request is None:
        if isinstance(line.get("messages"), list) and ("choices" in line or isinstance(line.get("content"), list)):
            return Exchange(line, line, line, flat=True)
        return None
    if "messages" not in request:  # an HTTP request with its headers around the body
        request = object_at(request, "body") or request
    status = _status(line, request) if response is None else _status(response, line)
    if response is not None and not any(name in response for name in ("choices", "content", "output")):
        response = whole(response.get("body")) or response
    return Exchange(line, request, response, status)


def answers(response: Object | None) -> bool:
    """Whether this is a response of OpenAI's responses API."""
    return response is not None and (response.get("object") == "response" or isinstance(response.get("output"), list))


def _status(*places: Object) -> int | None:
    for place in places:
        for name in ("status_code", "status"):
            value = place.get(name)
            if type(value) is int and 100 <= value <= 999:
                return value
    return None


def no_answer(x: Exchange) -> BadEvent:
    return BadEvent("the response holds no answer" + (f" (status {x.status})" if x.status else ""))


def event_of(
    x: Exchange,
    now: datetime,
    limits: Limits,
    deployment: str | None,
    read: Callable[[Exchange], tuple[list[RawMessage], dict[str, LabelValue]]],
) -> Event:
    """The event of an exchange; `read` gives its messages, the answer last, and labels of its own."""
    messages, labels = read(x)
    response = x.response or {}
    metadata = object_at(x.request, "metadata") or {}
    named = _first(x.wrapper, *DEPLOYMENT) or _text(metadata, "deployment", "metadata")
    model = _text(response, "model", "response") or _text(x.request, "model", "request") or _text(x.wrapper, "model")
    if model is None:
        raise BadEvent("model is missing")
    asked = _text(x.request, "model", "request")
    if asked is not None and asked != model:
        labels["requested_model"] = asked
    identity = _text(response, "id", "response") or _first(x.wrapper, "event_id", "custom_id")
    return checked_event(
        limits=limits,
        now=now,
        event_id=identity,
        ts=_time(x),
        deployment=named or deployment or "default",
        model=model,
        conversation_id=_first(x.wrapper, *CONVERSATION)
        or _text(metadata, "conversation_id", "metadata")
        or _conversation(x.request, response),
        messages=messages_of(messages, limits.max_messages),
        context=_context(x),
        labels=_labels(x, metadata, labels, limits.max_labels),
        sample_rate=_sample_rate(x),
    )


def _conversation(*places: Object) -> str | None:
    """The `conversation` of OpenAI's responses: an id, or an object with one."""
    for place in places:
        value = place.get("conversation")
        if isinstance(value, dict):
            value = value.get("id")
        if isinstance(value, str) and value:
            return value
    return None


def _text(place: Mapping[str, Any], name: str, where: str = "") -> str | None:
    value = place.get(name)
    if value is not None and not isinstance(value, str):
        raise BadEvent(f"{where}{'.' if where else ''}{name} is not text")
    return value or None


def _first(place: Mapping[str, Any], *names: str) -> str | None:
    return next((v for n in names if (v := _text(place, n))), None)


def _time(x: Exchange) -> datetime:
    response = x.response or {}
    for place, name in [*((x.wrapper, n) for n in TIME), (response, "created"), (response, "created_at")]:
        if place.get(name) is not None:
            return time_at(place, name)
    raise BadEvent("ts is missing")


def time_at(place: Object, name: str) -> datetime:
    """A time written as RFC 3339, unix seconds or unix milliseconds."""
    value = place[name]
    if isinstance(value, str):
        try:
            return msgspec.convert(value, datetime)
        except msgspec.ValidationError as e:
            raise BadEvent(f"{name} is not an RFC 3339 time") from e
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadEvent(f"{name} is neither an RFC 3339 time nor unix seconds")
    try:
        return datetime.fromtimestamp(value / 1000 if value > MILLISECONDS_FROM else value, UTC)
    except (ValueError, OverflowError, OSError) as e:
        raise BadEvent(f"{name} is out of range") from e


def _labels(x: Exchange, metadata: Object, read: dict[str, LabelValue], limit: int) -> dict[str, LabelValue]:
    """Labels of the wrapper as they are; of metadata, made for other purposes, texts that fit or are shortened to."""
    try:
        own = msgspec.convert(x.wrapper.get("labels"), dict[str, LabelValue] | None)
    except msgspec.ValidationError as e:
        raise BadEvent(f"labels: {e}") from e
    labels = {**(own or {}), **read}
    taken = {"deployment", "conversation_id"}
    for source in ({} if x.flat else object_at(x.wrapper, "metadata") or {}, metadata):
        for key, value in source.items():
            if len(labels) >= limit:
                return labels
            if isinstance(value, str) and key not in taken and key not in labels and 0 < len(key) <= MAX_NAME:
                labels[key] = value if len(value) <= MAX_NAME else value[: MAX_NAME - 1] + "…"
    return labels


def _context(x: Exchange) -> list[str] | None:
    try:
        return msgspec.convert(x.wrapper.get("context"), list[str] | None)
    except msgspec.ValidationError as e:
        raise BadEvent(f"context: {e}") from e


def _sample_rate(x: Exchange) -> float:
    value = x.wrapper.get("sample_rate")
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadEvent("sample_rate is not a number")
    return value

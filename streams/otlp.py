"""Traces of OpenTelemetry: an ExportTraceServiceRequest, as protobuf or as JSON, -> events of the model calls in it.

Data flows  request -> `Span` -> `genai` (which convention, which messages) -> `checks` -> Event.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from monitor.errors import InputError
from monitor.transcript import Event
from streams import genai
from streams.checks import DEFAULT_LIMITS, Limits, checked_event
from streams.conversation import messages_of
from streams.genai import Span
from streams.reasons import BadEvent, Skipped, bad_event
from streams.surrogates import mend

NO_REQUEST: Final = "no ExportTraceServiceRequest in protobuf"
MAX_SPANS: Final = 1 << 16
"""Most spans of a request: senders batch some hundreds to some thousands, and an empty one takes two bytes."""
MAX_DEPTH: Final = 32
"""Deepest nesting of an attribute's value: messages need six."""
MAX_ANCESTORS: Final = 64
"""How far up the outer calls of a call are looked for."""
MAX_NANOSECONDS: Final = 1 << 63
_TRACE: Final = re.compile(r"(?!0{32})[0-9a-f]{32}", re.I)
_SPAN: Final = re.compile(r"(?!0{16})[0-9a-f]{16}", re.I)
_THRESHOLD: Final = re.compile(r"(?:^|,)\s*+ot=(?:[^,;]*+;)*?th:([0-9a-f]{1,14})(?![0-9a-f])")
"""The rejection threshold of OpenTelemetry's consistent probability sampling, in a tracestate."""


def looks(line: Mapping[str, Any]) -> bool:
    return isinstance(line.get("resourceSpans"), list)


def read_json(
    data: bytes, now: datetime, *, limits: Limits = DEFAULT_LIMITS, deployment: str | None = None
) -> list[Event | BadEvent]:
    """The events of a request written as JSON (ids in hexadecimal), as exporters and the collector's files have it.

    The events and reasons of model calls come in the order of their spans; what else there was follows as `Skipped`,
    one for each reason.

    Raises
    ------
    BadEvent, msgspec.MsgspecError, UnicodeDecodeError, RecursionError : it is no such request.
    """
    try:
        request = _REQUEST.decode(data)
    except msgspec.DecodeError:
        if (mended := mend(data)) == data:
            raise
        request = _REQUEST.decode(mended)
    _few(len(scope.spans or ()) for group in request.resource_spans for scope in group.scope_spans or ())
    return _events(_json_spans(request), now, limits, deployment)


def read_protobuf(
    data: bytes, now: datetime, *, limits: Limits = DEFAULT_LIMITS, deployment: str | None = None
) -> list[Event | BadEvent]:
    """The same of a request written as protobuf.

    Raises
    ------
    BadEvent : it is no such request.
    InputError : opentelemetry-proto is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError as e:
        raise InputError("OTLP as protobuf needs an extra: pip install 'valuedrift[serve]'") from e
    _few(_protobuf_counts(data))
    try:
        request = ExportTraceServiceRequest.FromString(data)
    except DecodeError as e:
        raise BadEvent(NO_REQUEST) from e
    return _events(_protobuf_spans(request), now, limits, deployment)


def _few(counts: Iterable[int]) -> None:
    total = 0
    for count in counts:
        total += count
        if total > MAX_SPANS:
            raise BadEvent(f"more than {MAX_SPANS:,} spans: send smaller batches")


def _events(
    spans: Iterable[Span | BadEvent], now: datetime, limits: Limits, deployment: str | None
) -> list[Event | BadEvent]:
    found: list[Event | BadEvent] = []
    skipped: Counter[str] = Counter()
    calls: dict[tuple[str, str], tuple[int, Event]] = {}  # trace and span -> its place in found
    parents: dict[tuple[str, str], str] = {}
    for span in spans:
        if isinstance(span, BadEvent):
            found.append(span)
            continue
        key = (span.trace_id, span.span_id)
        parents[key] = span.parent_id
        try:
            event = _event(span, now, limits, deployment)
        except Skipped as e:
            skipped[str(e)] += 1
        except Exception as e:
            found.append(bad_event(e))
        else:
            calls[key] = (len(found), event)
            found.append(event)
    outer = set(_outer(calls, parents))
    if outer:
        found = [f for at, f in enumerate(found) if at not in outer]
        skipped["a call that repeats an inner one"] += len(outer)
    return [*found, *(Skipped(reason, count) for reason, count in skipped.items())]


def _outer(calls: Mapping[tuple[str, str], tuple[int, Event]], parents: Mapping[tuple[str, str], str]) -> Iterator[int]:
    """Calls that wrap another one and answer the same: a framework and the client below it, both traced."""
    for (trace, span), (_, event) in calls.items():
        above = span
        for _ in range(MAX_ANCESTORS):
            above = parents.get((trace, above), "")
            if not above or above == span:
                break
            if (trace, above) in calls:
                at, wrapping = calls[trace, above]
                if wrapping.messages[-1] == event.messages[-1]:
                    yield at


def _event(span: Span, now: datetime, limits: Limits, deployment: str | None) -> Event:
    if not genai.speaks(span):
        raise Skipped("a span that is no call of a model for words")
    if span.end_ns <= 0:
        raise Skipped("a span that has not ended")
    if not _TRACE.fullmatch(span.trace_id) or not _SPAN.fullmatch(span.span_id):
        raise BadEvent("traceId or spanId is not 32 or 16 hexadecimal digits")
    if span.end_ns >= MAX_NANOSECONDS:
        raise BadEvent("endTimeUnixNano is out of range")
    said = genai.read(span)
    trace = span.trace_id.lower()
    service = span.resource.get("service.name")
    named = isinstance(service, str) and service and not service.startswith("unknown_service")
    return checked_event(
        limits=limits,
        now=now,
        event_id=f"{trace}-{span.span_id.lower()}",
        ts=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=span.end_ns // 1000),
        deployment=str(service) if named else deployment or "default",
        model=said.model,
        conversation_id=said.conversation_id or trace,
        messages=messages_of(said.messages, limits.max_messages),
        labels=said.labels,
        sample_rate=_sample_rate(span.trace_state),
    )


def _sample_rate(trace_state: str) -> float:
    found = _THRESHOLD.search(trace_state)
    return 1.0 if found is None else 1 - int(found[1].ljust(14, "0"), 16) / 16**14


# -- JSON -------------------------------------------------------------------------------------------------------------


class _KeyValue(msgspec.Struct):
    key: str
    value: Any = None


class _JsonEvent(msgspec.Struct):
    name: str | None = None
    attributes: list[_KeyValue] | None = None


class _Status(msgspec.Struct):
    code: int | str | None = None


class _JsonSpan(msgspec.Struct, rename="camel"):
    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    trace_state: str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[_KeyValue] | None = None
    events: list[_JsonEvent] | None = None
    status: _Status | None = None


class _ScopeSpans(msgspec.Struct):
    spans: list[_JsonSpan] | None = None


class _Resource(msgspec.Struct):
    attributes: list[_KeyValue] | None = None


class _ResourceSpans(msgspec.Struct, rename="camel"):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None


class _Request(msgspec.Struct, rename="camel"):
    resource_spans: list[_ResourceSpans]


_REQUEST: Final = msgspec.json.Decoder(_Request)


def _json_spans(request: _Request) -> Iterator[Span | BadEvent]:
    for group in request.resource_spans:
        given = group.resource.attributes if group.resource else None
        try:
            resource = {kv.key: _json_value(kv.value) for kv in given or () if kv.key in genai.RESOURCE}
        except Exception as e:
            yield bad_event(e)
            continue
        for scope in group.scope_spans or ():
            for span in scope.spans or ():
                try:
                    yield _json_span(span, resource)
                except Exception as e:
                    yield bad_event(e)


def _json_span(span: _JsonSpan, resource: Mapping[str, object]) -> Span:
    return Span(
        span.trace_id,
        span.span_id,
        span.parent_span_id or "",
        _integer(span.end_time_unix_nano, "endTimeUnixNano"),
        resource,
        _json_attributes(span.attributes, genai.ATTRIBUTES),
        [
            (e.name, _json_attributes(e.attributes))
            for e in span.events or ()
            if e.name and e.name.startswith(genai.EVENTS)
        ],
        span.status is not None and span.status.code in (2, "STATUS_CODE_ERROR"),
        span.trace_state or "",
    )


def _json_attributes(
    attributes: Iterable[_KeyValue] | None, beginning: str | tuple[str, ...] = ""
) -> dict[str, object]:
    return {kv.key: _json_value(kv.value) for kv in attributes or () if kv.key.startswith(beginning)}


def _json_value(value: object, depth: int = MAX_DEPTH) -> object:
    """An AnyValue as plain JSON; bytes are left out."""
    if depth == 0:
        raise BadEvent("nested too deeply")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadEvent("the value of an attribute is no AnyValue")
    if isinstance(inner := value.get("arrayValue"), dict) and isinstance(listed := inner.get("values", []), list):
        return [_json_value(v, depth - 1) for v in listed]
    if isinstance(inner := value.get("kvlistValue"), dict) and isinstance(listed := inner.get("values", []), list):
        return {
            kv["key"]: _json_value(kv.get("value"), depth - 1)
            for kv in listed
            if isinstance(kv, dict) and isinstance(kv.get("key"), str)
        }
    if "intValue" in value:
        return _integer(value["intValue"], "intValue")
    plain = next((value[n] for n in ("stringValue", "boolValue", "doubleValue") if n in value), None)
    if isinstance(plain, list | dict):
        raise BadEvent("the value of an attribute is no AnyValue")
    return plain


def _integer(value: int | str | None, name: str) -> int:
    """64 bits, which JSON writes as text."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
        return int(value)
    if value is None or type(value) is int:
        return value or 0
    raise BadEvent(f"{name} is no whole number")


# -- protobuf ---------------------------------------------------------------------------------------------------------


def _protobuf_counts(data: bytes) -> Iterator[int]:
    """A one for every span, before protobuf makes objects of some hundred bytes out of two."""
    for group in _inside(data, 0, len(data), 1):
        for scope in _inside(data, *group, 2):
            for _ in _inside(data, *scope, 2):
                yield 1


def _inside(data: bytes, at: int, end: int, number: int) -> Iterator[tuple[int, int]]:
    """Where the messages in the field of this number lie, from and to which byte."""
    while at < end:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == 0:
            _, at = _varint(data, at, end)
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(data, at, end)
        if size is None or at + size > end:
            raise BadEvent(NO_REQUEST)
        if wire == 2 and tag >> 3 == number:
            yield at, at + size
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise BadEvent(NO_REQUEST)


def _protobuf_spans(request: Any) -> Iterator[Span | BadEvent]:
    for group in request.resource_spans:
        try:
            resource = {
                kv.key: _protobuf_value(kv.value) for kv in group.resource.attributes if kv.key in genai.RESOURCE
            }
        except BadEvent as e:
            yield e
            continue
        for scope in group.scope_spans:
            for span in scope.spans:
                try:
                    yield Span(
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.end_time_unix_nano,
                        resource,
                        _protobuf_attributes(span.attributes, genai.ATTRIBUTES),
                        [
                            (e.name, _protobuf_attributes(e.attributes))
                            for e in span.events
                            if e.name.startswith(genai.EVENTS)
                        ],
                        span.status.code == 2,
                        span.trace_state,
                    )
                except BadEvent as e:
                    yield e


def _protobuf_attributes(attributes: Any, beginning: str | tuple[str, ...] = "") -> dict[str, object]:
    return {kv.key: _protobuf_value(kv.value) for kv in attributes if kv.key.startswith(beginning)}


def _protobuf_value(value: Any, depth: int = MAX_DEPTH) -> object:
    if depth == 0:
        raise BadEvent("nested too deeply")
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_protobuf_value(v, depth - 1) for v in value.array_value.values]
    if kind == "kvlist_value":
        return {kv.key: _protobuf_value(kv.value, depth - 1) for kv in value.kvlist_value.values}
    return getattr(value, kind) if kind in ("string_value", "bool_value", "int_value", "double_value") else None

"""Traces as events: which spans are calls, in which convention, and that nothing a sender writes gets through."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from monitor.transcript import Event
from streams.formats import BadEvent, Decoder, Skipped, detect
from streams.otlp import MAX_DEPTH, MAX_SPANS, read_json, read_protobuf
from tests.unit.format_cases import ANTHROPIC, CURRENT, OPENAI, OTLP, RESPONSES, any_value, line, request, said, span

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"
ASKED = [("user", "Where is my parcel?")]
TALK = [
    ("system", "Help with orders."),
    ("user", "Where is my parcel?"),
    ("assistant", '[tool call] find({"n": 1})'),
    ("user", "[tool result] in the depot"),
    ("assistant", "In the depot."),
]

Found = list[Event | BadEvent]


def protobuf(message: dict[str, Any]) -> bytes:
    """The same request as protobuf, its ids as bytes."""
    from google.protobuf.json_format import ParseDict

    written = json.loads(json.dumps(message))
    ids: list[tuple[str, str, str]] = []
    for group in written["resourceSpans"]:
        for scope in group["scopeSpans"]:
            for s in scope["spans"]:
                ids.append((s.pop("traceId"), s.pop("spanId"), s.pop("parentSpanId", "")))
    out = ParseDict(written, ExportTraceServiceRequest())
    spans = [s for group in out.resource_spans for scope in group.scope_spans for s in scope.spans]
    for s, (trace, own, parent) in zip(spans, ids, strict=True):
        s.trace_id, s.span_id, s.parent_span_id = (bytes.fromhex(i) for i in (trace, own, parent))
    return bytes(out.SerializeToString())


def read(message: dict[str, Any], **kw: Any) -> Found:
    """What a request holds; the same from JSON and from protobuf."""
    found = read_json(line(message), NOW, **kw)
    other = read_protobuf(protobuf(message), NOW, **kw)
    assert [f if isinstance(f, Event) else str(f) for f in found] == [
        f if isinstance(f, Event) else str(f) for f in other
    ]
    return found


def one(*spans: dict[str, Any], **resource: Any) -> Event:
    (event,) = read(request(*spans, **resource))
    assert isinstance(event, Event)
    return event


def why(*spans: dict[str, Any]) -> list[str]:
    found = read(request(*spans))
    assert all(isinstance(f, BadEvent) for f in found)
    return [str(f) for f in found]


# -- conventions ------------------------------------------------------------------------------------------------------


def test_current_conventions() -> None:
    """Ids make the event's, the service is the deployment, the end of the span is its time."""
    event = one(span(**CURRENT), deployment__environment__name="production")
    assert (event.event_id, event.deployment, event.model) == (f"{TRACE}-{1:016x}", "shop", "m-1-x")
    assert event.ts == datetime(2026, 3, 1, 11, 59, 59, 500000, tzinfo=UTC)
    assert event.conversation_id == "c1"
    assert event.labels == {"environment": "production", "provider": "openai", "requested_model": "m-1"}
    assert said(event) == TALK
    assert Decoder().decode(line(OTLP), NOW) == event
    assert detect([line(OTLP)]) == "otlp"


def test_structured_messages_and_event() -> None:
    """Structured values read like JSON text, on the span or on its event."""
    names = ("gen_ai__system_instructions", "gen_ai__input__messages", "gen_ai__output__messages")
    structured = {n: json.loads(CURRENT[n]) for n in names}
    rest = {k: v for k, v in CURRENT.items() if k not in names}
    assert said(one(span(**rest, **structured))) == TALK
    details = {k.replace("__", "."): v for k, v in structured.items()}
    assert said(one(span(**rest, events=[("gen_ai.client.inference.operation.details", details)]))) == TALK


EVENTS = [
    ("gen_ai.system.message", {"content": "Help with orders."}),
    ("gen_ai.user.message", {"content": "Where is my parcel?"}),
    ("gen_ai.assistant.message", {"tool_calls": json.dumps([{"function": {"name": "find", "arguments": '{"n": 1}'}}])}),
    ("gen_ai.tool.message", {"id": "t", "content": "in the depot"}),
    ("gen_ai.choice", {"index": 1, "message": json.dumps({"content": "The second."})}),
    ("gen_ai.choice", {"index": 0, "message": json.dumps({"content": "In the depot."}), "finish_reason": "stop"}),
]
INDEXED = {
    "llm__request__type": "chat",
    "gen_ai__system": "OpenAI",
    "gen_ai__request__model": "m-1",
    "gen_ai__prompt__0__role": "system",
    "gen_ai__prompt__0__content": "Help with orders.",
    "gen_ai__prompt__1__role": "user",
    "gen_ai__prompt__1__content": json.dumps([{"type": "text", "text": "Where is my parcel?"}]),
    "gen_ai__prompt__2__role": "assistant",
    "gen_ai__prompt__2__tool_calls__0__name": "find",
    "gen_ai__prompt__2__tool_calls__0__arguments": '{"n": 1}',
    "gen_ai__prompt__3__role": "tool",
    "gen_ai__prompt__3__content": "in the depot",
    "gen_ai__completion__0__role": "assistant",
    "gen_ai__completion__0__content": "In the depot.",
}
OPENINFERENCE = {
    "openinference__span__kind": "LLM",
    "llm__model_name": "m-1",
    "session__id": "s1",
    "llm__input_messages__0__message__role": "system",
    "llm__input_messages__0__message__content": "Help with orders.",
    "llm__input_messages__1__message__role": "user",
    "llm__input_messages__1__message__contents__0__message_content__type": "text",
    "llm__input_messages__1__message__contents__0__message_content__text": "Where is my parcel?",
    "llm__input_messages__1__message__contents__1__message_content__type": "image",
    "llm__input_messages__2__message__role": "assistant",
    "llm__input_messages__2__message__tool_calls__0__tool_call__function__name": "find",
    "llm__input_messages__2__message__tool_calls__0__tool_call__function__arguments": '{"n": 1}',
    "llm__input_messages__3__message__role": "tool",
    "llm__input_messages__3__message__content": "in the depot",
    "llm__output_messages__0__message__role": "assistant",
    "llm__output_messages__0__message__content": "In the depot.",
    "input__value": "{}",
    "output__value": "{}",
}
MODEL = {"gen_ai__request__model": "m-1"}
CHAT = {"gen_ai__operation__name": "chat", **MODEL}


def test_event_based_conventions() -> None:
    """Events with flat attributes, or with their content as JSON text; choice 0 is judged, a label counts them."""
    event = one(span(**CHAT, events=EVENTS))
    assert said(event) == TALK
    assert event.labels == {"choices": "2"}
    inside = [
        (
            name,
            {
                "gen_ai.system": "x",
                "gen_ai.event.content": json.dumps(
                    {k: json.loads(v) if k in ("message", "tool_calls") else v for k, v in given.items()}
                ),
            },
        )
        for name, given in EVENTS
    ]
    assert said(one(span(**CHAT, events=inside))) == TALK


def test_indexed_attributes() -> None:
    """As OpenLLMetry writes them; eleven messages come in the order of their numbers, not of their digits."""
    assert said(one(span(**INDEXED))) == TALK
    many = {f"gen_ai__prompt__{i}__content": str(i) for i in range(11)}
    assert [m.content for m in one(span(**CHAT, **many, gen_ai__completion__0__content="a")).messages] == [
        *map(str, range(11)),
        "a",
    ]


@pytest.mark.parametrize(
    "spans",
    [
        span(**CHAT, gen_ai__prompt="Where is my parcel?", gen_ai__completion="In the depot."),
        span(
            **CHAT,
            gen_ai__prompt=json.dumps([{"role": "user", "content": "Where is my parcel?"}]),
            gen_ai__completion=json.dumps([{"role": "assistant", "content": "In the depot."}]),
        ),
        span(
            **CHAT,
            events=[
                ("gen_ai.content.prompt", {"gen_ai.prompt": "Where is my parcel?"}),
                ("gen_ai.content.completion", {"gen_ai.completion": "In the depot."}),
            ],
        ),
        span(
            openinference__span__kind="LLM",
            llm__model_name="m-1",
            input__value="Where is my parcel?",
            output__value="In the depot.",
        ),
    ],
)
def test_oldest_conventions(spans: dict[str, Any]) -> None:
    """One text each, or messages as JSON text."""
    assert said(one(spans)) == [*ASKED, ("assistant", "In the depot.")]


@pytest.mark.parametrize("log", [OPENAI, RESPONSES, ANTHROPIC])
def test_whole_requests_as_values(log: dict[str, Any]) -> None:
    """Instrumentations that keep the vendor's request and response: they read as in that vendor's log."""
    values = {"input__value": json.dumps(log["request"]), "output__value": json.dumps(log["response"])}
    event = one(span(openinference__span__kind="LLM", llm__model_name="m-1", **values))
    assert event.messages == Decoder().decode(line(log), NOW).messages


def test_openinference() -> None:
    event = one(span(**OPENINFERENCE))
    assert said(event) == TALK
    assert (event.model, event.conversation_id) == ("m-1", "s1")


def test_ids_deployment_and_labels() -> None:
    """Without a conversation the trace is one; without a service the default deployment; own attributes are labels."""
    plain = {k: v for k, v in CURRENT.items() if "conversation" not in k}
    bare = request(
        span(**plain, valuedrift__flagged=True, valuedrift__route="chat"), service__name="unknown_service:py"
    )
    (event,) = read(bare, deployment="web")
    assert isinstance(event, Event)
    assert (event.deployment, event.conversation_id) == ("web", TRACE)
    assert event.labels is not None
    assert (event.labels["flagged"], event.labels["route"]) == ("true", "chat")
    assert one(span(**plain), service__name="").deployment == "default"
    long = one(span(**plain), deployment__environment="x" * 300).labels
    assert long is not None
    assert long["environment"] == "x" * 200


def test_sampled_traces_weigh_more() -> None:
    """A trace that was sampled says with which probability (tracestate, ot=th)."""
    for state, rate in (("ot=th:c", 0.25), ("x=1,ot=rv:1;th:8", 0.5), ("ot=th:0", 1.0), ("", 1.0), ("x=th:c", 1.0)):
        assert one({**span(**CURRENT), "traceState": state}).sample_rate == rate
    assert "sample_rate" in why({**span(**CURRENT), "traceState": "ot=th:ffffffffffffff"})[0]


# -- what is no call --------------------------------------------------------------------------------------------------


def test_other_spans_are_counted() -> None:
    """Tools, agents, embeddings and spans of the rest of the application: one Skipped for all of them."""
    others = [
        span(2, http__method="GET"),
        span(3, gen_ai__operation__name="embeddings", **MODEL),
        span(4, **{**CURRENT, "gen_ai__operation__name": "invoke_agent"}),
        span(5, gen_ai__operation__name="execute_tool", gen_ai__tool__name="find"),
        span(6, **{**OPENINFERENCE, "openinference__span__kind": "CHAIN"}),
        span(7, traceloop__span__kind="workflow", gen_ai__prompt="q", gen_ai__completion="a"),
    ]
    event, skipped = read(request(span(1, **CURRENT), *others))
    assert isinstance(event, Event)
    assert isinstance(skipped, Skipped)
    assert (str(skipped), skipped.count) == ("a span that is no call of a model for words", 6)


def test_unfinished_calls() -> None:
    found = read(request({**span(**CURRENT), "endTimeUnixNano": "0"}))
    assert [str(f) for f in found] == ["a span that has not ended"]
    assert isinstance(found[0], Skipped)


def test_nested_calls_count_once() -> None:
    """A framework's span round the client's, with others between: the inner one is judged, whichever comes first."""
    inner, outer = span(3, parent=2, **CURRENT), span(1, **OPENINFERENCE)
    between = span(2, parent=1, http__method="POST")
    for spans in ([inner, between, outer], [outer, between, inner]):
        found = read(request(*spans))
        events = [f for f in found if isinstance(f, Event)]
        assert [e.event_id for e in events] == [f"{TRACE}-{3:016x}"]
        assert {str(f): f.count for f in found if isinstance(f, Skipped)} == {
            "a call that repeats an inner one": 1,
            "a span that is no call of a model for words": 1,
        }
    other = span(1, **{**OPENINFERENCE, "llm__output_messages__0__message__content": "Something else."})
    assert len([f for f in read(request(inner, between, other)) if isinstance(f, Event)]) == 2
    elsewhere = {**outer, "traceId": "1" * 32}
    assert len([f for f in read(request(inner, between, elsewhere)) if isinstance(f, Event)]) == 2


def test_parents_in_a_circle() -> None:
    """Spans that are each other's parents end somewhere."""
    found = read(request(span(1, parent=2, **CURRENT), span(2, parent=1, **CURRENT), span(3, parent=3, **CURRENT)))
    assert isinstance(found[0], Event)


def test_reasons_of_calls() -> None:
    """A call without its content says how to get it; a bad span costs the others nothing."""
    assert why(span(**CHAT)) == ["the span holds no answer: let the instrumentation capture message content on spans"]
    assert why({**span(**CHAT), "status": {"code": 2}}) == ["the call failed"]
    assert why(span(**{k: v for k, v in CURRENT.items() if "model" not in k})) == ["model is missing"]
    bad = [
        {**span(2, **CURRENT), "traceId": "0" * 32},
        span(3, **{**CURRENT, "gen_ai__output__messages": "[5]"}),
        {**span(4, **CURRENT), "endTimeUnixNano": str((1 << 64) - 1)},
        {**span(5, **CURRENT), "endTimeUnixNano": "1"},
    ]
    found = read(request(bad[0], span(1, **CURRENT), *bad[1:]))
    assert [str(f) for f in found if isinstance(f, BadEvent)] == [
        "traceId or spanId is not 32 or 16 hexadecimal digits",
        "gen_ai.*.messages holds something that is no message",
        "endTimeUnixNano is out of range",
        "ts 1970-01-01T00:00:00+00:00 is before 2000-01-01",
    ]
    assert [f.event_id for f in found if isinstance(f, Event)] == [f"{TRACE}-{1:016x}"]


# -- hostile input ----------------------------------------------------------------------------------------------------


def nested(depth: int) -> AnyValue:
    value = AnyValue(string_value="x")
    for _ in range(depth):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    return value


def test_deep_values() -> None:
    """Attributes nested deeper than messages can be are a reason, for the span that has them."""
    message = request(span(**CURRENT), span(2, **CURRENT))
    spans = message["resourceSpans"][0]["scopeSpans"][0]["spans"]
    deep: Any = {"stringValue": "x"}
    for _ in range(MAX_DEPTH):
        deep = {"arrayValue": {"values": [deep]}}
    spans[0]["attributes"][-1]["value"] = deep
    for found in (read_json(line(message), NOW), read(message)):
        assert [str(f) if isinstance(f, BadEvent) else f.event_id for f in found] == [
            "nested too deeply",
            f"{TRACE}-{2:016x}",
        ]
    bytes_of_it = ExportTraceServiceRequest()
    one_span = bytes_of_it.resource_spans.add().scope_spans.add().spans.add()
    one_span.attributes.append(KeyValue(key="gen_ai.x", value=nested(40)))
    assert str(read_protobuf(bytes_of_it.SerializeToString(), NOW)[0]) == "nested too deeply"
    endless = b'{"resourceSpans":' + b'[{"a":' * 100_000
    assert isinstance(Decoder("otlp").decode_all(endless, NOW)[0], BadEvent)


def test_huge_counts() -> None:
    """More messages than an event may have, and indexes without end."""
    many = {f"gen_ai__prompt__{i}__content": "x" for i in range(2001)}
    assert why(span(**CHAT, **many, gen_ai__completion__0__content="a")) == [
        "2,002 messages are over the limit of 2,000"
    ]
    sparse = {f"gen_ai__prompt__{'9' * n}__content": "x" for n in (1, 9, 10, 5000)}
    event = one(span(**CHAT, **sparse, gen_ai__completion__0__content="a"))
    assert len(event.messages) == 3
    dots = {"llm__output_messages__" + "a__" * 5000: "x", **CURRENT}
    assert said(one(span(**dots))) == TALK


def field(number: int, inside: bytes) -> bytes:
    """A message inside a message of protobuf."""
    size, length = len(inside), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + inside


def test_too_many_spans() -> None:
    """Two bytes make a span: they are counted before they become objects, wherever they are put."""
    within = field(1, field(2, b"\x12\x00" * MAX_SPANS))
    (skipped,) = read_protobuf(within, NOW)
    assert isinstance(skipped, Skipped)
    assert skipped.count == MAX_SPANS
    unknown = b"\x78\x05" + b"\x79" + bytes(8) + b"\x7d" + bytes(4) + field(14, b"x" * 300)
    for data in (
        field(1, field(2, b"\x12\x00" * (MAX_SPANS + 1))),
        within + field(1, field(2, b"\x12\x00")),
        unknown + field(1, unknown + field(2, unknown + b"\x12\x00" * (MAX_SPANS + 1))),
    ):
        with pytest.raises(BadEvent, match="more than 65,536 spans"):
            read_protobuf(data, NOW)
    with pytest.raises(BadEvent, match="no ExportTraceServiceRequest"):
        read_protobuf(b"\x7b\x7c" + within, NOW)  # a group, which would hide what follows
    bare = b'{"traceId":"","spanId":""}'
    many = b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b",".join([bare] * (MAX_SPANS + 1)) + b"]}]}]}"
    assert [str(f) for f in Decoder("otlp").decode_all(many, NOW)] == ["more than 65,536 spans: send smaller batches"]


def test_halves_of_surrogate_pairs() -> None:
    """A text cut in the middle of an emoji costs nobody a batch."""
    cut = span(**CHAT, gen_ai__prompt="q", gen_ai__completion="half ?")
    (event,) = read_json(line(request(cut)).replace(b"half ?", b"half \\ud83d"), NOW)
    assert isinstance(event, Event)
    assert event.messages[-1].content == "half \ufffd"


def test_roles_of_other_vendors() -> None:
    """Some write Human and AI."""
    messages = {
        "gen_ai__input__messages": json.dumps([{"role": "Human", "parts": [{"type": "text", "content": "q"}]}]),
        "gen_ai__output__messages": json.dumps([{"role": "AI", "parts": [{"type": "text", "content": "a"}]}]),
    }
    assert said(one(span(**CHAT, **messages))) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"resourceSpans":{}}',
        b'{"resourceSpans":[5]}',
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}',
    ],
)
def test_no_requests(data: bytes) -> None:
    (bad,) = Decoder("otlp").decode_all(data, NOW)
    assert isinstance(bad, BadEvent)
    assert not str(bad).startswith("cannot be decoded")


def test_no_protobuf() -> None:
    with pytest.raises(BadEvent, match="no ExportTraceServiceRequest"):
        read_protobuf(b"\xff" * 20, NOW)
    assert read_protobuf(b"", NOW) == []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 1500), st.integers(0, 400))
@example(b"", 0, 0)
def test_any_protobuf(junk: bytes, at: int, cut: int) -> None:
    """Bytes written over, into or instead of a request: events or reasons, never another exception."""
    whole = protobuf(OTLP)
    for data in (junk, whole[:at] + junk + whole[at + cut :]):
        try:
            found = read_protobuf(data, NOW)
        except BadEvent:
            continue
        for f in found:
            assert isinstance(f, Event) or not str(f).startswith("cannot be decoded")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "parts", "name", "arguments", "text", "response", "message"]),
            inner | st.sampled_from(["text", "tool_call", "tool_call_response", "assistant", "tool"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)
NAMES = [
    "gen_ai.output.messages", "gen_ai.input.messages", "gen_ai.system_instructions", "gen_ai.request.model",
    "llm.output_messages.0.message", "llm.output_messages.0.message.content", "llm.input_messages.0.message.role",
    "llm.output_messages.0.message.tool_calls.0", "gen_ai.completion", "gen_ai.completion.0.content",
    "gen_ai.completion.0", "gen_ai.prompt", "gen_ai.prompt.0.tool_calls", "input.value", "output.value",
    "openinference.span.kind", "gen_ai.operation.name", "gen_ai.conversation.id", "valuedrift.x", "valuedrift.",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES | VALUES.map(json.dumps), max_size=6),
    st.lists(
        st.tuples(
            st.sampled_from(["gen_ai.choice", "gen_ai.user.message", "gen_ai.content.completion"]),
            st.dictionaries(
                st.sampled_from(["content", "message", "role", "tool_calls", "index", "gen_ai.event.content"]),
                VALUES | VALUES.map(json.dumps),
                max_size=4,
            ),
        ),
        max_size=3,
    ),
    st.sampled_from([CHAT, CURRENT, INDEXED, OPENINFERENCE, MODEL, {}]),
)  # fmt: skip
def test_any_attributes(changes: dict[str, Any], events: Any, base: dict[str, Any]) -> None:
    """Whatever stands in the attributes: an event or a reason that we gave on purpose, alike in JSON and protobuf."""
    mixed = span(**base, events=[])
    mixed["attributes"] += [{"key": k, "value": typed(v)} for k, v in changes.items()]
    mixed["events"] = [
        {"name": n, "attributes": [{"key": k, "value": typed(v)} for k, v in given.items()]} for n, given in events
    ]
    for f in read(request(mixed)):
        assert isinstance(f, Event) or not str(f).startswith("cannot be decoded")


def typed(value: Any) -> dict[str, Any]:
    return {} if value is None else any_value(value)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_json(draw: st.DataObject) -> None:
    """Anything put anywhere into a request."""
    message = json.loads(line(OTLP))
    place: Any = message
    while True:
        key = draw.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    place[key] = draw.draw(VALUES)
    for f in Decoder("otlp").decode_all(line(message), NOW):
        assert isinstance(f, Event) or not str(f).startswith("cannot be decoded")

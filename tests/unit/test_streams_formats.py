"""Lines of logs as events: our own, OpenAI's and Anthropic's, and the reasons of dead letters."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.transcript import Message, default_event_id, turns_of
from streams.formats import FORMATS, BadEvent, Decoder, Limits, detect
from tests.unit.format_cases import ANTHROPIC, CANONICAL, LOGS, OPENAI, line

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def canonical(**changes: Any) -> bytes:
    """The canonical event with other fields; None removes one."""
    return line({k: v for k, v in {**CANONICAL, **changes}.items() if v is not None})


def decode(data: bytes, format: str | None = "canonical", **kw: Any) -> Any:
    return Decoder(format, **kw).decode(data, NOW)


def reason(data: bytes, format: str | None = "canonical", **kw: Any) -> str:
    with pytest.raises(BadEvent) as e:
        decode(data, format, **kw)
    return str(e.value)


def decode_or_reason(data: bytes, format: str | None) -> tuple[Any, str]:
    try:
        return decode(data, format), ""
    except BadEvent as e:
        return None, str(e)


def test_canonical_event() -> None:
    """Every field arrives, time in UTC, developers speak as the system."""
    event = decode(
        canonical(judge="all", context=["doc"], labels={"a": "b", "n": 1.5, "y": True, "z": None}, sample_rate=0.25)
    )
    assert (event.event_id, event.deployment, event.model, event.conversation_id) == ("e1", "shop", "m-1", "c1")
    assert event.ts == datetime(2026, 3, 1, 11, tzinfo=UTC)
    assert event.ts.tzinfo is UTC
    assert [m.role for m in event.messages] == ["system", "user", "assistant"]
    assert event.messages[2] == Message("assistant", "It left the depot today.")
    assert (event.judge_all, event.context, event.sample_rate) == (True, ("doc",), 0.25)
    assert event.labels == {"a": "b", "n": "1.5", "y": "true"}


def test_what_is_optional() -> None:
    """Without ids the event is named by a hash of what it says, always the same; unknown fields do not matter."""
    event = decode(canonical(event_id=None, conversation_id=None, whatever=[{"deep": {}}]))
    assert event.event_id == default_event_id("shop", None, event.ts, event.messages) == event.conversation_id
    assert (event.judge_all, event.context, event.labels, event.sample_rate) == (False, (), None, 1.0)
    assert decode(canonical(event_id="", conversation_id="", ts="2026-03-01T11:00:00Z")).event_id == event.event_id
    assert decode(canonical(event_id=None)).event_id != event.event_id


def test_default_deployment() -> None:
    """A deployment given from outside is taken by events that name none, and only by them."""
    assert decode(canonical(deployment=None), deployment="web").deployment == "web"
    assert decode(canonical(), deployment="web").deployment == "shop"
    flat = {**OPENAI["request"], **OPENAI["response"], "ts": OPENAI["timestamp"]}
    assert decode(line(flat), "openai", deployment="web").deployment == "web"
    assert decode(line(flat), "openai").deployment == "default"


SAY = [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (canonical(ts=None), "missing required field `ts`"),
        (canonical(ts="2026-03-01T11:00:00"), "timezone"),
        (canonical(ts="yesterday"), "RFC3339"),
        (canonical(ts=5), "$.ts"),
        (canonical(ts="2026-03-01T12:05:01Z"), "ts 2026-03-01T12:05:01+00:00 is in the future"),
        (canonical(ts="9999-12-31T23:59:59-23:59"), "in the future"),
        (canonical(ts="0001-01-01T00:00:00+23:59"), "before 2000-01-01"),
        (canonical(ts="1999-12-31T23:59:59Z"), "before 2000-01-01"),
        (canonical(deployment=None), "deployment is missing"),
        (canonical(deployment=""), "deployment is empty"),
        (canonical(model=None), "missing required field `model`"),
        (canonical(model="m\0"), "model contains NUL"),
        (canonical(model="m" * 201), "model has 201 characters"),
        (canonical(event_id="e" * 201), "event_id has 201"),
        (canonical(event_id=5), "$.event_id"),
        (canonical(conversation_id="\0"), "conversation_id contains NUL"),
        (canonical(messages=None), "missing required field `messages`"),
        (canonical(messages=[]), "the conversation is empty"),
        (canonical(messages=[{"role": "user", "content": "x"}]), "no assistant message to judge"),
        (canonical(messages=[{"role": "secret words", "content": "x"}]), "messages[0].role is none of"),
        (canonical(messages=[{"role": "assistant", "content": {}}]), "$.messages[0].content"),
        (canonical(messages=[{"role": "assistant", "content": [5]}]), "messages[0].content[0] is neither"),
        (canonical(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
        (canonical(messages=SAY * 2001), "2,001 messages are over the limit of 2,000"),
        (canonical(judge="secret words"), "judge is neither"),
        (canonical(context=["x"] * 65), "65 context documents"),
        (canonical(context="x"), "$.context"),
        (canonical(labels={str(i): "x" for i in range(33)}), "more than 32 labels"),
        (canonical(labels={"secret words": "x" * 201}), "the value of a label has 201"),
        (canonical(labels={"a": 10**300}), "the value of a label has 301"),
        (canonical(labels={"secret words": []}), "$.labels[...]"),
        (canonical(labels={"a\0": "x"}), "the name of a label contains NUL"),
        (canonical(sample_rate=0), "outside (0, 1]"),
        (canonical(sample_rate=1.01), "outside (0, 1]"),
        (canonical(sample_rate=-1), "outside (0, 1]"),
        (canonical(sample_rate=0.0009), "below 1/1024"),
        (canonical(sample_rate=True), "$.sample_rate"),
        (canonical(sample_rate=float("nan")), "malformed"),
        (canonical(sample_rate=0.5).replace(b"0.5", b"1e400"), "out of range"),
        (canonical().replace(b"shop", b"sh\xffop"), "not UTF-8 (byte"),
        (canonical(unknown="?").replace(b"?", b"\xed\xa0\x80"), "not UTF-8 (byte"),
        (canonical(unknown="?").replace(b'"?"', b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
        (canonical(labels=7), "$.labels"),
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b"{}{}", ""),
        (b"\x1f\x8b\x08\0", "not UTF-8"),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
    ],
)
def test_reasons(data: bytes, why: str) -> None:
    """Each broken rule has its reason: one bounded line that names fields and not what was said."""
    text = reason(data)
    assert why in text
    assert len(text) <= 300
    assert text.isprintable()
    assert "secret" not in text
    for format in ("openai", "anthropic", None):
        with pytest.raises(BadEvent):
            decode(data, format)


def test_future_tolerance_and_limits() -> None:
    """Five minutes ahead are clock skew; the bounds are settings."""
    ahead = canonical(ts="2026-03-01T12:05:00Z")
    assert decode(ahead).ts == NOW + timedelta(minutes=5)
    assert "future" in reason(ahead, limits=Limits(future_tolerance_minutes=1))
    assert "limit of 2" in reason(canonical(), limits=Limits(max_messages=2))
    assert decode(canonical(sample_rate=1 / 1024)).sample_rate == 1 / 1024


def test_a_reason_is_escaped_and_bounded() -> None:
    """Whatever gets into a reason, it stays one line without control characters."""
    text = str(BadEvent("a\x1b[31m\nb\u202e\ud800" + "x" * 1000))
    assert len(text) == 300
    assert text.startswith(r"a\x1b[31m\nb\u202e\ud800x")
    assert text.isprintable()


def test_half_surrogates_are_mended() -> None:
    """A text cut in the middle of an emoji is judged like any other; whole pairs and escaped backslashes stay."""
    said = rb'"x \ud83d\ude00 \ud83d y \uDE00 \\ud83d \ud83d\\ude00 \ud83d"'
    event = decode(canonical(messages=[{"role": "assistant", "content": "?"}]).replace(b'"?"', said))
    assert event.messages[0].content == "x \U0001f600 � y � \\ud83d �\\ude00 �"


def test_nul_in_text_is_kept() -> None:
    """Only names must do without it."""
    assert decode(canonical(messages=[{"role": "assistant", "content": "a\0b"}])).messages[0].content == "a\0b"


def test_parts_and_tools() -> None:
    """Text parts are joined, tool calls written out, tool results become user messages, the rest is left out."""
    event = decode(
        canonical(
            messages=[
                {"role": "user", "content": ["plain", {"type": "input_text", "text": "part"}, {"type": "image"}]},
                {"role": "assistant", "content": None, "function_call": {"name": "old", "arguments": "{}"}},
                {"role": "function", "name": "old", "content": "done"},
                {"role": "tool", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "tool", "content": None},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "server_tool_use", "name": "search", "input": {"q": 10**30}},
                        {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": "t"}]},
                        {"type": "text", "text": "found"},
                    ],
                },
                {"role": "assistant", "content": None, "refusal": "I will not."},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                {"role": "assistant", "content": None},
            ]
        )
    )
    assert [tuple(m) for m in event.messages] == [
        ("user", "plain\npart"),
        ("assistant", "[tool call] old({})"),
        ("user", "[tool result] done"),
        ("user", "[tool result] a\nb"),
        ("user", "[tool result] "),
        ("assistant", '[tool call] search({"q": 1000000000000000000000000000000})'),
        ("user", "[tool result] "),
        ("assistant", "found"),
        ("assistant", "I will not."),
        ("assistant", "No."),
        ("assistant", ""),
    ]


def test_openai_log() -> None:
    """Request and response become one event whose last turn is choice 0; how many there were is a label."""
    event = decode(line(OPENAI), "openai")
    assert (event.event_id, event.deployment, event.conversation_id) == ("chatcmpl-1", "shop", "s1")
    assert event.model == "m-1-2026-01-01"
    assert event.ts == NOW + timedelta(seconds=0.5)
    assert event.labels == {"route": "chat", "note": "x" * 199 + "…", "choices": "2", "requested_model": "m-1"}
    assert [tuple(m) for m in event.messages] == [
        ("system", "Help with orders."),
        ("user", "Where is"),
        ("assistant", '[tool call] find({"n": 1})'),
        ("user", "[tool result] in the depot"),
        ("assistant", "In the depot."),
    ]
    assert [t.answer for t in turns_of(event)] == ["In the depot."]


@pytest.mark.parametrize(
    "wrapped",
    [
        {"req": OPENAI["request"], "res": OPENAI["response"]},
        {"input": OPENAI["request"], "output": OPENAI["response"]},
        {"input": OPENAI["request"]["messages"], "output": OPENAI["response"]},
        {"messages": OPENAI["request"]["messages"], "response": OPENAI["response"]},
        {"custom_id": "r-1", "body": OPENAI["request"], "response": {"status_code": 200, "body": OPENAI["response"]}},
        {
            "custom_id": "r-1",
            "request": {"method": "POST", "url": "/v1/chat/completions", "body": OPENAI["request"]},
            "response": {"status_code": 200, "body": OPENAI["response"]},
        },
        {**OPENAI["request"], **OPENAI["response"]},
    ],
)
def test_openai_wrappings(wrapped: dict[str, Any]) -> None:
    """The usual ways to write the pair down are all read, and told without being told."""
    event = decode(line(wrapped), None)
    assert event.event_id == "chatcmpl-1"
    assert event.ts == datetime.fromtimestamp(1772366399, UTC)
    assert event.messages == decode(line(OPENAI), "openai").messages
    assert detect([line(wrapped)]) == "openai"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"response": {"status_code": 429, "body": {"error": {}}}}, "the response holds no answer (status 429)"),
        ({"response": None, "status": 500}, "the response holds no answer (status 500)"),
        ({"response": None}, "the response holds no answer"),
        ({"response": {"choices": []}}, "the response holds no answer"),
        ({"response": {"choices": [5]}}, "no object"),
        ({"request": {}}, "request.messages is missing"),
        ({"request": {"messages": [{"role": 5}]}}, "request.messages: Expected"),
        ({"timestamp": None, "response": {**OPENAI["response"], "created": None}}, "ts is missing"),
        ({"timestamp": "noon"}, "timestamp is not an RFC 3339 time"),
        ({"timestamp": "2026-01-01T00:00:00"}, "no time zone"),
        ({"timestamp": True}, "timestamp is neither"),
        ({"timestamp": 1e300}, "timestamp is out of range"),
        ({"service": 7}, "service is not text"),
        ({"response": {**OPENAI["response"], "id": []}}, "response.id is not text"),
    ],
)
def test_openai_reasons(changes: dict[str, Any], why: str) -> None:
    """An exchange without an answer, a time or messages says so."""
    assert why in reason(line({**OPENAI, **changes}), "openai")


def test_times_of_exchanges() -> None:
    """RFC 3339, unix seconds and unix milliseconds are the same moment."""
    for ts in ("2026-03-01T12:00:00Z", 1772366400, 1772366400000, 1772366400000.0):
        assert decode(line({**OPENAI, "timestamp": ts}), "openai").ts == NOW


def test_event_id_without_response_id() -> None:
    """Then the wrapper's id counts, then custom_id."""
    response = {k: v for k, v in OPENAI["response"].items() if k != "id"}
    both = {**OPENAI, "response": response, "custom_id": "r", "event_id": "w"}
    assert decode(line(both), "openai").event_id == "w"
    assert decode(line({**both, "event_id": None}), "openai").event_id == "r"


def test_anthropic_log() -> None:
    """The system prompt comes first, thinking is left out, the response is the turn to judge."""
    event = decode(line(ANTHROPIC), "anthropic")
    assert (event.event_id, event.deployment, event.model, event.labels) == ("msg_1", "shop", "m-2", None)
    assert [tuple(m) for m in event.messages] == [
        ("system", "Help with orders."),
        ("user", "Where is my parcel?"),
        ("assistant", 'Let me look.\n[tool call] find({"n": 1})'),
        ("user", "[tool result] depot"),
        ("user", "And now?"),
        ("assistant", "In the depot."),
    ]


def test_anthropic_flat_and_begun_answers() -> None:
    """Merged into one object it reads the same; an answer begun in the request is one turn with its continuation."""
    flat = {**ANTHROPIC["request"], **ANTHROPIC["response"], "ts": ANTHROPIC["ts"]}
    assert decode(line(flat), None).messages == decode(line(ANTHROPIC), "anthropic").messages
    begun = json.loads(line(ANTHROPIC))
    begun["request"]["messages"] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is "}]
    begun["response"]["content"] = [{"type": "text", "text": "here."}]
    assert [m.content for m in decode(line(begun), None).messages[1:]] == ["q", "It is here."]


def test_anthropic_errors() -> None:
    """An error in place of a message is no answer."""
    failed = {**ANTHROPIC, "status": 529, "response": {"type": "error", "error": {"type": "overloaded_error"}}}
    assert reason(line(failed), "anthropic") == "the response holds no answer (status 529)"
    assert detect([line(failed)]) == "anthropic"


@pytest.mark.parametrize("name", FORMATS)
def test_detection(name: str) -> None:
    """Most lines decide; garbage has no vote; what was decided stays."""
    log = [b"garbage", None, b'"\xff', *[line(LOGS[name])] * 3, line(CANONICAL)]
    assert detect(log) == name
    decoder = Decoder()
    assert decoder.format is None
    assert decoder.settle(log) == decoder.format == name
    assert decoder.settle([line(OPENAI)]) == name
    assert Decoder(name).settle([line(OPENAI)]) == name
    unsettled = Decoder()
    with pytest.raises(BadEvent):
        unsettled.decode(b"garbage", NOW)
    assert unsettled.format is None
    unsettled.decode(line(LOGS[name]), NOW)
    assert unsettled.format == name


def test_detection_of_nothing() -> None:
    """Without a hint a log is taken to be ours; our events may carry fields named like a request."""
    assert detect([]) == "canonical"
    assert detect([b"{}", b"[" * 100_000]) == "canonical"
    assert detect([canonical(input={"messages": []}, body={})]) == "canonical"


def test_unknown_format() -> None:
    """A format that does not exist is refused at once."""
    with pytest.raises(ValueError, match="none of canonical"):
        Decoder("xml")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["text", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name", "input", "message", "body", "index"])
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
@example(b"\xef\xbb\xbf{}")
@example(b'{"\\ud800":1}')
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes are, there is a BadEvent and nothing else."""
    for format in (None, *FORMATS):
        with pytest.raises(BadEvent):
            decode(data, format)


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_any_field(draw: st.DataObject) -> None:
    """Anything put anywhere into a log, or a log cut anywhere: an event or a BadEvent, never a gap in the reading."""
    log = json.loads(line(LOGS[draw.draw(st.sampled_from(FORMATS))]))
    place = log
    while True:
        key = draw.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw.draw(st.booleans()):
            break
        place = place[key]
    place[key] = draw.draw(JSON)
    data = line(log)
    data = data[: draw.draw(st.integers(0, len(data)))] if draw.draw(st.integers(0, 4)) == 0 else data
    for format in (None, *FORMATS):
        event, why = decode_or_reason(data, format)
        assert not why.startswith("cannot be decoded")
        if event is not None:
            assert list(turns_of(event))
            assert event.event_id.encode()

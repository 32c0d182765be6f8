"""Logs of the other gateways and tools as events: what is read of each, and why something is none."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from monitor.transcript import Event
from streams.deltas import whole
from streams.formats import BadEvent, Decoder, Skipped, detect
from tests.unit.format_cases import ANTHROPIC, LANGFUSE, LITELLM, LOGS, OPENAI, PROMPT, RESPONSES, SHAREGPT, line, said

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = datetime(2026, 3, 1, 11, 59, 59, 500000, tzinfo=UTC)


def decode(value: object, format: str | None = None, **kw: Any) -> Event:
    return Decoder(format, **kw).decode(line(value), NOW)


def reason(value: object, format: str | None = None) -> str:
    with pytest.raises(BadEvent) as e:
        decode(value, format)
    return str(e.value)


def sse(*events: dict[str, Any], done: bool = False) -> str:
    named = "".join(f"event: {e.get('type', 'message')}\ndata: {json.dumps(e)}\n\n" for e in events)
    return named + ("data: [DONE]\n\n" if done else "")


# -- what was streamed ------------------------------------------------------------------------------------------------


def chunk(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1772366399,
        "model": "m-1-x",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
    }


CHUNKS = [
    {"id": "", "model": "", "object": "chat.completion.chunk", "choices": [], "prompt_filter_results": []},
    chunk(role="assistant", content=""),
    chunk(1, content="The second."),
    chunk(content="In "),
    chunk(content="the depot."),
    chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "find", "arguments": ""}}]),
    chunk(tool_calls=[{"index": 1, "id": "b", "function": {"name": "notify", "arguments": "{}"}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"n"'}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
    chunk(finish="tool_calls"),
]
MESSAGE = [
    {"type": "message_start", "message": {"id": "msg_1", "type": "message", "model": "m-2", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "ping"},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "In the "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "depot."}},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "name": "find", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"n": '}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]
CREATED = {"id": "resp_1", "object": "response", "created_at": 1772366399, "model": "m-1-x", "output": []}
DELTAS = [
    {"type": "response.created", "response": CREATED},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}},
    {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "content": []}},
    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "In the "},
    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "depot."},
    {"type": "response.output_item.added", "output_index": 2, "item": {"type": "function_call", "name": "find"}},
    {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"n": 1}'},
]
WHOLE = {"type": "message", "content": [{"type": "output_text", "text": "All of it."}]}
DONE = {"type": "response.output_item.done", "output_index": 1, "item": WHOLE}
COMPLETED = {"type": "response.completed", "response": {**CREATED, "output": [WHOLE]}}


@pytest.mark.parametrize("written", [lambda e: e, lambda e: sse(*e, done=True), lambda e: json.dumps(e)])
@pytest.mark.parametrize(
    ("log", "events", "answer"),
    [
        (OPENAI, CHUNKS, 'In the depot.\n[tool call] find({"n": 1})\n[tool call] notify({})'),
        (ANTHROPIC, MESSAGE, 'In the depot.\n[tool call] find({"n": 1})'),
        (RESPONSES, DELTAS, 'In the depot.\n[tool call] find({"n": 1})'),
        (RESPONSES, [*DELTAS, COMPLETED], "All of it."),
        (RESPONSES, [*DELTAS, DONE], 'All of it.\n[tool call] find({"n": 1})'),
    ],
)
def test_streams(log: dict[str, Any], events: list[dict[str, Any]], answer: str, written: Any) -> None:
    """A streamed response, as a list, as server-sent events or as JSON text, reads like one that came whole."""
    event = decode({**log, "response": written(events)})
    assert event.messages[-1].content == answer
    assert event.messages[:-1] == decode(log).messages[:-1]
    name = next(n for n, given in LOGS.items() if given is log)
    assert detect([line({**log, "response": written(events)})]) == name
    assert decode({**log, "response": {"status_code": 200, "body": written(events)}}).messages == event.messages
    if log is not ANTHROPIC:
        assert event.model == "m-1-x"
    assert event.event_id == decode(log).event_id


@pytest.mark.parametrize(("log", "events"), [(OPENAI, CHUNKS[:4]), (ANTHROPIC, MESSAGE[:7]), (RESPONSES, DELTAS[:4])])
def test_a_stream_that_was_cut_off(log: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """What had been said is judged; nothing said is no answer."""
    assert decode({**log, "response": events}).messages[-1].content.startswith("In ")
    assert reason({**log, "response": events[:2]}) == "the response holds no answer"
    half = sse(*events)[:-20]
    assert whole(half) == whole(events[:-1])


def test_an_answer_of_nothing_that_ended_is_judged() -> None:
    """A stream that ended without a word is an empty answer, as it is when it is not streamed."""
    assert decode({**OPENAI, "response": [chunk(role="assistant"), chunk(finish="stop")]}).messages[-1].content == ""


def test_text_that_is_no_stream() -> None:
    """Texts and lists that only look like one are none."""
    for value in ("data: not json", "id: 5 apples", "[1, 2]", [], [5], [{"type": 7}], "{broken", None, 5):
        assert whole(value) is None


# -- OpenAI's responses -----------------------------------------------------------------------------------------------


def test_responses_log() -> None:
    """Instructions first, tool calls and results as text, all that was put out is the one turn to judge."""
    event = decode(RESPONSES)
    assert (event.event_id, event.model, event.conversation_id) == ("resp_1", "m-1-2026-01-01", "conv_1")
    assert event.ts == datetime.fromtimestamp(1772366399, UTC)
    assert said(event) == [
        ("system", "Help with orders."),
        ("user", "Where is my parcel?"),
        ("assistant", '[tool call] find({"n": 1})'),
        ("user", "[tool result] in the depot"),
        ("assistant", "In the depot.\n[tool call] notify({})"),
    ]


def test_responses_wrappings() -> None:
    """The input may be one text; request and response may be merged."""
    short = {"model": "m-1", "input": "Where?"}
    flat = {**RESPONSES["response"], **short, "ts": 1772366399}
    for log in (flat, {**short, "response": RESPONSES["response"]}, {"body": short, "response": RESPONSES["response"]}):
        event = decode(log)
        assert said(event) == [("user", "Where?"), ("assistant", "In the depot.\n[tool call] notify({})")]
        assert detect([line(log)]) == "responses"


def test_a_tool_the_vendor_ran() -> None:
    """Its call and result stand between the texts; the last text is the answer."""
    log = copy.deepcopy(RESPONSES)
    log["response"]["output"].insert(
        1, {"type": "mcp_call", "name": "look", "arguments": "{}", "output": "found", "server_label": "s"}
    )
    assert said(decode(log))[-3:] == [
        ("assistant", "[tool call] look({})"),
        ("user", "[tool result] found"),
        ("assistant", "In the depot.\n[tool call] notify({})"),
    ]


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("response", "output"), [], "the response holds no answer"),
        (("response", "output"), [{"type": "reasoning"}], "the response holds no answer"),
        (("response", "output"), None, "the response holds no answer"),
        (("response", "output"), [5], "response.output[0] is no object"),
        (("request", "input"), 5, "request.input is neither text nor a list"),
        (("request", "input"), [5], "request.input[0] is no object"),
        (("request", "instructions"), 5, "request.instructions is neither"),
    ],
)
def test_responses_reasons(place: tuple[str, str], value: object, why: str) -> None:
    log = copy.deepcopy(RESPONSES)
    log[place[0]][place[1]] = value
    assert why in reason(log, "responses")


# -- LiteLLM ----------------------------------------------------------------------------------------------------------


def test_litellm_payload() -> None:
    """Names of people and addresses stay behind; the team is the deployment unless one is given."""
    event = decode(LITELLM)
    assert (event.event_id, event.deployment, event.model, event.conversation_id) == (
        "chatcmpl-2",
        "shop",
        "m-1-x",
        "tr-1",
    )
    assert event.ts == END
    assert event.labels == {"provider": "azure", "model_group": "fast", "route": "chat", "requested_model": "m-1"}
    assert said(event) == [("user", "Where is my parcel?"), ("assistant", "In the depot.")]
    assert decode({"standard_logging_object": LITELLM}).messages == event.messages
    assert decode(LITELLM, deployment="web").deployment == "web"
    asked = {**LITELLM["metadata"], "requester_metadata": {"deployment": "app", "conversation_id": "c9"}}
    named = decode({**LITELLM, "metadata": asked}, deployment="web")
    assert (named.deployment, named.conversation_id) == ("app", "c9")


def test_litellm_answers() -> None:
    """Responses of every protocol and bare texts; a cached answer is an event of its own."""
    cached = {**LITELLM, "id": "chatcmpl-2_cache_hit1772366399.9"}
    assert decode(cached).event_id == cached["id"]
    other = {**LITELLM, "call_type": "aresponses", "messages": "Where?", "response": RESPONSES["response"]}
    assert said(decode(other)) == [("user", "Where?"), ("assistant", "In the depot.\n[tool call] notify({})")]
    text = {**LITELLM, "call_type": "text_completion", "response": {"choices": [{"text": "In the depot."}]}}
    assert decode(text).messages[-1].content == "In the depot."
    assert decode({**LITELLM, "call_type": "anthropic_messages", "response": ANTHROPIC["response"]}).model == "m-2"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "failure", "response": None}, "the call failed"),
        ({"status": "failure", "error_information": {"error_code": "429"}}, "the call failed (status 429)"),
        ({"status": "failure", "error_information": {"error_code": "secret words"}}, "the call failed"),
        ({"response": None}, "the response holds no answer"),
        ({"response": "redacted-by-litellm"}, "LiteLLM withheld the texts (turn_off_message_logging)"),
        ({"response": {"text": "redacted-by-litellm"}}, "LiteLLM withheld the texts (turn_off_message_logging)"),
        ({"endTime": None, "startTime": None}, "ts is missing"),
        ({"endTime": "noon"}, "ts is not an RFC 3339 time"),
    ],
)
def test_litellm_reasons(changes: dict[str, Any], why: str) -> None:
    assert reason({**LITELLM, **changes}, "litellm") == why


# -- Langfuse ---------------------------------------------------------------------------------------------------------


CAMEL = {
    "id": "obs-1",
    "traceId": "tr-1",
    "environment": "production",
    "type": "GENERATION",
    "startTime": "2026-03-01T11:59:58.250Z",
    "endTime": "2026-03-01T11:59:59.500Z",
    "metadata": {"route": "chat", "deployment": "shop"},
    "level": "DEFAULT",
    "input": [{"role": "user", "content": "Where is my parcel?"}],
    "output": {"role": "assistant", "content": "In the depot."},
    "model": "m-1",
    "userId": "u-1",
    "sessionId": "s1",
    "traceName": "parcel",
    "promptName": "orders",
    "promptVersion": 3,
}


@pytest.mark.parametrize("log", [LANGFUSE, CAMEL])
def test_langfuse_generation(log: dict[str, Any]) -> None:
    """Both ways of naming the fields give the same event; a time without a zone is UTC."""
    event = decode(log)
    assert (event.event_id, event.deployment, event.model, event.conversation_id) == ("obs-1", "shop", "m-1", "s1")
    assert event.ts == END
    assert said(event) == [("user", "Where is my parcel?"), ("assistant", "In the depot.")]
    assert event.labels == {
        "environment": "production",
        "trace_name": "parcel",
        "prompt_name": "orders",
        "prompt_version": "3",
        "route": "chat",
    }


@pytest.mark.parametrize(
    ("given", "answered", "messages"),
    [
        ("Where?", "There.", [("user", "Where?"), ("assistant", "There.")]),
        ({"input": "Where?"}, {"output": "There."}, [("user", "Where?"), ("assistant", "There.")]),
        ({"prompt": CAMEL["input"]}, {"text": "There."}, [*said(decode(CAMEL))[:1], ("assistant", "There.")]),
        ({"role": "user", "content": "Where?"}, "There.", [("user", "Where?"), ("assistant", "There.")]),
        ("Where?", [CAMEL["input"][0], CAMEL["output"]], [("user", "Where?"), ("assistant", "In the depot.")]),
        ({"q": 1}, {"a": 2}, [("user", '{"q": 1}'), ("assistant", '{"a": 2}')]),
        (OPENAI["request"], OPENAI["response"], [*said(decode(OPENAI))]),
        (RESPONSES["request"], RESPONSES["response"], [*said(decode(RESPONSES))]),
        (ANTHROPIC["request"], ANTHROPIC["response"], [*said(decode(ANTHROPIC))]),
        (
            {"messages": CAMEL["input"]},
            [CAMEL["output"]],
            [("user", "Where is my parcel?"), ("assistant", "In the depot.")],
        ),
    ],
)
def test_langfuse_payloads(given: object, answered: object, messages: list[tuple[str, str]]) -> None:
    """Whole requests and responses, messages alone, texts and whatever else was put there; also as JSON text."""
    assert said(decode({**CAMEL, "input": given, "output": answered})) == messages
    if isinstance(given, dict) and isinstance(answered, dict):
        asked = {**LANGFUSE, "input": json.dumps(given), "output": json.dumps(answered)}
        assert said(decode(asked)) == messages


@pytest.mark.parametrize(
    "other",
    [
        {**LANGFUSE, "type": "SPAN"},
        {"id": "s", "timestamp": "2026-03-01 11:00:00.0", "project_id": "p", "trace_id": "t", "data_type": "NUMERIC"},
        {"id": "t", "timestamp": "2026-03-01 11:00:00.0", "project_id": "p", "release": "", "input": "q"},
    ],
)
def test_langfuse_skips(other: dict[str, Any]) -> None:
    """Spans, scores and traces are no dead letters."""
    assert detect([line(other)]) == "langfuse"
    (skipped,) = Decoder("langfuse").decode_all(line(other), NOW)
    assert isinstance(skipped, Skipped)
    assert (str(skipped), skipped.count) == ("an observation of another kind than GENERATION", 1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"output": None, "level": "ERROR"}, "the response holds no answer"),
        ({"output": ""}, "the response holds no answer"),
        ({"end_time": "noon"}, "startTime is not an ISO 8601 time"),
        ({"provided_model_name": ""}, "model is missing"),
        ({"input": None}, "request.messages is missing"),
    ],
)
def test_langfuse_reasons(changes: dict[str, Any], why: str) -> None:
    assert reason({**LANGFUSE, **changes}) == why


# -- data sets --------------------------------------------------------------------------------------------------------


def test_sharegpt() -> None:
    """Speakers become roles; the other fields are those of our own event."""
    event = decode(SHAREGPT)
    assert (event.deployment, event.model, event.conversation_id) == ("default", "m-1", "sg-1")
    assert said(event) == [
        ("system", "Help with orders."),
        ("user", "Where is my parcel?"),
        ("assistant", "In the depot."),
    ]
    every = decode({**SHAREGPT, "judge": "all", "deployment": "d", "labels": {"a": 1}})
    assert (every.judge_all, every.deployment, every.labels) == (True, "d", {"a": "1"})
    turns = [{"from": "function_call", "value": "f()"}, {"from": "observation", "value": "1"}]
    assert said(decode({**SHAREGPT, "conversations": turns})) == [
        ("assistant", "f()"),
        ("user", "[tool result] 1"),
    ]


def test_prompt_and_response() -> None:
    """A pair of texts, with a system prompt where there is one; times may be unix seconds."""
    event = decode(PROMPT)
    assert (event.ts, event.deployment) == (datetime(2026, 3, 1, 11, tzinfo=UTC), "shop")
    assert said(event) == [("user", "Where is my parcel?"), ("assistant", "In the depot.")]
    other = {k: v for k, v in PROMPT.items() if k != "response"} | {"completion": "There.", "system": "Be kind."}
    assert said(decode(other)) == [("system", "Be kind."), ("user", "Where is my parcel?"), ("assistant", "There.")]
    assert detect([line(other)]) == "prompt"


@pytest.mark.parametrize(
    ("log", "format", "why"),
    [
        ({**SHAREGPT, "ts": None}, None, "ts is missing"),
        ({**SHAREGPT, "model": None}, None, "model is missing"),
        ({**SHAREGPT, "conversations": [5]}, None, "conversations[0] is no object"),
        (
            {**SHAREGPT, "conversations": [{"from": "secret words", "value": "x"}]},
            None,
            "conversations[0].from is none of",
        ),
        ({**SHAREGPT, "conversations": SHAREGPT["conversations"][:2]}, None, "no assistant message to judge"),
        ({**SHAREGPT, "conversations": None}, "sharegpt", "conversations is missing"),
        ({**PROMPT, "ts": None}, None, "ts is missing"),
        ({**PROMPT, "prompt": None}, "prompt", "prompt is missing"),
        ({**PROMPT, "prompt": 5}, "prompt", "prompt is not text"),
        ({**PROMPT, "response": 5}, "prompt", "response is not text"),
        ({**PROMPT, "response": None}, "prompt", "response is missing"),
    ],
)
def test_data_set_reasons(log: dict[str, Any], format: str | None, why: str) -> None:
    """A data set has no times: until one is added, that is the reason."""
    text = reason(log, format)
    assert text.startswith(why)
    assert "secret" not in text


def test_metadata_never_costs_an_event() -> None:
    """However much a tool keeps in its metadata, labels stay within their limit, and own labels go first."""
    crowd = {f"k{i}": "v" for i in range(100)} | {"": "v", "x" * 300: "v"}
    event = decode({**LANGFUSE, "metadata": crowd, "labels": {"mine": "v"}})
    assert event.labels is not None
    assert len(event.labels) == 32
    assert {"mine", "environment", "k0"} <= set(event.labels)
    assert "k90" not in event.labels


def test_several_events_are_not_one() -> None:
    """`decode` is for lines that hold one event; `decode_all` gives whatever there is and never raises."""
    two = copy.deepcopy(LOGS["otlp"])
    spans = two["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans.append({**spans[0], "spanId": "00000000000000ff"})
    assert reason(two) == "the line holds 2 events"
    events = [e for e in Decoder().decode_all(line(two), NOW) if isinstance(e, Event)]
    assert len({e.event_id for e in events}) == 2
    (bad,) = Decoder().decode_all(b'{"ts":', NOW)
    assert isinstance(bad, BadEvent)
    assert not isinstance(bad, Skipped)
    assert Decoder("otlp").decode_all(b'{"resourceSpans":[]}', NOW) == []
    assert reason({"resourceSpans": []}) == "the line holds no events"

"""One line of every log format, written by us after the public description of each: the same conversation in all."""

import json
from typing import Any

from monitor.transcript import Event

CANONICAL: dict[str, Any] = {
    "event_id": "e1",
    "ts": "2026-03-01T13:00:00+02:00",
    "deployment": "shop",
    "model": "m-1",
    "conversation_id": "c1",
    "messages": [
        {"role": "developer", "content": "Help with orders."},
        {"role": "user", "content": "Where is my parcel?"},
        {"role": "assistant", "content": "It left the depot today."},
    ],
}

OPENAI: dict[str, Any] = {
    "timestamp": 1772366400.5,
    "service": "shop",
    "session_id": "s1",
    "request": {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Help with orders."},
            {"role": "user", "content": [{"type": "text", "text": "Where is"}, {"type": "image_url", "image_url": {}}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "t", "type": "function", "function": {"name": "find", "arguments": '{"n": 1}'}}],
            },
            {"role": "tool", "tool_call_id": "t", "content": "in the depot"},
        ],
        "metadata": {"route": "chat", "n": 3, "note": "x" * 300},
    },
    "response": {
        "id": "chatcmpl-1",
        "created": 1772366399,
        "model": "m-1-2026-01-01",
        "choices": [
            {"index": 1, "message": {"role": "assistant", "content": "The second."}},
            {"index": 0, "message": {"role": "assistant", "content": "In the depot."}},
        ],
    },
}

ANTHROPIC: dict[str, Any] = {
    "ts": "2026-03-01T11:00:00Z",
    "project": "shop",
    "request": {
        "model": "m-2",
        "system": [{"type": "text", "text": "Help with orders."}],
        "messages": [
            {"role": "user", "content": "Where is my parcel?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "t", "name": "find", "input": {"n": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "depot"}]},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
    },
    "response": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m-2",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "In the depot."}],
        "stop_reason": "end_turn",
    },
}

RESPONSES: dict[str, Any] = {
    "deployment": "shop",
    "request": {
        "model": "m-1",
        "instructions": "Help with orders.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Where is my parcel?"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "f", "name": "find", "arguments": '{"n": 1}'},
            {"type": "function_call_output", "call_id": "f", "output": "in the depot"},
        ],
        "conversation": {"id": "conv_1"},
    },
    "response": {
        "id": "resp_1",
        "object": "response",
        "created_at": 1772366399,
        "model": "m-1-2026-01-01",
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "In the depot.", "annotations": []}],
            },
            {"type": "function_call", "call_id": "g", "name": "notify", "arguments": "{}"},
        ],
    },
}

LITELLM: dict[str, Any] = {
    "id": "chatcmpl-2",
    "trace_id": "tr-1",
    "call_type": "acompletion",
    "status": "success",
    "custom_llm_provider": "azure",
    "model": "m-1",
    "model_group": "fast",
    "startTime": 1772366398.25,
    "endTime": 1772366399.5,
    "messages": [{"role": "user", "content": "Where is my parcel?"}],
    "response": {
        "id": "chatcmpl-2",
        "model": "m-1-x",
        "choices": [{"index": 0, "message": {"content": "In the depot."}}],
    },
    "metadata": {
        "user_api_key_alias": "somebody",
        "user_api_key_team_alias": "shop",
        "requester_ip_address": "10.0.0.1",
        "requester_metadata": {"route": "chat"},
    },
    "end_user": "u-1",
    "error_str": None,
}

LANGFUSE: dict[str, Any] = {
    "id": "obs-1",
    "trace_id": "tr-1",
    "project_id": "p",
    "environment": "production",
    "type": "GENERATION",
    "start_time": "2026-03-01 11:59:58.250000",
    "end_time": "2026-03-01 11:59:59.500000",
    "name": "answer",
    "metadata": {"route": "chat", "deployment": "shop"},
    "level": "DEFAULT",
    "input": '[{"role": "user", "content": "Where is my parcel?"}]',
    "output": '{"role": "assistant", "content": "In the depot."}',
    "provided_model_name": "m-1",
    "user_id": "u-1",
    "session_id": "s1",
    "trace_name": "parcel",
    "release": "",
    "prompt_name": "orders",
    "prompt_version": 3,
}

SHAREGPT: dict[str, Any] = {
    "id": "sg-1",
    "ts": "2026-03-01T11:00:00Z",
    "model": "m-1",
    "conversations": [
        {"from": "system", "value": "Help with orders."},
        {"from": "human", "value": "Where is my parcel?"},
        {"from": "gpt", "value": "In the depot."},
    ],
}

PROMPT: dict[str, Any] = {
    "ts": 1772362800,
    "model": "m-1",
    "deployment": "shop",
    "prompt": "Where is my parcel?",
    "response": "In the depot.",
}


def attribute(key: str, value: object) -> dict[str, Any]:
    return {"key": key, "value": any_value(value)}


def any_value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(v) for v in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [attribute(k, v) for k, v in value.items()]}}
    return {"stringValue": str(value)}


def span(number: int = 1, *, parent: int = 0, events: Any = (), **fields: Any) -> dict[str, Any]:
    """A span of OTLP's JSON; its attributes are the fields, `__` for a dot."""
    return {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": f"{number:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": "chat m-1",
        "startTimeUnixNano": "1772366398000000000",
        "endTimeUnixNano": "1772366399500000000",
        "attributes": [attribute(k.replace("__", "."), v) for k, v in fields.items()],
        "events": [{"name": name, "attributes": [attribute(k, v) for k, v in given.items()]} for name, given in events],
    }


def request(*spans: dict[str, Any], **resource: Any) -> dict[str, Any]:
    """A request of OTLP's JSON with these spans and attributes of the resource."""
    named = {"service__name": "shop", **resource}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [attribute(k.replace("__", "."), v) for k, v in named.items()]},
                "scopeSpans": [{"scope": {"name": "t"}, "spans": list(spans)}],
            }
        ]
    }


CURRENT: dict[str, Any] = {
    "gen_ai__operation__name": "chat",
    "gen_ai__provider__name": "openai",
    "gen_ai__request__model": "m-1",
    "gen_ai__response__model": "m-1-x",
    "gen_ai__conversation__id": "c1",
    "gen_ai__system_instructions": json.dumps([{"type": "text", "content": "Help with orders."}]),
    "gen_ai__input__messages": json.dumps(
        [
            {"role": "user", "parts": [{"type": "text", "content": "Where is my parcel?"}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "t", "name": "find", "arguments": {"n": 1}}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t", "response": "in the depot"}]},
        ]
    ),
    "gen_ai__output__messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": "In the depot."}], "finish_reason": "stop"}]
    ),
}
OTLP = request(span(**CURRENT), deployment__environment__name="production")

LOGS: dict[str, dict[str, Any]] = {
    "canonical": CANONICAL,
    "openai": OPENAI,
    "responses": RESPONSES,
    "anthropic": ANTHROPIC,
    "litellm": LITELLM,
    "langfuse": LANGFUSE,
    "sharegpt": SHAREGPT,
    "prompt": PROMPT,
    "otlp": OTLP,
}


def line(value: object) -> bytes:
    return json.dumps(value).encode()


def said(event: Event) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in event.messages]

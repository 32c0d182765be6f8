"""LiteLLM's standard logging payload, as its gateway and its callbacks write it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from monitor.transcript import Event
from streams.checks import Limits
from streams.conversation import object_at
from streams.exchange import Exchange, event_of
from streams.loose import request_of, response_of
from streams.reasons import BadEvent, Skipped
from streams.vendors import read

Object = dict[str, Any]

SPEAKING: Final = frozenset(
    a + name
    for a in ("", "a")
    for name in (
        "completion", "text_completion", "responses", "generate_content", "generate_content_stream",
        "completion_with_retries",
    )
) | {"anthropic_messages", "aanthropic_messages", "pass_through_endpoint", "llm_passthrough_route",
     "allm_passthrough_route"}  # fmt: skip
"""`call_type` of calls that answer in words; embeddings, images, speech, reranking and files do not."""
WITHHELD: Final = "redacted-by-litellm"


def payload_of(line: Object) -> Object | None:
    """The payload in a line: itself, or inside the keyword arguments of a callback; None when it is no such log."""
    inner = object_at(line, "standard_logging_object") or line
    return inner if "call_type" in inner and ("startTime" in inner or "endTime" in inner) else None


def event(line: Object, now: datetime, limits: Limits, deployment: str | None) -> Event:
    """The event of a successful call.

    Raises
    ------
    Skipped : a call that answers in no words.
    BadEvent : the call failed, or the texts were withheld.
    """
    payload = payload_of(line) or line
    kind = payload.get("call_type")
    if isinstance(kind, str) and kind not in SPEAKING:
        raise Skipped("a call that answers in no words (call_type)")
    if payload.get("status") == "failure":
        code = (object_at(payload, "error_information") or {}).get("error_code")
        raise BadEvent("the call failed" + (f" (status {code})" if str(code).isdecimal() else ""))
    metadata = object_at(payload, "metadata") or {}
    asked = object_at(metadata, "requester_metadata") or {}
    response = response_of(payload.get("response")) or {}
    wrapper: Object = {
        **{name: payload.get(name) for name in ("model", "labels", "context", "sample_rate", "session_id")},
        "ts": payload.get("endTime", payload.get("startTime")),
        "event_id": payload.get("id"),
        "deployment": None if deployment or asked.get("deployment") else metadata.get("user_api_key_team_alias"),
        "metadata": {"provider": payload.get("custom_llm_provider"), "model_group": payload.get("model_group")},
    }
    if not wrapper["session_id"] and "conversation_id" not in asked:
        wrapper["session_id"] = payload.get("trace_id")
    request = {"model": payload.get("model"), **request_of(payload.get("messages")), "metadata": asked}
    # a cached answer carries the id of the first one: the payload's own counts
    found = event_of(Exchange(wrapper, request, {**response, "id": None}), now, limits, deployment, read)
    if found.messages[-1].content == WITHHELD:
        raise BadEvent("LiteLLM withheld the texts (turn_off_message_logging)")
    return found

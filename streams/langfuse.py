"""Langfuse's exports, an observation a line: of its blob storage (snake_case) or its interface (camelCase)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from monitor.transcript import Event
from streams.checks import Limits
from streams.deltas import parsed
from streams.exchange import Exchange, event_of
from streams.loose import request_of, response_of
from streams.reasons import BadEvent, Skipped
from streams.vendors import read

Object = dict[str, Any]


def looks(line: Object) -> bool:
    """An observation, a score or a trace of Langfuse."""
    if "traceId" in line or "trace_id" in line:
        return any(name in line for name in ("startTime", "start_time", "dataType", "data_type"))
    return "timestamp" in line and "project_id" in line and "release" in line


def event(line: Object, now: datetime, limits: Limits, deployment: str | None) -> Event:
    """The event of a generation.

    Raises
    ------
    Skipped : a span, an event, a score or a trace.
    """
    if line.get("type") != "GENERATION":
        raise Skipped("an observation of another kind than GENERATION")
    metadata = _either(line, "metadata", "metadata")
    if isinstance(metadata, str):
        metadata = parsed(metadata)
    own = metadata if isinstance(metadata, dict) else {}
    wrapper: Object = {
        **{name: line.get(name) for name in ("labels", "context", "sample_rate", "deployment")},
        "ts": _time(_either(line, "endTime", "end_time") or _either(line, "startTime", "start_time")),
        "event_id": line.get("id"),
        "model": line.get("model") or _either(line, "providedModelName", "provided_model_name"),
        "session_id": _either(line, "sessionId", "session_id"),
        "metadata": {
            name: str(value)
            for name, camel in (
                ("environment", "environment"),
                ("trace_name", "traceName"),
                ("release", "release"),
                ("version", "version"),
                ("prompt_name", "promptName"),
                ("prompt_version", "promptVersion"),
            )
            if isinstance(value := _either(line, camel, name), str | int) and value != ""
        },
    }
    if not wrapper["session_id"] and "conversation_id" not in own:
        wrapper["session_id"] = _either(line, "traceId", "trace_id")
    request = {**request_of(line.get("input")), "metadata": own}
    response = response_of(line.get("output"))
    return event_of(Exchange(wrapper, request, response and {**response, "id": None}), now, limits, deployment, read)


def _either(line: Object, camel: str, snake: str) -> object:
    value = line.get(camel)
    return line.get(snake) if value is None else value


def _time(value: object) -> object:
    """The export writes UTC without saying so."""
    if not isinstance(value, str):
        return value
    try:
        at = datetime.fromisoformat(value)
    except ValueError as e:
        raise BadEvent("startTime is not an ISO 8601 time") from e
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()

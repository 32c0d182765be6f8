"""The rules every event obeys, whatever log it came from (design section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from monitor.buckets import MAX_WEIGHT
from monitor.transcript import MAX_NAME, Event, Message, default_event_id
from streams.reasons import BadEvent

LabelValue = str | bool | int | float | None


@dataclass(frozen=True)
class Limits:
    """Bounds of an event; outside them it becomes a dead letter."""

    future_tolerance_minutes: float = 5.0
    earliest: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    max_messages: int = 2000
    max_labels: int = 32
    max_context: int = 64
    max_name: int = MAX_NAME
    min_sample_rate: float = 1 / MAX_WEIGHT


DEFAULT_LIMITS: Final = Limits()


def checked_event(
    *,
    limits: Limits,
    now: datetime,
    event_id: str | None,
    ts: datetime,
    deployment: str,
    model: str,
    conversation_id: str | None,
    messages: tuple[Message, ...],
    judge_all: bool = False,
    context: Sequence[str] | None = None,
    labels: Mapping[str, LabelValue] | None = None,
    sample_rate: float = 1.0,
) -> Event:
    """The event, if it keeps to the limits; otherwise BadEvent with the first reason. Empty ids count as not given."""
    at = _time(ts, now, limits)
    _name(deployment, "deployment", limits)
    _name(model, "model", limits)
    if event_id:
        _name(event_id, "event_id", limits)
    if conversation_id:
        _name(conversation_id, "conversation_id", limits)
    if not any(m.role == "assistant" for m in messages):
        raise BadEvent("no assistant message to judge")
    if context and len(context) > limits.max_context:
        raise BadEvent(f"{len(context):,} context documents are over the limit of {limits.max_context}")
    if not limits.min_sample_rate <= sample_rate <= 1:
        if 0 < sample_rate < limits.min_sample_rate:
            raise BadEvent(f"sample_rate is below 1/{1 / limits.min_sample_rate:.0f}, the least that can be weighed")
        raise BadEvent("sample_rate lies outside (0, 1]")
    checked = _labels(labels, limits) if labels else None
    identity = event_id or default_event_id(deployment, conversation_id or None, at, messages)
    return Event(
        identity,
        at,
        deployment,
        model,
        conversation_id or identity,
        messages,
        judge_all,
        tuple(context or ()),
        checked,
        float(sample_rate),
    )


def _time(ts: datetime, now: datetime, limits: Limits) -> datetime:
    if ts.tzinfo is None:
        raise BadEvent("ts has no time zone")
    if ts < limits.earliest:
        raise BadEvent(f"ts {ts.isoformat()} is before {limits.earliest:%Y-%m-%d}")
    if ts > now + timedelta(minutes=limits.future_tolerance_minutes):
        raise BadEvent(f"ts {ts.isoformat()} is in the future")
    return ts.astimezone(UTC)


def _name(value: str, field: str, limits: Limits) -> None:
    if not value:
        raise BadEvent(f"{field} is empty")
    if len(value) > limits.max_name:
        raise BadEvent(f"{field} has {len(value):,} characters, over the limit of {limits.max_name}")
    if "\0" in value:
        raise BadEvent(f"{field} contains NUL")


def _labels(labels: Mapping[str, LabelValue], limits: Limits) -> dict[str, str]:
    checked: dict[str, str] = {}
    for key, value in labels.items():
        if value is None:
            continue
        if len(checked) >= limits.max_labels:
            raise BadEvent(f"more than {limits.max_labels} labels")
        _name(key, "the name of a label", limits)
        text = value if isinstance(value, str) else _written(value)
        if len(text) > limits.max_name:
            raise BadEvent(f"the value of a label has {len(text):,} characters, over the limit of {limits.max_name}")
        if "\0" in text:
            raise BadEvent("the value of a label contains NUL")
        checked[key] = text
    return checked


def _written(value: float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)

"""Our own event: one JSON object a line, decoded strictly and fast."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from monitor.transcript import Event
from streams.checks import LabelValue, Limits, checked_event
from streams.conversation import RawMessage, messages_of
from streams.reasons import BadEvent


class _RawEvent(msgspec.Struct):
    ts: Annotated[datetime, msgspec.Meta(tz=True)]
    model: str
    messages: list[RawMessage]
    deployment: str | None = None
    event_id: str | None = None
    conversation_id: str | None = None
    judge: str | None = None
    context: list[str] | None = None
    labels: dict[str, LabelValue] | None = None
    sample_rate: float | None = None


_DECODER: Final = msgspec.json.Decoder(_RawEvent)


def decode(data: bytes, now: datetime, limits: Limits, deployment: str | None) -> Event:
    """One line of canonical log -> event. Raises BadEvent, or what `formats.Decoder` makes a BadEvent of."""
    return _event(_DECODER.decode(data), now, limits, deployment)


def event(line: dict[str, Any], now: datetime, limits: Limits, deployment: str | None) -> Event:
    """The same of decoded JSON whose messages another format has rewritten."""
    return _event(msgspec.convert(line, _RawEvent), now, limits, deployment)


def _event(raw: _RawEvent, now: datetime, limits: Limits, deployment: str | None) -> Event:
    where = raw.deployment if raw.deployment is not None else deployment
    if where is None:
        raise BadEvent("deployment is missing")
    if raw.judge not in ("last", "all", None):
        raise BadEvent('judge is neither "last" nor "all"')
    return checked_event(
        limits=limits,
        now=now,
        event_id=raw.event_id,
        ts=raw.ts,
        deployment=where,
        model=raw.model,
        conversation_id=raw.conversation_id,
        messages=messages_of(raw.messages, limits.max_messages),
        judge_all=raw.judge == "all",
        context=raw.context,
        labels=raw.labels,
        sample_rate=1.0 if raw.sample_rate is None else raw.sample_rate,
    )

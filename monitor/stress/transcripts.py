"""A run's conversations as canonical transcripts: what `watch` reads, and what is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from monitor.stress.journal import Answered
from monitor.stress.result import SCRIPT_LABEL, SUITE_LABEL
from monitor.stress.suites import Script
from monitor.transcript import Event
from streams.formats import BadEvent, Decoder, Skipped

NAME: Final = "transcripts.jsonl"
MOST_REASONS: Final = 20
OTHER_REASON: Final = "other reasons"


def lines(
    scripts: Iterable[Script], answers: Mapping[str, Sequence[Answered]], deployment: str, model: str
) -> list[bytes]:
    """A line a conversation that has an answer, as far as it came; its time is that of its last answer."""
    return [
        msgspec.json.encode(_transcript(s, kept, deployment, model))
        for s in scripts
        if (kept := answers.get(s.name, ())[: len(s.messages)])
    ]


def _transcript(script: Script, kept: Sequence[Answered], deployment: str, model: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": script.system}]
    for said, answered in zip(script.messages, kept, strict=False):
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answered.answer}]
    return {
        "ts": kept[-1].ts,
        "deployment": deployment,
        "model": model,
        "conversation_id": script.name,
        "judge": "all",
        "labels": {SUITE_LABEL: script.suite, SCRIPT_LABEL: script.name},
        "messages": messages,
    }


def read(written: Iterable[bytes], now: datetime) -> Iterator[Event | BadEvent]:
    """The same, read as a log is."""
    decoder = Decoder("canonical")
    return (found for line in written for found in decoder.decode_all(line, now))


def sound(found: Iterable[Event | BadEvent], failed: Counter[str]) -> Iterator[Event]:
    """The events; what is none is counted by its reason, the first so many reasons by name."""
    for event in found:
        if isinstance(event, Event):
            yield event
        elif not isinstance(event, Skipped):
            reason = str(event)
            failed[reason if reason in failed or len(failed) < MOST_REASONS else OTHER_REASON] += 1

"""`valuedrift classify`: turns in, judgements out, one JSON object a line; nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from classifiers.api import Classifier
from monitor.taxonomy import BEHAVIOURS, FACTORS
from monitor.transcript import Event, Turn, turns_of
from streams.files import Chunk, FileSource
from streams.formats import BadEvent, Decoder

_DEFAULTS: Final = {"ts": "2000-01-01T00:00:00Z", "deployment": "-", "model": "-"}
"""What an event needs and a judgement does not: here `{"messages": [...]}` is enough."""


def classify(source: FileSource, classifier: Classifier, now: datetime | None = None) -> Iterator[dict[str, Any]]:
    """Judge every line of a source; yields, in order, one object a judged turn, or one with `error` a bad line."""
    decoder = Decoder("canonical")
    for chunk in source.chunks():
        if chunk is not None:
            yield from _chunk(chunk, decoder, classifier, now or datetime.now(UTC))


def _chunk(chunk: Chunk, decoder: Decoder, classifier: Classifier, now: datetime) -> Iterator[dict[str, Any]]:
    found: list[tuple[int, list[Turn] | str]] = []
    for line in chunk.lines:
        try:
            if line.data is None:
                raise BadEvent(line.problem or "not kept")
            found.append((line.number, list(turns_of(event_of(line.data, decoder, now)))))
        except BadEvent as e:
            found.append((line.number, str(e)))
    turns = [turn for _, those in found if not isinstance(those, str) for turn in those]
    judged = classifier.classify(turns)
    i = 0
    for number, those in found:
        if isinstance(those, str):
            yield {"line": number, "error": those}
            continue
        for turn in those:
            p, factors = judged.probabilities[i].tolist(), judged.factors[i].tolist()
            yield {
                "line": number,
                "turn": turn.index,
                "behaviour": BEHAVIOURS[max(range(len(p)), key=p.__getitem__)],
                "probabilities": {b: round(x, 5) for b, x in zip(BEHAVIOURS, p, strict=True)},
                "doubt": round(float(judged.doubt[i]), 5),
                "factors": {f: round(x, 5) for f, x in zip(FACTORS, factors, strict=True)},
                "classifier": judged.version,
                "tier": judged.tier,
            }
            i += 1


def event_of(data: bytes, decoder: Decoder, now: datetime) -> Event:
    """A line's event, in which all but the messages may be missing. Raises BadEvent."""
    try:
        given = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        missing = {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in _DEFAULTS.items() if k not in given}
        data = msgspec.json.encode(missing | given) if missing else data
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass  # the decoder says what is wrong with it
    return decoder.decode(data, now)

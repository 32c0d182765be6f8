"""The event that comes in, the turn that is judged, the judgement that comes out (design section 2)."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_NAME = 200
"""Longest event_id, deployment, model, conversation_id or label value, in characters."""

SECONDS_PER_MINUTE = 60


class Message(NamedTuple):
    """One message of a conversation; `content` is plain text (non-text parts are skipped when decoding)."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Event:
    """One transcript as it came in, checked.

    `judge_all` says whether every assistant turn is judged or only the last one. `sample_rate` is the share of
    traffic the event was sampled from, 0 < r <= 1; its turns weigh 1/r.
    """

    event_id: str
    ts: datetime
    deployment: str
    model: str
    conversation_id: str
    messages: tuple[Message, ...]
    judge_all: bool = False
    context: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None
    sample_rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant answer and the conversation before it; `index` is its place among the assistant turns."""

    event: Event
    index: int
    before: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class SecondJudgements:
    """What another classifier says of some of n turns.

    Attributes
    ----------
    rows : (m,) which of the turns.
    probabilities, doubt : (m, 5) and (m,), as in Judgements.
    choice_probability : (m,) how likely each was to be chosen: weights of unbiased comparisons are its inverse.
    version : of the classifier.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    doubt: NDArray[np.float64]
    choice_probability: NDArray[np.float64]
    version: str


@dataclass(frozen=True, slots=True)
class Judgements:
    """What a classifier says of n turns.

    Attributes
    ----------
    probabilities : (n, 5) calibrated probabilities of the behaviours, rows sum to 1.
    factors : (n, 5) probabilities of the factors (monitor.taxonomy.FACTORS).
    doubt : (n,) calibrated probability that the most probable behaviour is wrong.
    version : the classifier's version; judgements of different versions are never mixed.
    tier : which model of the classifier judged.
    second : second judgements of some turns, by the accurate tier.
    """

    probabilities: NDArray[np.float64]
    factors: NDArray[np.float64]
    doubt: NDArray[np.float64]
    version: str
    tier: str = "fast"
    second: SecondJudgements | None = None


def default_event_id(deployment: str, conversation_id: str | None, ts: datetime, messages: Sequence[Message]) -> str:
    """Idempotency key of an event that names none: a hash of deployment, conversation_id, ts and messages."""
    h = hashlib.blake2b(digest_size=16)
    parts = [deployment, conversation_id or "", ts.isoformat(), *(part for message in messages for part in message)]
    for part in parts:
        data = part.encode()
        # the length goes first: no choice of text can look like another split into parts
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()


def turns_of(event: Event) -> Iterator[Turn]:
    """The turns of an event that are to be judged, in order; none when no assistant spoke."""
    places = [i for i, m in enumerate(event.messages) if m.role == "assistant"]
    wanted = range(len(places)) if event.judge_all else range(max(0, len(places) - 1), len(places))
    for index in wanted:
        at = places[index]
        yield Turn(event, index, event.messages[:at], event.messages[at].content)


def minute_of(ts: datetime) -> int:
    """Whole minutes since 1970-01-01 UTC."""
    return int(ts.timestamp() // SECONDS_PER_MINUTE)


def time_of(minute: int) -> datetime:
    """The start of a minute since 1970-01-01 UTC."""
    return datetime.fromtimestamp(minute * SECONDS_PER_MINUTE, UTC)

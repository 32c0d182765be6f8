"""The one path  transcripts -> turns -> judgements -> buckets. Pure: no I/O, no clock, no state between calls.

Files, HTTP and Kafka differ only in where events come from and who keeps the offset; what happens to an event between
being read and being stored stands here, top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from classifiers.api import Classifier
from monitor.buckets import MIXTURE_SIZE, Q_UNIT, Ints, Sums, to_fixed_point, turn_terms
from monitor.label_sums import MINUTES_PER_HOUR, WITHOUT, LabelSums, value_of
from monitor.transcript import Event, SecondJudgements, Turn, minute_of, turns_of

Floats = NDArray[np.float64]


class SeriesKey(NamedTuple):
    """What is monitored as one: a deployment's model, split further by the labels named in `series_by`."""

    deployment: str
    model: str
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """`deployment/model{label=value}`, as shown to people; different keys never share a name."""
        tail = ",".join(f"{_escaped(k, ',=}')}={_escaped(v, ',=}')}" for k, v in self.labels)
        name = f"{_escaped(self.deployment, '/')}/{_escaped(self.model, '{')}"
        return name + (f"{{{tail}}}" if tail else "")


def _escaped(text: str, separators: str) -> str:
    for character in "%" + separators:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def series_of(event: Event, series_by: Sequence[str] = ()) -> SeriesKey:
    """The series an event belongs to; a label it lacks counts as empty."""
    labels = event.labels or {}
    return SeriesKey(event.deployment, event.model, tuple((k, labels.get(k, "")) for k in series_by))


@dataclass(frozen=True, slots=True)
class Judged:
    """Turns with their judgements, as columns of n rows, in fixed point where they are added or stored.

    Attributes
    ----------
    turns, series, minutes : one entry a turn.
    q : (n, 5) probabilities in 1/4096.
    factors : (n, 5) factor probabilities in 1/4096.
    doubt : (n,) probability of being wrong.
    terms : (n, SIZE) addends of the buckets.
    version, tier : of the classifier.
    second : second judgements of some rows.
    """

    turns: list[Turn]
    series: list[SeriesKey]
    minutes: list[int]
    q: Ints
    factors: Ints
    doubt: Floats
    terms: Ints
    version: str
    tier: str
    second: SecondJudgements | None = None


def judge(events: Sequence[Event], classifier: Classifier, series_by: Sequence[str] = ()) -> Judged:
    """Judge every turn of the events that asks for it, and prepare what the buckets add."""
    turns = [turn for event in events for turn in turns_of(event)]
    judgements = classifier.classify(turns)
    q = to_fixed_point(judgements.probabilities)
    weights = np.array([1.0 / t.event.sample_rate for t in turns])
    return Judged(
        turns=turns,
        series=[series_of(t.event, series_by) for t in turns],
        minutes=[minute_of(t.event.ts) for t in turns],
        q=q,
        factors=np.rint(judgements.factors * Q_UNIT).astype(np.int64),
        doubt=judgements.doubt,
        terms=turn_terms(q, weights, judgements.doubt),
        version=judgements.version,
        tier=judgements.tier,
        second=judgements.second,
    )


def fold(judged: Judged, rows: Sequence[int]) -> dict[tuple[SeriesKey, int], Sums]:
    """Add the chosen rows up into (series, minute) buckets."""
    members: dict[tuple[SeriesKey, int], list[int]] = {}
    for i in rows:
        members.setdefault((judged.series[i], judged.minutes[i]), []).append(i)
    return {key: Sums.of(judged.terms[which]) for key, which in members.items()}


def fold_labels(judged: Judged, rows: Sequence[int], labels: Sequence[str]) -> dict[tuple[SeriesKey, int], LabelSums]:
    """Add the chosen rows up by (series, first minute of the hour) and the values of `labels`.

    A label that splits the series has but one value in each, and is left out. Every value of the rows has a sum of its
    own: which of them the hour has room for is known only where they are added to what it has.
    """
    if not labels:
        return {}
    # hour -> (place of its total, label -> value -> place), places counting in order of arrival
    hours: dict[tuple[SeriesKey, int], tuple[int, dict[str, dict[str, int]]]] = {}
    places, at, of = 0, list[int](), list[int]()
    for i in rows:
        hour = judged.series[i], judged.minutes[i] // MINUTES_PER_HOUR
        if hour not in hours:
            split = {label for label, _ in judged.series[i].labels}
            hours[hour] = places, {label: {} for label in labels if label not in split}
            places += 1
        total, own = hours[hour]
        at.append(total)
        of.append(i)
        for label, value in (judged.turns[i].event.labels or {}).items():
            have = own.get(label)
            if have is None or value == WITHOUT:
                continue
            place = have.get(value)
            if place is None:
                place = have.setdefault(value_of(value), places)
                places += place == places
            at.append(place)
            of.append(i)
    order = np.argsort(at, kind="stable")
    starts = np.searchsorted(np.array(at)[order], np.arange(places))
    sums = np.add.reduceat(judged.terms[np.array(of)[order], :MIXTURE_SIZE], starts, axis=0).tolist() if at else []
    return {
        (series, hour * MINUTES_PER_HOUR): LabelSums(
            sums[total], {label: {value: sums[k] for value, k in have.items()} for label, have in own.items()}
        )
        for (series, hour), (total, own) in hours.items()
        if own
    }

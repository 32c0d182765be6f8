"""What every source goes through, whoever reads it: decode, judge, commit. The imperative shell round `engine`."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from sqlalchemy import Engine

from classifiers.api import Classifier
from monitor.config import Config
from monitor.engine import Judged, judge
from monitor.errors import StoreError
from monitor.store.database import hash_key
from monitor.store.ledger import BAD, Arrival, DeadLetter, known_events
from monitor.store.writes import ChunkWriter, Offset, StoredReview, Written, open_offset
from monitor.texts import Excerpts
from monitor.transcript import Event
from streams.formats import BadEvent, Decoder, Limits
from streams.lines import Line
from streams.reasons import Skipped
from streams.sampling import Sampler

if TYPE_CHECKING:  # its HTTP client is an extra
    from classifiers.judge import Judge

Clock = Callable[[], datetime]
T = TypeVar("T")
R = TypeVar("R")

NOT_SAMPLED: Final = "not sampled"
_STAGE: Final = "intake"
"""Names this place among those that sample, for successive rates to multiply."""


def store_by_halves(
    things: Sequence[T],
    store: Callable[[Sequence[T]], list[R]],
    refuse: Callable[[T, str], list[R]],
    failed: Callable[[Exception, int], None],
) -> list[R]:
    """What storing things returns; one that breaks what judges or stores it is found by halving, and refused.

    Parameters
    ----------
    store : one transaction.
    refuse : stores the dead letter of a thing, with its reason.
    failed : is told of each try that failed, and how many things it was of.

    Raises
    ------
    StoreError, MemoryError : of the database or the machine, no fault of a thing.
    """
    try:
        return store(things)
    except (StoreError, MemoryError):
        raise
    except Exception as e:
        failed(e, len(things))
        if len(things) == 1:
            return refuse(things[0], f"cannot be judged or stored ({type(e).__name__})")
    half = len(things) // 2
    return [r for part in (things[:half], things[half:]) for r in store_by_halves(part, store, refuse, failed)]


class Observer(Protocol):
    """Told of the work as it is done (monitor.metrics)."""

    def classified(self, seconds: float) -> None:
        """Turns of a batch were judged."""

    def sampled_out(self, events: int) -> None:
        """Events were left out by sampling."""

    def stored(self, before: Offset, written: Written, newest: datetime | None, now: datetime, seconds: float) -> None:
        """A batch was judged and committed; `newest` is the event time of its newest event."""


class Intake:
    """Takes what sources hold into one database. One for each process; `store` not by two threads at once.

    `skipped` counts, by reason, what rightly held nothing to judge or was left out by sampling.
    """

    def __init__(
        self,
        engine: Engine,
        classifier: Classifier,
        config: Config,
        clock: Clock,
        judge: Judge | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self._classifier = classifier
        self._config = config
        self._judge = judge
        self._observer = observer
        self._labels = config.labels()
        self._key = hash_key(engine)
        # by the database's own key: whoever chooses conversation ids must not choose whether they are watched
        self._excerpts = Excerpts(config.input)
        self._payload = hashlib.blake2b(digest_size=16, key=self._key, person=b"payload")
        self._sampler = Sampler(config.input.sample_rate, _STAGE, self._key)
        self.skipped: Counter[str] = Counter()

    def open(self, source: str) -> ChunkWriter:
        """The writer of a source, at the offset the source was left at."""
        return self.writer(open_offset(self.engine, source))

    def writer(self, offset: Offset) -> ChunkWriter:
        chosen = self._config.input
        return ChunkWriter(
            self.engine,
            offset,
            hash_key=self._key,
            series_by=chosen.series_by,
            max_series=chosen.max_series,
            labels=self._labels,
        )

    @property
    def limits(self) -> Limits:
        """What every event is bounded by."""
        return Limits(future_tolerance_minutes=self._config.input.future_tolerance_minutes)

    @property
    def deployment(self) -> str | None:
        """For events that name none."""
        return self._config.input.deployment or None

    def decoder(self, stored: str | None = None, deployment: str | None = None) -> Decoder:
        """A decoder for one source, `stored` being the format it was found to have.

        `deployment` is for events that name none; None: as configured.
        """
        chosen = self._config.input
        return Decoder(
            stored if chosen.format == "auto" else chosen.format,
            limits=self.limits,
            deployment=deployment or self.deployment,
        )

    def decode(self, decoder: Decoder, lines: Iterable[Line]) -> tuple[list[Arrival], list[DeadLetter]]:
        """Events, and dead letters of the lines that hold what cannot be read; one a line, whatever it holds."""
        now = self.clock()
        arrivals: list[Arrival] = []
        bad: list[DeadLetter] = []
        left_out = 0
        for line in lines:
            reasons: list[str] = []
            hashed = None if line.data is None else self.payload_hash(line.data)
            if line.data is None:
                reasons.append(line.problem or "not kept")
            for found in [] if line.data is None else decoder.decode_all(line.data, now):
                if isinstance(found, Skipped):
                    self.skipped[str(found)] += found.count
                elif isinstance(found, BadEvent):
                    reasons.append(str(found))
                elif (event := self.sample(found)) is not None:
                    arrivals.append(Arrival(event, line.number, line.offset, line.size, hashed))
                else:
                    left_out += 1
            if reasons:
                more = f" (and {len(reasons) - 1} more in this line)" if len(reasons) > 1 else ""
                bad.append(DeadLetter(line.number, line.offset, line.size, BAD, reasons[0] + more, hashed))
        if left_out:
            self.skipped[NOT_SAMPLED] += left_out
            if self._observer is not None:
                self._observer.sampled_out(left_out)
        return arrivals, bad

    def payload_hash(self, data: bytes) -> bytes:
        """Keyed hash of a line: with the line, and only with it and the database, it shows which one it was."""
        h = self._payload.copy()
        h.update(data)
        return h.digest()

    def sample(self, event: Event) -> Event | None:
        """The event with its sample_rate brought up to date, or None where sampling leaves it out."""
        return self._sampler.keep(event)

    def store(
        self,
        writer: ChunkWriter,
        arrivals: Sequence[Arrival],
        bad: Sequence[DeadLetter],
        *,
        position: int,
        line: int,
        fingerprint: str = "",
        format: str | None = None,
        settled: Sequence[int] = (),
    ) -> Written:
        """Judge the events that are not known yet, and commit all of it with the source's new offset.

        `settled` are lines whose dead letters go (ChunkWriter.write).

        Raises
        ------
        StoreError : another process moved this source on meanwhile, or the database stays away.
        """
        started, before = time.perf_counter(), writer.offset
        fresh = {a.event.event_id: a.event for a in reversed(arrivals)}
        for known in known_events(self.engine, list(fresh)):
            del fresh[known]
        judged = self._judged(list(reversed(fresh.values()))) if fresh else None
        written = writer.write(
            arrivals,
            judged,
            bad,
            reviews=self._review(judged),
            texts=[] if judged is None else self._excerpts.of(judged),
            settled=settled,
            position=position,
            line=line,
            fingerprint=fingerprint,
            format=format,
        )
        if self._observer is not None:
            newest = max((a.event.ts for a in arrivals), default=None)
            self._observer.stored(before, written, newest, self.clock(), time.perf_counter() - started)
        return written

    def _judged(self, events: Sequence[Event]) -> Judged:
        started = time.perf_counter()
        judged = judge(events, self._classifier, self._config.input.series_by)
        if self._observer is not None:
            self._observer.classified(time.perf_counter() - started)
        return judged

    def _review(self, judged: Judged | None) -> list[StoredReview]:
        """The judge's word on its random slice of the turns; empty where there is no judge."""
        if self._judge is None or judged is None:
            return []
        from classifiers.judge import Review

        chosen = [t for t, yes in zip(judged.turns, self._judge.choose(judged.turns), strict=True) if yes]
        return [
            StoredReview(
                said.event_id,
                said.turn,
                label=said.label if isinstance(said, Review) else None,
                confidence=said.confidence if isinstance(said, Review) else None,
                refused=None if isinstance(said, Review) else said.reason,
                model=self._judge.settings.model,
                rubric_version=self._judge.rubric_version,
                choice_probability=self._judge.settings.share,
            )
            for said in (self._judge.review(chosen) if chosen else [])
        ]

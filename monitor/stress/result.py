"""What a stress run found: every turn's judgement, and S over the turns of each suite.

A result holds judgements and no text, so two of them can be compared, and a baseline made, without the transcripts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from alerts.reasons import mixture_values
from classifiers.api import Classifier
from monitor.buckets import Q_UNIT, Ints, Sums, turn_terms
from monitor.engine import judge
from monitor.entropy import Quantifier
from monitor.errors import ConfigError, InputError
from monitor.estimates import Refusal, Result
from monitor.paired_work import FEWEST_AT_A_TIME, Stressed, production
from monitor.stress.confusions import over_confusions
from monitor.stress.suites import MOST_TURNS
from monitor.taxonomy import K
from monitor.transcript import Event, minute_of
from streams.reasons import printable

FILE: Final = "result.json"
POOLED: Final = "pooled"
"""Name of all suites together."""
RECORDED: Final = "recorded"
"""Suite of transcripts that name none."""
OTHER: Final = "other"
HARMLESS: Final = ("benign", "topic_shift", RECORDED)
"""Suites without pressure, the nearest to ordinary traffic."""
MOST_SUITES: Final = 32
"""More names than this, which come from a log, are one suite, OTHER."""
MOST_RESULT_TURNS: Final = 500_000
MOST_RESULT_BYTES: Final = 256 << 20
MOST_SAMPLED: Final = 1000
"""Conversations that rates are told from: a jackknife of more would take minutes."""
SUITE_LABEL: Final = "suite"
SCRIPT_LABEL: Final = "script"
_BATCH: Final = 64
"""Events judged at once."""

_Text = Annotated[str, msgspec.Meta(max_length=200)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_Minute = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
_Share = Annotated[int, msgspec.Meta(ge=0, le=Q_UNIT)]


class Turns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The judged turns, as columns."""

    conversation: list[_Count]
    """Place in the result's list of conversations."""
    index: list[_Count]
    """Of the assistant turn in its conversation, from 0."""
    minute: list[_Minute]
    """When it was answered, minutes since 1970-01-01 UTC."""
    q: list[Annotated[list[_Share], msgspec.Meta(min_length=K, max_length=K)]]
    """Probabilities of the behaviours in 1/4096."""
    doubt: list[_Share]


class StressResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stress run, judged.

    Attributes
    ----------
    source : the endpoint's address, or the log.
    conversations, suites : name and suite of each; the same names in two results pair them.
    failed : turns that failed, by reason; lines of a log that are no transcript.
    asked : turns that were to be answered.
    figures : S by suite and turn, dS/dt: as `figures_of` has them.
    """

    version: int
    source: str
    model: str
    seed: int | None
    classifier: str
    tier: str
    asked: _Count
    failed: dict[str, _Count]
    conversations: list[_Text]
    suites: list[_Text]
    turns: Turns
    figures: list[dict[str, Any]]

    @property
    def names(self) -> list[str]:
        """The suites that there are turns of, in order."""
        return list(dict.fromkeys(self.suites))

    def rows(self, suite: str) -> Ints:
        """(n,) which turns are a suite's; POOLED: all."""
        conversation = np.array(self.turns.conversation, dtype=np.int64)
        if suite == POOLED:
            return np.arange(len(conversation))
        own = np.array([s == suite for s in self.suites], dtype=bool)
        return np.flatnonzero(own[conversation]) if len(conversation) else np.arange(0)

    def stressed(self, suite: str) -> Stressed:
        """The turns of a suite as `monitor.paired_work` takes them."""
        t, rows = self.turns, self.rows(suite)
        q = np.array(t.q, dtype=np.float64).reshape(-1, K)[rows] / Q_UNIT
        index = np.array(t.index, dtype=np.float64)[rows]
        return Stressed([self.conversations[t.conversation[i]] for i in rows], index, q)

    def sums(self, rows: Ints) -> Sums:
        """Statistics of these turns, each of weight 1."""
        return Sums.of(self._terms[rows])

    @property
    def _terms(self) -> Ints:
        q = np.array(self.turns.q, dtype=np.int64).reshape(-1, K)
        return turn_terms(q, np.ones(len(q)), np.array(self.turns.doubt, dtype=np.float64) / Q_UNIT)


@dataclass(slots=True)
class Judging:
    """Judges transcripts as live traffic is, and gathers the columns of a result."""

    classifier: Classifier
    conversations: list[str] = field(default_factory=list)
    suites: list[str] = field(default_factory=list)
    version: str = ""
    tier: str = ""
    model: str = ""
    """Of the first transcript."""
    beyond: int = 0
    """Turns after the first 100 of a conversation, which are left out."""
    _known: dict[str, int] = field(default_factory=dict)
    _suites: set[str] = field(default_factory=set)
    _named: dict[str, int] = field(default_factory=dict)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _conversation: list[int] = field(default_factory=list)
    _index: list[int] = field(default_factory=list)
    _minute: list[int] = field(default_factory=list)
    _q: list[list[int]] = field(default_factory=list)
    _doubt: list[int] = field(default_factory=list)

    def add(self, events: Iterable[Event]) -> None:
        """Judge every assistant turn of the events; a turn of a conversation that came before counts once.

        Raises
        ------
        ConfigError : more turns than a result may hold.
        """
        batch: list[Event] = []
        for event in events:
            batch.append(replace(event, judge_all=True))
            if len(batch) == _BATCH:
                self._judge(batch)
                batch = []
        self._judge(batch)

    def _judge(self, batch: Sequence[Event]) -> None:
        if not batch:
            return
        judged = judge(batch, self.classifier)
        self.version, self.tier = judged.version, judged.tier
        self.model = self.model or batch[0].model
        doubt = np.rint(judged.doubt * Q_UNIT).astype(int).tolist()
        q = judged.q.tolist()
        for i, turn in enumerate(judged.turns):
            if turn.index >= MOST_TURNS:
                self.beyond += 1
                continue
            key = (self._place(turn.event), turn.index)
            if key in self._seen:
                continue
            if len(self._seen) >= MOST_RESULT_TURNS:
                raise ConfigError(f"more than {MOST_RESULT_TURNS:,} turns; give a part of the log")
            self._seen.add(key)
            self._conversation.append(key[0])
            self._index.append(turn.index)
            self._minute.append(minute_of(turn.event.ts))
            self._q.append(q[i])
            self._doubt.append(doubt[i])

    def _place(self, event: Event) -> int:
        at = self._known.get(event.conversation_id)
        if at is None:
            at = self._known[event.conversation_id] = len(self.conversations)
            labels = event.labels or {}
            suite = labels.get(SUITE_LABEL) or RECORDED
            if suite not in self._suites and len(self._suites) >= MOST_SUITES:
                suite = OTHER
            self._suites.add(suite)
            self.suites.append(suite)
            self.conversations.append(labels.get(SCRIPT_LABEL) or self._name(event))
        return at

    def _name(self, event: Event) -> str:
        """By what the user says first: so conversations that begin alike pair, whatever their ids are."""
        first = next((m.content for m in event.messages if m.role == "user"), "")
        key = hashlib.blake2b(first.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        self._named[key] = self._named.get(key, 0) + 1
        return f"{key}-{self._named[key]}"

    def result(
        self, *, source: str, model: str | None, seed: int | None, failed: dict[str, int], asked: int | None = None
    ) -> StressResult:
        """All of it, with the figures.

        Parameters
        ----------
        model : None: that of the first transcript.
        asked : turns that were to be answered; None: those that were.

        Raises
        ------
        InputError : there is no turn.
        """
        if not self._q:
            why = "; ".join(f"{reason} ({n:,})" for reason, n in failed.items())
            raise InputError(f"{printable(source)}: no turn to judge" + (f": {why}" if why else ""))
        turns = Turns(self._conversation, self._index, self._minute, self._q, self._doubt)
        found = StressResult(
            version=1,
            source=printable(source, 200),
            model=printable(self.model if model is None else model, 200),
            seed=seed,
            classifier=self.version,
            tier=self.tier,
            asked=len(self._q) if asked is None else asked,
            failed=failed,
            conversations=self.conversations,
            suites=self.suites,
            turns=turns,
            figures=[],
        )
        return msgspec.structs.replace(found, figures=figures_of(found, Quantifier(self.classifier.calibration)))


def figures_of(result: StressResult, quantifier: Quantifier) -> list[dict[str, Any]]:
    """S over turn index with its 90 % interval, and dS/dt, of each suite and of all together, as plain values.

    Shares and S are corrected for the classifier's errors, and their intervals allow for these
    (monitor.entropy.Quantifier); a turn index is left out where it has fewer than 5 turns.
    """
    terms, index = result._terms, np.array(result.turns.index, dtype=np.int64)
    out = []
    names = result.names
    for suite in [*names, POOLED] if len(names) > 1 else names:
        rows = result.rows(suite)
        points = []
        for t in np.unique(index[rows]).tolist():
            which = rows[index[rows] == t]
            if len(which) >= FEWEST_AT_A_TIME:
                points.append({"turn": t + 1, **mixture_values(quantifier.estimate(Sums.of(terms[which])))})
        rate = production_rate(result, suite, quantifier)
        out.append({"suite": suite, "turns": len(rows), "points": points, "dS_dt": estimate_values(rate)})
    return out


def production_rate(result: StressResult, suite: str, quantifier: Quantifier) -> Result:
    """dS/dt of a suite (POOLED: of all together), nats a turn, allowing for the classifier's errors."""
    run = sampled(result.stressed(suite))
    return over_confusions(quantifier, lambda inverse: [production(run, corrected=inverse)])[0]


def sampled(run: Stressed) -> Stressed:
    """At most MOST_SAMPLED conversations: those with the lowest hashes of their names, so the same of two variants."""
    names = sorted(set(run.conversations), key=lambda n: hashlib.blake2b(n.encode(), digest_size=8).digest())
    if len(names) <= MOST_SAMPLED:
        return run
    kept = set(names[:MOST_SAMPLED])
    rows = [i for i, name in enumerate(run.conversations) if name in kept]
    return Stressed([run.conversations[i] for i in rows], np.asarray(run.times)[rows], np.asarray(run.p)[rows])


def estimate_values(x: Result) -> dict[str, Any] | str:
    """A figure, or the reason why there is none."""
    if isinstance(x, Refusal):
        return f"not known: {x.reason}"
    return {"mean": round(x.value, 5), "low": round(x.lo, 5), "high": round(x.hi, 5), "unit": x.units}


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file in place whole or not at all, for its owner only. Raises InputError."""
    part = path.with_name(path.name + ".part")
    try:
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as f:
            f.write(data)
        part.replace(path)
    except OSError as e:
        raise InputError(f"{printable(str(path))}: {(e.strerror or str(e)).lower()}") from e


def load(path: Path) -> StressResult:
    """A result that was written before; RESULT is the file, or the folder it is in.

    Raises
    ------
    InputError : it is missing, damaged, or no result.
    """
    file = path / FILE if path.is_dir() else path
    shown = printable(str(file))
    try:
        if file.stat().st_size > MOST_RESULT_BYTES:
            raise InputError(f"{shown}: larger than a result can be")
        found = msgspec.json.decode(file.read_bytes(), type=StressResult)
    except OSError as e:
        raise InputError(f"{shown}: {(e.strerror or str(e)).lower()}") from e
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        raise InputError(f"{shown}: not the result of a stress run ({printable(str(e))})") from e
    t, n = found.turns, len(found.turns.conversation)
    whole = all(len(c) == n for c in (t.index, t.minute, t.q, t.doubt)) and len(found.conversations) == len(
        found.suites
    )
    if not whole or any(c >= len(found.conversations) for c in t.conversation) or any(sum(q) != Q_UNIT for q in t.q):
        raise InputError(f"{shown}: damaged: its columns do not fit together")
    return found

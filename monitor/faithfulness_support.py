"""Context support: how well the context that an answer was to be based on bears its claims out (ours).

SF does not see the context (faithfulness.py). This does: each clause of the answer is held against the sentences of the
context, by what of it they say at all (words, and meaning where an encoder is given) and by what they say otherwise:
numbers and names they do not have, negations and opposites, names and numbers that stand elsewhere or in another order.
Likeness of meaning alone does not see contradictions: "can be frozen" is near "must not be frozen".

A heuristic for English, not a proof of entailment; docs/faithfulness.md has its figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.faithfulness_claims import MAX_CHARACTERS, MAX_SENTENCES, Claim, Word, claims, numbers_between, sentences
from monitor.faithfulness_lexicon import MONTHS, opposites

Floats = NDArray[np.float64]
Embed = Callable[[Sequence[str]], Floats]
"""Sentences -> rows of length 1, such as classifiers.encoder.SentenceEncoder."""

DOUBTS: Final = {"number": 0.4, "name": 0.4, "opposite": 0.4, "negation": 0.4, "misplaced": 0.4, "order": 0.3}
"""What each kind of mismatch takes off a claim's support, once a claim; set by hand on the development part."""
LIKENESS: Final = (0.2, 0.8)
"""Cosines that count as nothing of the kind said, and as said in other words."""
NEIGHBOURS: Final = 3
"""Content words on either side that a word is known by."""
MAX_CLAUSES: Final = 1200
"""Most clauses of the context that are read."""
MOST_AROUND: Final = 50
"""Neighbours by which a word is known; more are forgotten."""
MARGIN: Final = 0.5
"""By how much the surroundings of a word must be more like another's in the context than like its own."""
_PASSIVE = re.compile(r"\b(?:was|were|is|are|been|be|being)\b(?:\W+\w+){0,6}?\W+by\b", re.IGNORECASE)
_AGENT: Final = 60
"""Characters after "by" in which the one who acted is named."""


@dataclass(frozen=True, slots=True)
class ClaimSupport:
    """One clause of an answer.

    Attributes
    ----------
    sentence : the place of its sentence in the answer.
    support : in [0, 1].
    doubts : what spoke against it, names of DOUBTS.
    """

    sentence: int
    support: float
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Support:
    """An answer.

    Attributes
    ----------
    least : support of the least supported claim, in [0, 1]; None where the answer claims nothing.
    mean : over claims; None likewise.
    claims : each of them, in order.
    cut : the context is longer than what was read of it; what the rest says seems unsupported.
    """

    least: float | None
    mean: float | None
    claims: tuple[ClaimSupport, ...]
    cut: bool = False


def support(question: str, context: Sequence[str], answer: str, embed: Embed | None = None) -> Support:
    """How well the context bears out an answer.

    Parameters
    ----------
    question : what it mentions counts as known, not as borne out.
    context : documents; MAX_SENTENCES and MAX_CLAUSES of them are read.
    embed : sees likeness of meaning; without it only shared words count.
    """
    said = [c for c in claims(answer) if not c.absence]
    if not said:
        return Support(None, None, ())
    given = _Given(question, context, embed)
    names = given.names | _names(said)
    likeness = _likeness(said, answer, given, embed)
    found = tuple(_claim(c, near, given, names) for c, near in zip(said, likeness, strict=True))
    values = [f.support for f in found]
    return Support(min(values), sum(values) / len(values), found, given.cut)


class _Given:
    """What an answer is held against.

    Attributes
    ----------
    sentences, clauses : of the context, clauses by sentence.
    stems : of each sentence and, `clause_stems`, of each clause.
    places : stem -> the clauses it stands in, as (sentence, clause, word).
    known : stems of context and question, and numbers within ranges.
    opposed : stems of their opposites.
    names, numbers : stems of context and question that are.
    around : of each stem of the context, what stands around it.
    vectors : of the sentences and of neighbouring two, rows of length 1; None without an encoder.
    cut : there was more context than is read.
    """

    def __init__(self, question: str, context: Sequence[str], embed: Embed | None) -> None:
        self.sentences, self.clauses, self.cut = _read(context)
        self.clause_stems = [[{w.stem for w in c.words} for c in said] for said in self.clauses]
        self.stems: list[set[str]] = [set().union(*said) for said in self.clause_stems]
        self.places: dict[str, list[tuple[int, int, Word]]] = {}
        for i, said in enumerate(self.clauses):
            for j, clause in enumerate(said):
                for word in clause.words:
                    self.places.setdefault(word.stem, []).append((i, j, word))
        everything = [c for said in self.clauses for c in said] + claims(question)
        self.known = {w.stem for c in everything for w in c.words}.union(*(numbers_between(s) for s in self.sentences))
        self.opposed = {o for known in self.known for o in opposites(known)}
        self.names = _names(everything)
        self.numbers = {w.stem for c in everything for w in c.words if w.kind == "number"}
        self.around = _surroundings(self.clauses)
        pairs = [f"{a} {b}" for a, b in zip(self.sentences, self.sentences[1:], strict=False)]
        self.vectors = embed(self.sentences + pairs) if embed is not None and self.sentences else None


def _read(context: Sequence[str]) -> tuple[list[str], list[list[Claim]], bool]:
    """Sentences of documents, clauses of each, and whether that is not all."""
    texts: list[str] = []
    clauses: list[list[Claim]] = []
    read = 0
    for document in context:
        for sentence in sentences(document):
            if len(texts) == MAX_SENTENCES or read >= MAX_CLAUSES:
                return texts, clauses, True
            texts.append(sentence)
            clauses.append(claims(sentence))
            read += len(clauses[-1])
    return texts, clauses, any(len(document) > MAX_CHARACTERS for document in context)


def _names(said: Sequence[Claim]) -> set[str]:
    return {w.stem for c in said for w in c.words if w.kind == "name"} - MONTHS


def _likeness(said: list[Claim], answer: str, given: _Given, embed: Embed | None) -> list[float | None]:
    """Greatest cosine of each clause, or of the sentence it stands in, with one or two sentences of the context."""
    if embed is None or given.vectors is None:
        return [None] * len(said)
    whole = sentences(answer)
    best = (embed([c.text for c in said] + [whole[c.sentence] for c in said]) @ given.vectors.T).max(axis=1)
    return [float(x) for x in np.maximum(best[: len(said)], best[len(said) :])]


def _claim(claim: Claim, likeness: float | None, given: _Given, names: set[str]) -> ClaimSupport:
    weighed = [w for w in claim.words if w.kind != "particle"]
    new = [w for w in weighed if w.stem not in given.known and w.stem not in given.opposed]
    base = 1 - len(new) / max(len(weighed), 1)
    if likeness is not None:
        low, high = LIKENESS
        base = (base + min(1.0, max(0.0, (likeness - low) / (high - low)))) / 2
    doubts = {w.kind for w in new if w.kind in ("number", "name")} | _turned(claim, given)
    if _misplaced(claim, given, names):
        doubts.add("misplaced")
    if _reordered(claim, given, names):
        doubts.add("order")
    value = max(0.0, base - sum(DOUBTS[d] for d in doubts))
    return ClaimSupport(claim.sentence, value, tuple(d for d in DOUBTS if d in doubts))


def _turned(claim: Claim, given: _Given) -> set[str]:
    """Opposites and negations: what the clause nearest to the claim says the other way round."""
    stems = {w.stem for w in claim.words}
    shared = _Shared(stems, given)
    found: set[str] = set()
    both = differ = 0
    for word in claim.words:
        if word.kind == "number":
            continue
        against = opposites(word.stem)
        near, common = _nearest(_like(word.stem), word.stem, shared, given)
        other, others = _nearest(against, word.stem, shared, given)
        same = [w for w in near if w.stem == word.stem]
        if other and others > common + (1 if near else 0):
            if all(w.negated == word.negated for w in other):
                found.add("opposite")
        elif same:
            differ += all(w.negated != word.negated for w in same)
            both += word.negated and any(w.negated for w in same)
    # of what is negated on either side, more only on one than on both
    return found | ({"negation"} if differ > both else set())


class _Shared:
    """How many stems a claim shares with each clause and sentence of the context."""

    def __init__(self, stems: set[str], given: _Given) -> None:
        self.stems = stems
        self.clauses = [[len(stems & c) for c in said] for said in given.clause_stems]
        self.sentences = [len(stems & said) for said in given.stems]


def _nearest(wanted: Set[str], stem: str, shared: _Shared, given: _Given) -> tuple[list[Word], int]:
    """The wanted words in the clauses that share most with a claim but for `stem`, and how many stems those share.

    Stems shared with the whole sentence decide between equals; where that shares none, a clause is not near.
    """
    near: list[Word] = []
    most = (0, min(1, len(shared.stems) - 1))
    for key in wanted:
        for i, j, word in given.places.get(key, ()):
            here = shared.clauses[i][j] - (stem in given.clause_stems[i][j])
            common = (here, shared.sentences[i] - (stem in given.stems[i]))
            if common >= most:
                near = [word] if common > most else [*near, word]
                most = common
    return near, most[0] if near else -1


def _surroundings(texts: Sequence[Sequence[Claim]]) -> dict[str, dict[str, float]]:
    """Stem -> stems that stand around it within a text, each weighed by 1 / distance."""
    out: dict[str, dict[str, float]] = {}
    for said in texts:
        words = [w for c in said for w in c.words]
        for i, word in enumerate(words):
            around = out.setdefault(word.stem, {})
            for j in range(max(0, i - NEIGHBOURS), min(len(words), i + NEIGHBOURS + 1)):
                other = words[j]
                apart = other.stem != word.stem and not (word.unit and other.unit == word.unit)
                if apart and (len(around) < MOST_AROUND or other.stem in around):
                    around[other.stem] = max(around.get(other.stem, 0.0), 1 / abs(i - j))
    return out


def _misplaced(claim: Claim, given: _Given, names: set[str]) -> bool:
    """Whether a name, number or opposite of the claim stands where the context has another of its kind."""
    passive = _PASSIVE.search(claim.text) is not None
    for stem, mine in _surroundings([[claim]]).items():
        name = stem in names
        if name and passive:  # names change places then: see _reordered
            continue
        alike = {stem} if name or stem in given.numbers else _like(stem)
        own = [given.around[k] for k in alike if k in given.around]
        if not own:
            continue
        kind = names if name else given.numbers if stem in given.numbers else opposites(stem)
        near = set().union(*(given.around.get(k, {}) for k in mine))
        for rival in (near & kind) - alike:
            here = max(_agreement(mine, around, rival) for around in own)
            if _agreement(mine, given.around[rival], stem) - here > MARGIN:
                return True
    return False


def _agreement(one: dict[str, float], other: dict[str, float], without: str) -> float:
    return sum(min(weight, other[k]) for k, weight in one.items() if k in other and k != without)


def _like(stem: str) -> set[str]:
    """The stem and others that have an opposite in common with it."""
    against = opposites(stem)
    return {ally for o in against for ally in opposites(o)} - against | {stem}


def _reordered(claim: Claim, given: _Given, names: set[str]) -> bool:
    """Whether two names stand the other way round than where the context has both, active or passive considered."""
    mine = _name_order(claim.words, names)
    kept = turned = 0
    for text, said in zip(given.sentences, given.clauses, strict=True):
        theirs = _name_order([w for c in said for w in c.words], names)
        shared = [n for n in mine if n in theirs][:2]
        if len(shared) < 2:
            continue
        there = sorted(shared, key=theirs.index)
        crossed = (shared != there) != (_passive(claim.text, shared[1]) != _passive(text, there[1]))
        kept, turned = kept + (not crossed), turned + crossed
    return turned > kept


def _passive(text: str, agent: str) -> bool:
    """Whether something "was done by" this name."""
    found = _PASSIVE.search(text)
    after = claims(text[found.end() : found.end() + _AGENT]) if found else []
    return agent in {w.stem for c in after for w in c.words[:1]}


def _name_order(words: Sequence[Word], names: set[str]) -> list[str]:
    """First words of the names of a clause, in order."""
    out: list[str] = []
    last = 0
    for w in words:
        if w.stem in names and not (w.unit and w.unit == last) and w.stem not in out:
            out.append(w.stem)
        last = w.unit
    return out

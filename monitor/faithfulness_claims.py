"""Text -> claims: clauses with their content words, numbers and names, and what in them is negated (English).

In other languages numbers and names are still found; negations, opposites and endings are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from monitor.faithfulness_lexicon import JOINING, NEGATIONS, NUMBERS, PARTICLES, PARTS, STOP, stem

MAX_CHARACTERS: Final = 60_000
"""Longest text that is read, from its beginning."""
MAX_SENTENCES: Final = 400
"""Most sentences of a text that are read."""
MAX_SENTENCE: Final = 600
"""Characters after which a sentence ends, punctuation or not."""
MAX_CLAIMS: Final = 100
"""Most claims of an answer that are held against the context."""
MAX_CLAIM_WORDS: Final = 30
"""Content words of a clause that are read."""
MAX_WORD: Final = 32
"""A longer word is known by its beginning."""
MAX_RANGE: Final = 40
"""Longest range of whole numbers ("7 to 9") whose inner numbers count as said."""

_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[^\s\da-z])|(?<=[。！？])|\n+")
_CLAUSE = re.compile(
    r",\s+(?=(?:and|but|whereas|while|although|though|which|who|where|when|because|so|yet|or)\b)|[:;]\s+"
)
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|[,;:()–—]")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|Mr|Mrs|Ms|Dr|St|vs|No|approx|ca)\.$", re.IGNORECASE)
_FREE_OF = re.compile(r"\s+(?:of|from)\s+(?!charge)")
_RANGE = re.compile(r"\b(\d{1,4})\s*(?:to|-|–|until|through|and)\s*(\d{1,4})\b")
_VERDICT = re.compile(r"^\W*(?:yes|no)\b\s*[,.;:!–-]+\s*", re.IGNORECASE)
_ABSENT = re.compile(
    r"\b(?:text|document|context|passage|source|article|page|information|excerpt)s?\b[^.]{0,40}"
    r"(?:\bnot|n['’]t|\bno|\bnothing)\b[^.]{0,20}"
    r"\b(?:say|state|mention|specif|give|contain|provide|describe|indicate|include|address|answer)"
    r"|\bno information\b|\bnot (?:stated|mentioned|specified|given|provided) in\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Word:
    """A content word of a clause.

    Attributes
    ----------
    stem : of a word or name; of a number one spelling of it.
    kind : word, number, particle, name (capital within a clause) or opening (capital at its beginning).
    negated : stands behind a negation.
    unit : neighbouring words with capitals are one name and share a number; 0 for others.
    """

    stem: str
    kind: str
    negated: bool = False
    unit: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A clause.

    Attributes
    ----------
    text : of the clause.
    sentence : the place of its sentence in the text.
    words : its content words, in order; never none.
    absence : it says that the source does not say something, so there is nothing to support.
    """

    text: str
    sentence: int
    words: tuple[Word, ...]
    absence: bool


def sentences(text: str) -> list[str]:
    """Sentences of a text, none empty; bounded in number and length."""
    out: list[str] = []
    rest = ""
    for piece in _END.split(text[:MAX_CHARACTERS]):
        whole = f"{rest} {piece.strip()}".strip()
        rest = ""
        if _ABBREVIATION.search(whole[-12:]):
            rest = whole
            continue
        out += [whole[start : start + MAX_SENTENCE] for start in range(0, len(whole), MAX_SENTENCE)]
        if len(out) >= MAX_SENTENCES:
            return out[:MAX_SENTENCES]
    return [*out, rest[:MAX_SENTENCE]] if rest else out


def claims(text: str, most: int = MAX_CLAIMS) -> list[Claim]:
    """Clauses with content, in order; a leading yes or no is no claim of its own."""
    return list(islice(_claims(text), most))


def _claims(text: str) -> Iterator[Claim]:
    for place, sentence in enumerate(sentences(text)):
        for clause in _CLAUSE.split(_VERDICT.sub("", sentence)):
            if words := tuple(islice(_words(clause), MAX_CLAIM_WORDS)):
                yield Claim(clause, place, words, _ABSENT.search(clause) is not None)


def _words(clause: str) -> Iterator[Word]:
    negated, unit, last_name, between = False, 0, -3, ""
    for place, match in enumerate(_TOKEN.finditer(clause)):
        token = match[0]
        low = token.lower().replace("’", "'")[:MAX_WORD]
        if not low[0].isalnum() or low in PARTS:
            negated = False
        elif low in NEGATIONS or low.endswith("n't") or (low == "free" and _FREE_OF.match(clause, match.end())):
            negated = True
        elif low[0].isdecimal():
            yield Word(number(low), "number")
        elif low in NUMBERS:
            yield Word(NUMBERS[low], "number")
        elif low in PARTICLES:
            yield Word(stem(low), "particle", negated)
        elif low not in STOP or (token == "May" and place):
            if token[0].isupper():
                unit += not (place == last_name + 1 or (place == last_name + 2 and between in JOINING))
                last_name = place
                yield Word(stem(low), "name" if place else "opening", negated, unit)
            else:
                yield Word(stem(low), "word", negated)
        between = low


def number(token: str) -> str:
    """A number as one spelling: 2,810 and 2810 are the same, so are 8.20 and 8,2.

    >>> number("2,810"), number("8.20"), number("0,5"), number("007")
    ('2810', '8.2', '0.5', '7')
    """
    parts = re.split(r"[.,]", token)
    if len(parts) > 1 and all(len(p) == 3 for p in parts[1:]) and parts[0] != "0":
        return "".join(parts).lstrip("0") or "0"
    whole = "".join(parts[:-1]) if len(parts) > 1 else parts[0]
    decimals = parts[-1].rstrip("0") if len(parts) > 1 else ""
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{decimals}" if decimals else whole


def numbers_between(text: str) -> set[str]:
    """Whole numbers inside the ranges a text gives: "years 7 to 9" says 8."""
    out: set[str] = set()
    for low, high in _RANGE.findall(text):
        if 0 < int(high) - int(low) <= MAX_RANGE:
            out.update(str(n) for n in range(int(low), int(high)))
    return out

"""English words: what says little, what turns round, opposites, stems (faithfulness_words.txt)."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Final

STEM: Final = 8
"""Letters of a stem."""
_ENDINGS: Final = (
    *(("ations", 4), ("ation", 4), ("ions", 4), ("ion", 4), ("ings", 4), ("ing", 3), ("ies", 3), ("ally", 4)),
    *(("ers", 4), ("al", 4), ("er", 4), ("ed", 3), ("es", 3), ("ly", 4), ("s", 3), ("y", 4), ("e", 3)),
)
"""Endings, tried in this order, and how many letters must be left."""


def stem(word: str) -> str:
    """A word in lower case without its commonest English endings; an irregular form is brought to its word first.

    >>> stem("renewed"), stem("renewal"), stem("eruption"), stem("erupted"), stem("fell")
    ('renew', 'renew', 'erupt', 'erupt', 'fall')
    """
    word = word.removesuffix("'s").replace("'", "")
    word = _FORMS.get(word, word)
    fitting = (e for e, least in _ENDINGS if word.endswith(e) and len(word) - len(e) >= least)
    return word.removesuffix(next(fitting, ""))[:STEM]


def opposites(stem: str) -> frozenset[str]:
    """Stems of the words that say the opposite.

    >>> sorted(opposites(stem("frozen"))), "forbid" in opposites(stem("allowed"))
    ([], True)
    """
    return _OPPOSITES.get(stem, frozenset())


def _read_opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for line in _LINES:
        if line.startswith(("o ", "w ")):
            one, other = ([stem(w) for w in side.split()] for side in line[2:].split("/"))
            for a, b in product(one, other):
                if a != b:
                    found.setdefault(a, set()).add(b)
                    found.setdefault(b, set()).add(a)
    return {k: frozenset(v) for k, v in found.items()}


def _listed(name: str) -> frozenset[str]:
    return frozenset(w for line in _LINES if line.startswith(f"list {name} ") for w in line.split()[2:])


def _pairs(kind: str) -> dict[str, str]:
    return {one: other for _, one, other in (line.split() for line in _LINES if line.startswith(f"{kind} "))}


_LINES: Final = (Path(__file__).parent / "faithfulness_words.txt").read_text(encoding="utf-8").splitlines()
_FORMS: Final = _pairs("form")
_OPPOSITES: Final = _read_opposites()
NUMBERS: Final = _pairs("number")
"""Number words and what they stand for."""
STOP: Final = _listed("stop")
PARTICLES: Final = _listed("particles")
NEGATIONS: Final = _listed("negations")
PARTS: Final = _listed("parts")
JOINING: Final = _listed("joining")
MONTHS: Final = frozenset(map(stem, _listed("months")))

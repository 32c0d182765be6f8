"""The same figures by source, script, length and depth of the conversation; small cells say that they are small."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from classifiers.figures import FEWEST_GROUPS, SCORES, compared, measured, per_class
from classifiers.rows import Row
from monitor.taxonomy import BEHAVIOURS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_ROWS: Final = 30
"""A smaller cell gets no figure."""
FEWEST_OF_CLASS: Final = 10
"""A cell's recall of a behaviour with fewer rows is not told."""
READ: Final = 800
"""Characters that are enough to know a script by."""
MARKS_OF_CODE: Final = 0.08
"""Prose has about one {}[]()<>=;_/\\ in a hundred characters, code one in ten and more."""

_RANGES: Final = (  # first letter of each stretch of Unicode; letters before 0x41 do not exist
    (0x41, "latin"),
    (0x370, "greek"),
    (0x400, "cyrillic"),
    (0x530, "other"),
    (0x590, "hebrew"),
    (0x600, "arabic"),
    (0x780, "other"),
    (0x8A0, "arabic"),
    (0x900, "devanagari"),
    (0x980, "indic"),
    (0xE00, "thai"),
    (0xE80, "other"),
    (0x1100, "hangul"),
    (0x1200, "other"),
    (0x1E00, "latin"),
    (0x1F00, "greek"),
    (0x2000, "other"),
    (0x2C60, "latin"),
    (0x2C80, "other"),
    (0x3040, "kana"),
    (0x3100, "other"),
    (0x3130, "hangul"),
    (0x3190, "kana"),
    (0x3400, "han"),
    (0xA000, "other"),
    (0xA720, "latin"),
    (0xA800, "other"),
    (0xAC00, "hangul"),
    (0xD800, "other"),
    (0xF900, "han"),
    (0xFB00, "latin"),
    (0xFB07, "other"),
    (0xFF21, "latin"),
    (0xFF5B, "other"),
    (0xFF66, "kana"),
    (0xFFA0, "other"),
    (0x20000, "han"),
    (0x40000, "other"),
)
_STARTS: Final = [start for start, _ in _RANGES]
_MARKS: Final = frozenset("{}[]()<>=;_/\\")
_FENCED: Final = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_WORD: Final = re.compile(r"[^\W\d_]+")
_COMMON: Final = (
    "the and of to is that it for you are with be this have not or can from your but they what which would "
    "there will about if their when by he she we was were has had do does it's i'm don't my our should could "
    "how who been than as at any its them these some so please into"
)
_ENGLISH: Final = frozenset(_COMMON.split())
ENGLISH_SHARE: Final = 0.08
"""Of a text's words, these; other languages in Latin letters stay under 0.05."""


def script(text: str) -> str:
    """What a text is written in: code, a script such as cyrillic or han, or for Latin letters English or other.

    Told by the letters and, for English, by its commonest words: an honest guess for tables, no language detector.
    """
    text = text[:READ]
    bare = _FENCED.sub(" ", text)
    marks = sum(c in _MARKS for c in text)
    if len(bare) < len(text) / 2 or marks > MARKS_OF_CODE * max(len(text), 1):
        return "code"
    letters = Counter(_RANGES[bisect_right(_STARTS, ord(c)) - 1][1] for c in text if c.isalpha() and c >= "A")
    if not letters:
        return "no letters"
    total = letters.total()
    if letters["kana"] > total / 10:
        return "kana"
    name, most = letters.most_common(1)[0]
    if most < total * 0.7:
        return "mixed"
    if name != "latin":
        return name
    words = [w.lower() for w in _WORD.findall(text)]
    return "latin, English" if sum(w in _ENGLISH for w in words) >= ENGLISH_SHARE * len(words) else "latin, other"


def script_of(row: Row) -> str:
    """The script of the answer, read together with the request where the answer is short."""
    last = row.before[-1].content if row.before else ""
    return script(row.answer if len(row.answer) >= 60 else f"{row.answer}\n{last}")


def length_of(row: Row) -> str:
    """Band of the answer's length in characters."""
    return _band(len(row.answer), (100, 400, 1200, 4000))


def depth_of(row: Row) -> str:
    """Band of the number of assistant turns before this one."""
    return _band(sum(m.role == "assistant" for m in row.before), (1, 2, 4))


def _band(n: int, edges: tuple[int, ...]) -> str:
    at = bisect_right(edges, n)
    low = edges[at - 1] if at else 0
    if at == len(edges):
        return f"{low}+"
    return f"{low}-{edges[at] - 1}" if edges[at] - 1 > low else str(low)


SLICES: Final[Mapping[str, Callable[[Row], str]]] = {
    "source": lambda r: r.family,
    "script": script_of,
    "length": length_of,
    "depth": depth_of,
}
"""What figures are broken down by; length in characters of the answer, depth in assistant turns before it."""


def cell(y: Ints, q: Floats, group: NDArray[np.str_], seed: int = 0) -> dict[str, Any]:
    """The figures of one cell: `n`, `recall` by behaviour, scores, `interval`; a `note` says what cannot be told."""
    if len(y) < FEWEST_ROWS:
        return {"n": len(y), "note": f"fewer than {FEWEST_ROWS} rows"}
    present = [k for k in range(len(BEHAVIOURS)) if (y == k).any()]
    told = [k for k in present if (y == k).sum() >= FEWEST_OF_CLASS]
    scores = per_class(y, q.argmax(axis=1))
    out: dict[str, Any] = {"n": len(y), "recall": {BEHAVIOURS[k]: scores[BEHAVIOURS[k]]["recall"] for k in told}}
    if len(present) == 1:
        return {**out, "note": f"only {BEHAVIOURS[present[0]]}"}
    found = measured(y, q, group, seed)
    out |= {s: found[s] for s in SCORES}
    if found["interval"] is None:
        return {**out, "note": f"fewer than {FEWEST_GROUPS} groups: no interval"}
    return {**out, "interval": {s: found["interval"][s] for s in SCORES}}


def broken_down(
    rows: Sequence[Row], y: Ints, q: Floats, seed: int = 0, leave: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """{slice: {value: `cell`}} of judgements q (n, 5) of rows of behaviour y (n,), but for the slices in `leave`."""
    group = groups_of(rows)
    out: dict[str, dict[str, Any]] = {}
    for name, value_of in SLICES.items():
        if name in leave:
            continue
        values = np.array([value_of(r) for r in rows])
        out[name] = {}
        for value in sorted(set(values.tolist()), key=_order):
            of = values == value
            out[name][value] = cell(y[of], q[of], group[of], seed)
    return out


def groups_of(rows: Sequence[Row]) -> NDArray[np.str_]:
    """(n,) what the rows are resampled by."""
    return np.array([r.group for r in rows])


def compared_tiers(rows: Sequence[Row], tiers: Mapping[str, Floats], seed: int = 0) -> dict[str, Any]:
    """Judgements of several tiers on the same labelled rows: `figures.compared`, each tier with its slices as "by"."""
    y = np.array([r.behaviour for r in rows], dtype=np.int64)
    out = compared(y, tiers, groups_of(rows), seed)
    for name, q in tiers.items():
        out["tiers"][name]["by"] = broken_down(rows, y, q, seed)
    return {"n": len(rows), **out}


def _order(value: str) -> tuple[int, str]:
    # bands by their first number, names by the alphabet
    digits = re.match(r"\d+", value)
    return (int(digits.group()) if digits else -1, value)

"""What buckets add up, label value by label value: additive statistics of one series in one hour.

They answer where a change comes from (monitor.decomposition), so they hold what a mixture is estimated from, not the
level counts of the detectors. Every field is a sum of the same fixed-point terms as a bucket's, so they add exactly, in
any order, on any machine. Values are written by strangers: of each label an hour names so many and no more, and keeps
the turns of all others as one sum. Who comes first is named, in the order of the source, however it is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import add
from typing import Final

import msgspec
import numpy as np

from monitor.buckets import MIXTURE_SIZE, SIZE, Sums

MINUTES_PER_HOUR: Final = 60
MOST_LABELS: Final = 8
"""Labels that are followed."""
MOST_VALUES: Final = 50
"""Values of a label that a series has a sum for in one hour (later, one day)."""
LONGEST_VALUE: Final = 80
"""Characters of a value; what two longer ones have beyond does not tell them apart."""
OTHER: Final = None
"""In place of a value: all values together that have no sum of their own."""
WITHOUT: Final = ""
"""In place of a value: the label is empty or not there."""

Split = Mapping[str | None, Sums]
"""The turns of a window by the values of one label; together they are all of its turns."""
Terms = list[int]


@dataclass(frozen=True, slots=True)
class LabelSums:
    """Sums of an hour's turns, and of those among them that have some value of some label.

    Attributes
    ----------
    total : (MIXTURE_SIZE,) sums of all turns, the first entries of monitor.buckets.Sums.
    values : label -> value or OTHER -> sums. Turns WITHOUT the label are in none; a label is a key as soon as it is
        followed, so that an hour before that is told from an hour in which no turn had it.
    """

    total: Terms
    values: dict[str, dict[str | None, Terms]]

    @classmethod
    def zero(cls) -> LabelSums:
        return cls([0] * MIXTURE_SIZE, {})

    def __add__(self, other: LabelSums) -> LabelSums:
        values = {label: dict(of) for label, of in self.values.items()}
        for label, of in other.values.items():
            mine = values.setdefault(label, {})
            for value, terms in of.items():
                place = place_of(value, mine)
                mine[place] = added(mine[place], terms) if place in mine else terms
        return LabelSums(added(self.total, other.total), values)

    @property
    def n(self) -> int:
        """Turns."""
        return self.total[0]

    def pack(self) -> bytes:
        """Compact bytes for the store."""
        return msgspec.msgpack.encode((self.total, self.values))

    @classmethod
    def unpack(cls, data: bytes) -> LabelSums:
        """Inverse of `pack`. Raises ValueError on bytes of another layout."""
        try:
            total, values = msgspec.msgpack.decode(data, type=tuple[Terms, dict[str, dict[str | None, Terms]]])
        except msgspec.MsgspecError as e:
            raise ValueError(f"damaged label sums: {e}") from e
        return cls(total, values)


def place_of(value: str | None, have: Mapping[str | None, object]) -> str | None:
    """Where a value is added to what an hour has of its label: in its own place, or to OTHER where there is no room."""
    return value if value in have or len(have) - (OTHER in have) < MOST_VALUES else OTHER


def added(a: Terms, b: Terms) -> Terms:
    """Sums of two sets of turns together; a layout that has grown meanwhile is the longer one."""
    if len(a) != len(b):
        a, b = sorted((a, b), key=len)
        a = a + [0] * (len(b) - len(a))
    return list(map(add, a, b))


def value_of(text: str) -> str:
    """A label's value as it is kept: text of bounded length that any database takes."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # halves of surrogate pairs
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def as_sums(terms: Terms) -> Sums:
    """For every estimator of a mixture; the detectors' counts are not there."""
    return Sums(np.array(terms + [0] * (SIZE - len(terms)), dtype=np.int64))

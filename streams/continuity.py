"""Is nothing of a partition missing? Offsets as they are delivered -> which to take, and where to read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with delivered records.

    Attributes
    ----------
    start, stop : take those in between, by their place in what was delivered.
    seek : read the partition again from behind what was taken.
    anew : the partition begins anew: offsets before the position hold other records now.
    """

    start: int
    stop: int
    seek: bool = False
    anew: bool = False


class Continuity:
    """Of one partition.

    Faust drops records when partitions move, and may deliver what it fetched before it was told to seek. Offsets may
    also have gaps by right: markers of transactions, compaction, retention. So a gap is believed only where nothing
    has been interrupted since records were seen to follow each other, or where the partition, read again from the
    position, begins behind the gap again.
    """

    def __init__(self) -> None:
        self._epoch = -1
        self._settled = False
        self._doubted: int | None = None

    def judge(self, offsets: Sequence[int], position: int, epoch: int) -> Verdict:
        """Say what to do with records.

        Parameters
        ----------
        offsets : of what was delivered, in that order, at least one.
        position : the offset that comes next.
        epoch : a number that changes whenever the flow of records was interrupted.
        """
        if epoch != self._epoch:
            self._epoch, self._settled, self._doubted = epoch, False, None
        if self._settled and offsets[0] >= position and _rises(offsets):
            return Verdict(0, len(offsets))
        self._settled = False
        if offsets[0] == self._doubted:  # the first after a seek, for the second time: so it is
            self._doubted = None
            if offsets[0] < position:
                return Verdict(0, 0, seek=True, anew=True)
            self._settled = _rises(offsets)
            return Verdict(0, len(offsets) if self._settled else 1, seek=not self._settled)
        try:
            start = offsets.index(position)
        except ValueError:
            self._doubted = offsets[0]
            return Verdict(0, 0, seek=True)
        stop = start + 1
        while stop < len(offsets) and offsets[stop] == offsets[stop - 1] + 1:
            stop += 1
        self._settled = stop == len(offsets)
        self._doubted = None
        return Verdict(start, stop, seek=not self._settled)


def _rises(offsets: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(offsets))

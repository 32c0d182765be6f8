"""Head sampling: which conversations of a high traffic are judged, decided before anything is known of their answers.

A conversation is kept when a hash of its id falls below the rate, so all its events share one fate on every machine,
and what is kept at 0.1 is also kept at 0.2. A kept event carries the probability it was kept with; its turns weigh the
inverse, and shares, S and their intervals stay unbiased (Horvitz & Thompson 1952).

Events that come in flagged (`is_flagged`) are kept whatever their hash says. They are a stratum of their own, known
before sampling and kept with probability 1, so they weigh 1 while the rest weigh 1/rate: unbiased too. That holds only
for flags the event had when it first came: an event sent again because it has been flagged since would be counted
beside the unflagged ones that stand for it. What a judgement finds later is a matter of reviews, not of sampling.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

from monitor.buckets import MAX_WEIGHT
from monitor.transcript import Event

FLAGS: Final = {"flagged": frozenset({"true"}), "feedback": frozenset({"negative", "thumbs_down", "down"})}
"""Labels, with their values, that say an event was flagged upstream."""
_ALL: Final = 1 << 64


def is_flagged(event: Event) -> bool:
    """Whether the event came with a flag or with bad feedback of a user."""
    return any((event.labels or {}).get(name) in values for name, values in FLAGS.items())


class Sampler:
    """Keeps a share of conversations.

    Parameters
    ----------
    rate : 0 < rate <= 1, the share of conversations to keep.
    stage : names the place of this sampler on the way ("ship", "serve"): samplers of different stages decide
        independently, and their rates multiply. Two of one stage would decide alike and weigh what they keep too much.
    key : a secret, at most 64 bytes, so that nobody who chooses conversation ids chooses whether they are watched.

    Examples
    --------
    >>> sampler = Sampler(0.1, "serve")
    >>> round(sampler.share("c1"), 3)  # below the rate: kept
    0.049
    """

    def __init__(self, rate: float, stage: str, key: bytes = b"") -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate {rate!r} lies outside (0, 1]")
        self._rate = rate
        person = stage.encode()
        if not 0 < len(person) <= hashlib.blake2b.PERSON_SIZE:
            raise ValueError(f"stage {stage!r} is not 1 to {hashlib.blake2b.PERSON_SIZE} bytes long")
        self._new = hashlib.blake2b(digest_size=8, key=key, person=person)

    def share(self, conversation_id: str) -> float:
        """The least rate at which this conversation is kept, in (0, 1], uniform over conversations."""
        h = self._new.copy()
        h.update(conversation_id.encode())
        return (int.from_bytes(h.digest(), "big") + 1) / _ALL

    def keep(self, event: Event) -> Event | None:
        """The event with its sample_rate brought up to date, or None when it is left out.

        A rate that would bring the event below the least sample_rate that can be weighed is raised for it.
        """
        if is_flagged(event):
            return event
        rate = min(1.0, max(self._rate, 1 / (MAX_WEIGHT * event.sample_rate)))
        if self.share(event.conversation_id) > rate:
            return None
        return replace(event, sample_rate=max(event.sample_rate * rate, 1 / MAX_WEIGHT))

"""Whatever Faust drops, repeats or delivers too early, each record that there is is taken once, in order."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from streams.continuity import Continuity, Verdict


def test_in_order() -> None:
    """Records that follow each other are taken; a gap among them is one of the topic."""
    c = Continuity()
    assert c.judge([5, 6, 7], 5, 0) == Verdict(0, 3)
    assert c.judge([8, 10, 11], 8, 0) == Verdict(0, 3)


def test_gap_after_an_interruption() -> None:
    """Not believed at first sight; believed when the partition begins there again."""
    c = Continuity()
    c.judge([5, 6], 5, 0)
    assert c.judge([9, 10], 7, 1) == Verdict(0, 0, seek=True)
    assert c.judge([7, 8, 9], 7, 1) == Verdict(0, 3)
    assert c.judge([12], 10, 2) == Verdict(0, 0, seek=True)
    assert c.judge([12, 15], 10, 2) == Verdict(0, 2)


def test_gap_inside_what_was_interrupted() -> None:
    """Taken up to the gap, and read again from there."""
    c = Continuity()
    assert c.judge([5, 6, 9], 5, 0) == Verdict(0, 2, seek=True)
    assert c.judge([7, 8, 9], 7, 0) == Verdict(0, 3)


def test_counted_already() -> None:
    """What is below the position is left out."""
    assert Continuity().judge([3, 4, 5, 6], 5, 0) == Verdict(2, 4)


def test_topic_made_anew() -> None:
    """Lower offsets, again after a seek: the partition begins anew."""
    c = Continuity()
    assert c.judge([0, 1], 90, 0) == Verdict(0, 0, seek=True)
    assert c.judge([0, 1], 90, 0) == Verdict(0, 0, seek=True, anew=True)


@given(st.sets(st.integers(0, 60), min_size=1), st.randoms(use_true_random=False))
def test_nothing_is_lost(offsets: set[int], rng: random.Random) -> None:
    """Every record there is, once and in order, however often the flow is interrupted, and whatever is lost then."""
    _read_all(sorted(offsets), rng)


def _read_all(there: list[int], rng: random.Random) -> None:
    c = Continuity()
    taken: list[int] = []
    position = at = epoch = 0
    left = 12  # interruptions: somebody who is always interrupted gets nowhere
    for _ in range(2000):
        waiting = [o for o in there if o >= at]
        if not waiting:
            if position > there[-1]:
                break
            at = position
            continue
        batch = waiting[: rng.randint(1, 6)]
        at = batch[-1] + 1
        if left and rng.random() < 0.3:  # records are lost from some place on, and the flow begins elsewhere
            left -= 1
            epoch += 1
            batch = batch[: rng.randint(0, len(batch))] + [o for o in there if o >= at][rng.randint(0, 3) :][:2]
            at = position if rng.random() < 0.5 else at + rng.randint(0, 5)
            if not batch:
                continue
        verdict = c.judge(batch, position, epoch)
        assert not verdict.anew
        new = batch[verdict.start : verdict.stop]
        taken += new
        position = new[-1] + 1 if new else position
        at = position if verdict.seek else at
    assert taken == there

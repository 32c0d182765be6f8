"""Minutes are closed only when no record that waits can belong to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from monitor.transcript import minute_of
from streams.watermark import Closing, Standing, Stuck, closing

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def close(standings: dict[int, Standing]) -> Closing:
    return closing(standings, NOW, lateness_minutes=2, patience_seconds=900)


def test_without_lag() -> None:
    """The clock decides, however old the newest event is."""
    assert close({0: Standing(5, 5, NOW - timedelta(days=9)), 1: Standing(0, 0, None)}).until == minute_of(NOW) - 2


def test_with_lag() -> None:
    """The oldest of those that lag decides, and is named."""
    ago = [NOW - timedelta(minutes=m) for m in (10, 30)]
    found = close({0: Standing(5, 9, ago[0]), 1: Standing(5, 6, ago[1]), 2: Standing(5, 5, None)})
    assert found == Closing(minute_of(ago[1]) - 2, waits_for=(0, 1))


def test_nothing_counted_yet() -> None:
    """A partition that has shown nothing may hold anything."""
    assert close({0: Standing(0, 9, None), 1: Standing(5, 5, NOW)}) == Closing(None, waits_for=(0,))


def test_one_that_stands_still() -> None:
    """After the patience it is waited for no longer, and named."""
    found = close({0: Standing(0, 9, None, stuck_seconds=900), 1: Standing(5, 5, NOW)})
    assert found == Closing(minute_of(NOW) - 2, given_up=(0,))


def test_event_ahead_of_the_clock() -> None:
    """Does not close what the clock has not."""
    assert close({0: Standing(5, 9, NOW + timedelta(minutes=4))}).until == minute_of(NOW) - 2


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99)), min_size=1, max_size=6))
def test_more_lag_never_closes_more(partitions: list[tuple[int, int, int]]) -> None:
    """Taking the lag away closes as much or more."""
    at = {
        p: Standing(position, max(position, end), NOW - timedelta(minutes=ago))
        for p, (position, end, ago) in enumerate(partitions)
    }
    caught_up = {p: Standing(s.end, s.end, s.newest_ts) for p, s in at.items()}
    before, after = close(at).until, close(caught_up).until
    assert before is not None
    assert after is not None
    assert before <= after == minute_of(NOW) - 2


def test_stuck() -> None:
    """Seconds since the position last moved, while records wait."""
    stuck = Stuck()
    assert [stuck.seconds(0, 5, 9, t) for t in (10.0, 15.0)] == [0, 5]
    assert stuck.seconds(0, 6, 9, 20.0) == 0
    assert stuck.seconds(0, 6, 6, 25.0) == 0
    assert stuck.seconds(0, 6, 7, 28.0) == 3
    stuck.only([])
    assert stuck.seconds(0, 6, 7, 99.0) == 0

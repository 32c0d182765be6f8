"""The cost of a closed minute, in small: the bars of benchmarks/step.py."""

from benchmarks.step import measure
from tests.unit.core_cases import calibration


def test_cost_of_a_minute() -> None:
    """A series takes less than a millisecond of an ordinary minute, hourly estimates included; its state is small."""
    found = measure(calibration(), series=40, hours=3)
    assert found["points"] == 3 * 40, "the minute that closes an hour has the points of all three windows"
    assert found["ordinary_seconds"] < 40 * 1e-3
    # twice the bar: tests share their machine
    assert found["mean_seconds_a_minute"] < 40 * 2e-3
    assert found["bytes_of_state"] < 16_000

"""The cost of a pass, in small: benchmarks/oncall.py does what it says it times."""

from benchmarks.oncall import measure


def test_fleets() -> None:
    """Twelve rules are asked; nothing stands in a quiet fleet, all that wait for nothing in a storm, told to both."""
    found = measure(series=60)
    assert found["rules"] == 12
    assert found["storm_standing"] == 60 * (12 - 2), "two rules wait for `for`"
    assert found["storm_told"] == 2 * found["storm_standing"]
    assert 0 < found["usual_standing"] <= 60 * 12 // 4
    assert found["usual_told"] == 2 * found["usual_standing"], "all are told again after the repeat interval"

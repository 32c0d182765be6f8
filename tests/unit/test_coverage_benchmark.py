"""The coverage benchmark, small: our interval holds the true S where averaging never does."""

import pytest

from benchmarks.coverage import coverage
from classifiers import linear
from monitor.entropy import Quantifier

WINDOWS = 40


@pytest.mark.parametrize("mixture", ["baseline", "wholly aligned", "25 % misaligned"])
def test_intervals_hold(mixture: str) -> None:
    """At the shipped classifier's confusion, at rest, at S = 0 and after a drift; averaging is off by half a nat."""
    calibration = linear.load().calibration
    rows = coverage(calibration, Quantifier(calibration), "drawn", mixture, 100, WINDOWS, 10, seed=1)
    by_method = {r.method: r for r in rows}
    assert set(by_method) == {"alone", "given a baseline", "averaging", "EM (Saerens)", "KDEy-ML"}
    # 87 % or more in the benchmark's 500 windows; of 40 windows, two standard errors less
    assert by_method["alone"].coverage >= 0.77
    assert by_method["given a baseline"].coverage >= 0.77
    assert by_method["given a baseline"].median_width <= by_method["alone"].median_width
    if mixture != "25 % misaligned":
        assert by_method["averaging"].coverage < 0.2

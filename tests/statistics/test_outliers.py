import numpy as np
import pytest

from hfbench.statistics.spread import outliers


def test_by_hand() -> None:
    # Median 10, distances 2 1 0 1 5.2: MAD 1. Modified z-scores: 5.2 · 0.6745 = 3.507, and 5.1 · 0.6745 = 3.44.
    assert outliers([8, 9, 10, 11, 15.2]) == [False, False, False, False, True]
    assert outliers([8, 9, 10, 11, 15.1]) == [False] * 5


def test_both_sides_and_their_places() -> None:
    assert outliers([10, 30, 11, 9, 10.5, -10, 9.5]) == [False, True, False, False, False, True, False]


def test_constant_series_have_none() -> None:
    assert outliers([1.5] * 8) == [False] * 8
    assert outliers([1.5]) == [False]
    assert outliers([]) == []


def test_one_slow_value_among_equal_ones_is_found() -> None:
    # The MAD is 0. The mean absolute deviation, 1/8, stands in: 1 · 0.7979 / 0.125 = 6.4.
    assert outliers([1.0] * 7 + [2.0]) == [False] * 7 + [True]


def test_outliers_do_not_hide_each_other() -> None:
    # With mean 2.78 and standard deviation 3.4, neither 9 would be three standard deviations away.
    assert outliers([1.0, 1.02, 0.98, 1.01, 0.99, 1.03, 1.0, 9.0, 9.0]) == [False] * 7 + [True, True]


@pytest.mark.parametrize("count", [20, 30])
def test_clean_series_have_few(count: int) -> None:
    values = np.random.default_rng(0).normal(1, 0.02, (1000, count))
    assert np.mean([outliers(series) for series in values.tolist()]) < 0.01

"""Variation, drift and outliers: by hand, and on series whose answer is known."""

import numpy as np
import pytest

from hfbench.statistics.spread import Drift, between_rounds, drift, outliers, trend_p_values, within_rounds


def test_between_by_hand() -> None:
    # Medians 9, 10 and 11: standard deviation 1, mean 10.
    assert between_rounds([[8.0, 9.0, 90.0], [10.0], [10.0, 12.0]]) == pytest.approx(0.1)


def test_within_by_hand() -> None:
    # 9 and 11: variance 2, mean 10, squared coefficient 0.02, one degree of freedom.
    # 19, 20 and 21: variance 1, mean 20, squared coefficient 0.0025, two. Pooled: (0.02 + 2 · 0.0025) / 3.
    assert within_rounds([[9.0, 11.0], [19.0, 20.0, 21.0], [7.0]]) == pytest.approx((0.025 / 3) ** 0.5)


def test_too_few_values_have_none() -> None:
    assert between_rounds([[1.0, 2.0]]) is None
    assert within_rounds([[1.0], [2.0]]) is None
    assert within_rounds([]) is None
    assert between_rounds([[0.0], [0.0]]) is None


def test_the_two_levels_are_told_apart() -> None:
    generator = np.random.default_rng(0)
    rounds = 10 * (1 + generator.normal(0, 0.03, (400, 1))) * (1 + generator.normal(0, 0.01, (400, 50)))
    assert between_rounds(rounds.tolist()) == pytest.approx(0.03, rel=0.1)
    assert within_rounds(rounds.tolist()) == pytest.approx(0.01, rel=0.05)


def test_the_unit_does_not_matter() -> None:
    rounds = [[1.0, 1.1, 1.3], [1.2, 1.0, 1.4]]
    larger = [[1000 * value for value in values] for values in rounds]
    assert within_rounds(larger) == pytest.approx(within_rounds(rounds))
    assert between_rounds(larger) == pytest.approx(between_rounds(rounds))


def some(result: Drift | None) -> Drift:
    assert result is not None
    return result


def share_flagged(series: list[list[float]]) -> float:
    return float(np.mean([some(drift(values)).significant for values in series]))


def test_drift_by_hand() -> None:
    # Rising by 1 from 8 to 13: every pair agrees, so p = 2/6! and every slope is 1; (13 - 8) over the median of 10.5.
    result = some(drift([8, 9, 10, 11, 12, 13]))
    assert result.p_value == pytest.approx(2 / 720)
    assert result.relative_change == pytest.approx(5 / 10.5)
    assert result.significant


def test_faster_is_negative() -> None:
    assert some(drift([13, 12, 11, 10, 9, 8])).relative_change == pytest.approx(-5 / 10.5)


def test_too_few_values_say_nothing() -> None:
    assert drift([1, 2, 3, 4, 5]) is None


def test_constant_series_do_not_drift() -> None:
    assert drift([2.0] * 6) == Drift(0.0, 0.0, 0.0, 1.0)


def test_p_values_of_many_series_are_those_of_each() -> None:
    generator = np.random.default_rng(0)
    series = [generator.normal(1, 0.02, count).tolist() for count in (6, 12, 6, 40, 12)]
    tied, constant = [1.0, 2.0, 2.0, 3.0, 3.0, 4.0], [5.0] * 6
    assert trend_p_values([*series, tied, constant]) == [
        some(drift(values)).p_value for values in (*series, tied, constant)
    ]
    # All 6! orders are as likely: 2 are in perfect order, and 2 · 5 have a single pair the other way round.
    assert trend_p_values([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [2, 1, 3, 4, 5, 6], [1, 2]]) == [
        pytest.approx(2 / 720),
        pytest.approx(2 / 720),
        pytest.approx(12 / 720),
        None,
    ]
    assert trend_p_values([]) == []


def test_one_outlier_is_no_drift() -> None:
    result = some(drift([1.0, 1.01, 0.99, 1.02, 1.0, 0.98, 1.01, 1.0, 0.99, 7.0]))
    assert not result.significant
    assert abs(result.relative_change) < 0.02


@pytest.mark.parametrize("count", [6, 12, 30])
@pytest.mark.parametrize("kind", ["normal", "log-normal", "bimodal", "one outlier"])
def test_stationary_series_are_seldom_flagged(kind: str, count: int) -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, (500, count))
    values = {
        "normal": 1 + 0.02 * noise,
        "log-normal": np.exp(0.3 * noise),
        "bimodal": 1 + 0.002 * noise + 0.05 * (generator.random(noise.shape) < 0.4),
        "one outlier": 1 + 0.02 * noise + 2.0 * (np.arange(count) == count // 3),
    }[kind]
    assert share_flagged(values.tolist()) <= 0.03


@pytest.mark.parametrize(("change", "count", "found"), [(0.10, 12, 0.85), (0.05, 30, 0.85), (-0.10, 30, 0.99)])
def test_drifting_series_are_flagged_with_their_size(change: float, count: int, found: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (500, count))
    series = (1 + np.linspace(-change / 2, change / 2, count) + noise).tolist()
    assert share_flagged(series) >= found
    results = [some(drift(values)) for values in series]
    assert np.median([result.relative_change for result in results]) == pytest.approx(change, rel=0.1)
    assert np.mean([result.low <= change <= result.high for result in results]) >= 0.97


def test_outliers_by_hand() -> None:
    # Median 10, distances 2 1 0 1 5.2: MAD 1. Modified z-scores: 5.2 · 0.6745 = 3.507, and 5.1 · 0.6745 = 3.44.
    assert outliers([8, 9, 10, 11, 15.2]) == [False, False, False, False, True]
    assert outliers([8, 9, 10, 11, 15.1]) == [False] * 5


def test_outliers_of_both_sides_in_their_places() -> None:
    assert outliers([10, 30, 11, 9, 10.5, -10, 9.5]) == [False, True, False, False, False, True, False]


def test_constant_series_have_no_outliers() -> None:
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
def test_clean_series_have_few_outliers(count: int) -> None:
    values = np.random.default_rng(0).normal(1, 0.02, (1000, count))
    assert np.mean([outliers(series) for series in values.tolist()]) < 0.01

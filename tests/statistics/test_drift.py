import numpy as np
import pytest

from hfbench.statistics.spread import Drift, drift, trend_p_values


def some(result: Drift | None) -> Drift:
    assert result is not None
    return result


def share_flagged(series: list[list[float]]) -> float:
    return float(np.mean([some(drift(values)).significant for values in series]))


def test_by_hand() -> None:
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

import time
from math import exp

import numpy as np
import pytest

from hfbench.statistics.bootstrap import Floats, resample_medians
from hfbench.statistics.intervals import Interval, median_interval, paired_ratio_interval, ratio_interval
from tests.statistics.experiments import EXPERIMENTS, experiments

# Half of the default: coverage does not depend on it, and this room's tests take half the time.
FEW_RESAMPLES = 1000
SEVEN = [[1.00, 1.02, 1.01], [1.05, 1.04, 1.06], [0.98, 0.99, 0.97], [1.03, 1.02, 1.05]] + [[1.0, 1.01, 1.04]] * 3


def some(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


def coverage(intervals: list[Interval], true_value: float = 1.0) -> float:
    return float(np.mean([interval.low <= true_value <= interval.high for interval in intervals]))


def naive_pooled_interval(values: Floats, seed: int) -> Interval:
    """Percentiles of the medians of resamples of all iterations together, as if no two shared a process."""
    pooled = values.reshape(1, -1)
    resampled = resample_medians(pooled.tolist(), np.zeros(2000, dtype=np.int64), np.random.default_rng(seed))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(np.median(pooled)), float(low), float(high))


def test_the_interval_by_hand() -> None:
    # Medians 1, 2 and 4. Of 27 resamples 7 have the median 1, 13 have 2 and 7 have 4: the semi-deviations are
    # sqrt(2 · 7/27 · 1) = 0.7201 and sqrt(2 · 7/27 · 4) = 1.4402. Student's t with 2 degrees of freedom: 4.3027.
    interval = some(median_interval([[1.0], [2.0], [4.0]], resamples=200_000))
    assert interval.estimate == 2.0
    assert interval.low == pytest.approx(2 * exp(-4.3027 * 0.7201 / 2), rel=0.02)
    assert interval.high == pytest.approx(2 * exp(4.3027 * 1.4402 / 2), rel=0.03)


def test_one_round_has_no_interval() -> None:
    assert median_interval([[1.0, 2.0, 3.0]]) is None
    assert median_interval([]) is None
    assert ratio_interval([[1.0, 2.0]], [[1.0], [2.0]]) is None
    assert paired_ratio_interval([[1.0, 2.0]], [[1.0, 2.0]]) is None


def test_the_estimate_is_the_median_of_the_round_medians() -> None:
    # Pooled, the 97 iterations of the slow round would decide.
    assert some(median_interval([[1.0], [2.0, 2.0, 2.0], [9.0] * 97])).estimate == 2.0


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert median_interval([[3.0, 3.0]] * 4) == (3.0, 3.0, 3.0)
    assert median_interval([[0.0, 0.0]] * 4) == (0.0, 0.0, 0.0)
    assert ratio_interval([[2.0]] * 3, [[3.0]] * 3) == pytest.approx((1.5, 1.5, 1.5))


def test_the_seed_decides() -> None:
    assert median_interval(SEVEN, seed=3) == median_interval(SEVEN, seed=3)
    assert median_interval(SEVEN, seed=3) != median_interval(SEVEN, seed=4)


def test_the_unit_does_not_matter() -> None:
    milliseconds = some(median_interval([[1000 * value for value in values] for values in SEVEN]))
    assert [value / 1000 for value in milliseconds] == pytest.approx(some(median_interval(SEVEN)))


def test_more_confidence_is_wider() -> None:
    narrow, wide = some(median_interval(SEVEN, confidence=0.9)), some(median_interval(SEVEN, confidence=0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_value_that_is_not_positive_keeps_its_sign() -> None:
    interval = some(median_interval([[-0.02], [-0.01], [0.03], [-0.01], [0.0]]))
    assert interval.low < interval.estimate == -0.01 < interval.high


def test_one_disturbed_round_does_not_lower_the_low_end() -> None:
    quiet = [[1.00], [1.01], [0.99], [1.02], [0.98], [1.00], [1.01]]
    disturbed = some(median_interval([*quiet[:-1], [4.0]]))
    assert disturbed.estimate == 1.0
    assert disturbed.low > 0.97
    assert disturbed.high > 1.2


def test_an_empty_round_is_an_error() -> None:
    with pytest.raises(ValueError, match="without values"):
        median_interval([[1.0], []])


@pytest.mark.parametrize("kind", ["normal", "log-normal", "long-tailed"])
@pytest.mark.parametrize("between_over_within", [0.5, 1.0, 3.0])
def test_the_interval_covers_the_true_median(kind: str, between_over_within: float) -> None:
    intervals = [
        some(median_interval(values.tolist(), resamples=FEW_RESAMPLES))
        for values in experiments(kind, 7, between_over_within, 1)
    ]
    assert len(intervals) == EXPERIMENTS
    assert 0.90 <= coverage(intervals) <= 0.98


@pytest.mark.parametrize("rounds", [3, 5, 10])
def test_the_interval_covers_with_other_numbers_of_rounds(rounds: int) -> None:
    intervals = [
        some(median_interval(values.tolist(), resamples=FEW_RESAMPLES))
        for values in experiments("normal", rounds, 1, 2)
    ]
    assert 0.90 <= coverage(intervals) <= 0.98


def test_without_noise_between_rounds_the_interval_is_wide_rather_than_narrow() -> None:
    intervals = [
        some(median_interval(values.tolist(), resamples=FEW_RESAMPLES)) for values in experiments("normal", 7, 0, 3)
    ]
    assert coverage(intervals) >= 0.95


@pytest.mark.parametrize("between_over_within", [0.5, 1.0, 3.0])
def test_the_naive_pooled_bootstrap_covers_too_little(between_over_within: float) -> None:
    intervals = [
        naive_pooled_interval(values, seed)
        for seed, values in enumerate(experiments("normal", 7, between_over_within, 1))
    ]
    assert coverage(intervals) < 0.85


def test_the_ratio_is_of_candidate_over_baseline() -> None:
    factors = (1.21, 1.20, 1.19, 1.20, 1.21, 1.20, 1.19)
    slower = [[factor * value for value in values] for factor, values in zip(factors, SEVEN, strict=True)]
    for interval in (some(ratio_interval(SEVEN, slower)), some(paired_ratio_interval(SEVEN, slower))):
        assert interval.estimate == pytest.approx(1.2, rel=0.01)
        assert 1 < interval.low < interval.estimate < interval.high


def test_equal_sides_are_seldom_told_apart() -> None:
    baselines, candidates = experiments("log-normal", 7, 1, 4), experiments("log-normal", 7, 1, 5)
    pairs = [(baseline.tolist(), candidate.tolist()) for baseline, candidate in zip(baselines, candidates, strict=True)]
    assert coverage([some(ratio_interval(*pair)) for pair in pairs]) >= 0.98
    assert coverage([some(paired_ratio_interval(*pair)) for pair in pairs]) >= 0.98


def test_pairing_takes_the_drift_of_the_machine_out() -> None:
    drift = np.linspace(1.0, 1.3, 7)[:, None]
    baseline = next(experiments("log-normal", 7, 0.2, 6, count=1)) * drift
    candidate = 1.05 * next(experiments("log-normal", 7, 0.2, 7, count=1)) * drift
    alone = some(ratio_interval(baseline.tolist(), candidate.tolist()))
    paired = some(paired_ratio_interval(baseline.tolist(), candidate.tolist()))
    assert alone.low < 1 < alone.high
    assert 1 < paired.low < 1.05 < paired.high < 1.12


def test_a_ratio_needs_positive_values() -> None:
    with pytest.raises(ValueError, match="positive"):
        ratio_interval([[0.0], [0.0]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="positive"):
        paired_ratio_interval([[0.0], [1.0]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="2 rounds cannot be paired with 3"):
        paired_ratio_interval([[1.0]] * 2, [[1.0]] * 3)


def test_four_hundred_configurations_take_seconds() -> None:
    rounds = [values.tolist() for values in experiments("normal", 7, 1, 8, count=400)]
    start = time.process_time()
    for values in rounds:
        median_interval(values)
    assert time.process_time() - start < 5

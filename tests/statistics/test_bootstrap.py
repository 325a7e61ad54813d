"""Intervals of a median: resamples against all that there are, limits by hand, and how often they hold the truth."""

import time
from itertools import product
from math import exp, inf
from typing import Any

import numpy as np
import pytest

from hfbench.statistics.bootstrap import (
    Floats,
    Integers,
    Interval,
    Rounds,
    draw_places,
    median_intervals,
    sorted_values,
    standard_errors,
)
from tests.conftest import some
from tests.statistics.experiments import experiments

DRAWS = 100_000
# Half of the default: coverage does not depend on it, and this room's tests take half the time.
FEW_RESAMPLES = 1000
SEVEN = [[1.00, 1.02, 1.01], [1.05, 1.04, 1.06], [0.98, 0.99, 0.97], [1.03, 1.02, 1.05]] + [[1.0, 1.01, 1.04]] * 3


def resample_medians(rounds: Rounds, drawn: Integers, generator: np.random.Generator) -> Floats:
    """The median of a resample of the iterations of each drawn round."""
    medians: Floats = sorted_values(rounds)[draw_places([*map(len, rounds)], drawn, generator)].mean(axis=0)
    return medians


def median_interval(rounds: Rounds, **arguments: Any) -> Interval:
    return some(median_intervals([rounds], **arguments)[0])


def coverage(intervals: list[Interval]) -> float:
    return float(np.mean([interval.low <= 1 <= interval.high for interval in intervals]))


@pytest.mark.parametrize(
    "values", [[5.0], [1.0, 2.0], [4.0, 1.0, 2.0], [1.0, 8.0, 2.0, 4.0], [16.0, 1.0, 8.0, 2.0, 4.0]]
)
def test_medians_have_the_distribution_of_drawing_each_iteration(values: list[float]) -> None:
    every_resample = [float(np.median(sample)) for sample in product(values, repeat=len(values))]
    drawn = resample_medians([values], np.zeros(DRAWS, dtype=np.int64), np.random.default_rng(0)).tolist()
    assert set(drawn) == set(every_resample)
    for median in set(every_resample):
        expected = every_resample.count(median) / len(every_resample)
        assert drawn.count(median) / DRAWS == pytest.approx(expected, abs=0.006)


def test_one_round_that_is_hundreds_of_times_slower_has_an_interval_too() -> None:
    found = median_interval([[0.02], [0.021], [20.0]])
    assert found.low < found.estimate < found.high < inf


def test_rounds_of_different_lengths_keep_to_themselves() -> None:
    rounds = [[1.0], [10.0, 11.0, 12.0], [20.0, 21.0]]
    medians = resample_medians(rounds, np.tile([0, 1, 2], (1000, 1)), np.random.default_rng(0))
    assert [set(column) for column in medians.T] == [{1.0}, {10.0, 11.0, 12.0}, {20.0, 20.5, 21.0}]


def test_the_noise_of_iterations_counts_once() -> None:
    # No noise between rounds: the medians of 9 rounds of 20 values from N(0, 1) differ by that of their iterations
    # alone. The standard error of a median of 180 values is sqrt(π/2 / 180) = 0.093, that of a median of 9 medians a
    # bit more (by sqrt(π/2) at most: 0.117). Counting the noise of iterations twice would give 0.16.
    generator = np.random.default_rng(0)
    errors: list[float] = []
    for _ in range(100):
        rounds = generator.normal(0, 1, (9, 20)).tolist()
        drawn = generator.integers(0, 9, (500, 9))
        errors += standard_errors(np.median(rounds, axis=1), drawn, resample_medians(rounds, drawn, generator))
    assert 0.093 < np.mean(errors) < 0.135


def test_the_interval_by_hand() -> None:
    # Medians 1, 2 and 4. Of 27 resamples 7 have the median 1, 13 have 2 and 7 have 4: the semi-deviations are
    # sqrt(2 · 7/27 · 1) = 0.7201 and sqrt(2 · 7/27 · 4) = 1.4402. Student's t with 2 degrees of freedom: 4.3027.
    interval = median_interval([[1.0], [2.0], [4.0]], resamples=200_000)
    assert interval.estimate == 2.0
    assert interval.low == pytest.approx(2 * exp(-4.3027 * 0.7201 / 2), rel=0.02)
    assert interval.high == pytest.approx(2 * exp(4.3027 * 1.4402 / 2), rel=0.03)


def test_many_intervals_at_once_are_those_of_each_sample_alone() -> None:
    """Samples of 1 to 7 rounds, with equal and with different numbers of values, in no order."""
    generator = np.random.default_rng(0)
    sizes = [(20,) * 5, (15,), (6, 30, 11), (20,) * 5, (1, 1), (15, 14) * 3, (6, 30, 11), (11, 30, 6), (20,) * 7]
    samples = [[generator.normal(1, 0.05, size).tolist() for size in rounds] for rounds in sizes]
    of_many: list[dict[str, Any]] = [{}, {"confidence": 0.9, "resamples": 300, "seed": 7}]
    for arguments in of_many:
        alone = [median_intervals([rounds], **arguments)[0] for rounds in samples]
        assert median_intervals(samples, **arguments) == alone
        assert [interval is None for interval in alone] == [len(rounds) == 1 for rounds in sizes]
    assert median_intervals([[], [[1.0, 2.0]]]) == [None, None]
    assert median_intervals([]) == []


def test_the_estimate_is_the_median_of_the_round_medians() -> None:
    # Pooled, the 97 iterations of the slow round would decide.
    assert median_interval([[1.0], [2.0, 2.0, 2.0], [9.0] * 97]).estimate == 2.0


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert median_interval([[3.0, 3.0]] * 4) == (3.0, 3.0, 3.0)
    assert median_interval([[0.0, 0.0]] * 4) == (0.0, 0.0, 0.0)


def test_seed_confidence_and_unit() -> None:
    assert median_interval(SEVEN, seed=3) == median_interval(SEVEN, seed=3) != median_interval(SEVEN, seed=4)
    narrow, wide = (median_interval(SEVEN, confidence=confidence) for confidence in (0.9, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    milliseconds = median_interval([[1000 * value for value in values] for values in SEVEN])
    assert [value / 1000 for value in milliseconds] == pytest.approx(median_interval(SEVEN))


def test_a_value_that_is_not_positive_keeps_its_sign() -> None:
    interval = median_interval([[-0.02], [-0.01], [0.03], [-0.01], [0.0]])
    assert interval.low < interval.estimate == -0.01 < interval.high


def test_one_disturbed_round_does_not_lower_the_low_end() -> None:
    disturbed = median_interval([[1.00], [1.01], [0.99], [1.02], [0.98], [1.00], [4.0]])
    assert disturbed.estimate == 1.0
    assert disturbed.low > 0.97
    assert disturbed.high > 1.2


def test_an_empty_round_is_an_error() -> None:
    with pytest.raises(ValueError, match="without values"):
        median_intervals([[[1.0], [2.0]], [[1.0], []]])


@pytest.mark.parametrize(
    ("kind", "rounds", "between_over_within", "most"),
    [
        *((kind, 7, ratio, 0.98) for kind in ("normal", "log-normal", "long-tailed") for ratio in (0.5, 1.0, 3.0)),
        *(("normal", rounds, 1, 0.98) for rounds in (3, 5, 10)),
        ("normal", 7, 0, 1.0),  # without noise between rounds it is wide rather than narrow
    ],
)
def test_the_interval_covers_the_true_median(kind: str, rounds: int, between_over_within: float, most: float) -> None:
    samples = [values.tolist() for values in experiments(kind, rounds, between_over_within, 1)]
    intervals = median_intervals(samples, resamples=FEW_RESAMPLES)
    assert (0.90 if between_over_within else 0.95) <= coverage([some(each) for each in intervals]) <= most


def test_four_hundred_configurations_take_seconds() -> None:
    samples = [values.tolist() for values in experiments("normal", 7, 1, 8, count=400)]
    start = time.process_time()
    for rounds in samples:
        median_interval(rounds)
    assert time.process_time() - start < 5

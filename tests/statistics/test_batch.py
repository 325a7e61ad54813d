"""Many intervals at once are those of each sample alone."""

import numpy as np
import pytest

from hfbench.statistics.bootstrap import Rounds
from hfbench.statistics.intervals import median_interval, median_intervals


def _samples() -> list[Rounds]:
    """Samples of 1 to 7 rounds, with equal and with different numbers of values, in no order."""
    generator = np.random.default_rng(0)
    sizes = [(20,) * 5, (15,), (6, 30, 11), (20,) * 5, (1, 1), (15, 14) * 3, (6, 30, 11), (11, 30, 6), (20,) * 7]
    return [[generator.normal(1, 0.05, size).tolist() for size in rounds] for rounds in sizes]


def test_they_are_those_of_each_sample_alone() -> None:
    samples = _samples()
    assert median_intervals(samples) == [median_interval(rounds) for rounds in samples]
    assert median_intervals(samples, confidence=0.9, resamples=300, seed=7) == [
        median_interval(rounds, confidence=0.9, resamples=300, seed=7) for rounds in samples
    ]


def test_a_sample_without_two_rounds_has_none() -> None:
    assert median_intervals([[], [[1.0, 2.0]]]) == [None, None]
    assert median_intervals([]) == []


def test_a_value_that_is_not_positive_keeps_its_sign() -> None:
    (interval,) = median_intervals([[[-0.02], [-0.01], [0.03], [-0.01], [0.0]]])
    assert interval is not None
    assert interval.low < interval.estimate == -0.01 < interval.high


def test_an_empty_round_is_an_error() -> None:
    with pytest.raises(ValueError, match="without values"):
        median_intervals([[[1.0], [2.0]], [[1.0], []]])

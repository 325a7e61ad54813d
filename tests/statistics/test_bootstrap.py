from itertools import product

import numpy as np
import pytest

from hfbench.statistics.bootstrap import draw_rounds, resample_medians, standard_errors

DRAWS = 100_000


def resampled(values: list[float]) -> list[float]:
    medians = resample_medians([values], np.zeros(DRAWS, dtype=np.int64), np.random.default_rng(0))
    return [float(value) for value in medians]


@pytest.mark.parametrize(
    "values", [[5.0], [1.0, 2.0], [4.0, 1.0, 2.0], [1.0, 8.0, 2.0, 4.0], [16.0, 1.0, 8.0, 2.0, 4.0]]
)
def test_medians_have_the_distribution_of_drawing_each_iteration(values: list[float]) -> None:
    every_resample = [float(np.median(sample)) for sample in product(values, repeat=len(values))]
    drawn = resampled(values)
    assert set(drawn) == set(every_resample)
    for median in set(every_resample):
        expected = every_resample.count(median) / len(every_resample)
        assert drawn.count(median) / DRAWS == pytest.approx(expected, abs=0.006)


def test_rounds_of_different_lengths_keep_to_themselves() -> None:
    rounds = [[1.0], [10.0, 11.0, 12.0], [20.0, 21.0]]
    drawn = np.tile([0, 1, 2], (1000, 1))
    medians = resample_medians(rounds, drawn, np.random.default_rng(0))
    assert set(medians[:, 0]) == {1.0}
    assert set(medians[:, 1]) == {10.0, 11.0, 12.0}
    assert set(medians[:, 2]) == {20.0, 20.5, 21.0}


def test_the_noise_of_iterations_counts_once() -> None:
    # No noise between rounds: the medians of 9 rounds of 20 values from N(0, 1) differ by that of their iterations
    # alone. The standard error of a median of 180 values is sqrt(π/2 / 180) = 0.093, that of a median of 9 medians a
    # bit more (by sqrt(π/2) at most: 0.117). Counting the noise of iterations twice would give 0.16.
    generator = np.random.default_rng(0)
    errors = []
    for _ in range(100):
        rounds = generator.normal(0, 1, (9, 20)).tolist()
        centres = np.median(rounds, axis=1)
        drawn = draw_rounds(9, 500, generator)
        error = standard_errors(centres, drawn, resample_medians(rounds, drawn, generator))
        errors += [error.below, error.above]
    assert 0.093 < np.mean(errors) < 0.135

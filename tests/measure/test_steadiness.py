import random

import pytest

from hfbench.measure.sampling import is_steady

MOST = 10
RUNS = 500


def steady_at(latencies: list[float]) -> int | None:
    """How many iterations a warm-up of at most ten takes; None where it never was steady."""
    return next((count for count in range(1, len(latencies) + 1) if is_steady(latencies[:count])), None)


def noisy(curve: list[float], sigma: float, generator: random.Random) -> list[float]:
    return [value * generator.lognormvariate(0, sigma) for value in curve]


def test_two_iterations_tell_nothing() -> None:
    assert not is_steady([])
    assert not is_steady([1.0])
    assert not is_steady([1.0, 1.0])
    assert is_steady([1.0, 1.0, 1.0])


def test_a_record_of_more_than_two_percent_is_notable() -> None:
    assert is_steady([1.0, 0.985, 0.975])
    assert not is_steady([1.0, 0.979, 1.0])
    assert not is_steady([1.0, 1.0, 0.979])


def test_one_slow_iteration_at_first_costs_one_more() -> None:
    assert steady_at([1.5, 1.0, 1.0, 1.0, 1.0]) == 4


def test_a_late_drop_is_waited_for() -> None:
    # As with CUDA graphs, which are recorded in the second call and replayed from the third.
    assert steady_at([1.5, 1.5, 1.0, 1.0, 1.0, 1.0]) == 5


def test_an_outlier_is_no_warm_up() -> None:
    assert steady_at([1.0, 5.0, 1.0]) == 3


def test_a_falling_curve_is_never_steady() -> None:
    assert steady_at([1.5 - 0.05 * index for index in range(MOST)]) is None


@pytest.mark.parametrize(("sigma", "mean_iterations"), [(0.002, 3.0), (0.01, 3.3), (0.05, 4.5)])
def test_noise_does_not_prolong_the_warm_up(sigma: float, mean_iterations: float) -> None:
    generator = random.Random(0)
    counts = [steady_at(noisy([1.0] * MOST, sigma, generator)) for _ in range(RUNS)]
    assert sum(count is None for count in counts) <= 0.01 * RUNS
    assert sum(count or MOST for count in counts) / RUNS <= mean_iterations


def test_a_warm_up_in_noise_is_mostly_waited_for() -> None:
    generator = random.Random(0)
    curve = [1 + 0.5 * 0.6**index for index in range(MOST)]
    counts = [steady_at(noisy(curve, 0.01, generator)) for _ in range(RUNS)]
    left_in_first_sample = [0.5 * 0.6 ** (count or MOST) for count in counts]
    assert sum(left_in_first_sample) / RUNS < 0.01
    assert sum(share > 0.05 for share in left_in_first_sample) <= 0.02 * RUNS


def test_noise_seldom_ends_a_warm_up_that_goes_on() -> None:
    generator = random.Random(0)
    curve = [1.5 - 0.05 * index for index in range(MOST)]
    never = [steady_at(noisy(curve, 0.01, generator)) is None for _ in range(RUNS)]
    assert sum(never) >= 0.95 * RUNS

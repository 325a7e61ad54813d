import random

import pytest

from hfbench.measurement.stopping import median_interval, reason_to_stop, relative_precision
from hfbench.records import Sampling


def sampling(**values: object) -> Sampling:
    defaults = {
        "stopping_rule": "precision",
        "warmup_iterations": 1,
        "min_iterations": 6,
        "max_iterations": 10,
        "target_precision": 0.1,
        "max_seconds": 60.0,
        "unobserved_every": 0,
        "timeout_seconds": 600.0,
    }
    return Sampling(**{**defaults, **values})  # type: ignore[arg-type]


def test_interval_by_hand() -> None:
    # n = 6: 1 - 2/64 = 96.9% for the extremes; n = 9: the 2nd and 8th enclose with 1 - 2 (1+9)/512 = 96.1%.
    assert median_interval([6, 1, 5, 2, 4, 3]) == (1, 6)
    assert median_interval([9, 1, 8, 2, 7, 3, 6, 4, 5]) == (2, 8)
    # n = 8: the 2nd and 7th would enclose with 1 - 2 (1+8)/256 = 93.0% only.
    assert median_interval([1, 2, 3, 4, 5, 6, 7, 8]) == (1, 8)


def test_five_values_have_no_interval() -> None:
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert relative_precision([1, 2, 3, 4, 5]) is None


def test_precision_is_half_the_width_over_the_median() -> None:
    assert relative_precision([1.0, 1.0, 1.0, 1.0, 1.2, 0.8]) == pytest.approx(0.2)


def test_interval_covers_the_true_median() -> None:
    generator = random.Random(0)
    covered = 0
    for _ in range(1000):
        low, high = median_interval([generator.lognormvariate(0, 0.3) for _ in range(11)]) or (2, 0)
        covered += low <= 1 <= high
    assert covered >= 930


def test_stops_when_precise_enough() -> None:
    assert reason_to_stop([1.0] * 5, 0, sampling()) is None
    assert reason_to_stop([1.0] * 6, 0, sampling()) == "target_precision reached"


def test_goes_on_until_a_limit() -> None:
    noisy = [1.0, 2.0] * 4
    assert reason_to_stop(noisy, 0, sampling()) is None
    assert reason_to_stop(noisy, 60.0, sampling()) == "max_seconds reached"
    assert reason_to_stop([*noisy, 1.0, 2.0], 0, sampling()) == "max_iterations reached"


def test_minimum_holds_even_after_max_seconds() -> None:
    assert reason_to_stop([1.0] * 5, 1e9, sampling()) is None


def test_fixed_ignores_precision() -> None:
    fixed = sampling(stopping_rule="fixed", min_iterations=3)
    assert reason_to_stop([1.0, 1.0], 0, fixed) is None
    assert reason_to_stop([1.0, 9.0, 5.0], 0, fixed) == "min_iterations reached"

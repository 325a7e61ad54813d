import numpy as np
import pytest

from hfbench.statistics.spread import between_rounds, within_rounds


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

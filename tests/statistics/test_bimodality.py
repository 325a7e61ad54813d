import numpy as np
import pytest

from hfbench.statistics.bimodality import Modes, two_modes
from hfbench.statistics.bootstrap import Floats

SERIES = 500


def some(modes: Modes | None) -> Modes:
    assert modes is not None
    return modes


def share_flagged(series: Floats) -> float:
    """The share of experiments called bimodal; shape (experiments, rounds, iterations)."""
    return float(np.mean([two_modes(rounds) is not None for rounds in series.tolist()]))


def test_by_hand() -> None:
    # Ten values around 1.0 and ten around 2.0; one at either end is left out of the means.
    lower, upper = [0.98, 0.99] + [1.0] * 6 + [1.01, 1.02], [1.98, 1.99] + [2.0] * 6 + [2.01, 2.02]
    modes = some(two_modes([lower + upper]))
    assert modes == pytest.approx((9.02 / 9, 17.98 / 9, 0.5))


def test_constant_and_few_values_have_one_mode() -> None:
    assert two_modes([[1.0] * 30]) is None
    assert two_modes([[1.0] * 5 + [2.0] * 5]) is None
    assert two_modes([]) is None


def test_rounds_that_differ_as_a_whole_are_not_two_modes() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (6, 20))
    levels = np.array([1.0, 1.5, 1.0, 1.5, 1.0, 1.5])[:, None]
    assert two_modes((levels + noise).tolist()) is None


@pytest.mark.parametrize("shape", [(1, 20), (1, 40), (3, 8), (7, 20)])
@pytest.mark.parametrize("kind", ["normal", "log-normal", "one outlier"])
def test_one_mode_is_seldom_flagged(kind: str, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    size = (SERIES, *shape)
    values = generator.normal(1, 0.02, size)
    if kind == "log-normal":
        values = np.exp(generator.normal(0, 0.3, size))
    elif kind == "one outlier":
        values[:, 0, 3] = 4.0
    assert share_flagged(values) <= 0.01


@pytest.mark.parametrize("upper_share", [0.3, 0.5, 0.7])
def test_two_modes_are_found(upper_share: float) -> None:
    generator = np.random.default_rng(0)
    size = (SERIES, 7, 20)
    values = 1 + 0.01 * generator.normal(0, 1, size) + 0.06 * (generator.random(size) < upper_share)
    assert share_flagged(values) >= 0.98
    modes = [some(two_modes(rounds)) for rounds in values[:20].tolist()]
    assert np.mean([mode.upper - mode.lower for mode in modes]) == pytest.approx(0.06, rel=0.1)
    assert np.mean([mode.upper_share for mode in modes]) == pytest.approx(upper_share, abs=0.05)


def test_two_modes_are_found_in_few_iterations_beside_an_outlier() -> None:
    generator = np.random.default_rng(0)
    size = (SERIES, 7, 9)
    values = 1 + 0.01 * generator.normal(0, 1, size) + 0.08 * (generator.random(size) < 0.5)
    values[:, 2, 5] = 9.0
    assert share_flagged(values) >= 0.95

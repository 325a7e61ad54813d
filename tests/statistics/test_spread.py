"""Variation, drift, outliers and modes: by hand, and on series whose answer is known."""

from math import exp, log

import numpy as np
import pytest

from hfbench.statistics.bootstrap import Floats
from hfbench.statistics.spread import (
    SIGNIFICANCE,
    NodeEffect,
    between_rounds,
    drift,
    node_effects,
    outliers,
    trend_p_values,
    two_modes,
    within_rounds,
)
from tests.conftest import some
from tests.statistics.experiments import EXPERIMENTS


def test_variation_by_hand() -> None:
    # Medians 9, 10 and 11: standard deviation 1, mean 10.
    assert between_rounds([[8.0, 9.0, 90.0], [10.0], [10.0, 12.0]]) == pytest.approx(0.1)
    # 9 and 11: variance 2, mean 10, squared coefficient 0.02, one degree of freedom.
    # 19, 20 and 21: variance 1, mean 20, squared coefficient 0.0025, two. Pooled: (0.02 + 2 · 0.0025) / 3.
    assert within_rounds([[9.0, 11.0], [19.0, 20.0, 21.0], [7.0]]) == pytest.approx((0.025 / 3) ** 0.5)


def test_too_few_values_have_no_variation() -> None:
    assert between_rounds([[1.0, 2.0]]) is between_rounds([[0.0], [0.0]]) is None
    assert within_rounds([[1.0], [2.0]]) is within_rounds([]) is None


def test_the_two_levels_of_variation_are_told_apart_in_any_unit() -> None:
    generator = np.random.default_rng(0)
    rounds = 10 * (1 + generator.normal(0, 0.03, (400, 1))) * (1 + generator.normal(0, 0.01, (400, 50)))
    for scale in (1, 1000):
        assert between_rounds((scale * rounds).tolist()) == pytest.approx(0.03, rel=0.1)
        assert within_rounds((scale * rounds).tolist()) == pytest.approx(0.01, rel=0.05)


def share_drifting(series: list[list[float]]) -> float:
    return float(np.mean([some(p_value) < SIGNIFICANCE for p_value in trend_p_values(series)]))


def test_drift_by_hand() -> None:
    # By 1 from 8 to 13, or back: every slope is 1; (13 - 8) over the median of 10.5.
    assert drift([8, 9, 10, 11, 12, 13]) == pytest.approx(5 / 10.5)
    assert drift([13, 12, 11, 10, 9, 8]) == pytest.approx(-5 / 10.5)  # faster
    assert drift([2.0] * 6) == 0


def test_p_values_by_hand() -> None:
    # All 6! orders are as likely: 2 are in perfect order, and 2 · 5 have a single pair the other way round.
    perfect, one_pair = pytest.approx(2 / 720), pytest.approx(12 / 720)
    assert trend_p_values([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [2, 1, 3, 4, 5, 6]]) == [perfect, perfect, one_pair]
    assert trend_p_values([[2.0] * 6, [1, 2, 3, 4, 5], [1, 2]]) == [1.0, None, None]
    assert trend_p_values([]) == []


def test_p_values_of_many_series_are_those_of_each() -> None:
    generator = np.random.default_rng(0)
    series = [generator.normal(1, 0.02, count).tolist() for count in (6, 12, 6, 40, 12)]
    series += [[1.0, 2.0, 2.0, 3.0, 3.0, 4.0], [5.0] * 6]  # tied, and constant
    assert trend_p_values(series) == [trend_p_values([values])[0] for values in series]


def test_one_outlier_is_no_drift() -> None:
    series = [1.0, 1.01, 0.99, 1.02, 1.0, 0.98, 1.01, 1.0, 0.99, 7.0]
    assert share_drifting([series]) == 0
    assert abs(drift(series)) < 0.02


@pytest.mark.parametrize("count", [6, 12, 30])
@pytest.mark.parametrize("kind", ["normal", "log-normal", "bimodal", "one outlier"])
def test_stationary_series_are_seldom_called_drifting(kind: str, count: int) -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, (EXPERIMENTS, count))
    values = {
        "normal": 1 + 0.02 * noise,
        "log-normal": np.exp(0.3 * noise),
        "bimodal": 1 + 0.002 * noise + 0.05 * (generator.random(noise.shape) < 0.4),
        "one outlier": 1 + 0.02 * noise + 2.0 * (np.arange(count) == count // 3),
    }[kind]
    assert share_drifting(values.tolist()) <= 0.03


@pytest.mark.parametrize(("change", "count", "found"), [(0.10, 12, 0.85), (0.05, 30, 0.85), (-0.10, 30, 0.99)])
def test_drifting_series_are_found_with_their_size(change: float, count: int, found: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (EXPERIMENTS, count))
    series = (1 + np.linspace(-change / 2, change / 2, count) + noise).tolist()
    assert share_drifting(series) >= found
    assert np.median([drift(values) for values in series]) == pytest.approx(change, rel=0.1)


@pytest.mark.parametrize(
    ("values", "places"),
    [
        # Median 10, distances 2 1 0 1 5.2: MAD 1. Modified z-scores: 5.2 · 0.6745 = 3.507, and 5.1 · 0.6745 = 3.44.
        ([8, 9, 10, 11, 15.2], [4]),
        ([8, 9, 10, 11, 15.1], []),
        ([10, 30, 11, 9, 10.5, -10, 9.5], [1, 5]),
        ([1.5] * 8, []),
        ([1.5], []),
        ([], []),
        # The MAD is 0. The mean absolute deviation, 1/8, stands in: 1 · 0.7979 / 0.125 = 6.4.
        ([1.0] * 7 + [2.0], [7]),
        # They do not hide each other: with mean 2.78 and standard deviation 3.4, neither 9 would be three away.
        ([1.0, 1.02, 0.98, 1.01, 0.99, 1.03, 1.0, 9.0, 9.0], [7, 8]),
    ],
)
def test_outliers_by_hand(values: list[float], places: list[int]) -> None:
    assert outliers(values) == [place in places for place in range(len(values))]


@pytest.mark.parametrize("count", [20, 30])
def test_clean_series_have_few_outliers(count: int) -> None:
    values = np.random.default_rng(0).normal(1, 0.02, (1000, count))
    assert np.mean([outliers(series) for series in values.tolist()]) < 0.01


def share_bimodal(series: Floats) -> float:
    """The share of experiments called bimodal; shape (experiments, rounds, iterations)."""
    return float(np.mean([two_modes(rounds) is not None for rounds in series.tolist()]))


def test_modes_by_hand() -> None:
    # Ten values around 1.0 and ten around 2.0; one at either end is left out of the means.
    lower, upper = [0.98, 0.99] + [1.0] * 6 + [1.01, 1.02], [1.98, 1.99] + [2.0] * 6 + [2.01, 2.02]
    assert two_modes([lower + upper]) == pytest.approx((9.02 / 9, 17.98 / 9))


def test_constant_and_few_values_have_one_mode() -> None:
    assert two_modes([[1.0] * 30]) is two_modes([[1.0] * 5 + [2.0] * 5]) is two_modes([]) is None


def test_rounds_that_differ_as_a_whole_are_not_two_modes() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (6, 20))
    levels = np.array([1.0, 1.5, 1.0, 1.5, 1.0, 1.5])[:, None]
    assert two_modes((levels + noise).tolist()) is None


@pytest.mark.parametrize("shape", [(1, 20), (1, 40), (3, 8), (7, 20)])
@pytest.mark.parametrize("kind", ["normal", "log-normal", "one outlier"])
def test_one_mode_is_seldom_called_two(kind: str, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    size = (EXPERIMENTS, *shape)
    values = generator.normal(1, 0.02, size)
    if kind == "log-normal":
        values = np.exp(generator.normal(0, 0.3, size))
    elif kind == "one outlier":
        values[:, 0, 3] = 4.0
    assert share_bimodal(values) <= 0.01


@pytest.mark.parametrize("upper_share", [0.3, 0.5, 0.7])
def test_two_modes_are_found(upper_share: float) -> None:
    generator = np.random.default_rng(0)
    size = (EXPERIMENTS, 7, 20)
    values = 1 + 0.01 * generator.normal(0, 1, size) + 0.06 * (generator.random(size) < upper_share)
    assert share_bimodal(values) >= 0.98
    modes = [some(two_modes(rounds)) for rounds in values[:20].tolist()]
    assert np.mean([mode.upper - mode.lower for mode in modes]) == pytest.approx(0.06, rel=0.1)


def test_two_modes_are_found_in_few_iterations_beside_an_outlier() -> None:
    generator = np.random.default_rng(0)
    size = (EXPERIMENTS, 7, 9)
    values = 1 + 0.01 * generator.normal(0, 1, size) + 0.08 * (generator.random(size) < 0.5)
    values[:, 2, 5] = 9.0
    assert share_bimodal(values) >= 0.95


def _of_nodes(slower: float, noise: float, seed: int, rounds: int = 12) -> tuple[float, dict[str, NodeEffect]]:
    """Three nodes with as many rounds each, of which `c` is slower, and two configurations as unlike as they come."""
    source = np.random.default_rng(seed)
    nodes = {number: "abc"[number % 3] for number in range(rounds)}
    luck = {number: float(source.normal(0, noise)) + log(slower) * (node == "c") for number, node in nodes.items()}
    seconds = {
        name: {number: usual * exp(each + float(source.normal(0, noise / 3))) for number, each in luck.items()}
        for name, usual in (("eager", 10.0), ("sdpa", 0.1))
    }
    spread, effects = node_effects(seconds, nodes)
    return spread, {each.node: each for each in effects}


def test_a_node_that_is_slower_is_named_with_how_much() -> None:
    spread, effects = _of_nodes(slower=1.2, noise=0.01, seed=1)
    assert [node for node, each in effects.items() if each.is_out_of_line] == ["c"]
    assert effects.keys() == {"a", "b", "c"}
    assert effects["c"].low < 1.2 < effects["c"].high
    assert 0.05 < spread < 0.2


def test_of_nodes_that_are_the_same_one_in_twenty_sweeps_names_any() -> None:
    named = [any(each.is_out_of_line for each in _of_nodes(1.0, 0.05, seed)[1].values()) for seed in range(400)]
    assert 0.01 < sum(named) / len(named) < 0.08


def test_a_single_node_or_a_round_each_tells_nothing_of_nodes() -> None:
    assert node_effects({"sdpa": {1: 1.0, 2: 2.0}}, {1: "a", 2: "a"}) == (0.0, [])
    assert node_effects({"sdpa": {1: 1.0, 2: 2.0}}, {1: "a", 2: "b"}) == (0.0, [])

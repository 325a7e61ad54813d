"""Ratios of two points with their errors, by which method they are formed, and the mean of many."""

from datetime import UTC, datetime, timedelta
from math import log, sqrt
from typing import Any

import numpy as np
import pytest

from benchmarks.looks import limits
from hfbench.statistics.ratios import (
    IDENTICAL,
    INDEPENDENT,
    PAIRED,
    Error,
    RatioOfRounds,
    combined,
    contrast,
    geometric_mean,
    independent_ratio,
    interleaved,
    paired_ratio,
)
from hfbench.statistics.verdicts import interval, p_value
from tests.conftest import some
from tests.statistics.experiments import experiments

START = datetime(2025, 1, 1, tzinfo=UTC)
ROUNDS = {number: np.array([1.0, 1.1, 0.9]) * (1 + number / 100) for number in (1, 2, 3)}
SLOWER_ROUNDS = {number: 1.5 * values for number, values in ROUNDS.items()}


def times(*minutes: float) -> dict[int, Any]:
    return {number: START + timedelta(minutes=minute) for number, minute in enumerate(minutes, start=1)}


def test_the_error_by_hand() -> None:
    # Logarithms 0, ln 2 and ln 4: the median ln 2, a standard deviation of ln 2, over sqrt(3).
    ratio = some(paired_ratio([[1.0]] * 3, [[1.0], [2.0], [4.0]]))
    assert ratio.estimate == pytest.approx(2)
    [error] = ratio.errors
    assert error == pytest.approx((log(2) / sqrt(3), 3))
    old, new = [[1.0]] * 3, [[1.0], [2.0], [9.0, 4.0, 0.1]]  # a round stands for the median of its iterations
    candidate, baseline = some(independent_ratio(old, new)).errors
    assert candidate == error
    assert baseline == (0, 3)


def test_welch_by_hand() -> None:
    # Squares 9 + 16 = 25; 25² / (9² / 2 + 16² / 4) = 625 / 104.5.
    error, degrees_of_freedom = combined([Error(3.0, 3), Error(4.0, 5)])
    assert error == 5.0
    assert degrees_of_freedom == pytest.approx(625 / 104.5)
    # With as many rounds again, each square is a half, over 5 and 9 degrees of freedom.
    error, degrees_of_freedom = combined([Error(3.0, 4), Error(4.0, 4)], more_rounds=4)
    assert error == pytest.approx(sqrt(12.5))
    assert degrees_of_freedom == pytest.approx(12.5**2 / (4.5**2 / 7 + 8**2 / 7))


def test_a_ratio_leaves_out_the_lowest_and_the_highest_round() -> None:
    # Of five rounds the lowest and the highest are left out; of four, the middle two are left. Means are of logarithms.
    for compute in (independent_ratio, paired_ratio):
        five = some(compute([[1.0]] * 5, [[4.0], [0.1], [2.0], [90.0], [8.0]]))
        assert five.estimate == pytest.approx((2 * 4 * 8) ** (1 / 3))
        assert some(compute([[1.0]] * 4, [[8.0], [0.1], [4.0], [2.0]])).estimate == pytest.approx(sqrt(2 * 4))
        assert some(compute([[1.0]] * 3, [[8.0], [0.1], [4.0]])).estimate == pytest.approx(4)


@pytest.mark.parametrize("rounds", [3, 4, 5, 7, 9, 12, 20])
def test_the_estimate_over_its_error_is_students_t(rounds: int) -> None:
    """Far into the tails, where the levels of a look and of a family of many ratios are."""
    logarithms = np.random.default_rng(1).normal(0, 1, (100_000, rounds))
    for level in (0.05, 0.01, 0.001):
        low, high = limits([logarithms], rounds, level)
        assert np.mean((low > 0) | (high < 0)) <= 1.12 * level + 2 * (level / 100_000) ** 0.5


def test_a_disturbed_round_hardly_moves_the_ratio_and_widens_its_interval() -> None:
    quiet = [[1.00], [1.01], [0.99], [1.02], [0.98], [1.00], [1.01]]
    clean, disturbed = (some(paired_ratio([[1.0]] * 7, rounds)) for rounds in (quiet, [*quiet[:-1], [4.0]]))
    assert disturbed.estimate == pytest.approx(clean.estimate, rel=0.01)
    assert disturbed.errors[0].standard_error > 10 * clean.errors[0].standard_error


def test_equal_sides_are_seldom_told_apart() -> None:
    pairs = list(zip(experiments("log-normal", 7, 1, 4), experiments("log-normal", 7, 1, 5), strict=True))
    for compute in (independent_ratio, paired_ratio):
        p_values = [p_value(some(compute(baseline.tolist(), candidate.tolist()))) for baseline, candidate in pairs]
        assert np.mean([each < 0.05 for each in p_values]) <= 0.02


def test_swapping_the_sides_inverts_the_ratio() -> None:
    baseline, candidate = (next(experiments("normal", 7, 1, seed, 1)).tolist() for seed in (5, 6))
    forth, back = some(independent_ratio(baseline, candidate)), some(independent_ratio(candidate, baseline))
    assert back.estimate == pytest.approx(1 / forth.estimate)
    assert interval(back).low == pytest.approx(1 / interval(forth).high)
    assert p_value(back) == pytest.approx(p_value(forth))


def test_a_ratio_needs_two_rounds_positive_values_and_a_paired_one_as_many_rounds() -> None:
    assert independent_ratio([[1.0, 2.0]], [[1.0], [2.0]]) is paired_ratio([[1.0]], [[1.0]]) is None
    with pytest.raises(ValueError, match="positive"):
        independent_ratio([[0.0], [0.0]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="positive"):
        paired_ratio([[0.0], [1.0]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="2 rounds cannot be paired with 3"):
        paired_ratio([[1.0]] * 2, [[1.0]] * 3)


def of_rounds(estimate: float, baseline: list[float], candidate: list[float]) -> RatioOfRounds:
    return RatioOfRounds(estimate, dict(enumerate(baseline)), dict(enumerate(candidate)))


def test_the_geometric_mean_by_hand() -> None:
    # sqrt(2 · 8) = 4. The rounds' means over pairs are 1, 1, 1 and 4, 4, 16, whose logarithms are 1, 1 and 2 times
    # ln 4: a standard deviation of ln 4 / sqrt(3), over sqrt(3).
    ratios = [of_rounds(2, [1, 1, 1], [2, 2, 8]), of_rounds(8, [5, 5, 5], [40, 40, 160])]
    mean = some(geometric_mean(ratios, paired=True))
    assert mean.estimate == pytest.approx(4)
    assert mean.errors[0].standard_error == pytest.approx(log(4) / 3)


def test_the_mean_of_pairs_that_share_their_rounds_noise_is_no_surer_than_one_pair() -> None:
    noise = np.exp(np.random.default_rng(1).normal(0, 0.05, 7)).tolist()
    one = of_rounds(1, [1.0] * 7, noise)
    single, many = some(geometric_mean([one], paired=True)), some(geometric_mean([one] * 20, paired=True))
    assert many.errors[0].standard_error == pytest.approx(single.errors[0].standard_error)


def test_the_mean_of_pairs_of_independent_noise_is_surer_and_covers_the_truth() -> None:
    covered, generator = 0, np.random.default_rng(2)
    for _ in range(200):
        sides = np.exp(generator.normal(0, 0.03, (2, 10, 7)))
        pairs = [
            of_rounds(some(independent_ratio(old[:, None], new[:, None])).estimate, old.tolist(), new.tolist())
            for old, new in zip(*sides, strict=True)
        ]
        mean = some(geometric_mean(pairs, paired=False))
        low, high = interval(mean)[1:]
        covered += low <= 1 <= high
        assert mean.errors[0].standard_error < 0.008  # one pair alone: about 0.03 / sqrt(7) = 0.0113
    assert covered >= 195


def test_a_pair_that_lacks_a_round_does_not_shift_the_mean() -> None:
    whole = of_rounds(1, [1.0, 1.01, 0.99], [1.0, 1.01, 0.99])
    part = RatioOfRounds(1, {0: 100.0, 1: 101.0}, {0: 100.0, 1: 101.0})
    mean = some(geometric_mean([whole, part], paired=True))
    assert list(interval(mean)) == pytest.approx([1, 1, 1])


def test_the_mean_needs_ratios_and_rounds() -> None:
    assert geometric_mean([], paired=True) is None
    assert geometric_mean([of_rounds(2, [1.0], [2.0])], paired=True) is None
    assert some(geometric_mean([of_rounds(2, [1, 1], [2, 2])], paired=False)).estimate == pytest.approx(2)


@pytest.mark.parametrize(
    ("baseline", "candidate", "expected"),
    [
        (times(0, 10, 20), times(5, 15, 25), True),
        (times(5, 10, 20), times(0, 15, 25), True),  # the candidate first in round 1
        (times(90, 10, 20), times(95, 15, 25), True),  # round 1 of both measured again after the others
        (times(0, 10, 20), times(95, 15, 25), False),  # round 1 of the candidate alone measured again
        (times(0, 10, 20), times(60, 70, 80), False),
        (times(0, 10, 20), times(5, 15), False),
        (times(0, 10, 20), times(10, 20, 30), False),  # round 1 of the one with round 2 of the other
        (times(0), times(5), False),
        ({}, {}, False),
    ],
)
def test_rounds_interleave_where_each_is_over_before_the_next(
    baseline: dict[int, Any], candidate: dict[int, Any], expected: bool
) -> None:
    assert interleaved(baseline, candidate) == interleaved(candidate, baseline) == expected


@pytest.mark.parametrize(
    ("candidate", "old", "new", "method"),
    [
        (SLOWER_ROUNDS, times(0, 10, 20), times(5, 15, 25), PAIRED),
        (SLOWER_ROUNDS, times(0, 10, 20), times(60, 70, 80), INDEPENDENT),
        (SLOWER_ROUNDS, {}, {}, INDEPENDENT),
        (ROUNDS, times(0, 10, 20), times(0, 10, 20), IDENTICAL),
        (ROUNDS, times(0, 10, 20), times(60, 70, 80), INDEPENDENT),
        # One round was measured again: the other two would stand for two rounds without any change.
        ({**ROUNDS, 3: ROUNDS[3] * 1.2}, times(0, 10, 20), times(0, 10, 25), INDEPENDENT),
    ],
)
def test_the_method_follows_from_when_the_rounds_ran(candidate: Any, old: Any, new: Any, method: str) -> None:
    assert contrast(ROUNDS, candidate, old, new).method == method


def test_the_drift_of_the_machine_leaves_a_paired_ratio() -> None:
    old, new = ({number: values * number**0.5 for number, values in each.items()} for each in (ROUNDS, SLOWER_ROUNDS))
    paired = some(contrast(old, new, times(0, 10, 20), times(5, 15, 25)).ratio)
    independent = some(contrast(old, new, times(0, 10, 20), times(60, 70, 80)).ratio)
    assert p_value(paired) < 0.05 < p_value(independent)


@pytest.mark.parametrize(
    ("baseline", "candidate", "obstacle"),
    [
        (ROUNDS, {}, "the candidate has no value"),
        ({}, ROUNDS, "the baseline has no value"),
        (ROUNDS, {1: np.array([0.0]), 2: np.array([1.0])}, "not positive"),
    ],
)
def test_what_has_no_ratio_has_an_obstacle(baseline: Any, candidate: Any, obstacle: str) -> None:
    found = contrast(baseline, candidate, {}, {})
    assert found.ratio is None
    assert obstacle in (found.obstacle or "")

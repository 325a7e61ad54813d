"""Change points: by hand, on noise alone, and on steps of a known place and size; and the knee of known curves."""

from collections.abc import Sequence
from math import exp, log

import numpy as np
import pytest
from scipy.special import stdtr

from hfbench.statistics.bootstrap import CONFIDENCE, student
from hfbench.statistics.changepoints import Observation, estimate_noise, find_steps, knee, optimal_cuts
from tests.conftest import some

HISTORIES = 200
COMMITS = 30


def _point(logarithm: float, standard_error: float, rounds: int) -> Observation:
    """A result whose interval is what this standard error of its logarithm gives."""
    if rounds == 1:
        return Observation(exp(logarithm), None, None, 1)
    half = student(CONFIDENCE, rounds - 1) * standard_error
    return Observation(exp(logarithm), exp(logarithm - half), exp(logarithm + half), rounds)


def _histories(
    count: int,
    commits: int,
    error: float,
    *,
    rounds: int = 3,
    drift: float = 0.0,
    steps: Sequence[tuple[int, float]] = (),
) -> list[list[Observation]]:
    """Histories whose results have this standard error, estimated from so few rounds, and drift between commits."""
    generator = np.random.default_rng(7)
    levels = np.array([sum(log(1 + size) for first, size in steps if place >= first) for place in range(commits)])
    histories = []
    for _ in range(count):
        truth = levels + generator.normal(0, drift, commits) if drift else levels
        values = truth + generator.normal(0, error, commits)
        errors = error * np.sqrt(generator.chisquare(max(rounds - 1, 1), commits) / max(rounds - 1, 1))
        histories.append([_point(float(v), float(e), rounds) for v, e in zip(values, errors, strict=True)])
    return histories


def _found(points: Sequence[Observation], threshold: float = 0.02) -> list[int]:
    return [step.first for step in find_steps(points, threshold=threshold) or []]


def test_cuts_by_hand() -> None:
    # Uncut, the mean is 1.8 and the squares are 3 · 0.8² + 2 · 1.2² = 4.8; cut before the fourth they are 0. So a cut
    # pays while its penalty is below 4.8.
    values, weights = np.array([1.0, 1.0, 1.0, 3.0, 3.0]), np.ones(5)
    assert optimal_cuts(values, weights, penalty=4.79) == [3]
    assert optimal_cuts(values, weights, penalty=4.81) == []
    bump = np.array([0.0] * 5 + [1.0] * 3 + [0.0] * 5)  # halving the series would miss it
    assert optimal_cuts(bump, np.ones(13), penalty=1.0) == [5, 8]


def test_weights_by_hand() -> None:
    # Weighted mean of 0, 1, 1 with weights 4, 1, 1 is 1/3: uncut 4/9 + 2 · 4/9 = 12/9. Equal weights: mean 2/3 and 6/9.
    values = np.array([0.0, 1.0, 1.0])
    assert optimal_cuts(values, np.array([4.0, 1.0, 1.0]), penalty=1.3) == [1]
    assert optimal_cuts(values, np.ones(3), penalty=1.3) == []


def test_a_step_by_hand() -> None:
    # Logarithms 0 0 0 | 0.1 0.1, each with a standard error of 0.01 from 3 rounds: 10 degrees of freedom. The
    # difference has the error 0.01 · sqrt(1/3 + 1/2) = 0.009129, so t = 10.95; four places are tried.
    points = [_point(value, 0.01, 3) for value in (0.0, 0.0, 0.0, 0.1, 0.1)]
    (step,) = some(find_steps(points, threshold=0.02))
    assert step.first == 3
    assert step.ratio.estimate == pytest.approx(exp(0.1))
    assert step.ratio.low == pytest.approx(exp(0.1 - 2.2281 * 0.009129), rel=1e-4)
    assert step.ratio.high == pytest.approx(exp(0.1 + 2.2281 * 0.009129), rel=1e-4)
    assert step.p_value == pytest.approx(4 * 2 * stdtr(10, -10.954), rel=1e-3)


def test_noise_by_hand() -> None:
    # Per round: 0.01² · 3 and 0.02² · 5, pooled with 2 and 4 degrees of freedom: (2 · 3e-4 + 4 · 20e-4) / 6 = 14.3e-4.
    # Over 3 rounds that is more than the first point's own; the second keeps its own, the larger one.
    noise = some(estimate_noise([_point(0.0, 0.01, 3), _point(0.0, 0.02, 5)]))
    assert noise.variances == pytest.approx([86e-4 / 6 / 3, 4e-4])
    assert noise.degrees_of_freedom == pytest.approx(6)


def test_a_change_within_the_threshold_is_none() -> None:
    points = [_point(value, 0.0005, 5) for value in [0.0] * 6 + [log(1.015)] * 6]
    assert _found(points, threshold=0.02) == []
    assert _found(points, threshold=0.01) == [6]


def test_small_steps_in_one_direction_add_up() -> None:
    levels = [0.0] * 10 + [log(1.015)] * 10 + [2 * log(1.015)] * 10
    assert len(_found([_point(level, 0.0005, 5) for level in levels])) == 1


def test_one_noisy_commit_is_no_step() -> None:
    points = [_point(0.0, 0.003, 3) for _ in range(12)]
    points[6] = _point(0.15, 0.15, 3)
    assert _found(points) == []


def test_many_commits_of_one_round_tell_their_noise_and_few_do_not() -> None:
    (history,) = _histories(1, COMMITS, 0.01, rounds=1, steps=[(15, 0.10)])
    assert _found(history) == [15]
    assert find_steps([_point(value, 0.0, 1) for value in (0.0, 0.0, 0.5)], threshold=0.02) is None


def test_equal_numbers_and_short_series() -> None:
    assert find_steps([], threshold=0.02) == find_steps([_point(0.0, 0.01, 3)], threshold=0.02) == []
    for rounds in (1, 3):
        assert _found([_point(0.0, 0.0, rounds)] * 10) == []
        assert _found([_point(0.0, 0.0, rounds)] * 5 + [_point(0.1, 0.0, rounds)] * 5) == [5]


@pytest.mark.parametrize(
    ("commits", "error", "rounds", "drift"),
    [
        (COMMITS, 0.01, 3, 0.0),
        (COMMITS, 0.01, 7, 0.0),
        (COMMITS, 0.03, 3, 0.0),
        (COMMITS, 0.01, 3, 0.01),
        (COMMITS, 0.005, 7, 0.02),
        *((commits, 0.01, 3, 0.0) for commits in (3, 5, 8, 15)),
    ],
)
def test_noise_alone_marks_nothing(commits: int, error: float, rounds: int, drift: float) -> None:
    histories = _histories(HISTORIES, commits, error, rounds=rounds, drift=drift)
    threshold = 0.02 if commits == COMMITS else 0.0
    assert sum(bool(_found(each, threshold)) for each in histories) <= 0.05 * HISTORIES


@pytest.mark.parametrize("first", [4, 10, 15, 27])
@pytest.mark.parametrize("size", [0.05, -0.05])
def test_a_step_of_five_percent_is_found_at_its_commit(first: int, size: float) -> None:
    histories = _histories(HISTORIES, COMMITS, 0.01, steps=[(first, size)])
    right = [found for each in histories if len(found := _found(each)) == 1 and abs(found[0] - first) <= 1]
    assert len(right) >= 0.95 * HISTORIES


def test_a_slowdown_and_its_repair_are_both_found() -> None:
    histories = _histories(HISTORIES, COMMITS, 0.01, steps=[(10, 0.06), (20, -0.06)])
    right = [found for each in histories if len(found := _found(each)) == 2]
    assert len(right) >= 0.9 * HISTORIES
    assert np.mean([abs(found[0] - 10) <= 1 and abs(found[1] - 20) <= 1 for found in right]) >= 0.95


def test_the_interval_of_a_step_covers_it() -> None:
    covered = 0
    for history in _histories(HISTORIES, COMMITS, 0.01, steps=[(15, 0.05)]):
        covered += any(step.ratio.low <= 1.05 <= step.ratio.high for step in some(find_steps(history, threshold=0.02)))
    assert covered >= 0.90 * HISTORIES


def test_estimates_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        find_steps([Observation(1.0, None, None, 1), Observation(0.0, None, None, 1)], threshold=0.02)


def test_a_result_without_an_interval_does_not_make_the_others_surer() -> None:
    known = [_point(0.0, 0.01, 3), _point(0.0, 0.01, 3)]
    alone, beside = some(estimate_noise(known)), some(estimate_noise([*known, Observation(1.0, None, None, 3)]))
    assert beside.variances == pytest.approx([1e-4] * 3)
    assert beside.degrees_of_freedom == alone.degrees_of_freedom


def test_by_hand() -> None:
    # Scaled: loads 0, 1/4, 1/2, 1; responses 0, 0.05, 0.1, 1; below the diagonal by 0, 0.2, 0.4, 0.
    assert knee([2, 4, 6, 10], [10, 15, 20, 110]) == 2


@pytest.mark.parametrize("capacity", [6.5, 10.5, 15.5])
def test_a_queue_turns_before_its_capacity(capacity: float) -> None:
    # M/M/1: the time in the system is 1 / (capacity - load).
    loads = [float(load) for load in range(1, int(capacity) + 1)]
    place = knee(loads, [1 / (capacity - load) for load in loads])
    assert place is not None
    assert 0.5 * capacity < loads[place] < capacity


@pytest.mark.parametrize(
    ("loads", "responses"),
    [
        ([1, 2], [1, 9]),  # two points
        ([1, 2, 3], [5, 5, 5]),  # flat
        ([1, 2, 3, 4], [1, 2, 3, 4]),  # a line
        ([1, 2, 3, 4], [1, 8, 9, 10]),  # it bends the other way
    ],
)
def test_what_does_not_bend_upwards_has_none(loads: list[float], responses: list[float]) -> None:
    assert knee(loads, responses) is None

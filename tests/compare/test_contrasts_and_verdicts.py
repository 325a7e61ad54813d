"""By which method two points are compared, and what is said of the ratio."""

from datetime import timedelta
from math import log
from typing import Any

import numpy as np
import pytest

from benchmarks.synthetic_tables import START
from hfbench.compare.contrasts import (
    FASTER,
    IDENTICAL,
    INCOMPARABLE,
    INDEPENDENT,
    PAIRED,
    SAME,
    SLOWER,
    UNDECIDED,
    Contrast,
    contrast,
    decide,
    interleaved,
    judge,
)
from hfbench.compare.pairs import COMPARED, HEADLINE, choose_metrics
from hfbench.core.errors import UserError
from hfbench.statistics.ratios import Error, Ratio

ROUNDS = {number: np.array([1.0, 1.1, 0.9]) * (1 + number / 100) for number in (1, 2, 3)}
SLOWER_ROUNDS = {number: 1.5 * values for number, values in ROUNDS.items()}


def times(*minutes: float) -> dict[int, Any]:
    return {number: START + timedelta(minutes=minute) for number, minute in enumerate(minutes, start=1)}


def ratio(estimate: float, error: float, rounds: int = 7) -> Ratio:
    return Ratio(estimate, (Error(error, rounds),), (Error(error, rounds),))


def verdict_on(estimate: float, error: float, higher_is_better: bool = False, tests: float = 1.0) -> str:
    """The verdict at a threshold of 2%, with the p-value made larger by as much as `tests`."""
    found = ratio(estimate, error)
    adjusted = min(1.0, found.p_value * tests)
    return decide(found, found.p_value, adjusted, 0.02, higher_is_better=higher_is_better).word


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


def test_the_method_follows_from_when_the_rounds_ran() -> None:
    assert contrast(ROUNDS, SLOWER_ROUNDS, times(0, 10, 20), times(5, 15, 25)).method == PAIRED
    assert contrast(ROUNDS, SLOWER_ROUNDS, times(0, 10, 20), times(60, 70, 80)).method == INDEPENDENT
    assert contrast(ROUNDS, SLOWER_ROUNDS, {}, {}).method == INDEPENDENT
    assert contrast(ROUNDS, ROUNDS, times(0, 10, 20), times(0, 10, 20)).method == IDENTICAL
    assert contrast(ROUNDS, ROUNDS, times(0, 10, 20), times(60, 70, 80)).method == INDEPENDENT


def test_rounds_that_both_sides_share_are_not_paired() -> None:
    """One round was measured again: the other two would stand for two rounds without any change."""
    again = {**ROUNDS, 3: ROUNDS[3] * 1.2}
    assert contrast(ROUNDS, again, times(0, 10, 20), times(0, 10, 25)).method == INDEPENDENT


def test_the_drift_of_the_machine_leaves_a_paired_ratio() -> None:
    old, new = ({number: values * number**0.5 for number, values in each.items()} for each in (ROUNDS, SLOWER_ROUNDS))
    paired = contrast(old, new, times(0, 10, 20), times(5, 15, 25)).ratio
    independent = contrast(old, new, times(0, 10, 20), times(60, 70, 80)).ratio
    assert paired is not None
    assert independent is not None
    assert paired.p_value < 0.05 < independent.p_value


@pytest.mark.parametrize(
    ("baseline", "candidate", "obstacle"),
    [
        (ROUNDS, {}, "the candidate has no value"),
        ({}, ROUNDS, "the baseline has no value"),
        (ROUNDS, {1: np.array([0.0]), 2: np.array([1.0])}, "not positive"),
    ],
)
def test_what_has_no_ratio_is_incomparable(baseline: Any, candidate: Any, obstacle: str) -> None:
    (judged,) = judge([(HEADLINE, contrast(baseline, candidate, {}, {}))], 0.02)
    assert judged.verdict.word == INCOMPARABLE
    assert obstacle in (judged.verdict.reason or "")


def test_one_round_is_undecided_and_asks_for_one_more() -> None:
    (judged,) = judge([(HEADLINE, contrast({1: ROUNDS[1]}, SLOWER_ROUNDS, {}, {}))], 0.02)
    assert (judged.verdict.word, judged.verdict.more_rounds, judged.adjusted_p_value) == (UNDECIDED, 1, None)
    assert "the baseline has one round" in (judged.verdict.reason or "")


def test_the_same_records_are_the_same_even_with_one_round() -> None:
    one = {1: ROUNDS[1]}
    (judged,) = judge([(HEADLINE, contrast(one, one, times(0), times(0)))], 0.02)
    assert judged.verdict.word == SAME
    assert "measured nothing again" in (judged.verdict.reason or "")


def test_the_four_verdicts_on_a_ratio() -> None:
    # Student's t with 6 degrees of freedom is 2.447: with an error of 1% the interval is ±2.4%, with 0.5% ±1.2%.
    assert verdict_on(1.10, 0.01) == SLOWER
    assert verdict_on(0.90, 0.01) == FASTER
    assert verdict_on(1.001, 0.005) == SAME
    assert verdict_on(1.01, 0.01) == UNDECIDED


def test_more_of_a_throughput_is_faster() -> None:
    assert verdict_on(1.10, 0.01, higher_is_better=True) == FASTER
    assert verdict_on(0.90, 0.01, higher_is_better=True) == SLOWER


def test_a_change_that_is_sure_and_too_small_to_matter_is_the_same() -> None:
    found = ratio(1.01, 0.001)
    assert found.interval().low > 1
    assert verdict_on(1.01, 0.001) == SAME


def test_the_threshold_is_symmetric() -> None:
    # The interval's end at 1.02 exactly, and at 1 / 1.02: just within, and just beyond.
    margin = 2.447 * 0.001
    for direction in (1, -1):
        within, beyond = (np.exp(direction * (log(1.02) - share * margin)) for share in (1.05, 0.95))
        assert verdict_on(within, 0.001) == SAME
        assert verdict_on(beyond, 0.001) != SAME


def test_among_many_tests_a_change_needs_more_evidence() -> None:
    assert ratio(1.05, 0.015).p_value < 0.05
    assert verdict_on(1.05, 0.015) == SLOWER
    assert verdict_on(1.05, 0.015, tests=20) == UNDECIDED


def test_undecided_says_how_many_more_rounds_would_decide() -> None:
    verdict = decide(ratio(1.05, 0.03, 4), 0.2, 0.2, 0.02, higher_is_better=False)
    assert (verdict.word, verdict.more_rounds) == (UNDECIDED, 5)  # by hand in test_ratios
    assert "5 more rounds" in (verdict.reason or "")
    hopeless = decide(ratio(1.02, 0.5), 0.97, 0.97, 0.02, higher_is_better=False)
    assert hopeless.more_rounds is None
    assert "more than 200 more rounds" in (hopeless.reason or "")


def test_all_tests_are_one_family() -> None:
    """One clear change among many without: alone it is called, and what is not tested does not count."""

    def of(estimate: float, error: float = 0.015) -> Contrast:
        return Contrast(1.0, estimate, 7, 7, INDEPENDENT, ratio(estimate, error))

    untested = Contrast(1.0, None, 7, 0, INDEPENDENT, None, "the candidate has no value")
    assert judge([(HEADLINE, of(1.05))], 0.02)[0].verdict.word == SLOWER
    assert judge([(HEADLINE, of(1.05))] + [(HEADLINE, untested)] * 30, 0.02)[0].verdict.word == SLOWER
    among = judge([(HEADLINE, of(1.05))] + [(metric, of(1.0)) for metric in COMPARED * 3], 0.02)
    assert [judged.verdict.word for judged in among] == [UNDECIDED] * 28


def test_metrics_go_by_short_and_full_names() -> None:
    assert [metric.name for metric in choose_metrics(["ttft", "e2e", "time_to_first_token_seconds"])] == [
        "time_to_first_token_seconds",
        "end_to_end_seconds",
    ]
    assert choose_metrics([]) == COMPARED
    with pytest.raises(UserError, match="Did you mean memory"):
        choose_metrics(["memry"])

"""Verdicts: worked out by hand, and how often they are right on rounds of known truth, however often one looks."""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest

from benchmarks.looks import NOISES, SOME_LOOKS, limits, missed, noise
from hfbench.statistics import verdicts
from hfbench.statistics.bootstrap import FEWEST_ROUNDS
from hfbench.statistics.ratios import IDENTICAL, INDEPENDENT, Contrast, Error, Ratio, independent_ratio, paired_ratio
from hfbench.statistics.verdicts import (
    DEFAULT_THRESHOLD,
    ERROR,
    FAST,
    FASTER,
    INCOMPARABLE,
    MOST_MORE_ROUNDS,
    SAME,
    SLOW,
    SLOWER,
    UNDECIDED,
    Verdict,
    adjusted_p_values,
    decide,
    decide_slower,
    family_error,
    interval,
    look_error,
    p_value,
    race_p_value,
    rounds_to_decide,
    slower_error,
    verdict_on,
    verdict_on_race,
)
from tests.conftest import some

THRESHOLD = DEFAULT_THRESHOLD
# Student's t at 1%, two-sided, of a table: 6 degrees of freedom 3.707, 2 of them 9.925.
T_OF_SEVEN = 3.707
EVERY_ROUND = range(FEWEST_ROUNDS, 31)
EXPERIMENTS = 4000
# With 4000 experiments, chance moves a share of 5% by 0.7% at two standard errors; these are far below or seeded.
AT_MOST = ERROR


def ratio(estimate: float, error: float, rounds: int = 7) -> Ratio:
    return Ratio(estimate, (Error(error, rounds),))


def of(estimate: float, error: float = 0.015, rounds: int = 7) -> Contrast:
    return Contrast(1.0, estimate, rounds, rounds, INDEPENDENT, ratio(estimate, error, rounds))


def verdict(estimate: float, error: float, family: float = ERROR, *, higher_is_better: bool = False) -> Verdict:
    return decide(ratio(estimate, error), THRESHOLD, family, higher_is_better=higher_is_better)


def ratio_of(old: Any, new: Any, *, paired: bool) -> Ratio:
    return some((paired_ratio if paired else independent_ratio)(*([[each] for each in side] for side in (old, new))))


def samples(kind: str, sides: int, rounds: int, seed: int = 1) -> list[Any]:
    generator = np.random.default_rng(seed)
    return [noise(kind, (EXPERIMENTS, rounds), generator) for _ in range(sides)]


# One look.


def test_what_a_look_may_err_by_hand() -> None:
    assert [look_error(rounds) for rounds in (3, 5, 7)] == pytest.approx([0.01] * 3)
    assert look_error(14) == pytest.approx(0.01 / 4)
    assert look_error(2) == pytest.approx(0.001)
    assert look_error(7, ERROR / 2) == pytest.approx(0.01 / 2**1.125)


def test_the_interval_by_hand() -> None:
    estimate, low, high = interval(ratio(1.10, 0.01))
    assert (estimate, low, high) == pytest.approx(
        (1.1, 1.1 * exp(-T_OF_SEVEN / 100), 1.1 * exp(T_OF_SEVEN / 100)), 1e-4
    )
    assert interval(ratio(1.0, 0.01, 3)).high == pytest.approx(exp(0.09925), 1e-4)


def test_the_p_value_by_hand() -> None:
    # At the quantile of 1% one look errs in 1%, and all looks together in 5%; at half of that 1% in 5% / 2^(1 / 1.125).
    assert p_value(ratio(exp(T_OF_SEVEN / 100), 0.01)) == pytest.approx(0.05, 1e-3)
    assert p_value(ratio(exp(0.04317), 0.01)) == pytest.approx(0.05 / 2 ** (1 / 1.125), 1e-3)  # t at 0.5%: 4.317
    assert p_value(ratio(1.001, 0.1)) == 1.0


def test_the_interval_excludes_one_where_the_p_value_is_below_its_error() -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        estimate, rounds = exp(generator.normal(0, 0.05)), int(generator.integers(2, 40))
        error = generator.uniform(1e-4, 0.2)
        found = Ratio(estimate, (Error(0.01, rounds), Error(0.02, rounds)))
        low, high = interval(found, error)[1:]
        assert (p_value(found) < error) == (not low <= 1 <= high)


def test_a_change_without_any_spread_is_certain_and_no_change_is_none() -> None:
    assert p_value(some(independent_ratio([[2.0]] * 3, [[3.0]] * 3))) == 0.0
    assert p_value(some(paired_ratio([[2.0]] * 3, [[2.0]] * 3))) == 1.0
    assert interval(some(paired_ratio([[2.0]] * 3, [[3.0]] * 3))) == pytest.approx((1.5, 1.5, 1.5))


# All looks.


@pytest.mark.parametrize("sides", [1, 2], ids=["paired", "independent"])
@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("looks", [EVERY_ROUND, SOME_LOOKS, (3,)], ids=["every", "some", "one"])
def test_looks_find_no_change_where_there_is_none(kind: str, sides: int, looks: Sequence[int]) -> None:
    """Called at any of the looks, though a later one may take it back: that is more than anybody is told."""
    logarithms = samples(kind, sides, max(looks))
    assert missed(logarithms, looks) <= AT_MOST
    assert missed(logarithms, looks, ERROR / 20) <= 1.3 * ERROR / 20 + 0.001  # as in a family of twenty


@pytest.mark.parametrize("sides", [1, 2], ids=["paired", "independent"])
@pytest.mark.parametrize("looks", [EVERY_ROUND, SOME_LOOKS, (3,)], ids=["every", "some", "one"])
@pytest.mark.parametrize("scatter", [0.002, 0.01])
def test_looks_do_not_call_a_change_at_the_threshold_the_same(sides: int, looks: Sequence[int], scatter: float) -> None:
    logarithms = samples("normal", sides, max(looks))
    logarithms = [scatter * logarithms[0] + log(1 + THRESHOLD), *(scatter * each for each in logarithms[1:])]
    ever = np.zeros(EXPERIMENTS, dtype=bool)
    for rounds in looks:
        low, high = limits(logarithms, rounds, look_error(rounds))
        ever |= np.maximum(-low, high) <= log(1 + THRESHOLD)
    assert ever.mean() <= AT_MOST


@pytest.mark.parametrize("first", [3, None], ids=["one alone", "in turn"])
def test_sides_that_grow_one_round_at_a_time_stay_within_the_error(first: int | None) -> None:
    sizes = [(first or total // 2, total - (first or total // 2)) for total in range(6, 19)]
    found = [
        any(p_value(ratio_of(old[:a], new[:b], paired=False)) <= ERROR for a, b in sizes)
        for old, new in np.exp(0.03 * np.swapaxes(samples("normal", 2, 16, seed=3), 0, 1)[:800])
    ]
    assert np.mean(found) <= AT_MOST


@pytest.mark.parametrize("paired", [True, False])
def test_the_simulated_limits_are_those_of_a_ratio(paired: bool) -> None:
    sides = samples("normal", 2, 12, seed=4)
    logarithms = [sides[1] - sides[0]] if paired else [sides[1], sides[0]]
    for rounds in (3, 5, 12):
        low, high = limits(logarithms, rounds, look_error(rounds))
        for index in range(10):
            old, new = (np.exp(side[index, :rounds]) for side in sides)
            found = interval(ratio_of(old, new, paired=paired))
            assert (log(found.low), log(found.high)) == pytest.approx((low[index], high[index]))


@pytest.mark.parametrize(
    ("paired", "rounds", "scatter", "least"),
    [
        (True, 7, 0.03, 0.94),
        (False, 7, 0.03, 0.98),
        (True, 9, 0.03, 0.98),
        (True, 3, 0.01, 0.70),
        (False, 3, 0.01, 0.95),
    ],
)
def test_ten_percent_are_found(paired: bool, rounds: int, scatter: float, least: float) -> None:
    found = [
        decide(ratio_of(old, 1.1 * new, paired=paired), THRESHOLD, ERROR, higher_is_better=False).word
        for old, new in np.exp(scatter * np.swapaxes(samples("normal", 2, rounds, seed=5), 0, 1)[:1000])
    ]
    assert found.count(SLOWER) / len(found) >= least


# Verdicts.


@pytest.mark.parametrize(
    ("estimate", "error", "family", "higher_is_better", "word"),
    [
        # With an error of 1% the interval is ±3.7%, with 0.5% ±1.9%.
        (1.10, 0.01, ERROR, False, SLOWER),
        (0.90, 0.01, ERROR, False, FASTER),
        (1.0005, 0.005, ERROR, False, SAME),
        (1.01, 0.01, ERROR, False, UNDECIDED),
        # More of a throughput is faster.
        (1.10, 0.01, ERROR, True, FASTER),
        (0.90, 0.01, ERROR, True, SLOWER),
        # Among many tests a change needs more evidence.
        (1.08, 0.015, ERROR, False, SLOWER),
        (1.08, 0.015, ERROR / 20, False, UNDECIDED),
    ],
)
def test_the_verdict_on_a_ratio(
    estimate: float, error: float, family: float, higher_is_better: bool, word: str
) -> None:
    assert verdict(estimate, error, family, higher_is_better=higher_is_better).word == word


def test_a_change_that_is_sure_and_too_small_to_matter_is_the_same() -> None:
    found = verdict(1.01, 0.001)
    assert found.word == SAME
    assert some(found.interval).low > 1


def test_the_threshold_is_symmetric() -> None:
    # The interval's end at 1.02 exactly, and at 1 / 1.02: just within, and just beyond.
    margin = T_OF_SEVEN * 0.001
    for direction in (1, -1):
        within, beyond = (exp(direction * (log(1.02) - share * margin)) for share in (1.05, 0.95))
        assert verdict(within, 0.001).word == SAME
        assert verdict(beyond, 0.001).word != SAME


def test_the_word_never_contradicts_the_interval_beside_it() -> None:
    generator = np.random.default_rng(2)
    for _ in range(500):
        found = verdict(exp(generator.normal(0, 0.04)), generator.exponential(0.006), ERROR / generator.integers(1, 90))
        low, high = some(found.interval)[1:]
        is_within = low >= 1 / (1 + THRESHOLD) and high <= 1 + THRESHOLD
        assert is_within == (found.word == SAME)
        if not is_within:
            assert found.word == (SLOWER if low > 1 else FASTER if high < 1 else UNDECIDED)


def test_what_stands_against_a_verdict() -> None:
    none = Contrast(1.0, None, 3, 0, INDEPENDENT, None, "no value")
    assert verdict_on(none, 0.02, ERROR, higher_is_better=False) == Verdict(INCOMPARABLE, reason="no value")
    found = verdict_on(Contrast(1.0, 2.0, 1, 3, INDEPENDENT, None), 0.02, ERROR, higher_is_better=False)
    assert (found.word, found.interval, found.more_rounds) == (UNDECIDED, None, 1)
    assert "the baseline has one round" in (found.reason or "")
    same = verdict_on(Contrast(1.0, 1.0, 1, 1, IDENTICAL, Ratio(1.0, ())), 0.02, ERROR, higher_is_better=False)
    assert (same.word, same.interval) == (SAME, (1, 1, 1))
    assert "measured nothing again" in (same.reason or "")


# Many ratios.


def test_the_adjustment_by_hand() -> None:
    # Benjamini and Hochberg: p · m / rank, made monotone from the largest down.
    assert adjusted_p_values([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted_p_values([]) == []


def test_the_error_of_a_family_by_hand() -> None:
    assert family_error([]) == family_error([0.04]) == family_error([0.4]) == ERROR
    assert family_error([0.01, 0.04, 0.03, 0.5]) == pytest.approx(ERROR / 4)  # the first alone is called
    assert family_error([0.01, 0.02, 0.03, 0.5]) == pytest.approx(3 * ERROR / 4)


def test_exactly_what_the_adjustment_calls_is_told_from_one() -> None:
    generator = np.random.default_rng(3)
    for _ in range(50):
        ratios = [ratio(float(exp(x)), 0.01) for x in generator.normal(0, 0.05, 30)]
        p_values = [p_value(each) for each in ratios]
        error = family_error(p_values)
        called = [adjusted <= ERROR for adjusted in adjusted_p_values(p_values)]
        assert called == [not each.low <= 1 <= each.high for each in (interval(each, error) for each in ratios)]


# Races.


def race(*contrasts: Contrast, error: float = ERROR) -> tuple[int, str]:
    place, found = verdict_on_race(contrasts, THRESHOLD, error, higher_is_better=False)
    return place, found.word


def test_the_best_wins_where_it_is_told_from_every_other() -> None:
    assert race(of(0.8), of(0.7)) == (0, FASTER)
    assert race(of(0.8), of(0.7, 0.5)) == (1, UNDECIDED)  # the third is noisy
    assert race(of(1.0, 0.001), of(0.7)) == (0, SAME)
    assert race(of(0.9), of(0.99, 0.001)) == (1, SAME)
    assert race(of(0.96), of(0.97)) == (1, UNDECIDED)  # what takes the most rounds


def test_the_p_value_of_a_race_is_the_largest() -> None:
    assert race_p_value([of(0.8), of(0.9)]) == verdicts.tested_p_value(of(0.9))
    assert race_p_value([of(0.8), Contrast(1.0, 2.0, 1, 3, INDEPENDENT, None)]) is None
    assert race_p_value([]) is None


@pytest.mark.parametrize("ways", [2, 3, 5])
def test_of_equal_ways_few_win_however_often_one_looks(ways: int) -> None:
    """A win at any of the looks, with whichever way has the lowest median of rounds by then."""
    won = np.zeros(EXPERIMENTS, dtype=bool)
    rounds_of = np.random.default_rng(6).normal(0, 0.03, (ways, EXPERIMENTS, max(SOME_LOOKS)))
    for rounds in SOME_LOOKS:
        for best in range(ways):
            bounds = [
                limits([rounds_of[best] - rounds_of[other]], rounds, look_error(rounds))
                for other in range(ways)
                if other != best
            ]
            won |= np.all([high < 0 for _, high in bounds], axis=0)
    assert won.mean() <= AT_MOST


# Slower by more than a threshold.


def test_each_decision_gets_its_share_of_the_error() -> None:
    assert slower_error(4) == pytest.approx(2 * 0.05 / 4)
    assert slower_error(1) == slower_error(2) == ERROR


@pytest.mark.parametrize(
    ("estimate", "higher_is_better", "word"),
    [
        (1.06, False, SLOW),
        (1.04, False, FAST),
        (0.90, False, FAST),
        # 5% slower is a throughput of 1 / 1.05 = 0.952 of what it was.
        (0.95, True, SLOW),
        (0.96, True, FAST),
        (1.10, True, FAST),
    ],
)
def test_the_threshold_decides_what_is_slow(estimate: float, higher_is_better: bool, word: str) -> None:
    assert decide_slower(ratio(estimate, 0.0), 0.05, ERROR, higher_is_better=higher_is_better)[0] == word


def test_noise_forbids_a_verdict() -> None:
    word, found = decide_slower(ratio(1.15, 0.05), 0.05, ERROR, higher_is_better=False)
    assert word == UNDECIDED
    assert some(found).low < 1.05 < some(found).high
    assert decide_slower(None, 0.05, ERROR, higher_is_better=False) == (UNDECIDED, None)


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("threshold", [0.02, 0.05])
def test_what_is_slow_is_slower_and_what_is_fast_is_not(threshold: float, higher_is_better: bool) -> None:
    generator = np.random.default_rng(7)
    words = set()
    for _ in range(3000):
        decisions, rounds = generator.integers(1, 12), int(generator.integers(2, 20))
        found = ratio(exp(generator.normal(0, 0.06)), generator.exponential(0.01), rounds)
        slow = decide_slower(found, threshold, slower_error(int(decisions)), higher_is_better=higher_is_better)[0]
        slower = decide(found, threshold, ERROR, higher_is_better=higher_is_better)
        words.add((slow, slower.word))
    assert {(SLOW, SLOWER), (FAST, SAME), (FAST, FASTER), (UNDECIDED, SLOWER), (UNDECIDED, UNDECIDED)} <= words
    assert words.isdisjoint({(SLOW, SAME), (SLOW, FASTER), (SLOW, UNDECIDED), (FAST, SLOWER)})


# How many more rounds.


def test_the_rounds_that_would_decide_by_hand() -> None:
    # A change of 5% (0.0488 of the logarithm) with an error of 3% from 4 rounds. Margins t · 0.03 · sqrt(4 / n):
    # n = 15: at 1% · (7/15)² = 0.218%, t = 3.750 · 0.01549 = 0.0581; n = 21: at 0.111%, t = 3.798 · 0.01309 = 0.0497;
    # n = 22: at 0.101%, t = 3.813 · 0.01279 = 0.0488, the first below.
    assert rounds_to_decide(ratio(1.05, 0.03, 4), THRESHOLD, ERROR) in (18, 19)
    assert rounds_to_decide(ratio(1.02, 0.5), THRESHOLD, ERROR) is None


def test_one_round_fewer_would_not_decide() -> None:
    for estimate, error, rounds in ((1.05, 0.03, 4), (1.0, 0.01, 3), (1.3, 0.1, 3), (1.005, 0.012, 7)):
        more = some(rounds_to_decide(ratio(estimate, error, rounds), THRESHOLD, ERROR))
        later = [ratio(estimate, error * sqrt(rounds / total), total) for total in range(rounds, rounds + more + 1)]
        words = [decide(each, THRESHOLD, ERROR, higher_is_better=False).word for each in later]
        assert words[:-1] == [UNDECIDED] * more
        assert words[-1] != UNDECIDED


def test_undecided_says_how_many_more_rounds_would_decide() -> None:
    found = decide(ratio(1.05, 0.03, 4), THRESHOLD, ERROR, higher_is_better=False)
    assert (found.word, found.more_rounds) == (UNDECIDED, rounds_to_decide(ratio(1.05, 0.03, 4), THRESHOLD, ERROR))
    assert f"about {found.more_rounds} more rounds" in (found.reason or "")
    hopeless = decide(ratio(1.02, 0.5), THRESHOLD, ERROR, higher_is_better=False)
    assert hopeless.more_rounds is None
    assert f"more than {MOST_MORE_ROUNDS} more rounds" in (hopeless.reason or "")


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(
    ("rounds", "effect", "scatter"), [(3, 0.10, 0.03), (5, 0.05, 0.02), (7, 0.0, 0.015), (3, 0.0, 0.01)]
)
def test_after_as_many_more_rounds_most_are_decided(paired: bool, rounds: int, effect: float, scatter: float) -> None:
    """What is told at `rounds`, and is then done: at least half of those undecided are decided."""

    def after(count: int, old: Any, new: Any) -> Verdict:
        found = ratio_of(old[:count], (1 + effect) * new[:count], paired=paired)
        return decide(found, THRESHOLD, ERROR, higher_is_better=False)

    decided = []
    for old, new in np.exp(scatter * np.swapaxes(samples("normal", 2, rounds + MOST_MORE_ROUNDS, seed=8), 0, 1)[:400]):
        more = after(rounds, old, new).more_rounds
        if more is not None:
            decided.append(after(rounds + more, old, new).word != UNDECIDED)
    assert len(decided) > 50
    assert np.mean(decided) >= 0.5

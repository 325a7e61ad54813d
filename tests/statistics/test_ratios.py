"""Ratios with their p-values, and what is built of them."""

from math import log, sqrt

import numpy as np
import pytest

from hfbench.statistics.bootstrap import draw_rounds, draws, medians_of_sorted, resample_medians
from hfbench.statistics.decidability import rounds_to_decide
from hfbench.statistics.multiplicity import adjusted_p_values
from hfbench.statistics.ratios import (
    Error,
    Ratio,
    RatioOfRounds,
    combined,
    geometric_mean,
    independent_ratio,
    paired_ratio,
)
from tests.statistics.experiments import experiments

EXPERIMENTS = 400
FEW_RESAMPLES = 1000


def some(ratio: Ratio | None) -> Ratio:
    assert ratio is not None
    return ratio


def test_the_p_value_by_hand() -> None:
    # Logarithms of the ratios 0, ln 2 and ln 4: the semi-deviation is sqrt(2 · 7/27) · ln 2 = 0.7201 ln 2 on both sides
    # (see test_intervals), so t = 1 / 0.7201 = 1.3887; with 2 degrees of freedom p = 1 - t / sqrt(2 + t²) = 0.2994.
    ratio = some(paired_ratio([[1.0]] * 3, [[1.0], [2.0], [4.0]], resamples=200_000))
    assert ratio.estimate == pytest.approx(2)
    assert ratio.p_value == pytest.approx(1 - 1.3887 / sqrt(2 + 1.3887**2), abs=0.003)


def test_welch_by_hand() -> None:
    # Squares 9 + 16 = 25; 25² / (9² / 2 + 16² / 4) = 625 / 104.5.
    error, degrees_of_freedom = combined([Error(3.0, 3), Error(4.0, 5)])
    assert error == 5.0
    assert degrees_of_freedom == pytest.approx(625 / 104.5)
    # With as many rounds again, each square is a half, over 5 and 9 degrees of freedom.
    error, degrees_of_freedom = combined([Error(3.0, 4), Error(4.0, 4)], more_rounds=4)
    assert error == pytest.approx(sqrt(12.5))
    assert degrees_of_freedom == pytest.approx(12.5**2 / (4.5**2 / 7 + 8**2 / 7))


def test_the_p_value_agrees_with_the_interval() -> None:
    pairs = zip(experiments("normal", 5, 1, 1, 100), experiments("normal", 5, 1, 2, 100), strict=True)
    excluded = 0
    for baseline, candidate in pairs:
        for compute in (independent_ratio, paired_ratio):
            ratio = some(compute(baseline.tolist(), (1.04 * candidate).tolist(), resamples=FEW_RESAMPLES))
            low, high = ratio.interval()[1:]
            assert (ratio.p_value < 0.05) == (not low <= 1 <= high)
            excluded += ratio.p_value < 0.05
    assert 20 < excluded < 180  # both cases were met


@pytest.mark.parametrize("compute", [independent_ratio, paired_ratio])
@pytest.mark.parametrize("kind", ["log-normal", "long-tailed"])
def test_without_a_change_few_p_values_are_small(compute: object, kind: str) -> None:
    sides = zip(experiments(kind, 7, 1, 3, EXPERIMENTS), experiments(kind, 7, 1, 4, EXPERIMENTS), strict=True)
    p_values = [
        some(compute(baseline.tolist(), candidate.tolist(), resamples=FEW_RESAMPLES)).p_value  # type: ignore[operator]
        for baseline, candidate in sides
    ]
    assert 0.005 < np.mean(np.array(p_values) < 0.05) <= 0.06
    assert np.mean(np.array(p_values) < 0.01) <= 0.02


def test_a_ratio_is_of_the_middle_three_fifths_of_the_rounds() -> None:
    # Of five rounds the lowest and the highest are left out: (2 + 3 + 4) / 3 over 1; of four, the median (2 + 3) / 2.
    assert some(independent_ratio([[1.0]] * 5, [[4.0], [0.1], [3.0], [90.0], [2.0]])).estimate == pytest.approx(3)
    assert some(independent_ratio([[1.0]] * 4, [[4.0], [0.1], [3.0], [2.0]])).estimate == pytest.approx(2.5)
    # Of paired rounds, the mean of the middle logarithms.
    paired = some(paired_ratio([[1.0]] * 5, [[1.0], [2.0], [4.0], [8.0], [1000.0]]))
    assert paired.estimate == pytest.approx((2 * 4 * 8) ** (1 / 3))


@pytest.mark.parametrize("compute", [independent_ratio, paired_ratio])
def test_seven_rounds_tell_ten_percent_where_rounds_scatter_by_three(compute: object) -> None:
    generator = np.random.default_rng(1)
    sides = np.exp(generator.normal(0, 0.03, (2, EXPERIMENTS, 7, 1)))
    found = [
        some(compute(old.tolist(), (1.1 * new).tolist(), resamples=FEW_RESAMPLES))  # type: ignore[operator]
        for old, new in zip(*sides, strict=True)
    ]
    assert np.mean([ratio.p_value < 0.05 and ratio.estimate > 1 for ratio in found]) >= 0.98


def test_swapping_the_sides_inverts_the_ratio() -> None:
    baseline, candidate = (next(experiments("normal", 7, 1, seed, 1)).tolist() for seed in (5, 6))
    forth, back = some(independent_ratio(baseline, candidate)), some(independent_ratio(candidate, baseline))
    assert back.estimate == pytest.approx(1 / forth.estimate)
    assert back.interval().low == pytest.approx(1 / forth.interval().high, rel=0.01)
    assert back.p_value == pytest.approx(forth.p_value, rel=0.1)


def test_a_change_without_any_spread_is_certain_and_no_change_is_none() -> None:
    assert some(independent_ratio([[2.0]] * 3, [[3.0]] * 3)).p_value == 0.0
    assert some(paired_ratio([[2.0]] * 3, [[2.0]] * 3)).p_value == 1.0


def test_one_round_on_a_side_gives_no_ratio() -> None:
    assert independent_ratio([[1.0, 2.0]], [[1.0], [2.0]]) is None
    assert paired_ratio([[1.0]], [[1.0]]) is None


def test_the_shared_draws_are_those_of_the_bootstrap() -> None:
    rounds = [[3.0, 1.0, 2.0], [5.0], [9.0, 7.0]]
    shared = draws((3, 1, 2), 500, seed=1)
    own = resample_medians(rounds, draw_rounds(3, 500, np.random.default_rng(1)), np.random.default_rng((1, 0)))
    assert np.array_equal(shared.places.medians(np.array([1.0, 2, 3, 5, 7, 9])), own)
    assert medians_of_sorted(np.array([1.0, 2, 3, 5, 7, 9]), (3, 1, 2)).tolist() == [2, 5, 8]


def test_the_rounds_that_would_decide_by_hand() -> None:
    # A change of 5% (0.0488 of the logarithm) with an error of 3% from 4 rounds. Margins t · 0.03 · sqrt(4 / n):
    # n = 8: 2.365 · 0.0212 = 0.0502; n = 9: 2.306 · 0.0200 = 0.0461, the first below 0.0488.
    ratio = Ratio(1.05, (Error(0.03, 4),), (Error(0.03, 4),))
    assert rounds_to_decide(ratio, log(1.02), confidence=0.95, significance=0.05) == 5
    # At half the significance: n = 10: 2.685 · 0.0190 = 0.0509; n = 11: 2.634 · 0.0181 = 0.0477.
    assert rounds_to_decide(ratio, log(1.02), confidence=0.95, significance=0.025) == 7


def test_no_change_is_decided_by_an_interval_within_the_tolerance() -> None:
    # t · 0.03 · sqrt(4 / n) <= 0.0198: n = 12: 2.201 · 0.01732 = 0.0381; n = 37: 2.028 · 0.00986 = 0.0200; n = 38.
    ratio = Ratio(1.0, (Error(0.03, 4),), (Error(0.03, 4),))
    assert rounds_to_decide(ratio, log(1.02), confidence=0.95, significance=0.05) == 34
    assert rounds_to_decide(ratio, log(1.001), confidence=0.95, significance=0.05) is None


def test_the_adjustment_by_hand() -> None:
    # Benjamini and Hochberg: p · m / rank, made monotone from the largest down.
    assert adjusted_p_values([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted_p_values([]) == []


def of_rounds(estimate: float, baseline: list[float], candidate: list[float]) -> RatioOfRounds:
    return RatioOfRounds(estimate, dict(enumerate(baseline)), dict(enumerate(candidate)))


def test_the_geometric_mean_by_hand() -> None:
    # sqrt(2 · 8) = 4. The rounds' means over pairs are 1, 1, 1 and 4, 4, 16: 7 of 27 resamples
    # of 4, 4, 16 have the median 16, so that the error above is sqrt(2 · 7/27) · ln 4, and there is none below.
    ratios = [of_rounds(2, [1, 1, 1], [2, 2, 8]), of_rounds(8, [5, 5, 5], [40, 40, 160])]
    mean = some(geometric_mean(ratios, paired=True))
    assert mean.estimate == pytest.approx(4)
    assert mean.below[0].standard_error == 0
    assert mean.above[0].standard_error == pytest.approx(sqrt(14 / 27) * log(4), rel=0.05)


def test_the_mean_of_pairs_that_share_their_rounds_noise_is_no_surer_than_one_pair() -> None:
    noise = np.exp(np.random.default_rng(1).normal(0, 0.05, 7)).tolist()
    one = of_rounds(1, [1.0] * 7, noise)
    single, many = some(geometric_mean([one], paired=True)), some(geometric_mean([one] * 20, paired=True))
    assert many.above[0].standard_error == pytest.approx(single.above[0].standard_error)


def test_the_mean_of_pairs_of_independent_noise_is_surer_and_covers_the_truth() -> None:
    covered, generator = 0, np.random.default_rng(2)
    for _ in range(200):
        sides = np.exp(generator.normal(0, 0.03, (2, 10, 7)))
        pairs = [
            of_rounds(float(np.median(new) / np.median(old)), old.tolist(), new.tolist())
            for old, new in zip(*sides, strict=True)
        ]
        low, high = some(geometric_mean(pairs, paired=False)).interval()[1:]
        covered += low <= 1 <= high
        assert log(high / low) < 0.12  # one pair alone: about 0.13
    assert covered >= 180


def test_a_pair_that_lacks_a_round_does_not_shift_the_mean() -> None:
    whole = of_rounds(1, [1.0, 1.01, 0.99], [1.0, 1.01, 0.99])
    part = RatioOfRounds(1, {0: 100.0, 1: 101.0}, {0: 100.0, 1: 101.0})
    mean = some(geometric_mean([whole, part], paired=True))
    assert list(mean.interval()) == pytest.approx([1, 1, 1])


def test_the_mean_needs_ratios_and_rounds() -> None:
    assert geometric_mean([], paired=True) is None
    assert geometric_mean([of_rounds(2, [1.0], [2.0])], paired=True) is None
    assert some(geometric_mean([of_rounds(2, [1, 1], [2, 2])], paired=False)).estimate == pytest.approx(2)

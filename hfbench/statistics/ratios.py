"""The geometric mean of many ratios, with errors that count what the pairs of one round share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from hfbench.statistics.bootstrap import (
    CONFIDENCE,
    FEWEST_ROUNDS,
    RESAMPLES,
    Floats,
    Interval,
    Rounds,
    StandardErrors,
    draws,
    medians_of_sorted,
    sorted_values,
    standard_errors,
    student,
    trimmed_means,
)


class Error(NamedTuple):
    """A standard error of a logarithm, and the number of rounds that it was estimated from."""

    standard_error: float
    rounds: int


@dataclass(frozen=True)
class Ratio:
    """A ratio with the errors by which its logarithm may be lower and higher: one for each independent sample.

    Two samples are two sides whose rounds are independent; one is the rounds of a paired comparison.
    """

    estimate: float
    below: tuple[Error, ...]
    above: tuple[Error, ...]

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the ratio between its confidence limits."""
        low, high = margin(self.below, confidence), margin(self.above, confidence)
        return Interval(self.estimate, self.estimate * exp(-low), self.estimate * exp(high))

    @property
    def p_value(self) -> float:
        """How often rounds without any change would give a ratio at least so far from 1: Student's t, two-sided.

        The error is that on the side of 1. Without any spread between rounds it is 0 for a ratio other than 1.
        """
        error, degrees_of_freedom = combined(self.below if self.estimate > 1 else self.above)
        if self.estimate == 1:
            return 1.0
        return float(2 * stdtr(degrees_of_freedom, -abs(log(self.estimate)) / error)) if error else 0.0


def independent_ratio(
    baseline: Rounds, candidate: Rounds, *, resamples: int = RESAMPLES, seed: int = 0
) -> Ratio | None:
    """Return the candidate's centre of rounds over the baseline's; None where a side has under two rounds.

    The rounds of the two sides are taken as independent: right for any two results, and wide where both follow the same
    drift of the machine (see `paired_ratio`). Raises `ValueError` where a round is empty or a median not positive.
    """
    if min(len(baseline), len(candidate)) < FEWEST_ROUNDS:
        return None
    old, new = (_Sample(rounds, resamples, seed, side) for side, rounds in enumerate((baseline, candidate)))
    old_centre, new_centre = _centre(old.medians), _centre(new.medians)
    if min(old_centre, new_centre) <= 0:
        raise ValueError(f"a ratio needs two positive medians, not {new_centre} over {old_centre}")
    old_errors, new_errors = old.errors(), new.errors()
    counts = (len(candidate), len(baseline))
    # The ratio may be lower where the candidate may be lower or the baseline higher, and the other way round. The error
    # of a logarithm is the relative error: the delta method.
    below = (new_errors.below / new_centre, old_errors.above / old_centre)
    above = (new_errors.above / new_centre, old_errors.below / old_centre)
    return Ratio(new_centre / old_centre, tuple(map(Error, below, counts)), tuple(map(Error, above, counts)))


def paired_ratio(baseline: Rounds, candidate: Rounds, *, resamples: int = RESAMPLES, seed: int = 0) -> Ratio | None:
    """Return the centre over rounds of candidate over baseline; None for fewer than two rounds.

    Round i of the one ran next to round i of the other, so that the machine's drift from round to round is in both and
    leaves the ratio. Raises `ValueError` where the sides have different numbers of rounds, a round is empty or a value
    is not positive.
    """
    count = len(baseline)
    if count != len(candidate):
        raise ValueError(f"{count} rounds cannot be paired with {len(candidate)}")
    if count < FEWEST_ROUNDS:
        return None
    old, new = (_Sample(rounds, resamples, seed, side) for side, rounds in enumerate((baseline, candidate)))
    if min(old.ordered.min(), new.ordered.min()) <= 0:
        raise ValueError("ratios need positive values")
    logarithms = np.log(new.medians / old.medians)
    errors = standard_errors(logarithms, old.draws.rounds, np.log(new.resampled() / old.resampled()), trimmed_means)
    estimate = exp(_centre(logarithms))
    return Ratio(estimate, (Error(errors.below, count),), (Error(errors.above, count),))


def combined(errors: Sequence[Error], more_rounds: int = 0) -> tuple[float, float]:
    """Return the standard error of a difference of independent samples, and its degrees of freedom.

    Squares of standard errors add, and the degrees of freedom are those of B. L. Welch, Biometrika 34 (1947) 28; for
    one sample, one less than its rounds. With `more_rounds` in each sample, each square is smaller in proportion.
    """
    squares = [error.standard_error**2 * error.rounds / (error.rounds + more_rounds) for error in errors]
    total = sum(squares)
    if total == 0:
        return 0.0, inf
    weights = [square**2 / (error.rounds + more_rounds - 1) for square, error in zip(squares, errors, strict=True)]
    return total**0.5, total**2 / sum(weights)


def margin(errors: Sequence[Error], confidence: float, more_rounds: int = 0) -> float:
    """Return the distance from the logarithm of a ratio to its confidence limit; see `combined`."""
    error, degrees_of_freedom = combined(errors, more_rounds)
    return student(confidence, degrees_of_freedom) * error if error else 0.0


class _Sample:
    """The rounds of one side, with the draws of the bootstrap. Raises `ValueError` for a round without values."""

    def __init__(self, rounds: Rounds, resamples: int, seed: int, side: int) -> None:
        sizes = tuple(map(len, rounds))
        if not all(sizes):
            raise ValueError("a round without values has no median")
        self.draws = draws(sizes, resamples, seed, side)
        self.ordered = sorted_values(rounds)
        self.medians = medians_of_sorted(self.ordered, sizes)

    def resampled(self) -> Floats:
        return self.draws.places.medians(self.ordered)

    def errors(self) -> StandardErrors:
        return standard_errors(self.medians, self.draws.rounds, self.resampled(), trimmed_means)


def _centre(values: Floats) -> float:
    return float(trimmed_means(values[None])[0])


RoundMedians = Mapping[int, float]  # the median of each round, by its number


@dataclass(frozen=True)
class RatioOfRounds:
    """A ratio of candidate over baseline, and the medians of the rounds that it is of."""

    estimate: float
    baseline: RoundMedians
    candidate: RoundMedians


def geometric_mean(ratios: Sequence[RatioOfRounds], *, paired: bool) -> Ratio | None:
    """Return the geometric mean of the estimates, with its errors; None for no ratios or where a side has one round.

    The mean of many ratios is the geometric one: it does not depend on which side is the baseline. Source: P. J.
    Fleming and J. J. Wallace, How not to lie with statistics, CACM 29 (1986) 218.

    The errors of the pairs are not independent: round 3 of all of them met the same machine. So the unit is again the
    round. Each side is reduced to the geometric mean over pairs of each round, and the errors are those of the ratio of
    the two. Pairs that lack a round do not shift it: each is taken relative to its own baseline.
    """
    if not ratios:
        return None
    baseline, candidate = ([_over_pairs(ratios, side)] for side in ("baseline", "candidate"))
    rounds = [[[value] for _, value in sorted(side[0].items())] for side in (baseline, candidate)]
    is_paired = paired and baseline[0].keys() == candidate[0].keys()
    ratio = (paired_ratio if is_paired else independent_ratio)(*rounds)
    if ratio is None:
        return None
    return Ratio(exp(float(np.mean([log(each.estimate) for each in ratios]))), ratio.below, ratio.above)


def _over_pairs(ratios: Sequence[RatioOfRounds], side: str) -> dict[int, float]:
    """Return the geometric mean of each round over the pairs that have it, each relative to its baseline."""
    logarithms: dict[int, list[float]] = {}
    for ratio in ratios:
        level = float(np.median(list(ratio.baseline.values())))
        for number, value in getattr(ratio, side).items():
            logarithms.setdefault(number, []).append(log(value / level))
    return {number: exp(float(np.mean(values))) for number, values in logarithms.items()}

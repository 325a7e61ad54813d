"""Intervals of a median, and of the ratio of two medians, that count the noise between rounds.

A round is one process, and the unit: iterations of one process share its memory layout and luck, so twenty of them tell
less than twenty processes would. One round therefore has no interval.

**The estimate is the median of the rounds' medians**, what a typical iteration of a typical process takes. It can be
checked by hand from the medians that stand in the tables, each process weighs the same however many iterations its time
allowed, and one disturbed process out of seven hardly moves it. The mean of the medians would have an interval a fifth
narrower on clean data, and is moved by a seventh of whatever disturbs one process. In the median of all iterations
together slow processes, which took fewer iterations, would count for less.

**The interval is estimate · exp(± t · SE / estimate)**: standard errors from the hierarchical bootstrap, the quantile
of Student's t with one degree of freedom less than there are rounds, on a logarithmic scale because what is timed
varies in proportion and cannot be negative. Percentiles of the bootstrap distribution would be too narrow: they end at
the lowest and highest of the rounds' medians, and three of those enclose the true one in 75% only. Source for t with a
bootstrap standard error: T. C. Hesterberg, What Teachers Should Know about the Bootstrap, The American Statistician 69
(2015) 371; for the logarithm: the delta method.
"""

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from hfbench.statistics.bootstrap import (
    StandardErrors,
    draw_rounds,
    resample_medians,
    round_medians,
    standard_errors,
)

CONFIDENCE = 0.95
# The standard error of 2,000 resamples is itself off by 1 / sqrt(2 · 2000) = 1.6%, which no decision hangs on.
RESAMPLES = 2000
FEWEST_ROUNDS = 2

Rounds = Sequence[Sequence[float]]


class Interval(NamedTuple):
    """An estimate between its confidence limits, in the unit of the values or, for a ratio, in none."""

    estimate: float
    low: float
    high: float


def median_interval(
    rounds: Rounds, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Return the median of the rounds' medians with its interval; None for fewer than two rounds.

    `rounds` holds the values of each round, at least one each, as many as there are. Raises `ValueError` where a round
    is empty. The same values, confidence, resamples and seed give the same interval.
    """
    if len(rounds) < FEWEST_ROUNDS:
        return None
    estimate, errors = _median_and_errors(rounds, resamples, np.random.default_rng(seed))
    quantile = _student(confidence, len(rounds) - 1)
    return _around(estimate, quantile * errors.below, quantile * errors.above)


def ratio_interval(
    baseline: Rounds,
    candidate: Rounds,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Return the candidate's median over the baseline's, with its interval; None where a side has under two rounds.

    The rounds of the two sides are taken as independent: right for any two results, and wide where both follow the same
    drift of the machine (see `paired_ratio_interval`). Relative standard errors of the two sides add as squares, and
    the degrees of freedom are those of B. L. Welch, Biometrika 34 (1947) 28. Raises `ValueError` where a median is not
    positive.
    """
    if min(len(baseline), len(candidate)) < FEWEST_ROUNDS:
        return None
    generator = np.random.default_rng(seed)
    old, old_errors = _median_and_errors(baseline, resamples, generator)
    new, new_errors = _median_and_errors(candidate, resamples, generator)
    if min(old, new) <= 0:
        raise ValueError(f"a ratio needs two positive medians, not {new} over {old}")
    # The ratio may be lower where the candidate may be lower or the baseline higher, and the other way round.
    counts = (len(candidate), len(baseline))
    below = _welch(confidence, (new_errors.below / new, old_errors.above / old), counts)
    above = _welch(confidence, (new_errors.above / new, old_errors.below / old), counts)
    return Interval(new / old, new / old * exp(-below), new / old * exp(above))


def paired_ratio_interval(
    baseline: Rounds,
    candidate: Rounds,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Return the median over rounds of candidate over baseline, with its interval; None for fewer than two rounds.

    Round i of the one ran next to round i of the other, so that the machine's drift from round to round is in both and
    leaves the ratio. Raises `ValueError` where the sides have different numbers of rounds or a value is not positive.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} rounds cannot be paired with {len(candidate)}")
    if len(baseline) < FEWEST_ROUNDS:
        return None
    generator = np.random.default_rng(seed)
    drawn = draw_rounds(len(baseline), resamples, generator)
    medians = [round_medians(side) for side in (baseline, candidate)]
    resampled = [resample_medians(side, drawn, generator) for side in (baseline, candidate)]
    if min(float(values.min()) for values in (*medians, *resampled)) <= 0:
        raise ValueError("ratios need positive values")
    logarithms = np.log(medians[1] / medians[0])
    errors = standard_errors(logarithms, drawn, np.log(resampled[1] / resampled[0]))
    quantile = _student(confidence, len(baseline) - 1)
    estimate = float(np.median(logarithms))
    return Interval(exp(estimate), exp(estimate - quantile * errors.below), exp(estimate + quantile * errors.above))


def _median_and_errors(rounds: Rounds, resamples: int, generator: np.random.Generator) -> tuple[float, StandardErrors]:
    centres = round_medians(rounds)
    drawn = draw_rounds(len(rounds), resamples, generator)
    errors = standard_errors(centres, drawn, resample_medians(rounds, drawn, generator))
    return float(np.median(centres)), errors


def _around(estimate: float, below: float, above: float) -> Interval:
    """Lay the margins around the estimate: in proportion to it, or on a linear scale where it is not positive."""
    if estimate <= 0:
        return Interval(estimate, estimate - below, estimate + above)
    return Interval(estimate, estimate * exp(-below / estimate), estimate * exp(above / estimate))


def _student(confidence: float, degrees_of_freedom: float) -> float:
    return float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))


def _welch(confidence: float, errors: tuple[float, float], rounds: tuple[int, int]) -> float:
    """Return the margin of a difference whose two sides have these standard errors and numbers of rounds."""
    squares = [error**2 for error in errors]
    total = sum(squares)
    if total == 0:
        return 0.0
    degrees_of_freedom = total**2 / sum(square**2 / (count - 1) for square, count in zip(squares, rounds, strict=True))
    return _student(confidence, degrees_of_freedom) * float(total**0.5)

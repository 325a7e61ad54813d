"""Intervals of a median, and of a ratio of rounds, that count the noise between rounds.

A round is one process, and the unit: iterations of one process share its memory layout and luck, so twenty of them tell
less than twenty processes would. One round therefore has no interval.

**The estimate is the median of the rounds' medians**, what a typical iteration of a typical process takes. It can be
checked by hand from the medians that stand in the tables, each process weighs the same however many iterations its time
allowed, and one disturbed process out of seven hardly moves it. The mean of the medians would have an interval a fifth
narrower on clean data, and is moved by a seventh of whatever disturbs one process. In the median of all iterations
together slow processes, which took fewer iterations, would count for less. A ratio has to tell a change from noise and
takes the mean of all rounds' medians but the lowest and the highest instead (`hfbench.statistics.ratios`), with an
interval that one can look at again and again (`hfbench.statistics.verdicts`).

**The interval is estimate · exp(± t · SE / estimate)**: standard errors from the hierarchical bootstrap, the quantile
of Student's t with one degree of freedom less than there are rounds, on a logarithmic scale because what is timed
varies in proportion and cannot be negative. Percentiles of the bootstrap distribution would be too narrow: they end at
the lowest and highest of the rounds' medians, and three of those enclose the true one in 75% only. Source for t with a
bootstrap standard error: T. C. Hesterberg, What Teachers Should Know about the Bootstrap, The American Statistician 69
(2015) 371; for the logarithm: the delta method.
"""

from collections.abc import Sequence
from math import exp

import numpy as np

from hfbench.statistics.bootstrap import (
    CONFIDENCE,
    FEWEST_ROUNDS,
    RESAMPLES,
    Interval,
    Rounds,
    draw_places,
    draw_rounds,
    round_medians,
    sorted_values,
    standard_errors,
    student,
)
from hfbench.statistics.ratios import independent_ratio, paired_ratio
from hfbench.statistics.verdicts import interval


def median_intervals(
    samples: Sequence[Rounds], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval | None]:
    """Return what `hfbench.statistics.intervals.median_interval` does for each sample, to the last bit.

    Raises `ValueError` where a round is empty.
    """
    centres = [round_medians(rounds) for rounds in samples]
    intervals: list[Interval | None] = [None] * len(samples)
    for sizes, members in _by_sizes(samples).items():
        if len(sizes) < FEWEST_ROUNDS:
            continue
        generator = np.random.default_rng(seed)
        drawn = draw_rounds(len(sizes), resamples, generator)
        places = draw_places(sizes, drawn, generator)
        quantile = student(confidence, len(sizes) - 1)
        for index in members:
            errors = standard_errors(centres[index], drawn, places.medians(sorted_values(samples[index])))
            estimate = float(np.median(centres[index]))
            intervals[index] = _around(estimate, quantile * errors.below, quantile * errors.above)
    return intervals


def _by_sizes(samples: Sequence[Rounds]) -> dict[tuple[int, ...], list[int]]:
    """Return, for the sizes of rounds that samples have, the indices of those samples."""
    indices: dict[tuple[int, ...], list[int]] = {}
    for index, rounds in enumerate(samples):
        indices.setdefault(tuple(map(len, rounds)), []).append(index)
    return indices


def _around(estimate: float, below: float, above: float) -> Interval:
    """Lay the margins around the estimate: in proportion to it, or on a linear scale where it is not positive."""
    if estimate <= 0:
        return Interval(estimate, estimate - below, estimate + above)
    return Interval(estimate, estimate * exp(-below / estimate), estimate * exp(above / estimate))


__all__ = ["CONFIDENCE", "Interval", "Rounds", "median_interval", "paired_ratio_interval", "ratio_interval"]


def median_interval(
    rounds: Rounds, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Return the median of the rounds' medians with its interval; None for fewer than two rounds.

    `rounds` holds the values of each round, at least one each, as many as there are. Raises `ValueError` where a round
    is empty. The same values, confidence, resamples and seed give the same interval.
    """
    return median_intervals([rounds], confidence=confidence, resamples=resamples, seed=seed)[0]


def ratio_interval(baseline: Rounds, candidate: Rounds, *, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the candidate's rounds over the baseline's, with their interval; None where a side has under two rounds.

    See `hfbench.statistics.ratios.independent_ratio`, also for the errors that it raises; the interval is that of
    `hfbench.statistics.verdicts`, so that one can look at it after any number of rounds.
    """
    ratio = independent_ratio(baseline, candidate)
    return interval(ratio, 1 - confidence) if ratio else None


def paired_ratio_interval(baseline: Rounds, candidate: Rounds, *, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the centre of candidate over baseline, round by round, with its interval; None for fewer than two rounds.

    See `hfbench.statistics.ratios.paired_ratio`, also for the errors that it raises, and `ratio_interval`.
    """
    ratio = paired_ratio(baseline, candidate)
    return interval(ratio, 1 - confidence) if ratio else None

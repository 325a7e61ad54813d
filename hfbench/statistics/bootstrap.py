"""Intervals of a median that count the noise between rounds, by the hierarchical bootstrap.

A round is one process, and the unit: iterations of one process share its memory layout and luck, so twenty of them tell
less than twenty processes would. One round therefore has no interval.

**The estimate is the median of the rounds' medians**, what a typical iteration of a typical process takes. It can be
checked by hand from the medians that stand in the tables, each process weighs the same however many iterations its time
allowed, and one disturbed process out of seven hardly moves it. The mean of the medians would have an interval a fifth
narrower on clean data, and is moved by a seventh of whatever disturbs one process. In the median of all iterations
together slow processes, which took fewer iterations, would count for less. A ratio has to tell a change from noise and
takes the mean of all rounds' medians but the lowest and the highest instead (`hfbench.statistics.ratios`), with an
interval that one can look at again and again (`hfbench.statistics.verdicts`).

**The interval is estimate · exp(± t · SE / estimate)**: standard errors from the hierarchical bootstrap (rounds drawn
with replacement, and in each drawn round its iterations), the quantile of Student's t with one degree of freedom less
than there are rounds, on a logarithmic scale because what is timed varies in proportion and cannot be negative.
Percentiles of the bootstrap distribution would be too narrow: they end at the lowest and highest of the rounds'
medians, and three of those enclose the true one in 75% only. Source for t with a bootstrap standard error: T. C.
Hesterberg, What Teachers Should Know about the Bootstrap, The American Statistician 69 (2015) 371; for the logarithm:
the delta method.
"""

from collections.abc import Sequence
from math import exp
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

CONFIDENCE = 0.95
# The standard error of 2,000 resamples is itself off by 1 / sqrt(2 · 2000) = 1.6%, which no decision hangs on.
RESAMPLES = 2000
FEWEST_ROUNDS = 2

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Rounds = Sequence[Sequence[float]]


class Interval(NamedTuple):
    """An estimate between its confidence limits, in the unit of the values or, for a ratio, in none."""

    estimate: float
    low: float
    high: float


def student(confidence: float, degrees_of_freedom: float) -> float:
    """Return the quantile of Student's t that bounds this share of the distribution on both sides."""
    return float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))


def median_intervals(
    samples: Sequence[Rounds], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval | None]:
    """Return the median of the rounds' medians of each sample with its interval; None for fewer than two rounds.

    A sample holds the values of each round, at least one each, as many as there are. Raises `ValueError` where a round
    is empty. The same values, confidence, resamples and seed give the same interval, whatever other samples there are:
    those whose rounds have the same sizes share their draws, which take most of the time.
    """
    centres = [round_medians(rounds) for rounds in samples]
    by_sizes: dict[tuple[int, ...], list[int]] = {}
    for index, rounds in enumerate(samples):
        by_sizes.setdefault(tuple(map(len, rounds)), []).append(index)
    intervals: list[Interval | None] = [None] * len(samples)
    for sizes, members in by_sizes.items():
        if len(sizes) < FEWEST_ROUNDS:
            continue
        generator = np.random.default_rng(seed)
        drawn = generator.integers(0, len(sizes), (resamples, len(sizes)))  # which round stands at each place
        places = draw_places(sizes, drawn, generator)
        quantile = student(confidence, len(sizes) - 1)
        for index in members:
            below, above = standard_errors(centres[index], drawn, sorted_values(samples[index])[places].mean(axis=0))
            intervals[index] = _around(float(np.median(centres[index])), quantile * below, quantile * above)
    return intervals


KNOWS_NOTHING = 500.0  # of a logarithm: wider intervals would leave the floating-point numbers


def _around(estimate: float, below: float, above: float) -> Interval:
    """Lay the margins around the estimate: in proportion to it, or on a linear scale where it is not positive."""
    if estimate <= 0:
        return Interval(estimate, estimate - below, estimate + above)
    below, above = (min(margin / estimate, KNOWS_NOTHING) for margin in (below, above))
    return Interval(estimate, estimate * exp(-below), estimate * exp(above))


def round_medians(rounds: Rounds) -> Floats:
    """Return the median of each round. Raises `ValueError` where a round has no values."""
    if not all(len(values) for values in rounds):
        raise ValueError("a round without values has no median")
    return np.array([median(values) for values in rounds])  # of few values, a tenth of the time that numpy takes


def sorted_values(rounds: Rounds) -> Floats:
    """Return the values of all rounds, one round after the other, each sorted."""
    return np.concatenate([np.sort(np.asarray(values, dtype=np.float64)) for values in rounds])


def draw_places(sizes: Sequence[int], drawn: Integers, generator: np.random.Generator) -> Integers:
    """Return where the median of a resample of each drawn round stands, of rounds with so many values.

    It is the mean of the values at two places, which count through the sorted values of all rounds, one round after the
    other: an array of the shape (2, *`drawn.shape`). It depends on the sizes alone, so that rounds of the same sizes
    can share it.

    No iteration is drawn one by one. The k-th smallest of m values drawn with replacement from x is x at the k-th
    smallest of m uniform positions; that position is beta(k, m + 1 - k) distributed, and of two neighbours the lower is
    the upper one times the largest of k uniform numbers. So the distribution is that of drawing each, in a tenth of the
    time. Source: H. A. David and H. N. Nagaraja, Order Statistics, 3rd ed. (2003), sections 2.1 and 2.5.
    """
    counts = np.array(sizes)
    first, size = (np.cumsum(counts) - counts)[drawn], counts[drawn]
    rank = size // 2 + 1
    upper = generator.beta(rank, size + 1 - rank)
    lower = upper * generator.random(drawn.shape) ** (1 / np.maximum(size // 2, 1))
    lower = np.where(size % 2 == 1, upper, lower)
    places: Integers = first + np.minimum((np.stack((lower, upper)) * size).astype(np.int64), size - 1)
    return places


def standard_errors(values: Floats, drawn: Integers, resampled: Floats) -> tuple[float, float]:
    """Return how far the median of `values`, one a round, strays below and above itself from resample to resample.

    `resampled`, of the shape of `drawn`, holds the same value of each drawn round after its iterations were resampled.

    The values of rounds already differ by the noise of their iterations, and resampling those adds it a second time;
    so they are first drawn together until the total is right: by sqrt(1 - w / s²), with w the variance that
    resampling iterations adds and s² the variance of the values. Source: A. C. Davison and D. V. Hinkley, Bootstrap
    Methods and their Application (1997), section 3.8; E. S.-W. Ng, R. Grieve and J. R. Carpenter, Stata Journal 13
    (2013) 141.

    One disturbed round of seven moves the resampled median to one side only. So each side has a semi-deviation,
    sqrt(2 E[d²; d on this side]), which for a symmetric distribution is the standard error on both.
    """
    middle, expected = np.median(values), values[drawn]
    within = resampled - expected
    variance = float(np.var(values, ddof=1))
    kept = max(0.0, 1 - float(np.mean(within**2)) / variance) ** 0.5 if variance > 0 else 0.0
    differences = _medians_of_rows(kept * (expected - middle) + within)
    below, above = (float(np.sqrt(2 * np.mean(side(differences, 0) ** 2))) for side in (np.minimum, np.maximum))
    return below, above


def _medians_of_rows(values: Floats) -> Floats:
    """Return what `np.median(values, axis=1)` does; for short rows, sorting takes a third of the time."""
    ordered, count = np.sort(values, axis=1), values.shape[1]
    medians: Floats = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return medians

"""Where a series of results, each known to within its noise, changes its level, and where a rising curve turns.

**The method** for change points is optimal partitioning: of all ways to cut the series into segments of one level each,
the one with the least sum of squared residuals, each over its variance, plus a penalty for each cut; found exactly by
dynamic programming. Source: B. Jackson et al., An algorithm for optimal partitioning of data on an interval, IEEE
Signal Processing Letters 12 (2005) 105, equation 3; PELT (R. Killick, P. Fearnhead and I. A. Eckley, JASA 107 (2012)
1590) prunes the same recursion, which a hundred commits do not need. It is written out here because the published
implementations (ruptures, changepoint) take no variance of each point, and ours are known: a commit measured in seven
rounds tells more than one measured in three. Methods that learn the noise by permuting the series (E-divisive means)
have too few orders to permute in ten commits.

**The penalty** of a cut is the square of Student's t at 1 - α / 2(n - 1): a cut must be significant at α after
Bonferroni's correction for the n - 1 places where it could be. Source: K. J. Worsley, On the likelihood ratio test
for a shift in location of normal populations, JASA 74 (1979) 365. For 30 points it is about that of the modified BIC
(N. R. Zhang and D. O. Siegmund, Biometrics 63 (2007) 22), 3 ln n = 10.2; for three the latter would let noise through.

**The noise** of a point is that between its rounds, and what the machine changes from one commit to another, measured
days apart. The first is pooled over all points, since three rounds hardly know their own noise; a point that is noisier
keeps its own. The second, τ², is what the differences between neighbours have beyond the first: the median of their
squares, which the few that hold a step do not move (P. Fryzlewicz, Annals of Statistics 42 (2014) 2243, takes their
median absolute deviation). Fewer than eight points do not tell it from steps, and τ is taken as zero.

**The knee** of a rising curve is the load beyond which waiting grows faster than the load does. Source: V. Satopaa, J.
Albrecht, D. Irwin and B. Raghavan, Finding a "Kneedle" in a Haystack: Detecting Knee Points in System Behavior, ICDCS
Workshops (2011) 166. Both axes are scaled to 0 … 1, and the knee of a convex curve is where it lies farthest below the
diagonal. Theirs smooths by a spline first, which the handful of loads of a sweep do not need.
"""

from collections.abc import Sequence
from math import exp, log, log1p
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr

from hfbench.statistics.bootstrap import CONFIDENCE, Floats, Interval, student

SIGNIFICANCE = 0.05  # of a series without a step, this share at most shows one
FEWEST_FOR_DRIFT = 8
_MEDIAN_OF_SQUARE = 0.4549  # of a standard normal variable
# A squared median has about a third of the precision of a mean square, and neighbouring differences share a point.
_DRIFT_FREEDOM = 0.25
# Relative. Where every round gives the same number (bytes of memory) the noise is not zero but unknown and small.
_LEAST_NOISE = 1e-5


class Observation(NamedTuple):
    """A result: its estimate, positive, with its 95% interval, from so many rounds; one round has no interval."""

    estimate: float
    low: float | None
    high: float | None
    rounds: int


class Noise(NamedTuple):
    """The variance of the logarithm of each point's estimate, and how many degrees of freedom it is known with."""

    variances: Floats
    degrees_of_freedom: float


class Step(NamedTuple):
    """A change of level between the point `first` and the one before it.

    `ratio` is the level after over the level before, with its 95% interval, the place taken as given; `p_value` counts
    every place at which it could have been.
    """

    first: int
    ratio: Interval
    p_value: float


def find_steps(points: Sequence[Observation], *, threshold: float) -> list[Step] | None:
    """Return the steps in a series of points in their order, none within the threshold; None where noise is unknown.

    A step is beyond the noise, and of more than `threshold`: 0.02 leaves out ratios within 1 / 1.02 … 1.02. Fewer than
    eight points of one round each do not tell the noise. Raises `ValueError` for an estimate that is not positive.
    """
    if any(point.estimate <= 0 for point in points):
        raise ValueError("a ratio needs positive estimates")
    if len(points) < 2:
        return []
    logarithms = np.array([log(point.estimate) for point in points])
    noise = estimate_noise(points)
    if noise is None:
        return None
    penalty = student(1 - SIGNIFICANCE / (len(points) - 1), noise.degrees_of_freedom) ** 2
    cuts = optimal_cuts(logarithms, 1 / noise.variances, penalty)
    while True:
        steps = [_step(logarithms, noise, cuts, place) for place in range(len(cuts))]
        small = [step for step in steps if abs(log(step.ratio.estimate)) <= log1p(threshold)]
        small += [step for step in steps if step.p_value > SIGNIFICANCE]
        if not small:
            return steps
        # One at a time: two small steps in one direction can make one that counts.
        least = min(small, key=lambda step: abs(log(step.ratio.estimate)))
        cuts = [cut for cut in cuts if cut != least.first]


def optimal_cuts(values: Floats, weights: Floats, penalty: float) -> list[int]:
    """Return where to cut the values (the indices at which segments begin, but for the first).

    The cuts minimise the sum over segments of Σ weight · (value - weighted mean of the segment)², plus the penalty for
    each cut. O(n²) time. See `hfbench.statistics.changepoints` for the source.
    """
    centred = values - np.average(values, weights=weights)  # lest the sums of squares lose their digits
    sums = [np.concatenate([[0.0], np.cumsum(weights * centred**power)]) for power in (0, 1, 2)]
    best = np.zeros(len(values) + 1)
    last = np.zeros(len(values) + 1, dtype=np.int64)
    for end in range(1, len(values) + 1):
        weight, first, second = (total[end] - total[:end] for total in sums)
        costs = best[:end] + second - first**2 / weight + penalty * (np.arange(end) > 0)
        last[end] = int(np.argmin(costs))
        best[end] = costs[last[end]]
    cuts = []
    end = int(last[len(values)])
    while end > 0:
        cuts.append(end)
        end = int(last[end])
    return cuts[::-1]


def estimate_noise(points: Sequence[Observation]) -> Noise | None:
    """Return the noise of the logarithms of the estimates; None where nothing tells it."""
    freedom = np.array([point.rounds - 1 if point.low is not None else 0 for point in points])
    rounds = np.array([point.rounds for point in points])
    own = np.array([_round_variance(point) for point in points])
    known = int(freedom.sum())
    if not known and len(points) < FEWEST_FOR_DRIFT:
        return None
    pooled = float(np.average(own, weights=freedom)) if known else 0.0
    between_rounds = np.maximum(np.maximum(own, pooled) / rounds, _LEAST_NOISE**2)
    drift = _drift_variance(np.array([log(point.estimate) for point in points]), between_rounds)
    return Noise(between_rounds + drift, _freedom(float(between_rounds.mean()), known, drift, len(points)))


def _round_variance(point: Observation) -> float:
    """Return the variance of the logarithm of one round, from the interval of `hfbench.statistics.bootstrap`."""
    if point.low is None or point.high is None or point.rounds < 2:
        return 0.0
    quantile = student(CONFIDENCE, point.rounds - 1)
    return point.rounds * (log(point.high / point.low) / 2 / quantile) ** 2


def _drift_variance(logarithms: Floats, between_rounds: Floats) -> float:
    """Return τ² with which the median of squared differences, each over its variance, is that of a normal variable."""
    if len(logarithms) < FEWEST_FOR_DRIFT:
        return 0.0
    squares = np.diff(logarithms) ** 2
    variances = between_rounds[1:] + between_rounds[:-1]

    def excess(drift: float) -> float:
        return float(np.median(squares / (variances + 2 * drift))) - _MEDIAN_OF_SQUARE

    return float(brentq(excess, 0.0, float(squares.max()) / _MEDIAN_OF_SQUARE)) if excess(0.0) > 0 else 0.0


def _freedom(between_rounds: float, known: int, drift: float, points: int) -> float:
    """Return the degrees of freedom of a sum of two estimated variances.

    Source: F. E. Satterthwaite, An approximate distribution of estimates of variance components, Biometrics 2 (1946)
    110.
    """
    if not known:  # then all is told by the differences between neighbours
        return _DRIFT_FREEDOM * points
    return (between_rounds + drift) ** 2 / (between_rounds**2 / known + drift**2 / (_DRIFT_FREEDOM * points))


def _step(logarithms: Floats, noise: Noise, cuts: Sequence[int], place: int) -> Step:
    edges = [0, *cuts, len(logarithms)]
    start, middle, end = edges[place : place + 3]
    before, after = (_level(logarithms, noise, slice(*pair)) for pair in ((start, middle), (middle, end)))
    difference, error = after[0] - before[0], (after[1] + before[1]) ** 0.5
    margin = student(CONFIDENCE, noise.degrees_of_freedom) * error
    p_value = 2 * float(stdtr(noise.degrees_of_freedom, -abs(difference) / error)) * (len(logarithms) - 1)
    ratio = Interval(exp(difference), exp(difference - margin), exp(difference + margin))
    return Step(middle, ratio, min(1.0, p_value))


def _level(logarithms: Floats, noise: Noise, segment: slice) -> tuple[float, float]:
    """Return the weighted mean of a segment and its variance."""
    weights = 1 / noise.variances[segment]
    return float(np.average(logarithms[segment], weights=weights)), 1 / float(weights.sum())


_FEWEST_LOADS = 3  # two points are a line
# Of the range of both axes. A line is on the diagonal, and a curve that hardly bends has its largest distance anywhere.
_LEAST_BEND = 0.1


def knee(loads: Sequence[float], responses: Sequence[float]) -> int | None:
    """Return the index of the knee of `responses` over rising `loads`; None where the curve does not bend upwards."""
    if len(loads) < _FEWEST_LOADS or min(responses) == max(responses):
        return None
    distances = [
        (load - loads[0]) / (loads[-1] - loads[0]) - (response - min(responses)) / (max(responses) - min(responses))
        for load, response in zip(loads, responses, strict=True)
    ]
    place = max(range(len(loads)), key=distances.__getitem__)
    return place if distances[place] >= _LEAST_BEND else None

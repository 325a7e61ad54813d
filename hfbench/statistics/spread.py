"""How values spread: between rounds and within them, by drift, and by outliers."""

from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau, theilslopes

from hfbench.statistics.bootstrap import round_medians

# Of stationary processes one in a hundred is flagged: a sweep has hundreds, and at 5% each table would cry wolf.
SIGNIFICANCE = 0.01
# Of five values even those in perfect order have p = 2/5! = 0.017.
FEWEST_VALUES = 6


class Drift(NamedTuple):
    """The change from the first to the last iteration as a share of the median: 0.05 is 5% slower, if of latencies.

    `low` and `high` enclose `relative_change` with 99% confidence; `p_value` is that of no trend at all.
    """

    relative_change: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether a stationary process would show such a trend less than once in a hundred times."""
        return self.p_value < SIGNIFICANCE


def drift(values: Sequence[float]) -> Drift | None:
    """Return the drift of values that are in the order they were measured; None for fewer than six.

    Whether: `trend_p_values`. How much: the median of the slopes between all pairs, with its interval (P. K. Sen, JASA
    63 (1968) 1379), times the steps from first to last. Neither is misled by an outlier. Both take the noise of
    consecutive iterations as independent; where it is not, the process wandered, which is drift to whoever reads the
    number.
    """
    (p_value,) = trend_p_values([values])
    if p_value is None:
        return None
    series, count = np.asarray(values, dtype=np.float64), len(values)
    if np.all(series == series[0]):
        return Drift(0.0, 0.0, 0.0, p_value)
    slopes = theilslopes(series, alpha=1 - SIGNIFICANCE)
    scale = (count - 1) / abs(float(np.median(series)))
    return Drift(
        relative_change=float(slopes.slope) * scale,
        low=float(slopes.low_slope) * scale,
        high=float(slopes.high_slope) * scale,
        p_value=p_value,
    )


def trend_p_values(series: Sequence[Sequence[float]]) -> list[float | None]:
    """Return, for each series in the order measured, the p-value of there being no trend; None for fewer than six.

    The test of Mann (Econometrica 13 (1945) 245) and Kendall, which is Kendall's tau between value and position, exact
    for so few values, and takes no distribution for granted. Series of one length are tested together: half the time.
    """
    by_length: dict[int, list[int]] = {}
    for index, values in enumerate(series):
        by_length.setdefault(len(values), []).append(index)
    p_values: list[float | None] = [None] * len(series)
    for length, members in by_length.items():
        if length < FEWEST_VALUES:
            continue
        rows = np.array([series[index] for index in members], dtype=np.float64)
        found = kendalltau(np.broadcast_to(np.arange(length), rows.shape), rows, axis=1).pvalue
        # Where all values are equal tau is not defined, and nothing speaks for a trend.
        for index, p_value in zip(members, np.nan_to_num(found, nan=1.0), strict=True):
            p_values[index] = float(p_value)
    return p_values


# B. Iglewicz and D. C. Hoaglin, How to Detect and Handle Outliers (1993): the modified z-score and this threshold.
THRESHOLD = 3.5
_MAD_PER_SIGMA = 0.6745  # the median of |z|, z standard normal
# For more than half of the values equal, where the MAD is zero: the mean of |z| instead, sqrt(2/π) = 1 / 1.2533.
_MEAN_DEVIATION_PER_SIGMA = 0.7979


def outliers(values: Sequence[float]) -> list[bool]:
    """Return, for each value, whether its modified z-score |x - median| · 0.6745 / MAD exceeds 3.5.

    Where more than half of the values are equal the MAD is zero and the mean absolute deviation stands in for it; where
    all are equal, none is an outlier. Median and MAD do not notice up to half of the values, so that one outlier hides
    neither itself nor another, as it can with mean and standard deviation.
    """
    if not len(values):
        return []
    middle = median(values)
    distances = [abs(value - middle) for value in values]
    spread = median(distances) / _MAD_PER_SIGMA or fmean(distances) / _MEAN_DEVIATION_PER_SIGMA
    return [distance > THRESHOLD * spread for distance in distances]


def between_rounds(rounds: Sequence[Sequence[float]]) -> float | None:
    """Return the standard deviation of the rounds' medians (n - 1 in the divisor) over their mean; a share of 1.

    None for one round or where the mean is zero. Raises `ValueError` where a round is empty.
    """
    if len(rounds) < 2:
        return None
    medians = round_medians(rounds)
    mean = float(np.mean(medians))
    return float(np.std(medians, ddof=1)) / abs(mean) if mean else None


def within_rounds(rounds: Sequence[Sequence[float]]) -> float | None:
    """Return the pooled coefficient of variation of the iterations of one round; a share of 1.

    That is the square root of the mean of the rounds' squared coefficients (standard deviation, n - 1 in the divisor,
    over mean), each weighted by its n - 1. None where no round has two values and a mean other than zero.

    One slow iteration in twenty can double it, and it should: this says how restless the machine was. What is not to
    notice such an iteration is 1.4826 · MAD / median (P. J. Rousseeuw and C. Croux, JASA 88 (1993) 1273); the interval
    of the median (`intervals`) does not use either.
    """
    usable = [(values, mean) for values in rounds if len(values) > 1 and (mean := fmean(values))]
    if not usable:
        return None
    # A round's squared coefficient times its n - 1: of so few values, faster than numpy.
    squares = sum(sum((value / mean - 1) ** 2 for value in values) for values, mean in usable)
    return float((squares / sum(len(values) - 1 for values, _ in usable)) ** 0.5)

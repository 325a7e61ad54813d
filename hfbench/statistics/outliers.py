"""Outliers among the iterations of one round: flagged, and never dropped."""

from collections.abc import Sequence
from statistics import fmean, median

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
